"""Every statistic beside exactextract: on random rasters and awkward polygons, and on a real patch."""

from __future__ import annotations

import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rioxarray
import shapely
import xarray as xr
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr

from geofield.reduce import ordering, zonal
from geofield.reduce.zonal import zonal_stats
from tests.support.shapes import make_fields, make_geobox

STATS = (
    "count", "sum", "mean", "variance", "stdev", "coefficient_of_variation", "min", "max", "median",
    "quantile(q=0.25)", "quantile(q=0.9)", "majority", "mode", "minority", "variety",
)  # fmt: skip


class SameGrid(NumPyRasterSource):
    """An array on a grid whose pixel size is the grid's own: divided from its bounds it differs in the last digit."""

    def __init__(self, pixels: np.ndarray, geobox: GeoBox, wkt: str) -> None:
        box = geobox.boundingbox
        super().__init__(pixels, box.left, box.bottom, box.right, box.top, srs_wkt=wkt)
        self.resolution = (geobox.transform.a, -geobox.transform.e)

    def res(self) -> tuple[float, float]:
        return self.resolution


def exactextract_stats(pixels: np.ndarray, geobox: GeoBox, fields: gpd.GeoDataFrame) -> pd.DataFrame:
    """exactextract on the same grid, with its zeros for fields without a valid pixel made missing."""
    found = exact_extract(SameGrid(pixels, geobox, fields.crs.to_wkt()), fields, list(STATS), output="pandas")
    found.loc[found["count"] == 0, [name for name in found if name != "count"]] = np.nan
    return found


