"""Statistics of pairs of value and coverage, in order of value, compiled. Pure; rules as in `kernels`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from geofield.reduce.compiling import FLOATS, INTS, OUT, compiled, fill_shares, index, pixel_types
from geofield.reduce.statistics import FRACTION, MAJORITY, QUANTILE, VARIETY

RUN = 12
"""Runs of this length are sorted by insertion before they are merged."""
COUNTABLE = 2**16
"""Numbers of 16 bits; fields of more than twice as many pixels are counted instead of sorted."""


@compiled
def _merge_sort(value: Any, weight: Any, value2: Any, weight2: Any) -> None:
    """Stable, in place; the second pair of arrays is scratch of the same length."""
    n = len(value)
    for low in range(0, n, RUN):
        _insertion_sort(value[low : low + RUN], weight[low : low + RUN])
    width, swapped = RUN, False
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            i, j = low, middle
            for k in range(low, high):
                if j >= high or (i < middle and value[i] <= value[j]):
                    value2[k], weight2[k] = value[i], weight[i]
                    i += 1
                else:
                    value2[k], weight2[k] = value[j], weight[j]
                    j += 1
        value, weight, value2, weight2 = value2, weight2, value, weight
        swapped = not swapped
        width *= 2
    if swapped:
        value2[:], weight2[:] = value, weight


@compiled
def _insertion_sort(value: Any, weight: Any) -> None:
    for i in range(index(1), index(len(value))):
        x = value[i]
        if value[i - index(1)] > x:
            c, j = weight[i], i
            while j > index(0) and value[j - index(1)] > x:
                value[j], weight[j] = value[j - index(1)], weight[j - index(1)]
                j -= index(1)
            value[j], weight[j] = x, c


@compiled
def stable_sort(
    value: Any, weight: Any, n: int, least: float, greatest: float, value2: Any, weight2: Any, where: Any, first: Any
) -> None:
    """Stable sort by value into the second pair of arrays; `where` and `first` are scratch, n and n + 1 long.

    As many buckets as pixels, of equal width: 6 ms for a million pixels in fields of 400, a merge sort takes 40 ms. A
    bucket that gets many different values is merge sorted, so that no distribution is slow.
    """
    per_unit = (n - 1) / (greatest - least)
    if not (per_unit > 0 and per_unit < np.inf):  # all equal, or not finite
        value2[:n], weight2[:n] = value[:n], weight[:n]
        if least != greatest:
            _merge_sort(value2[:n], weight2[:n], value[:n], weight[:n])
        return
    for i in range(index(n + 1)):
        first[i] = 0
    for i in range(index(n)):
        bucket = np.int32((value[i] - least) * per_unit)
        where[i] = bucket
        first[index(bucket) + index(1)] += 1
    most: Any = np.int32(0)
    for i in range(index(n)):
        many = first[i + index(1)]
        most = max(most, many)
        first[i + index(1)] = first[i] + many
    for i in range(index(n)):
        bucket = index(where[i])
        at = first[bucket]
        first[bucket] = at + np.int32(1)  # in the end: where the bucket ends
        value2[index(at)], weight2[index(at)] = value[i], weight[i]
    if most > 2 * RUN:
        low = 0
        for number in range(n):
            high = first[number]
            if high - low > 2 * RUN and not _is_sorted(value2[low:high]):
                _merge_sort(value2[low:high], weight2[low:high], value[low:high], weight[low:high])
            low = high
    _insertion_sort(value2[:n], weight2[:n])  # what is out of order lies in one small bucket


@compiled
def _is_sorted(value: Any) -> bool:
    for i in range(1, len(value)):  # noqa: SIM110 - generators do not compile
        if value[i] < value[i - 1]:
            return False
    return True


@compiled
def merge_equal(value: Any, weight: Any, n: int) -> int:
    """Equal neighbours become one, with their weights summed in order; how many are left."""
    last = index(0)
    for i in range(index(1), index(n)):
        if value[i] == value[last]:
            weight[last] += weight[i]
        else:
            last += index(1)
            value[last], weight[last] = value[i], weight[i]
    return int(last) + 1


@compiled
def _sums_before(weight: Any, n: int, before: Any) -> None:
    """Sum of the weights before each of `n` values, and in the end of all."""
    total = 0.0
    for i in range(index(n)):
        before[i] = total
        total += weight[i]
    before[n] = total


@compiled
def _quantile(value: Any, weight: Any, before: Any, n: int, q: float) -> Any:
    """Of `n` distinct values in ascending order: https://stats.stackexchange.com/a/13223, as exactextract does it."""
    wanted = q * (before[n] * (n - 1.0))
    low, high = 0, n  # the first value whose place is greater than wanted is in (low, high]
    while high - low > 1:
        middle = (low + high) // 2
        if middle * weight[middle] + (n - 1.0) * before[middle] > wanted:
            high = middle
        else:
            low = middle
    if high == n:
        return value[n - 1]
    left = low * weight[low] + (n - 1.0) * before[low]
    right = high * weight[high] + (n - 1.0) * before[high]
    return value[low] + (wanted - left) * (value[high] - value[low]) / (right - left)


