"""Field statistics of one day beside exactextract, and beside reading the pixels alone.

Run `python benchmarks/zonal.py [--size 4096] [--fields 2000] [--rounds 5]`. One thread.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import geopandas as gpd
import numba
import numpy as np
import shapely
from affine import Affine
from exactextract import exact_extract
from exactextract.feature import Feature, FeatureSource
from exactextract.raster import NumPyRasterSource
from odc.geo.geobox import GeoBox

from geofield.grid import Window
from geofield.reduce.coverage import Coverage, coverage
from geofield.reduce.layer import Layer
from geofield.reduce.partial import combine, reduce_window

MOMENTS = ("count", "mean", "stdev", "min", "max")
ORDERED = (*MOMENTS, "median", "quantile(q=0.25)", "quantile(q=0.75)")
TILE = 2048


def make_fields(count: int, pixels: float, size: int, seed: int = 0) -> gpd.GeoDataFrame:
    """Wavy blobs of about `pixels` pixels of 10 m, 40 vertices each, anywhere on a grid of `size` x `size`."""
    rng = np.random.default_rng(seed)
    radius = np.sqrt(pixels / np.pi) * rng.uniform(0.7, 1.3, count)
    centre = rng.uniform(2 * radius.max(), size - 2 * radius.max(), (count, 2))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    away = radius[:, None] * (1 + 0.2 * np.sin(3 * angle + rng.uniform(0, 6, (count, 1))))
    x = centre[:, :1] + away * np.cos(angle)
    y = centre[:, 1:] + away * np.sin(angle)
    return gpd.GeoDataFrame(geometry=shapely.polygons(np.stack([x * 10, y * 10], axis=-1)), crs=32631)


def best(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Shortest of several runs of each, ms; in turns, so that a busy machine is busy for all."""
    shortest = dict.fromkeys(functions, float("inf"))
    for function in functions.values():
        function()  # compiled
    for _ in range(rounds):
        for name, function in functions.items():
            # What takes milliseconds is run several times: one interruption would be all that is seen.
            for _ in range(1 if shortest[name] > 100 else 5):
                begin = time.perf_counter()
                function()
                shortest[name] = min(shortest[name], (time.perf_counter() - begin) * 1e3)
    return shortest


@numba.njit
def gather(data: np.ndarray, row: np.ndarray, col: np.ndarray) -> float:
    """The floor: every pixel that a field touches is read once and summed."""
    total = 0.0
    for i in range(len(row)):
        total += data[0, row[i], col[i]]
    return total


class WkbPolygons(FeatureSource):
    """Polygons as WKB, the fastest way into exactextract; a GeoDataFrame travels as JSON text."""

    class Polygon(Feature):
        """A polygon without properties."""

        def __init__(self, wkb: bytes) -> None:
            super().__init__()
            self.wkb = wkb

        def geometry(self) -> bytes:
            """What exactextract asks for."""
            return self.wkb

        def fields(self) -> list[str]:
            """None."""
            return []

    def __init__(self, fields: gpd.GeoDataFrame) -> None:
        super().__init__()
        self.wkb = shapely.to_wkb(fields.geometry.to_numpy())

    def count(self) -> int:
        """How many."""
        return len(self.wkb)

    def __iter__(self) -> Iterator[Feature]:
        return map(self.Polygon, self.wkb)

    def srs_wkt(self) -> None:
        """Not said."""


def one_window(data: np.ndarray, cover: Coverage, stats: Sequence[str], scale: float | None = None) -> object:
    """A day as one window."""
    window = Window(0, 0, *data.shape[1:])
    asked = {"v": stats}
    return combine([reduce_window({"v": Layer(data, scale)}, window, cover, asked)], cover, asked)


def in_tiles(data: np.ndarray, cover: Coverage, parts: dict[Window, Coverage], stats: Sequence[str]) -> object:
    """A day in tiles, as the pipeline does it: the coverage of each tile is cut once, not every day."""
    asked = {"v": stats}
    partials = [
        reduce_window({"v": Layer(data[:, window.y0 : window.y1, window.x0 : window.x1])}, window, part, asked)
        for window, part in parts.items()
    ]
    return combine(partials, cover, asked)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--fields", type=int, default=2000)
    parser.add_argument("--pixels", type=float, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    size = given.size
    fields = make_fields(given.fields, given.pixels, size)
    geobox = GeoBox((size, size), Affine(10, 0, 0, 0, -10, size * 10), "EPSG:32631")
    raw = np.random.default_rng(1).integers(0, 10_000, (1, size, size)).astype(np.int16)
    floats = (raw * 1e-4).astype(np.float32)
    source = NumPyRasterSource(floats[0], 0, 0, size * 10, size * 10, srs_wkt=fields.crs.to_wkt())
    cover = coverage(fields, geobox)
    tile = min(TILE, size)
    windows = [Window(y, x, y + tile, x + tile) for y in range(0, size, tile) for x in range(0, size, tile)]
    parts = {window: cover.within(window) for window in windows}
    print(f"{given.fields} fields, {len(cover.weight):,} pixels, {len(cover.number):,} segments, grid {size} x {size}")
    for name, stats in (("five moments", MOMENTS), ("moments, median, two quantiles", ORDERED)):
        took = best(
            {
                "exactextract": lambda stats=stats: exact_extract(source, fields, list(stats), output="pandas"),
                "exactextract given polygons as WKB": lambda stats=stats: exact_extract(
                    source, WkbPolygons(fields), list(stats), output="pandas"
                ),
                "first day, coverage and statistics": lambda stats=stats: one_window(
                    floats, coverage(fields, geobox), stats
                ),
                "further day, float32": lambda stats=stats: one_window(floats, cover, stats),
                "further day, int16": lambda stats=stats: one_window(raw, cover, stats, 1e-4),
                f"further day, float32 in tiles of {tile}": lambda stats=stats: in_tiles(floats, cover, parts, stats),
                "gathering the pixels alone": lambda: gather(floats, cover.row, cover.col),
            },
            given.rounds,
        )
        theirs = took.pop("exactextract")
        print(f"{name}: exactextract {theirs:.1f} ms")
        for label, ms in took.items():
            print(f"  {label:42s} {ms:8.1f} ms   {ms / theirs:7.3f} of it (1/{theirs / ms:.1f})")


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
