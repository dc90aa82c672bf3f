"""A headless Chromium of the system, driven by playwright; tests that need one skip where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def executable() -> str:
    """Path of the browser; skips where there is none."""
    named = os.environ.get("GEOFIELD_BROWSER")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no browser here: install Chromium (apt-get install chromium), or name one with GEOFIELD_BROWSER")
    return found


@contextmanager
def launched() -> Iterator[Any]:
    """A browser as long as the context lasts."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: it is of the extra `dev`")
    path = executable()
    with api.sync_playwright() as driver:
        # as root, which a container's tests run as, Chromium wants no sandbox; it opens nothing but our own pages
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser: Any, url: str, width: int = 1280, height: int = 900, **options: Any) -> Iterator[Any]:
    """A page that is open; fails at the end if anything was complained of, or fetched from anywhere else."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    origin = url.split("#")[0].rsplit("/", 1)[0]
    page.on("request", lambda asked: None if asked.url.startswith((origin, "data:", "blob:", "ws://127.0.0.1"))
            else complaints.append(f"fetched {asked.url[:200]}"))  # fmt: skip
    page.goto(url)
    try:
        yield page
        assert not complaints, complaints
    finally:
        context.close()


CONTRASTS = """() => {
  // the ratio of WCAG 2 of every visible text against what lies behind it
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (node) => { for (let one = node; one; one = one.parentElement) { const found = parse(getComputedStyle(one).backgroundColor); if (found.length < 4 || found[3] === 1) return found.slice(0, 3); } return [255, 255, 255]; };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    if (!own || !node.getClientRects().length || node.closest("script, style, title, .skip")) continue;
    const style = getComputedStyle(node), svg = node instanceof SVGElement;
    const ink = parse(svg ? style.fill : style.color).slice(0, 3), ground = behind(svg ? node.closest("svg").parentElement : node);
    const [one, other] = [light(ink), light(ground)], ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.push([Math.round(ratio * 100) / 100, node.tagName, node.textContent.trim().slice(0, 40)]);
  }
  return found.sort((one, other) => one[0] - other[0]);
}"""  # noqa: E501