@compiled
def _rarest_or_commonest(value: Any, weight: Any, n: int, code: int) -> Any:
    """The value with the greatest (the greatest such value) or the least weight (the least such value)."""
    best = 0
    for i in range(1, n):
        if (weight[i] >= weight[best]) if code == MAJORITY else (weight[i] < weight[best]):
            best = i
    return value[best]


@compiled
def _statistics(value: Any, weight: Any, before: Any, n: int, codes: Any, quantiles: Any, out: Any) -> None:
    """Statistics of `n` > 0 distinct values in ascending order."""
    _sums_before(weight, n, before)
    for k in range(len(codes)):
        if codes[k] == QUANTILE:
            out[k] = _quantile(value, weight, before, n, quantiles[k])
        elif codes[k] == VARIETY:
            out[k] = n
        elif codes[k] == FRACTION:
            at = np.searchsorted(value[:n], quantiles[k])
            out[k] = weight[at] / before[n] if at < n and value[at] == quantiles[k] else 0.0
        else:
            out[k] = _rarest_or_commonest(value, weight, n, codes[k])


@compiled
def _count(
    page: Any, fill: Any, fills: bool, y0: int, x0: int, row: Any, col: Any, length: Any, offset: Any, weights: Any,
    first: int, last: int, counted: Any,
) -> None:  # fmt: skip
    """Sum of the weights of each stored number of at most 16 bits, negative ones in the upper half."""
    for run in range(index(first), index(last)):
        y, x, at = index(row[run] - y0), index(col[run] - x0), offset[run]
        for i in range(index(length[run])):
            raw = page[y, x + i]
            if not (fills and raw == fill):
                counted[np.int64(raw) & (COUNTABLE - 1)] += 1.0 if at < 0 else np.float64(weights[index(at) + i])


@compiled
def _counted(counted: Any, scale: float, signed: bool, value: Any, weight: Any) -> int:
    """Numbers that occurred, ascending, as physical values with their weights; how many. The counts go back to 0."""
    n = 0
    lowest = -COUNTABLE // 2 if signed else 0
    for number in range(lowest, lowest + COUNTABLE):
        place = number & (COUNTABLE - 1)
        if counted[place] > 0:
            value[n], weight[n] = np.float64(number) * scale, counted[place]
            counted[place] = 0.0
            n += 1
    return n


def _sorted(
    data: Any, fill: Any, fills: bool, scale: float, y0: int, x0: int, row: Any, col: Any, length: Any, offset: Any,
    weights: Any, segment_run: Any, segment_start: Any, start: Any, fields: Any, narrow: bool, signed: bool, codes: Any,
    quantiles: Any, out: Any,
) -> None:  # fmt: skip
    """Statistics of pairs of some fields: `out` is (time, fields, codes), untouched where no pixel is valid.

    `narrow`: the data are integers of at most 16 bits (`signed` or not) and the scale is positive. Then the pixels of a
    large field are counted, not sorted: weights of equal values are summed in the same order, and no pixel is held.
    """
    counted = np.zeros(COUNTABLE if narrow else 0)
    longest = 0
    for k in range(len(fields)):
        size = segment_start[start[fields[k] + 1]] - segment_start[start[fields[k]]]
        longest = max(longest, COUNTABLE if narrow and size > 2 * COUNTABLE else size)
    value, share, value2, share2 = np.empty(longest), np.empty(longest + 1), np.empty(longest), np.empty(longest)
    weight = np.empty(longest)
    # Narrow, so that the arrays of a field of 600 pixels fit in the first cache.
    where, first = np.empty(longest, np.int32), np.empty(longest + 1, np.int32)
    for k in range(len(fields)):
        low, high = index(segment_run[start[fields[k]]]), index(segment_run[start[fields[k] + 1]])
        if narrow and segment_start[start[fields[k] + 1]] - segment_start[start[fields[k]]] > 2 * COUNTABLE:
            for time in range(data.shape[0]):
                _count(data[time], fill, fills, y0, x0, row, col, length, offset, weights, low, high, counted)
                distinct = _counted(counted, scale, signed, value2, share2)
                if distinct:
                    _statistics(value2, share2, share, distinct, codes, quantiles, out[time, k])
            continue
        fill_shares(length, offset, weights, low, high, weight)
        for time in range(data.shape[0]):
            n, pixel = index(0), index(0)
            least, greatest = np.inf, -np.inf
            for run in range(low, high):
                y, x0_, many = index(row[run] - y0), index(col[run] - x0), index(length[run])
                for i in range(many):
                    raw = data[time, y, x0_ + i]
                    x = np.float64(raw) * scale
                    if x == x and not (fills and raw == fill):
                        value[n], share[n] = x, weight[pixel + i]
                        n += index(1)
                        least = x if x < least else least
                        greatest = x if x > greatest else greatest
                pixel += many
            if n:
                stable_sort(value, share, np.int64(n), least, greatest, value2, share2, where, first)
                distinct = merge_equal(value2, share2, np.int64(n))
                _statistics(value2, share2, share, distinct, codes, quantiles, out[time, k])


@functools.cache
def sorted_kernel(dtype: Any) -> Callable[..., None]:
    """`_sorted` for one stored type."""
    signature = types.void(*pixel_types(dtype), INTS, INTS, types.boolean, types.boolean, INTS, FLOATS, OUT)
    kernel: Callable[..., None] = compiled(_sorted, [signature])
    return kernel
