"""Clearing away what nobody can see: objects that nothing refers to, and branches that nobody asks for any more.

Garbage is what no branch and no tag leads to: what attempts left that lost or died. An attempt that is at work has no
name, so two things keep its objects. They are younger than the bound; and where they are not, because its process was
stopped for long, it must not be published any more: before anything is removed, every branch is moved by a snapshot
that says so, and whoever began before loses the compare-and-swap, looks again and starts over. Whoever began after it
has written after it, and the age of objects is counted back from when the store received that snapshot, as the store
dates every object: the collector's clock can only make it remove less. So the bound decides what is wasted, never what
is lost.

Published snapshots are never expired, so the past of a cube stays readable.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import icechunk

from geofield.cube.cube import Cube, swap
from geofield.cube.failures import group_of
from geofield.errors import ConfigurationError, LostRaceError, StoreUnavailableError, unanswered

DEAD_AFTER = dt.timedelta(hours=24)
"""An attempt is a few days of one box: minutes, seldom hours. One as old as this is dead."""

_COUNTED = ("chunks", "manifests", "snapshots", "attributes", "transaction_logs")


@dataclass(frozen=True)
class Beside:
    """A branch beside the present; `active` is when its last snapshot was written (UTC)."""

    name: str
    snapshot: str
    active: dt.datetime


@dataclass(frozen=True)
class Freed:
    """What a collection removed, or would remove."""

    objects: int = 0
    bytes: int = 0


def branches(cube: Cube, prefix: str) -> list[Beside]:
    """The branches whose names begin so, oldest first."""
    found = []
    with _reading(cube):
        names = [name for name in cube.repository.list_branches() if name.startswith(prefix)]
    for name in names:
        try:
            tip = cube.repository.lookup_branch(name)
            found.append(Beside(name, tip, cube.repository.lookup_snapshot(tip).written_at))
        except icechunk.IcechunkError:  # gone since the branches were listed: its writer was done
            continue
    return sorted(found, key=lambda one: (one.active, one.name))


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


def garbage(cube: Cube, older_than: dt.timedelta = DEAD_AFTER) -> Freed:
    """What `collect` would remove; changes nothing."""
    return _collected(cube, _before(older_than), dry_run=True)


def collect(cube: Cube, keep: dt.timedelta = DEAD_AFTER) -> Freed:
    """Remove the objects that nothing refers to.

    Parameters
    ----------
    keep
        Objects younger than this stay: they may belong to an attempt that is at work. Zero only where nobody writes:
        then everything goes that this machine's clock calls past.

    Raises
    ------
    StoreUnavailableError
        The store did not answer. What was removed was garbage; call again.
    """
    before = _before(keep)
    if not _collected(cube, before, dry_run=True).objects:
        return Freed()
    with _reading(cube):
        names = list(cube.repository.list_branches())
    for name in names:
        moved = _shut_out(Cube(cube.location, cube.box_id, name))
        if moved is not None and keep:
            before = min(before, moved - keep)
    return _collected(cube, before, dry_run=False)


def _shut_out(cube: Cube) -> dt.datetime | None:
    """Move a branch, so that no attempt that began before can be published on it; when that was, by the store's time.

    None for a branch that nobody can write days to.
    """
    with _reading(cube):
        session = cube.repository.writable_session(cube.branch)
        base = session.snapshot_id
        try:
            group = group_of(session, cube.repository)
        except FileNotFoundError:  # a cube that is yet to be made: nobody can write days to it
            return None
        group.attrs["collected_after"] = base  # a snapshot needs a change, and this one is new each time
        snapshot = session.flush("collect garbage", metadata={"kind": "collect"})
    written = [one.modified.astimezone(dt.UTC) for one in cube.location.list(f"{cube.key}/snapshots/{snapshot}")]
    if not written:
        raise StoreUnavailableError(f"A snapshot of box {cube.box_id!r} that was just written is not there; try again.")
    with contextlib.suppress(LostRaceError):  # somebody else has moved it meanwhile, which does as well
        swap(cube, snapshot, base)
    return written[0]


def _collected(cube: Cube, before: dt.datetime, *, dry_run: bool) -> Freed:
    with _reading(cube):
        summary = cube.repository.garbage_collect(before, dry_run=dry_run)
    return Freed(sum(int(getattr(summary, f"{name}_deleted")) for name in _COUNTED), int(summary.bytes_deleted))


def _before(age: dt.timedelta) -> dt.datetime:
    if age < dt.timedelta(0):
        raise ConfigurationError(f"An age is positive; got {age}.")
    return dt.datetime.now(dt.UTC) - age


@contextlib.contextmanager
def _reading(cube: Cube) -> Iterator[None]:
    try:
        yield
    except icechunk.IcechunkError as error:
        raise unanswered(f"The cube of box {cube.box_id!r} did not answer", error) from error
