"""A small box with copies: a new image on two days of three, and what its copies have to show."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr

from geofield.copies import documents, zarrcopy
from geofield.copies.arrays import CopyArray
from geofield.copies.documents import Layout
from geofield.copies.zarrcopy import write_zarr
from geofield.encoding import AGE, Encoding
from geofield.pipeline import PublishReport, append_days, publish
from geofield.store import Location
from geofield.testing.source import ArraySource
from tests.test_pipeline import DAY1, FIRST, SMALL, A, B, Work, field_table, make_box, scene

FOLDER = "published/b"
_STEP = Encoding("int16", 1e-4)
LAYOUT = Layout(
    SMALL,
    (
        CopyArray("ndvi", "ndvi", _STEP),
        CopyArray("ndvi_filled", "estimate", _STEP),
        CopyArray("ndvi_sigma", "error", None),
        CopyArray("ndvi_age", "age", AGE, "day"),
    ),
    {},
)


def day(number: int) -> dt.date:
    """The n-th day, counted from 1."""
    return DAY1 + dt.timedelta(days=number - 1)


def image(number: int) -> Any:
    """The image of a day; every third pixel is missing, others from day to day."""
    values = FIRST * (1 - number / 100)
    values.flat[number % 3 :: 3] = np.nan
    return values


def source(days: int, **versions: str) -> ArraySource:
    """Images on two days of three; `d5="2"`: day 5 was processed again and is lower by 0.05."""
    scenes = [
        scene(
            day(number), version=versions.get(f"d{number}", "1"), ndvi=image(number) - 0.05 * (f"d{number}" in versions)
        )
        for number in range(1, days + 1)
        if number % 3
    ]
    return ArraySource(SMALL, scenes)  # fmt: skip


def small_chunks(patch: pytest.MonkeyPatch) -> None:
    """Four chunks for a day of 4 x 4 pixels, two days to a window, one write after the other."""
    patch.setattr(documents, "_CHUNK", 2)
    patch.setattr(zarrcopy, "_WINDOW", 2)
    patch.setattr(zarrcopy, "_WRITERS", 1)


def make_work(url: str, days: int = 0) -> Work:
    """A cube of so many days."""
    work = Work(url, make_box(SMALL))
    append(work, days)
    return work


def append(work: Work, days: int) -> None:
    """Extend the cube to so many days."""
    first = len(work.cube.head().days) + 1
    if days >= first:
        append_days(day(first), day(days), source(days), work.fields(), work.cube, work.results)


def fields() -> pd.DataFrame:
    """Two fields, one of them with a harvest."""
    table = field_table(B=B, A=A)
    table["harvest_date"] = [None, day(30)]
    table["crop"] = ["maize", None]
    table["properties"] = ['{"farm": "Höfe"}', "{}"]
    return table


def publish_all(work: Work, **chosen: bool) -> PublishReport:
    """All copies, or those that are named."""
    wanted = {"zarr": not chosen, "cog": not chosen, "fields": not chosen} | chosen
    return publish(work.location, work.box, work.cube, fields(), **wanted)


def copies(location: Location) -> dict[str, bytes]:
    """Every object of the copies."""
    return {info.key: location.read(info.key) for info in location.list(FOLDER)}


@dataclass(frozen=True)
class State:
    """A state of a cube as the copying stage takes it."""

    dataset: xr.Dataset
    digests: npt.NDArray[np.uint64]
    name: str

    def until(self, days: int) -> State:
        """What it was when it had so many days."""
        return State(self.dataset.isel(time=slice(0, days)), self.digests[:days], f"after {days}")

    def write(self, location: Location) -> None:
        """Bring the copy at `copy` up to date."""
        write_zarr(location, "copy", self.dataset, LAYOUT, self.digests, self.name)

    def check(self, location: Location) -> None:
        """What readers see is this state or one of fewer days."""
        found = xr.open_zarr(f"{location.url}/copy", chunks=None)
        check_copy(found, self.dataset.isel(time=slice(0, found.sizes["time"])))


def state(work: Work) -> State:
    """The present of a cube; here the digest of a day is that of its values."""
    dataset = work.cube.open().load()
    parts = [np.nan_to_num(one.values, nan=-9.0).reshape(dataset.sizes["time"], -1) for one in dataset.values()]
    days = [hashlib.blake2b(day.tobytes(), digest_size=8).digest() for day in np.concatenate(parts, axis=1)]
    return State(dataset, np.array([int.from_bytes(day, "big") for day in days], np.uint64), work.cube.tip())


def rebuilt(work: Work) -> dict[str, bytes]:
    """The objects of the copies, made again from nothing."""
    for info in work.location.list(FOLDER):
        work.location.delete(info.key)
    publish_all(work)
    return copies(work.location)


def open_copy(work: Work) -> xr.Dataset:
    """As anybody would: consolidated metadata, no Dask."""
    return xr.open_zarr(f"{work.location.url}/{FOLDER}/cube.zarr", chunks=None)


def check_copy(found: xr.Dataset, cube: xr.Dataset) -> None:
    """The values, days and pixels of the copy are those of the cube."""
    assert found["time"].values.tolist() == cube["time"].values.tolist()
    assert found["acquired"].values.tolist() == cube["acquired"].values.tolist()
    for axis in ("y", "x"):
        assert found[axis].values.tolist() == cube[axis].values.tolist()
    assert set(found.data_vars) == set(cube.data_vars)
    for name in ("ndvi", "ndvi_filled", "ndvi_age"):
        assert np.array_equal(found[name].values, cube[name].values, equal_nan=True), name
    assert np.array_equal(found["ndvi_sigma"].values, cube["ndvi_sigma"].values.astype("float32"), equal_nan=True)


def cube_path(work: Work) -> Path:
    """The folder of the Zarr copy of a store in a directory."""
    return Path(work.location.url) / FOLDER / "cube.zarr"
