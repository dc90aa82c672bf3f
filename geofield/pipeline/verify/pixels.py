"""The shards of a cube: which there are, and whether the state follows from the day before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from geofield.boxes import Box
from geofield.cube.cube import Cube
from geofield.cube.shards import stored_shards
from geofield.cube.tiles import read_tile
from geofield.pipeline.tile import TileJob, advanced, load_states
from geofield.pipeline.verify.cubes import CubeParts
from geofield.pipeline.verify.findings import UNREADABLE, Finding, day_list, listed, unreadable

if TYPE_CHECKING:
    from geofield.source.protocol import Source

SAMPLE = 8
"""Tiles of days that are read without `deep`."""

_AMEND = (
    "These days have to be made again from the source. Go back to a snapshot of `geofield history` that is whole, or "
    "build the box again under another id."
)
_STATE_ROLES = ("filled", "sigma0", "age")

Shards = dict[str, npt.NDArray[np.bool_]]


def check_shards(box: Box, cube: Cube, parts: CubeParts) -> Iterator[Finding]:
    """Which shards are stored, against which should be (I1). Manifests are read, pixels are not."""
    try:
        shards = stored_shards(cube.session(parts.head.snapshot), parts.schema, len(parts.head.days))
    except UNREADABLE as error:
        yield unreadable(box.id, "I1", "The list of stored shards", error)
        return
    days, acquired = parts.head.days, parts.head.acquired
    surplus = {name: np.flatnonzero(there.any(axis=(1, 2)) & ~acquired) for name, there in shards.items()}
    lacking = {name: _lacking(box, name, parts, shards) for name in box.variables}
    for found, said in (
        (surplus, "are stored for days without acquisition"),
        (lacking, "are not there although the cube says that they were seen"),
    ):
        names = [name for name, steps in found.items() if len(steps)]
        if names:
            when = day_list(days[np.concatenate([found[name] for name in names])].tolist())
            yield Finding(box.id, "I1", "broken", f"Pixels of {listed(names)} {said}: {when}.", _AMEND)


def _lacking(box: Box, name: str, parts: CubeParts, shards: Shards) -> npt.NDArray[np.int64]:
    """Steps at which shards of a variable are missing."""
    roles = parts.schema.of(name)
    acquired = parts.head.acquired
    observed = shards[roles["observation"].name]
    missing = np.zeros(len(acquired), dtype=np.bool_)
    for step, items in enumerate(parts.items):
        valid = sum(int(item["valid_pixels"].get(name, 0)) for item in items or ())
        missing[step] |= bool(acquired[step]) and valid > 0 and not observed[step].any()
    if box.variables[name].state:
        # a pixel that was seen once has a state on every later acquisition
        seen = np.logical_or.accumulate(observed & acquired[:, None, None], axis=0)
        for role in _STATE_ROLES:
            missing |= (seen & acquired[:, None, None] & ~shards[roles[role].name]).any(axis=(1, 2))
    return np.flatnonzero(missing)


def check_states(box: Box, parts: CubeParts, *, deep: bool) -> Iterator[Finding]:
    """Shards can be read, and the state of a day is what the day before and its observations give (I5).

    Parameters
    ----------
    deep
        Every tile of every acquired day; else a random few.
    """
    acquired: list[int] = np.flatnonzero(parts.head.acquired).tolist()
    places = [(step, tile) for step in acquired for tile in box.resolved.tiles()]
    if not deep and len(places) > SAMPLE:
        chosen = np.random.default_rng().choice(len(places), SAMPLE, replace=False)
        places = [places[number] for number in sorted(chosen.tolist())]
    damaged, wrong = [], []
    reason = ""
    for step, tile in places:
        try:
            if not _follows(box, parts, step, tile, acquired):
                wrong.append(int(parts.head.days[step]))
        except UNREADABLE as error:
            damaged.append(int(parts.head.days[step]))
            reason = reason or str(error)
    if damaged:
        yield Finding(box.id, "I1", "broken", f"Pixels cannot be read on {day_list(damaged)}: {reason}", _AMEND)
    if wrong:
        found = f"The state does not follow from the day before and the observations on {day_list(wrong)}."
        yield Finding(box.id, "I5", "broken", found, _AMEND)


def _follows(box: Box, parts: CubeParts, step: int, tile: tuple[int, int], acquired: Sequence[int]) -> bool:
    earlier = [other for other in acquired if other < step]
    last = (earlier[-1], int(parts.head.days[earlier[-1]])) if earlier else None
    # stored states are loaded without a source
    job = TileJob(box, parts.schema, cast("Source", None), box.resolved.tile_window(*tile), last)
    names = [spec.name for spec in parts.schema.arrays]
    stored = read_tile(parts.arrays, names, step, job.window)
    observed = {name: stored[parts.schema.of(name)["observation"].name] for name in box.variables}
    states = advanced(box, load_states(job, parts.arrays), observed, int(parts.head.days[step]))
    return all(
        np.array_equal(stored[parts.schema.of(name)[role].name], getattr(state, role))
        for name, state in states.items()
        for role in _STATE_ROLES
    )
