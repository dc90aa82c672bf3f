"""Every accepted version of every field: an append-only table. The version accepted last is the current one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from geofield.errors import CorruptStoreError, LostRaceError, NotFoundError
from geofield.store import Location
from geofield.table import Snapshot, Table, quote

SCHEMA = pa.schema(
    [
        ("field_id", pa.string()),
        ("version", pa.string()),
        ("box", pa.string()),
        ("geometry", pa.binary()),
        ("crs", pa.string()),
        ("planting_date", pa.date32()),
        ("harvest_date", pa.date32()),
        ("crop", pa.string()),
        ("properties", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("arrival", pa.timestamp("us", tz="UTC")),
        ("accepted", pa.timestamp("us", tz="UTC")),
        ("withdrawn", pa.bool_()),
    ]
)
_TRIES = 20
_SHOWN = 5
RESTORE = (
    "Bring `fields` back from a copy of the store and submit what came since, or submit the files of inbox/accepted "
    "again; rows that nobody wants any more go with `geofield forget STORE --field ID --yes`."
)
"""What to do where the versions of fields are lost."""


class FieldRegistry:
    """The fields of a store.

    Parameters
    ----------
    location
        The store's location; the table lies at `fields` below it.
    """

    def __init__(self, location: Location) -> None:
        self.table = Table(location, "fields")

    def current(self, as_of: int | dt.datetime | None = None) -> pd.DataFrame:
        """The current version of each field, sorted by id, without withdrawn ones."""
        latest = _latest(self._all(self.table.open(as_of)))
        return latest[~latest["withdrawn"]].reset_index(drop=True)

    def placeable(self) -> tuple[int, pa.Table]:
        """The table's version, and of each field's current version what says where and when it has rows.

        Columns: field_id, version, box, geometry, crs, planting_date, harvest_date, row; sorted by id. A million fields
        are 200 MB; the rest of them, or objects of Python, would fill the memory.
        """
        snapshot = self.table.open()
        version = snapshot.version
        columns = ["field_id", "version", "box", "geometry", "crs", "planting_date", "harvest_date", "row"]
        found = self.table.read(snapshot, [*columns, "accepted", "withdrawn"])
        if found is None:
            return version, pa.schema([SCHEMA.field(name) for name in columns]).empty_table()
        order = pc.sort_indices(found, [("accepted", "ascending"), ("row", "ascending")])
        is_older = found["field_id"].take(order).to_pandas().duplicated(keep="last").to_numpy()
        latest = order.filter(pa.array(~is_older))
        latest = latest.filter(pc.invert(found["withdrawn"].take(latest)).combine_chunks())
        latest = latest.take(pc.sort_indices(found["field_id"].take(latest)))
        return version, found.select(columns).take(latest)

    def versions(self) -> pd.DataFrame:
        """Every version, in order of acceptance."""
        return self._all(self.table.open())

    def lost(self, field_ids: Collection[str]) -> list[str]:
        """Of ids that have rows, those whose versions are lost: no version names them, and no field was ever forgotten.

        A run that was at work while a field was forgotten may leave rows of an id that no version names.
        """
        if not field_ids:
            return []
        found = self.table.read(self.table.open(), ["field_id"])
        unknown = set(field_ids) - set(() if found is None else pc.unique(found["field_id"]).to_pylist())
        return sorted(unknown) if unknown and "forget" not in self.table.kinds() else []

    def check_not_lost(self, field_ids: Collection[str], rows: str) -> None:
        """Raise for ids in a table of rows whose versions are lost.

        Raises
        ------
        CorruptStoreError
            The rows are all that is left of these fields: nobody may remove them because the versions are not there.
        """
        lost = self.lost(field_ids)
        if lost:
            more = f" and {len(lost) - _SHOWN:,} more" if len(lost) > _SHOWN else ""
            fields = f"{len(lost):,} field{'s' if len(lost) > 1 else ''}"
            what = "is missing" if self.table.open().table is None else "does not know them"
            raise CorruptStoreError(
                f"{rows} holds rows of {fields}, and the table `fields` of the store {what}: "
                f"{', '.join(lost[:_SHOWN])}{more}. No row was removed. {RESTORE}"
            )

    def accept(
        self, fields: pd.DataFrame, file: str, metadata: Mapping[str, Any], is_due: Callable[[], bool] = lambda: True
    ) -> int:
        """Add versions in one commit.

        Parameters
        ----------
        fields
            Columns of `SCHEMA` but `file`, `accepted` and `withdrawn`.
        file
            What they were handed in with. A version that the same file has brought before is not brought again,
            whatever was accepted or withdrawn since.
        is_due
            Asked when the table has been read: False keeps it as it is. So what another process did with the file
            before somebody else's commit is never missed.

        Returns
        -------
        How many were new; a field whose current version is the same is left as it is.
        """
        for _ in range(_TRIES):
            snapshot = self.table.open()
            every = self._all(snapshot)
            new = _new_versions(_not_brought(fields, every[every["file"] == file]), _latest(every))
            if new.empty or not is_due():
                return 0
            rows = new.assign(file=file, accepted=_after(every), withdrawn=False)
            try:
                self.table.commit(snapshot, _to_arrow(rows), metadata=metadata)
            except LostRaceError:
                continue
            return len(new)
        raise LostRaceError("The fields are being written by too many others; try again.")

    def withdraw(self, field_ids: Sequence[str], metadata: Mapping[str, Any]) -> int:
        """Say that some fields stop: they have no rows any more; their versions stay. How many were not withdrawn yet.

        Raises
        ------
        NotFoundError
            A field is unknown.
        """
        for _ in range(_TRIES):
            snapshot = self.table.open()
            every = self._all(snapshot)
            latest = _latest(every).set_index("field_id", drop=False)
            for name in field_ids:
                if name not in latest.index:
                    raise NotFoundError(f"There is no field {name!r} to withdraw.")
            going = latest.loc[list(field_ids)]
            going = going[~going["withdrawn"].astype(bool)]
            if going.empty:
                return 0
            rows = going.assign(accepted=_after(every), withdrawn=True)
            try:
                self.table.commit(snapshot, _to_arrow(rows), metadata=metadata)
            except LostRaceError:
                continue
            return len(rows)
        raise LostRaceError("The fields are being written by too many others; try again.")

    def remove(self, field_ids: Sequence[str], metadata: Mapping[str, Any]) -> None:
        """Delete every version of some fields in one commit."""
        where = f"field_id IN ({', '.join(quote(name) for name in field_ids)})"
        for _ in range(_TRIES):
            snapshot = self.table.open()
            if snapshot.table is None:
                return
            try:
                self.table.commit(snapshot, SCHEMA.empty_table(), replacing=where, metadata=metadata)
            except LostRaceError:
                continue
            return
        raise LostRaceError("The fields are being written by too many others; try again.")

    def _all(self, snapshot: Snapshot) -> pd.DataFrame:
        found = self.table.read(snapshot)
        frame = (SCHEMA.empty_table() if found is None else found.select(SCHEMA.names).cast(SCHEMA)).to_pandas()
        ordered: pd.DataFrame = frame.sort_values(["accepted", "row"], kind="stable").reset_index(drop=True)
        return ordered


def _latest(every: pd.DataFrame) -> pd.DataFrame:
    return every.drop_duplicates("field_id", keep="last").sort_values("field_id").reset_index(drop=True)


def _after(every: pd.DataFrame) -> dt.datetime:
    """The time, but later than all that was accepted: which version is the last must not depend on anybody's clock.

    The commit that takes it fails when something was accepted meanwhile.
    """
    now = dt.datetime.now(dt.UTC)
    if every.empty:
        return now
    newest: dt.datetime = every["accepted"].max().to_pydatetime()
    return max(now, newest + dt.timedelta(microseconds=1))


def _not_brought(fields: pd.DataFrame, brought: pd.DataFrame) -> pd.DataFrame:
    keys = ["field_id", "version"]
    return fields[~pd.MultiIndex.from_frame(fields[keys]).isin(pd.MultiIndex.from_frame(brought[keys]))]


def _new_versions(fields: pd.DataFrame, current: pd.DataFrame) -> pd.DataFrame:
    known = current[~current["withdrawn"].astype(bool)].set_index("field_id")
    standing = known[["version", "box"]].reindex(fields["field_id"])
    same_version = standing["version"].to_numpy() == fields["version"].to_numpy()
    same_box = standing["box"].fillna("").to_numpy() == fields["box"].fillna("").to_numpy()
    return fields[~np.asarray(same_version & same_box, dtype=bool)]


def _to_arrow(rows: pd.DataFrame) -> pa.Table:
    columns = {}
    for item in SCHEMA:
        values = rows[item.name].astype(object).where(rows[item.name].notna(), None)
        columns[item.name] = pa.array(values.tolist(), type=item.type)
    return pa.table(columns, schema=SCHEMA)
