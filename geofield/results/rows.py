"""The rows of a box: their columns, how they are built, and how they are committed by key."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from geofield.errors import LostRaceError
from geofield.store import Location
from geofield.table import Snapshot, Table, quote

OBSERVED, ALL_MASKED, NO_ACQUISITION = "observed", "all_masked", "no_acquisition"
_KEY = [("box", pa.string()), ("field_id", pa.string()), ("field_version", pa.string()), ("date", pa.date32()),
        ("days_since_planting", pa.int32()), ("status", pa.string()), ("covered", pa.float64())]  # fmt: skip
KEY_COLUMNS = (*(name for name, _ in _KEY), "digest")
"""Columns of a row that are no statistics."""

_TRIES = 20
_RECENT = dt.timedelta(days=31)


@dataclass(frozen=True)
class FieldColumns:
    """What rows say of the fields of a box, in the order of the box's table."""

    ids: Sequence[str]
    versions: Sequence[str]
    planted: Sequence[dt.date]
    covered: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Numbers:
    """What some fields of a box are on some days, ready to become rows.

    Attributes
    ----------
    dates, acquired
        (time,) the days, and whether some acquisition came.
    fields
        (field,) int, which fields of the box's table these are.
    active
        (time, field) bool, whether there is a row: from planting to harvest.
    values
        column -> (time, field) float64, NaN where missing: `<variable>_valid`, `<variable>_<stat>`, ...
    digests
        (time, field) text, digest of the tiles that a field touches.
    """

    dates: Sequence[dt.date]
    acquired: npt.NDArray[np.bool_]
    fields: npt.NDArray[np.int64]
    active: npt.NDArray[np.bool_]
    values: Mapping[str, npt.NDArray[np.float64]]
    digests: npt.NDArray[np.object_]


def build_rows(box_id: str, fields: FieldColumns, numbers: Numbers, columns: Sequence[str]) -> pa.Table:
    """Rows by day, then field.

    Parameters
    ----------
    columns
        Names of the value columns in order.
    """
    step, place = np.nonzero(numbers.active)
    which = numbers.fields[place]
    days = np.array(numbers.dates, dtype="datetime64[D]")
    planted = np.array(fields.planted, dtype="datetime64[D]")
    months = np.array([f"{day:%Y-%m}" for day in numbers.dates], dtype=object)
    return pa.table(
        {
            "box": pa.repeat(box_id, len(step)),
            "field_id": np.array(fields.ids, dtype=object)[which],
            "field_version": np.array(fields.versions, dtype=object)[which],
            "date": days[step],
            "days_since_planting": (days[step] - planted[which]).astype(np.int32),
            "status": _statuses(numbers)[step, place],
            "covered": fields.covered[which],
            **{name: _nullable(numbers.values[name][step, place]) for name in columns},
            "digest": numbers.digests[step, place],
            "month": months[step],
        },
        schema=row_schema(columns),
    )


def row_schema(columns: Sequence[str]) -> pa.Schema:
    """Columns of a rows table."""
    values = [(name, pa.float64()) for name in columns]
    return pa.schema([*_KEY, *values, ("digest", pa.string()), ("month", pa.string())])


def _statuses(numbers: Numbers) -> npt.NDArray[np.object_]:
    seen = np.zeros(numbers.active.shape, dtype=bool)
    for name, values in numbers.values.items():
        if name.endswith("_valid"):
            seen |= values > 0
    came = np.broadcast_to(numbers.acquired[:, None], seen.shape)
    return np.where(~came, NO_ACQUISITION, np.where(seen, OBSERVED, ALL_MASKED)).astype(object)


