"""Published copies of a box: its cube as plain Zarr, its newest image as GeoTIFF, its fields as GeoParquet."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from geofield.boxes import Box, Variable
from geofield.copies.arrays import CopyArray
from geofield.copies.catalog import Published, catalog, children_of, collection, item
from geofield.copies.cog import cog_bytes
from geofield.copies.dataset import dataset, page
from geofield.copies.documents import Layout, days_of, to_bytes
from geofield.copies.geoparquet import FIELD_COLUMNS, geoparquet_bytes
from geofield.copies.standing import Objects
from geofield.copies.zarrcopy import Doubt, ZarrReport, is_made_anew, look_at_root, write_zarr
from geofield.cube.cube import Cube, Head, read_schema, to_date
from geofield.cube.schema import ArraySpec, Schema
from geofield.cube.view import read_digests
from geofield.errors import InputError, LostRaceError
from geofield.fields import field_geometries
from geofield.grid import parse_crs
from geofield.objects import Standing
from geofield.pipeline.boxfields import box_fields
from geofield.pipeline.layers import value_columns
from geofield.pipeline.run import package_version
from geofield.results.rows import row_schema
from geofield.store import Location

_CATALOG = "published/catalog.json"
_DOCUMENTS = ("stac/latest.json", "stac/collection.json", "dataset.jsonld", "index.html")
_LOCKS, _CATALOG_LOCK = ".publish-", ".catalog"  # no id of a box begins with a dot, and boxes have locks of their own
_TRIES = 5
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
    stac: tuple[FileReport, ...] | None = None


def publish(
    location: Location,
    box: Box,
    cube: Cube,
    table: pd.DataFrame | Callable[[], pd.DataFrame],
    *,
    zarr: bool,
    cog: bool,
    fields: bool,
    stac: bool = False,
) -> PublishReport:
    """Bring the copies under `published/<box>/` up to date; what is up to date is not written.

    One process at a time may publish a box: on a directory the others wait. On S3 nothing keeps them apart; there a
    newer state is never replaced by an older one, and whoever was overtaken starts over.

    Parameters
    ----------
    location
        The store.
    table
        Current versions of the fields that have area inside the box, or what reads them: nobody else publishes the box
        on a directory when it is called, so that what it gives is the newest.
    zarr
        `cube.zarr`: plain Zarr v3, one step per date, the state carried over days without acquisition.
    cog
        `latest.tif`: the newest day with an acquisition. None before there is one; it goes when none is left.
    fields
        `fields.parquet`: the fields and their polygons.
    stac
        Documents that tell harvesters of the copies that stand, in `stac/` and beside them. An image that stands is
        brought up to date with them.

    Raises
    ------
    InputError
        `stac` is asked for and there is no copy to tell of.
    LostRaceError
        Others keep publishing the box; on S3 only.
    """
    wanted = {"zarr": zarr, "cog": cog, "fields": fields, "stac": stac}
    publishing = _Publishing(location, box, cube, table, {name for name, asked in wanted.items() if asked})
    with location.lock(f"{_LOCKS}{box.id}"):
        for _ in range(_TRIES):
            with contextlib.suppress(LostRaceError):
                return publishing.bring_up_to_date()
    raise LostRaceError(f"The copies of box {box.id} are being written by others; try again.")


class _Publishing:
    """One call of `publish`."""

    def __init__(
        self,
        location: Location,
        box: Box,
        cube: Cube,
        table: pd.DataFrame | Callable[[], pd.DataFrame],
        wanted: set[str],
    ) -> None:
        self.location, self.box, self.cube, self.table, self.wanted = location, box, cube, table, wanted
        self.folder = f"published/{box.id}"
        self.doubt = Doubt()

    def bring_up_to_date(self) -> PublishReport:
        """Copies first, cube and fields after them: what was published before a copy was looked at is not newer."""
        zarr_key, image, fields = (f"{self.folder}/{name}" for name in ("cube.zarr", "latest.tif", "fields.parquet"))
        root = look_at_root(self.location, zarr_key) if "zarr" in self.wanted else None
        objects = Objects(self.location, self._keys())
        head = self.cube.head()
        report = PublishReport(self.box.id, head.snapshot)
        if root is not None:
            report = replace(report, zarr=self._write_zarr(zarr_key, root, head))
        if "cog" in self.wanted or ("stac" in self.wanted and objects.is_there(image)):
            report = replace(report, cog=_publish_cog(objects, image, self.cube, head))
        if "fields" in self.wanted:
            table = self.table() if callable(self.table) else self.table
            report = replace(report, fields=_put(objects, fields, geoparquet_bytes(_fields(self.box, table))))
        if "stac" in self.wanted:
            told = _publish_stac(self.location, objects, self.box, self.cube, head, report.cog)
            report = replace(report, stac=told)
        if report.cog is None and self.wanted & {"cog", "stac"}:  # its only image was withdrawn
            for name in ("stac/latest.json", "latest.tif"):
                objects.remove(f"{self.folder}/{name}")
        return report

    def _keys(self) -> list[str]:
        """Of the objects that may be replaced."""
        names = {
            "cog": ["latest.tif", "stac/latest.json"],
            "fields": ["fields.parquet"],
            "stac": ["latest.tif", *_DOCUMENTS],
        }
        found = {name: None for kind, files in names.items() if kind in self.wanted for name in files}
        return [f"{self.folder}/{name}" for name in found]

    def _write_zarr(self, key: str, root: Standing, head: Head) -> ZarrReport:
        arrays = self.cube.arrays(head.snapshot)
        digests = _day_digests(read_digests(arrays))
        layout = _layout(self.box.id, read_schema(arrays))
        shown = self.cube.open(as_of=head.snapshot)
        return write_zarr(self.location, key, shown, layout, digests, head.snapshot, root, self.doubt)


def _publish_cog(objects: Objects, key: str, cube: Cube, head: Head) -> FileReport | None:
    acquired = np.flatnonzero(head.acquired)
    if not len(acquired):
        return None
    date = to_date(head.days[acquired[-1]])
    day: xr.Dataset = cube.open(start=date, end=date, as_of=head.snapshot).isel(time=0)
    layout = _layout(cube.box_id, read_schema(cube.arrays(head.snapshot)))
    tags = {"box": cube.box_id, "snapshot": head.snapshot}
    return _put(objects, key, cog_bytes(day, layout, date, tags), str(date))


def _publish_stac(
    location: Location, objects: Objects, box: Box, cube: Cube, head: Head, cog: FileReport | None
) -> tuple[FileReport, ...]:
    """The image's item before the collection that links to it, the catalogue of all boxes last."""
    folder = f"published/{box.id}"
    one = _published(location, box, cube, head, cog)
    if one is None:
        _withdraw(location, objects, box.id)
        raise InputError(
            f"There is no copy of box {box.id} to tell of. Publish its cube or its newest image first, with --zarr or "
            "--cog; the box needs a day for the one, imagery for the other."
        )
    data = dataset(one)
    contents = (
        None if one.image is None else to_bytes(item(one)),
        to_bytes(collection(one)),
        to_bytes(data),
        page(one, data).encode(),
    )
    reports = [
        _put(objects, f"{folder}/{name}", content)
        for name, content in zip(_DOCUMENTS, contents, strict=True)
        if content is not None
    ]
    return (*reports, _publish_catalog(location, box.id))


