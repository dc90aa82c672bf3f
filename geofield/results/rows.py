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

_REMEDY = (
    " Or remove the whole folder of the table: the next run computes every row again from the stored cube, and what "
    "the rows were before cannot be asked for any more."
)
_TRIES = 20
_DAY = dt.timedelta(days=1)
_RECENT = dt.timedelta(days=31)
_NAMED = 1000  # fields that are asked for by name; of more, all that there are
_SPANS = 32  # spans of days that one condition tells apart; DataFusion overflows its stack over thousands


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
    left_out
        Fields that a daily commit left to a fill, since rows of another version of theirs stand.
    """

    def __init__(self, location: Location, box_id: str) -> None:
        self.box_id = box_id
        self.table = Table(location, f"rows/{box_id}", partition_by=("month",), remedy=_REMEDY)
        self.seen: int | None = None
        self.is_alone = True
        self.left_out: set[str] = set()

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

    def commit(
        self, rows: pa.Table, metadata: Mapping[str, Any], *, is_daily: bool = False, since: dt.date | None = None
    ) -> int:
        """Write rows by key (field, date): what is there is replaced, never doubled.

        Rows of another version of the same field leave in the same commit.

        Parameters
        ----------
        is_daily
            Rows of new days. A field of which rows of another version stand gets none: a day cannot take the place of
            all that the field has, so the field stays as it was until a fill replaces it whole. They are looked for in
            the weeks before, and in all of the table for fields that have no row on the day before: a day costs the
            same in the tenth year.
        since
            The first day that these fields can have rows of; what they have before it leaves in the same commit.

        Returns
        -------
        How many rows were written; 0 when the same rows were there already, and then nothing is committed.
        """
        for _ in range(_TRIES):
            if not rows.num_rows:
                return 0
            snapshot = self.table.open()
            if is_daily and (other := self._changed(snapshot, rows)):
                self.left_out |= other
                rows = rows.filter(pc.invert(pc.is_in(rows["field_id"], pa.array(sorted(other)))))
                if not rows.num_rows:
                    self._follow(snapshot.version)
                    return 0
            place = _place(rows, set() if is_daily else self._outdated(snapshot, rows), since)
            standing = self.table.read(snapshot, None, place)
            if standing is not None:
                standing = _aligned(standing, rows.schema)
            full = rows if standing is None else _with_kept(rows, standing, since)
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

    def _outdated(self, snapshot: Snapshot, rows: pa.Table, among: set[str] | None = None) -> set[str]:
        """Fields of `rows` that have rows of another version."""
        ids = _ids(rows) if among is None else among
        where = _where(sorted(ids), None, None) if len(ids) <= _NAMED else None
        found = self.table.distinct(snapshot, ["field_id", "field_version"], where)
        return set() if found is None else _others(found, rows) & ids

    def _changed(self, snapshot: Snapshot, rows: pa.Table) -> set[str]:
        """The same for rows of new days, without a look at all of the table for fields that simply go on."""
        first = pc.min(rows["date"]).as_py()
        versions = ", ".join(quote(one) for one in pc.unique(rows["field_version"]).to_pylist())
        where = (
            f"date >= {_sql(first - _RECENT)} AND (date = {_sql(first - _DAY)} OR field_version NOT IN ({versions}))"
        )
        found = self.table.read(snapshot, ["field_id", "field_version", "date"], where)
        if found is None:
            return set()
        other = _others(found, rows)
        begun = rows.filter(pc.and_(pc.equal(rows["date"], first), pc.greater(rows["days_since_planting"], 0)))
        unknown = _ids(begun) - _ids(found.filter(pc.equal(found["date"], first - _DAY))) - other
        return other | self._outdated(snapshot, rows, unknown) if unknown else other


def _ids(rows: pa.Table) -> set[str]:
    return set(pc.unique(rows["field_id"]).to_pylist())


def _others(found: pa.Table, rows: pa.Table) -> set[str]:
    """Fields of `rows` that `found` holds in another version; two fields with the same polygon share a version."""
    wanted = rows.select(["field_id", "field_version"]).to_pandas().drop_duplicates("field_id")
    pairs = found.select(["field_id", "field_version"]).to_pandas()
    version = pairs["field_id"].map(wanted.set_index("field_id")["field_version"])
    return set(pairs["field_id"][version.notna() & (version != pairs["field_version"])])


def _place(rows: pa.Table, outdated: set[str], since: dt.date | None) -> str:
    """SQL for the part of the table that a commit of `rows` owns.

    For each field the span of its new days, or a longer one where there are many, and all before `since`; for a field
    with rows of another version, all that it has.
    """
    frame = rows.select(["field_id", "date"]).to_pandas()
    spans = frame.groupby("field_id")["date"].agg(["min", "max"])
    parts = [_where(sorted(outdated), None, None)] if outdated else []
    if since is not None:
        parts.append(f"{_where(list(spans.index), None, None)} AND date < {_sql(since)}")
    rest = spans[~spans.index.isin(outdated)]
    groups = list(rest.groupby(["min", "max"]))
    if len(groups) > _SPANS:  # what stands there besides is read, and kept
        groups = [((rest["min"].min(), rest["max"].max()), rest)]
    parts += [_where(list(group.index), low, high) for (low, high), group in groups]
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


def _with_kept(rows: pa.Table, standing: pa.Table, since: dt.date | None) -> pa.Table:
    """`rows` and what stands in their place under other keys, of the same field versions and not before `since`."""
    if since is not None:
        standing = standing.filter(pc.greater_equal(standing["date"], since))
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
        parts.append(f"date >= {_sql(start)}")
    if end is not None:
        parts.append(f"date <= {_sql(end)}")
    return " AND ".join(parts) or None


def _sql(day: dt.date) -> str:
    return f"DATE '{day.isoformat()}'"
