"""Many days and many fields beside exactextract: `python benchmarks/many.py [--days 90] [--rounds 2] [--quick]`.

1. Many days in one call: `reduce_window` over all days of a window, weights included, beside exactextract's call with
   as many bands on the same arrays.
2. 100,000 fields of 400 pixels on one day of 10,980 x 10,980 pixels, each tool in a process of its own: time and peak
   memory (the raster itself, int16, is 240 MB; exactextract gets it as it is).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr
from affine import Affine
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import geofield
from benchmarks.zonal import make_fields
from geofield.grid import Window
from geofield.reduce.coverage import coverage
from geofield.reduce.layer import Layer
from geofield.reduce.partial import combine, reduce_window

STATS = ("count", "mean", "stdev", "min", "max")
FILL = -32768


def make_grid(size: int) -> GeoBox:
    """Pixels of 10 m, lower left corner at (0, 0)."""
    return GeoBox((size, size), Affine(10, 0, 0, 0, -10, 10 * size), "EPSG:32631")


def sources(stack: np.ndarray) -> list[NumPyRasterSource]:
    """One band a day, for exactextract."""
    side = 10 * stack.shape[1]
    return [
        NumPyRasterSource(day, xmin=0, ymin=0, xmax=side, ymax=side, nodata=FILL, name=f"d{number}")
        for number, day in enumerate(stack)
    ]


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call: wall and processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def many_days(days: int, count: int, size: int, rounds: int) -> None:
    """One call over all days beside exactextract's with as many bands; in turns, on fresh arrays."""
    rng = np.random.default_rng(0)
    fields = make_fields(count, 400, size)
    grid, window = make_grid(size), Window(0, 0, size, size)

    def ours(stack: np.ndarray) -> object:
        cover = coverage(fields, grid)
        whole = reduce_window({"v": Layer(stack, 1e-4, FILL)}, window, cover, {"v": STATS})
        return combine([whole], cover, {"v": STATS})

    found: dict[str, list[tuple[float, float]]] = {"geofield": [], "exactextract": []}
    for number in range(rounds + 1):
        mine, theirs = (rng.integers(-2000, 9000, (days, size, size), dtype=np.int16) for _ in range(2))
        if not number:
            ours(mine[:1])  # compiled
            continue
        found["geofield"].append(timed(partial(ours, mine)))
        found["exactextract"].append(
            timed(partial(exact_extract, sources(theirs), fields, list(STATS), output="pandas"))
        )
    print(f"{days} days in one call, {count} fields of 400 pixels, {size} x {size} int16, weights included")
    for name, times in found.items():
        wall, cpu = np.min(times, axis=0)
        print(f"  {name:12} {wall:7.2f} s   CPU {cpu:7.2f} s")
    ratios = np.array(found["exactextract"]) / np.array(found["geofield"])
    wall, cpu = np.median(ratios, axis=0)
    print(f"  median ratio 1/{wall:.1f}, of CPU 1/{cpu:.1f} (target 1/3)")


def many_fields(tool: str, count: int, size: int) -> None:
    """One tool over one large day; runs in a process of its own."""
    rng = np.random.default_rng(0)
    day = rng.integers(-2000, 9000, (1, size, size), dtype=np.int16)
    fields = make_fields(count, 400, size)
    data = xr.DataArray(day[0], dims=("y", "x"), coords=xr_coords(make_grid(size), dims=("y", "x")), name="v")
    data.attrs["nodata"] = FILL
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

    def ours() -> None:
        geofield.zonal_stats(data, fields, STATS)

    def peer() -> None:
        exact_extract(sources(day)[0], fields, list(STATS), output="pandas")

    wall, cpu = timed(ours if tool == "geofield" else peer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"  {tool:12} {wall:7.1f} s   CPU {cpu:7.1f} s   peak {peak:.2f} GB "
        f"({before:.2f} GB of it raster, fields and libraries)"
    )


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--fields", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--alone", choices=["geofield", "exactextract"])
    given = parser.parse_args()
    large = (10_000, 4096) if given.quick else (100_000, 10_980)
    if given.alone:
        many_fields(given.alone, *large)
        return
    many_days(given.days, given.fields, 2048, given.rounds)
    print(f"{large[0]} fields of 400 pixels on one day of {large[1]} x {large[1]} (target: under 2 GB)", flush=True)
    for tool in ("geofield", "exactextract"):
        options = ["--quick"] if given.quick else []
        subprocess.run([sys.executable, "-m", "benchmarks.many", "--alone", tool, *options], check=True)


if __name__ == "__main__":
    main()
