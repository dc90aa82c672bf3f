"""People have to be able to delete: a field that stops, a field that is to be forgotten, a box that goes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geofield.cube.creation import PRESENT
from geofield.errors import BoxError, NotFoundError
from geofield.fields.names import shown
from geofield.filesystem import remove_empty_folders
from geofield.registry import FieldRegistry
from geofield.results.rows import Results
from geofield.store import Location

FOLDERS = ("rows", "published", "weights", "progress/.work")  # besides the cube
_TOLD, _TEXTS = ("rejected", "notices", "errors"), ("reason", "what", "message")  # of a receipt


def forget_fields(
    field_ids: Sequence[str], registry: FieldRegistry, tables: Mapping[str, Results], metadata: Mapping[str, Any]
) -> int:
    """Remove some fields with their history: every version, every row, the files that held them, and their ids.

    Receipts of runs keep how many rows were refused, and of these fields nothing more.

    A past version of a table that needs one of these files cannot be asked for any more, of no field. Published copies
    of the fields of a box go with them and are made again by the next `publish`. Let no run be at work meanwhile: what
    it has in its hands may bring rows of a forgotten field back, which the next run removes as any other row too many.

    Returns
    -------
    How many rows were removed.

    Raises
    ------
    NotFoundError
        A field is unknown to the store, and nothing has rows of its id.
    """
    known = set(registry.versions()["field_id"])
    for name in field_ids:
        if name not in known and not any(len(one.read(fields=[name], columns=["field_id"])) for one in tables.values()):
            raise NotFoundError(f"There is no field {name!r} to forget.")
    rows = 0
    for box_id, results in tables.items():  # rows first: a crash leaves a field that can be forgotten again
        for key in (f"published/{box_id}/fields.parquet", f"progress/{box_id}.json"):  # a copy, and a hint
            results.table.location.delete(key)
        rows += results.remove(field_ids, metadata)
        results.table.purge("field_id", field_ids)
    _clean_receipts(registry.table.location, field_ids)
    if known.intersection(field_ids):  # the commit also says why rows may be there that no version names
        registry.remove(field_ids, metadata)
    registry.table.purge("field_id", field_ids)
    return rows


def _clean_receipts(location: Location, field_ids: Sequence[str]) -> None:
    """Remove what receipts tell of some fields: their refused rows and notices, and their ids in other messages."""
    for info in location.list("runs"):
        try:
            receipt = json.loads(location.read(info.key))
        except (NotFoundError, ValueError, RecursionError):  # `verify` names what is damaged
            continue
        if isinstance(receipt, dict):
            told = {name: receipt[name] for name in _TOLD if isinstance(receipt.get(name), list)}
            cleaned = {name: _without(entries, field_ids) for name, entries in told.items()}
            if cleaned != told:
                location.write(info.key, json.dumps(receipt | cleaned, indent=1).encode())


def _without(entries: list[Any], field_ids: Sequence[str]) -> list[Any]:
    # messages name a field as it is or as `repr` writes it, and cut what is long
    whole = {form for name in field_ids for form in (name, repr(name)[1:-1])}
    cut = {shown(name).removesuffix("...")[1:] for name in field_ids if shown(name).endswith("...")}
    words = [rf"(?<!\w){re.escape(form)}(?!\w)" for form in sorted(whole, key=len, reverse=True)]
    pattern = re.compile("|".join([*words, *map(re.escape, cut)]))
    kept = []
    for one in entries:
        if not isinstance(one, dict):
            kept.append(one)
        elif one.get("field_id") not in field_ids:
            said = {key: one[key] for key in _TEXTS if isinstance(one.get(key), str)}
            kept.append(one | {key: pattern.sub("?", text) for key, text in said.items()})
    return kept


def remove_box(location: Location, box_id: str) -> int:
    """Remove a box with its cube, rows, copies and weights; how many objects there were.

    The box goes first, so that nobody works on it any more, then the name of its cube's present, so that what is half
    there is no cube. The cube's other objects go last: while one is there, the removal is not over, and
    `check_not_half_removed` tells. A removal that was cut is finished by the next call.

    Raises
    ------
    NotFoundError
        There is nothing of such a box.
    """
    cube = [info.key for info in location.list(f"cubes/{box_id}/")]
    keys = [f"{folder}/{box_id}.json" for folder in ("changes", "boxes", "progress")]
    keys = [key for key in keys if location.exists(key)]
    keys += [key for key in cube if key == f"cubes/{box_id}/{PRESENT}"]
    for folder in FOLDERS:
        keys += [info.key for info in location.list(f"{folder}/{box_id}/")]
    keys += [key for key in cube if key not in keys]
    if not keys:
        raise NotFoundError(f"There is no box {box_id!r} in {location.url}.")
    with location.lock(box_id):
        for key in keys:
            location.delete(key)
        if not location.is_s3:
            for folder in ("cubes", *FOLDERS):
                remove_empty_folders(Path(location.url) / folder / box_id)
    return len(keys)


def check_not_half_removed(location: Location, box_id: str) -> None:
    """Refuse to make a box on top of what a removal that was cut, or is at work, has left of one.

    Raises
    ------
    BoxError
        How to finish the removal.
    """
    box = f"boxes/{box_id}.json"
    if location.exists(box):
        return
    left = len(location.list(f"cubes/{box_id}/"))
    # looked for again: whoever makes a box writes its description before the cube
    if left and not location.exists(box):
        raise BoxError(
            f"A box {box_id!r} was removed and not all of it is gone: its cube has {left} objects. Finish that first: "
            f"geofield remove-box {location.url} --id {box_id} --yes"
        )
