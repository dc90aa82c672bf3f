"""The loops, compiled: every sum is taken in one fixed order, so that bits depend on the pixels alone.

Order: the pixels of a segment (one field in one block of 256 x 256 pixels) row-major; the segments of a field by block,
row-major. No `fastmath`, and no compiler contracts or reorders floating-point operations without it. Kernels read
pixels in their stored type and release the GIL; only the outermost loops are compiled for each stored type.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from geofield.reduce.compiling import OUT, compiled, fill_shares, index, pixel_types
from geofield.reduce.statistics import COUNT, M2, MAX, MEAN, MIN, SUM

CANCELLED = 1e4
"""Sums of squares that lost more than this factor have lost too many digits: 12 are left."""


@compiled
def _longest(start: Any) -> Any:
    """Greatest distance between neighbours."""
    longest = 0
    for i in range(len(start) - 1):
        longest = max(longest, start[i + 1] - start[i])
    return longest


@compiled
def totals(length: Any, offset: Any, weights: Any, segment_run: Any, start: Any, out: Any) -> None:
    """Sum of the weights of each field, in the order in which `count` is summed."""
    for field in range(len(start) - 1):
        total = 0.0
        for segment in range(start[field], start[field + 1]):
            part = 0.0
            for run in range(segment_run[segment], segment_run[segment + 1]):
                for i in range(length[run]):
                    part += 1.0 if offset[run] < 0 else np.float64(weights[offset[run] + i])
            total += part
        out[field] = total


def _moments(
    data: Any, fill: Any, fills: bool, scale: float, y0: int, x0: int, row: Any, col: Any, length: Any, offset: Any,
    weights: Any, segment_run: Any, segment_start: Any, out: Any,
) -> None:  # fmt: skip
    """Moments of every segment at every time: `out` is (time, segment, 6), untouched where no pixel is valid.

    Sums about the first valid value, so that a constant field has no spread. Where that value lies so far from the mean
    that digits cancel, a second pass is taken about the mean.
    """
    longest = _longest(segment_start)
    value, share = np.empty(longest), np.empty(longest)
    for segment in range(len(segment_run) - 1):
        first, last = index(segment_run[segment]), index(segment_run[segment + 1])
        fill_shares(length, offset, weights, first, last, share)
        for time in range(data.shape[0]):
            n = index(0)
            for run in range(first, last):
                y, x, many = index(row[run] - y0), index(col[run] - x0), index(length[run])
                for i in range(many):
                    raw = data[time, y, x + i]
                    value[n + i] = np.nan if fills and raw == fill else np.float64(raw) * scale
                n += many
            begin = index(0)
            while begin < n and value[begin] != value[begin]:
                begin += index(1)
            if begin == n:
                continue
            origin = value[begin]
            count = shifted = squared = total = 0.0
            least = greatest = origin
            for i in range(begin, n):
                x, c = value[i], share[i]
                if x == x:
                    away = x - origin
                    part = c * away
                    count += c
                    shifted += part
                    squared += part * away
                    total += c * x
                    least = x if x < least else least
                    greatest = x if x > greatest else greatest
            apart = shifted / count
            mean = origin + apart
            spread = squared - shifted * apart
            if not spread * CANCELLED > squared and squared > 0:
                spread = 0.0
                for i in range(begin, n):
                    x = value[i]
                    if x == x:
                        spread += share[i] * ((x - mean) * (x - mean))
            found = out[time, segment]
            found[COUNT], found[MEAN], found[M2] = count, mean, spread
            found[MIN], found[MAX], found[SUM] = least, greatest, total


@compiled
def merge(moments: Any, start: Any, out: Any) -> None:
    """Moments of fields (time, field, 6) from those of their segments (time, segment, 6), in order.

    Chan, Golub, LeVeque (1983), "Algorithms for computing the sample variance", eq. 2.1.
    """
    for time in range(moments.shape[0]):
        for field in range(len(start) - 1):
            whole = out[time, field]
            for segment in range(start[field], start[field + 1]):
                part = moments[time, segment]
                if part[COUNT] == 0:
                    continue
                if whole[COUNT] == 0:
                    whole[:] = part
                    continue
                count = whole[COUNT] + part[COUNT]
                apart = part[MEAN] - whole[MEAN]
                whole[M2] += part[M2] + apart * apart * (whole[COUNT] * part[COUNT] / count)
                whole[MEAN] += apart * (part[COUNT] / count)
                whole[MIN] = min(whole[MIN], part[MIN])
                whole[MAX] = max(whole[MAX], part[MAX])
                whole[SUM] += part[SUM]
                whole[COUNT] = count


@functools.cache
def moments_kernel(dtype: Any) -> Callable[..., None]:
    """`_moments` for one stored type."""
    kernel: Callable[..., None] = compiled(_moments, [types.void(*pixel_types(dtype), OUT)])
    return kernel
