"""Late scenes and changed boxes through the runner and the command line."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

import geofield
from geofield import Cube
from geofield.errors import BoxError
from geofield.pipeline.verify import verify
from orchestrate import run
from orchestrate.cli import main
from orchestrate.inbox import submit

START, END = dt.date(2025, 5, 1), dt.date(2025, 5, 9)


def describe(**source: Any) -> dict[str, Any]:
    return {
        "id": "b",
        "bbox": [500000, 5079000, 500600, 5079500],
        "crs": "EPSG:32633",
        "start": str(START),
        "grid": {"crs": "EPSG:32633"},
        "source": {"type": "simulated", "seed": 11, "revisit": 2, "phase": 0, **source},
        "variables": {"ndvi": {"index": "NDVI", "valid_range": [-1, 1], "state": "kalman"}},
    }


def make_store(url: str, folder: Path, box: dict[str, Any]) -> geofield.Store:
    store = geofield.create_store(url)
    store.add_box(geofield.Box.model_validate(box))
    shapes = [shapely.box(500105, 5079105, 500205, 5079255), shapely.box(500305, 5079105, 500455, 5079405)]
    fields = gpd.GeoDataFrame(
        {"field_id": ["f1", "f2"], "planting_date": str(START)}, geometry=shapes, crs="EPSG:32633"
    )
    path = folder / "fields.geojson"
    path.write_text(fields.to_json())
    submit(store, [path], "fields", {"crs": "EPSG:32633"})
    return store


def check_equal(one: geofield.Store, other: geofield.Store) -> None:
    pd.testing.assert_frame_equal(one.rows(), other.rows(), check_exact=True)
    mine, theirs = one.cube("b").open(), other.cube("b").open()
    assert set(mine.data_vars) == set(theirs.data_vars)
    for name in theirs.data_vars:
        assert np.array_equal(mine[name].values, theirs[name].values, equal_nan=True), name


def acquired(store: geofield.Store) -> list[dt.date]:
    cube = store.cube("b").open()
    days: list[dt.date] = cube["time"].values[cube["acquired"].values].astype("datetime64[D]").tolist()
    return days


@pytest.mark.parametrize("look_back", [30, 2])
def test_a_late_scene_is_amended_within_the_look_back(store_url: str, tmp_path: Path, look_back: int) -> None:
    fresh = make_store(str(tmp_path / "fresh"), tmp_path, describe())
    run(fresh, END)
    days = acquired(fresh)
    assert len(days) >= 3
    store = make_store(store_url, tmp_path, describe(withhold=[str(days[1])]))
    run(store, END)
    assert days[1] not in acquired(store)
    store.change_box(geofield.Box.model_validate(describe()))
    receipt = run(store, END, look_back=look_back)["boxes"]["b"]
    if look_back == 2:
        assert receipt["days_amended"] == 0
        return
    assert receipt["days_amended"] == (END - days[1]).days + 1
    assert (receipt["source_reads"], receipt["days_appended"], receipt["late"]["fields"]) == (1, 0, 0)
    check_equal(store, fresh)
    again = run(store, END)["boxes"]["b"]
    assert (again["days_amended"], again["rows_written"], again["source_reads"]) == (0, 0, 0)


def test_a_changed_box_is_built_anew_by_the_next_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(str(tmp_path / "store"), tmp_path, describe())
    run(store, END)
    changed = describe() | {
        "variables": {
            "ndvi": {"index": "NDVI", "valid_range": [-1, 1], "state": "kalman", "q": 1e-3},
            "ndmi": {"index": "NDMI", "valid_range": [-1, 1], "stats": ["mean"]},
        }
    }
    path = tmp_path / "box.json"
    path.write_text(json.dumps(changed))
    assert main(["add-box", store.url, str(path)]) == 2
    assert "with --replace" in capsys.readouterr().err
    assert main(["add-box", store.url, str(path), "--replace"]) == 0
    assert store.box("b").variables["ndvi"].q is None
    capsys.readouterr()
    assert main(["plan", store.url, "--until", str(END), "--json"]) == 0
    assert [step["action"] for step in json.loads(capsys.readouterr().out)["steps"]] == ["rebuild"]
    receipt = run(store, END)
    assert receipt["errors"] == []
    assert receipt["boxes"]["b"]["days_amended"] == 9
    fresh = make_store(str(tmp_path / "fresh"), tmp_path, changed)
    run(fresh, END)
    check_equal(store, fresh)
    assert store.pending_change("b") is None


def noisy(q: float) -> geofield.Box:
    """The box with another noise: a new cube."""
    return geofield.Box.model_validate(
        describe() | {"variables": {"ndvi": {"index": "NDVI", "valid_range": [-1, 1], "state": "kalman", "q": q}}}
    )


def fresh_store(folder: Path, box: dict[str, Any], until: dt.date = END) -> geofield.Store:
    """The store that there would be if the box had been so from the start."""
    store = make_store(str(folder / "fresh"), folder, box)
    run(store, until)
    return store


def test_a_change_can_be_taken_back_when_the_run_died_after_the_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cube is the new one and the description the old one."""
    store = make_store(str(tmp_path / "store"), tmp_path, describe())
    run(store, END)
    store.change_box(noisy(1e-3))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(geofield.Store, "finish_change", killed)
        with pytest.raises(KeyboardInterrupt):
            run(store, END)
    store.change_box(geofield.Box.model_validate(describe()))
    assert run(store, END)["errors"] == []
    check_equal(store, fresh_store(tmp_path, describe()))


@pytest.mark.parametrize("last", [noisy(5e-3), geofield.Box.model_validate(describe())], ids=["another", "taken back"])
def test_what_is_asked_for_while_a_change_is_built_is_built_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: geofield.Box
) -> None:
    store = make_store(str(tmp_path / "store"), tmp_path, describe())
    run(store, END)
    store.change_box(noisy(1e-3))
    adopt = Cube.adopt

    def changed_again(self: Cube, *args: Any) -> None:
        monkeypatch.setattr(Cube, "adopt", adopt)
        store.change_box(last)
        adopt(self, *args)

    monkeypatch.setattr(Cube, "adopt", changed_again)
    assert run(store, END)["errors"] == []
    assert store.pending_change("b") is None
    assert store.box("b").variables == last.variables
    check_equal(store, fresh_store(tmp_path, last.model_dump(mode="json")))


def test_a_change_taken_back_before_it_is_built_builds_nothing(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"), tmp_path, describe())
    run(store, END)
    tip = store.cube("b").tip()
    store.change_box(noisy(1e-3))
    store.change_box(geofield.Box.model_validate(describe()))
    assert run(store, END)["errors"] == []
    assert store.pending_change("b") is None
    assert store.cube("b").tip() == tip


def test_an_earlier_first_day_is_a_new_cube_and_a_later_one_is_refused(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"), tmp_path, describe())
    earlier, later = (describe() | {"start": str(START + dt.timedelta(days=days))} for days in (-3, 3))
    store.change_box(geofield.Box.model_validate(later))  # there is no day yet
    store.change_box(geofield.Box.model_validate(describe()))
    run(store, END)
    store.change_box(geofield.Box.model_validate(earlier))
    assert store.pending_change("b") is not None
    assert run(store, END)["errors"] == []
    check_equal(store, fresh_store(tmp_path, earlier))
    assert verify(store.location) == []
    with pytest.raises(BoxError, match="holds days and rows from 2025-04-28 on"):
        store.change_box(geofield.Box.model_validate(later))
    assert store.pending_change("b") is None
