"""Late fields beside reprocessing, exactextract, and xarray with Dask; on a directory and on S3.

Run `python -m benchmarks.late [--size 4096] [--days 365] [--revisit 5] [--where directory s3 s3-slow]`. The cube holds
four simulated scenes over and over, so that it is written fast; shards are as large as real ones. The S3 server (moto)
runs in this process: its time is part of what is measured. Reprocessing is measured on one scene and multiplied.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
import zarr
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from zarr.storage import LocalStore, MemoryStore

import geofield
from geofield.cube.arrays import Arrays
from geofield.cube.attempt import Attempt, NewDay
from geofield.cube.cube import to_day
from geofield.cube.schema import create_arrays
from geofield.grid import BLOCK, Window
from geofield.pipeline import BoxFields, LateReport, box_fields, fill_late_fields
from geofield.recipe.state import State, advance, never_seen, noise
from geofield.recipe.variables import encoding_of, needed_bands, observe
from geofield.results.rows import Results

START = dt.date(2025, 1, 1)
X0, Y0, PIXEL = 500_000.0, 5_490_000.0, 10.0
SCENES = 4
LATENCY_S = 0.03
Shards = dict[str, Any]


def make_box(size: int, revisit: int) -> geofield.Box:
    """A square box of 10 m pixels with NDVI and its state."""
    ndvi = {"index": "NDVI", "mask": {"scl": [0, 1, 3, 8, 9, 10, 11]}, "valid_range": [-1, 1], "state": "kalman"}
    bbox = [X0, Y0, X0 + size * PIXEL, Y0 + size * PIXEL]
    return geofield.Box.model_validate(
        {"id": "b", "bbox": bbox, "crs": "EPSG:32631", "start": START, "grid": {"crs": "EPSG:32631", "resolution": 10},
         "source": {"type": "simulated", "seed": 5, "revisit": revisit}, "variables": {"ndvi": ndvi}}
    )  # fmt: skip


def make_scenes(box: geofield.Box, window: Window) -> list[dict[str, np.ndarray]]:
    """Arrays of the cube after each of a few scenes over one window."""
    source, variable = geofield.open_source(box.source), box.variables["ndvi"]
    encoding, state = encoding_of(variable), never_seen(encoding_of(variable), window.shape, 0)
    found = []
    for scene in source.search(box.resolved, START, START + dt.timedelta(days=366))[:SCENES]:
        bands = source.read(scene, needed_bands(box.variables, source.bands()), box.resolved.window_geobox(window))
        observed = observe(variable, bands)
        state = advance(state, observed, encoding, *noise(variable), to_day(scene.time.date()))
        found.append(_arrays(observed, state))
    return found


def _arrays(observed: np.ndarray, state: State) -> dict[str, np.ndarray]:
    return {"ndvi": observed, "ndvi_filled": state.filled, "ndvi_sigma0": state.sigma0, "ndvi_age": state.age}


def encode(schema: Any, scenes: Sequence[dict[str, np.ndarray]]) -> list[Shards]:
    """The shards of the scenes, as bytes."""
    store = MemoryStore()
    group = zarr.group(store=store)
    create_arrays(group, schema)
    for name in scenes[0]:
        array = Arrays(group)[name]
        array.resize((len(scenes), *array.shape[1:]))
        for step, scene in enumerate(scenes):
            rows, columns = scene[name].shape
            array[step, :rows, :columns] = scene[name]
    return [{name: store._store_dict.get(f"{name}/c/{step}/0/0") for name in scenes[0]} for step in range(len(scenes))]


def fill_cube(store: geofield.Store, shards: Sequence[Shards], days: int, revisit: int, tiles: Sequence[Any]) -> None:
    """Publish days whose shards are those of the scenes, again and again."""
    cube, grid = store.cube("b"), store.box("b").resolved
    acquired = [day % revisit == 0 for day in range(days)]
    attempt = Attempt(cube, cube.head().snapshot)
    digests = [np.full(grid.tiles_shape, day + 1, np.uint64) for day in range(days)]
    attempt.grow([NewDay(to_day(START) + day, acquired[day], digests[day]) for day in range(days)])
    fork = attempt.fork()

    async def put() -> None:
        limit = asyncio.Semaphore(8)

        async def one(key: str, value: Any) -> None:
            async with limit:
                await fork.writer.session.store.set(key, value)

        jobs = [
            one(f"{name}/c/{day}/{y}/{x}", value)
            for day in range(0, days, revisit)
            for y, x in tiles
            for name, value in shards[day // revisit % SCENES].items()
            if value is not None
        ]
        await asyncio.gather(*jobs)

    asyncio.run(put())
    attempt.publish(attempt.write([fork.writer], ["[]"] * days, "benchmark", {}))


def make_fields(box: geofield.Box, corners: np.ndarray, side: int = 40) -> BoxFields:
    """Discs of `side` pixels across; `corners` are (row, column) of their windows."""
    centres = np.asarray(corners) + side / 2
    height = box.resolved.shape[0]
    rows = [
        {"field_id": f"f{i:05}", "version": f"{i:012x}", "crs": "EPSG:32631", "planting_date": START,
         "harvest_date": None,
         "geometry": shapely.Point(X0 + PIXEL * x, Y0 + PIXEL * (height - y)).buffer(PIXEL * side / 2, 16).wkb}
        for i, (y, x) in enumerate(centres)
    ]  # fmt: skip
    return box_fields(box, pd.DataFrame(rows))


def cases(box: geofield.Box, size: int) -> dict[str, BoxFields]:
    """One field, 100 side by side, 1,000 anywhere."""
    place = min(300, size - 41)
    many = np.array([(place // 4 + 45 * (i // 10), place + 45 * (i % 10)) for i in range(100)])
    anywhere = np.random.default_rng(0).integers(0, size - 41, (1000, 2))
    return {
        "one": make_fields(box, np.array([[place, place]])),
        "100 neighbours": make_fields(box, np.minimum(many, size - 41)),
        "1,000 scattered": make_fields(box, anywhere),
    }


def touched_bytes(fields: BoxFields, shards: Sequence[Shards], acquisitions: int) -> tuple[int, int, int]:
    """Bytes and number of the inner chunks that hold a pixel of the fields, and how many shards, over all days."""
    grid, row, col = fields.grid, fields.cover.row, fields.cover.col
    wide = grid.tile // BLOCK
    tile = np.stack([row // grid.tile, col // grid.tile])
    inner = row % grid.tile // BLOCK * wide + col % grid.tile // BLOCK
    chunks = np.unique(np.stack([*tile, inner]), axis=1)
    total = number = count = 0
    for scene in (shards[day % SCENES] for day in range(acquisitions)):
        for value in scene.values():
            if value is None:
                continue
            index = np.frombuffer(value.to_bytes()[-(16 * wide * wide + 4) : -4], "<u8").reshape(-1, 2)
            stored = index[chunks[2]]
            stored = stored[stored[:, 0] != 2**64 - 1]
            total, number = total + int(stored[:, 1].sum()), number + len(stored)
            count += np.unique(tile, axis=1).shape[1]
    return total, number, count


@dataclass
class Place:
    """Where the store lies, and what counts requests there."""

    url: str
    counting: Callable[[], Any]


@contextlib.contextmanager
def place_of(where: str, folder: Path) -> Iterator[Place]:
    """A directory, moto's S3, or the same with some delay before every answer."""
    if where == "directory":
        yield Place(str(folder / "store"), contextlib.nullcontext)
        return
    from tests.support.s3server import S3Server

    with S3Server() as server:
        os.environ.update(server.environment)
        url = f"s3://{server.create_bucket()}/store"

        @contextlib.contextmanager
        def counting() -> Iterator[Any]:
            with contextlib.ExitStack() as slow:
                if where == "s3-slow":
                    slow.enter_context(server.interfering(lambda method, key: time.sleep(LATENCY_S)))
                yield slow.enter_context(server.counting())

        yield Place(url, counting)


