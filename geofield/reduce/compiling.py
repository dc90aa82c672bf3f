"""How the loops are compiled, and what all of them begin with. Pure.

Numba's cache on disk watches the file of the function that is compiled, not the files of those that it calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types


def compiled(function: Callable[..., Any], signature: Any = None) -> Any:
    """A compiled function; on disk for the next process where there is a place to write, else compiled in each."""
    njit = functools.partial(numba.njit, signature, nogil=True, fastmath=False, error_model="numpy")
    try:
        return njit(cache=True)(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return njit()(function)


index: Any = np.uint64
"""An index that is never negative: signed ones are checked for counting from the end, a quarter of the time."""

INTS, FLOATS = types.Array(types.int64, 1, "C", readonly=True), types.Array(types.float64, 1, "C", readonly=True)
PLACES, OUT = types.Array(types.int32, 1, "C", readonly=True), types.Array(types.float64, 3, "C")
WEIGHTS = types.Array(types.float32, 1, "C", readonly=True)


def pixel_types(dtype: Any) -> tuple[Any, ...]:
    """Types of what every kernel over pixels begins with. Any layout: a slice of a larger array is not copied."""
    number = numba.from_dtype(np.dtype(dtype))
    data = types.Array(number, 3, "A", readonly=True)
    runs = (PLACES, PLACES, PLACES, INTS, WEIGHTS, INTS, INTS)
    return data, number, types.boolean, types.float64, types.int64, types.int64, *runs


@compiled
def fill_shares(length: Any, offset: Any, weights: Any, first: int, last: int, share: Any) -> None:
    """Weights of the pixels of some runs, one after another."""
    n = index(0)
    for run in range(index(first), index(last)):
        many, at = index(length[run]), offset[run]
        if at < 0:
            for i in range(many):
                share[n + i] = 1.0
        else:
            for i in range(many):
                share[n + i] = weights[index(at) + i]
        n += many
