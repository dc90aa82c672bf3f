"""A box whose cube has as many days as a benchmark asks for, made in seconds."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from zarr.core.buffer import default_buffer_prototype

from geofield.boxes import Box
from geofield.cube.arrays import Arrays
from geofield.cube.cube import Cube, to_day
from geofield.cube.schema import Schema, create_arrays
from geofield.grid import Grid
from geofield.pipeline import append_day, box_fields
from geofield.pipeline.layers import cube_schema
from geofield.results.rows import Results
from geofield.store import Location
from geofield.testing.source import ArraySource, Scene

START = dt.date(2020, 1, 1)
NO_FIELDS = pd.DataFrame(
    columns=["field_id", "version", "geometry", "crs", "planting_date", "harvest_date"], dtype=object
)
DAY_ARRAYS = ("time", "acquired", "digest", "items")


def day(step: int) -> dt.date:
    """The day of a step of the time axis."""
    return START + dt.timedelta(days=step)


def image(side: int, seed: int, *, is_whole: bool = False) -> NDArray[np.float64]:
    """(y, x) an index that varies smoothly, with noise; stripes, a fifth of it, are missing unless it is whole."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / 64
    values = 0.5 + 0.3 * np.sin(y + seed) * np.cos(x) + random.normal(0, 0.01, (side, side))
    if not is_whole:
        values[np.arange(side) % 160 < 32] = np.nan
    rounded: NDArray[np.float64] = np.round(values, 4)
    return rounded


class Bench:
    """A box of one variable with state, its cube on the server, and images for some steps."""

    def __init__(self, url: str, side: int, tile: int, images: int = 2) -> None:
        geobox = GeoBox((side, side), Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")
        spec = {
            "id": "b",
            "bbox": geobox.boundingbox.bbox,
            "crs": "EPSG:32631",
            "start": START,
            "source": {"type": "array"},
            "variables": {"ndvi": {"band": "ndvi", "valid_range": [-1, 1], "state": "kalman"}},
            "pixels": Grid(geobox, tile).to_dict(),
        }
        self.box = Box.model_validate(spec)
        self.images = [image(side, number) for number in range(images)]
        self.fields = box_fields(self.box, NO_FIELDS)
        self.location = Location.parse(url)
        self.results = Results(self.location, "b")
        self.cube().create(self.schema)

    @property
    def schema(self) -> Schema:
        """The arrays."""
        return cube_schema(self.box, self.box.resolved)

    def cube(self) -> Cube:
        """The cube, as a new process opens it."""
        return Cube(self.location, "b")

    def source(self, steps: Iterable[int], late: Sequence[Scene] = ()) -> ArraySource:
        """An image at ten on each of some steps."""
        scenes = [
            Scene(dt.datetime.combine(day(step), dt.time(10), dt.UTC), {"ndvi": self.images[step % len(self.images)]})
            for step in steps
        ]
        return ArraySource(self.box.resolved.geobox, [*scenes, *late])

    def append(self, step: int, *, acquired: bool = True) -> None:
        """Our append of one day."""
        source = self.source([step] if acquired else [step - 10_000])
        append_day(day(step), source, self.fields, self.cube(), self.results)


def shard_bytes(schema: Schema) -> dict[str, bytes]:
    """Array -> a real shard with 2,000 values, about 3 kB."""
    random = np.random.default_rng(0)
    kept: dict[str, Any] = {}
    group = zarr.group(store=zarr.storage.MemoryStore(kept))
    create_arrays(group, schema)
    arrays = Arrays(group)
    for spec in schema.arrays:
        array = arrays[spec.name]
        array.resize((1, *array.shape[1:]))
        array[0, :40, :50] = random.integers(1, 200, (40, 50)).astype(spec.encoding.dtype)
    return {spec.name: kept[f"{spec.name}/c/0/0/0"].to_bytes() for spec in schema.arrays}


def fill_history(bench: Bench, length: int, every: int = 2) -> None:
    """Lengthen the cube in one commit; every second day has small shards that are real, a request each."""
    cube, schema = bench.cube(), bench.schema
    session = cube.repository.writable_session("main")
    arrays = Arrays(zarr.open_group(session.store, mode="r+"))
    first = arrays["time"].shape[0]
    steps = np.arange(first, length)
    random = np.random.default_rng(length)
    texts = ["[]", '[{"id":"S2A_MSIL2A_%s","version":"%016x","time":"%sT10:50:31+00:00","valid_pixels":{"ndvi":%d}}]']
    values: dict[str, Any] = {
        "time": steps + to_day(START),
        "acquired": steps % every == 0,
        "digest": random.integers(1, 2**63, (len(steps), *schema.grid.tiles_shape), dtype=np.uint64),
        "items": np.array(
            [
                texts[1] % (day(step), random.integers(2**60), day(step), random.integers(10**6))
                if step % every == 0
                else texts[0]
                for step in steps.tolist()
            ],
            dtype=object,
        ),
    }
    for name in (*DAY_ARRAYS, *(spec.name for spec in schema.arrays)):
        array = arrays[name]
        array.resize((length, *array.shape[1:]))
    for name, column in values.items():
        arrays[name][first:] = column
    asyncio.run(_put_shards(session.store, shard_bytes(schema), steps[steps % every == 0].tolist(), schema))
    session.commit(f"history to {length} days")


async def _put_shards(store: Any, shards: dict[str, bytes], steps: Sequence[int], schema: Schema) -> None:
    gate = asyncio.Semaphore(16)
    prototype = default_buffer_prototype()

    async def put(key: str, data: bytes) -> None:
        async with gate:
            await store.set(key, prototype.buffer.from_bytes(data))

    await asyncio.gather(
        *(
            put(f"{name}/c/{step}/{y}/{x}", data)
            for step in steps
            for name, data in shards.items()
            for y, x in schema.grid.tiles()
        )
    )
