"""Every notebook runs from a clean kernel, says no word on stderr, and uses public names only.

`GEOFIELD_UPDATE_NOTEBOOKS=1` keeps what they put out.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

import geofield
import geofield.errors
import geofield.pipeline
import orchestrate

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PUBLIC = {
    "geofield": {*geofield.__all__, "plots", "errors"},
    "geofield.plots": set(geofield.plots.__all__),
    "geofield.pipeline": set(geofield.pipeline.__all__),
    "geofield.errors": {name for name in vars(geofield.errors) if not name.startswith("_")},
    "orchestrate": set(orchestrate.__all__),
    "orchestrate.cluster": {"connect", "active"},
}
LARGEST = 400_000

by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def test_there_are_five() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.docs
@pytest.mark.timeout(600)
@by_name
def test_a_notebook_runs_from_a_clean_kernel(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("GEOFIELD_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = read(path)
    run = client.NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    run.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert len(outputs) >= 3
    if os.environ.get("GEOFIELD_UPDATE_NOTEBOOKS"):
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


@by_name
def test_a_notebook_keeps_its_outputs_and_they_are_small(path: Path) -> None:
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert path.stat().st_size < LARGEST
    assert str(ROOT) not in path.read_text()


@by_name
def test_a_notebook_uses_public_names_only(path: Path) -> None:
    source = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
    private = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("geofield", "orchestrate"):
            known = PUBLIC.get(node.module or "", set())
            private += [f"{node.module}.{one.name}" for one in node.names if one.name not in known]
        elif isinstance(node, ast.Import):
            private += [one.name for one in node.names if one.name.startswith(("geofield.", "orchestrate."))]
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner == "geofield" and node.attr not in PUBLIC["geofield"]:
                private.append(f"geofield.{node.attr}")
            if owner == "plots" and node.attr not in PUBLIC["geofield.plots"]:
                private.append(f"plots.{node.attr}")
            if node.attr.startswith("_"):
                private.append(node.attr)
    assert not private
