"""Windows reduced one by one and combined: hand-worked numbers, and bits that depend on the pixels alone."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable, Sequence

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.errors import GridError, InputError, StatisticError
from geofield.grid import Window
from geofield.reduce import ordering
from geofield.reduce.coverage import Coverage, coverage
from geofield.reduce.layer import Layer
from geofield.reduce.partial import Partial, combine, reduce_window
from tests.support.shapes import make_fields, make_geobox

ALL = (
    "count", "sum", "mean", "variance", "stdev", "coefficient_of_variation", "min", "max", "median",
    "quantile(q=0.25)", "quantile(q=0.9)", "majority", "minority", "variety",
)  # fmt: skip
FILL = -32768
ROWS, COLUMNS, DAYS = 600, 700, 3


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name].view(np.int64), other[name].view(np.int64), err_msg=name)


def tiles(size: int) -> list[Window]:
    return [
        Window(y, x, min(y + size, ROWS), min(x + size, COLUMNS))
        for y in range(0, ROWS, size)
        for x in range(0, COLUMNS, size)
    ]


@pytest.fixture(scope="module")
def raw() -> np.ndarray:
    """(time, y, x) int16: few distinct values on the last day, so that there are ties; a third is missing."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(-2000, 10_000, (DAYS, ROWS, COLUMNS)).astype(np.int16)
    pixels[-1] //= 2000
    pixels[rng.random(pixels.shape) < 0.3] = FILL
    pixels[1, 200:400] = FILL
    return pixels


@pytest.fixture(scope="module")
def cover() -> Coverage:
    geobox = make_geobox(ROWS, COLUMNS, (9.99479, 9.99745))
    fields = make_fields(36, geobox, seed=1)
    large = gpd.GeoDataFrame(
        {"name": ["large"]}, geometry=[shapely.box(*geobox.boundingbox.bbox).buffer(-777)], crs=fields.crs
    )
    return coverage(gpd.pd.concat([fields, large], ignore_index=True), geobox)


def reduce_all(
    raw: np.ndarray,
    cover: Coverage,
    windows: Iterable[Window],
    carry: Callable[[np.ndarray], Layer] = lambda raw: Layer(raw, 1e-4, FILL),
    stats: Sequence[str] = ALL,
) -> list[Partial]:
    return [
        reduce_window({"v": carry(raw[:, *window.slices])}, window, cover.within(window), {"v": stats})
        for window in windows
    ]


@pytest.fixture(scope="module")
def whole(raw: np.ndarray, cover: Coverage) -> dict[str, np.ndarray]:
    """One window over everything."""
    return combine(reduce_all(raw, cover, [Window(0, 0, ROWS, COLUMNS)]), cover, {"v": ALL})


def test_one_to_nine() -> None:
    # Rows 1 2 3 / 4 5 6 / 7 8 9 and the square 0.5..2.5: four pixels' worth of area, mean 5.
    geobox = GeoBox((3, 3), Affine(1, 0, 0, 0, -1, 3), "EPSG:32633")
    square = gpd.GeoDataFrame(geometry=[shapely.box(0.5, 0.5, 2.5, 2.5)], crs="EPSG:32633")
    cover = coverage(square, geobox)
    data = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3)
    window = Window(0, 0, 3, 3)
    found = combine([reduce_window({"v": Layer(data)}, window, cover, {"v": ALL})], cover, {"v": ALL})
    expected = {
        "count": 4.0,
        "sum": 20.0,
        "mean": 5.0,
        # 2 (1/4 (16 + 4) + 1/2 (9 + 1)) / 4
        "variance": 5.0,
        "stdev": np.sqrt(5),
        "coefficient_of_variation": np.sqrt(5) / 5,
        "min": 1.0,
        "max": 9.0,
        "median": 5.0,
        # s of 1 2 3 4: 0, 8/4 + 2/4, 8 * 3/4 + 2/4, 8 * 1 + 3/2 = 0, 2.5, 6.5, 9.5; a quarter of 32 is 8: halfway
        "quantile_25": 3.5,
        # from above likewise: s of 8 9: 7/2 + 8 * 13/4 = 29.5, 8/4 + 8 * 15/4 = 32; 0.9 * 32 = 28.8; s of 7: 24 -> 25.5
        "quantile_90": 7 + 3.3 / 4,
        "majority": 5.0,
        "minority": 1.0,
        "variety": 9.0,
    }
    for name, value in expected.items():
        assert found[f"v_{name}"][0, 0] == pytest.approx(value, rel=1e-15), name


