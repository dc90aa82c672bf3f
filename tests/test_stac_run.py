"""A month of a box out of a STAC API on loopback: the rows of the same files in a folder; what a dead server costs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

import geofield
from geofield.source import gdal, staccatalog
from orchestrate import run
from orchestrate.config import settings
from orchestrate.inbox import submit
from tests.support import smallstore
from tests.support.imageserver import Fault, ImageServer, stac_api
from tests.support.scenes import stac_item, write_tif

START, END = smallstore.START, smallstore.START + dt.timedelta(days=29)
TILE = GeoBox((150, 150), Affine(10, 0, smallstore.X0 - 500, 0, -10, smallstore.Y0 + 1000), smallstore.CRS)
COARSE = GeoBox((75, 75), Affine(20, 0, smallstore.X0 - 500, 0, -20, smallstore.Y0 + 1000), smallstore.CRS)
PASSES = (*((number, 30) for number in range(1, 31, 3)), (7, 40))
"""Day and minute of each scene; there are two on the 7th."""
BANDS = {"red": ("B04", TILE), "nir": ("B08", TILE), "scl": ("SCL", COARSE)}


def make_month(folder: Path) -> list[dict[str, Any]]:
    """Files of a month, named as `files` wants them, and their items, which state the offset in four ways."""
    random = np.random.default_rng(3)
    items = []
    for number, minute in sorted(PASSES):
        time = dt.datetime.combine(smallstore.day(number), dt.time(10, minute), dt.UTC)
        assets: dict[str, dict[str, Any]] = {}
        for band, (key, geobox) in BANDS.items():
            high = 12 if band == "scl" else 6000
            numbers = random.integers(0, high, geobox.shape).astype("uint8" if band == "scl" else "uint16")
            name = f"{time:%Y%m%dT%H%M%SZ}_{key}.tif"
            write_tif(folder / name, numbers, geobox, 64, nodata=0)
            grid = {"proj:shape": list(geobox.shape), "proj:transform": list(geobox.transform)[:6]}
            assets[key] = {"href": f"{{server}}/{name}", **grid}
            if band != "scl" and number % 2:
                assets[key]["raster:bands"] = [{"scale": 0.0001, "offset": -0.1}]
        said = {"s2__processing_baseline": "05.09", "created": f"{time:%Y-%m-%d}"}
        items.append(stac_item(f"S2A_{number:02}_{minute}", time.isoformat(), TILE, assets, **said))
    # delivered a second time, by an older processor: counts for nothing
    items.append({**items[0], "collection": "older", "properties": {
        **items[0]["properties"], "s2:processing_baseline": "02.14"}})  # fmt: skip
    return items


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageServer]:
    folder = tmp_path_factory.mktemp("month")
    with stac_api(folder, make_month(folder)) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staccatalog, "pause", lambda seconds: None)
    monkeypatch.setitem(gdal.OPTIONS, "GDAL_HTTP_RETRY_DELAY", 0.01)
    monkeypatch.setitem(gdal.OPTIONS, "GDAL_HTTP_MAX_RETRY", 1)


def make_store(url: Path, source: dict[str, Any]) -> geofield.Store:
    """A store with one box and three fields, one of them planted late."""
    store = smallstore.make_store(str(url), smallstore.box(source=source))
    fields = [
        smallstore.feature("f1", 20, 20),
        smallstore.feature("f2", 205, 111, 73),
        smallstore.feature("f3", 150, 250, planting_date=str(smallstore.day(12))),
    ]
    submit(store, [smallstore.write_fields(url.parent / f"{url.name}.geojson", *fields)], "fields")
    return store


def stac(api: ImageServer) -> dict[str, Any]:
    return {"type": "stac", "url": api.api, "collection": ["sentinel-2-l2a", "older"]}


def test_a_month_gives_the_rows_of_the_same_files(api: ImageServer, tmp_path: Path) -> None:
    bands = {
        name: {"path": f"{{time}}_{key}.tif"} | ({} if name == "scl" else {"scale": 0.0001, "offset": -0.1})
        for name, (key, _) in BANDS.items()
    }
    files = {"type": "files", "root": str(api.folder), "bands": bands, "quality": ["scl"]}
    rows = []
    for name, source in (("stac", stac(api)), ("files", files)):
        store = make_store(tmp_path / name, source)
        receipt = run(store, END)["boxes"]["b"]
        assert receipt["days_appended"] == 30
        rows.append(smallstore.numbers(store).drop(columns=["digest"]))
    pd.testing.assert_frame_equal(rows[0], rows[1], check_exact=True)
    assert len(rows[0]) == 30 + 30 + 19
    counts = rows[0].groupby("status").size()
    assert counts["observed"] == 10 + 10 + 6
    assert rows[0]["ndvi_mean"].notna().sum() == 26


def test_a_server_that_dies_costs_nothing_but_time(api: ImageServer, tmp_path: Path) -> None:
    whole = make_store(tmp_path / "whole", stac(api))
    run(whole, END)
    store = make_store(tmp_path / "cut", stac(api))
    once = settings(cluster="threads").model_copy(update={"retries": 0})
    with api.failing(Fault(after=110)):
        receipt = run(store, END, settings=once)
    (error,) = receipt["errors"]
    assert error["kind"] == "source_unavailable"
    before = len(store.cube("b").open()["time"]) if receipt["boxes"]["b"]["days_appended"] else 0
    assert 0 < before < 30
    saved = smallstore.numbers(store)
    run(store, END)
    pd.testing.assert_frame_equal(smallstore.numbers(store), smallstore.numbers(whole), check_exact=True)
    merged = saved.merge(smallstore.numbers(store), how="left", indicator=True)
    assert (merged["_merge"] == "both").all()  # what was there before has stayed as it was


def test_a_reprocessed_scene_corrects_what_it_touches(tmp_path: Path) -> None:
    folder = tmp_path / "month"
    items = make_month(folder)[:3]
    with stac_api(folder, items) as server:
        source = {**stac(server), "url": str(folder / "items-of-the-api.json")}
        store = make_store(tmp_path / "store", source)
        run(store, smallstore.day(9))
        first = smallstore.numbers(store)
        for key in ("B04", "B08"):
            items[1]["assets"][key]["raster:bands"] = [{"scale": 0.0001, "offset": 0.0}]
        path = folder / "items-of-the-api.json"
        path.write_text(path.read_text().replace('"created": "2025-04-04"', '"created": "2025-04-20"'))
        receipt = run(store, smallstore.day(9))["boxes"]["b"]
    assert receipt["days_amended"] > 0
    changed = smallstore.numbers(store)
    same = (changed["digest"] == first["digest"]).groupby(changed["date"]).all()
    assert same.index[~same].min() == smallstore.day(4)
