"""What an append costs on S3, beside a bare Icechunk append and xarray's `to_zarr(append_dim=...)` of the same.

`python benchmarks/append.py [--quick] [--large] [--latency MS]`. One server (moto, in a process of its own), all
contenders in turns, each opening its store anew as a daily run does. The pixels are given in memory, so that only the
append is compared. Absolute seconds mean nothing here; ratios of one run do. Without latency they tell of processor
time, most of it the server's; with the latency of a real store, of how many requests wait for one another.

Two bare appends, because our arrays hold a state: one is handed what it writes, the other reads the state of the day
before first, as everybody has to who computes these arrays. `beside` are the kilobytes both ways of all but the shards
(everything that is no chunk, and chunks below 8 kB).
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import geofield
from benchmarks.day import CRS, files_source, make_box, make_imagery
from benchmarks.history import DAY_ARRAYS, NO_FIELDS, START, Bench, day, fill_history, image
from benchmarks.server import Cost, Server
from geofield.boxes import Box, GridSpec
from geofield.cube.arrays import Arrays
from geofield.cube.cube import Cube
from geofield.pipeline import append_day, append_days, box_fields, correct_days
from geofield.results.rows import Results
from geofield.store import Location
from geofield.testing.source import Scene

STATE = ("filled", "sigma0", "age")


def middle(costs: Sequence[Cost]) -> Cost:
    """The run with the median of the requests; the least of the seconds, which a busy machine changes least."""
    one = sorted(costs, key=lambda cost: cost.requests)[len(costs) // 2]
    return Cost(one.operations, one.up, one.down, one.beside, min(cost.seconds for cost in costs))


# --- the contenders --------------------------------------------------------------------------------------------------


def stored_values(bench: Bench, step: int) -> dict[str, NDArray[Any]]:
    """What our append stored of a day: the arrays that the others write."""
    arrays = bench.cube().arrays()
    names = (*DAY_ARRAYS, *(spec.name for spec in bench.schema.arrays))
    return {name: np.asarray(arrays[name][step : step + 1]) for name in names}


def bare_append(bench: Bench, branch: str, values: dict[str, NDArray[Any]], *, reads_state: bool) -> None:
    """One session on a branch: resize, write, commit; with the state of the day before read first, or without."""
    session = bench.cube().repository.writable_session(branch)
    arrays = Arrays(zarr.open_group(session.store, mode="r+"))
    if reads_state:
        before = int(np.flatnonzero(arrays["acquired"][:])[-1])
        for spec in bench.schema.arrays:
            if spec.role in STATE:
                arrays[spec.name][before]
    for name, column in values.items():
        array = arrays[name]
        length = array.shape[0]
        array.resize((length + 1, *array.shape[1:]))
        array[length:] = column
    session.commit("append")


def plain_dataset(values: dict[str, NDArray[Any]]) -> xr.Dataset:
    """The arrays of a day for xarray, as stored: integers, nothing to encode."""
    dims = {"digest": ("time", "tile_y", "tile_x"), "acquired": ("time",), "items": ("time",)}
    arrays = {name: (dims.get(name, ("time", "y", "x")), column) for name, column in values.items() if name != "time"}
    arrays["items"] = (("time",), values["items"].astype(object))
    return xr.Dataset(arrays, coords={"time": ("time", values["time"].astype(np.int64))})


def create_plain(url: str, bench: Bench, length: int) -> None:
    """A plain Zarr of that many days, all fill: what an append costs does not depend on the pixels before it."""
    arrays = bench.cube().arrays()
    root = zarr.open_group(url, mode="w")
    for name in (*DAY_ARRAYS, *(spec.name for spec in bench.schema.arrays)):
        source = arrays[name]
        array = root.create_array(
            name, shape=(length, *source.shape[1:]), chunks=source.chunks, shards=source.shards, dtype=source.dtype,
            compressors=source.compressors, fill_value=source.fill_value,
            dimension_names=source.metadata.dimension_names, attributes={},  # type: ignore[union-attr]
        )  # fmt: skip
        if name in DAY_ARRAYS:
            array[:] = np.asarray(source[:length])
    zarr.consolidate_metadata(root.store)


def plain_append(url: str, dataset: xr.Dataset) -> None:
    """xarray's own append."""
    dataset.to_zarr(url, append_dim="time", mode="a")


# --- the tables ------------------------------------------------------------------------------------------------------