def test_the_box_worked_by_hand() -> None:
    """Fields A and B of the worked example: a clear day, a day without imagery, a day with two masked pixels."""
    geobox = GeoBox((4, 4), Affine(10, 0, 500_000, 0, -10, 5_490_000), "EPSG:32631")
    squares = [
        shapely.box(500_000, 5_489_980, 500_020, 5_490_000),
        shapely.box(500_005, 5_489_975, 500_025, 5_489_995),
    ]
    cover = coverage(gpd.GeoDataFrame(index=["A", "B"], geometry=squares, crs="EPSG:32631"), geobox)
    first = np.arange(1000, 7400, 400, dtype=np.int16).reshape(4, 4)
    first[3, 3] = 7000
    third = (first + 1000).astype(np.int16)
    third[1, 1:3] = FILL
    days = np.stack([first, np.full_like(first, FILL), third])
    stats = ("mean", "stdev", "min", "max", "median")
    partial = reduce_window({"ndvi": Layer(days, 1e-4, FILL)}, Window(0, 0, 4, 4), cover, {"ndvi": stats})
    found = combine([partial], cover, {"ndvi": stats})
    nan = np.nan
    expected = {
        "count": [[4, 4], [0, 0], [3, 2.5]],
        "mean": [[0.2, 0.3], [nan, nan], [0.266667, 0.392]],
        "stdev": [[0.082462, 0.116619], [nan, nan], [0.067987, 0.146205]],
        "min": [[0.10, 0.10], [nan, nan], [0.20, 0.20]],
        "max": [[0.30, 0.50], [nan, nan], [0.36, 0.60]],
        "median": [[0.20, 0.30], [nan, nan], [0.24, 0.36]],
    }
    assert found.keys() == {f"ndvi_{name}" for name in expected}
    for name, values in expected.items():
        np.testing.assert_allclose(found[f"ndvi_{name}"], values, rtol=0, atol=5e-7, err_msg=name)


@pytest.mark.parametrize("size", [256, 512, 768])
def test_bits_do_not_depend_on_tiles(size: int, raw: np.ndarray, cover: Coverage, whole: dict[str, np.ndarray]) -> None:
    partials = reduce_all(raw, cover, tiles(size))
    assert_same_bits(combine(partials, cover, {"v": ALL}), whole)


def test_bits_do_not_depend_on_the_order_of_partials(
    raw: np.ndarray, cover: Coverage, whole: dict[str, np.ndarray]
) -> None:
    partials = reduce_all(raw, cover, tiles(256))
    for seed in range(5):
        random.Random(seed).shuffle(partials)
        assert_same_bits(combine(partials, cover, {"v": ALL}), whole)


def test_bits_survive_pickling(raw: np.ndarray, cover: Coverage, whole: dict[str, np.ndarray]) -> None:
    partials = [pickle.loads(pickle.dumps(partial)) for partial in reduce_all(raw, cover, tiles(256))]
    assert_same_bits(combine(partials, cover, {"v": ALL}), whole)


def test_bits_do_not_depend_on_days_in_a_call(raw: np.ndarray, cover: Coverage, whole: dict[str, np.ndarray]) -> None:
    days = [combine(reduce_all(raw[day : day + 1], cover, tiles(512)), cover, {"v": ALL}) for day in range(DAYS)]
    assert_same_bits({name: np.concatenate([day[name] for day in days]) for name in whole}, whole)


def test_bits_do_not_depend_on_the_other_fields(raw: np.ndarray, cover: Coverage, whole: dict[str, np.ndarray]) -> None:
    some = [36, 3, 20]
    taken = cover.take(some)
    found = combine(reduce_all(raw, taken, tiles(256)), taken, {"v": ALL})
    assert_same_bits(found, {name: np.ascontiguousarray(values[:, some]) for name, values in whole.items()})


def test_bits_do_not_depend_on_the_other_statistics(
    raw: np.ndarray, cover: Coverage, whole: dict[str, np.ndarray]
) -> None:
    stats = ("median", "mean")
    found = combine(reduce_all(raw, cover, tiles(256), stats=stats), cover, {"v": stats})
    assert_same_bits(found, {name: whole[name] for name in ("v_median", "v_mean", "v_count")})


