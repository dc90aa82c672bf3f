"""Names, arguments and columns of statistics."""

from __future__ import annotations

import exactextract
import numpy as np
import pytest

from geofield.errors import StatisticError
from geofield.reduce.statistics import STATISTICS, from_moments, parse_stat, parse_stats


@pytest.mark.parametrize(
    ("text", "suffix", "q"),
    [
        ("quantile(q=0.25)", "quantile_25", 0.25),
        ("quantile( q = 0.5 )", "quantile_50", 0.5),
        ("quantile(0.29)", "quantile_29", 0.29),
        ("quantile(q=0.025)", "quantile_2_5", 0.025),
        ("quantile(q=0)", "quantile_0", 0.0),
        ("quantile(q=1)", "quantile_100", 1.0),
        ("median", "median", 0.5),
    ],
)
def test_quantiles(text: str, suffix: str, q: float) -> None:
    asked = parse_stat(text)
    assert (asked.suffix, asked.q) == (suffix, q)


def test_every_name_is_one_of_exactextract() -> None:
    raster = exactextract.raster.NumPyRasterSource(np.ones((1, 1)))
    for name, row in STATISTICS.items():
        exactextract.Operation(name, "column", raster, options={"q": "0.5"} if row.argument == "q" else {})


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(StatisticError, match=r"'medain' is no statistic. Known are: count, sum, .*quantile\(q=0.25\)"):
        parse_stat("medain")


@pytest.mark.parametrize(
    "text", ["quantile", "quantile(q=1.1)", "quantile(q=-0.1)", "quantile(q=nan)", "quantile(q=a)"]
)
def test_a_quantile_needs_q(text: str) -> None:
    with pytest.raises(StatisticError, match="needs q from 0 to 1"):
        parse_stat(text)


def test_mean_takes_no_argument() -> None:
    with pytest.raises(StatisticError, match="mean takes no argument"):
        parse_stat("mean(q=0.5)")


def test_count_is_always_there_and_each_once() -> None:
    assert [one.suffix for one in parse_stats(["mean", "max", "mean"])] == ["mean", "max", "count"]
    with pytest.raises(StatisticError, match="list of names"):
        parse_stats("mean")


def test_statistics_of_moments() -> None:
    # Values 1, 2, 6 with weights 1, 1, 2: sum 15, mean 3.75, squares about it 20.75.
    moments = np.array([[4.0, 3.75, 20.75, 1.0, 6.0, 15.0], np.zeros(6)])
    expected = {
        "count": (4.0, 0.0),
        "sum": (15.0, np.nan),
        "mean": (3.75, np.nan),
        "variance": (5.1875, np.nan),
        "stdev": (np.sqrt(5.1875), np.nan),
        "coefficient_of_variation": (np.sqrt(5.1875) / 3.75, np.nan),
        "min": (1.0, np.nan),
        "max": (6.0, np.nan),
    }
    assert set(expected) == {name for name, row in STATISTICS.items() if row.needs == "moments"}
    for name, values in expected.items():
        np.testing.assert_array_equal(from_moments(parse_stat(name), moments), values)
