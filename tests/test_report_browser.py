"""The report page in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geofield import Store
from orchestrate.report import render, report_of
from tests.support.browser import CONTRASTS, launched, page_of
from tests.test_report import HOSTILE, many, store  # noqa: F401 - a fixture

PHONE = 360
pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def url(store: Store, tmp_path_factory: pytest.TempPathFactory) -> str:  # noqa: F811
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(report_of(store)), encoding="utf-8")
    return path.as_uri()


def ready(page: Any) -> None:
    page.wait_for_selector("body[data-ready]", timeout=30_000)


def test_a_click_on_a_field_shows_its_series(browser: Any, url: str) -> None:
    with page_of(browser, url) as page:
        ready(page)
        order = page.evaluate("now.box.fields.map((one) => one.id)")
        place = order.index(HOSTILE)
        page.locator(f'#map .field[data-field="{place}"]').click()
        assert page.text_content("#field-title") == f"Field {HOSTILE}"
        assert page.locator("#series .estimate").count() == 1
        seen = page.evaluate(
            "Array.from({length: now.box.days}, (_, day) => values(day).observed).filter(Number.isFinite).length"
        )
        assert page.locator("#series .seen").count() == seen > 0
        assert page.locator("#map .chosen").count() == 1
        # what an id would do if it were markup
        assert page.locator("img").count() == 0
        page.locator("#numbers summary").click()
        page.wait_for_selector("#series-table tbody tr")
        assert page.locator("#series-table tbody tr").count() == 10


def test_the_scale_of_one_field_ends_where_values_end(browser: Any, url: str) -> None:
    with page_of(browser, url) as page:
        ready(page)
        assert page.evaluate("range([0.625], [-1, 1])") == [0.125, 1]
        assert page.evaluate("range([0.625], null)") == [0.125, 1.125]
        assert page.evaluate("range([0.25, 0.5], [-1, 1])") == [0.25, 0.5]


def test_another_box_another_map(browser: Any, url: str) -> None:
    with page_of(browser, url) as page:
        ready(page)
        page.select_option("#box", "1")
        page.wait_for_selector("body[data-ready='1']")
        assert "Box c" in page.inner_text("#map-title")
        assert page.locator("#map .field").count() == 0
        assert "No field fits" in page.inner_text("#field-table")


def test_late_refused_boxes_and_receipts_are_there(browser: Any, url: str) -> None:
    with page_of(browser, url) as page:
        ready(page)
        assert "are missing or not current" in page.inner_text("#late-table")
        assert "far" in page.inner_text("#refused-table")
        assert page.locator("#box-table tbody tr").count() == 2
        assert page.locator("#runs .run").count() == 2
        page.locator("#runs .run summary").first.click()
        page.wait_for_selector("#runs pre")
        assert '"rows_written"' in page.inner_text("#runs pre")


def test_the_keyboard_is_enough(browser: Any, url: str) -> None:
    with page_of(browser, url) as page:
        ready(page)
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "map":
                break
        else:
            pytest.fail("the map cannot be reached with the Tab key")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        before = page.inner_text("#field-title")
        chosen = set()
        for key in ("ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown"):
            page.keyboard.press(key)
            chosen.add(page.inner_text("#field-title"))
        assert chosen - {before}
        whole = page.get_attribute("#map", "viewBox")
        page.keyboard.press("+")
        assert page.get_attribute("#map", "viewBox") != whole
        page.keyboard.press("0")
        assert page.get_attribute("#map", "viewBox") == whole
        page.focus("#series")
        last = page.inner_text("#readout")
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("#readout") != last
        button = page.locator("#field-table button").nth(1)
        button.focus()
        page.keyboard.press("Enter")
        # the table is drawn again; the focus stays on the field
        assert page.evaluate("document.activeElement.dataset.field") == button.get_attribute("data-field")


def test_a_search_narrows_the_fields(browser: Any, url: str) -> None:
    with page_of(browser, url) as page:
        ready(page)
        page.fill("#search", "WAIT")
        assert page.locator("#field-table tbody tr").count() == 1
        page.locator("#field-table button").click()
        assert "No rows yet" in page.text_content("#series")
        page.fill("#search", "nothing has this")
        assert "No field fits" in page.inner_text("#field-table")


@pytest.mark.parametrize("width", [PHONE, 1280])
def test_text_can_be_read(browser: Any, url: str, width: int) -> None:
    with page_of(browser, url, width=width, height=780) as page:
        ready(page)
        worst = page.evaluate(CONTRASTS)
        assert len(worst) > 60
        assert worst[0][0] >= 4.5, worst[:5]
        small = page.evaluate(
            "[...document.querySelectorAll('body *')].filter((one) => !(one instanceof SVGElement) &&"
            " one.textContent.trim() && one.getClientRects().length &&"
            " parseFloat(getComputedStyle(one).fontSize) < 12).length"
        )
        assert small == 0


def test_a_phone_scrolls_down_only(browser: Any, url: str) -> None:
    with page_of(browser, url, width=PHONE, height=780, has_touch=True, is_mobile=True) as page:
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
        box = page.locator("#map").bounding_box()
        assert box["width"] > 0.8 * PHONE
        page.locator("#map .field").first.tap()
        # figures in the chart keep their size
        assert page.evaluate("document.getElementById('series').getScreenCTM().a") > 0.85
        targets = page.evaluate(
            "[...document.querySelectorAll('.zoom button, select, .pages button')]"
            ".map((one) => one.getBoundingClientRect().height)"
        )
        assert min(targets) >= 40


def test_thousands_of_fields_load(browser: Any, tmp_path: Path) -> None:
    """5,000 fields, a year each: 1.8 s to the first series were measured on a busy machine."""
    path = tmp_path / "many.html"
    path.write_text(render(many(5000, 366)), encoding="utf-8")
    began = time.monotonic()
    with page_of(browser, path.as_uri()) as page:
        ready(page)
        assert time.monotonic() - began < 30
        assert page.locator("#map .field").count() == 5000
        assert page.inner_text("#page") == "Page 1 of 100"
        page.click("#after")
        page.locator("#field-table button").first.click()
        assert page.inner_text("#field-title") == "Field field 50"
