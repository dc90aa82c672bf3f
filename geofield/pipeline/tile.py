"""One tile of one day: read the source, derive, advance the state, write the shards, reduce the fields.

This is the unit of work that Dask sees. A window of days is a chain of such tasks for each tile; the state passes
from one to the next in memory.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np

from geofield.boxes import Box
from geofield.cube.arrays import Arrays, Writer
from geofield.cube.attempt import Fork, writer_of
from geofield.cube.failures import answering
from geofield.cube.schema import Schema
from geofield.cube.tiles import read_tile, write_tile
from geofield.encoding import IntArray
from geofield.grid import Window
from geofield.pipeline.layers import observation_layer, state_layers, statistics_of
from geofield.pipeline.merging import MISSING_BANDS
from geofield.recipe.state import State, advance, never_seen, noise
from geofield.recipe.variables import count_valid, encoding_of, median, merge, needed_bands, observe
from geofield.reduce.coverage import Coverage
from geofield.reduce.layer import Layer
from geofield.reduce.partial import Partial, reduce_window
from geofield.source.counters import counting
from geofield.source.protocol import Acquisition, Source

Counts = Mapping[str, Mapping[str, int]]
"""variable -> acquisition id -> valid pixels."""


@dataclass(frozen=True)
class TileJob:
    """What every task of a tile needs.

    Attributes
    ----------
    window
        The tile's pixels.
    last_acquired
        (step, day) of the last acquisition that the cube holds, None when there is none.
    """

    box: Box
    schema: Schema
    source: Source
    window: Window
    last_acquired: tuple[int, int] | None


@dataclass(frozen=True)
class TileDay:
    """One day of a tile: its step in the cube, and the acquisitions that touch the tile."""

    step: int
    day: int
    date: dt.date
    acquired: bool
    acquisitions: tuple[Acquisition, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of a tile's day. `counts` are valid pixels by variable and acquisition."""

    step: int
    partial: Partial | None
    counts: Counts
    source_reads: int
    source_bytes: int
    shards: int


@dataclass
class Carry:
    """What one day hands to the next: what was written through, the state, the outcomes so far."""

    writer: Writer
    states: dict[str, State] | None = None
    outcomes: list[Outcome] = field(default_factory=list)


def count_tile(job: TileJob, day: TileDay) -> tuple[Counts, int, int]:
    """Valid pixels of each acquisition by itself, reads and bytes: what the order of merging is decided by."""
    with counting() as counter:
        counts, _ = observe_day(job, day)
        return counts, counter.reads, counter.bytes


def rank(
    acquisitions: Sequence[Acquisition], parts: Sequence[tuple[Counts, int, int]], known: Counts
) -> dict[str, tuple[str, ...]]:
    """variable -> acquisition ids in the order in which they are merged: most valid pixels of the box, then time."""
    order = {one.id: number for number, one in enumerate(acquisitions)}
    totals: dict[str, dict[str, int]] = {}
    for counts in (known, *(part[0] for part in parts)):
        for variable, by_id in counts.items():
            sums = totals.setdefault(variable, dict.fromkeys(order, 0))
            for one, count in by_id.items():
                sums[one] += count
    return {name: tuple(sorted(sums, key=lambda one: (-sums[one], order[one]))) for name, sums in totals.items()}


_counted: ContextVar[list[str] | None] = ContextVar("counted", default=None)


@contextlib.contextmanager
def counting_tasks() -> Iterator[list[str]]:
    """Names of the tile tasks that this thread runs meanwhile: receipts of late fields show that there are none."""
    names: list[str] = []
    token = _counted.set(names)
    try:
        yield names
    finally:
        _counted.reset(token)


@answering("write a tile")
def run_tile_day(
    job: TileJob,
    day: TileDay,
    before: Carry | Fork | bytes,
    cover: Coverage | None,
    ranks: Mapping[str, tuple[str, ...]] | None,
    is_last: bool,
) -> Carry:
    """One task.

    Parameters
    ----------
    before
        What the day before handed over; for the first day of a window a fork of the attempt.
    cover
        The fields' weights in the tile, None when no field touches it.
    ranks
        Order of merging by variable, when there are several acquisitions.
    is_last
        The state is dropped: nobody asks for it in memory any more.
    """
    names = _counted.get()
    if names is not None:
        names.append(f"{job.box.id} {day.date}")
    carry = before if isinstance(before, Carry) else Carry(writer_of(before))
    arrays = carry.writer.arrays
    states = carry.states
    if states is None and (day.acquired or cover is not None):
        states = load_states(job, arrays)
    counts: Counts = {}
    observed: dict[str, IntArray] = {}
    shards = 0
    with counting() as counter:
        if day.acquired:
            counts, layers = observe_day(job, day)
            observed = {name: merged(job.box, name, job.window, layers, ranks) for name in job.box.variables}
            assert states is not None
            states = advanced(job.box, states, observed, day.day)
            shards = _write(job, arrays, day.step, observed, states)
        partial = None
        if cover is not None:
            partial = reduce_window(
                _layers(job, day, observed, states or {}), job.window, cover, statistics_of(job.box)
            )
        outcome = Outcome(day.step, partial, counts, counter.reads, counter.bytes, shards)
    return Carry(carry.writer, None if is_last else states, [*carry.outcomes, outcome])


