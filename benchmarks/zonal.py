"""Field statistics of one day beside other tools and the floor: `python -m benchmarks.zonal`.

[--size 4096] [--fields 20 2000] [--rounds 5] [--slow-rounds 1] [--fast]. All tools get the same raster and the same
polygons, a fresh raster in every repetition, in turns. Printed are, for each tool, the shortest wall time, the
shortest processor time, and the median over the rounds of its times beside exactextract's in the same round; on a busy
machine only processor time says something. Tools that are not installed
(`pip install geofield[peers]`) are left out and named.

- floor: reading the pixels of the fields once and summing them, by place in a compiled loop, and with NumPy;
- kernel: five moments of every field, one thread, nothing else;
- a further day: with all that is around it, weights kept;
- a first day: weights and statistics;
- the slow tools are timed with the most fields only;
- rasterstats, flox and xarray-spatial count a pixel wholly or not at all; flox and xarray-spatial get a raster of
  labels (time included), in which overlapping fields hide one another.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import geopandas as gpd
import numba
import numpy as np
import shapely
import xarray as xr
from affine import Affine
from exactextract import exact_extract
from exactextract.feature import Feature, FeatureSource
from exactextract.raster import NumPyRasterSource
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.features import rasterize

import geofield
from geofield.grid import Window
from geofield.reduce import kernels
from geofield.reduce.coverage import Coverage, coverage
from geofield.reduce.layer import Layer
from geofield.reduce.partial import combine, reduce_window

MOMENTS = ("count", "mean", "stdev", "min", "max")
ORDERED = (*MOMENTS, "median", "quantile(q=0.25)", "quantile(q=0.75)")
TILE = 2048
CACHE = 16_000_000
"""Numbers written between two measurements: what was in the caches is in them no more."""

Day = Callable[[np.ndarray], object]


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


@dataclass
class Times:
    """Seconds of one tool, a number for each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def take_turns(days: dict[str, Day], fresh: Callable[[], np.ndarray], rounds: dict[str, int]) -> dict[str, Times]:
    """Time each on a raster that it has not seen; the first time of each does not count."""
    found = {name: Times() for name in days}
    for number in range(max(rounds.values()) + 1):
        for name, day in days.items():
            if number > rounds[name]:
                continue
            data = fresh()
            np.ones(CACHE).sum()
            wall, cpu = time.perf_counter(), time.process_time()
            day(data)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if number or not rounds[name]:
                found[name].wall.append(wall)
                found[name].cpu.append(cpu)
    return found


