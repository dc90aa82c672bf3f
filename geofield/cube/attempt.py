"""An attempt: some days built beside `main` and published by one compare-and-swap.

States of an attempt: absent; grown (a branch with longer arrays and no pixels); written (a snapshot with everything);
published (`main` points to it, the branch is gone). Readers of `main` see only the first and the last.
"""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import zarr

from geofield.cube.cube import Cube, array_of, read_head, swap, to_date
from geofield.errors import LostRaceError, MissingDaysError, StoreUnavailableError

PREFIX = "attempt-"


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


class Attempt:
    """Days on their way into a cube.

    Parameters
    ----------
    cube
        The cube that is to grow.
    name
        Unique among all attempts, without `/`; the run's id and a number do.
    base
        Snapshot that it is built on; the attempt is published only while `main` still points there.
    """

    def __init__(self, cube: Cube, name: str, base: str) -> None:
        self.cube = cube
        self.base = base
        self.branch = f"{PREFIX}{name}"
        self.first_step = -1
        self._session: icechunk.Session | None = None

    def grow(self, days: Sequence[NewDay]) -> None:
        """Lengthen the arrays for consecutive days and commit that on the branch.

        Raises
        ------
        MissingDaysError
            The first day does not follow the last one of the cube.
        """
        repository = self.cube.repository
        with _translated(f"begin attempt {self.branch}"):
            repository.create_branch(self.branch, self.base)
            session = repository.writable_session(self.branch)
            group = zarr.open_group(session.store, mode="r+")
            head = read_head(group, self.base)
            _check_order(self.cube.box_id, head.days, [day.day for day in days])
            self.first_step = len(head.days)
            _append(group, "time", np.array([day.day for day in days], dtype=np.int64))
            _append(group, "acquired", np.array([day.acquired for day in days], dtype=np.bool_))
            _append(group, "digest", np.stack([day.digests for day in days]))
            length = self.first_step + len(days)
            array_of(group, "items").resize((length,))
            for spec in self.cube.schema.arrays:
                array = array_of(group, spec.name)
                array.resize((length, *array.shape[1:]))
            session.commit(f"grow to {length} days")  # a session with changes cannot be forked
            self._session = repository.writable_session(self.branch)

    def begin(self) -> None:
        """Branch off without growing: days that are there are to be amended."""
        with _translated(f"begin attempt {self.branch}"):
            self.cube.repository.create_branch(self.branch, self.base)
            self._session = self.cube.repository.writable_session(self.branch)

    def fork(self) -> bytes:
        """A pickled fork: each task loads its own, writes through it and hands it back."""
        return pickle.dumps(self._open().fork())

    def write(
        self,
        forks: Iterable[icechunk.session.ForkSession],
        items: Sequence[str],
        message: str,
        metadata: Mapping[str, Any],
    ) -> str:
        """Bring the forks' shards together and commit them with the days' items; the snapshot's id."""
        with _translated(f"write attempt {self.branch}"):
            session, group = self._merged(forks)
            array_of(group, "items")[self.first_step : self.first_step + len(items)] = np.array(items, dtype=object)
            return session.commit(message, metadata=json.loads(json.dumps(metadata)))

    def amend(
        self,
        forks: Iterable[icechunk.session.ForkSession],
        first_step: int,
        days: Sequence[Amendment],
        message: str,
        metadata: Mapping[str, Any],
    ) -> str:
        """Bring the forks' shards together with what is said of the days from `first_step` on; the snapshot's id."""
        with _translated(f"write attempt {self.branch}"):
            session, group = self._merged(forks)
            steps = slice(first_step, first_step + len(days))
            array_of(group, "acquired")[steps] = np.array([day.acquired for day in days])
            array_of(group, "digest")[steps] = np.stack([day.digests for day in days])
            array_of(group, "items")[steps] = np.array([day.items for day in days], dtype=object)
            return session.commit(message, metadata=json.loads(json.dumps(metadata)))

    def _merged(self, forks: Iterable[icechunk.session.ForkSession]) -> tuple[icechunk.Session, zarr.Group]:
        session = self._open()
        changed = [fork for fork in forks if fork.has_uncommitted_changes]
        if changed:
            session.merge(*changed)
        else:  # a session that was forked can only be committed after a merge
            session = self.cube.repository.writable_session(self.branch)
        return session, zarr.open_group(session.store, mode="r+")

    def publish(self, snapshot: str) -> None:
        """Make everything of the attempt visible at once.

        Raises
        ------
        LostRaceError
            `main` is no longer where the attempt began, or the attempt was swept away as a dead one.
        """
        try:
            self._check_alive(snapshot)
            swap(self.cube, snapshot, self.base)
        finally:
            self.abandon()

    def _check_alive(self, snapshot: str) -> None:
        # what a swept attempt wrote may be collected as garbage at any moment: it must not become the present
        try:
            alive = self.cube.repository.lookup_branch(self.branch) == snapshot
        except icechunk.IcechunkError:
            alive = False
        if not alive:
            raise LostRaceError(f"The attempt {self.branch} took so long that it was swept away as a dead one.")

    def abandon(self) -> None:
        """Remove the branch; what nobody can see is freed by the garbage collection."""
        with contextlib.suppress(icechunk.IcechunkError):
            self.cube.repository.delete_branch(self.branch)

    def _open(self) -> icechunk.Session:
        assert self._session is not None, "grow() comes first"
        return self._session


def load_fork(pickled: bytes) -> icechunk.session.ForkSession:
    """A task's own fork of an attempt."""
    fork: icechunk.session.ForkSession = pickle.loads(pickled)
    return fork


def _append(group: zarr.Group, name: str, values: npt.NDArray[Any]) -> None:
    array = array_of(group, name)
    before = array.shape[0]
    array.resize((before + len(values), *array.shape[1:]))
    array[before:] = values


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


@contextlib.contextmanager
def _translated(doing: str) -> Any:
    try:
        yield
    except icechunk.ConflictError as error:
        raise LostRaceError(f"Another writer was faster: could not {doing}.") from error
    except icechunk.IcechunkError as error:
        raise StoreUnavailableError(f"Could not {doing}: {error}") from error
