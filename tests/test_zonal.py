"""zonal_stats over xarray: shapes and names, any orientation, laziness, errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401 - registers .rio
import shapely
import xarray as xr
from odc.geo.xr import xr_coords

from geofield.errors import CrsError, GridError, InputError, StatisticError
from geofield.reduce import zonal
from geofield.reduce.coverage import coverage
from geofield.reduce.zonal import zonal_stats
from tests.support.shapes import make_fields, make_geobox

STATS = ("count", "mean", "stdev", "min", "max", "median", "quantile(q=0.25)", "majority")
SHAPE = (600, 700)


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    """(time, y, x) float32, a third missing."""
    geobox = make_geobox(*SHAPE)
    pixels = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    pixels[pixels > 0.5] = np.nan
    coords = {"time": pd.date_range("2025-04-01", periods=3), **xr_coords(geobox)}
    return xr.DataArray(pixels, dims=("time", "y", "x"), coords=coords, name="ndvi")


@pytest.fixture(scope="module")
def fields() -> gpd.GeoDataFrame:
    return make_fields(24, make_geobox(*SHAPE), seed=2)


@pytest.fixture(scope="module")
def expected(cube: xr.DataArray, fields: gpd.GeoDataFrame) -> xr.Dataset:
    return zonal_stats(cube, fields, STATS, id_column="name")


def nine() -> tuple[xr.DataArray, gpd.GeoDataFrame]:
    """1 2 3 / 4 5 6 / 7 8 9 and a square of four pixels' worth of area in the middle."""
    data = xr.DataArray(
        np.arange(1.0, 10).reshape(3, 3), dims=("y", "x"), coords={"y": [2.5, 1.5, 0.5], "x": [0.5, 1.5, 2.5]}
    )
    square = gpd.GeoDataFrame({"name": ["mid"]}, geometry=[shapely.box(0.5, 0.5, 2.5, 2.5)], crs="EPSG:32633")
    return data.rio.write_crs("EPSG:32633"), square


def test_one_to_nine() -> None:
    data, square = nine()
    found = zonal_stats(data, square, ("count", "mean"), id_column="name")
    assert found.sizes == {"field": 1}
    assert found["field"].to_numpy().tolist() == ["mid"]
    assert list(found.data_vars) == ["value_count", "value_mean"]
    assert found["value_count"].item() == 4.0
    assert found["value_mean"].item() == 5.0


def test_names_dimensions_and_coordinates(cube: xr.DataArray, fields: gpd.GeoDataFrame) -> None:
    found = zonal_stats(cube.assign_coords(day=("time", [1, 2, 3])), fields, ("mean", "quantile(q=0.25)"))
    assert list(found.data_vars) == ["ndvi_mean", "ndvi_quantile_25"]
    assert found["ndvi_mean"].dims == ("field", "time")
    assert found["ndvi_mean"].dtype == np.float64
    assert set(found.coords) == {"field", "time", "day"}
    frame = found.to_dataframe()
    assert frame.index.names == ["field", "time"]
    assert len(frame) == 24 * 3


def test_a_dataset_keeps_its_variables_apart(cube: xr.DataArray, fields: gpd.GeoDataFrame) -> None:
    data = xr.Dataset({"ndvi": cube, "slope": cube.isel(time=0, drop=True), "acquired": ("time", [True, True, False])})
    found = zonal_stats(data, fields, ("mean",))
    assert list(found.data_vars) == ["ndvi_mean", "slope_mean"]
    assert found["slope_mean"].dims == ("field",)
    np.testing.assert_array_equal(found["slope_mean"], found["ndvi_mean"].isel(time=0))


@pytest.mark.parametrize(
    "turn",
    [
        lambda data: data.isel(y=slice(None, None, -1)),
        lambda data: data.isel(x=slice(None, None, -1)),
        lambda data: data.transpose("x", "time", "y"),
        lambda data: data.rename(y="latitude", x="longitude"),
        lambda data: data.rename(y="lat", x="lon"),
        lambda data: data.astype(np.float64),
        lambda data: data.copy(data=np.asfortranarray(data.to_numpy())),
    ],
    ids=["y upwards", "x backwards", "transposed", "latitude", "lat", "float64", "columns first"],
)
def test_any_orientation_gives_the_same_bits(
    turn: Callable[[xr.DataArray], xr.DataArray], cube: xr.DataArray, fields: gpd.GeoDataFrame, expected: xr.Dataset
) -> None:
    xr.testing.assert_identical(zonal_stats(turn(cube), fields, STATS, id_column="name"), expected)


def test_a_coverage_in_place_of_the_fields(cube: xr.DataArray, fields: gpd.GeoDataFrame, expected: xr.Dataset) -> None:
    cover = coverage(fields, cube.odc.geobox, id_column="name")
    xr.testing.assert_identical(zonal_stats(cube, cover, STATS), expected)


