"""One day of a large box beside the least that anybody has to do for it: `python benchmarks/day.py [--side N]`.

The least is: read the source and yesterday's state once, compute the recipe in NumPy, write the same shards with zarr
alone. No field is reduced, nothing is published, no row is written. Both read the same GeoTIFFs (made up once, with
Sentinel-2's form: 16 bit, deflate with predictor, blocks of 512), both write the same shards with the same codecs, on
as many threads, in turns, and what they wrote is compared bit for bit. The best of a few rounds counts.

Then, where the time of a day goes: seconds of all threads by what they were at.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import resource
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
import zarr
from rasterio.transform import from_origin
from rasterio.windows import Window as RasterWindow

import geofield
from geofield.cube.arrays import Arrays
from geofield.cube.attempt import Attempt
from geofield.grid import Window
from geofield.pipeline import append, append_day, tile
from geofield.recipe.state import DEFAULT_Q, DEFAULT_R, State, advance, noise
from geofield.recipe.variables import encoding_of, observe
from geofield.source import open_source
from orchestrate import cluster, run
from orchestrate.inbox import submit

START = dt.date(2025, 6, 1)
X0, Y0 = 500_000, 5_000_000
CRS = "EPSG:32631"
BANDS = ("red", "nir", "scl")
UNWANTED = [0, 1, 3, 8, 9, 10, 11]
SCALE = 1e-4
STATE = ("ndvi_filled", "ndvi_sigma0", "ndvi_age")
Raw = npt.NDArray[Any]
Recipe = Callable[[dict[str, Raw], list[Raw]], tuple[Raw, Raw, Raw, Raw]]


# --- what both work on -----------------------------------------------------------------------------------------------


def make_imagery(folder: Path, side: int, days: int) -> None:
    """GeoTIFFs of the simulated landscape, a scene every day."""
    folder.mkdir()
    box = make_box(side, {"type": "simulated", "revisit": 1, "seed": 3})
    grid = geofield.boxes.resolve_grid(box, None, 10**9)
    source = open_source(box.source)
    form = {
        "driver": "GTiff", "width": side, "height": side, "count": 1, "crs": CRS, "tiled": True, "blockxsize": 512,
        "blockysize": 512, "compress": "deflate", "predictor": 2, "nodata": 0, "num_threads": "all_cpus",
        "transform": from_origin(X0, Y0 + 10 * side, 10, 10),
    }  # fmt: skip
    for number in range(days):
        date = START + dt.timedelta(days=number)
        for one in source.search(grid, date, date):
            with contextlib.ExitStack() as stack:
                files = {
                    band: stack.enter_context(
                        rasterio.open(
                            folder / f"{band}_{date:%Y%m%d}.tif",
                            "w",
                            dtype="uint8" if band == "scl" else "uint16",
                            **form,
                        )
                    )
                    for band in BANDS
                }
                for place in grid.tiles():
                    window = grid.tile_window(*place)
                    values = source.read(one, BANDS, grid.window_geobox(window))
                    for band, file in files.items():
                        numbers = values[band] if band == "scl" else np.nan_to_num(np.rint(values[band] / SCALE))
                        file.write(numbers.astype(file.dtypes[0]), 1, window=raster_window(window))


def make_box(side: int, source: dict[str, Any]) -> geofield.Box:
    """A box of side x side pixels of 10 m."""
    ndvi = {"index": "NDVI", "mask": {"scl": UNWANTED}, "valid_range": [-1, 1], "state": "kalman"}
    return geofield.Box.model_validate(
        {
            "id": "large",
            "bbox": (X0, Y0, X0 + 10 * side, Y0 + 10 * side),
            "crs": CRS,
            "grid": {"crs": CRS},
            "start": START,
            "source": source,
            "variables": {"ndvi": ndvi},
        }
    )


def files_source(folder: Path) -> dict[str, Any]:
    """The GeoTIFFs as a box names them."""
    bands: dict[str, Any] = {
        band: {"path": f"{band}_{{date}}.tif", "scale": SCALE, "offset": 0.0} for band in ("red", "nir")
    }
    return {"type": "files", "root": str(folder), "bands": {**bands, "scl": "scl_{date}.tif"}, "quality": ["scl"]}


def write_fields(path: Path, side: int, count: int) -> Path:
    """Squares of 20 x 20 pixels, scattered."""
    import geopandas as gpd

    corners = np.random.default_rng(0).uniform(100, 10 * side - 300, (2, count))
    x, y = X0 + corners[0], Y0 + corners[1]
    names = [f"f{number}" for number in range(count)]
    shapes = shapely.box(x, y, x + 200, y + 200)
    gpd.GeoDataFrame({"field_id": names, "planting_date": str(START)}, geometry=shapes, crs=CRS).to_parquet(path)
    return path


def raster_window(window: Window) -> RasterWindow:
    """The same for rasterio."""
    return RasterWindow(window.x0, window.y0, window.shape[1], window.shape[0])


# --- the least -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Least:
    """A plain Zarr with the arrays of a cube, written with zarr alone; step 0 holds yesterday."""

    arrays: Arrays
    imagery: Path
    recipe: Recipe

    @classmethod
    def create(cls, folder: Path, cube: geofield.Cube, imagery: Path) -> Least:
        """Of two days; the first is copied from the cube."""
        own = cube.arrays(cube.tip())
        root = zarr.open_group(str(folder), mode="w")
        for name in ("ndvi", *STATE):
            source = own[name]
            array = root.create_array(
                name, shape=(2, *source.shape[1:]), chunks=source.chunks, shards=source.shards, dtype=source.dtype,
                compressors=source.compressors, fill_value=source.fill_value,
            )  # fmt: skip
            side = cube.schema.grid.tile
            for y in range(0, source.shape[1], side):
                array[0, y : y + side] = source[0, y : y + side]
        return cls(Arrays(root), imagery, numpy_recipe)

    def write_day(self, date: dt.date, windows: list[Window], threads: int) -> None:
        """Every tile of the second day."""
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(partial(self._write_tile, date), windows))

    def _write_tile(self, date: dt.date, window: Window) -> None:
        found = {}
        for band in BANDS:
            with rasterio.open(self.imagery / f"{band}_{date:%Y%m%d}.tif") as file:
                found[band] = file.read(1, window=raster_window(window))
        before = [self.arrays[name][(0, *window.slices)] for name in STATE]
        observed, *after = self.recipe(found, [np.asarray(one) for one in before])
        for name, values in zip(("ndvi", *STATE), (observed, *after), strict=True):
            self.arrays[name][(1, *window.slices)] = values


def numpy_recipe(found: dict[str, Raw], before: list[Raw]) -> tuple[Raw, Raw, Raw, Raw]:
    """NDVI of a window and the state after it, as stored; written as one would in NumPy, with the same operations."""
    fill = np.iinfo("int16").min
    red, nir = (found[band] * SCALE for band in ("red", "nir"))
    valid = (found["red"] != 0) & (found["nir"] != 0) & ~np.isin(found["scl"], UNWANTED)
    with np.errstate(divide="ignore", invalid="ignore"):
        ndvi = (nir - red) / (nir + red)
        valid &= (ndvi >= -1) & (ndvi <= 1)
        observed = np.where(valid, np.rint(ndvi / SCALE), fill).astype(np.int16)
    filled, sigma0, age = before
    seen, was_seen = observed != fill, age != fill
    v, m, s0 = observed * SCALE, filled * SCALE, sigma0 * SCALE
    p = s0 * s0 + DEFAULT_Q * (age.astype(np.int32) + 1)
    gain = p / (p + DEFAULT_R)
    m = np.where(was_seen, m + gain * (v - m), v)
    with np.errstate(invalid="ignore"):  # what was never seen has no variance
        s0 = np.where(was_seen, np.sqrt((1.0 - gain) * p), np.sqrt(DEFAULT_R))
    older = np.where(was_seen, np.minimum(age.astype(np.int32) + 1, 32767), fill)
    return (
        observed,
        np.where(seen, np.rint(m / SCALE), filled).astype(np.int16),
        np.where(seen, np.rint(s0 / SCALE), sigma0).astype(np.int16),
        np.where(seen, 0, older).astype(np.int16),
    )


def compiled_recipe(found: dict[str, Raw], before: list[Raw]) -> tuple[Raw, Raw, Raw, Raw]:
    """The same with the functions of geofield, whose state is compiled: what the library adds around them."""
    variable = make_box(512, {"type": "simulated"}).variables["ndvi"]
    bands = {band: np.where(found[band] == 0, np.nan, found[band] * SCALE) for band in ("red", "nir")}
    observed = observe(variable, bands | {"scl": found["scl"].astype(np.float64)})
    state = advance(State(before[0], before[1], before[2], 0), observed, encoding_of(variable), *noise(variable), 1)
    return observed, state.filled, state.sigma0, state.age


# --- where the time goes ---------------------------------------------------------------------------------------------


class Clock:
    """Seconds of all threads by what they were at; what is inside of something else is counted there only."""

    def __init__(self) -> None:
        self.wall: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._inner = threading.local()

    @contextlib.contextmanager
    def watching(self, places: dict[str, tuple[Any, str]]) -> Iterator[None]:
        """Replace functions by ones that are timed."""
        kept = {what: getattr(owner, name) for what, (owner, name) in places.items()}
        for what, (owner, name) in places.items():
            setattr(owner, name, self._timed(what, kept[what]))
        try:
            yield
        finally:
            for what, (owner, name) in places.items():
                setattr(owner, name, kept[what])

    def _timed(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            outer = getattr(self._inner, "spent", 0.0)
            self._inner.spent = 0.0
            began = time.perf_counter()
            try:
                return call(*args, **named)
            finally:
                took = time.perf_counter() - began
                with self._lock:
                    self.wall[what] += took - self._inner.spent
                self._inner.spent = outer + took

        return timed


PLACES: dict[str, tuple[Any, str]] = {
    "open and search the source": (append, "day_inputs"),
    "begin the attempt": (Attempt, "grow"),
    "tiles: the rest": (tile, "writer_of"),
    "tiles: read the source, derive the variables": (tile, "observe_day"),
    "tiles: read yesterday's state": (tile, "load_states"),
    "tiles: advance the state": (tile, "advanced"),
    "tiles: write the shards": (tile, "_write"),
    "tiles: reduce the fields": (tile, "reduce_window"),
    "commit the attempt": (Attempt, "write"),
    "publish": (Attempt, "publish"),
    "combine the fields, build the rows": (append, "_rows"),
    "commit the rows": (geofield.Results, "commit"),
}


# --- the comparison --------------------------------------------------------------------------------------------------


def main() -> None:
    """Make a store with its first day; then the second, in turns, by both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=10_980)
    parser.add_argument("--fields", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keeps what is made, for the next call")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        compare(asked.folder or Path(made), asked.side, asked.fields, asked.threads, asked.rounds)


def compare(folder: Path, side: int, count: int, threads: int, rounds: int) -> None:
    """Print both, side by side."""
    imagery, first = folder / "imagery", folder / "first"
    day = START + dt.timedelta(days=1)
    with cluster.connect("threads", threads) as client, cluster.active(client):
        if not first.exists():
            make_imagery(imagery, side, days=2)
            store = geofield.create_store(str(first))
            store.add_box(make_box(side, files_source(imagery)))
            submit(store, [write_fields(folder / "fields.parquet", side, count)])
            no_errors(first, START, client)
        cube = geofield.open_store(str(first)).cube("large")
        plain = folder / "plain.zarr"
        bare_zarr = Least.create(plain, cube, imagery)
        windows = [cube.schema.grid.tile_window(*place) for place in cube.schema.grid.tiles()]
        best: dict[str, Took] = {}
        clock = Clock()
        for number in range(rounds):
            bare = timed(lambda: bare_zarr.write_day(day, windows, threads))
            compiled = timed(lambda: replace(bare_zarr, recipe=compiled_recipe).write_day(day, windows, threads))
            second = folder / f"second-{number}"
            shutil.rmtree(second, ignore_errors=True)  # of a call that was cut
            shutil.copytree(first, second)
            clock.wall.clear()
            took = ours(second, day, clock if number == rounds - 1 else None)
            whole = folder / f"whole-{number}"
            shutil.rmtree(whole, ignore_errors=True)
            shutil.copytree(first, whole)
            ran = timed(partial(no_errors, whole, day, client))
            if number == 0:
                check_same(geofield.open_store(str(second)).cube("large"), bare_zarr.arrays, windows)
            shutil.rmtree(second)
            shutil.rmtree(whole)
            found = {"least": bare, "compiled": compiled, "append": took, "run": ran}
            best = {name: least(one, best.get(name, one)) for name, one in found.items()}
            told = ", ".join(f"{name} {one.wall:.2f} s" for name, one in found.items())
            print(f"round {number + 1}: {told}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    pixels = side * side / 1e6
    print(f"\n{side} x {side} pixels, {count} fields, {threads} threads, best of {rounds}; peak {peak:.2f} GB")
    rows = (
        ("the least, in NumPy", "least"), ("the least, with the compiled recipe", "compiled"),
        ("append_day: the same, fields, rows, published", "append"),
        ("a whole run: inbox, survey, weights, receipt too", "run"),
    )  # fmt: skip
    for what, name in rows:
        one, base = best[name], best["least"]
        print(
            f"  {what:50} {one.wall:7.2f} s {one.wall / base.wall:6.2f}   {one.cpu:7.2f} s of processors "
            f"{one.cpu / base.cpu:6.2f} {1e3 * one.cpu / pixels:7.1f} ns a pixel"
        )
    print(f"\nwhere append_day of the last round was ({took.wall:.2f} s on {threads} threads)")
    for what, seconds in clock.wall.most_common():
        print(f"  {what:50} {seconds:7.2f} s")


def ours(folder: Path, day: dt.date, clock: Clock | None) -> Took:
    """One day appended, with all that goes with it."""
    store = geofield.open_store(str(folder))
    fields = store.box_fields("large")  # weights are kept from the first day; a run reads them once
    where = store.source("large"), fields, store.cube("large"), store.results("large")
    reports: list[append.AppendReport] = []
    with clock.watching(PLACES) if clock else contextlib.nullcontext():
        took = timed(lambda: reports.append(append_day(day, *where)))
    assert [(one.days_appended, one.rows_written) for one in reports] == [(1, len(fields))]
    return took


def no_errors(folder: Path, day: dt.date, client: Any) -> None:
    """A run, or stop."""
    receipt = run(str(folder), day, client)
    assert receipt["errors"] == [], receipt["errors"]


def check_same(cube: geofield.Cube, arrays: Arrays, windows: list[Window]) -> None:
    """Both wrote the same bits."""
    own = cube.arrays(cube.tip())
    for name in ("ndvi", *STATE):
        for window in windows:
            place = (1, *window.slices)
            assert np.array_equal(own[name][place], arrays[name][place]), (name, window)
    print("what both wrote is the same, bit for bit", flush=True)


@dataclass(frozen=True, order=True)
class Took:
    """Seconds by the clock, and of all processors: on a busy machine only the latter tell."""

    wall: float
    cpu: float


def least(one: Took, other: Took) -> Took:
    """The least of both, each by itself."""
    return Took(min(one.wall, other.wall), min(one.cpu, other.cpu))


def timed(call: Callable[[], object]) -> Took:
    """What it took."""
    began, cpu = time.perf_counter(), time.process_time()
    call()
    return Took(time.perf_counter() - began, time.process_time() - cpu)


if __name__ == "__main__":
    main()
