"""The rule of rasterstats: a pixel counts, wholly, when its centre lies in the field. No I/O."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from geofield.grid import BLOCK, bounds_of
from geofield.reduce.runs import Runs, from_cells, join, ordered

PIXELS_AT_ONCE = 4_000_000
"""Pixels of a field's window that are burnt at once."""


def centre_runs(shapes: npt.NDArray[np.object_], geobox: GeoBox) -> Runs:
    """Runs of polygons in the CRS of the grid; all their pixels are wholly covered. As GDAL burns them."""
    none = from_cells(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64), geobox.shape.x)
    return join([none, *(_field(shape, geobox) for shape in shapes)])


def _field(shape: Any, geobox: GeoBox) -> Runs:
    """One field, in strips of whole blocks."""
    rows, columns = geobox.shape.y, geobox.shape.x
    xmin, _, _, ymax = bounds_of(geobox)
    a = geobox.transform
    west, south, east, north = shape.bounds
    x0, x1 = max(int((west - xmin) // a.a), 0), min(int((east - xmin) // a.a) + 1, columns)
    y0, y1 = max(int((ymax - north) // -a.e), 0), min(int((ymax - south) // -a.e) + 1, rows)
    strip = max(PIXELS_AT_ONCE // max(x1 - x0, 1) // BLOCK, 1) * BLOCK
    parts = []
    for top in range(y0 - y0 % strip, y1, strip) if x0 < x1 else ():
        low, high = max(top, y0), min(top + strip, y1)
        inside = rasterize([shape], (high - low, x1 - x0), transform=geobox[low:high, x0:x1].transform, dtype="uint8")
        row, column = np.nonzero(inside)
        cells = (row + low) * columns + column + x0
        parts.append(from_cells(cells, np.ones(len(cells), np.float32), np.array([len(cells)]), columns))
    if not parts:
        return from_cells(np.empty(0, np.int64), np.empty(0), np.zeros(1, np.int64), columns)
    return ordered(join(parts).as_one(), columns)
