"""An attempt: some days built beside the present and published by one compare-and-swap.

States of an attempt: begun (nothing is stored); written (one snapshot with everything, which no name points to);
published (`main` points to it). Readers of `main` see only the last, and so does everybody who asks for the past: no
snapshot holds days without their pixels. What an attempt leaves that is never published is garbage, and whoever
collects it moves `main` first (see `upkeep`): an attempt that began before can no longer be published.

Arrays are grown in the session that is written through, never in a commit of its own. An Icechunk session with changes
cannot be forked, so a fork is taken before, and the same growth is repeated in the copies that tasks of other processes
get. Merging them brings the growth back as often as there are forks, always the same.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import zarr

from geofield.cube.arrays import Arrays, Writer
from geofield.cube.cube import Cube, swap, to_date
from geofield.cube.failures import answering, group_of
from geofield.cube.schema import Schema
from geofield.cube.together import together
from geofield.errors import LostRaceError, MissingDaysError


@dataclass(frozen=True)
class NewDay:
    """A day that is to be appended.

    Attributes
    ----------
    day
        Days since 1970-01-01.
    acquired
        Whether some acquisition came.
    digests
        (tile_y, tile_x) uint64.
    """

    day: int
    acquired: bool
    digests: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Amendment:
    """What a correction says of one day: `digests` are (tile_y, tile_x) uint64, `items` is JSON."""

    acquired: bool
    digests: npt.NDArray[np.uint64]
    items: str


class Fork:
    """What a task gets to write through.

    In the process of the attempt it is the attempt's own session, which threads may share: it has everything cached
    that was read and looked up so far. Pickled, it becomes the bytes of a fork, which each task loads for itself.
    """

    def __init__(self, writer: Writer, pickled: Callable[[], bytes]) -> None:
        self.writer = writer
        self._pickled = pickled

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (self._pickled(),)


class Attempt:
    """Days on their way into a cube.

    Parameters
    ----------
    cube
        The cube that is to grow.
    base
        Snapshot that it is built on; the attempt is published only while the cube's branch still points there.
    """

    def __init__(self, cube: Cube, base: str) -> None:
        self.cube = cube
        self.base = base
        self.first_step = -1
        self._writer: Writer | None = None
        self._fork: icechunk.ForkSession | None = None
        self._days: Sequence[NewDay] = ()

    def grow(self, days: Sequence[NewDay]) -> None:
        """Begin, and lengthen the arrays for consecutive days.

        Raises
        ------
        MissingDaysError
            The first day does not follow the last one of the cube.
        """
        self._days = tuple(days)
        self.begin()

    def begin(self) -> None:
        """Begin, without growing: days that are there are to be amended."""
        with answering(f"begin to write to the cube of box {self.cube.box_id!r}"):
            session = self.cube.repository.writable_session(self.cube.branch)
            if session.snapshot_id != self.base:
                raise LostRaceError(f"Another writer published box {self.cube.box_id} first.")
            self._fork = session.fork()
            writer = Writer(session)
            if self._days:
                present = np.asarray(writer.arrays["time"], dtype=np.int64)
                _check_order(self.cube.box_id, present, [day.day for day in self._days])
                self.first_step = len(present)
                _grow(writer.arrays, self._days, self.cube.schema)
            self._writer = writer

    def fork(self) -> Fork:
        """What every task gets; see `writer_of`."""
        return Fork(self._open(), self._pickled_fork)

    def _pickled_fork(self) -> bytes:
        assert self._fork is not None, "begin() comes first"
        with answering(f"hand out the cube of box {self.cube.box_id!r}"):
            fork = pickle.loads(pickle.dumps(self._fork))
            if self._days:
                _grow(Arrays(group_of(fork)), self._days, self.cube.schema)
            return pickle.dumps(fork)

    def write(
        self,
        writers: Iterable[Writer],
        items: Sequence[str],
        message: str,
        metadata: Mapping[str, Any],
    ) -> str:
        """Make a snapshot of the tasks' shards and the days' items; its id."""
        with answering(f"write to the cube of box {self.cube.box_id!r}"):
            writer = self._merged(writers)
            steps = slice(self.first_step, self.first_step + len(items))
            writer.arrays["items"][steps] = np.array(items, dtype=object)
            return writer.session.flush(message, metadata=json.loads(json.dumps(metadata)))

    def amend(
        self,
        writers: Iterable[Writer],
        first_step: int,
        days: Sequence[Amendment],
        message: str,
        metadata: Mapping[str, Any],
    ) -> str:
        """Make a snapshot of the tasks' shards and what is said of the days from `first_step` on; its id."""
        with answering(f"write to the cube of box {self.cube.box_id!r}"):
            writer = self._merged(writers)
            steps = slice(first_step, first_step + len(days))
            said = {
                "acquired": np.array([day.acquired for day in days]),
                "digest": np.stack([day.digests for day in days]),
                "items": np.array([day.items for day in days], dtype=object),
            }
            together({name: writer.arrays[name].async_array.setitem(steps, column) for name, column in said.items()})
            return writer.session.flush(message, metadata=json.loads(json.dumps(metadata)))

    def _merged(self, writers: Iterable[Writer]) -> Writer:
        own = self._open()
        sessions = [writer.session for writer in writers]
        forks = [one for one in sessions if isinstance(one, icechunk.ForkSession) and one.has_uncommitted_changes]
        own.session.merge(*forks)  # of none too: a session that was forked asks for it
        return own

    def publish(self, snapshot: str) -> None:
        """Make everything of the attempt visible at once.

        Raises
        ------
        LostRaceError
            The cube is no longer where the attempt began.
        """
        swap(self.cube, snapshot, self.base)

    def _open(self) -> Writer:
        assert self._writer is not None, "begin() comes first"
        return self._writer


def writer_of(fork: Fork | bytes) -> Writer:
    """What a task writes through and hands back: over its own fork when it came from another process."""
    return fork.writer if isinstance(fork, Fork) else Writer(pickle.loads(fork))


def _grow(arrays: Arrays, days: Sequence[NewDay], schema: Schema) -> None:
    """Lengthen every array, and write what is known of the days before a pixel is read."""
    known = {
        "time": np.array([day.day for day in days], dtype=np.int64),
        "acquired": np.array([day.acquired for day in days], dtype=np.bool_),
        "digest": np.stack([day.digests for day in days]),
    }
    names = (*known, "items", *(spec.name for spec in schema.arrays))
    together({name: _lengthen(arrays[name], len(days), known.get(name)) for name in names})


async def _lengthen(array: zarr.Array[Any], days: int, values: npt.NDArray[Any] | None) -> None:
    before = array.shape[0]
    await array.async_array.resize((before + days, *array.shape[1:]))
    if values is not None:
        await array.async_array.setitem(slice(before, None), values)


def _check_order(box_id: str, present: npt.NDArray[np.int64], asked: Sequence[int]) -> None:
    if any(later - earlier != 1 for earlier, later in pairwise(asked)):
        raise MissingDaysError(f"Box {box_id}: the days of an attempt have to be consecutive; got {asked}.")
    if not len(present):
        return
    last = int(present[-1])
    if asked[0] <= last:
        raise LostRaceError(f"Box {box_id} holds {to_date(asked[0])} already; its last day is {to_date(last)}.")
    if asked[0] > last + 1:
        raise MissingDaysError(
            f"Box {box_id}: {to_date(asked[0])} cannot be appended, the day before it is not there. Missing: "
            f"{to_date(last + 1)} to {to_date(asked[0] - 1)}. Append those first, or run until {to_date(asked[0])}."
        )
