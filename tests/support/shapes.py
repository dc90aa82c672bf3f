"""Polygons of every awkward kind, from a seed."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

CRS = "EPSG:32633"


def make_geobox(rows: int, columns: int, resolution: tuple[float, float] = (10.0, 10.0)) -> GeoBox:
    """A grid of EPSG:32633 whose lower left corner is (500000, 5000000)."""
    width, height = resolution
    return GeoBox((rows, columns), Affine(width, 0, 500_000, 0, -height, 5_000_000 + rows * height), CRS)


def make_fields(count: int, geobox: GeoBox, seed: int) -> gpd.GeoDataFrame:
    """Blobs, holes, slivers, sub-pixel squares and several parts, overlapping, some across the edge of the grid."""
    rng = np.random.default_rng(seed)
    kinds = (blob, holed, sliver, tiny, parts, whole_pixels)
    shapes = [kinds[i % len(kinds)](rng, geobox) for i in range(count)]
    return gpd.GeoDataFrame({"name": [f"f{i}" for i in range(count)]}, geometry=shapes, crs=CRS)


def _place(rng: np.random.Generator, geobox: GeoBox) -> tuple[float, float, float]:
    """A point of the grid or a little outside, and the larger side of a pixel."""
    box = geobox.boundingbox
    pixel = max(abs(geobox.resolution.x), abs(geobox.resolution.y))
    return rng.uniform(box.left - pixel, box.right + pixel), rng.uniform(box.bottom - pixel, box.top + pixel), pixel


def blob(rng: np.random.Generator, geobox: GeoBox) -> shapely.Geometry:
    """A wavy outline of one to forty pixels across."""
    x, y, pixel = _place(rng, geobox)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = pixel * rng.uniform(0.5, 20) * (1 + 0.3 * np.sin(3 * angle + rng.uniform(0, 6)))
    return shapely.Polygon(np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)]))


def holed(rng: np.random.Generator, geobox: GeoBox) -> shapely.Geometry:
    """A rectangle with a hole."""
    x, y, pixel = _place(rng, geobox)
    half = pixel * rng.uniform(2, 10)
    return shapely.box(x - half, y - half, x + half, y + half).difference(shapely.Point(x, y).buffer(half / 2))


def sliver(rng: np.random.Generator, geobox: GeoBox) -> shapely.Geometry:
    """Much longer than wide: a fiftieth of a pixel."""
    x, y, pixel = _place(rng, geobox)
    away = rng.uniform(-15, 15, 2) * pixel
    return shapely.LineString([(x, y), (x + away[0], y + away[1])]).buffer(pixel / 100, cap_style="flat")


def tiny(rng: np.random.Generator, geobox: GeoBox) -> shapely.Geometry:
    """Smaller than a pixel; may lie in one, two or four."""
    x, y, pixel = _place(rng, geobox)
    return shapely.box(x, y, x + 0.4 * pixel, y + 0.3 * pixel)


def parts(rng: np.random.Generator, geobox: GeoBox) -> shapely.Geometry:
    """Two or three parts, far apart."""
    return shapely.union_all([blob(rng, geobox) for _ in range(3)])


def whole_pixels(rng: np.random.Generator, geobox: GeoBox) -> shapely.Geometry:
    """A rectangle on the lines of the grid."""
    a = geobox.transform
    row, col = int(rng.integers(0, geobox.shape.y)), int(rng.integers(0, geobox.shape.x))
    height, width = (int(side) for side in rng.integers(1, 8, 2))
    return shapely.box(a.c + a.a * col, a.f + a.e * (row + height), a.c + a.a * (col + width), a.f + a.e * row)