def reprocess(box: geofield.Box, folder: Path) -> float:
    """Seconds to read a scene of the whole box once, apply the recipe and write the same shards with zarr alone."""
    store = zarr.group(store=LocalStore(folder / "floor"), overwrite=True)
    from geofield.pipeline.layers import cube_schema

    create_arrays(store, cube_schema(box, box.resolved))
    begin = time.perf_counter()
    for tile in box.resolved.tiles():
        window = box.resolved.tile_window(*tile)
        scene = make_one_scene(box, window)
        for name, data in scene.items():
            array = Arrays(store)[name]
            if not array.shape[0]:
                array.resize((1, *array.shape[1:]))
            Arrays(store)[name][(0, *window.slices)] = data
    return time.perf_counter() - begin


def make_one_scene(box: geofield.Box, window: Window) -> dict[str, np.ndarray]:
    """Read, derive in NumPy and advance one scene."""
    source, variable = geofield.open_source(box.source), box.variables["ndvi"]
    scene = source.search(box.resolved, START, START + dt.timedelta(days=366))[0]
    bands = source.read(scene, ["nir", "red", "scl"], box.resolved.window_geobox(window))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (bands["nir"] - bands["red"]) / (bands["nir"] + bands["red"])
    value[np.isin(bands["scl"], variable.mask["scl"])] = np.nan
    observed = encoding_of(variable).encode(value)
    before = never_seen(encoding_of(variable), window.shape, 0)
    return _arrays(observed, advance(before, observed, encoding_of(variable), *noise(variable), to_day(START)))


def fill(store: geofield.Store, fields: BoxFields, folder: Path) -> LateReport:
    """Rows of late fields from a cube that nothing is known of yet, into an empty table on a directory."""
    rows = geofield.create_store(folder / f"rows-{time.monotonic_ns()}").location
    return fill_late_fields(fields, geofield.open_store(store.url).cube("b"), Results(rows, "b"))


