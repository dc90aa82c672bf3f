"""The project as a whole: locks, versions, what is imported by whom and when, what tracked files may not say."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import geofield
import geofield.errors
import geofield.pipeline
import geofield.plots

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ["requirements.txt", "requirements-dev.txt"]
PYTHONS = ["3.11.4", "3.12.3", "3.13.1", "3.14.0"]


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Name and text of every file that git tracks, binary ones left out."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of the project's files")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or path.is_symlink() or not path.is_file():
            continue
        try:
            yield name, path.read_text()
        except UnicodeDecodeError:
            continue


# --- what tracked files may not say ----------------------------------------------------------------------------------

BUILD_MACHINE = re.compile(
    r"""(?<![\w.$}/~-])/(?:root|home/[\w.-]+|Users/[\w.-]+|work|workspace|builds|opt/wheels|private/tmp)/[\w.-]"""
)
INDEX = re.compile(
    r"""--?(?:extra-)?index-url|--find-links|--trusted-host|["']?resolved["']?\s*:\s*["']https?://
    |https?://[^\s"']+\.(?:whl|tar\.gz)\b|(?:pypi|pythonhosted|artifactory|nexus|devpi)[\w.-]*\.(?:org|com|io|net|local)/simple""",
    re.VERBOSE,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("open('{}root/x/y')", True),
        ("see {}home/ann/project/a.py", True),
        ("{}Users/ann/project", True),
        ("s3://bucket{}work/tomaj", False),
        ("the folder ..{}home/x of a store", False),
        ("https://example.org{}home/x", False),
        ("{}usr/bin/env bash", False),
        ("$HOME{}work/x", False),
    ],
)
def test_paths_of_a_build_machine_are_told_apart(text: str, found: bool) -> None:
    """The slash is put in here, so that this file holds no such path itself."""
    assert bool(BUILD_MACHINE.search(text.format("/"))) is found


def test_no_tracked_file_names_a_path_of_a_build_machine() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if BUILD_MACHINE.search(line) or f"{ROOT}/" in line
    ]
    assert not found


def test_no_tracked_file_names_a_package_index() -> None:
    found = [
        f"{name}: {match.group()}"
        for name, text in tracked_texts()
        # the switches that keep the index out of the locks, and this file
        if name not in {"tests/test_project.py", "Makefile"}
        for match in INDEX.finditer(text)
    ]
    assert not found


# --- locks -----------------------------------------------------------------------------------------------------------


def locked(name: str) -> list[tuple[Requirement, list[str]]]:
    """The requirements of a lock file, each with its hashes."""
    entries = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    found = []
    for entry in entries:
        requirement, *hashes = entry.split("--hash=")
        found.append((Requirement(requirement.strip()), [item.strip() for item in hashes]))
    return found


def versions(name: str, python: str) -> dict[str, str]:
    """What a lock installs on a Python on Linux: name -> version."""
    environment = {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    found: dict[str, str] = {}
    for requirement, _ in locked(name):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            assert canonicalize_name(requirement.name) not in found
            found[canonicalize_name(requirement.name)] = pin.version
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_locks_pin_everything_by_hash(name: str) -> None:
    for requirement, hashes in locked(name):
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", item) for item in hashes)
    # no address, no option, no comment that would tell of the machine that made it
    assert not re.search(r"://|^-|#", (ROOT / name).read_text(), re.MULTILINE)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_what_the_project_asks_for(name: str, python: str) -> None:
    wanted = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["build"]
    if name == "requirements-dev.txt":
        wanted = wanted + PROJECT["project"]["optional-dependencies"]["dev"]
    found = versions(name, python)
    for requirement in map(Requirement, wanted):
        version = found.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {name}: run `make lock`"
        assert requirement.specifier.contains(version), f"{requirement}, locked {version}: run `make lock`"


@pytest.mark.parametrize("python", PYTHONS)
def test_both_locks_agree(python: str) -> None:
    runtime, development = (versions(name, python) for name in LOCKS)
    assert runtime.items() <= development.items()


def test_build_requirements_are_stated_once() -> None:
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]


def test_versions_agree() -> None:
    assert geofield.__version__ == PROJECT["project"]["version"] == importlib.metadata.version("geofield")


# --- what loads when -------------------------------------------------------------------------------------------------

HEAVY = {
    *(
        "bokeh",
        "dask",
        "deltalake",
        "distributed",
        "exactextract",
        "fsspec",
        "geopandas",
        "icechunk",
        "matplotlib",
        "numba",
        "numpy",
    ),
    *(
        "odc",
        "pandas",
        "pyarrow",
        "pyogrio",
        "pyproj",
        "rasterio",
        "rioxarray",
        "s3fs",
        "scipy",
        "shapely",
        "spyndex",
        "xarray",
        "zarr",
    ),
}


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `code`."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_geofield_loads_nothing_heavy() -> None:
    assert not loaded_by("import geofield, geofield.errors") & HEAVY


def test_help_loads_nothing_heavy() -> None:
    # counted, not timed: each of these alone costs a good part of the half second that --help may take
    code = """
from orchestrate.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
"""
    assert not loaded_by(code) & HEAVY


@pytest.mark.parametrize("name", sorted(geofield.__all__))
def test_public_names_load(name: str) -> None:
    assert getattr(geofield, name) is not None
    assert name in dir(geofield)


# --- orchestrate stands on the public names of geofield --------------------------------------------------------------

PUBLIC = {
    "geofield": {*geofield.__all__, "errors", "pipeline"},
    "geofield.pipeline": set(geofield.pipeline.__all__),
    "geofield.plots": set(geofield.plots.__all__),
    "geofield.errors": {name for name in vars(geofield.errors) if not name.startswith("_")},
}


def private_uses(source: str) -> list[str]:
    """What a module takes of geofield beyond its public names."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [
                alias.name
                for alias in node.names
                if alias.name.partition(".")[0] == "geofield" and alias.name not in PUBLIC
            ]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "geofield":
            public = PUBLIC.get(node.module or "", set())
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in public]
        elif (
            isinstance(node, ast.Attribute)
            and (owner := dotted(node.value)) in PUBLIC
            and node.attr not in PUBLIC[owner]
        ):
            found.append(f"{owner}.{node.attr}")
    return found


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression that is made of names only, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import geofield\ngeofield.open_store('x')", []),
        ("from geofield.errors import GeofieldError", []),
        ("from geofield.pipeline import append_day", []),
        ("from geofield.cube.cube import Cube", ["geofield.cube.cube.Cube"]),
        ("import geofield.store", ["geofield.store"]),
        ("from geofield import store", ["geofield.store"]),
        ("import geofield\ngeofield.grid.BLOCK", ["geofield.grid"]),
        ("import geofield.pipeline\ngeofield.pipeline.tile", ["geofield.pipeline.tile"]),
    ],
)
def test_private_uses_are_found(source: str, found: list[str]) -> None:
    assert private_uses(source) == found


def test_orchestrate_uses_only_public_names() -> None:
    found = {
        str(path.relative_to(ROOT)): uses
        for path in sorted((ROOT / "orchestrate").rglob("*.py"))
        if (uses := private_uses(path.read_text()))
    }
    assert not found
