"""The files source on real scenes, against rasterio."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.grid import Grid, crop_geobox
from geofield.source import Source, open_source

TOMAJ = {"ndvi": "NDVI_{time}.tif", "cloud": "CLM_{time}.tif"}
ALWAYS = dt.date(2015, 1, 1), dt.date(2020, 12, 31)
pytestmark = pytest.mark.accept


@pytest.fixture
def tomaj(shared: Path) -> Source:
    """32 acquisitions of one patch."""
    return open_source({"type": "files", "root": str(shared / "data/sentinel2_tomaj/cog"), "bands": TOMAJ})


def test_tomaj_native_grid_and_values_are_those_of_the_files(tomaj: Source) -> None:
    native = tomaj.native_geobox()
    assert native is not None
    bounds = (465181.0522318204, 5079244.8912012065, 466180.53145382757, 5080254.63349641)
    geobox = crop_geobox(native, bounds)
    assert geobox.shape == (101, 100)
    found = tomaj.search(Grid(geobox), *ALWAYS)
    assert len(found) == 32
    assert len({one.time.date() for one in found}) == 31
    for one in found:
        assert one.footprint == pytest.approx(bounds, abs=1e-6)
        values = tomaj.read(one, ["ndvi", "cloud"], geobox)
        for band in ("ndvi", "cloud"):
            with rasterio.open(one.assets[band]) as dataset:
                np.testing.assert_array_equal(values[band], dataset.read(1).astype("float64"))


def test_tomaj_twice_on_one_day(tomaj: Source) -> None:
    native = tomaj.native_geobox()
    assert native is not None
    found = tomaj.search(Grid(native), dt.date(2015, 12, 8), dt.date(2015, 12, 8))
    assert [one.time.time() for one in found] == [dt.time(10, 4, 9), dt.time(10, 11, 25)]


def test_scale_and_offset_differ_by_band_and_hold_where_there_are_numbers(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "cog_20200101.tif").symlink_to(shared / "data/cog/riotiler_cog_scale_offset.tif")
    bands = {"one": "cog_{time}.tif", "two": "cog_{time}.tif#2"}
    source = open_source({"type": "files", "root": str(tmp_path), "bands": bands})
    native = source.native_geobox()
    assert native is not None
    values = source.read(source.search(Grid(native), *ALWAYS)[0], ["one", "two"], native)
    with rasterio.open(tmp_path / "cog_20200101.tif") as dataset:
        one, two = dataset.read().astype("float64")
    np.testing.assert_array_equal(values["one"], np.where(one == 0, np.nan, one * 0.0001 + 1000))
    np.testing.assert_array_equal(values["two"], np.where(two == 0, np.nan, two * 0.001 + 2000))
    assert 0 < np.isnan(values["one"]).sum() < one.size


def test_bands_of_100_m_and_200_m_come_on_one_grid(shared: Path) -> None:
    folder = "S2A_29RKH_{date}_0_L2A"
    bands = {"red": f"{folder}/B04.tif", "b8a": f"{folder}/B8A.tif", "scl": f"{folder}/SCL.tif"}
    source = open_source({"type": "files", "root": str(shared / "data/cog"), "bands": bands, "quality": ["scl"]})
    native = source.native_geobox()
    assert native is not None
    assert native.shape == (1098, 1098)
    (one,) = source.search(Grid(native), *ALWAYS)
    values = source.read(one, ["red", "b8a", "scl"], native)
    base = shared / "data/cog/S2A_29RKH_20200219_0_L2A"
    numbers = {}
    for band in ("B04", "B8A", "SCL"):
        with rasterio.open(base / f"{band}.tif") as dataset:
            read = dataset.read(1).astype("float64")
            numbers[band] = np.where(read == 0, np.nan, read)
    np.testing.assert_array_equal(values["red"], numbers["B04"])
    np.testing.assert_array_equal(values["scl"], np.kron(numbers["SCL"], np.ones((2, 2))))
    # centres of 100 m pixels lie a quarter of a 200 m pixel off its centre: weights 9/16, 3/16, 3/16, 1/16
    b8a = numbers["B8A"]
    expected = (9 * b8a[1:-1, 1:-1] + 3 * b8a[:-2, 1:-1] + 3 * b8a[1:-1, :-2] + b8a[:-2, :-2]) / 16
    mine = values["b8a"][2:-2:2, 2:-2:2]
    full = np.isfinite(expected)
    assert full.mean() > 0.5
    np.testing.assert_allclose(mine[full], expected[full], rtol=1e-12)


def test_real_scene_in_degrees_is_the_same_in_any_window(shared: Path) -> None:
    bands = {"red": "S2A_29RKH_{date}_0_L2A/B04.tif"}
    source = open_source({"type": "files", "root": str(shared / "data/cog"), "bands": bands, "quality": []})
    degrees = GeoBox((600, 700), Affine(1.1e-3, 0, -11.9, 0, -1e-3, 25.2), "EPSG:4326")
    (one,) = source.search(Grid(degrees), *ALWAYS)
    whole = source.read(one, ["red"], degrees)["red"]
    assert np.isfinite(whole).mean() > 0.5
    for y, x in ((0, 0), (123, 456), (599, 699), (256, 512)):
        part = source.read(one, ["red"], degrees[y:, x:])["red"]
        np.testing.assert_array_equal(part, whole[y:, x:])
