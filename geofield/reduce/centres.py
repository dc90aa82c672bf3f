"""The rule of rasterstats: a pixel counts, wholly, when its centre lies in the field."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from geofield.grid import bounds_of


def centre_cells(shape: Any, geobox: GeoBox) -> npt.NDArray[np.int64]:
    """Numbers, row-major, of the pixels of a grid whose centre lies in a polygon; as GDAL burns them."""
    rows, columns = geobox.shape.y, geobox.shape.x
    xmin, _, _, ymax = bounds_of(geobox)
    a = geobox.transform
    west, south, east, north = shape.bounds
    x0, x1 = max(int((west - xmin) // a.a), 0), min(int((east - xmin) // a.a) + 1, columns)
    y0, y1 = max(int((ymax - north) // -a.e), 0), min(int((ymax - south) // -a.e) + 1, rows)
    if x0 >= x1 or y0 >= y1:
        return np.empty(0, np.int64)
    window = geobox[y0:y1, x0:x1]
    inside = rasterize([shape], out_shape=(y1 - y0, x1 - x0), transform=window.transform, dtype="uint8")
    row, column = np.nonzero(inside)
    return (row + y0) * columns + column + x0
