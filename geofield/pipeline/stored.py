"""Statistics of fields from the stored cube: what is read together, and what is made of it.

Only the pixels of the fields are kept, only on the steps that hold something: an observation on days with imagery, a
state on the day it was last advanced. On the days between, the estimate is what it was, and its error and age grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from geofield.boxes import Box
from geofield.cube.cube import Cube, Head
from geofield.cube.pixels import Fetched, read_pixels
from geofield.encoding import AGE, IntArray
from geofield.grid import BLOCK, Grid, Window
from geofield.pipeline.layers import observation_layer, statistics_of
from geofield.pipeline.tile import counting_tasks
from geofield.recipe.state import grown, noise
from geofield.recipe.variables import encoding_of
from geofield.reduce.coverage import Coverage
from geofield.reduce.layer import Layer
from geofield.reduce.partial import Partial, combine, reduce_pixels
from geofield.source.counters import counting

PIXEL_STEPS = 4_000_000
"""Pixels times stored steps held at once: 32 MB of integers for a variable with state, 64 MB decoded."""
PIXEL_DAYS = 250_000
"""Pixels times days for which errors and ages are computed at once: 2 MB for each of two arrays, near the cores."""
_STATE = ("filled", "sigma0", "age")

Ints = npt.NDArray[np.int64]
Values = dict[str, npt.NDArray[np.float64]]
Stats = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class StoredPart:
    """(time, field) values of some fields on some days, and what they cost.

    Attributes
    ----------
    cube_bytes, cube_requests
        Fetched of the shards: their indexes, and the inner chunks that hold a pixel of the fields.
    source_reads, box_tasks
        Counted where the reading happens. They are 0.
    """

    values: Values
    cube_bytes: int
    cube_requests: int
    source_reads: int
    box_tasks: int


def field_groups(cover: Coverage, grid: Grid, steps: int) -> Iterator[Ints]:
    """Fields that are read together, by number: those that begin in the same tile always, and more while they are few.

    Parameters
    ----------
    steps
        Stored steps that are to be read.
    """
    some = np.diff(cover.start) > 0
    blocks_wide = -(-grid.shape[1] // BLOCK)
    row, col = np.divmod(cover.segment_block[cover.start[:-1][some]], blocks_wide)
    per_tile = grid.tile // BLOCK
    tile = np.full(len(cover.ids), -1, dtype=np.int64)
    tile[some] = row // per_tile * grid.tiles_shape[1] + col // per_tile
    order = np.argsort(tile, kind="stable")
    pixels = np.diff(cover.segment_start[cover.start])
    together: list[Ints] = []
    held = 0
    for same in np.split(order, np.flatnonzero(np.diff(tile[order])) + 1):
        size = int(pixels[same].sum()) * max(steps, 1)
        if together and held + size > PIXEL_STEPS:
            yield np.sort(np.concatenate(together))
            together, held = [], 0
        together.append(same)
        held += size
    if together:
        yield np.sort(np.concatenate(together))


def day_batches(pixels: int, head: Head, steps: slice) -> list[slice]:
    """Cuts of a range of days, each with as many acquisitions as may be held; they begin where one came."""
    first, last, _ = steps.indices(len(head.days))
    most = max(1, PIXEL_STEPS // max(pixels, 1))
    acquired = first + np.flatnonzero(head.acquired[first:last])
    cuts = [first, *(int(step) for step in acquired[most::most]), last]
    return [slice(low, high) for low, high in pairwise(cuts) if low < high]


def reduce_stored(cube: Cube, head: Head, days: slice, box: Box, cover: Coverage, threads: int = 1) -> StoredPart:
    """Values of fields on consecutive days.

    Parameters
    ----------
    days
        Steps of the cube.
    cover
        The fields' own coverage, of the whole grid.
    threads
        How many may compute at once; no bit depends on it.
    """
    arrays = cube.arrays(head.snapshot)
    own = np.arange(len(head.days))[days]
    carried = head.carried_steps()[days]
    observed = own[head.acquired[days]]
    known = carried >= 0
    stored, place = np.unique(carried[known], return_inverse=True)
    steps: dict[str, Ints] = {}
    for name, variable in box.variables.items():
        steps[name] = observed
        if variable.state:
            steps |= {f"{name}_{role}": stored for role in _STATE}
    fetched = Fetched()
    merging = _Merging(cover, box, threads)
    with counting() as counter, counting_tasks() as tasks:
        for window in _windows(cover, box.resolved):
            part = cover.within(window)
            raw = read_pixels(arrays, steps, *part.places, fetched)
            merging.add(window, part, raw, place, (own - carried)[known])
    values = merging.values(len(own), head.acquired[days], known, place)
    return StoredPart(values, fetched.bytes, fetched.requests, counter.reads, len(tasks))


def _windows(cover: Coverage, grid: Grid) -> list[Window]:
    """The whole grid; where that holds too many pixels, the tiles that the fields touch."""
    if cover.pixels <= PIXEL_STEPS:
        return [grid.window]
    tiles = np.unique(np.stack([cover.run_row // grid.tile, cover.run_col // grid.tile], axis=-1), axis=0)
    return [grid.tile_window(y, x) for y, x in tiles.tolist()]


class _Merging:
    """Partials of windows, by what they say: observations, estimates, and errors and ages a few days at a time."""

    def __init__(self, cover: Coverage, box: Box, threads: int) -> None:
        self.cover, self.box, self.threads = cover, box, threads
        stats = statistics_of(box)
        stateful = [name for name, variable in box.variables.items() if variable.state]
        self.observed = {name: stats[name] for name in box.variables}
        self.estimates = {f"{name}_filled": stats[f"{name}_filled"] for name in stateful}
        self.growing = {f"{name}_{layer}": stats[f"{name}_{layer}"] for name in stateful for layer in ("sigma", "age")}
        self.partials: dict[tuple[str, int], list[Partial]] = {}

    def add(self, window: Window, part: Coverage, raw: dict[str, IntArray], place: Ints, gaps: Ints) -> None:
        """Reduce what was read of one window: name -> (step, pixel)."""
        pixels = {name: array[:, None] for name, array in raw.items()}
        observed: dict[str, Layer] = {}
        for name, variable in self.box.variables.items():
            observed |= observation_layer(name, variable, pixels[name])
        self._reduce("observed", observed, window, part, self.observed)
        if not self.estimates:
            return
        estimates: dict[str, Layer] = {}
        for name in self._stateful:
            estimates |= observation_layer(f"{name}_filled", self.box.variables[name], pixels[f"{name}_filled"])
        self._reduce("estimates", estimates, window, part, self.estimates)
        # decoded where they are stored, a fifth of the days or so, and then repeated
        encodings = {name: encoding_of(self.box.variables[name]) for name in self._stateful}
        sigma0 = {name: encoding.decode(raw[f"{name}_sigma0"]) for name, encoding in encodings.items()}
        ages = {name: AGE.decode(raw[f"{name}_age"]) for name in self._stateful}
        batch = max(1, PIXEL_DAYS // max(part.pixels, 1))

        def reduce_batch(first: int) -> Partial:
            days = slice(first, first + batch)
            growing: dict[str, Layer] = {}
            for name in self._stateful:
                q = noise(self.box.variables[name])[0]
                error, age = grown(sigma0[name], ages[name], place[days], gaps[days], q)
                growing |= {f"{name}_sigma": Layer(error[:, None]), f"{name}_age": Layer(age[:, None])}
            return reduce_pixels(growing, window, part, self.growing)

        with ThreadPoolExecutor(self.threads) as pool:
            partials = pool.map(reduce_batch, range(0, max(len(place), 1), batch))
            for number, partial in enumerate(partials):
                self.partials.setdefault(("growing", number), []).append(partial)

    def values(self, days: int, acquired: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_], place: Ints) -> Values:
        """(time, field) of every day: nothing is valid on days that hold nothing."""
        values = _spread(self._combine("observed", self.observed), np.flatnonzero(acquired), days)
        if self.estimates:
            estimates = {name: array[place] for name, array in self._combine("estimates", self.estimates).items()}
            growing = self._combine("growing", self.growing)
            values |= _spread(estimates | growing, np.flatnonzero(known), days)
        return values

    @property
    def _stateful(self) -> list[str]:
        return [name for name, variable in self.box.variables.items() if variable.state]

    def _reduce(self, kind: str, layers: dict[str, Layer], window: Window, part: Coverage, stats: Stats) -> None:
        partial = reduce_pixels(layers, window, part, stats)
        self.partials.setdefault((kind, 0), []).append(partial)

    def _combine(self, kind: str, stats: Stats) -> Values:
        found = [partials for (one, _), partials in sorted(self.partials.items()) if one == kind]
        parts = [combine(partials, self.cover, stats) for partials in found]
        if not parts:
            return {}
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _spread(values: Values, steps: Ints, days: int) -> Values:
    """(step, field) put on their days; on all others nothing is valid: counts are 0, everything else is missing."""
    spread: Values = {}
    for name, array in values.items():
        nothing = 0.0 if name.endswith("_count") else np.nan
        spread[name] = np.full((days, *array.shape[1:]), nothing)
        spread[name][steps] = array
    return spread


def joined(parts: Sequence[StoredPart]) -> StoredPart:
    """Parts of the same fields on consecutive days, as one."""
    if len(parts) == 1:
        return parts[0]
    values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
    return StoredPart(
        values,
        sum(part.cube_bytes for part in parts),
        sum(part.cube_requests for part in parts),
        sum(part.source_reads for part in parts),
        sum(part.box_tasks for part in parts),
    )
