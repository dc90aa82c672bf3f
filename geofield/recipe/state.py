"""The day-on-day state: a local-level Kalman filter per pixel, on the integers that are stored.

The estimate of today starts from yesterday's as it lies in the cube, so a run that was cut in two gives the same bits
as one that was not. Durbin and Koopman, Time Series Analysis by State Space Methods, 2nd edition, section 2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from geofield.boxes import Variable
from geofield.encoding import AGE, Encoding, FloatArray, IntArray

# Variance by which an index drifts in a day, and of one observation. NDVI: an r of 0.02 squared is the spread of
# Sentinel-2 NDVI over unchanged targets; q lets 30 unseen days add 0.055, the change of a growing canopy in a month.
DEFAULT_Q, DEFAULT_R = 1e-4, 4e-4


@dataclass(frozen=True, slots=True)
class State:
    """The state of one variable on a window, as integers.

    Attributes
    ----------
    filled
        (y, x), the estimate, encoded like the observation.
    sigma0
        (y, x), its standard error on the day the pixel was last seen, encoded like the observation.
    age
        (y, x) int16, days since then on the day `date`; fill: never seen.
    day
        Days since 1970-01-01 of the acquisition that this state includes.
    """

    filled: IntArray
    sigma0: IntArray
    age: IntArray
    day: int


def noise(variable: Variable) -> tuple[float, float]:
    """(q, r): the recipe's, or the defaults."""
    return (
        DEFAULT_Q if variable.q is None else variable.q,
        DEFAULT_R if variable.r is None else variable.r,
    )


def never_seen(encoding: Encoding, shape: tuple[int, int], day: int) -> State:
    """The state before the first observation."""
    return State(
        np.full(shape, encoding.fill, encoding.dtype),
        np.full(shape, encoding.fill, encoding.dtype),
        np.full(shape, AGE.fill, AGE.dtype),
        day,
    )


def advance(before: State, observed: IntArray, encoding: Encoding, q: float, r: float, day: int) -> State:
    """The state after the observations of one day.

    Parameters
    ----------
    before
        The state after the last acquisition.
    observed
        (y, x), encoded; fill where the pixel was not seen.
    q, r
        Variance per day and of an observation, in squared units of the variable.
    day
        Days since 1970-01-01, later than `before.day` unless nothing was seen yet.

    Notes
    -----
    First: m = v, P = r. Later, seen: P = s0^2 + q d, K = P / (P + r), m += K (v - m), s0 = sqrt((1 - K) P), age 0.
    Not seen: m and s0 stay, age grows.
    """
    after = State(np.empty_like(before.filled), np.empty_like(before.sigma0), np.empty_like(before.age), day)
    _advance(
        before.filled, before.sigma0, before.age, np.ascontiguousarray(observed),
        after.filled, after.sigma0, after.age,
        encoding.fill, encoding.scale, AGE.fill, day - before.day, q, r,
    )  # fmt: skip
    return after


def sigma(sigma0: FloatArray, age: FloatArray, q: float) -> FloatArray:
    """Standard error of the estimate `age` days after the pixel was seen: sqrt(s0^2 + q age). NaN: never seen."""
    result: FloatArray = sigma0 * sigma0
    result += q * age
    return np.sqrt(result, out=result)


def grown(
    sigma0: FloatArray, age: FloatArray, place: npt.NDArray[np.int64], gaps: npt.NDArray[np.int64], q: float
) -> tuple[FloatArray, FloatArray]:
    """`sigma` and age on days between stored ones, to the same bits, in one pass over the pixels.

    Parameters
    ----------
    sigma0, age
        (step, pixel) as stored, decoded.
    place, gaps
        (day,) the step that each day starts from, and the days since then.

    Returns
    -------
    Two arrays (day, pixel).
    """
    error, older = np.empty((len(place), age.shape[1])), np.empty((len(place), age.shape[1]))
    _grow(sigma0, age, place, gaps, q, error, older)
    return error, older


@numba.njit(cache=True, nogil=True)
def _grow(sigma0: Any, age: Any, place: Any, gaps: Any, q: float, error: Any, older: Any) -> None:
    for day in range(len(place)):
        s0, before, later, spread = sigma0[place[day]], age[place[day]], older[day], error[day]
        gap = np.float64(gaps[day])
        for pixel in range(len(before)):
            days = before[pixel] + gap
            later[pixel] = days
            spread[pixel] = math.sqrt(s0[pixel] * s0[pixel] + q * days)


@numba.njit(cache=True, nogil=True)
def _advance(
    filled: Any, sigma0: Any, age: Any, observed: Any, filled_out: Any, sigma0_out: Any, age_out: Any,
    fill: int, scale: float, never: int, gap: int, q: float, r: float,
) -> None:  # fmt: skip
    rows, columns = observed.shape
    for y in range(rows):
        for x in range(columns):
            v = observed[y, x]
            seen_before = age[y, x] != never
            if v == fill:
                filled_out[y, x] = filled[y, x]
                sigma0_out[y, x] = sigma0[y, x]
                age_out[y, x] = min(age[y, x] + gap, 32767) if seen_before else never
                continue
            value = v * scale
            if seen_before:
                m = filled[y, x] * scale
                s0 = sigma0[y, x] * scale
                p = s0 * s0 + q * (age[y, x] + gap)
                k = p / (p + r)
                m = m + k * (value - m)
                s0 = math.sqrt((1.0 - k) * p)
            else:
                m = value
                s0 = math.sqrt(r)
            filled_out[y, x] = np.rint(m / scale)
            sigma0_out[y, x] = np.rint(s0 / scale)
            age_out[y, x] = 0
