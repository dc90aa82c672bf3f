"""A Delta table with one rule more: commits are serialised by a compare-and-swap on a transaction number.

Delta lets two blind appends both succeed. Every commit here carries the next transaction number of one application
id; Delta refuses the second of two commits that carry the same, so that nobody appends to a table that they have not
read.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from geofield.errors import (
    ConfigurationError,
    CorruptStoreError,
    GeofieldError,
    LostRaceError,
    NotFoundError,
    unanswered,
)
from geofield.store import Location

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

_APPLICATION = "geofield"
_TRIES = 5
LONGEST_KEPT = dt.timedelta(days=90)
"""So long a table remembers which files it no longer needs; no `free` may keep them longer."""

_BOUND = 31
"""Characters of a text that Delta's statistics keep for sure; a longer upper bound ends in another character."""

_NOT_FOUND = re.compile(r"at location (.+?\.parquet) not found")  # the libraries have no class for it, only this text

_PROPERTIES = {
    # the log is the history of the table, and small; files are freed by `free`, and by nothing that happens unasked
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.deletedFileRetentionDuration": f"interval {LONGEST_KEPT.days} days",
}


@dataclass(frozen=True)
class Snapshot:
    """A table as it was when it was opened. `table` is None while nothing was ever written."""

    table: DeltaTable | None
    transaction: int

    @property
    def version(self) -> int:
        """The Delta version, -1 for no table."""
        return -1 if self.table is None else self.table.version()