@pytest.mark.parametrize(
    "chunks",
    [{"time": 1, "y": 256, "x": 256}, {"time": 2, "y": 100, "x": 333}, {"time": 3, "y": 600, "x": 700}, {"time": 1}],
)
def test_chunks_change_no_bit(
    chunks: dict[str, int], cube: xr.DataArray, fields: gpd.GeoDataFrame, expected: xr.Dataset
) -> None:
    lazy = zonal_stats(cube.chunk(chunks), fields, STATS, id_column="name")
    assert all(variable.chunks is not None for variable in lazy.data_vars.values())
    xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), expected)


@pytest.mark.parametrize("window", [256, 512])
def test_windows_change_no_bit(
    window: int, cube: xr.DataArray, fields: gpd.GeoDataFrame, expected: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zonal, "WINDOW", window)
    monkeypatch.setattr(zonal, "PIXELS_AT_ONCE", 2 * window * window)
    for data in (cube, cube.chunk(time=2, y=90, x=400)):
        found = zonal_stats(data, fields, STATS, id_column="name").compute(scheduler="synchronous")
        xr.testing.assert_identical(found, expected)


def counted(loaded: list[tuple[int, ...]], cube: xr.DataArray, chunks: tuple[int, int, int]) -> xr.DataArray:
    """The cube as a Dask array that notes which chunks are loaded."""

    def load(block_id: tuple[int, ...] = ()) -> np.ndarray:
        loaded.append(block_id)
        part = tuple(slice(i * size, (i + 1) * size) for i, size in zip(block_id, chunks, strict=True))
        return cube.to_numpy()[part]

    sizes = tuple(
        tuple(min(size, length - at) for at in range(0, length, size))
        for size, length in zip(chunks, cube.shape, strict=True)
    )
    array = da.map_blocks(load, chunks=sizes, dtype=cube.dtype, meta=np.empty((0, 0, 0), cube.dtype))
    return cube.copy(data=array)


def test_only_touched_chunks_are_loaded_and_only_when_computed(cube: xr.DataArray) -> None:
    loaded: list[tuple[int, ...]] = []
    data = counted(loaded, cube, (1, 100, 100))
    a = cube.odc.geobox.transform
    at = [(5, 5), (250, 255), (590, 690)]  # rows and columns of upper left corners; the second crosses two chunks
    squares = [shapely.box(a.c + 10 * x, a.f - 10 * (y + 8), a.c + 10 * (x + 8), a.f - 10 * y) for y, x in at]
    fields = gpd.GeoDataFrame(geometry=squares, crs="EPSG:32633")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("computed while the graph was built")

    with dask.config.set(scheduler=refuse):
        lazy = zonal_stats(data, fields, STATS)
    assert loaded == []
    found = lazy.compute(scheduler="synchronous")
    assert sorted(loaded) == [(t, y, x) for t in range(3) for y, x in ((0, 0), (2, 2), (5, 6))]
    xr.testing.assert_identical(found, zonal_stats(cube, fields, STATS))


def test_tasks_are_counted(cube: xr.DataArray, fields: gpd.GeoDataFrame) -> None:
    """Beside the chunks: one task per chunk of time and window, one that combines, and the coverages."""
    data = cube.chunk(time=1, y=100, x=100)
    graph = dict(zonal_stats(data, fields, ("mean",))["ndvi_mean"].data.dask)
    own = {key for key in graph if str(key[0] if isinstance(key, tuple) else key).startswith("zonal-")}
    assert len(own) == 3 * (1 + 1) + 2


def test_one_day_loads_one_day(cube: xr.DataArray, fields: gpd.GeoDataFrame) -> None:
    loaded: list[tuple[int, ...]] = []
    lazy = zonal_stats(counted(loaded, cube, (1, 300, 350)), fields, ("mean",))
    lazy.isel(time=1).compute(scheduler="synchronous")
    assert {block[0] for block in loaded} == {1}
    assert len(loaded) == len(set(loaded)) == 4


