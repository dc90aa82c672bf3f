"""Extending a cube by days, each on top of the day before it, and their rows right after."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from dask.base import compute
from dask.delayed import Delayed, delayed

from geofield.cube.attempt import Attempt, Fork, NewDay
from geofield.cube.cube import Cube, Head, to_date, to_day
from geofield.cube.view import read_digests
from geofield.errors import LostRaceError, MissingBandError, MissingDaysError
from geofield.pipeline.boxfields import BoxFields
from geofield.pipeline.days import DayInputs, day_inputs
from geofield.pipeline.layers import check_schema, row_values, statistics_of, value_columns
from geofield.pipeline.merging import MISSING_BANDS, lacking
from geofield.pipeline.run import Run
from geofield.pipeline.scenes import items_json, merge_orders
from geofield.pipeline.tasks import annotated, bound, task_key, unique
from geofield.pipeline.tile import Carry, Outcome, TileDay, TileJob, run_tile_day
from geofield.recipe.variables import check_recipe
from geofield.reduce.coverage import Coverage
from geofield.reduce.partial import combine
from geofield.results.rows import Numbers, Results, build_rows, row_schema
from geofield.source.protocol import Source

WINDOW = 8
"""Days of one attempt: so far the state passes from task to task in memory, and so much a lost worker costs."""

_TRIES = 5


@dataclass(frozen=True)
class AppendReport:
    """What an append did; it adds up.

    Attributes
    ----------
    days_appended, days_present
        Days that were published now; days that were there already from the same inputs.
    source_reads, source_bytes
        Counted where the pixels were read.
    cube_objects_written
        Shards that hold a value.
    incomplete
        Acquisitions that lack a band that the box needs, in words.
    """

    days_appended: int = 0
    days_present: int = 0
    source_reads: int = 0
    source_bytes: int = 0
    cube_objects_written: int = 0
    rows_written: int = 0
    tasks: int = 0
    incomplete: tuple[str, ...] = ()

    def __add__(self, other: AppendReport) -> AppendReport:
        return AppendReport(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def append_day(
    day: dt.date, source: Source, fields: BoxFields, cube: Cube, results: Results, run: Run | None = None
) -> AppendReport:
    """Append one day to a cube and write the rows of the fields. See `append_days`."""
    return append_days(day, day, source, fields, cube, results, run)


def append_days(
    start: dt.date,
    end: dt.date,
    source: Source,
    fields: BoxFields,
    cube: Cube,
    results: Results,
    run: Run | None = None,
    progress: Callable[[int], None] | None = None,
) -> AppendReport:
    """Append consecutive days to a cube, a window of a few days at a time.

    A window is published by one compare-and-swap, then its rows are committed. Work runs on Dask's active scheduler.
    Days that the cube holds already are left alone.

    Parameters
    ----------
    start, end
        Both included. `start` has to follow the cube's last day, or be the box's start.
    fields
        Those that get rows for these days.
    progress
        Called with the number of days that were just finished.

    Raises
    ------
    MissingDaysError
        Days before `start` are missing; they are named.
    LostRaceError
        Other writers kept publishing first.
    """
    run = run or Run()
    check_recipe(fields.box, source.bands())
    tell = progress or (lambda days: None)
    report = AppendReport()
    tries = 0
    head = cube.head()
    while todo := _missing_days(fields, head, start, end):
        check_schema(fields.box, cube)  # of every head: a box may be changed between two windows
        window = todo[:WINDOW]
        try:
            done, rows = _append_window(window, source, fields, cube, head, run, f"{run.id}-{window[0]}-{tries}")
        except LostRaceError:
            tries += 1
            if tries == _TRIES:
                raise
            head = cube.head()
            continue
        written = results.commit(rows, run.metadata("append", window), is_daily=True)
        report += replace(done, rows_written=written)
        tell(len(window))
        if len(window) == len(todo):
            break  # published: nobody has to be asked whether it is there
        head = cube.head()
    present = (end - start).days + 1 - report.days_appended
    tell(present)
    return replace(report, days_present=present)


def _missing_days(fields: BoxFields, head: Head, start: dt.date, end: dt.date) -> list[dt.date]:
    if not len(head.days) and start != fields.box.start:
        raise MissingDaysError(
            f"Box {fields.box.id} starts on {fields.box.start} and its cube is empty; {start} cannot be its first day. "
            f"Missing: {fields.box.start} to {start - dt.timedelta(days=1)}. Append those first."
            if start > fields.box.start
            else f"Box {fields.box.id} starts on {fields.box.start}; {start} is before that."
        )
    if len(head.days) and to_day(start) > int(head.days[-1]) + 1:
        raise MissingDaysError(
            f"Box {fields.box.id}: {start} cannot be appended, the day before it is not there. Missing: "
            f"{to_date(int(head.days[-1]) + 1)} to {start - dt.timedelta(days=1)}. Append those first."
        )
    first = int(head.days[-1]) + 1 if len(head.days) else to_day(start)
    return [to_date(day) for day in range(max(first, to_day(start)), to_day(end) + 1)]


def _append_window(
    dates: Sequence[dt.date],
    source: Source,
    fields: BoxFields,
    cube: Cube,
    head: Head,
    run: Run,
    name: str,
) -> tuple[AppendReport, pa.Table]:
    """Publish a window; what was done, and the rows that are to be committed."""
    before = _last_digests(cube, head)
    days = day_inputs(fields.box, fields.grid, source, dates, before)
    if not head.acquired.any():
        _check_bands(source, days, fields)
    active = np.flatnonzero(fields.active(dates).any(axis=0))
    chosen = fields.take(active)
    attempt = Attempt(cube, head.snapshot)
    attempt.grow([NewDay(one.day, one.acquired, one.digests) for one in days])
    outcomes, writers, tasks = _run_window(attempt, days, source, chosen, cube, head, name)
    items = [
        items_json(one.acquisitions, [found.counts for found in outcomes.get(step, [])])
        for step, one in enumerate(days, attempt.first_step)
    ]
    message = f"append {dates[0]}" + (f" to {dates[-1]}" if len(dates) > 1 else "")
    attempt.publish(attempt.write(writers, items, message, run.metadata("append", dates)))
    rows = _rows(days, outcomes, attempt.first_step, chosen)
    every = [outcome for found in outcomes.values() for outcome in found]
    report = AppendReport(
        days_appended=len(days),
        source_reads=sum(one.source_reads for one in every),
        source_bytes=sum(one.source_bytes for one in every),
        cube_objects_written=sum(one.shards for one in every),
        tasks=tasks,
        incomplete=tuple(text for one in days for text in lacking(one.acquisitions)),
    )
    return report, rows


def _check_bands(source: Source, days: Sequence[DayInputs], fields: BoxFields) -> None:
    """`MissingBandError` where none of the first acquisitions has all bands: then the box is wrong, not the day."""
    every = [one for day in days for one in day.acquisitions]
    if every and all(one.properties.get(MISSING_BANDS) for one in every):
        source.read(every[0], every[0].properties[MISSING_BANDS], fields.grid.geobox[:1, :1])
        told = lacking(every)[0]
        raise MissingBandError(f"No acquisition of {days[0].date} to {days[-1].date} has all bands: {told}.")


def _last_digests(cube: Cube, head: Head) -> npt.NDArray[np.uint64] | None:
    if not len(head.days):
        return None
    last: npt.NDArray[np.uint64] = read_digests(cube.arrays(head.snapshot), slice(-1, None))[0]
    return last


def _run_window(
    attempt: Attempt,
    days: Sequence[DayInputs],
    source: Source,
    fields: BoxFields,
    cube: Cube,
    head: Head,
    name: str,
) -> tuple[dict[int, list[Outcome]], list[Any], int]:
    """step -> outcomes of its tiles; what was written through; how many tasks it took."""
    grid, box, name = fields.grid, fields.box, unique(name)
    fork = attempt.fork()
    jobs: dict[tuple[int, int], tuple[TileJob, list[TileDay]]] = {}
    for tile in grid.tiles():
        job = TileJob(box, cube.schema, source, grid.tile_window(*tile), _last_acquired(head))
        jobs[tile] = (
            job,
            [
                TileDay(step, one.day, one.date, one.acquired, one.tiles[tile])
                for step, one in enumerate(days, attempt.first_step)
            ],
        )
    with annotated("append", box.id, name):
        ranks, counted = merge_orders(jobs, days, name)
        every = [
            _chain(job, tile_days, fork, _cover_in(fields.cover, job), ranks, tile, name)
            for tile, (job, tile_days) in jobs.items()
        ]
    chains = [chain for chain in every if chain is not None]
    carries: list[Carry]
    carries, extra = compute(chains, counted)
    outcomes: dict[int, list[Outcome]] = {}
    for carry in carries:
        for outcome in carry.outcomes:
            outcomes.setdefault(outcome.step, []).append(outcome)
    for step, parts in zip([attempt.first_step] * len(extra), extra, strict=True):
        reads, size = sum(part[1] for part in parts), sum(part[2] for part in parts)
        outcomes.setdefault(step, []).append(Outcome(step, None, {}, reads, size, 0))
    tasks = sum(len(carry.outcomes) for carry in carries) + sum(len(parts) for parts in extra)
    return outcomes, [carry.writer for carry in carries], tasks


def _last_acquired(head: Head) -> tuple[int, int] | None:
    steps = np.flatnonzero(head.acquired)
    return (int(steps[-1]), int(head.days[steps[-1]])) if len(steps) else None


def _cover_in(cover: Coverage, job: TileJob) -> Coverage | None:
    part = cover.within(job.window)
    return part if len(part.segment_block) else None


def _chain(
    job: TileJob,
    days: Sequence[TileDay],
    fork: Fork,
    cover: Coverage | None,
    ranks: Mapping[dt.date, Delayed],
    tile: tuple[int, int],
    name: str,
) -> Delayed | None:
    """One task per day that has something to do, each fed by the one before it."""
    work = [day for day in days if day.acquired or cover is not None]
    where = f"tile {tile[0]},{tile[1]}"
    carry: Any = fork
    shared = None
    if cover is not None:
        shared = delayed(cover, pure=False, traverse=False, name=task_key("weights", job.box.id, None, where, name))
    for day in work:
        key = task_key("append", job.box.id, day.date, where, name)
        task = bound(run_tile_day, job, day, is_last=day is work[-1])
        carry = task(carry, shared, ranks.get(day.date), dask_key_name=key)
    return carry if work else None


def _rows(
    days: Sequence[DayInputs],
    outcomes: Mapping[int, Sequence[Outcome]],
    first_step: int,
    fields: BoxFields,
) -> pa.Table:
    if not len(fields):
        return row_schema(value_columns(fields.box)).empty_table()
    dates = [one.date for one in days]
    stats = statistics_of(fields.box)
    by_day = [
        combine([found.partial for found in outcomes.get(step, ()) if found.partial is not None], fields.cover, stats)
        for step in range(first_step, first_step + len(days))
    ]
    combined = {name: np.concatenate([one[name] for one in by_day]) for name in by_day[0]}
    numbers = Numbers(
        dates,
        np.array([one.acquired for one in days], dtype=np.bool_),
        np.arange(len(fields)),
        fields.active(dates),
        row_values(fields.box, combined, fields.cover.total),
        fields.digests(np.stack([one.digests for one in days])),
    )
    return build_rows(fields.box.id, fields.columns, numbers, value_columns(fields.box))