@dataclass(frozen=True)
class Table:
    """A Delta table below a location.

    Parameters
    ----------
    location, key
        Where it lies.
    partition_by
        Columns that name the partitions.
    remedy
        What else can be done where a file of it is lost than to bring it back.
    """

    location: Location
    key: str
    partition_by: Sequence[str] = ()
    remedy: str = ""

    def open(self, as_of: int | dt.datetime | None = None) -> Snapshot:
        """The table now, at a version, or as it was at a time."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        with self._answering("read"):
            try:
                table = DeltaTable(self.location.table_uri(self.key), storage_options=self.location.table_options())
            except TableNotFoundError:
                return Snapshot(None, 0)
            number = table.transaction_version(_APPLICATION) or 0
            if as_of is not None:
                table.load_as_version(as_of)
        return Snapshot(table, number)

    def read(
        self, snapshot: Snapshot, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.Table | None:
        """Rows for which the SQL expression `where` holds, in no particular order; None while there is no table."""
        if snapshot.table is None:
            return None
        # DataFusion's reader, not PyArrow's: the latter may abort the process when the interpreter exits.
        with self._answering("read"):
            reader = snapshot.table.scan(columns=None if columns is None else list(columns), predicate=where)
            return plain_types(pa.table(reader))

    def distinct(self, snapshot: Snapshot, columns: Sequence[str], where: str | None = None) -> pa.Table | None:
        """The combinations of values that some columns hold, each once, without holding all rows in memory."""
        if snapshot.table is None:
            return None
        with self._answering("read"):
            reader = pa.RecordBatchReader.from_stream(snapshot.table.scan(columns=list(columns), predicate=where))
            found: pa.Table | None = None
            for batch in reader:
                some = plain_types(pa.Table.from_batches([batch]))
                both = some if found is None else pa.concat_tables([found, some])
                found = both.group_by(list(columns)).aggregate([])
            return plain_types(reader.schema.empty_table()).select(columns) if found is None else found

    def commit(
        self,
        snapshot: Snapshot,
        rows: pa.Table,
        *,
        replacing: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        """Add rows, and in the same commit remove those for which `replacing` holds; the new version.

        Parameters
        ----------
        snapshot
            What the caller has read. `LostRaceError` when somebody committed since.
        rows
            May be empty when `replacing` is given. With `replacing`, every row has to satisfy it.
        replacing
            SQL expression over the columns.
        """
        from deltalake import CommitProperties, DeltaTable, Transaction
        from deltalake.exceptions import CommitFailedError

        properties = CommitProperties(
            custom_metadata={name: str(value) for name, value in (metadata or {}).items()},
            app_transactions=[Transaction(_APPLICATION, snapshot.transaction + 1)],
        )
        options = self.location.table_options()
        self._check_writable()
        with self._answering("written"):
            try:
                table = snapshot.table
                if table is None:
                    table = self._create(rows.schema)
                    if table.transaction_version(_APPLICATION):
                        raise LostRaceError(f"Table {self.key} was written by another process meanwhile.")
                if replacing is not None and not rows.num_rows:
                    table.delete(replacing, commit_properties=properties)
                else:
                    _write(table, rows, replacing, properties)
            except CommitFailedError as error:
                raise LostRaceError(f"Table {self.key} was written by another process meanwhile: {error}") from error
            return int(DeltaTable(self.location.table_uri(self.key), storage_options=options).version())

    @contextlib.contextmanager
    def _answering(self, done: str) -> Iterator[None]:
        """Errors of Delta, DataFusion and Arrow as one for the caller."""
        from deltalake.exceptions import DeltaError

        try:
            yield
        except GeofieldError:
            raise
        except (OSError, DeltaError, pa.ArrowException) as error:
            raise self._lost(error) or unanswered(f"Table {self.key} cannot be {done}", error) from error

    def _lost(self, error: Exception) -> CorruptStoreError | None:
        """The error for a file that is not there although the present needs it, or None: others freed it."""
        named = _NOT_FOUND.search(str(error))
        name = named[1].rpartition("/")[2] if named else ""
        if not name or ".checkpoint." in name:
            return None
        try:
            table = self.open().table
            lost = [] if table is None else [key for key in self._needed(table) if key.endswith(f"/{name}")]
            if not lost or self.location.exists(lost[0]):
                return None
        except GeofieldError:
            return None
        return CorruptStoreError(
            f"Table {self.key} needs the file {lost[0]}, which is not there; geofield removes no file that is needed. "
            f"Bring it back from a copy of the store.{self.remedy}"
        )

    def kinds(self) -> set[str]:
        """What the commits of the table say that they were for; each is read."""
        commits = [info.key for info in self.location.list(f"{self.key}/_delta_log") if info.key.endswith(".json")]
        actions = [json.loads(line) for key in commits for line in self.location.read(key).splitlines()]
        return {str(one["commitInfo"]["kind"]) for one in actions if "kind" in one.get("commitInfo", ())}

    def _needed(self, table: DeltaTable) -> set[str]:
        """Keys of the files that hold the rows of the present."""
        return {f"{self.key}/{unquote(path)}" for path in pa.table(table.get_add_actions())["path"].to_pylist()}

    def purge(self, column: str, values: Collection[str]) -> None:
        """Remove every trace of rows that were deleted: the files that still hold them, and what the log says of them.

        The log keeps between which values the columns of a file lie, and which rows a commit replaced. Versions that
        need one of the removed files cannot be read afterwards, and readers that hold one open may fail. Writers may
        be at work: one that read the table before cannot commit, looks again and starts over.

        Parameters
        ----------
        column, values
            A text column; no row of the present holds one of these values in it.
        """
        listed = [info.key for info in self.location.list(self.key)]
        self._shut_out("purge")
        table = self.open().table
        if table is None:
            return
        with self._answering("cleaned"):
            table.create_checkpoint()
            needed = self._needed(table)
        # what was listed and is not needed now was deleted before, or is of a writer that can no longer commit it
        for key in listed:
            folder, _, name = key.rpartition("/")
            if folder != f"{self.key}/_delta_log":
                if key not in needed and self._may_hold(key, column, values):
                    self.location.delete(key)
            elif ".checkpoint." in name and int(name[:20]) < table.version():
                self.location.delete(key)
            elif name.endswith(".json"):
                said = self.location.read(key)
                if (cleaned := _without(said, column, values)) != said:
                    self.location.write(key, cleaned)

    def _may_hold(self, key: str, column: str, values: Collection[str]) -> bool:
        import pyarrow.parquet as pq

        try:
            found = pq.ParquetFile(io.BytesIO(self.location.read(key))).read([column], use_threads=False)
        except NotFoundError:  # somebody else was faster
            return False
        except pa.ArrowInvalid:  # half a file, of a writer that died
            return True
        return bool(pc.any(pc.is_in(found[column].cast(pa.string()), pa.array(values, pa.string()))).as_py())

    def _shut_out(self, why: str) -> None:
        """A commit that changes nothing and takes the next number: whoever has read the table before cannot commit.

        Called before files are removed that a writer which stood still for long may be about to commit. Compaction
        carries no number: what it makes is of files that are still there, or Delta refuses it.
        """
        snapshot = self.open()
        if snapshot.table is None:
            return
        nothing = pa.schema(snapshot.table.schema().to_arrow()).empty_table()
        with contextlib.suppress(LostRaceError):  # somebody else has taken the number meanwhile, which does as well
            self.commit(snapshot, nothing, metadata={"kind": why})

    def partitions(self, snapshot: Snapshot, column: str) -> list[str]:
        """Values of a partition column that have files, sorted."""
        if snapshot.table is None:
            return []
        return sorted({str(one[column]) for one in snapshot.table.partitions()})

    def compact(self, column: str | None, values: Sequence[str], metadata: Mapping[str, Any] | None = None) -> int:
        """Bring small files together, partition by partition; how many there are fewer.

        The rows stay the same, and so does the transaction number: who has read the table before may append to it
        after. Who replaces rows in files that are gone loses the race and tries again, and so does this.

        Parameters
        ----------
        column, values
            The partitions; None for a table without.

        Raises
        ------
        LostRaceError
            Others kept replacing rows of these files.
        """
        from deltalake import CommitProperties
        from deltalake.exceptions import CommitFailedError

        properties = CommitProperties(custom_metadata={name: str(value) for name, value in (metadata or {}).items()})
        chosen = None if column is None else [(column, "in", list(values))]
        self._check_writable()
        for _ in range(_TRIES):
            table = self.open().table
            if table is None or (column is not None and not values):
                return 0
            with self._answering("compacted"):
                try:
                    done = table.optimize.compact(partition_filters=chosen, commit_properties=properties)
                except CommitFailedError:
                    continue
                if done["numFilesRemoved"]:
                    table.create_checkpoint()
            return int(done["numFilesRemoved"]) - int(done["numFilesAdded"])
        raise LostRaceError(f"The rows of {self.key} are being replaced by others; compact it later.")

    def free(self, keep: dt.timedelta) -> int:
        """Remove the files that no version of the last while needs; how many.

        Parameters
        ----------
        keep
            Versions of this while can still be read, and files of this while that a writer has yet to commit are left
            alone. At most `LONGEST_KEPT`; zero only where nobody writes.
        """
        if not dt.timedelta(0) <= keep <= LONGEST_KEPT:
            raise ConfigurationError(f"Versions are kept for 0 to {LONGEST_KEPT.days} days; got {keep}.")
        table = self.open().table
        if table is None:
            return 0
        hours = math.ceil(keep / dt.timedelta(hours=1))
        with self._answering("cleaned"):
            files = table.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
        if not files:  # an empty one would be a commit of its own
            return 0
        self._shut_out("free")
        table = self.open().table
        assert table is not None
        with self._answering("cleaned"):
            return len(table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True))

    def _check_writable(self) -> None:
        self.location.check_writable(self.key, f"{self.key}/_delta_log")

    def _create(self, schema: pa.Schema) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable.create(
            self.location.table_uri(self.key),
            schema=schema,
            mode="ignore",
            partition_by=list(self.partition_by) or None,
            configuration=_PROPERTIES,
            storage_options=self.location.table_options() or None,
        )


def _write(table: DeltaTable, rows: pa.Table, replacing: str | None, properties: CommitProperties) -> None:
    from deltalake import write_deltalake

    # columns come when a box gets another variable; those that are left out are null in the new rows
    known = {item.name for item in table.schema().fields}
    mode: Literal["merge"] | None = None if set(rows.column_names) == known else "merge"
    if replacing is None:
        write_deltalake(table, rows, mode="append", schema_mode=mode, commit_properties=properties)
    else:
        write_deltalake(
            table, rows, mode="overwrite", schema_mode=mode, predicate=replacing, commit_properties=properties
        )


def _without(log: bytes, column: str, values: Collection[str]) -> bytes:
    """A commit of the log without bounds that are one of the values, and without the values in what it replaced."""
    begins = {value[:_BOUND] for value in values}
    lines = []
    for line in log.splitlines():
        action = json.loads(line)
        add, said = action.get("add") or {}, (action.get("commitInfo") or {}).get("operationParameters") or {}
        stats = json.loads(add.get("stats") or "{}")
        for name in ("minValues", "maxValues"):
            if str((stats.get(name) or {}).get(column, ""))[:_BOUND] in begins:
                del stats[name][column]
                add["stats"] = json.dumps(stats)
        for name, text in said.items():
            for value in values:
                text = text.replace(quote(value), "'?'") if isinstance(text, str) else text
            said[name] = text
        lines.append(line if action == json.loads(line) else json.dumps(action).encode())
    return b"\n".join(lines) if lines != log.splitlines() else log


def plain_types(rows: pa.Table) -> pa.Table:
    """DataFusion's view types as the ordinary ones, which PyArrow's joins and sorts take."""
    ordinary = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return rows.cast(pa.schema([(item.name, ordinary.get(item.type, item.type)) for item in rows.schema]))


def quote(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
