"""Every real STAC item end to end: pixels are put where it says they are, and come out as reflectance and classes.

The files of the items are elsewhere; small ones stand in for them, on the items' own pixels.
What they hold is chosen so that the expected reflectance can be worked in the head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geofield.boxes import Box, Variable
from geofield.grid import Grid
from geofield.recipe.variables import encoding_of, observe
from geofield.source import open_source
from tests.support.scenes import stac_item, write_tif
from tests.support.stacs import GEOBOX, write_items

# file, items, offset of its reflectance, keys of red, nir and scl
CASES = [
    ("earthsearch_v1_S2A_29RKH_20200219_bl0214_boaFalse.json", 1, 0.0, ("red", "nir", "scl")),
    ("earthsearch_v1_S2A_32TPS_20230602_bl0509_boaTrue.json", 1, 0.0, ("red", "nir", "scl")),
    ("pc_S2B_T06VVN_20190629_bl0212.json", 1, 0.0, ("B04", "B08", "SCL")),
    ("pc_S2B_T06VVN_20190629_bl0212_rasterext.json", 1, 0.0, ("B04", "B08", "SCL")),
    ("pc_site2_35MNM_2020junjul_13items.geojson", 13, 0.0, ("B04", "B08", "SCL")),
]
SIDE = 40


def items_of(shared: Path, name: str) -> list[dict[str, Any]]:
    """The items of a file."""
    found = json.loads((shared / "data" / "stac" / name).read_text())
    return list(found.get("features", [found]))


def corner_of(item: dict[str, Any], key: str) -> tuple[float, float, float, str]:
    """Left, top and pixel size of an asset, and the CRS: read off the item here, by its plainest words."""
    properties = item["properties"]
    code = properties.get("proj:code") or f"EPSG:{properties['proj:epsg']}"
    size, _, left, _, _, top = item["assets"][key]["proj:transform"][:6]
    return left, top, size, code


def place_in(item: dict[str, Any], key: str) -> tuple[float, float]:
    """Left and top of a pixel of 20 m within what the scene shows: some scenes show a part of their tile."""
    left, top, _, code = corner_of(item, key)
    inside = shapely.geometry.shape(item["geometry"]).representative_point()
    x, y = Transformer.from_crs(4326, code, always_xy=True).transform(inside.x, inside.y)
    return left + (x - left) // 20 * 20, top - (top - y) // 20 * 20


def put_files(folder: Path, item: dict[str, Any], keys: tuple[str, str, str]) -> GeoBox:
    """Small files on the item's pixels: red 1300, nir 4000, a missing pixel, classes 4 and 9; the grid of 10 m."""
    numbers = {"red": np.full((SIDE, SIDE), 1300), "nir": np.full((SIDE, SIDE), 4000)}
    numbers["red"][0, 0] = 0
    classes = np.full((SIDE // 2, SIDE // 2), 4)
    classes[5, 7] = 9
    grid = None
    for name, key in zip(("red", "nir", "scl"), keys, strict=True):
        (left, top), (_, _, size, code) = place_in(item, keys[0]), corner_of(item, key)
        values = classes if name == "scl" else numbers[name]
        box = GeoBox(values.shape, Affine(size, 0, left, 0, -size, top), code)
        path = folder / f"{item['id']}_{key}.tif"
        write_tif(path, values.astype("uint8" if name == "scl" else "uint16"), box, 16)
        item["assets"][key]["href"] = str(path)
        grid = grid or box
    assert grid is not None
    return grid


def read_one(url: str, item: dict[str, Any], grid: GeoBox, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """The acquisition of an item, and its bands on a grid."""
    source = open_source({"type": "stac", "url": url, "collection": "sentinel-2-l2a", **options})
    day = np.datetime64(item["properties"]["datetime"].rstrip("Z")).astype("datetime64[D]").item()
    one = next(found for found in source.search(Grid(grid), day, day) if found.id == item["id"])
    return one, source.read(one, ["red", "nir", "scl"], grid)


@pytest.mark.parametrize(("name", "count", "offset", "keys"), CASES, ids=[case[0].partition(".")[0] for case in CASES])
def test_every_item_gives_reflectance_mask_and_grid(
    shared: Path, tmp_path: Path, name: str, count: int, offset: float, keys: tuple[str, str, str]
) -> None:
    """1300 and 4000 at scale 1/10000 without an offset are 0.13 and 0.40: NDVI 0.27 / 0.53."""
    items = items_of(shared, name)
    assert len(items) == count
    grids = [put_files(tmp_path, item, keys) for item in items]
    for item in items:
        item["collection"] = "sentinel-2-l2a"
    url = write_items(tmp_path / "items.json", *items)
    for item, grid in zip(items, grids, strict=True):
        assert grid.transform.a == 10
        one, values = read_one(url, item, grid)
        assert one.footprint is not None
        left, top, size, _ = corner_of(item, keys[0])
        assert one.footprint == (left, top - 10_980 * size, left + 10_980 * size, top)
        assert values["red"][1, 1] == pytest.approx(0.13 + offset, abs=1e-12)
        assert values["nir"][1, 1] == pytest.approx(0.40 + offset, abs=1e-12)
        assert np.isnan(values["red"]).nonzero()[0].tolist() == [0]
        # class 9 is one pixel of 20 m: rows 10 and 11, columns 14 and 15 of 10 m
        np.testing.assert_array_equal(np.argwhere(values["scl"] == 9), [[10, 14], [10, 15], [11, 14], [11, 15]])
        ndvi = Variable.model_validate({"index": "NDVI", "mask": {"scl": [9]}, "valid_range": [-1, 1]})
        stored = observe(ndvi, values)
        fill = encoding_of(ndvi).fill
        assert stored[1, 1] == round(0.27 / 0.53 / 1e-4)
        assert np.argwhere(stored == fill).tolist() == [[0, 0], [10, 14], [10, 15], [11, 14], [11, 15]]


def _flag_gone(item: dict[str, Any]) -> None:
    del item["properties"]["earthsearch:boa_offset_applied"]


def _nothing_declared(item: dict[str, Any]) -> None:
    _flag_gone(item)
    for key in ("red", "nir"):
        del item["assets"][key]["raster:bands"]


def _old_baseline(item: dict[str, Any]) -> None:
    _nothing_declared(item)
    item["properties"]["s2:processing_baseline"] = "03.01"


def _stac_1_1(item: dict[str, Any]) -> None:
    _nothing_declared(item)
    item["stac_version"] = "1.1.0"
    for key in ("red", "nir"):
        item["assets"][key] |= {"bands": [{"name": key}], "raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0}


@pytest.mark.parametrize(
    ("change", "red", "nir"),
    [
        (lambda item: None, 0.13, 0.40),  # declared, and taken out already: not again
        (_flag_gone, 0.03, 0.30),  # declared on `raster:bands`
        (_nothing_declared, 0.03, 0.30),  # follows from baseline 05.09
        (_old_baseline, 0.13, 0.40),  # and from 03.01
        (_stac_1_1, 0.03, 0.30),  # on the asset
    ],
    ids=["applied", "declared", "by baseline", "old baseline", "STAC 1.1"],
)
def test_a_pixel_of_each_offset_case_of_a_real_item(
    shared: Path, tmp_path: Path, change: Any, red: float, nir: float
) -> None:
    """The item of baseline 05.09, 2023: by hand (1300 - 1000) / 10000 = 0.03 where the offset is to be applied."""
    (item,) = items_of(shared, CASES[1][0])
    grid = put_files(tmp_path, item, CASES[1][3])
    change(item)
    item["collection"] = "sentinel-2-l2a"
    _, values = read_one(write_items(tmp_path / "items.json", item), item, grid)
    assert values["red"][1, 1] == pytest.approx(red, abs=1e-12)
    assert values["nir"][1, 1] == pytest.approx(nir, abs=1e-12)
    # 0.27 / 0.33, or 0.27 / 0.53 where the numbers hold it: both plausible, one true
    ndvi = (values["nir"][1, 1] - values["red"][1, 1]) / (values["nir"][1, 1] + values["red"][1, 1])
    assert ndvi == pytest.approx(0.27 / (red + nir), abs=1e-12)


def test_land_surface_temperature_with_packed_quality(tmp_path: Path) -> None:
    """Kelvin as float32 at 20 m and `combined_qa`, where 0 is clean: any of bits 0 to 3 makes a pixel unusable."""
    coarse = GeoBox((150, 150), Affine(20, 0, GEOBOX.transform.c, 0, -20, GEOBOX.transform.f), "EPSG:32631")
    kelvin = np.full((150, 150), 300.25, "float32")
    kelvin[0, 3] = np.nan
    quality = np.zeros((150, 150), "uint8")
    quality[0, :3] = [0b0001, 0b1000, 0b0001_0000]
    write_tif(tmp_path / "lst.tif", kelvin, coarse, 64)
    write_tif(tmp_path / "qa.tif", quality, coarse, 64)
    assets = {"lst": {"href": "lst.tif"}, "combined_qa": {"href": "qa.tif"}}
    item = stac_item("lst-1", "2023-05-03T10:30:00Z", coarse, assets, "lst", updated="2023-05-04T00:00:00Z",
                     platform="x", constellation="x")  # fmt: skip
    spec = {"type": "stac", "url": write_items(tmp_path / "items.json", item), "preset": "generic",
            "bands": {"lst": "lst", "combined_qa": "combined_qa"}, "quality": ["combined_qa"]}  # fmt: skip
    lst = {"band": "lst", "mask": {"combined_qa": {"bits": [0, 1, 2, 3]}}, "valid_range": [200, 350], "precision": 0.01}
    box = Box.model_validate({"id": "b", "bbox": [0, 0, 1, 1], "start": "2023-05-01", "source": spec,
                              "variables": {"lst": lst}})  # fmt: skip
    source = open_source(box.source)
    day = np.datetime64("2023-05-03").item()
    (one,) = source.search(Grid(coarse), day, day)
    assert source.quality_bands() == ("combined_qa",)
    stored = observe(box.variables["lst"], source.read(one, ["lst", "combined_qa"], coarse))
    encoding = encoding_of(box.variables["lst"])
    assert np.argwhere(stored == encoding.fill).tolist() == [[0, 0], [0, 1], [0, 3]]  # bit 4 is none of those
    assert stored[0, 2] * encoding.scale == pytest.approx(300.25)