def _nullable(values: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


class Results:
    """The rows table of a box.

    Parameters
    ----------
    location, box_id
        Where it lies: `rows/<box>` below the location.

    Attributes
    ----------
    seen
        The table's version when this object last read or wrote it; None before that.
    is_alone
        Nobody else committed between the first thing that this object read or wrote and the last.
    """

    def __init__(self, location: Location, box_id: str) -> None:
        self.box_id = box_id
        self.table = Table(location, f"rows/{box_id}", partition_by=("month",))
        self.seen: int | None = None
        self.is_alone = True

    def _follow(self, found: int, committed: int | None = None) -> None:
        """Note that the table was found at a version, and what a commit on top of it came to."""
        if self.seen is not None and found != self.seen:
            self.is_alone = False
        # the first commit makes the table, which is a version of its own
        if committed is not None and committed != max(found, 0) + 1:
            self.is_alone = False
        self.seen = found if committed is None else committed

    def read(
        self,
        *,
        fields: Sequence[str] | None = None,
        start: dt.date | None = None,
        end: dt.date | None = None,
        as_of: int | dt.datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Rows sorted by field and date; an empty frame while there are none."""
        snapshot = self.table.open(as_of)
        if as_of is None:
            self._follow(snapshot.version)
        found = self.table.read(snapshot, columns, _where(fields, start, end))
        if found is None:
            empty: pd.DataFrame = row_schema([]).empty_table().to_pandas()
            return empty.drop(columns="month")
        order = [(name, "ascending") for name in ("field_id", "date") if name in found.column_names]
        frame: pd.DataFrame = found.sort_by(order).to_pandas()
        return frame.drop(columns="month", errors="ignore")

    def commit(self, rows: pa.Table, metadata: Mapping[str, Any], *, is_daily: bool = False) -> int:
        """Write rows by key (field, date): what is there is replaced, never doubled.

        Rows of another version of the same field leave in the same commit.

        Parameters
        ----------
        is_daily
            Rows of new days: other versions are looked for in the weeks before them only, so that a day costs the same
            in the tenth year. A runner brings changed fields up to date before it appends.

        Returns
        -------
        How many rows were written; 0 when the same rows were there already, and then nothing is committed.
        """
        if not rows.num_rows:
            return 0
        for _ in range(_TRIES):
            snapshot = self.table.open()
            place = _place(rows, self._outdated(snapshot, rows, is_daily))
            standing = self.table.read(snapshot, None, place)
            if standing is not None:
                standing = _aligned(standing, rows.schema)
            full = rows if standing is None else _with_kept(rows, standing)
            if standing is not None and _equal(standing, full):
                self._follow(snapshot.version)
                return 0
            found = snapshot.version
            try:
                replacing = place if standing is not None and standing.num_rows else None
                self._follow(found, self.table.commit(snapshot, full, replacing=replacing, metadata=metadata))
            except LostRaceError:
                continue
            return int(rows.num_rows)
        raise LostRaceError(f"The rows of box {self.box_id} are being written by too many others; try again.")

    def replace(self, field_ids: Sequence[str], compute: Callable[[], pa.Table], metadata: Mapping[str, Any]) -> int:
        """Make what `compute` gives all that there is of some fields, in one commit; how many rows that is.

        It is called again when somebody committed meanwhile, so that nothing is replaced that it has not seen.
        """
        for _ in range(_TRIES):
            snapshot = self.table.open()
            rows, found = compute(), snapshot.version
            try:
                replacing = _where(field_ids, None, None)
                self._follow(found, self.table.commit(snapshot, rows, replacing=replacing, metadata=metadata))
            except LostRaceError:
                continue
            return int(rows.num_rows)
        raise LostRaceError(f"The rows of box {self.box_id} are being written by too many others; try again.")

    def remove(self, field_ids: Sequence[str], metadata: Mapping[str, Any]) -> int:
        """Delete all rows of some fields in one commit; how many there were."""
        for _ in range(_TRIES):
            snapshot = self.table.open()
            standing = self.table.read(snapshot, ["field_id"], _where(field_ids, None, None))
            if standing is None or not standing.num_rows:
                self._follow(snapshot.version)
                return 0
            found, nothing, place = snapshot.version, standing.slice(0, 0), _where(field_ids, None, None)
            try:
                self._follow(found, self.table.commit(snapshot, nothing, replacing=place, metadata=metadata))
            except LostRaceError:
                continue
            return int(standing.num_rows)
        raise LostRaceError(f"The rows of box {self.box_id} are being written by too many others; try again.")

    def _outdated(self, snapshot: Snapshot, rows: pa.Table, is_daily: bool) -> set[str]:
        """Fields of `rows` that have rows of another version."""
        known = ", ".join(quote(version) for version in pc.unique(rows["field_version"]).to_pylist())
        where = f"field_version NOT IN ({known})"
        if is_daily:
            where += f" AND date >= {_day(pc.min(rows['date']).as_py() - _RECENT)}"
        found = self.table.read(snapshot, ["field_id"], where)
        if found is None:
            return set()
        ids = set(pc.unique(rows["field_id"]).to_pylist())
        return ids & set(pc.unique(found["field_id"]).to_pylist())


def _place(rows: pa.Table, outdated: set[str]) -> str:
    """SQL for the part of the table that a commit of `rows` owns.

    For each field the span of its new days; for a field with rows of another version, all that it has.
    """
    frame = rows.select(["field_id", "date"]).to_pandas()
    spans = frame.groupby("field_id")["date"].agg(["min", "max"])
    parts = [_where(sorted(outdated), None, None)] if outdated else []
    rest = spans[~spans.index.isin(outdated)]
    parts += [_where(list(group.index), low, high) for (low, high), group in rest.groupby(["min", "max"])]
    return " OR ".join(f"({part})" for part in parts)


def _aligned(standing: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of a box as it was, with the columns of the box as it is: those that are new are null."""
    columns = [
        standing[item.name].cast(item.type)
        if item.name in standing.column_names
        else pa.nulls(len(standing), item.type)
        for item in schema
    ]
    return pa.table(columns, schema=schema)


def _with_kept(rows: pa.Table, standing: pa.Table) -> pa.Table:
    """`rows` and what stands in their place under other keys, of the same field versions."""
    versions = rows.select(["field_id", "field_version"]).group_by(["field_id", "field_version"]).aggregate([])
    others = standing.join(rows.select(["field_id", "date"]), ["field_id", "date"], join_type="left anti")
    kept = others.join(versions, ["field_id", "field_version"], join_type="inner")
    return pa.concat_tables([rows, kept.select(rows.column_names).cast(rows.schema)]) if kept.num_rows else rows


def _equal(standing: pa.Table, rows: pa.Table) -> bool:
    if standing.num_rows != rows.num_rows or set(standing.column_names) != set(rows.column_names):
        return False
    order = [("field_id", "ascending"), ("date", "ascending")]
    one = standing.select(rows.column_names).cast(rows.schema).sort_by(order).combine_chunks()
    return bool(one.equals(rows.sort_by(order).combine_chunks()))


def _where(fields: Sequence[str] | None, start: dt.date | None, end: dt.date | None) -> str | None:
    parts = []
    if fields is not None:
        parts.append(f"field_id IN ({', '.join(quote(name) for name in fields)})" if len(fields) else "FALSE")
    if start is not None:
        parts.append(f"date >= {_day(start)}")
    if end is not None:
        parts.append(f"date <= {_day(end)}")
    return " AND ".join(parts) or None


def _day(day: dt.date) -> str:
    return f"DATE '{day.isoformat()}'"
