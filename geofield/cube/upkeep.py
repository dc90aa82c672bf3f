"""Clearing away what nobody can see: branches of attempts that died, and objects that nothing refers to.

There is no lease and nobody is asked: an attempt counts as dead when nothing has happened on its branch for long. To be
wrong about that costs time, never a day: a writer whose branch is gone cannot publish, learns it, and starts over.

Published snapshots are never expired, so the past of a cube stays readable. Garbage is what no branch and no tag leads
to. An attempt that runs meanwhile is safe: its shards are younger than the bound; and one that is older than the bound
has lost its branch first, so that it can no longer publish what the collection takes away.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import icechunk

from geofield.cube.attempt import PREFIX
from geofield.cube.cube import Cube
from geofield.errors import ConfigurationError, StoreUnavailableError

DEAD_AFTER = dt.timedelta(hours=24)
"""An attempt is a few days of one box: minutes, seldom hours. One as old as this is dead."""

_STARTED = re.compile(r"(\d{8}T\d{6}Z)-")  # an attempt is named after its run, and a run after when it began


@dataclass(frozen=True)
class Beside:
    """A branch beside the present.

    Attributes
    ----------
    active
        When something last happened there, as far as it can be told (UTC).
    """

    name: str
    snapshot: str
    active: dt.datetime


@dataclass(frozen=True)
class Freed:
    """What a collection removed."""

    branches: tuple[str, ...] = ()
    objects: int = 0
    bytes: int = 0


def branches(cube: Cube, prefix: str = PREFIX) -> list[Beside]:
    """The branches whose names begin so, oldest first."""
    found = []
    with _reading(cube):
        names = [name for name in cube.repository.list_branches() if name.startswith(prefix)]
    for name in names:
        try:
            tip = cube.repository.lookup_branch(name)
            written = cube.repository.lookup_snapshot(tip).written_at
        except icechunk.IcechunkError:  # gone since the branches were listed: its writer was done
            continue
        # a branch without a commit of its own points to the present, which may be old: the run's start is younger
        found.append(Beside(name, tip, max(written, _started(name.removeprefix(prefix)) or written)))
    return sorted(found, key=lambda one: (one.active, one.name))


def dead_attempts(cube: Cube, older_than: dt.timedelta = DEAD_AFTER) -> list[Beside]:
    """The attempts on which nothing has happened for that long."""
    before = _before(older_than)
    return [one for one in branches(cube) if one.active < before]


def sweep(cube: Cube, older_than: dt.timedelta = DEAD_AFTER) -> list[str]:
    """Remove the branches of dead attempts; their names. Reads and writes nothing else."""
    return remove_branches(cube, [one.name for one in dead_attempts(cube, older_than)])


def remove_branches(cube: Cube, names: Collection[str]) -> list[str]:
    """Remove branches; those that were there."""
    removed = []
    for name in names:
        try:
            cube.repository.delete_branch(name)
        except icechunk.IcechunkError:  # somebody else was faster
            continue
        removed.append(name)
    return removed


def collect(cube: Cube, keep: dt.timedelta = DEAD_AFTER) -> Freed:
    """Sweep, then remove the objects that nothing refers to.

    Parameters
    ----------
    keep
        Objects younger than this stay: they may belong to an attempt that has yet to commit them. Zero only where
        nobody writes.

    Raises
    ------
    StoreUnavailableError
        The store did not answer. What was removed was garbage; call again.
    """
    swept = sweep(cube, keep)
    with _reading(cube):
        summary = cube.repository.garbage_collect(_before(keep))
    counted = ("chunks", "manifests", "snapshots", "attributes", "transaction_logs")
    objects = sum(int(getattr(summary, f"{name}_deleted")) for name in counted)
    return Freed(tuple(swept), objects, int(summary.bytes_deleted))


def _before(age: dt.timedelta) -> dt.datetime:
    if age < dt.timedelta(0):
        raise ConfigurationError(f"An age is positive; got {age}.")
    return dt.datetime.now(dt.UTC) - age


def _started(name: str) -> dt.datetime | None:
    """When the run that an attempt is named after began; None for a name that does not say it."""
    found = _STARTED.match(name)
    if found is None:
        return None
    try:
        return dt.datetime.strptime(found[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    except ValueError:
        return None


@contextlib.contextmanager
def _reading(cube: Cube) -> Iterator[None]:
    try:
        yield
    except icechunk.IcechunkError as error:
        raise StoreUnavailableError(f"The cube of box {cube.box_id!r} did not answer: {error}") from error
