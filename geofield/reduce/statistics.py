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

PixelFunction = Callable[[Floats, Floats], float]
"""(values, coverage) of the valid pixels of a field, row-major by block -> a number."""

COUNT, MEAN, M2, MIN, MAX, SUM = range(6)
"""Positions of the moments, the numbers kept per block: sum of c; mean; sum of c (x - mean)**2; least x; greatest x;
sum of c x."""
MOMENTS = 6


@dataclass(frozen=True, slots=True)
class Statistic:
    """One statistic that can be asked for."""

    name: str
    """exactextract's name."""
    needs: Literal["moments", "pairs", "pixels"]
    """What it is made from: sums over pixels, all (value, coverage) pairs in order of value, or a function of all."""
    formula: str
    empty: float
    """Its value where no pixel is valid."""
    moment: Callable[[Floats], Floats] | None = None
    """(..., 6) moments -> (...,)."""
    code: int = -1
    """What kernels know a statistic of pairs by."""
    argument: str = ""
    """Name of its argument: `q`, from 0 to 1, or `value`."""
    function: PixelFunction | None = None
    """Of `pixels`: what the caller gave."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A statistic as asked for."""

    statistic: Statistic
    suffix: str
    """End of the column's name: `mean`, `quantile_25`."""
    q: float = float("nan")
    """For `quantile`; for `frac` the value."""


def _variance(moments: Floats) -> Floats:
    return np.asarray(moments[..., M2] / moments[..., COUNT])


def _stdev(moments: Floats) -> Floats:
    return np.asarray(np.sqrt(_variance(moments)))


def _coefficient_of_variation(moments: Floats) -> Floats:
    return np.asarray(_stdev(moments) / moments[..., MEAN])


QUANTILE, MAJORITY, MINORITY, VARIETY, FRACTION = range(5)
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
        Statistic("quantile", "pairs", _QUANTILE, NAN, code=QUANTILE, argument="q"),
        Statistic("majority", "pairs", "x with the greatest sum of c; the greatest of several", NAN, code=MAJORITY),
        Statistic("mode", "pairs", "the same as majority", NAN, code=MAJORITY),
        Statistic("minority", "pairs", "x with the least sum of c; the least of several", NAN, code=MINORITY),
        Statistic("variety", "pairs", "number of distinct x", NAN, code=VARIETY),
        Statistic("frac", "pairs", "sum(c) of x = value / sum(c)", NAN, code=FRACTION, argument="value"),
    )
}
_CALL = re.compile(r"\s*([a-z_0-9]+)\s*(?:\(\s*(?:(q|value)\s*=)?\s*([^()\s]+)\s*\))?\s*")


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
        if match[3] is not None:
            raise StatisticError(f"{statistic.name} takes no argument; got {text!r}.")
        return Asked(statistic, statistic.name, 0.5 if statistic.name == "median" else NAN)
    if match[2] not in (None, statistic.argument):
        raise StatisticError(f"{statistic.name} takes `{statistic.argument}`, not `{match[2]}`; got {text!r}.")
    if statistic.argument == "value":
        return _fraction(statistic, text, match[3])
    percent = _percent(text, match[3])
    return Asked(statistic, f"{statistic.name}_{percent:f}".replace(".", "_"), float(percent / 100))


def _fraction(statistic: Statistic, text: str, argument: str | None) -> Asked:
    try:
        value = Decimal(argument or "")
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise StatisticError(f"A fraction needs the value it is of, as in 'frac(value=4)'; got {text!r}.")
    name = f"{value.normalize():f}".replace(".", "_").replace("-", "minus_")
    return Asked(statistic, f"{statistic.name}_{name}", float(value))


def user_statistic(function: PixelFunction) -> Asked:
    """A statistic of the caller's own, named after the function.

    Raises
    ------
    StatisticError
        The function has no name of its own, or that of a known statistic.
    """
    name = getattr(function, "__name__", "")
    if not name.isidentifier() or name in STATISTICS:
        raise StatisticError(
            f"A statistic of your own is a function with a name that is not taken; got {name or function!r}. Define it "
            "with `def name(values, coverage): ...`."
        )
    formula = (getattr(function, "__doc__", None) or "the caller's own").strip()
    return Asked(Statistic(name, "pixels", formula, NAN, function=function), name)


def parse_stats(texts: Iterable[str | PixelFunction]) -> tuple[Asked, ...]:
    """Statistics from their names or functions, each once, in the order asked for; `count` is always among them."""
    if isinstance(texts, str):
        raise StatisticError(f"Statistics are given as a list of names; got the text {texts!r}. Pass ({texts!r},).")
    found = (parse_stat(one) if isinstance(one, str) else user_statistic(one) for one in texts)
    asked = {one.suffix: one for one in found}
    asked.setdefault("count", parse_stat("count"))
    return tuple(asked.values())


def known_names() -> list[str]:
    """What `parse_stat` takes."""
    examples = {"": "", "q": "(q=0.25)", "value": "(value=4)"}
    return [row.name + examples[row.argument] for row in STATISTICS.values()]


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