def decoded(raw: np.ndarray) -> Layer:
    return Layer(np.where(raw == FILL, np.nan, raw * 1e-4))


@pytest.mark.parametrize(
    "carry",
    [
        decoded,
        lambda raw: Layer(raw.astype(np.float64), 1e-4, FILL),
        lambda raw: Layer(raw.astype(np.float32), 1e-4, FILL),
        lambda raw: Layer(raw.astype(np.int32), 1e-4, FILL),
        lambda raw: Layer(raw.astype(">i2"), 1e-4, FILL),
        lambda raw: Layer(np.asfortranarray(raw), 1e-4, FILL),
    ],
    ids=["decoded", "float64", "float32", "int32", "big-endian", "columns first"],
)
def test_bits_do_not_depend_on_how_values_are_carried(
    carry: Callable[[np.ndarray], Layer], raw: np.ndarray, cover: Coverage, whole: dict[str, np.ndarray]
) -> None:
    assert_same_bits(combine(reduce_all(raw, cover, tiles(256), carry), cover, {"v": ALL}), whole)


def test_count_is_exactly_the_total_when_every_pixel_is_valid(cover: Coverage) -> None:
    ones = np.ones((1, ROWS, COLUMNS), dtype=np.uint8)
    found = combine(reduce_all(ones, cover, tiles(256), Layer, ("mean", "stdev")), cover, {"v": ("mean", "stdev")})
    np.testing.assert_array_equal(found["v_count"][0], cover.total)


def test_a_constant_field_has_its_value_as_mean_and_no_spread(cover: Coverage) -> None:
    same = np.full((1, ROWS, COLUMNS), 1234, dtype=np.int16)
    found = combine(reduce_all(same, cover, tiles(256), stats=("mean", "stdev", "median")), cover,
                    {"v": ("mean", "stdev", "median")})  # fmt: skip
    some = cover.total > 0
    assert (found["v_mean"][0, some] == 1234 * 1e-4).all()
    assert (found["v_median"][0, some] == 1234 * 1e-4).all()
    assert (found["v_stdev"][0, some] == 0).all()


def test_the_spread_of_large_numbers_is_stable(cover: Coverage) -> None:
    small = np.random.default_rng(0).normal(size=(1, ROWS, COLUMNS))
    stats = ("stdev", "mean")
    apart = combine(reduce_all(small + 1e6, cover, tiles(256), Layer, stats), cover, {"v": stats})
    near = combine(reduce_all(small, cover, tiles(256), Layer, stats), cover, {"v": stats})
    np.testing.assert_allclose(apart["v_stdev"], near["v_stdev"], rtol=1e-7, atol=1e-9)


def test_several_layers_with_their_own_statistics(
    raw: np.ndarray, cover: Coverage, whole: dict[str, np.ndarray]
) -> None:
    stats = {"v": ("median", "mean"), "age": ("max",)}
    age = np.arange(DAYS * ROWS * COLUMNS, dtype=np.float32).reshape(raw.shape)
    partials = [
        reduce_window(
            {"v": Layer(raw[:, *window.slices], 1e-4, FILL), "age": Layer(age[:, *window.slices])}, window, cover, stats
        )
        for window in tiles(256)
    ]
    found = combine(partials, cover, stats)
    assert found.keys() == {"v_median", "v_mean", "v_count", "age_max", "age_count"}
    assert_same_bits({"v_median": found["v_median"]}, {"v_median": whole["v_median"]})
    last = np.full(len(cover.ids), np.nan)
    field = np.repeat(np.arange(len(last)), np.diff(cover.segment_start[cover.start]))
    np.fmax.at(last, field, age[0, cover.row, cover.col].astype(np.float64))
    np.testing.assert_array_equal(found["age_max"][0], last)


@pytest.mark.parametrize(
    ("dtype", "fill", "valid"), [(np.uint8, -9999, 4), (np.uint8, 7, 3), (np.int16, 7, 3), (np.float64, 7, 3)]
)
def test_fill_and_nan_are_missing(dtype: type, fill: float, valid: float) -> None:
    geobox = make_geobox(2, 2)
    cover = coverage(gpd.GeoDataFrame(geometry=[shapely.box(*geobox.boundingbox.bbox)], crs=32633), geobox)
    data = np.array([[[7, 1], [2, 3]]], dtype=dtype)
    window = Window(0, 0, 2, 2)
    found = combine(
        [reduce_window({"v": Layer(data, fill=fill)}, window, cover, {"v": ("max",)})], cover, {"v": ("max",)}
    )
    assert found["v_count"].item() == valid
    assert found["v_max"].item() == (7 if valid == 4 else 3)


