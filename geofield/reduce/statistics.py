"""The statistics, as data: one row each, with its formula. Pure.

Names and definitions are those of exactextract 0.3 (docs/operations.rst, src/raster_stats.h, src/variance.h and
src/weighted_quantiles.cpp of https://github.com/isciences/exactextract/tree/v0.3.0); `x` is a pixel's value, `c` the
share of the pixel that the field covers, sums are over the valid pixels that the field touches. Where exactextract
answers 0 or nothing for a field without a valid pixel, here `count` is 0 and everything else is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

import numpy as np
import numpy.typing as npt

from geofield.errors import StatisticError

Floats = npt.NDArray[np.float64]

COUNT, MEAN, M2, MIN, MAX, SUM = range(6)
"""Positions of the moments, the numbers kept per block: sum of c; mean; sum of c (x - mean)**2; least x; greatest x;
sum of c x."""
MOMENTS = 6


@dataclass(frozen=True, slots=True)
class Statistic:
    """One statistic that can be asked for."""

    name: str
    """exactextract's name."""
    needs: Literal["moments", "pairs"]
    """What it is made from: sums over pixels, or all (value, coverage) pairs in order of value."""
    formula: str
    empty: float
    """Its value where no pixel is valid."""
    moment: Callable[[Floats], Floats] | None = None
    """(..., 6) moments -> (...,)."""
    code: int = -1
    """What kernels know a statistic of pairs by."""
    argument: bool = False
    """Whether it takes `q`, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A statistic as asked for."""

    statistic: Statistic
    suffix: str
    """End of the column's name: `mean`, `quantile_25`."""
    q: float = float("nan")
    """For `quantile`."""


def _variance(moments: Floats) -> Floats:
    return np.asarray(moments[..., M2] / moments[..., COUNT])


def _stdev(moments: Floats) -> Floats:
    return np.asarray(np.sqrt(_variance(moments)))


def _coefficient_of_variation(moments: Floats) -> Floats:
    return np.asarray(_stdev(moments) / moments[..., MEAN])


QUANTILE, MAJORITY, MINORITY, VARIETY = range(4)
NAN = float("nan")
_QUANTILE = (
    "over the n distinct values in ascending order with their summed coverage w: s[i] = i w[i] + (n - 1) (w[0] + ... + "
    "w[i-1]), linear in s at q (n - 1) sum(w)"
)

STATISTICS = {
    row.name: row
    for row in (
        Statistic("count", "moments", "sum(c)", 0.0, lambda m: m[..., COUNT]),
        Statistic("sum", "moments", "sum(c x)", NAN, lambda m: m[..., SUM]),
        Statistic("mean", "moments", "sum(c x) / sum(c)", NAN, lambda m: m[..., MEAN]),
        Statistic("variance", "moments", "sum(c (x - mean)**2) / sum(c)", NAN, _variance),
        Statistic("stdev", "moments", "sqrt(variance), of the population", NAN, _stdev),
        Statistic("coefficient_of_variation", "moments", "stdev / mean", NAN, _coefficient_of_variation),
        Statistic("min", "moments", "least x of the pixels touched", NAN, lambda m: m[..., MIN]),
        Statistic("max", "moments", "greatest x of the pixels touched", NAN, lambda m: m[..., MAX]),
        Statistic("median", "pairs", f"q = 0.5 {_QUANTILE}", NAN, code=QUANTILE),
        Statistic("quantile", "pairs", _QUANTILE, NAN, code=QUANTILE, argument=True),
        Statistic("majority", "pairs", "x with the greatest sum of c; the greatest of several", NAN, code=MAJORITY),
        Statistic("mode", "pairs", "the same as majority", NAN, code=MAJORITY),
        Statistic("minority", "pairs", "x with the least sum of c; the least of several", NAN, code=MINORITY),
        Statistic("variety", "pairs", "number of distinct x", NAN, code=VARIETY),
    )
}
_CALL = re.compile(r"\s*([a-z_0-9]+)\s*(?:\(\s*(?:q\s*=)?\s*([^()\s]+)\s*\))?\s*")


def parse_stat(text: str) -> Asked:
    """A statistic from its name, e.g. `mean` or `quantile(q=0.25)`.

    Raises
    ------
    StatisticError
        The name is unknown, or `q` is missing, not asked for, or not from 0 to 1.
    """
    match = _CALL.fullmatch(text)
    statistic = STATISTICS.get(match[1]) if match else None
    if match is None or statistic is None:
        raise StatisticError(f"{text!r} is no statistic. Known are: {', '.join(known_names())}.")
    if not statistic.argument:
        if match[2] is not None:
            raise StatisticError(f"{statistic.name} takes no argument; got {text!r}.")
        return Asked(statistic, statistic.name, 0.5 if statistic.name == "median" else NAN)
    percent = _percent(text, match[2])
    return Asked(statistic, f"{statistic.name}_{percent:f}".replace(".", "_"), float(percent / 100))


def parse_stats(texts: Iterable[str]) -> tuple[Asked, ...]:
    """Statistics from their names, each once, in the order asked for; `count` is always among them."""
    if isinstance(texts, str):
        raise StatisticError(f"Statistics are given as a list of names; got the text {texts!r}. Pass ({texts!r},).")
    asked = {one.suffix: one for one in map(parse_stat, texts)}
    asked.setdefault("count", parse_stat("count"))
    return tuple(asked.values())


def known_names() -> list[str]:
    """What `parse_stat` takes."""
    return [f"{row.name}(q=0.25)" if row.argument else row.name for row in STATISTICS.values()]


def from_moments(asked: Asked, moments: Floats) -> Floats:
    """A statistic of moments, (..., 6) -> (...,), with its empty value where nothing was valid."""
    assert asked.statistic.moment is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        value = asked.statistic.moment(moments)
    return np.where(moments[..., COUNT] > 0, value, asked.statistic.empty)


def _percent(text: str, argument: str | None) -> Decimal:
    """Exact, so that 0.29 gives 29; without trailing zeros."""
    try:
        q = Decimal(argument or "")
    except InvalidOperation:
        q = Decimal("nan")
    if not (q.is_finite() and 0 <= q <= 1):
        raise StatisticError(f"A quantile needs q from 0 to 1, as in 'quantile(q=0.25)'; got {text!r}.")
    percent = (q * 100).normalize()
    return percent.quantize(Decimal(1)) if percent == percent.to_integral() else percent