def table(title: str, rows: Sequence[tuple[str, Cost]]) -> None:
    """Print costs, each with its ratio to the first."""
    base = rows[0][1]
    operations = sorted({name for _, cost in rows for name in cost.operations})
    heads = "".join(f"{name:>6s}" for name in operations)
    sizes = "".join(f"{name:>9s}" for name in ("kB up", "kB down", "beside", "s"))
    print(f"\n{title}\n  {'':42s}{'requests':>9s}{heads}{sizes}   ratio: requests  bytes   time")
    for name, cost in rows:
        counts = "".join(f"{cost.operations.get(one, 0):6d}" for one in operations)
        sizes = "".join(f"{size / 1e3:9.1f}" for size in (cost.up, cost.down, cost.beside))
        ratios = (cost.requests / base.requests, (cost.up + cost.down) / (base.up + base.down))
        print(
            f"  {name:42s}{cost.requests:9d}{counts}{sizes}{cost.seconds:9.3f}"
            f"{ratios[0]:18.2f}{ratios[1]:7.3f}{cost.seconds / base.seconds:7.3f}"
        )


def compare(server: Server, bench: Bench, url: str, length: int, rounds: int) -> tuple[Cost, Cost]:
    """All contenders at one length of the history; our cost, and that of a day without acquisition."""
    bucket = url.rsplit("/", 1)[0]
    plain = f"{bucket}/plain-{length}.zarr"
    branches = [f"bare-{length}", f"state-{length}"]
    cube = bench.cube()
    for branch in branches:
        cube.repository.create_branch(branch, cube.tip())
    create_plain(plain, bench, length)
    costs: dict[str, list[Cost]] = {}
    for number in range(rounds):
        step = length + number
        ours = server.measure(partial(bench.append, step))
        values = stored_values(bench, step)
        dataset = plain_dataset(values)
        found = {
            "bare Icechunk": server.measure(partial(bare_append, bench, branches[0], values, reads_state=False)),
            "bare Icechunk that reads yesterday's state": server.measure(
                partial(bare_append, bench, branches[1], values, reads_state=True)
            ),
            "to_zarr(append_dim='time')": server.measure(partial(plain_append, plain, dataset)),
            "geofield": ours,
        }
        if number:  # the first round compiles and imports
            for name, cost in found.items():
                costs.setdefault(name, []).append(cost)
    without = [
        server.measure(partial(bench.append, step, acquired=False))
        for step in range(length + rounds, length + 2 * rounds)
    ]
    rows = [(name, middle(some)) for name, some in costs.items()]
    empty = middle(without)
    table(
        f"one day appended at day {length:,}, {server.delay * 1e3:g} ms of latency",
        [*rows, ("geofield, a day without acquisition", empty)],
    )
    return rows[-1][1], empty


def open_and_read(server: Server, bench: Bench) -> None:
    """Opening a cube, and the series of one pixel."""
    opened = server.measure(lambda: bench.cube().open())
    view = bench.cube().open()
    series = server.measure(lambda: view["ndvi"][:, 5, 5].values)
    acquired = int(view["acquired"].sum())
    table(
        f"opening {view.sizes['time']:,} days ({acquired:,} with an acquisition)",
        [("cube.open()", opened), ("then the series of one pixel", series)],
    )


def many_tiles(server: Server, url: str, tile: int) -> None:
    """A late scene over one tile of 36 on the last day, and a day without acquisition, beside appending a day."""
    bench = Bench(url, 6 * tile, tile)
    append_days(day(0), day(2), bench.source(range(3)), bench.fields, bench.cube(), bench.results)
    whole = image(6 * tile, 9, is_whole=True)
    appended, corrected = [], []
    for step in range(3, 7):
        appended.append(server.measure(partial(bench.append, step)))
        geobox = bench.box.resolved.window_geobox(bench.box.resolved.tile_window(2, 3))
        late = Scene(
            dt.datetime.combine(day(step), dt.time(11), dt.UTC), {"ndvi": whole}, "1", f"late-{step}",
            tuple(geobox.pad(-1).boundingbox.bbox),  # type: ignore[arg-type]
        )  # fmt: skip
        source = bench.source([step], [late])
        corrected.append(
            server.measure(partial(correct_days, day(step), source, bench.fields, bench.cube(), bench.results))
        )
    without = [server.measure(partial(bench.append, step, acquired=False)) for step in range(7, 10)]
    table(
        f"a box of 36 tiles of {tile}",
        [
            ("appending a day", middle(appended[1:])),
            ("a late scene over one tile of its last day", middle(corrected[1:])),
            ("appending a day without acquisition", middle(without)),
        ],
    )


def from_files(server: Server, url: str, tile: int) -> None:
    """Days as they come: red, near infrared and classes read from GeoTIFFs on this machine's disk, and none."""
    days = 5
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "imagery"
        make_imagery(files, 6 * tile, days)
        box = make_box(6 * tile, files_source(files))
        box = geofield.create_store(url).add_box(box.model_copy(update={"grid": GridSpec(crs=CRS, tile=tile)}))
        source, fields, location = geofield.open_source(box.source), box_fields(box, NO_FIELDS), Location.parse(url)

        def append(step: int) -> Cost:
            date, cube = box.start + dt.timedelta(days=step), Cube(location, box.id)
            return server.measure(partial(append_day, date, source, fields, cube, Results(location, box.id)))

        costs = [append(step) for step in range(2 * days)]
    table(
        f"a box of 36 tiles of {tile}, imagery from three GeoTIFFs a day",
        [
            ("appending a day", middle(costs[1:days])),  # the first has no state before it
            ("appending a day without acquisition", middle(costs[days:])),
        ],
    )


