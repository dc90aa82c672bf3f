"""Compaction: fewer and fuller files, and what nothing needs any more is freed. No number changes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from geofield.cube.cube import Cube
from geofield.cube.upkeep import DEAD_AFTER, collect
from geofield.errors import NotFoundError
from geofield.pipeline.run import Run
from geofield.registry import FieldRegistry
from geofield.results.rows import Results
from geofield.store import Location
from geofield.table import Table

KEEP = dt.timedelta(days=30)
"""Earlier versions of rows and fields that were replaced within this while can be read."""


@dataclass(frozen=True)
class Compaction:
    """What became of one part of a store: a folder's objects and bytes before and after."""

    key: str
    files_before: int
    bytes_before: int
    files_after: int
    bytes_after: int


def compact(
    location: Location,
    box_ids: Sequence[str],
    today: dt.date,
    *,
    keep: dt.timedelta = KEEP,
    older_than: dt.timedelta = DEAD_AFTER,
    run: Run | None = None,
) -> list[Compaction]:
    """Compact the rows of closed months and the fields, and free what nothing needs.

    Writers and readers may be at work. Snapshots of cubes are never expired: their past stays.

    Parameters
    ----------
    today
        Months before the one of this day are closed.
    keep
        How long replaced rows and fields can still be read as of a time.
    older_than
        See `geofield.cube.upkeep.collect`.

    Raises
    ------
    ConfigurationError
        `keep` is negative or longer than a table remembers its files.
    LostRaceError
        Others kept replacing rows of closed months.
    """
    metadata = (run or Run()).metadata("compact", [])
    done = [_measured(location, "fields", partial(_compact_table, FieldRegistry(location).table, None, keep, metadata))]
    for box_id in box_ids:
        rows = Results(location, box_id).table
        done.append(_measured(location, rows.key, partial(_compact_table, rows, today, keep, metadata)))
        cube = Cube(location, box_id)
        done.append(_measured(location, cube.key, partial(_collect, cube, older_than)))
    return done


def closed_months(months: Sequence[str], today: dt.date) -> list[str]:
    """Those of `YYYY-MM` that are over."""
    return [month for month in months if month < f"{today:%Y-%m}"]


def _compact_table(table: Table, today: dt.date | None, keep: dt.timedelta, metadata: dict[str, object]) -> None:
    if today is None:
        table.compact(None, (), metadata)
    else:
        table.compact("month", closed_months(table.partitions(table.open(), "month"), today), metadata)
    table.free(keep)


def _collect(cube: Cube, older_than: dt.timedelta) -> None:
    try:
        _ = cube.repository
    except NotFoundError:  # a box whose cube is yet to be made
        return
    collect(cube, older_than)


def _measured(location: Location, key: str, work: Callable[[], None]) -> Compaction:
    before = location.list(key)
    work()
    after = location.list(key)
    return Compaction(key, len(before), sum(one.size for one in before), len(after), sum(one.size for one in after))
