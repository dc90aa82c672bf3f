"""Random numbers that belong to a position: hashes of whole numbers, and smooth noise between hashed points.

Nothing here depends on how a lattice is cut into windows, to the last bit: positions are whole numbers, and floats meet
only + - * /, which IEEE 754 rounds in one way whatever the vector width. (NumPy's sin or exp may differ in the last bit
between the body of an array and its tail.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Unit = NDArray[np.float32]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_COLUMN = 0xD1342543DE82EF95
_FINISH = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


def derive_key(*parts: int) -> int:
    """One key, 64 bits, from whole numbers; their order matters."""
    key = 0
    for part in parts:
        key = (key + part + _GOLDEN) & _MASK
        key = ((key ^ (key >> 30)) * _FIRST) & _MASK
        key = ((key ^ (key >> 27)) * _SECOND) & _MASK
        key ^= key >> 31
    return key


def hash_lattice(key: int, rows: Index, columns: Index) -> NDArray[np.uint64]:
    """(rows, columns) of 64 random bits: splitmix64 over a row's bits, then over the column's."""
    by_row = _mix(rows.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(key))
    by_column = columns.astype(np.uint64) * np.uint64(_COLUMN)
    return _mix(by_row[:, None] + by_column[None, :])


def hash_pixels(key: int, rows: Index, columns: Index) -> NDArray[np.uint32]:
    """(rows, columns) of 32 random bits, for every pixel of a window.

    Rows and columns are hashed with 64 bits; what is left for each pixel are the two multiplications of a 32-bit
    finaliser, a third of the time of the 64-bit one.
    """
    by_row = hash_lattice(key, rows, np.zeros(1, np.int64))[:, 0].astype(np.uint32)
    by_column = hash_lattice(key ^ 1, np.zeros(1, np.int64), columns)[0].astype(np.uint32)
    bits: NDArray[np.uint32] = by_row[:, None] ^ by_column[None, :]
    shifted = bits >> np.uint32(16)
    bits ^= shifted
    bits *= _FINISH[0]
    np.right_shift(bits, np.uint32(15), out=shifted)
    bits ^= shifted
    bits *= _FINISH[1]
    np.right_shift(bits, np.uint32(16), out=shifted)
    bits ^= shifted
    return bits


class ValueNoise:
    """Smooth noise over consecutive rows and columns: values 0 to 1, one hashed point each `period` pixels.

    Along a row it is interpolated once, for every row of points; `strip` does the rest.
    """

    def __init__(self, key: int, period: int, rows: Index, columns: Index) -> None:
        cell_y, self._weight = _position(rows, period)
        cell_x, weight_x = _position(columns, period)
        points = np.arange(cell_y[0], cell_y[-1] + 2), np.arange(cell_x[0], cell_x[-1] + 2)
        values = _unit(hash_lattice(key, *points))
        left = values[:, cell_x - cell_x[0]]
        right = values[:, cell_x - cell_x[0] + 1]
        self._cell = cell_y - cell_y[0]
        self._upper: Unit = left + weight_x * (right - left)
        self._step: Unit = self._upper[1:] - self._upper[:-1]

    def strip(self, part: slice) -> Unit:
        """(rows of the part, columns) float32."""
        cell = self._cell[part]
        step: Unit = np.take(self._step, cell, axis=0)
        step *= self._weight[part, None]
        step += np.take(self._upper, cell, axis=0)
        return step


class LayeredNoise:
    """A weighted sum of `ValueNoise` of several periods."""

    def __init__(self, key: int, layers: tuple[tuple[int, float], ...], rows: Index, columns: Index) -> None:
        self._layers = [
            (ValueNoise(derive_key(key, period), period, rows, columns), np.float32(weight))
            for period, weight in layers
        ]

    def strip(self, part: slice) -> Unit:
        """(rows of the part, columns) float32."""
        noise, weight = self._layers[0]
        total = noise.strip(part)
        total *= weight
        for noise, weight in self._layers[1:]:
            one = noise.strip(part)
            one *= weight
            total += one
        return total


def smoothstep(value: Any) -> Any:
    """0 below 0, 1 above 1, 3v^2 - 2v^3 between; keeps the type of an array of floats."""
    held = np.minimum(np.maximum(value, 0), 1)
    return held * held * (3 - 2 * held)


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014; constants of Stafford's variant 13)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(_FIRST)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(_SECOND)
    mixed: NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return mixed


def _unit(bits: NDArray[np.uint64]) -> Unit:
    """The upper 24 bits as float32 of [0, 1), exactly."""
    unit: Unit = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return unit


def _position(index: Index, period: int) -> tuple[Index, Unit]:
    """Cell of each index, and the smooth weight of its far end."""
    cell = index // period
    part = (index - cell * period).astype(np.float32) / np.float32(period)
    return cell, smoothstep(part)
