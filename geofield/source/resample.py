"""Where the pixels of one grid lie in a raster of another, and values taken there. Pure arithmetic, no I/O.

A value is a function of the pixel alone, never of the window it is read in, to the last bit. Two things see to it:
centres are counted from the CRS's origin in steps of 1/36000 pixel, which forgets how the window's corner was rounded;
and between two CRSs only the nodes of a lattice of 16 x 16 pixels, fixed to that origin too, are projected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from geofield.grid import crs_of
from geofield.projection import same_crs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ALIGNED = 1e-3
"""Grids whose lines are closer than this part of a pixel are the same."""
NODE_STEP = 16
"""Pixels between projected nodes; in between positions are linear, which is far less than a pixel off (see tests)."""
_PHASES = 36_000
"""Where a grid may begin within a pixel; thousandths, thirds and thirty-seconds of a pixel are among them."""
_SNAP = 2.0**20
"""Positions are held to 1e-6 pixel, so that what lies on a line between two pixels falls to one side everywhere."""


@dataclass(frozen=True)
class Axis:
    """Pixel centres along one axis: (`first` + `_PHASES` x number) / `_PHASES` x `step`, for 0 <= number < `count`."""

    first: int
    count: int
    step: float

    @classmethod
    def from_edge(cls, edge: float, step: float, count: int) -> Axis:
        """From the outer edge of the first pixel; `step` may be negative, numbers then count down the axis."""
        # rounded up from 0.618 on, where no simple fraction lies: the last bits of a window's corner do not matter
        return cls(math.floor((edge / step + 0.5) * _PHASES + 0.381966), count, step)

    @property
    def centres(self) -> Floats:
        """(count,) coordinates."""
        numbers = self.first + _PHASES * np.arange(self.count, dtype=np.int64)
        return self._coordinates(numbers)

    def nodes(self) -> tuple[Floats, Ints, Floats]:
        """Coordinates of the nodes around, and per pixel the node before it and its part of the way to the next."""
        pixel = self.first // _PHASES + np.arange(self.count, dtype=np.int64)
        node = pixel // NODE_STEP
        numbers = np.arange(node[0], node[-1] + 2) * (NODE_STEP * _PHASES) + self.first % _PHASES
        return self._coordinates(numbers), node - node[0], (pixel % NODE_STEP) / NODE_STEP

    def _coordinates(self, numbers: Ints) -> Floats:
        coordinates: Floats = numbers / _PHASES * self.step
        return coordinates


@dataclass(frozen=True)
class Positions:
    """Where the centres of a target's pixels lie in a raster: rows and columns counted from its upper left corner.

    Pixel k spans k to k + 1. Shapes broadcast to (y, x); where both grids have one CRS they are (y, 1) and (1, x).
    NaN where a centre cannot be projected.
    """

    rows: Floats
    columns: Floats

    def part(self, rows: slice) -> Positions:
        """Some rows of the target."""
        return Positions(self.rows[rows], self.columns[rows] if self.columns.shape[0] > 1 else self.columns)


def aligned_offset(raster: GeoBox, target: GeoBox) -> tuple[int, int] | None:
    """(row, column) in the raster of the target's first pixel, when every pixel of one is a pixel of the other."""
    a, b = raster.transform, target.transform
    if a.b or a.d or b.b or b.d or not same_crs(crs_of(raster), crs_of(target)):
        return None
    # judged over the raster's size, not the window's, so that every window is judged alike
    if any(abs(ours / theirs - 1) * max(raster.shape) > ALIGNED for ours, theirs in ((a.a, b.a), (a.e, b.e))):
        return None
    column, row = (b.c - a.c) / a.a, (b.f - a.f) / a.e
    if max(abs(row - round(row)), abs(column - round(column))) > ALIGNED:
        return None
    return round(row), round(column)


def positions_in(raster: GeoBox, target: GeoBox) -> Positions:
    """Positions in the raster of the target's pixels; the target has to be north-up, the raster may be anything."""
    b = target.transform
    x, y = Axis.from_edge(b.c, b.a, target.shape.x), Axis.from_edge(b.f, b.e, target.shape.y)
    source, asked = crs_of(raster), crs_of(target)
    inverse = ~raster.transform
    if same_crs(source, asked) and not (inverse.b or inverse.d):
        columns, rows = inverse.a * x.centres + inverse.c, inverse.e * y.centres + inverse.f
        return Positions(_snapped(rows[:, None]), _snapped(columns[None, :]))
    return _between_nodes(x, y, inverse, asked, source)


