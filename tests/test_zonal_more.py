"""More of `zonal_stats`: classes, a second raster, the caller's own statistics, the rule of centres, vector cubes."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import exactextract
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import geofield
from geofield.errors import InputError, StatisticError

RNG = np.random.default_rng(5)
SHAPE = (300, 290)  # over two blocks each way
GRID = GeoBox(SHAPE, Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")
CLASSES = RNG.integers(0, 5, SHAPE).astype(float)
VALUES = np.where(RNG.uniform(size=SHAPE) < 0.2, np.nan, RNG.uniform(-1, 1, SHAPE))
WEIGHTS = RNG.uniform(0, 3, SHAPE)
FIELDS = gpd.GeoDataFrame(
    {"name": ["small", "wide", "ring", "none"]},
    geometry=[
        shapely.box(500012, 5489911, 500049, 5489978),
        shapely.Point(502560, 5487440).buffer(900),
        shapely.Point(501200, 5488500).buffer(700) - shapely.Point(501200, 5488500).buffer(400),
        shapely.box(500001, 5487001, 500004, 5487004),
    ],
    crs="EPSG:32631",
).set_index("name")


def raster(values: np.ndarray, name: str = "v", chunks: int | None = None) -> xr.DataArray:
    data = values if chunks is None else da.from_array(values, chunks=(chunks, chunks))
    return xr.DataArray(data, dims=("y", "x"), coords=xr_coords(GRID, dims=("y", "x")), name=name)


def peer(values: np.ndarray, stats: list[str], weights: np.ndarray | None = None) -> pd.DataFrame:
    sources = []
    for array in (values, weights):
        if array is not None:
            box = GRID.boundingbox
            sources.append(
                exactextract.raster.NumPyRasterSource(
                    array, xmin=box.left, ymin=box.bottom, xmax=box.right, ymax=box.top, nodata=np.nan
                )
            )
    given = {} if weights is None else {"weights": sources[1]}
    return exactextract.exact_extract(sources[0], FIELDS, stats, output="pandas", **given)


@pytest.mark.parametrize("chunks", [None, 100])
def test_fractions_of_classes(chunks: int | None) -> None:
    found = geofield.zonal_stats(raster(CLASSES, "scl", chunks), FIELDS, [f"frac(value={k})" for k in range(6)])
    wanted = peer(CLASSES, ["unique", "frac"])
    for k in range(5):
        of_class = [dict(zip(row.unique, row.frac, strict=True)).get(k, 0.0) for row in wanted.itertuples()]
        assert found[f"scl_frac_{k}"].values == pytest.approx(of_class, abs=1e-6)
    assert found["scl_frac_5"].values.tolist() == [0, 0, 0, 0]
    assert sum(found[f"scl_frac_{k}"].values for k in range(5)) == pytest.approx(np.ones(4))


def test_a_fraction_needs_its_value() -> None:
    with pytest.raises(StatisticError, match=r"needs the value it is of, as in 'frac\(value=4\)'"):
        geofield.zonal_stats(raster(CLASSES), FIELDS, ["frac"])
    with pytest.raises(StatisticError, match="frac takes `value`, not `q`"):
        geofield.zonal_stats(raster(CLASSES), FIELDS, ["frac(q=0.5)"])


@pytest.mark.parametrize("chunks", [None, 100])
def test_a_mean_weighted_by_a_second_raster(chunks: int | None) -> None:
    stats = ["weighted_mean", "weighted_sum", "mean"]
    found = geofield.zonal_stats(raster(VALUES, chunks=chunks), FIELDS, stats, weights=raster(WEIGHTS, "w", chunks))
    wanted = peer(VALUES, stats, WEIGHTS)
    for name in stats:
        assert found[f"v_{name}"].values == pytest.approx(wanted[name].to_numpy(float), rel=1e-6, nan_ok=True)


def test_a_pixel_without_a_weight_makes_the_mean_missing() -> None:
    gaps = WEIGHTS.copy()
    gaps[5, 2] = np.nan  # in `small` alone
    values = np.where(np.isnan(VALUES), 0.5, VALUES)
    found = geofield.zonal_stats(raster(values), FIELDS, ["weighted_mean"], weights=raster(gaps, "w"))
    wanted = peer(values, ["weighted_mean"], gaps)["weighted_mean"].to_numpy(float)
    assert np.isnan(wanted).tolist() == [True, False, False, False]
    assert found["v_weighted_mean"].values == pytest.approx(wanted, rel=1e-6, nan_ok=True)


def test_weights_have_to_be_given() -> None:
    with pytest.raises(StatisticError, match="need a second raster: pass it as `weights=`"):
        geofield.zonal_stats(raster(VALUES), FIELDS, ["weighted_mean"])


def spread(values: np.ndarray, coverage: np.ndarray) -> float:
    """Greatest less least."""
    assert values.shape == coverage.shape
    assert not np.isnan(values).any()
    return float(values.max() - values.min())


def weighted(values: np.ndarray, coverage: np.ndarray) -> float:
    return float((values * coverage).sum() / coverage.sum())


@pytest.mark.parametrize("chunks", [None, 64])
def test_statistics_of_the_callers_own(chunks: int | None) -> None:
    found = geofield.zonal_stats(
        raster(VALUES, chunks=chunks), FIELDS, [spread, "median", weighted, "mean", "max", "min"]
    )
    assert found["v_weighted"].values == pytest.approx(found["v_mean"].values, rel=1e-12)
    assert found["v_spread"].values == pytest.approx((found["v_max"] - found["v_min"]).values, rel=1e-12)
    alone = geofield.zonal_stats(raster(VALUES), FIELDS, ["median"])
    assert np.array_equal(found["v_median"].values, alone["v_median"].values, equal_nan=True)


def test_a_function_without_a_name_is_refused() -> None:
    with pytest.raises(StatisticError, match=r"a function with a name that is not taken; got .*<lambda>"):
        geofield.zonal_stats(raster(VALUES), FIELDS, [lambda values, coverage: 0.0])


def test_the_rule_of_centres_is_that_of_rasterio() -> None:
    found = geofield.zonal_stats(raster(VALUES), FIELDS, ["count", "mean", "stdev", "min", "median"], coverage="centre")
    burnt = [rasterio.features.rasterize([shape], SHAPE, transform=GRID.transform) for shape in FIELDS.geometry]
    for number, mask in enumerate(burnt):
        pixels = VALUES[(mask == 1) & ~np.isnan(VALUES)]
        assert found["v_count"].values[number] == len(pixels)
        if len(pixels):
            assert found["v_mean"].values[number] == pytest.approx(pixels.mean(), rel=1e-12)
            assert found["v_stdev"].values[number] == pytest.approx(pixels.std(), rel=1e-12)
            assert found["v_median"].values[number] == pytest.approx(np.median(pixels), rel=1e-12)
    assert found["v_count"].values[3] == 0
    with pytest.raises(InputError, match=r"coverage='all' is no rule\. Known are: exact, centre"):
        geofield.zonal_stats(raster(VALUES), FIELDS, coverage="all")  # type: ignore[arg-type]


def test_tomaj_as_rasterstats_gives_it(shared: Path) -> None:
    folder = shared / "data/sentinel2_tomaj"
    truth = pd.read_parquet(folder / "truth_rasterstats.parquet")
    fields = gpd.read_parquet(folder / "fields.parquet").set_index("fid")
    compared = 0
    for time, wanted in truth.groupby("time"):
        name = f"{time:%Y%m%dT%H%M%S}.tif"
        with (
            rasterio.open(folder / "cog" / f"NDVI_{name}") as ndvi,
            rasterio.open(folder / "cog" / f"CLM_{name}") as mask,
        ):
            values = np.where(mask.read(1) == 1, np.nan, ndvi.read(1).astype(float))
            grid = GeoBox.from_rio(ndvi)
        data = xr.DataArray(values, dims=("y", "x"), coords=xr_coords(grid, dims=("y", "x")), name="v")
        # not the median: rasterstats takes that of the pixels, exactextract that of the distinct values with weights
        stats = ("count", "mean", "stdev", "min", "max")
        found = geofield.zonal_stats(data, fields, stats, coverage="centre")
        rows = wanted.set_index("fid").reindex(fields.index)
        for stat in stats:
            assert found[f"v_{stat}"].values == pytest.approx(
                rows[stat].to_numpy(float), rel=1e-6, abs=1e-9, nan_ok=True
            )
            compared += len(rows)
    assert compared == 44 * 32 * 5


def test_a_vector_cube_for_xvec_and_geopandas() -> None:
    stack = xr.concat([raster(VALUES), raster(VALUES / 2)], pd.Index([1, 2], name="time"))
    found = geofield.zonal_stats(stack, FIELDS.to_crs("EPSG:4326"), ["mean"], geometry=True)
    assert found["geometry"].dims == ("field",)
    table = found["v_mean"].isel(time=0).to_dataframe()
    frame = gpd.GeoDataFrame(table, geometry="geometry", crs=found["geometry"].attrs["crs"])
    assert frame.crs.to_epsg() == 4326
    assert frame.index.tolist() == FIELDS.index.tolist()
    with pytest.raises(InputError, match="pass the fields themselves"):
        geofield.zonal_stats(stack, geofield.coverage(FIELDS, GRID), ["mean"], geometry=True)


def test_xvec_takes_the_vector_cube() -> None:
    pytest.importorskip("xvec", reason="a peer of the benchmarks; not installed")
    found = geofield.zonal_stats(raster(VALUES), FIELDS, ["mean"], geometry=True)
    cube = found.swap_dims(field="geometry").xvec.set_geom_indexes("geometry", crs=found["geometry"].attrs["crs"])
    assert cube.xvec.query("geometry", shapely.Point(502560, 5487440))["v_mean"].size == 1


def test_batches_of_fields_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [shapely.Point(*RNG.uniform((500100, 5487100), (502700, 5489900))).buffer(90) for _ in range(60)]
    fields = gpd.GeoDataFrame(geometry=shapes, index=RNG.permutation(60), crs="EPSG:32631")
    whole = geofield.zonal_stats(raster(VALUES), fields, ["mean", "median"], geometry=True)
    monkeypatch.setattr("geofield.reduce.zonal.FEW_FIELDS", 10)
    monkeypatch.setattr("geofield.reduce.zonal.FIELD_PIXELS", 2500)
    calls = []
    compute = geofield.reduce.zonal.compute_coverage

    def counted(part: gpd.GeoDataFrame, *args: object, **named: object) -> object:
        calls.append(len(part))
        return compute(part, *args, **named)

    monkeypatch.setattr("geofield.reduce.zonal.compute_coverage", counted)
    parts = geofield.zonal_stats(raster(VALUES), fields, ["mean", "median"], geometry=True)
    assert len(calls) > 3
    assert sum(calls) == 60
    assert parts.identical(whole)
    with pytest.raises(InputError, match="occurs 2 times"):
        geofield.zonal_stats(raster(VALUES), pd.concat([fields, fields.iloc[:1]]), ["mean"])


def test_one_statistic_needs_no_list() -> None:
    def spread(values: np.ndarray, coverage: np.ndarray) -> float:
        return float(values.max() - values.min())

    data = raster(VALUES)
    for one in ("mean", spread):
        xr.testing.assert_identical(geofield.zonal_stats(data, FIELDS, one), geofield.zonal_stats(data, FIELDS, [one]))


@pytest.mark.parametrize(
    ("fields", "options", "told"),
    [
        (5, {}, "got int"),
        (list(FIELDS.geometry), {}, "got list"),
        (pd.DataFrame({"name": ["a"]}), {}, "got DataFrame"),
        (gpd.GeoDataFrame({"name": ["a"]}), {}, "no geometry"),
        (FIELDS.geometry, {"id_column": "name"}, "GeoSeries has no column 'name'"),
    ],
)
def test_what_holds_no_polygons_is_told(fields: object, options: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        geofield.zonal_stats(raster(VALUES), fields, **options)