def skewed(rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
    values = {
        "normal": rng.normal(size=n),
        "few": rng.integers(0, 3, n) * 0.1,
        "one": np.full(n, 0.3),
        "outlier": np.append(rng.random(n - 1), 1e12),
        "clustered": np.append(rng.integers(0, 50, n - 1) * 1e-3, 1e12),
        "infinite": np.where(rng.random(n) < 0.5, np.inf, rng.normal(size=n)),
        "huge": rng.choice([-1.7e308, 1.7e308], n) * rng.random(n),
        "descending": np.linspace(1, 0, n),
        "zeros": rng.choice([0.0, -0.0, 1.0], n),
    }
    return values[kind]


@pytest.mark.parametrize("n", [2, 25, 1000])
@pytest.mark.parametrize(
    "kind", ["normal", "few", "one", "outlier", "clustered", "infinite", "huge", "descending", "zeros"]
)
def test_sorting_is_stable_whatever_the_values(kind: str, n: int) -> None:
    values = skewed(np.random.default_rng(0), kind, n)
    marks = np.arange(n, dtype=np.float64)  # in the place of weights: which value it was
    order = np.argsort(values, kind="stable")
    found, found_marks = np.empty(n), np.empty(n)
    ordering.stable_sort(
        values.copy(), marks.copy(), n, values.min(), values.max(), found, found_marks,
        np.empty(n, np.int32), np.empty(n + 1, np.int32),
    )  # fmt: skip
    np.testing.assert_array_equal(found, values[order])
    np.testing.assert_array_equal(found_marks, marks[order])


def test_a_missing_window_is_an_error(raw: np.ndarray, cover: Coverage) -> None:
    partials = reduce_all(raw, cover, tiles(256))
    with pytest.raises(InputError, match=r"blocks of fields are in no partial, the first is block \d+ of field \d+"):
        combine(partials[1:], cover, {"v": ALL})
    with pytest.raises(InputError, match="in more than one partial"):
        combine([*partials, partials[0]], cover, {"v": ALL})


def test_partials_that_do_not_belong_together(raw: np.ndarray, cover: Coverage) -> None:
    one, other = reduce_all(raw, cover, tiles(512)[:1]), reduce_all(raw[:2], cover, tiles(512)[1:])
    with pytest.raises(InputError, match="same times"):
        combine(one + other, cover, {"v": ALL})
    with pytest.raises(InputError, match="another coverage"):
        combine(one, cover.take([0, 1]), {"v": ALL})
    with pytest.raises(InputError, match="asked are"):
        combine(one, cover, {"v": ("mean",)})
    with pytest.raises(InputError, match="whole grid, not of one window"):
        combine(one, cover.within(Window(0, 0, 256, 256)), {"v": ALL})


def test_layers_have_to_fit(raw: np.ndarray, cover: Coverage) -> None:
    window, stats = Window(0, 0, 256, 256), {"v": ("mean",)}
    with pytest.raises(GridError, match=r"'v' has \(600, 700\) pixels .* has \(256, 256\)"):
        reduce_window({"v": Layer(raw)}, window, cover, stats)
    fitting = raw[:, :256, :256]
    with pytest.raises(InputError, match="have to name the same"):
        reduce_window({"v": Layer(fitting)}, window, cover, {"w": ("mean",)})
    with pytest.raises(InputError, match="same times"):
        reduce_window({"v": Layer(fitting), "w": Layer(fitting[:1])}, window, cover, {"v": ("mean",), "w": ("mean",)})
    with pytest.raises(StatisticError, match="'average' is no statistic"):
        reduce_window({"v": Layer(fitting)}, window, cover, {"v": ("average",)})
    with pytest.raises(GridError, match=r"dimensions \(time, y, x\)"):
        Layer(raw[0])
    with pytest.raises(InputError, match="integers or floats; got complex128"):
        Layer(raw.astype(complex))
    with pytest.raises(InputError, match="scale of a layer is a finite number other than 0"):
        Layer(raw, 0.0)