def window_of(fields: BoxFields) -> tuple[slice, slice]:
    """Rows and columns around all fields."""
    cover = fields.cover
    return slice(int(cover.row.min()), int(cover.row.max()) + 1), slice(int(cover.col.min()), int(cover.col.max()) + 1)


def many_bands(store: geofield.Store, fields: BoxFields) -> float:
    """Seconds of exactextract's many-band call for the three arrays on the same pixels, already read."""
    view = store.cube("b").open()
    rows, columns = window_of(fields)
    part = view.isel(y=rows, x=columns)
    box = part.odc.geobox.boundingbox
    stats = {"ndvi": ["count", "mean", "stdev", "min", "max", "median"]} | {
        f"ndvi_{name}": ["mean"] for name in ("filled", "sigma", "age")
    }
    shapes = shapes_of(fields)
    took = 0.0
    for name, wanted in stats.items():
        steps = np.flatnonzero(part["acquired"].values) if name == "ndvi" else np.arange(part.sizes["time"])
        data = part[name].isel(time=steps).values
        bands = [
            NumPyRasterSource(band, box.left, box.bottom, box.right, box.top, name=f"d{i}")
            for i, band in enumerate(data)
        ]
        begin = time.perf_counter()
        exact_extract(bands, shapes, wanted, output="pandas")
        took += time.perf_counter() - begin
    return took


def shapes_of(fields: BoxFields) -> Any:
    """The fields' discs once more, as exactextract takes them."""
    import geopandas as gpd

    windows = fields.cover.windows()
    height = fields.grid.shape[0]
    centres = [((x0 + x1) / 2, (y0 + y1) / 2) for y0, x0, y1, x1 in windows.tolist()]
    return gpd.GeoDataFrame(
        geometry=[shapely.Point(X0 + PIXEL * x, Y0 + PIXEL * (height - y)).buffer(PIXEL * 20, 16) for x, y in centres],
        crs="EPSG:32631",
    )


def xarray_dask(store: geofield.Store, fields: BoxFields) -> float:
    """Seconds to read the window around the fields with xarray and Dask, a chunk for each shard."""
    rows, columns = window_of(fields)
    begin = time.perf_counter()
    geofield.open_store(store.url).cube("b").open(chunks="tiles").isel(y=rows, x=columns).compute()
    return time.perf_counter() - begin


def measure(where: str, given: argparse.Namespace, folder: Path) -> None:
    """Print one place."""
    with place_of(where, folder) as place:
        store = geofield.create_store(place.url)
        box = store.add_box(make_box(given.size, given.revisit))
        grid = box.resolved
        shards = encode(store.cube("b").schema, make_scenes(box, grid.tile_window(0, 0)))
        asked = cases(box, given.size)
        if where != "directory":  # a year of all tiles does not fit into moto's memory
            asked.pop("1,000 scattered")
        tiles = [(0, 0)] if where != "directory" or given.corner else list(grid.tiles())
        fill_cube(store, shards, given.days, given.revisit, tiles)
        acquisitions = len(range(0, given.days, given.revisit))
        floor = min(reprocess(box, folder) for _ in range(2)) * acquisitions
        print(f"{where}: {given.size} x {given.size}, {given.days} days, {acquisitions} acquisitions; "
              f"reprocessing them {floor:.1f} s")  # fmt: skip
        fill(store, asked["one"], folder)  # compiled
        alone = 0.0
        for name, fields in asked.items():
            took = float("inf")
            for _ in range(given.rounds):
                with place.counting() as counts:
                    begin = time.perf_counter()
                    report = fill(store, fields, folder)
                    took = min(took, time.perf_counter() - begin)
            alone = alone or took
            touched, chunks, asked_shards = touched_bytes(fields, shards, acquisitions)
            print(f"  {name:16s} {took:7.2f} s  1/{floor / took:.0f} of reprocessing, {took / alone:.1f} x one field")
            print(f"    {report.cube_requests} requests ({chunks} chunks in {asked_shards} shards), "
                  f"{report.cube_bytes_read / 1e6:.1f} MB of {touched / 1e6:.1f} MB touched")  # fmt: skip
            if counts is not None:
                gets = [one for one in counts.requests if one.operation == "GET" and "/chunks/" in one.key]
                size = sum(one.bytes_out for one in gets) / 1e6
                print(f"    the server saw {len(gets)} GET of chunks, {size:.1f} MB; {counts.total - len(gets)} others")
            if name != "1,000 scattered":
                print(f"    exactextract, many bands, on pixels in memory {many_bands(store, fields):.2f} s; "
                      f"xarray and Dask, reading alone {xarray_dask(store, fields):.2f} s")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--revisit", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corner", action="store_true", help="store the first tile only, to save disk")
    parser.add_argument("--where", nargs="+", default=["directory", "s3", "s3-slow"])
    given = parser.parse_args(arguments)
    for where in given.where:
        with tempfile.TemporaryDirectory() as folder:
            measure(where, given, Path(folder))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
