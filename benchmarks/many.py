"""Many days and many fields beside exactextract: `python benchmarks/many.py [--days 90] [--fields 2000] [--quick]`.

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


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def many_days(days: int, count: int, size: int) -> None:
    """One call over all days beside exactextract's with as many bands; in turns, twice."""
    rng = np.random.default_rng(0)
    stack = rng.integers(-2000, 9000, (days, size, size), dtype=np.int16)
    fields = make_fields(count, 400, size)
    grid, window = make_grid(size), Window(0, 0, size, size)

    def ours() -> object:
        cover = coverage(fields, grid)
        partial = reduce_window({"v": Layer(stack, 1e-4, FILL)}, window, cover, {"v": STATS})
        return combine([partial], cover, {"v": STATS})

    bands = sources(stack)
    ours()  # compiled
    found = {"geofield": [], "exactextract": []}
    for _ in range(2):
        found["geofield"].append(timed(ours))
        found["exactextract"].append(timed(lambda: exact_extract(bands, fields, list(STATS), output="pandas")))
    mine, peer = min(found["geofield"]), min(found["exactextract"])
    print(f"{days} days in one call, {count} fields of 400 pixels, {size} x {size} int16, weights included")
    print(f"  geofield {mine:7.2f} s   exactextract {peer:7.2f} s   ratio 1/{peer / mine:.1f} (target 1/3)")


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

    seconds = timed(ours if tool == "geofield" else peer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"  {tool:12} {seconds:7.1f} s   peak {peak:.2f} GB ({before:.2f} GB of it raster, fields and libraries)")


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--fields", type=int, default=2000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--alone", choices=["geofield", "exactextract"])
    given = parser.parse_args()
    large = (10_000, 4096) if given.quick else (100_000, 10_980)
    if given.alone:
        many_fields(given.alone, *large)
        return
    many_days(given.days, given.fields, 2048)
    print(f"{large[0]} fields of 400 pixels on one day of {large[1]} x {large[1]} (target: under 2 GB)", flush=True)
    for tool in ("geofield", "exactextract"):
        options = ["--quick"] if given.quick else []
        subprocess.run([sys.executable, "-m", "benchmarks.many", "--alone", tool, *options], check=True)


if __name__ == "__main__":
    main()
