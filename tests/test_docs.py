"""Pages are true: their code runs, their commands exist, their links lead somewhere, every error has its place."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from geofield import errors
from orchestrate.cli import cli, main

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in DOCS.rglob("*.md") if not {"notebooks", "_build"} & set(path.relative_to(DOCS).parts)),
]
RUN = [DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md")), *sorted((DOCS / "explanation").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)

CALL = re.compile(r"(?:^|[\s(;&|])(?:\.venv/bin/)?geofield ([a-z-]+(?: [^#|;&>)]*)?)")

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of every block of code."""
    yield from FENCE.findall(page.read_text(encoding="utf-8"))


# --- code and commands -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command `geofield` of this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "geofield"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m orchestrate.cli "$@"\n'
    )
    script.chmod(0o755)
    return folder


@pytest.mark.docs
@pytest.mark.parametrize("page", RUN, ids=lambda path: path.stem)
def test_the_code_of_a_page_runs_from_top_to_bottom(
    page: Path, commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(language, text) for language, text in blocks(page) if language in ("sh", "python", "yaml")]
    environment = os.environ | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "MPLBACKEND": "agg"}
    if any("completion bash" in text for _, text in found) and not modern_bash():
        pytest.skip("click completes for bash 4.4 or newer")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for language, text in found:
        if language == "sh":
            for line in text.splitlines():
                type_in(line, environment, monkeypatch)
        elif language == "yaml":
            if name := re.match(r"# (\S+\.yaml)\n", text):  # a file by its name; others are parts of files
                Path(name[1]).write_text(text)
        else:
            import matplotlib

            matplotlib.use("agg")
            exec(compile(text, str(page), "exec"), names)
    from matplotlib import pyplot

    pyplot.close("all")


def type_in(line: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person types: calls of geofield in this process, which saves loading it each time; the rest by bash."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["geofield"] and not set("|&;<>$`") & set(line):
        assert main(words[1:]) == 0, line
    elif words[:1] == ["export"]:
        name, _, value = words[1].partition("=")
        environment[name] = value
        monkeypatch.setenv(name, value)
    elif words:
        done = subprocess.run(["bash", "-euc", line], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def modern_bash() -> bool:
    """Whether bash is one that click completes for."""
    call = [shutil.which("bash") or "bash", "--norc", "-c", "echo ${BASH_VERSION}"]
    said = subprocess.run(call, capture_output=True, text=True, check=False).stdout
    return [int(part) for part in said.split(".")[:2]] >= [4, 4]


@by_page
def test_every_command_on_a_page_exists(page: Path) -> None:
    """Blocks in every language, and code in the running text: command, options and their values are known."""
    text = page.read_text(encoding="utf-8")
    lines = [line for _, block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(geofield [^`]+)`", FENCE.sub("", text))
    for line in lines:
        for call in CALL.findall(line.split("  #")[0]):
            check(call, f"{page.name}: {line.strip()}")


def check(call: str, where: str) -> None:
    try:
        words = shlex.split(call.rstrip(",.:"))
    except ValueError:
        pytest.fail(f"{where}: cannot be read")
    if not words or words[0] not in cli.commands:
        # a sentence about geofield, not a call: those have a word there that is no command and no option
        assert not words[1:] or not words[1].startswith("-"), f"{where}: there is no command {words[0]!r}"
        return
    command: click.Command = cli.commands[words[0]]
    if isinstance(command, click.Group) and len(words) > 1:
        assert words[1] in command.commands, where
        command, words = command.commands[words[1]], words[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help",
        "-h",
    }
    for word in words[1:]:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, f"{where}: {words[0]} has no {word}"


def test_a_wrong_command_is_found() -> None:
    for call in ("run STORE --untill 2025-01-01", "series --fied x", "nonsense --store x", "config look"):
        with pytest.raises(AssertionError, match="here"):
            check(call, "here")
    check("run STORE --until 2025-01-01 --json", "here")


# --- links -----------------------------------------------------------------------------------------------------------


@by_page
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


def anchors(page: Path) -> set[str]:
    """The anchors of headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", sorted((DOCS / "images").iterdir()), ids=lambda path: path.name)
def test_every_picture_is_shown_and_small(path: Path) -> None:
    assert path.stat().st_size < 500_000
    sources = [*PAGES, *(ROOT / "notebooks").glob("*.ipynb")]
    assert any(f"images/{path.name}" in page.read_text(encoding="utf-8") for page in sources)


# --- errors ----------------------------------------------------------------------------------------------------------

CLASSES = {
    name: one for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, errors.GeofieldError)
}


def test_every_error_has_its_place_with_its_kind_in_its_group() -> None:
    text = (DOCS / "reference/errors.md").read_text(encoding="utf-8")
    found: dict[str, tuple[str, str]] = {}
    for group, part in re.findall(r"^## (Retry|Skip|Fix|Stop)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL):
        for name, kind in re.findall(r"^### (\w+)\nkind `(\w+)`", part, re.MULTILINE):
            found[name] = (group.lower(), kind)
    assert found == {name: (one.action, one.kind) for name, one in CLASSES.items()}


def test_kinds_are_told_apart() -> None:
    kinds = [one.kind for one in CLASSES.values()]
    assert len(kinds) == len(set(kinds))


# --- the site --------------------------------------------------------------------------------------------------------


@pytest.mark.docs
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="Sphinx is of the extra `dev`")
    call = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "trees", DOCS]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*call, tmp_path / "site"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    page = (tmp_path / "site/reference/commands.html").read_text()
    assert all(f"geofield-{name}" in page for name in cli.commands)
    assert "zonal_stats" in (tmp_path / "site/reference/python.html").read_text()
    assert (tmp_path / "site/notebooks/01-first-steps.html").is_file()
