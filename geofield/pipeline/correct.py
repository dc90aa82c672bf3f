"""Corrections: what a late, reprocessed or withdrawn scene changes, found by comparing digests.

Only the shards of tiles and days whose digests differ are looked at, and only those whose numbers differ are written.
Days whose own acquisitions did not change are not read from the source again: the state is carried on over the stored
observations. All days of the chain become visible at once; then the rows whose digest is no longer the cube's are
replaced.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.base import compute
from dask.delayed import Delayed

from geofield.cube.arrays import Arrays, Writer
from geofield.cube.attempt import Amendment, Attempt, Fork, writer_of
from geofield.cube.cube import Cube, Head, to_date, to_day
from geofield.cube.failures import answering
from geofield.cube.tiles import read_tile, write_tile
from geofield.cube.view import read_digests, read_items
from geofield.encoding import IntArray
from geofield.errors import LostRaceError
from geofield.pipeline.boxfields import BoxFields
from geofield.pipeline.days import DayInputs, day_inputs
from geofield.pipeline.late import refresh_rows
from geofield.pipeline.layers import check_schema
from geofield.pipeline.run import Run
from geofield.pipeline.scenes import items_json, merge_orders, remembered_counts
from geofield.pipeline.tasks import annotated, bound, task_key, unique
from geofield.pipeline.tile import Counts, TileDay, TileJob, advanced, day_arrays, load_states, merged, observe_day
from geofield.recipe.digest import recipe_digest, tile_digest
from geofield.recipe.state import State
from geofield.source.counters import counting
from geofield.source.protocol import Source

_TRIES = 5


@dataclass(frozen=True)
class CorrectionReport:
    """What a correction did.

    Attributes
    ----------
    days_amended
        Days of which some tile was made from other inputs than before.
    cube_objects_written
        Shards that were written or removed.
    """

    days_amended: int = 0
    source_reads: int = 0
    source_bytes: int = 0
    cube_objects_written: int = 0
    rows_written: int = 0
    tasks: int = 0


@dataclass(frozen=True)
class _Day:
    """One day of a tile in a correction: `reread` when its own acquisitions changed; `was_acquired` before."""

    tile: TileDay
    reread: bool
    was_acquired: bool


@dataclass
class _Carry:
    """What one day hands to the next. `states` is None while the state is what is stored."""

    writer: Writer
    states: dict[str, State] | None = None
    counts: dict[int, Counts] = field(default_factory=dict)
    reads: int = 0
    bytes: int = 0
    shards: int = 0


@dataclass(frozen=True)
class _Comparison:
    """What stands in the cube against what the source says now, from `first` to the cube's last step."""

    first: int
    days: list[DayInputs]
    changed: npt.NDArray[np.bool_]
    """(time, tile_y, tile_x) whether the digest differs."""
    reread: npt.NDArray[np.bool_]
    """(time, tile_y, tile_x) whether the tile's own acquisitions of that day differ."""


def correct_days(
    start: dt.date, source: Source, fields: BoxFields, cube: Cube, results: Any, run: Run | None = None
) -> CorrectionReport:
    """Bring the days from `start` to the cube's last up to date with what the source says now.

    Nothing happens when no digest differs. Otherwise one attempt amends every day of the chain, is published by one
    compare-and-swap, and the rows of the fields that touch a changed tile are replaced.

    Raises
    ------
    LostRaceError
        Other writers kept publishing first.
    """
    run = run or Run()
    for number in range(_TRIES):
        head = cube.head()
        check_schema(fields.box, cube)
        if not len(head.days) or to_day(start) > int(head.days[-1]):
            return CorrectionReport()
        comparison = _compare(max(start, to_date(head.days[0])), source, fields, cube, head)
        if not comparison.changed.any():
            return CorrectionReport()
        try:
            return _amend(comparison, source, fields, cube, head, results, run, f"{run.id}-correct-{number}")
        except LostRaceError:
            if number == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def changed_days(start: dt.date, source: Source, fields: BoxFields, cube: Cube) -> list[dt.date]:
    """The days that `correct_days` would amend; reads no pixel and changes nothing."""
    head = cube.head()
    if not len(head.days) or to_day(start) > int(head.days[-1]):
        return []
    comparison = _compare(max(start, to_date(head.days[0])), source, fields, cube, head)
    some = np.flatnonzero(comparison.changed.any(axis=(1, 2)))
    return [comparison.days[number].date for number in some.tolist()]


