"""Published copies of a box: its cube as plain Zarr, its newest image as GeoTIFF, its fields as GeoParquet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from geofield.boxes import Box
from geofield.copies.arrays import CopyArray
from geofield.copies.cog import cog_bytes
from geofield.copies.documents import Layout
from geofield.copies.geoparquet import geoparquet_bytes
from geofield.copies.zarrcopy import ZarrReport, write_zarr
from geofield.cube.cube import Cube, Head, read_schema, to_date
from geofield.cube.schema import ArraySpec, Schema
from geofield.cube.view import read_digests
from geofield.errors import NotFoundError
from geofield.fields import field_geometries
from geofield.grid import parse_crs
from geofield.pipeline.boxfields import box_fields
from geofield.store import Location

_TOLERANCE = 1e-9  # degrees, a tenth of a millimetre
_LONG_NAMES = {
    "observation": "{} as observed",
    "filled": "daily estimate of {}",
    "sigma0": "standard error of the daily estimate of {}",
    "age": "days since {} was last seen",
}
_SUFFIXES = {"observation": "", "filled": "_filled", "sigma0": "_sigma", "age": "_age"}


@dataclass(frozen=True)
class FileReport:
    """One file of the copies: `date` is the day it shows, `is_new` whether its bytes are others than before."""

    key: str
    bytes: int
    is_new: bool
    date: str | None = None


@dataclass(frozen=True)
class PublishReport:
    """What was brought up to date; None for what was not asked for, or where there is nothing to show yet.

    Attributes
    ----------
    snapshot
        The state of the cube that the copies of it show.
    """

    box: str
    snapshot: str
    zarr: ZarrReport | None = None
    cog: FileReport | None = None
    fields: FileReport | None = None


def publish(
    location: Location, box: Box, cube: Cube, table: pd.DataFrame, *, zarr: bool, cog: bool, fields: bool
) -> PublishReport:
    """Bring the copies under `published/<box>/` up to date; what is up to date is not written.

    One process at a time may publish a box: on a directory the others wait, on S3 nothing keeps them apart.

    Parameters
    ----------
    location
        The store.
    table
        Current versions of the fields that have area inside the box.
    zarr
        `cube.zarr`: plain Zarr v3, one step per date, the state carried over days without acquisition.
    cog
        `latest.tif`: the newest day with an acquisition. None before there is one.
    fields
        `fields.parquet`: the fields and their polygons.
    """
    folder = f"published/{box.id}"
    head = cube.head()
    with location.lock(f"publish-{box.id}"):
        return PublishReport(
            box.id,
            head.snapshot,
            _publish_zarr(location, f"{folder}/cube.zarr", cube, head) if zarr else None,
            _publish_cog(location, f"{folder}/latest.tif", cube, head) if cog else None,
            _put(location, f"{folder}/fields.parquet", geoparquet_bytes(_fields(box, table))) if fields else None,
        )


def _publish_zarr(location: Location, key: str, cube: Cube, head: Head) -> ZarrReport:
    group = cube.group(head.snapshot)
    digests = _day_digests(read_digests(group))
    return write_zarr(
        location, key, cube.open(as_of=head.snapshot), _layout(cube.box_id, read_schema(group)), digests, head.snapshot
    )


def _publish_cog(location: Location, key: str, cube: Cube, head: Head) -> FileReport | None:
    acquired = np.flatnonzero(head.acquired)
    if not len(acquired):
        return None
    date = to_date(head.days[acquired[-1]])
    day: xr.Dataset = cube.open(start=date, end=date, as_of=head.snapshot).isel(time=0)
    layout = _layout(cube.box_id, read_schema(cube.group(head.snapshot)))
    tags = {"box": cube.box_id, "snapshot": head.snapshot}
    return _put(location, key, cog_bytes(day, layout, date, tags), str(date))


def _layout(box_id: str, schema: Schema) -> Layout:
    attributes = {"title": f"Daily cube of box {box_id}", "geofield:box": box_id}
    return Layout(schema.grid.geobox, tuple(_copy_array(spec) for spec in schema.arrays), attributes)


def _copy_array(spec: ArraySpec) -> CopyArray:
    """The stored step fits all but the error: it grows by less than a step in a day."""
    name = f"{spec.variable}{_SUFFIXES[spec.role]}"
    encoding = None if spec.role == "sigma0" else spec.encoding
    return CopyArray(name, _LONG_NAMES[spec.role].format(spec.variable), encoding, "day" if spec.role == "age" else "1")


def _day_digests(tiles: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """(time,) one number for the digests of a day's tiles, never 0."""
    days = (hashlib.blake2b(day.astype("<u8").tobytes(), digest_size=8).digest() for day in tiles)
    return np.array([int.from_bytes(day, "big") or 1 for day in days], dtype=np.uint64)


def _fields(box: Box, table: pd.DataFrame) -> geopandas.GeoDataFrame:
    ready = box_fields(box, table)
    covered = dict(zip(ready.columns.ids, ready.columns.covered.tolist(), strict=True))
    frame = field_geometries(table, parse_crs("EPSG:4326"), _TOLERANCE).rename_axis("id").reset_index()
    frame["covered"] = frame["id"].map(covered)
    frame["collection"] = box.id
    for name in ("crop", "properties"):
        if name not in frame:
            frame[name] = None
    return frame


def _put(location: Location, key: str, data: bytes, date: str | None = None) -> FileReport:
    """Write a whole object, unless these bytes are there."""
    try:
        is_new = location.read(key) != data
    except NotFoundError:
        is_new = True
    if is_new:
        location.write(key, data)
    return FileReport(key, len(data), is_new, date)