def storage(side: int = 10_980, tile: int = 2048) -> None:
    """Bytes of a year of a large box, from one tile of simulated imagery on a directory."""
    with tempfile.TemporaryDirectory() as folder:
        spec = {
            "id": "b",
            "bbox": (500000, 5000000, 500000 + 10 * tile, 5000000 + 10 * tile),
            "crs": "EPSG:32631",
            "grid": {"crs": "EPSG:32631", "tile": tile},
            "start": START,
            "source": {"type": "simulated", "revisit": 2},
            "variables": {
                "ndvi": {"index": "NDVI", "mask": {"scl": [0, 1, 3, 8, 9, 10, 11]}, "state": "kalman"},
            },
        }
        store = geofield.create_store(folder)
        box = store.add_box(Box.model_validate(spec))
        source = geofield.open_source(box.source)
        cube, location, fields = store.cube("b"), store.location, box_fields(box, NO_FIELDS)
        sizes: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for step in range(7):
            before = {info.key: info.size for info in location.list("cubes/b")}
            append_days(day(step), day(step), source, fields, cube, Results(location, "b"))
            new = [info for info in location.list("cubes/b") if info.key not in before]
            stored = sum(info.size for info in new if "/chunks/" in info.key)
            came = bool(cube.head().acquired[-1])
            sizes[came].append((stored, sum(info.size for info in new) - stored))
    scale = (side / tile) ** 2
    tiles = math.ceil(side / tile) ** 2
    # the pixels of a day grow with the area; what is written beside them grows with the tiles by 20 bytes a shard
    shards = float(statistics.median(size for size, _ in sizes[True][1:]))
    beside = statistics.median(size for _, size in sizes[False])
    print(f"\nstorage of a year of {side:,} x {side:,} pixels, one variable with state, simulated imagery")
    print(
        f"  measured: one tile of {tile}: {shards / 1e6:.2f} MB of shards on a day with an acquisition, "
        f"{max(size for size, _ in sizes[False])} bytes on a day without; {beside / 1e3:.1f} kB of metadata a day"
    )
    for said, share in (("an acquisition every day", 1.0), ("on 73 days (every fifth)", 0.2), ("on none", 0.0)):
        metadata = 365 * (beside + share * 4 * 16 * tiles * 20)  # four manifests of 16 days on average
        print(f"  extrapolated, {said:26s}{365 * share * shards * scale / 1e9:8.2f} GB of shards, "
              f"{metadata / 1e6:7.1f} MB of metadata of all snapshots kept")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="history to 200 days, small boxes")
    parser.add_argument("--large", action="store_true", help="36 tiles of 2,048 too: 12 GB of memory")
    parser.add_argument("--latency", type=float, default=30.0, help="ms before each answer, in one more table")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--tile", type=int, default=512)
    given = parser.parse_args(arguments)
    lengths = (5, 200) if given.quick else (5, 365, 1825)
    with Server() as server, dask.config.set(scheduler="threads", num_workers=2):
        os.environ.update(server.environment)
        url = f"s3://{server.create_bucket()}/store"
        bench = Bench(url, given.side, given.tile)
        print(f"{given.side} x {given.side} pixels, tiles of {given.tile}, four arrays")
        costs = {}
        for length in lengths:
            fill_history(bench, length)
            costs[length] = compare(server, bench, url, length, 3 if given.quick else 12)
        (day_first, without_first), (day_last, without_last) = costs[lengths[0]], costs[lengths[-1]]
        print(f"\nday {lengths[-1]:,} beside day {lengths[0]}")
        for said, now, then in (
            ("with an acquisition", day_last, day_first),
            ("without", without_last, without_first),
        ):
            print(f"  {said:42s}requests {now.requests / then.requests:.2f}, bytes beside the shards "
                  f"{now.beside / then.beside:.2f}")  # fmt: skip
        open_and_read(server, bench)
        server.delay = given.latency / 1e3
        fill_history(bench, length + 20)
        compare(server, bench, url, length + 20, 4)
        server.delay = 0.0
        for tile in (256,) if given.quick else (512, 1024, 2048) if given.large else (512, 1024):
            many_tiles(server, f"{url}-{tile}", tile)
            from_files(server, f"{url}-{tile}-files", tile)
    storage(10_980, 512 if given.quick else 2048)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # zarr and xarray warn of text arrays, whose specification is a draft
    main()
