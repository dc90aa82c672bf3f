"""How values lie in a cube: integers with a step and one fill value. The one definition of a missing stored value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Encoding:
    """value = integer x `scale`; the integer `fill` means missing.

    Parameters
    ----------
    dtype
        `int16` or `int32`.
    scale
        The step; 1.0 for counts.
    """

    dtype: str
    scale: float

    @property
    def fill(self) -> int:
        """The smallest integer of the type."""
        return int(np.iinfo(self.dtype).min)

    def encode(self, values: FloatArray) -> IntArray:
        """The nearest integers; NaN, infinities and what the type cannot hold become `fill`."""
        info = np.iinfo(self.dtype)
        steps = np.rint(values / self.scale)
        with np.errstate(invalid="ignore"):
            held = (steps > info.min) & (steps <= info.max)
        return np.where(held, steps, info.min).astype(self.dtype)

    def decode(self, numbers: IntArray) -> FloatArray:
        """float64; NaN where missing."""
        values = numbers.astype(np.float64)
        values *= self.scale
        values[numbers == self.fill] = np.nan
        return values


AGE = Encoding("int16", 1.0)
"""Whole days; fill: never."""


def value_encoding(valid_range: tuple[float, float] | None, precision: float) -> Encoding:
    """The smallest integer type that holds a variable: `int16` when its range is known to fit, else `int32`."""
    if valid_range is not None and max(abs(valid_range[0]), abs(valid_range[1])) / precision <= np.iinfo("int16").max:
        return Encoding("int16", precision)
    return Encoding("int32", precision)
