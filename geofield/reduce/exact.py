"""The share of each pixel that a polygon covers: areas of intersection, as exactextract computes them. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from exactextract import exact_extract
from exactextract.feature import Feature, FeatureSource
from exactextract.raster import RasterSource
from odc.geo.geobox import GeoBox

from geofield.grid import bounds_of
from geofield.reduce.runs import Ints, Runs, from_cells, join, ordered, whole_rectangle

Geometries = npt.NDArray[np.object_]
Cells = tuple[npt.NDArray[Any], npt.NDArray[Any], Ints]

CELLS_AT_ONCE = 16_000_000
"""Pixels in the windows of the fields that are computed together: 12 bytes each on their way."""
LARGE = 4_000_000
"""A field whose window holds more pixels is computed in pieces."""
PIECE = 1024
"""Side of a piece in pixels, from the grid's corner: weights depend on the field and the grid alone."""


def exact_runs(shapes: Geometries, geobox: GeoBox) -> Runs:
    """Runs of polygons in the CRS of the grid."""
    sizes = _window_sizes(shapes, geobox)
    large = sizes > LARGE
    small = np.flatnonzero(~large)
    batch = (np.cumsum(sizes[small]) - 1) // CELLS_AT_ONCE
    parts = [
        from_cells(*_exact_cells(shapes[numbers], geobox), geobox.shape.x)
        for numbers in np.split(small, np.flatnonzero(np.diff(batch)) + 1)
    ]
    if not large.any():
        return join(parts)
    parts += [_in_pieces(shape, geobox) for shape in shapes[large]]
    return join(parts).take(np.argsort(np.concatenate([small, np.flatnonzero(large)])))


def _window_sizes(shapes: Geometries, geobox: GeoBox) -> Ints:
    """(field,) pixels in the bounds of each field, as far as they lie on the grid; at least 1."""
    xmin, ymin, xmax, ymax = bounds_of(geobox)
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    width = np.minimum(bounds[:, 2], xmax) - np.maximum(bounds[:, 0], xmin)
    height = np.minimum(bounds[:, 3], ymax) - np.maximum(bounds[:, 1], ymin)
    columns, rows = width / abs(geobox.resolution.x) + 1, height / abs(geobox.resolution.y) + 1
    return np.asarray(np.maximum(np.maximum(columns, 0) * np.maximum(rows, 0), 1), dtype=np.int64)


def _in_pieces(shape: Any, geobox: GeoBox) -> Runs:
    """A large field piece by piece; what is wholly inside needs no arithmetic."""
    rows, columns = geobox.shape.y, geobox.shape.x
    a = geobox.transform
    corners = np.array([(y, x) for y in range(0, rows, PIECE) for x in range(0, columns, PIECE)])
    ends = np.minimum(corners + PIECE, (rows, columns))
    boxes, around = (
        shapely.box(
            a.c + a.a * (corners[:, 1] - margin), a.f + a.e * (ends[:, 0] + margin),
            a.c + a.a * (ends[:, 1] + margin), a.f + a.e * (corners[:, 0] - margin),
        )
        for margin in (0, 1)
    )  # fmt: skip
    shapely.prepare(shape)
    found = [from_cells(np.empty(0, np.int32), np.empty(0), np.zeros(1, np.int64), columns)]
    whole, touched = shapely.covers(shape, boxes), shapely.intersects(shape, boxes)
    for number in np.flatnonzero(touched).tolist():
        (y0, x0), (y1, x1) = corners[number].tolist(), ends[number].tolist()
        if whole[number]:
            found.append(whole_rectangle(y0, x0, y1, x1))
            continue
        # With a margin, so that where it is cut lies in no pixel of the piece.
        near = shapely.intersection(shape, around[number])
        near = shapely.multipolygons([one for one in shapely.get_parts(near) if one.geom_type == "Polygon"])
        cells, weight, counts = _exact_cells(np.array([near], dtype=object), geobox[y0:y1, x0:x1])
        row, col = np.divmod(cells.astype(np.int64), x1 - x0)
        found.append(from_cells((row + y0) * columns + col + x0, weight, counts, columns))
    return ordered(join(found).as_one(), columns)


def _exact_cells(shapes: Geometries, geobox: GeoBox) -> Cells:
    """Cell numbers and weights, field after field and row-major in each, and how many each field has."""
    if not len(shapes):
        return np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int64)
    found = exact_extract(
        _CellNumbers(geobox),
        _Polygons(shapes),
        ["values", "coverage"],
        output="pandas",
        # A field is never cut into parts: the last digits of the weights would depend on where.
        max_cells_in_memory=max(geobox.shape.y * geobox.shape.x, 30_000_000),
    )
    none = np.empty(0)
    cells = [none if value is None else value for value in found["values"]]
    weights = [none if value is None else value for value in found["coverage"]]
    counts = np.array([len(value) for value in cells], dtype=np.int64)
    return joined(cells, cell_type(geobox)), joined(weights, np.float32), counts


def cell_type(geobox: GeoBox) -> type[np.integer[Any]]:
    """The narrowest type that numbers all cells."""
    return np.int32 if geobox.shape.y * geobox.shape.x < 2**31 else np.int64


def joined(arrays: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    """One array after another, in the type that is wanted."""
    return np.concatenate([array for array in arrays if len(array)] or [np.empty(0)], dtype=dtype, casting="unsafe")


class _CellNumbers(RasterSource):  # type: ignore[misc]
    """A raster whose value is the number of the cell, made for the window that is asked for and never as a whole."""

    def __init__(self, geobox: GeoBox) -> None:
        super().__init__()
        a = geobox.transform
        self.shape = (geobox.shape.y, geobox.shape.x)
        self.box = (a.c, a.f + a.e * self.shape[0], a.c + a.a * self.shape[1], a.f)
        self.resolution = (a.a, -a.e)
        self.dtype = cell_type(geobox)

    def extent(self) -> tuple[float, float, float, float]:
        return self.box

    def res(self) -> tuple[float, float]:
        return self.resolution

    def nodata_value(self) -> None:
        return None

    def srs_wkt(self) -> None:
        return None

    def read_window(self, x0: int, y0: int, nx: int, ny: int) -> npt.NDArray[Any]:
        first = np.arange(y0, y0 + ny, dtype=np.int64) * self.shape[1] + x0
        return (first[:, None] + np.arange(nx)).astype(self.dtype)


class _Polygon(Feature):  # type: ignore[misc]
    """A polygon without properties."""

    def __init__(self, wkb: bytes) -> None:
        super().__init__()
        self.wkb = wkb

    def geometry(self) -> bytes:
        return self.wkb

    def fields(self) -> list[str]:
        return []


class _Polygons(FeatureSource):  # type: ignore[misc]
    """Polygons as WKB: passed as a GeoDataFrame they travel as JSON text, which takes as long as the coverage."""

    def __init__(self, shapes: Geometries) -> None:
        super().__init__()
        self.wkb = shapely.to_wkb(shapes, output_dimension=2)

    def count(self) -> int:
        return len(self.wkb)

    def __iter__(self) -> Iterator[_Polygon]:
        return map(_Polygon, self.wkb)

    def srs_wkt(self) -> None:
        return None
