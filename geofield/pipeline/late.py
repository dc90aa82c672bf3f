"""Rows from a stored cube: for late fields, and for days whose rows a crash left out. No source, no box task.

The weights, the blocks and the kernel are those of the daily path, on the same stored integers, so the numbers are
the same to the last bit.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from dask.base import compute
from dask.delayed import delayed

from geofield.cube.cube import Cube, Head, to_date
from geofield.cube.view import read_digests
from geofield.errors import NotFoundError
from geofield.pipeline.boxfields import BoxFields
from geofield.pipeline.layers import check_schema, row_values, value_columns
from geofield.pipeline.run import Run
from geofield.pipeline.stored import StoredPart, day_batches, field_groups, joined, reduce_stored
from geofield.pipeline.tasks import annotated, bound, task_key, unique
from geofield.results.rows import Numbers, Results, build_rows, row_schema

_FEW = 4  # pieces of work that are cheaper to do here than to send to a scheduler
_THREADS = min(4, os.cpu_count() or 1)  # of work that is done here; a scheduler's task keeps to one


@dataclass(frozen=True)
class LateReport:
    """What a fill from the stored cube did; it adds up.

    Attributes
    ----------
    source_reads, box_tasks
        Counted where the reading happens. They are 0.
    cube_bytes_read, cube_requests
        Fetched of the cube's shards: bytes as they are stored, and how often something was asked for.
    """

    fields: int = 0
    field_days: int = 0
    source_reads: int = 0
    box_tasks: int = 0
    cube_bytes_read: int = 0
    rows_written: int = 0
    cube_requests: int = 0

    def __add__(self, other: LateReport) -> LateReport:
        return LateReport(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def fill_late_fields(
    fields: BoxFields,
    cube: Cube,
    results: Results,
    run: Run | None = None,
    progress: Callable[[int], None] | None = None,
) -> LateReport:
    """Give fields all their past days from the stored cube, in one commit.

    Parameters
    ----------
    fields
        Those to fill: each from its first day to the cube's last.
    progress
        Called with the number of fields just done.

    Notes
    -----
    There is no source to read from: nothing of the cube is recomputed, and nothing of it changes.
    """
    run = run or Run()
    head = cube.head()
    if not len(head.days) or not len(fields):
        return LateReport()
    return _fill(fields, slice(0, len(head.days)), head, cube, results, run, "late", progress)


def reduce_days(
    start: dt.date, end: dt.date, fields: BoxFields, cube: Cube, results: Results, run: Run | None = None
) -> LateReport:
    """Write the rows of some days again from the stored cube: what a crash between cube and rows left out."""
    run = run or Run()
    head = cube.head()
    steps = slice(head.step(start), head.step(end) + 1)
    return _fill(fields, steps, head, cube, results, run, "reduce", None)


def refresh_rows(
    fields: BoxFields, cube: Cube, results: Results, run: Run | None = None, kind: str = "reduce"
) -> LateReport:
    """Write every row that is missing or not current, from the stored cube, in one commit."""
    if not len(fields):
        return LateReport()
    run, head = run or Run(), cube.head()
    lacking = _missing_rows(fields, cube, head, results)
    if lacking.empty:
        return LateReport()
    whole = lacking[lacking["surplus"] > 0]
    if len(whole) or not len(head.days):
        steps = slice(0, len(head.days))
    else:
        steps = slice(head.step(lacking["first"].min()), head.step(lacking["last"].max()) + 1)
    return _fill(fields.take(lacking["number"].to_numpy()), steps, head, cube, results, run, kind, None)


def computed_rows(fields: BoxFields, cube: Cube, head: Head) -> pa.Table:
    """The rows of fields on every day of a published state, computed from the stored cube; nothing is written."""
    check_schema(fields.box, cube)
    steps = slice(0, len(head.days))
    dates = [to_date(day) for day in head.days]
    digests = read_digests(cube.arrays(head.snapshot))
    tables = [
        _rows(fields.take(numbers), dates, head.acquired, part, digests)
        for numbers, part in _parts(fields, steps, head, cube, "reduce", Run())
    ]
    return pa.concat_tables(tables) if tables else row_schema(value_columns(fields.box)).empty_table()


def missing_rows(fields: BoxFields, cube: Cube, results: Results) -> pd.DataFrame:
    """Fields that lack a row, or have one that is not current: what should exist against what exists.

    Returns
    -------
    One line per such field: `number` (in `fields`), `field_id`, `days` (how many rows are missing or not current),
    `first` and `last` of them, and `surplus` (rows before planting, after harvest or of another version).
    """
    return _missing_rows(fields, cube, cube.head(), results)


def _missing_rows(fields: BoxFields, cube: Cube, head: Head, results: Results) -> pd.DataFrame:
    dates = [to_date(day) for day in head.days]
    wanted = fields.active(dates) if dates else np.zeros((0, len(fields)), dtype=bool)
    digests = fields.digests(read_digests(cube.arrays(head.snapshot))) if dates else np.empty((0, len(fields)), object)
    try:
        present = results.read(columns=["field_id", "field_version", "date", "digest"])
    except NotFoundError:
        present = pd.DataFrame(columns=["field_id", "field_version", "date", "digest"])
    current, surplus = _standing(fields, head, wanted, digests, present)
    lacking = wanted & ~current
    numbers = np.flatnonzero(lacking.any(axis=0) | (surplus > 0))
    rows = []
    for number in numbers.tolist():
        steps = np.flatnonzero(lacking[:, number])
        first, last = (dates[steps[0]], dates[steps[-1]]) if len(steps) else (None, None)
        rows.append((number, fields.columns.ids[number], len(steps), first, last, int(surplus[number])))
    return pd.DataFrame(rows, columns=["number", "field_id", "days", "first", "last", "surplus"])


def _standing(
    fields: BoxFields,
    head: Head,
    wanted: npt.NDArray[np.bool_],
    digests: npt.NDArray[np.object_],
    present: pd.DataFrame,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """(time, field) whether the row is current; (field,) how many rows should not be there."""
    current = np.zeros(wanted.shape, dtype=bool)
    surplus = np.zeros(len(fields), dtype=np.int64)
    number = present["field_id"].map({name: i for i, name in enumerate(fields.columns.ids)})
    known = present[number.notna()]
    place = number[number.notna()].astype(np.int64).to_numpy()
    if not len(known):
        return current, surplus
    step = (known["date"].to_numpy(dtype="datetime64[D]").astype(np.int64) - head.days[0]).astype(np.int64)
    same = known["field_version"].to_numpy() == np.array(fields.columns.versions, dtype=object)[place]
    inside = (step >= 0) & (step < len(head.days))
    belongs = same & inside
    belongs[inside] &= wanted[step[inside], place[inside]]
    np.add.at(surplus, place[~belongs], 1)
    good = belongs.copy()
    good[belongs] = known["digest"].to_numpy()[belongs] == digests[step[belongs], place[belongs]]
    current[step[good], place[good]] = True
    return current, surplus


# --- the work --------------------------------------------------------------------------------------------------------


def _fill(
    fields: BoxFields,
    steps: slice,
    head: Head,
    cube: Cube,
    results: Results,
    run: Run,
    kind: str,
    progress: Callable[[int], None] | None,
) -> LateReport:
    check_schema(fields.box, cube)
    dates = [to_date(day) for day in head.days[steps]]
    tile_digests = read_digests(cube.arrays(head.snapshot), steps)
    tables: list[pa.Table] = []
    report = LateReport()
    for numbers, part in _parts(fields, steps, head, cube, kind, run):
        group = fields.take(numbers)
        rows = _rows(group, dates, head.acquired[steps], part, tile_digests)
        tables.append(rows)
        report += LateReport(
            fields=len(numbers),
            field_days=rows.num_rows,
            source_reads=part.source_reads,
            box_tasks=part.box_tasks,
            cube_bytes_read=part.cube_bytes,
            cube_requests=part.cube_requests,
        )
        if progress is not None:
            progress(len(numbers))
    if not tables:
        return report
    written = results.commit(pa.concat_tables(tables), run.metadata(kind, dates), since=to_date(head.days[0]))
    return report + LateReport(rows_written=written)


def _rows(
    fields: BoxFields,
    dates: Sequence[dt.date],
    acquired: npt.NDArray[np.bool_],
    part: StoredPart,
    tile_digests: npt.NDArray[np.uint64],
) -> pa.Table:
    numbers = Numbers(
        dates,
        acquired,
        np.arange(len(fields)),
        fields.active(dates),
        row_values(fields.box, part.values, fields.cover.total),
        fields.digests(tile_digests),
    )
    return build_rows(fields.box.id, fields.columns, numbers, value_columns(fields.box))


def _parts(
    fields: BoxFields, steps: slice, head: Head, cube: Cube, kind: str, run: Run
) -> Iterator[tuple[npt.NDArray[np.int64], StoredPart]]:
    """Fields with their values: here while it is little work, on Dask's active scheduler when it is much."""
    work = []
    for numbers in field_groups(fields.cover, fields.grid, int(head.acquired[steps].sum())):
        cover = fields.cover.take(numbers)
        work.append((numbers, cover, day_batches(cover.pixels, head, steps)))
    if sum(len(batches) for _, _, batches in work) <= _FEW:
        for numbers, cover, batches in work:
            parts = [reduce_stored(cube, head, days, fields.box, cover, threads=_THREADS) for days in batches]
            yield numbers, joined(parts)
        return
    tasks = []
    box, attempt = fields.box, unique(run.id)
    with annotated(kind, box.id, run.id):
        for group, (_, cover, batches) in enumerate(work):
            where = f"fields {group + 1} of {len(work)}"
            shared = delayed(cover, pure=False, traverse=False, name=task_key("weights", box.id, None, where, attempt))
            tasks.append(
                [
                    bound(reduce_stored, cube, head, days, box)(
                        shared, dask_key_name=task_key(kind, box.id, to_date(head.days[days.start]), where, attempt)
                    )
                    for days in batches
                ]
            )
    for (numbers, _, _), parts in zip(work, compute(*tasks), strict=True):
        yield numbers, joined(parts)
