"""The demo, as `make demo` runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import geofield

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.mark.timeout(240)
def test_the_demo_ends_with_what_it_did(tmp_path: Path) -> None:
    for _ in range(2):  # the second one begins anew
        done = subprocess.run(
            [sys.executable, "-m", "orchestrate.demo"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert re.search(
        r"times +are sums over boxes that ran at the same time; by the clock the demo took \d+ s", done.stdout
    )
    assert re.search(r"days appended   60 box-days in [0-9.]+ s, [0-9]+ ms a day", done.stdout)
    assert re.search(r"late fields     13 fields, 230 field-days .*: 0 source reads, 0 box tasks", done.stdout)
    assert re.search(r"read the source [0-9]+ times and taken about", done.stdout)
    assert re.search(r"late scene      15 days amended at once with 1 source reads, 360 rows replaced", done.stdout)
    assert re.search(r"run again       0 days and rows written", done.stdout)
    assert done.stdout.count(".venv/bin/geofield") == 3
    assert (tmp_path / "demo-store/demo.png").read_bytes().startswith(b"\x89PNG")
    assert "<title>geofield: " in (tmp_path / "demo-store/report.html").read_text()
    rows = geofield.open_store(tmp_path / "demo-store").rows()
    assert set(rows["status"]) == {"observed", "all_masked", "no_acquisition"}
    assert rows["field_id"].nunique() == 48
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "ndvi_filled_mean" in shown.stdout


def test_the_demo_removes_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "demo-store").mkdir()
    (tmp_path / "demo-store/thesis.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "orchestrate.demo"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "was not made by the demo" in done.stderr
    assert (tmp_path / "demo-store/thesis.txt").read_text() == "mine"


def test_seeding_makes_a_store_once(tmp_path: Path) -> None:
    url = tmp_path / "store"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "orchestrate.demo", str(url)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "has boxes already; nothing was changed" in done.stdout
    store = geofield.open_store(url)
    assert set(store.boxes()) == {"north", "south"}
    assert len(list((url / "inbox").rglob("*.geojson"))) == 1, "one file of fields waits, from the first time"