def compare(pixels: np.ndarray, geobox: GeoBox, fields: gpd.GeoDataFrame) -> None:
    data = wrap_xr(pixels, geobox)
    mine = zonal_stats(data, fields, STATS)
    theirs = exactextract_stats(pixels, data.odc.geobox, fields)
    size = np.nanmax(np.abs(pixels), initial=1.0)
    for name in theirs:
        values, expected = mine[f"value_{name}"].to_numpy(), theirs[name].to_numpy(dtype=np.float64)
        if name in ("min", "max", "majority", "mode", "minority", "variety"):
            np.testing.assert_array_equal(values, expected, err_msg=name)
        elif name == "coefficient_of_variation":
            # Where the mean is next to 0 this amplifies the last digits: comparable as far as the mean is.
            near = np.abs(theirs["mean"]) > 1e-3 * size
            np.testing.assert_allclose(values[near], expected[near], rtol=1e-6, atol=1e-9, err_msg=name)
            assert np.array_equal(np.isnan(values), np.isnan(expected))
        else:
            scale = size**2 if name == "variance" else size
            np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-9 * scale, err_msg=name)


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 2), (12, 9), (300, 530)]),
    resolution=st.sampled_from([(10.0, 10.0), (9.99479, 9.99745), (30.0, 7.0)]),
    values=st.sampled_from(["continuous", "classes", "float32", "constant"]),
    missing=st.sampled_from([0.0, 0.3, 0.97, 1.0]),
)
def test_random_rasters_and_polygons(
    seed: int, shape: tuple[int, int], resolution: tuple[float, float], values: str, missing: float
) -> None:
    rng = np.random.default_rng(seed)
    geobox = make_geobox(*shape, resolution)
    pixels = {
        "continuous": lambda: rng.normal(size=shape),
        "classes": lambda: rng.integers(0, 5, shape).astype(np.float64),
        "float32": lambda: rng.normal(size=shape).astype(np.float32),
        "constant": lambda: np.full(shape, 0.1),
    }[values]()
    pixels[rng.random(shape) < missing] = np.nan
    compare(pixels, geobox, make_fields(12, geobox, seed))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=600)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 300),
    columns=st.integers(2, 300),
    resolution=st.tuples(st.floats(0.5, 40), st.floats(0.5, 40)),
    missing=st.floats(0, 1),
)
def test_more_random_rasters_and_polygons(
    seed: int, rows: int, columns: int, resolution: tuple[float, float], missing: float
) -> None:
    rng = np.random.default_rng(seed)
    geobox = make_geobox(rows, columns, resolution)
    pixels = rng.normal(rng.choice([0, 1, 300]), 1, (rows, columns)).astype(rng.choice([np.float32, np.float64]))
    pixels[rng.random(pixels.shape) < missing] = np.nan
    compare(pixels, geobox, make_fields(12, geobox, seed))


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(12, 9), (300, 530)]),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_the_rule_of_centres_beside_rasterstats(seed: int, shape: tuple[int, int], missing: float) -> None:
    """rasterstats refuses fields that lie wholly outside, so those are left out."""
    rasterstats = pytest.importorskip("rasterstats", reason="a peer of the benchmarks; not installed")
    rng = np.random.default_rng(seed)
    geobox = make_geobox(*shape)
    pixels = rng.normal(size=shape)
    pixels[rng.random(shape) < missing] = -9999
    fields = make_fields(12, geobox, seed)
    fields = fields[fields.intersects(shapely.box(*geobox.boundingbox.bbox).buffer(-1e-6))]
    found = zonal_stats(
        wrap_xr(pixels, geobox, nodata=-9999), fields, ("count", "mean", "min", "max"), coverage="centre"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        theirs = pd.DataFrame(
            rasterstats.zonal_stats(fields.geometry, pixels, affine=geobox.transform, nodata=-9999),
            columns=["count", "mean", "min", "max"],
        )
    np.testing.assert_array_equal(found["value_count"], theirs["count"])
    for name in ("mean", "min", "max"):
        expected = pd.to_numeric(theirs[name]).to_numpy(dtype=np.float64, copy=True)
        expected[theirs["count"] == 0] = np.nan
        np.testing.assert_allclose(found[f"value_{name}"], expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_field_as_large_as_the_grid() -> None:
    geobox = make_geobox(600, 700)
    pixels = np.random.default_rng(0).normal(size=(600, 700))
    field = gpd.GeoDataFrame(geometry=[geobox.extent.geom.buffer(50)], crs="EPSG:32633")
    compare(pixels, geobox, field)
    assert zonal_stats(wrap_xr(pixels, geobox), field, ("count",))["value_count"].item() == 600 * 700


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8"])
@pytest.mark.parametrize("window", [256, 2048])
def test_a_large_field_of_narrow_integers_is_counted_to_the_same_bits(
    dtype: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels of 16 bits are counted, those of 64 bits are sorted; crossing windows or not."""
    monkeypatch.setattr(zonal, "WINDOW", window)
    geobox = make_geobox(600, 700)
    rng = np.random.default_rng(0)
    pixels = rng.normal(0 if dtype == "int16" else 100, 25, (600, 700)).astype(np.int64).clip(-100, 250).astype(dtype)
    pixels[rng.random(pixels.shape) < 0.2] = 7
    field = gpd.GeoDataFrame(geometry=[geobox.extent.geom.centroid.buffer(2950)], crs="EPSG:32633")
    narrow, wide = (wrap_xr(pixels.astype(kind), geobox, nodata=7) for kind in (dtype, np.int64))
    found = zonal_stats(narrow.chunk(y=300, x=300), field, STATS).compute(scheduler="synchronous")
    assert found["value_count"].item() > 2 * ordering.COUNTABLE
    assert found["value_variety"].item() > 100
    xr.testing.assert_identical(found, zonal_stats(wide, field, STATS))
    xr.testing.assert_identical(found, zonal_stats(narrow, field, STATS))


def test_real_fields_and_real_clouds(shared: Path) -> None:
    """44 polygons and 32 acquisitions, whose statistics were computed once with exactextract 0.3.0."""
    folder = shared / "data" / "sentinel2_tomaj"
    fields = gpd.read_parquet(folder / "fields.parquet")
    truth = pd.read_parquet(folder / "truth_exactextract.parquet").set_index(["fid", "time"]).sort_index()
    times = truth.index.unique("time").sort_values()
    ndvi = []
    for time in times:
        name = f"{time:%Y%m%dT%H%M%S}.tif"
        paths = (folder / "cog" / f"{band}_{name}" for band in ("NDVI", "CLM"))
        values, cloud = (rioxarray.open_rasterio(path).isel(band=0).load() for path in paths)
        ndvi.append(values.where(cloud != 1))
    cube = xr.concat(ndvi, pd.Index(times, name="time"))
    assert cube.dtype == np.float32
    stats = ("count", "mean", "stdev", "min", "max", "median")
    found = zonal_stats(cube.rename("ndvi"), fields, stats, id_column="fid")
    frame = found.to_dataframe().reset_index().set_index(["field", "time"])
    frame = frame.reindex(truth.index.set_names(["field", "time"]))
    assert len(frame) == 44 * 32
    assert (truth["count"] == 0).sum() > 400
    for name in ("min", "max"):
        np.testing.assert_array_equal(frame[f"ndvi_{name}"], truth[name], err_msg=name)
    for name in ("count", "mean", "median"):
        np.testing.assert_allclose(frame[f"ndvi_{name}"], truth[name], rtol=1e-6, atol=1e-12, err_msg=name)
    # A field of one valid pixel has no spread: one side says 0, the other the square root of a rounding error.
    np.testing.assert_allclose(frame["ndvi_stdev"], truth["stdev"], rtol=1e-6, atol=1e-9)


def test_the_same_fields_in_degrees(shared: Path) -> None:
    """Reprojected from longitude and latitude the fields keep their numbers to the digits of the file."""
    folder = shared / "data" / "sentinel2_tomaj"
    with rioxarray.open_rasterio(folder / "cog" / "NDVI_20150711T100008.tif") as opened:
        ndvi = opened.isel(band=0)
        projected = zonal_stats(ndvi, gpd.read_parquet(folder / "fields.parquet"), ("count", "mean"))
        degrees = zonal_stats(ndvi, gpd.read_file(folder / "fields_wgs84.geojson"), ("count", "mean"))
    np.testing.assert_allclose(degrees["value_count"], projected["value_count"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(degrees["value_mean"], projected["value_mean"], rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
def test_integers_with_a_number_for_missing(dtype: type) -> None:
    rng = np.random.default_rng(0)
    geobox = make_geobox(40, 50)
    pixels = rng.integers(0, 200, (40, 50)).astype(dtype)
    pixels[rng.random(pixels.shape) < 0.3] = 255
    fields = make_fields(12, geobox, seed=4)
    data = wrap_xr(pixels, geobox, nodata=255)
    as_floats = wrap_xr(np.where(pixels == 255, np.nan, pixels), geobox)
    xr.testing.assert_identical(zonal_stats(data, fields, STATS), zonal_stats(as_floats, fields, STATS))