def observe_day(job: TileJob, day: TileDay) -> tuple[Counts, dict[str, dict[str, IntArray]]]:
    """Counts, and variable -> acquisition id -> stored integers."""
    geobox = job.schema.grid.window_geobox(job.window)
    bands = needed_bands(job.box.variables, job.source.bands())
    layers: dict[str, dict[str, IntArray]] = {name: {} for name in job.box.variables}
    counts: dict[str, dict[str, int]] = {name: {} for name in job.box.variables}
    for one in day.acquisitions:
        lacking = one.properties.get(MISSING_BANDS, ())
        there = [band for band in bands if band not in lacking]
        values = job.source.read(one, there, geobox) if there else {}
        values |= {band: np.full(job.window.shape, np.nan) for band in bands if band in lacking}
        for name, variable in job.box.variables.items():
            layers[name][one.id] = observe(variable, values)
            counts[name][one.id] = count_valid(encoding_of(variable), layers[name][one.id])
    return counts, layers


def merged(
    box: Box,
    name: str,
    window: Window,
    layers: Mapping[str, Mapping[str, IntArray]],
    ranks: Mapping[str, tuple[str, ...]] | None,
) -> IntArray:
    """One variable of a day from its acquisitions: fill everywhere when none of them touches the tile."""
    encoding = encoding_of(box.variables[name])
    found = layers[name]
    if not found:  # imagery came, but not for this tile
        return np.full(window.shape, encoding.fill, encoding.dtype)
    if box.merge == "median":
        return median(encoding, list(found.values()))
    order = [one for one in ranks[name] if one in found] if ranks is not None else list(found)
    return merge(encoding, [found[one] for one in order])


def load_states(job: TileJob, arrays: Arrays) -> dict[str, State]:
    """The state after the last acquisition that the cube holds before the job's days."""
    states = {}
    for name, variable in job.box.variables.items():
        if not variable.state:
            continue
        if job.last_acquired is None:
            states[name] = never_seen(encoding_of(variable), job.window.shape, 0)
            continue
        step, day = job.last_acquired
        names = {role: spec.name for role, spec in job.schema.of(name).items()}
        raw = read_tile(arrays, [names[role] for role in ("filled", "sigma0", "age")], step, job.window)
        states[name] = State(raw[names["filled"]], raw[names["sigma0"]], raw[names["age"]], day)
    return states


def advanced(box: Box, states: Mapping[str, State], observed: Mapping[str, IntArray], day: int) -> dict[str, State]:
    """The states of all variables after one day's observations."""
    return {
        name: advance(state, observed[name], encoding_of(box.variables[name]), *noise(box.variables[name]), day)
        for name, state in states.items()
    }


def day_arrays(job: TileJob, observed: Mapping[str, IntArray], states: Mapping[str, State]) -> dict[str, IntArray]:
    """Array name -> (y, x), what is stored of a tile of a day with an acquisition."""
    return {
        spec.name: observed[spec.variable] if spec.role == "observation" else getattr(states[spec.variable], spec.role)
        for spec in job.schema.arrays
    }


def _write(
    job: TileJob, arrays: Arrays, step: int, observed: Mapping[str, IntArray], states: Mapping[str, State]
) -> int:
    values = day_arrays(job, observed, states)
    write_tile(arrays, values, step, job.window)
    return sum(bool((values[spec.name] != spec.encoding.fill).any()) for spec in job.schema.arrays)


def _layers(
    job: TileJob, day: TileDay, observed: Mapping[str, IntArray], states: Mapping[str, State]
) -> dict[str, Layer]:
    layers: dict[str, Layer] = {}
    for name, variable in job.box.variables.items():
        encoding = encoding_of(variable)
        own = observed[name] if day.acquired else np.full(job.window.shape, encoding.fill, encoding.dtype)
        layers |= observation_layer(name, variable, own[None])
        if variable.state:
            state = states[name]
            stacked = State(state.filled[None], state.sigma0[None], state.age[None], state.day)
            layers |= state_layers(name, variable, stacked, np.array([day.day - state.day]))
    return layers