def _compare(start: dt.date, source: Source, fields: BoxFields, cube: Cube, head: Head) -> _Comparison:
    box, grid = fields.box, fields.grid
    first = head.step(start)
    stored = read_digests(cube.arrays(head.snapshot), slice(max(first - 1, 0), None))
    before = stored[0] if first else None
    stored = stored[1:] if first else stored
    dates = [to_date(day) for day in head.days[first:]]
    days = day_inputs(box, grid, source, dates, before)
    changed = np.stack([day.digests for day in days]) != stored
    recipe = recipe_digest(box, grid)
    stateful = any(variable.state for variable in box.variables.values())
    reread = np.zeros_like(changed)
    for number, tile_y, tile_x in np.argwhere(changed).tolist():
        day = days[number]
        items = [(one.id, one.version) for one in day.tiles[tile_y, tile_x]]
        earlier = stored[number - 1] if number else before
        own = int(earlier[tile_y, tile_x]) if stateful and earlier is not None else None
        reread[number, tile_y, tile_x] = tile_digest(recipe, day.acquired, items, own) != stored[number, tile_y, tile_x]
    return _Comparison(first, days, changed, reread)


def _amend(
    comparison: _Comparison,
    source: Source,
    fields: BoxFields,
    cube: Cube,
    head: Head,
    results: Any,
    run: Run,
    name: str,
) -> CorrectionReport:
    some = np.flatnonzero(comparison.changed.any(axis=(1, 2)))
    days = comparison.days[some[0] :]
    first = comparison.first + int(some[0])
    items = read_items(cube.arrays(head.snapshot), slice(comparison.first, None))
    attempt = Attempt(cube, head.snapshot)
    attempt.begin()
    carries, tasks, extra = _run_chains(attempt, comparison, items, source, fields, cube, head, name)
    amendments = _amendments(comparison, int(some[0]), items, carries)
    dates = [day.date for day in days]
    message = f"correct {dates[0]} to {dates[-1]}"
    metadata = {**run.metadata("correct", dates), "amended": [str(comparison.days[i].date) for i in some]}
    attempt.publish(attempt.amend([carry.writer for carry in carries], first, amendments, message, metadata))
    rows = refresh_rows(fields, cube, results, run, "correct")
    return CorrectionReport(
        days_amended=len(some),
        source_reads=sum(carry.reads for carry in carries) + sum(part[1] for part in extra),
        source_bytes=sum(carry.bytes for carry in carries) + sum(part[2] for part in extra),
        cube_objects_written=sum(carry.shards for carry in carries),
        rows_written=rows.rows_written,
        tasks=tasks,
    )


def _amendments(
    comparison: _Comparison, skip: int, stored: Sequence[str], carries: Sequence[_Carry]
) -> list[Amendment]:
    result = []
    for number, day in enumerate(comparison.days[skip:], skip):
        step = comparison.first + number
        items = stored[number]
        if comparison.reread[number].any():
            known = remembered_counts(items, day.acquisitions)
            parts = [carry.counts[step] for carry in carries if step in carry.counts]
            items = items_json(day.acquisitions, parts, known)
        result.append(Amendment(day.acquired, day.digests, items))
    return result


