"""The plain copy of a cube: does it say which state it shows, and is there that state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import icechunk

from geofield.cube.cube import Cube
from geofield.errors import NotFoundError
from geofield.pipeline.verify.findings import Finding
from geofield.store import Location


def check_copy(location: Location, cube: Cube, days: int) -> Iterator[Finding]:
    """`published/<box>/cube.zarr`, if there is one. Its pixels are not compared.

    Parameters
    ----------
    days
        How many the cube holds.
    """
    key = f"published/{cube.box_id}/cube.zarr/zarr.json"
    try:
        text = location.read(key)
    except NotFoundError:
        return
    advice = f"Make it again: geofield publish {location.url} --box {cube.box_id} --zarr"
    try:
        root: dict[str, Any] = json.loads(text)
        snapshot = root["attributes"]["geofield:snapshot"]
        shown = int(root["consolidated_metadata"]["metadata"]["time"]["shape"][0])
        _ = root["consolidated_metadata"]["metadata"]["digest"]
    except (ValueError, LookupError, TypeError) as error:
        yield Finding(cube.box_id, "copies", "broken", f"{key} is no copy of a cube: {error!r}", advice)
        return
    if shown > days:
        found = f"{key} shows {shown} days, the cube holds {days}."
        yield Finding(cube.box_id, "copies", "broken", found, advice)
    if snapshot is not None and not _is_there(cube, snapshot):  # None: the first days of a copy that is being made
        found = f"{key} shows the state {snapshot}, which the cube does not have."
        yield Finding(cube.box_id, "copies", "broken", found, advice)


def _is_there(cube: Cube, snapshot: object) -> bool:
    try:
        cube.repository.lookup_snapshot(str(snapshot))
    except (icechunk.IcechunkError, ValueError):
        return False
    return True