def _withdraw(location: Location, objects: Objects, box_id: str) -> None:
    """Remove what tells of copies that are no more, and the image."""
    folder = f"published/{box_id}"
    was_told = objects.is_there(f"{folder}/stac/collection.json")
    for name in (*reversed(_DOCUMENTS), "latest.tif"):
        objects.remove(f"{folder}/{name}")
    if was_told:
        _publish_catalog(location, box_id)


def _publish_catalog(location: Location, box_id: str) -> FileReport:
    """The catalogue of all boxes that have a collection, this one among them or no more."""
    with location.lock(_CATALOG_LOCK):
        return _write_catalog(location, box_id)


def _write_catalog(location: Location, box_id: str) -> FileReport:
    for _ in range(_TRIES):
        standing = location.look(_CATALOG)
        listed = [*children_of(_parsed(standing.data or b"") or {}), box_id]
        # boxes that were removed lie here no more
        present = {name for name in listed if location.exists(f"published/{name}/stac/collection.json")}
        data = to_bytes(catalog("Field statistics: daily cubes, newest images, fields and rows", present))
        is_new = standing.data != data
        if not is_new or location.replace(_CATALOG, data, standing.tag) is not None:
            return FileReport(_CATALOG, len(data), is_new)
    raise LostRaceError("The catalogue of all boxes is being written by others; try again.")


def _published(location: Location, box: Box, cube: Cube, head: Head, cog: FileReport | None) -> Published | None:
    """What there is to tell of; None where no copy stands."""
    folder = f"published/{box.id}"
    root = _parsed(look_at_root(location, f"{folder}/cube.zarr").data or b"")
    if root is not None and is_made_anew(root):
        root = None
    days = 0 if root is None else days_of(root)
    if not days and cog is None:
        return None
    schema = read_schema(cube.arrays(head.snapshot))
    has_fields = location.exists(f"{folder}/fields.parquet")
    has_rows = bool(location.list(f"rows/{box.id}/_delta_log"))
    variables = ", ".join(box.variables)
    return Published(
        box_id=box.id,
        title=f"Box {box.id}: daily {variables}",
        description=f"{variables} of box {box.id} for every day, from satellite imagery, on a grid of "
        f"{schema.grid.shape[1]} x {schema.grid.shape[0]} pixels. Variables with a daily estimate carry it over days "
        "without imagery, with its standard error and its age.",
        geobox=schema.grid.geobox,
        arrays=tuple(_copy_array(spec) for spec in schema.arrays),
        first=to_date(int(head.days[0])) if days else None,
        last=to_date(int(head.days[0]) + days - 1) if days else None,
        image=None if cog is None or cog.date is None else dt.date.fromisoformat(cog.date),
        snapshot=None if root is None else root["attributes"].get("geofield:snapshot"),
        fields=FIELD_COLUMNS if has_fields else None,
        rows=row_schema(value_columns(box)) if has_rows else None,
        lineage={name: _lineage(box, variable) for name, variable in box.variables.items()},
        software={"geofield": package_version("geofield")},
    )


def _lineage(box: Box, variable: Variable) -> str:
    """What a variable is made from. Neither paths nor addresses: copies may be read by anybody."""
    origin = str(box.source.get("type"))
    named = box.source.get("collection") or ()
    names = [named] if isinstance(named, str) else [str(one) for one in named]
    text = variable.index or f"band {variable.band}"
    text += f" of {', '.join(names)}" if names else f" of the source `{origin}`"
    if variable.mask:
        text += f", masked by {', '.join(variable.mask)}"
    return text + (", daily estimate by a local-level Kalman filter" if variable.state else "")


def _parsed(data: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


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


def _put(objects: Objects, key: str, data: bytes, date: str | None = None) -> FileReport:
    return FileReport(key, len(data), objects.put(key, data), date)