def _run_chains(
    attempt: Attempt,
    comparison: _Comparison,
    stored: Sequence[str],
    source: Source,
    fields: BoxFields,
    cube: Cube,
    head: Head,
    name: str,
) -> tuple[list[_Carry], int, list[tuple[Counts, int, int]]]:
    grid, box = fields.grid, fields.box
    name = unique(name)
    fork = attempt.fork()
    jobs: dict[tuple[int, int], tuple[TileJob, list[TileDay]]] = {}
    for tile in grid.tiles():
        changed = np.flatnonzero(comparison.changed[:, *tile])
        first = comparison.first + int(changed[0]) if len(changed) else len(head.days)
        job = TileJob(box, cube.schema, source, grid.tile_window(*tile), _acquired_before(head, first))
        jobs[tile] = (
            job,
            [
                TileDay(step, one.day, one.date, one.acquired, one.tiles[tile])
                for step, one in enumerate(comparison.days, comparison.first)
            ],
        )
    known = {
        day.date: remembered_counts(items, day.acquisitions) for day, items in zip(comparison.days, stored, strict=True)
    }
    again = [day if comparison.reread[number].any() else _without(day) for number, day in enumerate(comparison.days)]
    chains = []
    with annotated("correct", box.id, name):
        orders, counted = merge_orders(jobs, again, name, known)
        for tile, (job, tile_days) in jobs.items():
            work = [
                _Day(day, bool(comparison.reread[number, *tile]), bool(head.acquired[day.step]))
                for number, day in enumerate(tile_days)
                if comparison.changed[number, *tile]
            ]
            if work:
                chains.append(_chain(job, work, fork, orders, tile, name))
    carries, parts = compute(chains, counted)
    extra = [part for day in parts for part in day]
    return carries, sum(len(comparison.changed[:, *tile].nonzero()[0]) for tile in jobs) + len(extra), extra


def _without(day: DayInputs) -> DayInputs:
    return replace(day, acquisitions=(), tiles={})


def _acquired_before(head: Head, step: int) -> tuple[int, int] | None:
    steps = np.flatnonzero(head.acquired[:step])
    return (int(steps[-1]), int(head.days[steps[-1]])) if len(steps) else None


def _chain(
    job: TileJob,
    work: Sequence[_Day],
    fork: Fork,
    orders: Mapping[dt.date, Delayed],
    tile: tuple[int, int],
    name: str,
) -> Any:
    carry: Any = fork
    for day in work:
        key = task_key("correct", job.box.id, day.tile.date, f"tile {tile[0]},{tile[1]}", name)
        task = bound(correct_tile_day, job, day, is_last=day is work[-1])
        carry = task(carry, orders.get(day.tile.date), dask_key_name=key)
    return carry


@answering("correct a tile")
def correct_tile_day(
    job: TileJob, day: _Day, before: _Carry | Fork | bytes, order: Mapping[str, tuple[str, ...]] | None, is_last: bool
) -> _Carry:
    """One task: a tile of a day whose digest differs."""
    carry = before if isinstance(before, _Carry) else _Carry(writer_of(before))
    arrays = carry.writer.arrays
    states = carry.states if carry.states is not None else load_states(job, arrays)
    counts = dict(carry.counts)
    with counting() as counter:
        stored = _stored(job, arrays, day.tile.step) if day.was_acquired else {}
        new: dict[str, IntArray] = {}
        if day.tile.acquired:
            if day.reread:
                counts[day.tile.step], layers = observe_day(job, day.tile)
                observed = {name: merged(job.box, name, job.window, layers, order) for name in job.box.variables}
            else:
                observed = {name: stored[name] for name in job.box.variables}
            states = advanced(job.box, states, observed, day.tile.day)
            new = day_arrays(job, observed, states)
        shards = _write_changed(job, arrays, day.tile.step, stored, new)
    return _Carry(
        carry.writer,
        None if is_last else states,
        counts,
        carry.reads + counter.reads,
        carry.bytes + counter.bytes,
        carry.shards + shards,
    )


def _stored(job: TileJob, arrays: Arrays, step: int) -> dict[str, IntArray]:
    return read_tile(arrays, [spec.name for spec in job.schema.arrays], step, job.window)


def _write_changed(
    job: TileJob, arrays: Arrays, step: int, stored: Mapping[str, IntArray], new: Mapping[str, IntArray]
) -> int:
    """Write the shards whose numbers differ; a shard of fill alone is removed. How many there were."""
    changed = {}
    for spec in job.schema.arrays:
        empty = np.full(job.window.shape, spec.encoding.fill, spec.encoding.dtype)
        value, standing = new.get(spec.name, empty), stored.get(spec.name, empty)
        if not np.array_equal(value, standing):
            changed[spec.name] = value
    write_tile(arrays, changed, step, job.window)
    return len(changed)
