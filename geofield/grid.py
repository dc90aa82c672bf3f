"""Grids, tiles and windows: where a pixel is, and which tile holds it. Pure arithmetic, no I/O.

A grid is north-up. Pixel (row, col) is counted from the upper left corner. Tiles are squares of `tile` pixels, a
multiple of `BLOCK`; statistics are combined over blocks of `BLOCK` x `BLOCK` pixels aligned to the same corner, so
that no block ever lies in two tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS
from pyproj.exceptions import CRSError as ProjCrsError

from geofield.errors import CrsError, GridError

BLOCK = 256
"""Side in pixels of the fixed blocks over which statistics are combined, and of the inner chunks of a cube."""

DEFAULT_TILE = 2048
EDGE_TOLERANCE = 1e-3
"""An edge of a box within this part of a pixel of a grid line lies on it."""


@dataclass(frozen=True, slots=True)
class Window:
    """Rows `y0 <= y < y1` and columns `x0 <= x < x1` of a grid, never empty."""

    y0: int
    x0: int
    y1: int
    x1: int

    def __post_init__(self) -> None:
        if not (0 <= self.y0 < self.y1 and 0 <= self.x0 < self.x1):
            raise GridError(f"A window needs 0 <= y0 < y1 and 0 <= x0 < x1; got {self}.")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns), to index an array of the whole grid."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def intersect(self, other: Window) -> Window | None:
        """What both share; None when they share no pixel."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        y1, x1 = min(self.y1, other.y1), min(self.x1, other.x1)
        return Window(y0, x0, y1, x1) if y0 < y1 and x0 < x1 else None

    def union(self, other: Window) -> Window:
        """The smallest window around both."""
        return Window(min(self.y0, other.y0), min(self.x0, other.x0), max(self.y1, other.y1), max(self.x1, other.x1))

    def snap(self, step: int, shape: tuple[int, int]) -> Window:
        """Grown outward to multiples of `step`, cut at `shape` (rows, columns)."""
        return Window(
            self.y0 // step * step,
            self.x0 // step * step,
            min(-(-self.y1 // step) * step, shape[0]),
            min(-(-self.x1 // step) * step, shape[1]),
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """The pixels of a box: a north-up GeoBox cut into square tiles."""

    geobox: GeoBox
    tile: int = DEFAULT_TILE

    def __post_init__(self) -> None:
        if self.tile < BLOCK or self.tile % BLOCK:
            raise GridError(f"A tile is a multiple of {BLOCK} pixels; got {self.tile}.")
        check_north_up(self.geobox)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.geobox.shape.y, self.geobox.shape.x

    @property
    def crs(self) -> CRS:
        """The grid's CRS."""
        return crs_of(self.geobox)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(xmin, ymin, xmax, ymax) in the grid's CRS."""
        return bounds_of(self.geobox)

    @property
    def window(self) -> Window:
        """The whole grid."""
        return Window(0, 0, *self.shape)

    @property
    def tiles_shape(self) -> tuple[int, int]:
        """(rows, columns) of tiles."""
        rows, columns = self.shape
        return -(-rows // self.tile), -(-columns // self.tile)

    def tile_window(self, tile_y: int, tile_x: int) -> Window:
        """The pixels of one tile, cut at the grid's edge."""
        rows, columns = self.shape
        y0, x0 = tile_y * self.tile, tile_x * self.tile
        return Window(y0, x0, min(y0 + self.tile, rows), min(x0 + self.tile, columns))

    def tiles(self) -> Iterator[tuple[int, int]]:
        """(tile_y, tile_x) of every tile, row-major."""
        rows, columns = self.tiles_shape
        return ((y, x) for y in range(rows) for x in range(columns))

    def tiles_of(self, window: Window) -> Iterator[tuple[int, int]]:
        """(tile_y, tile_x) of the tiles that a window touches, row-major."""
        return (
            (y, x)
            for y in range(window.y0 // self.tile, -(-window.y1 // self.tile))
            for x in range(window.x0 // self.tile, -(-window.x1 // self.tile))
        )

    def window_geobox(self, window: Window) -> GeoBox:
        """The GeoBox of a window."""
        return self.geobox[window.slices]

    def to_dict(self) -> dict[str, Any]:
        """JSON: crs, transform (the six numbers of an affine), shape (rows, columns), tile."""
        return {
            "crs": crs_text(self.crs),
            "transform": list(self.geobox.transform)[:6],
            "shape": list(self.shape),
            "tile": self.tile,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Grid:
        """The inverse of `to_dict`."""
        rows, columns = value["shape"]
        return cls(GeoBox((rows, columns), Affine(*value["transform"]), value["crs"]), value["tile"])


def parse_crs(value: Any) -> CRS:
    """A CRS from anything pyproj reads; `CrsError` names what was given."""
    try:
        return CRS.from_user_input(value)
    except ProjCrsError as error:
        raise CrsError(f"{value!r} is no CRS that PROJ knows. Give an EPSG code such as EPSG:32633.") from error


def crs_text(crs: CRS) -> str:
    """`EPSG:n` when the CRS has a code, else its WKT."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code is not None else str(crs.to_wkt())


def crs_of(geobox: GeoBox) -> CRS:
    """The CRS of a GeoBox; `CrsError` when it has none."""
    if geobox.crs is None:
        raise CrsError("The grid has no CRS. Set one, e.g. with `ds.odc.assign_crs('EPSG:32633')`.")
    return CRS.from_user_input(geobox.crs.to_wkt() if geobox.crs.epsg is None else geobox.crs.epsg)


def bounds_of(geobox: GeoBox) -> tuple[float, float, float, float]:
    """(xmin, ymin, xmax, ymax) of a GeoBox in its CRS."""
    box = geobox.boundingbox
    return box.left, box.bottom, box.right, box.top


def check_north_up(geobox: GeoBox) -> None:
    """`GridError` unless rows run south and columns run east, without rotation."""
    a = geobox.transform
    if a.b or a.d or not (a.a > 0 > a.e):
        raise GridError(
            f"A grid has to be north-up: rows to the south, columns to the east, no rotation; its transform is {a!r}. "
            "Reproject or flip the raster first."
        )


def utm_crs(lon: float, lat: float) -> CRS:
    """The UTM zone of a place, as Sentinel-2 and MGRS number them (with Norway's and Svalbard's exceptions)."""
    if not -80 <= lat <= 84:
        side = "north of 84 N" if lat > 84 else "south of 80 S"
        raise GridError(f"The box is {side} ({lat:g}), where there is no UTM zone. Name a CRS in `grid: {{crs: ...}}`.")
    zone = min(int((lon + 180) // 6) + 1, 60)
    if 56 <= lat < 64 and 3 <= lon < 12:
        zone = 32
    elif 72 <= lat <= 84 and 0 <= lon < 42:
        zone = 31 if lon < 9 else 33 if lon < 21 else 35 if lon < 33 else 37
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def snapped_geobox(bounds: tuple[float, float, float, float], crs: CRS, resolution: tuple[float, float]) -> GeoBox:
    """The smallest grid of pixels of `resolution` (x, y), edges on whole multiples of it, that holds `bounds`."""
    x0, x1 = cell_range(bounds[0], bounds[2], 0.0, resolution[0])
    y0, y1 = cell_range(bounds[1], bounds[3], 0.0, resolution[1])
    transform = Affine(resolution[0], 0, x0 * resolution[0], 0, -resolution[1], y1 * resolution[1])
    return GeoBox((y1 - y0, x1 - x0), transform, crs_text(crs))


def cell_range(low: float, high: float, origin: float, size: float) -> tuple[int, int]:
    """First cell and one past the last cell that hold [low, high]; edges within a tolerance of a line are on it."""
    first = (low - origin) / size
    last = (high - origin) / size
    first_line, last_line = round(first), round(last)
    return (
        first_line if abs(first - first_line) <= EDGE_TOLERANCE else math.floor(first),
        last_line if abs(last - last_line) <= EDGE_TOLERANCE else math.ceil(last),
    )


def crop_geobox(geobox: GeoBox, bounds: tuple[float, float, float, float]) -> GeoBox:
    """The pixels of a grid that hold `bounds` (in its CRS), cut at its edge; `GridError` when there are none."""
    a = geobox.transform
    rows, columns = geobox.shape.y, geobox.shape.x
    x0, x1 = cell_range(bounds[0], bounds[2], a.c, a.a)
    y0, y1 = cell_range(-bounds[3], -bounds[1], -a.f, -a.e)
    x0, x1, y0, y1 = max(x0, 0), min(x1, columns), max(y0, 0), min(y1, rows)
    if x0 >= x1 or y0 >= y1:
        raise GridError(f"The box {bounds} has no pixel on the source's grid, whose bounds are {bounds_of(geobox)}.")
    return geobox[y0:y1, x0:x1]


def fitting_tile(shape: tuple[int, int], tile: int) -> int:
    """`tile`, or the smallest multiple of `BLOCK` that holds the whole grid when that is less."""
    return min(tile, -(-max(shape) // BLOCK) * BLOCK)