def ratio(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds."""
    return statistics.median(one / other for one, other in zip(mine, theirs, strict=False))


def show(found: dict[str, Times], peer: str) -> None:
    """One line each."""
    print(f"  {'':50s} {'wall ms':>9s} {'CPU ms':>9s}   of {peer}: wall, CPU")
    for name, times in found.items():
        shares = ratio(times.wall, found[peer].wall), ratio(times.cpu, found[peer].cpu)
        parts = ", ".join(f"1/{1 / one:.1f}" if one < 1 else f"{one:.2f}" for one in shares)
        print(f"  {name:50s} {min(times.wall) * 1e3:9.1f} {min(times.cpu) * 1e3:9.1f}   {parts}")


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


def kernel_alone(cover: Coverage) -> Day:
    """Five moments of every segment, one thread, nothing around it."""
    runs = cover.run_row, cover.run_col, cover.run_length, cover.run_weight, cover.weights
    out = np.zeros((1, len(cover.number), 6))

    def day(data: np.ndarray) -> None:
        kernel = kernels.moments_kernel(data.dtype)
        fill = data.dtype.type(0)
        kernel(data, fill, False, 1.0, 0, 0, *runs, cover.segment_run, cover.segment_start, out)

    return day


def raster_of(data: np.ndarray, geobox: GeoBox) -> xr.DataArray:
    """A day as xarray holds it."""
    return xr.DataArray(data[0], dims=("y", "x"), coords=xr_coords(geobox, dims=("y", "x")), name="v").odc.assign_crs(
        geobox.crs
    )


def peers(fields: gpd.GeoDataFrame, geobox: GeoBox, size: int) -> dict[str, Day]:
    """Other tools, as their documentation says to use them; those that are installed."""
    names = ("rasterstats", "xvec", "flox", "xrspatial")
    there = {name for name in names if importlib.util.find_spec(name)}
    if there != set(names):
        print(f"  not installed: {', '.join(sorted(set(names) - there))}")

    def labels() -> xr.DataArray:
        burnt = rasterize(
            zip(fields.geometry, range(1, len(fields) + 1), strict=True), (size, size), transform=geobox.transform,
            dtype="int32",
        )  # fmt: skip
        return raster_of(burnt[None], geobox).rename("label")

    def rasterstats(data: np.ndarray) -> object:
        from rasterstats import zonal_stats

        stats = ["count", "mean", "std", "min", "max"]
        return zonal_stats(fields.geometry, data[0], affine=geobox.transform, stats=stats, nodata=-9999)

    def xvec(data: np.ndarray) -> object:
        import xvec  # noqa: F401 - registers the accessor

        return raster_of(data, geobox).xvec.zonal_stats(
            fields.geometry, x_coords="x", y_coords="y", stats=list(MOMENTS), method="exactextract"
        )

    def flox(data: np.ndarray) -> object:
        from flox.xarray import xarray_reduce

        zones, raster = labels(), raster_of(data, geobox)
        return [xarray_reduce(raster, zones, func=name) for name in ("count", "mean", "std", "min", "max")]

    def xrspatial(data: np.ndarray) -> object:
        from xrspatial.zonal import stats

        return stats(labels(), raster_of(data, geobox), stats_funcs=["count", "mean", "std", "min", "max"])

    days = {
        "rasterstats": ("rasterstats, pixel centres", rasterstats),
        "xvec": ("xvec, by exactextract", xvec),
        "flox": ("flox, labels burnt, five calls", flox),
        "xrspatial": ("xarray-spatial, labels burnt", xrspatial),
    }
    return {label: day for name, (label, day) in days.items() if name in there}


def compare(count: int, given: argparse.Namespace) -> None:
    """One table."""
    size = given.size
    fields = make_fields(count, given.pixels, size)
    geobox = GeoBox((size, size), Affine(10, 0, 0, 0, -10, size * 10), "EPSG:32631")
    wkt = fields.crs.to_wkt()
    rng = np.random.default_rng(1)
    cover = coverage(fields, geobox)
    row, col = cover.places
    theirs = fields.set_crs(geobox.crs.to_wkt(), allow_override=True)

    def fresh() -> np.ndarray:
        return (rng.integers(0, 10_000, (1, size, size), dtype=np.int16) * np.float32(1e-4)).astype(np.float32)

    def exactextract(data: np.ndarray, shapes: object, stats: Sequence[str]) -> object:
        source = NumPyRasterSource(data[0], 0, 0, size * 10, size * 10, srs_wkt=wkt)
        return exact_extract(source, shapes, list(stats), output="pandas")

    print(f"{count} fields of {cover.pixels:,} pixels in {len(cover.number):,} blocks; {size} x {size} float32")
    slow = peers(theirs, geobox, size) if count == max(given.fields) and not given.fast else {}
    days: dict[str, Day] = {
        "floor: pixels summed by place": lambda data: gather(data, row, col),
        "floor: NumPy data[row, column]": lambda data: data[0][row, col].sum(),
        "kernel alone, five moments": kernel_alone(cover),
    }
    for label, stats in (("five moments", MOMENTS), ("moments, median, two quantiles", ORDERED)):
        days |= {
            f"further day, {label}": lambda data, stats=stats: one_window(data, cover, stats),
            f"first day, {label}": lambda data, stats=stats: one_window(data, coverage(fields, geobox), stats),
            f"exactextract, {label}": lambda data, stats=stats: exactextract(data, fields, stats),
            f"exactextract given WKB, {label}": lambda data, stats=stats: exactextract(
                data, WkbPolygons(fields), stats
            ),
        }
    if not given.fast:
        days["exactextract given a DataArray, five moments"] = lambda data: exact_extract(
            raster_of(data, geobox), fields, list(MOMENTS), output="pandas"
        )
    days["geofield.zonal_stats given a DataArray, five moments"] = lambda data: geofield.zonal_stats(
        raster_of(data, geobox), fields, MOMENTS
    )
    days |= slow
    rounds = {name: given.slow_rounds if name in slow else given.rounds for name in days}
    found = take_turns(days, fresh, rounds)
    of_quantiles = {name: times for name, times in found.items() if "quantiles" in name}
    show({name: times for name, times in found.items() if name not in of_quantiles}, "exactextract, five moments")
    show(of_quantiles, "exactextract, moments, median, two quantiles")
    floor, kernel = found["floor: pixels summed by place"], found["kernel alone, five moments"]
    wall, cpu = ratio(kernel.wall, floor.wall), ratio(kernel.cpu, floor.cpu)
    print(f"  kernel alone, of the floor: wall {wall:.2f}, CPU {cpu:.2f}")


def describe_machine() -> str:
    """What the figures hold for."""
    return (
        f"{os.cpu_count()} cores {platform.machine()}, load {os.getloadavg()[0]:.1f}, Python "
        f"{platform.python_version()}, NumPy {np.__version__}, Numba {numba.__version__}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--fields", type=int, nargs="+", default=[20, 2000])
    parser.add_argument("--pixels", type=float, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--slow-rounds", type=int, default=1, help="of the tools that take seconds; 0: the first counts"
    )
    parser.add_argument("--fast", action="store_true", help="without tools that take minutes for 100,000 fields")
    given = parser.parse_args(arguments)
    print(describe_machine())
    for count in given.fields:
        compare(count, given)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # other tools' own
    main()