def _between_nodes(x: Axis, y: Axis, inverse: Affine, asked: CRS, source: CRS) -> Positions:
    x_nodes, x_before, x_part = x.nodes()
    y_nodes, y_before, y_part = y.nodes()
    across, down = np.meshgrid(x_nodes, y_nodes)
    if not same_crs(source, asked):
        across, down = Transformer.from_crs(asked, source, always_xy=True).transform(across, down)
    found = []
    with np.errstate(invalid="ignore"):  # inf where a node cannot be projected, NaN between two of them
        for place in (
            inverse.d * across + inverse.e * down + inverse.f,
            inverse.a * across + inverse.b * down + inverse.c,
        ):
            left, right = place[:, x_before], place[:, x_before + 1]
            along = left + x_part * (right - left)
            upper, lower = along[y_before], along[y_before + 1]
            found.append(_snapped(upper + y_part[:, None] * (lower - upper)))
    return Positions(*found)


def _snapped(place: Floats) -> Floats:
    snapped: Floats = np.rint(place * _SNAP) / _SNAP
    return snapped


@dataclass(frozen=True)
class Cut:
    """Rows and columns of a raster, possibly none, that hold what some positions need; may reach over its edge."""

    row: int
    column: int
    shape: tuple[int, int]


def cut_around(positions: Positions, shape: tuple[int, int], margin: int) -> Cut | None:
    """The pixels of a raster of `shape` around the positions inside of it, with a margin; None when all lie outside."""
    bounds = []
    for place, size in zip((positions.rows, positions.columns), shape, strict=True):
        inside = place[_within(place, size)]
        if not inside.size:
            return None
        bounds.append((math.floor(inside.min()) - margin, math.floor(inside.max()) + 1 + margin))
    (y0, y1), (x0, x1) = bounds
    return Cut(y0, x0, (y1 - y0, x1 - x0))


def take(values: Floats, cut: Cut, positions: Positions, shape: tuple[int, int], nearest: bool) -> Floats:
    """Values at positions.

    Parameters
    ----------
    values
        (rows, columns) of the cut, NaN where missing or outside of the raster.
    shape
        Of the raster: positions outside are missing.
    nearest
        The pixel that a position lies in. Else bilinear between the four pixel centres around it: missing where the
        pixel it lies in is missing, otherwise over those of the four that are there.

    Returns
    -------
    (y, x) float64.
    """
    within = _within(positions.rows, shape[0]) & _within(positions.columns, shape[1])
    row = np.where(within, positions.rows, cut.row + 1.0) - cut.row
    column = np.where(within, positions.columns, cut.column + 1.0) - cut.column
    own = values[row.astype(np.int64), column.astype(np.int64)]
    with np.errstate(invalid="ignore"):  # a raster may hold infinities
        found = own if nearest else _bilinear(values, row - 0.5, column - 0.5, own)
    return np.where(within, found, np.nan)


def _within(place: Floats, size: int) -> NDArray[np.bool_]:
    within: NDArray[np.bool_] = (place >= 0) & (place < size)  # False for NaN
    return within


def _bilinear(values: Floats, row: Floats, column: Floats, own: Floats) -> Floats:
    upper, left = np.floor(row).astype(np.int64), np.floor(column).astype(np.int64)
    down, right = row - upper, column - left
    corners = [values[upper + y, left + x] for y in (0, 1) for x in (0, 1)]
    top = corners[0] + right * (corners[1] - corners[0])
    bottom = corners[2] + right * (corners[3] - corners[2])
    mixed = top + down * (bottom - top)
    gaps = np.isnan(mixed) & ~np.isnan(own)
    if gaps.any():
        weights = [(down if y else 1 - down) * (right if x else 1 - right) for y in (0, 1) for x in (0, 1)]
        mixed[gaps] = _mean_of_present([one[gaps] for one in corners], [one[gaps] for one in weights])
    mixed[np.isnan(own)] = np.nan
    return mixed


def _mean_of_present(values: list[Floats], weights: list[Floats]) -> Floats:
    total, weight = np.zeros_like(values[0]), np.zeros_like(values[0])
    for value, share in zip(values, weights, strict=True):
        present = ~np.isnan(value)
        total += np.where(present, value, 0) * share
        weight += np.where(present, share, 0)
    mean: Floats = total / weight
    return mean
