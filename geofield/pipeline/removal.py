"""People have to be able to delete: a field that stops, a field that is to be forgotten, a box that goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geofield.errors import NotFoundError
from geofield.registry import FieldRegistry
from geofield.results.rows import Results
from geofield.store import Location

FOLDERS = ("cubes", "rows", "published", "weights", "progress/.work")


def forget_fields(
    field_ids: Sequence[str], registry: FieldRegistry, tables: Mapping[str, Results], metadata: Mapping[str, Any]
) -> int:
    """Remove some fields with their history: every version, every row, the files that held them, and their ids.

    A past version of a table that needs one of these files cannot be asked for any more, of no field. Published copies
    of the fields of a box go with them and are made again by the next `publish`. Let no run be at work meanwhile: what
    it has in its hands may bring rows of a forgotten field back, which the next run removes as any other row too many.

    Returns
    -------
    How many rows were removed.

    Raises
    ------
    NotFoundError
        A field is unknown to the store.
    """
    known = set(registry.versions()["field_id"])
    for name in field_ids:
        if name not in known:
            raise NotFoundError(f"There is no field {name!r} to forget.")
    rows = 0
    for box_id, results in tables.items():  # rows first: a crash leaves a field that can be forgotten again
        for key in (f"published/{box_id}/fields.parquet", f"progress/{box_id}.json"):  # a copy, and a hint
            results.table.location.delete(key)
        rows += results.remove(field_ids, metadata)
        results.table.purge("field_id", field_ids)
    registry.remove(field_ids, metadata)
    registry.table.purge("field_id", field_ids)
    return rows


def remove_box(location: Location, box_id: str) -> int:
    """Remove a box with its cube, rows, copies and weights; how many objects there were.

    The box goes first, so that nobody works on it any more; a removal that was cut is finished by the next call.

    Raises
    ------
    NotFoundError
        There is nothing of such a box.
    """
    keys = [f"{folder}/{box_id}.json" for folder in ("boxes", "changes", "progress")]
    keys = [key for key in keys if location.exists(key)]
    for folder in FOLDERS:
        keys += [info.key for info in location.list(f"{folder}/{box_id}/")]
    if not keys:
        raise NotFoundError(f"There is no box {box_id!r} in {location.url}.")
    with location.lock(box_id):
        for key in keys:
            location.delete(key)
    return len(keys)
