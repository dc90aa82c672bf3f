"""The copies of a box, and what is kept of past runs: do they say what they show, and is that there."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import icechunk
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio

from geofield.copies.zarrcopy import is_made_anew
from geofield.cube.cube import Cube
from geofield.errors import NotFoundError
from geofield.pipeline.verify.findings import UNREADABLE, Finding, listed
from geofield.registry import FieldRegistry
from geofield.store import Location


def check_copy(location: Location, cube: Cube) -> Iterator[Finding]:
    """`published/<box>/cube.zarr`, if there is one. Its pixels are not compared.

    The cube is looked at after the copy, which then shows no state that the cube has not had.
    """
    key = f"published/{cube.box_id}/cube.zarr/zarr.json"
    try:
        text = location.read(key)
    except NotFoundError:
        return
    advice = f"Make it again: geofield publish {location.url} --box {cube.box_id} --zarr"
    try:
        root: dict[str, Any] = json.loads(text)
        if is_made_anew(root):
            found = f"{key} is being made anew, or that was cut."
            yield Finding(cube.box_id, "copies", "unfinished", found, f"The next publication completes it. {advice}")
            return
        snapshot = root["attributes"]["geofield:snapshot"]
        shown = int(root["consolidated_metadata"]["metadata"]["time"]["shape"][0])
        _ = root["consolidated_metadata"]["metadata"]["digest"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        yield Finding(cube.box_id, "copies", "broken", f"{key} is no copy of a cube: {error!r}", advice)
        return
    days = len(cube.head().days)
    if shown > days:
        found = f"{key} shows {shown} days, the cube holds {days}."
        yield Finding(cube.box_id, "copies", "broken", found, advice)
    if snapshot is not None and not _is_there(cube, snapshot):  # None: the first days of a copy that is being made
        found = f"{key} shows the state {snapshot}, which the cube does not have."
        yield Finding(cube.box_id, "copies", "broken", found, advice)


def check_image(location: Location, cube: Cube) -> Iterator[Finding]:
    """`published/<box>/latest.tif`, if there is one: it opens, and the state that it shows is there. Reads it all."""
    key = f"published/{cube.box_id}/latest.tif"
    try:
        data = location.read(key)
    except NotFoundError:
        return
    advice = f"Make it again: geofield publish {location.url} --box {cube.box_id} --cog"
    try:
        with rasterio.MemoryFile(data) as memory, memory.open() as image:
            snapshot = image.tags().get("snapshot")
            for number in image.indexes:
                image.read(number)
    except rasterio.errors.RasterioError as error:
        yield Finding(cube.box_id, "copies", "broken", f"{key} is no image: {error}", advice)
        return
    if not _is_there(cube, snapshot):
        found = f"{key} shows the state {snapshot}, which the cube does not have."
        yield Finding(cube.box_id, "copies", "broken", found, advice)


def check_field_copy(location: Location, box_id: str, registry: FieldRegistry) -> Iterator[Finding]:
    """`published/<box>/fields.parquet`, if there is one: every field in it is known, if not in this version."""
    key = f"published/{box_id}/fields.parquet"
    try:
        data = location.read(key)
    except NotFoundError:
        return
    advice = f"Make it again: geofield publish {location.url} --box {box_id} --fields"
    try:
        ids = pq.ParquetFile(io.BytesIO(data)).read(["id"], use_threads=False)["id"].to_pylist()
    except (pa.ArrowException, KeyError) as error:
        yield Finding(box_id, "copies", "broken", f"{key} is no copy of fields: {error}", advice)
        return
    try:
        known = set(registry.versions()["field_id"])
    except UNREADABLE:  # which has been told
        return
    strange = sorted({str(name) for name in ids} - known)
    if strange:
        found = f"{key} tells of fields that the store does not know: {listed(strange)}."
        yield Finding(box_id, "copies", "broken", found, advice)


def check_receipts(location: Location) -> Iterator[Finding]:
    """`runs/`: every receipt is a JSON object. Only what happened is told by them; nothing is computed from them."""
    damaged = []
    for info in location.list("runs"):
        try:
            if not isinstance(json.loads(location.read(info.key)), dict):
                damaged.append(info.key)
        except NotFoundError:
            continue
        except ValueError:
            damaged.append(info.key)
    if damaged:
        found = f"Receipts of runs that cannot be read: {listed(damaged)}."
        yield Finding(None, "receipts", "broken", found, "Bring them back from a copy of the store, or delete them.")


def _is_there(cube: Cube, snapshot: object) -> bool:
    try:
        cube.repository.lookup_snapshot(str(snapshot))
    except (icechunk.IcechunkError, ValueError):
        return False
    return True
