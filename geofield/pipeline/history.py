"""What happened to a box, and to a field: told from the commits themselves."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import icechunk
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geofield.boxes import Box
from geofield.cube.cube import Cube
from geofield.cube.view import read_items
from geofield.errors import NotFoundError, StoreUnavailableError, there_is
from geofield.fields import place_fields
from geofield.registry import FieldRegistry
from geofield.results.rows import Results
from geofield.store import Location
from geofield.table import plain_types

_TOLD = frozenset(("run", "kind", "days", "amended"))


@dataclass(frozen=True)
class ItemChange:
    """What a correction changed of the acquisitions of a day: ids that came, went, or came in another version."""

    date: dt.date
    added: tuple[str, ...]
    removed: tuple[str, ...]
    reprocessed: tuple[str, ...]


@dataclass(frozen=True)
class CubeCommit:
    """One published state of a cube.

    Attributes
    ----------
    kind
        `create`, `append`, `correct`; `other` for what no geofield wrote.
    days
        First and last day that the commit is about; empty for none.
    amended
        Days that a correction changed.
    changes
        Of a correction, by day.
    versions
        Of geofield and the libraries that wrote it.
    line
        `present`, or the name under which the cube of a box that was changed later is kept.
    """

    time: dt.datetime
    snapshot: str
    kind: str
    run: str | None
    message: str
    days: tuple[str, ...]
    amended: tuple[str, ...] = ()
    changes: tuple[ItemChange, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    line: str = "present"


@dataclass(frozen=True)
class FieldVersion:
    """One version of a field as it was accepted."""

    version: str
    box: str | None
    planting_date: dt.date | None
    harvest_date: dt.date | None
    arrival: dt.datetime
    accepted: dt.datetime
    file: str
    row: int
    withdrawn: bool


@dataclass(frozen=True)
class RowsCommit:
    """One commit that touched rows of a field.

    Attributes
    ----------
    added, changed, removed
        Rows of the field; None where the files of the commit were freed meanwhile, so that it may have touched them.
    first, last
        Days of the touched rows.
    """

    box: str
    time: dt.datetime
    version: int
    kind: str
    run: str | None
    added: int | None
    changed: int | None
    removed: int | None
    first: dt.date | None
    last: dt.date | None


# --- a box -----------------------------------------------------------------------------------------------------------


def box_history(cube: Cube) -> list[CubeCommit]:
    """Every published state of a cube, the newest first."""
    repository = cube.repository
    try:
        lines = [("present", list(repository.ancestry(branch=cube.branch)))]
        lines += [(tag, list(repository.ancestry(tag=tag))) for tag in sorted(repository.list_tags(), reverse=True)]
    except icechunk.IcechunkError as error:
        raise StoreUnavailableError(f"The history of box {cube.box_id!r} cannot be read: {error}") from error
    told: set[str] = set()
    commits = []
    for line, snapshots in lines:
        for one in snapshots:
            if one.parent_id is not None and one.id not in told:  # the first one holds nothing yet
                commits.append(_cube_commit(cube, one, line))
                told.add(one.id)
    return commits


def _cube_commit(cube: Cube, one: icechunk.SnapshotInfo, line: str) -> CubeCommit:
    said = dict(one.metadata)
    kind = str(said.get("kind") or ("create" if one.message.startswith("create ") else "other"))
    amended = tuple(str(day) for day in said.get("amended") or ())
    return CubeCommit(
        one.written_at,
        one.id,
        kind,
        said.get("run"),
        one.message,
        tuple(str(day) for day in said.get("days") or ()),
        amended,
        tuple(_changes(cube, one, amended)) if kind == "correct" else (),
        {name: str(value) for name, value in sorted(said.items()) if name not in _TOLD},
        line,
    )


def _changes(cube: Cube, one: icechunk.SnapshotInfo, amended: Sequence[str]) -> Iterator[ItemChange]:
    """The lists of acquisitions before and after a correction, compared."""
    days = [dt.date.fromisoformat(day) for day in amended]
    before, after = (_items(cube, snapshot, days) for snapshot in (one.parent_id, one.id))
    for day in days:
        old, new = before.get(day, {}), after.get(day, {})
        if old != new:
            yield ItemChange(
                day,
                tuple(sorted(set(new) - set(old))),
                tuple(sorted(set(old) - set(new))),
                tuple(sorted(name for name in set(old) & set(new) if old[name] != new[name])),
            )


def _items(cube: Cube, snapshot: str | None, days: Sequence[dt.date]) -> dict[dt.date, dict[str, str]]:
    """Day -> id -> version."""
    head = cube.head(snapshot)
    texts = read_items(cube.arrays(snapshot))
    found = {}
    for day in days:
        items = json.loads(texts[head.step(day)] or "[]")
        found[day] = {str(item["id"]): str(item["version"]) for item in items}
    return found


# --- a field ---------------------------------------------------------------------------------------------------------


def field_versions(registry: FieldRegistry, field_id: str) -> list[FieldVersion]:
    """Every version of a field, the newest first; `NotFoundError` for an unknown one."""
    found = [_field_version(row) for row in _versions(registry, field_id).to_dict("records")]
    return found[::-1]


def _versions(registry: FieldRegistry, field_id: str) -> pd.DataFrame:
    versions = registry.versions()
    own = versions[versions["field_id"] == field_id]
    if own.empty:
        near = there_is(field_id, set(versions["field_id"]))
        raise NotFoundError(f"There is no field {field_id!r}, and there never was one. {near}")
    return own.reset_index(drop=True)


def _field_version(row: Mapping[Any, Any]) -> FieldVersion:
    box, planting, harvest = (
        None if pd.isna(row[name]) else row[name] for name in ("box", "planting_date", "harvest_date")
    )
    arrival, accepted = row["arrival"].to_pydatetime(), row["accepted"].to_pydatetime()
    return FieldVersion(
        str(row["version"]), box, planting, harvest, arrival, accepted, str(row["file"]), int(row["row"]),
        bool(row["withdrawn"]),
    )  # fmt: skip


def field_boxes(registry: FieldRegistry, field_id: str, boxes: Mapping[str, Box]) -> list[str]:
    """Ids of the boxes in which some version of a field has or had area."""
    placed = place_fields(_versions(registry, field_id), boxes, explain=False).table
    return sorted({name for names in placed["boxes"] for name in names})


def rows_history(location: Location, box_id: str, field_id: str) -> list[RowsCommit]:
    """Every commit of a box's rows that touched a field, the newest first.

    Notes
    -----
    The log says which files a commit added and removed; rows of the field in both tell what it did. Compaction moves
    rows and touches none.
    """
    table = Results(location, box_id).table.key
    files = _Files(location, table, field_id)
    commits = [
        found
        for info in location.list(f"{table}/_delta_log")
        if (version := _version_of(info.key)) is not None
        if (found := _rows_commit(box_id, version, location.read(info.key), files)) is not None
    ]
    return commits[::-1]


def _version_of(key: str) -> int | None:
    name = key.rpartition("/")[2].removesuffix(".json")
    return int(name) if len(name) == 20 and name.isdecimal() and key.endswith(".json") else None


def _rows_commit(box_id: str, version: int, text: bytes, files: _Files) -> RowsCommit | None:
    actions = [json.loads(line) for line in text.splitlines() if line.strip()]
    said: dict[str, Any] = next((one["commitInfo"] for one in actions if "commitInfo" in one), {})
    before = [one["remove"] for one in actions if "remove" in one and one["remove"].get("dataChange", True)]
    after = [one["add"] for one in actions if "add" in one and one["add"].get("dataChange", True)]
    files.remember(one["add"] for one in actions if "add" in one)
    old, new = files.rows(before), files.rows(after)
    time = dt.datetime.fromtimestamp(said.get("timestamp", 0) / 1000, dt.UTC)
    kind = str(said.get("kind") or said.get("operation", "other")).lower()
    if old is None or new is None:
        return RowsCommit(box_id, time, version, kind, said.get("run"), None, None, None, None, None)
    added, removed = set(new) - set(old), set(old) - set(new)
    changed = {date for date in set(old) & set(new) if old[date] != new[date]}
    touched = added | removed | changed
    if not touched:
        return None
    return RowsCommit(
        box_id, time, version, kind, said.get("run"), len(added), len(changed), len(removed), min(touched), max(touched)
    )  # fmt: skip


class _Files:
    """The rows of one field in the data files of a table, each file read once."""

    def __init__(self, location: Location, table: str, field_id: str) -> None:
        self.location, self.table, self.field_id = location, table, field_id
        self._bounds: dict[str, tuple[str, str]] = {}
        self._rows: dict[str, dict[dt.date, str] | None] = {}

    def remember(self, adds: Iterator[Mapping[str, Any]]) -> None:
        """Note which ids each added file may hold, so that others need not be read."""
        for add in adds:
            stats = json.loads(add.get("stats") or "{}")
            low = (stats.get("minValues") or {}).get("field_id")
            high = (stats.get("maxValues") or {}).get("field_id")
            if isinstance(low, str) and isinstance(high, str):
                self._bounds[add["path"]] = low, high

    def rows(self, actions: Sequence[Mapping[str, Any]]) -> dict[dt.date, str] | None:
        """Date -> everything that the row says; None where a file that may hold such rows is gone."""
        together: dict[dt.date, str] = {}
        for action in actions:
            found = self._read(action["path"])
            if found is None:
                return None
            together |= found
        return together

    def _read(self, path: str) -> dict[dt.date, str] | None:
        low, high = self._bounds.get(path, ("", chr(0x10FFFF)))
        # long ids are cut in the statistics, the upper bound to something that sorts behind
        if not low <= self.field_id <= high:
            return {}
        if path not in self._rows:
            try:
                data = self.location.read(f"{self.table}/{unquote(path)}")
            except NotFoundError:
                self._rows[path] = None
            else:
                self._rows[path] = _rows_of(data, self.field_id)
        return self._rows[path]


def _rows_of(data: bytes, field_id: str) -> dict[dt.date, str]:
    table = plain_types(pq.ParquetFile(io.BytesIO(data)).read(use_threads=False))
    own = table.filter(pc.equal(table["field_id"], field_id))
    return {row["date"]: repr(row) for row in own.to_pylist()}