def test_a_raster_on_disk_is_read_in_windows(
    tmp_path: Path, cube: xr.DataArray, fields: gpd.GeoDataFrame, expected: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    cube.to_dataset().to_zarr(tmp_path / "cube.zarr", encoding={"ndvi": {"chunks": (1, 256, 256)}}, consolidated=False)
    monkeypatch.setattr(zonal, "WINDOW", 256)
    with xr.open_zarr(tmp_path / "cube.zarr", chunks=None, consolidated=False) as opened:
        found = zonal_stats(opened["ndvi"], fields, STATS, id_column="name")
        xr.testing.assert_identical(found, expected)
        assert not opened["ndvi"].variable._in_memory


def test_progress_grows_to_one(cube: xr.DataArray, fields: gpd.GeoDataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zonal, "WINDOW", 256)
    monkeypatch.setattr(zonal, "FEW_FIELDS", 5)
    monkeypatch.setattr(zonal, "FIELD_PIXELS", 1500)
    data = xr.Dataset({"ndvi": cube, "slope": cube.isel(time=0, drop=True)})
    told: list[float] = []
    found = zonal_stats(data, fields, STATS, id_column="name", progress=told.append)
    xr.testing.assert_identical(found, zonal_stats(data, fields, STATS, id_column="name"))
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == 1
    assert len(set(told)) > 10


@pytest.mark.parametrize("chunks", [None, {"time": 1}])
def test_fields_outside_of_the_raster(chunks: dict[str, int] | None, cube: xr.DataArray) -> None:
    far = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 10, 10)], crs="EPSG:32633")
    found = zonal_stats(cube if chunks is None else cube.chunk(chunks), far, ("count", "mean", "median"))
    assert found["ndvi_count"].to_numpy().tolist() == [[0, 0, 0]]
    assert np.isnan(found["ndvi_mean"]).all()
    assert np.isnan(found["ndvi_median"]).all()


@pytest.mark.parametrize("chunked", [False, True])
def test_no_times_and_no_fields(chunked: bool, cube: xr.DataArray, fields: gpd.GeoDataFrame) -> None:
    cube = cube.chunk() if chunked else cube
    assert zonal_stats(cube.isel(time=slice(0)), fields)["ndvi_mean"].shape == (24, 0)
    assert zonal_stats(cube, fields.iloc[:0])["ndvi_mean"].compute().shape == (0, 3)


def test_coordinates_kept_as_float32() -> None:
    """The step between the first two coordinates does not reach the last: 0.1 is no number of float32."""
    lat, lon = (np.arange(60, 40, -0.1) - 0.05).astype(np.float32), (np.arange(0, 160, 0.1) + 0.05).astype(np.float32)
    data = xr.DataArray(
        np.add.outer(lat, 0 * lon), dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, name="lat_"
    ).rio.write_crs("EPSG:4326")
    field = gpd.GeoDataFrame(geometry=[shapely.box(150, 41, 159, 42)], crs="EPSG:4326")
    found = zonal_stats(data, field, ("count", "mean"))
    assert found["lat__count"].item() == pytest.approx(90 * 10, rel=1e-4)
    assert found["lat__mean"].item() == pytest.approx(41.5, abs=1e-4)


def test_a_missing_crs_is_an_error() -> None:
    data, square = nine()
    with pytest.raises(CrsError, match=r"data\.rio\.write_crs\('EPSG:32633'\).*data\.odc\.assign_crs"):
        zonal_stats(xr.DataArray(data.to_numpy(), dims=("y", "x"), coords={"y": data.y, "x": data.x}), square)
    with pytest.raises(CrsError, match=r"The fields have no CRS"):
        zonal_stats(data, square.set_crs(None, allow_override=True))


def test_a_coverage_of_another_grid_is_an_error(cube: xr.DataArray) -> None:
    data, square = nine()
    cover = coverage(square, data.odc.geobox)
    with pytest.raises(GridError, match=r"Coverage: 3 x 3 pixels, EPSG:32633, .*; data: 600 x 700 pixels, EPSG:32633,"):
        zonal_stats(cube, cover)
    shifted = data.assign_coords(x=data.x + 0.5)
    with pytest.raises(GridError, match=r"Coverage: .*bounds \(0.0, .*; data: .*bounds \(0.5, "):
        zonal_stats(shifted, cover)


def test_grids_that_cannot_be_used() -> None:
    data, square = nine()
    with pytest.raises(GridError, match="looked for dimensions"):
        zonal_stats(data.rename(y="row", x="col"), square)
    with pytest.raises(GridError, match=r"no coordinates \['y'\]"):
        zonal_stats(data.drop_vars("y"), square)
    with pytest.raises(GridError, match="not evenly spaced"):
        zonal_stats(data.assign_coords(x=[0.5, 1.5, 2.7]), square)


def test_data_that_cannot_be_used() -> None:
    data, square = nine()
    with pytest.raises(InputError, match=r"dimensions \['time', 'band'\] besides y and x"):
        zonal_stats(data.expand_dims(time=[1, 2], band=[1]), square)
    with pytest.raises(InputError, match="got ndarray"):
        zonal_stats(data.to_numpy(), square)
    with pytest.raises(InputError, match="got complex128"):
        zonal_stats(data.astype(complex), square)
    with pytest.raises(StatisticError, match="'average' is no statistic"):
        zonal_stats(data, square, ("average",))
    with pytest.raises(InputError, match="Attribute nodata of 'value' is no number: 'none'"):
        zonal_stats(data.assign_attrs(nodata="none"), square)
