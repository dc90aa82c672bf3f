"""One box's cube: a transactional Zarr group whose `main` branch is the present."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import numpy.typing as npt
import zarr

from geofield.cube.arrays import Arrays
from geofield.cube.creation import MAIN, create_repository
from geofield.cube.failures import answering, group_of, is_missing
from geofield.cube.schema import Schema, create_arrays
from geofield.cube.together import together
from geofield.errors import CorruptStoreError, GeofieldError, InputError, LostRaceError, NotFoundError, unanswered
from geofield.store import Location

if TYPE_CHECKING:
    import xarray as xr

if "ICECHUNK_LOG" not in os.environ:
    # It warns whenever a directory is opened that commits there may race; ours are made under a lock.
    icechunk.set_logs_filter("error")
_DAYS_PER_MANIFEST = 32  # many: an append rewrites much of the manifest; few: a snapshot lists many manifests
_CHUNKS_PER_MANIFEST = 8  # of the arrays with a few days in a chunk, which the manifest holds itself
_UNTIL, _STAMP = "until-", "%Y%m%dT%H%M%S.%f"


@dataclass(frozen=True)
class Head:
    """A published state of a cube: which days it holds.

    Attributes
    ----------
    snapshot
        Id of the snapshot.
    days
        (time,) int64, days since 1970-01-01, consecutive.
    acquired
        (time,) bool, whether some acquisition came that day.
    """

    snapshot: str
    days: npt.NDArray[np.int64]
    acquired: npt.NDArray[np.bool_]

    @property
    def first(self) -> dt.date | None:
        """The first day, None for an empty cube."""
        return to_date(self.days[0]) if len(self.days) else None

    @property
    def last(self) -> dt.date | None:
        """The last day, None for an empty cube."""
        return to_date(self.days[-1]) if len(self.days) else None

    def step(self, day: dt.date) -> int:
        """The index of a day; `NotFoundError` when the cube does not hold it."""
        step = to_day(day) - int(self.days[0]) if len(self.days) else -1
        if not 0 <= step < len(self.days):
            raise NotFoundError(f"The cube holds the days {self.first} to {self.last}; {day} is not among them.")
        return step

    def carried_steps(self) -> npt.NDArray[np.int64]:
        """(time,) the step whose state holds on each day: that of the last acquisition; -1 before the first."""
        steps = np.where(self.acquired, np.arange(len(self.days)), -1)
        return np.maximum.accumulate(steps) if len(steps) else steps


class Cube:
    """The cube of a box. Cheap to make; connects when it is first used.

    Parameters
    ----------
    location, box_id
        Where it lies: `cubes/<box>` below the location.
    branch
        What is read and published to. `main` is the present; another one holds a cube that is being built beside it.
    """

    def __init__(self, location: Location, box_id: str, branch: str = MAIN) -> None:
        self.location = location
        self.box_id = box_id
        self.branch = branch
        self._latest: tuple[str, Arrays] | None = None  # the present when it was last asked for

    @property
    def key(self) -> str:
        """Where the repository lies below the location."""
        return f"cubes/{self.box_id}"

    def __repr__(self) -> str:
        return f"Cube({self.box_id!r} in {self.location.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Cube, (self.location, self.box_id, self.branch)

    # --- opening ---------------------------------------------------------------------------------------------------

    @cached_property
    def repository(self) -> icechunk.Repository:
        """The Icechunk repository; `NotFoundError` when the box has none."""
        storage = self.location.icechunk_storage(self.key)
        with answering(f"open the cube of box {self.box_id!r}"):
            try:
                return icechunk.Repository.open(storage, config=_configuration())
            except icechunk.IcechunkError as error:
                if is_missing(error):
                    raise NotFoundError(f"Box {self.box_id!r} has no cube in {self.location.url}.") from error
                raise

    def create(self, schema: Schema, metadata: Mapping[str, Any] | None = None) -> None:
        """Make the empty cube; nothing happens when it exists."""
        with self.location.lock(self.box_id):
            create_repository(
                self.location, self.key, schema, _configuration(), f"create {self.box_id}", metadata or {}
            )

    @answering("make a cube beside the present one")
    def beside(self, branch: str, schema: Schema) -> Cube:
        """A cube of other arrays on a branch of the same repository; made empty when it is not there."""
        other = Cube(self.location, self.box_id, branch)
        repository = self.repository
        there = repository.list_branches()
        half = half_of(branch)
        if half in there:  # what a creation that was cut leaves; if nothing else, it begins again
            with contextlib.suppress(icechunk.IcechunkError):  # somebody else may have
                repository.delete_branch(half)
        if branch not in there:
            root = list(repository.ancestry(branch=MAIN))[-1].id
            repository.create_branch(half, root)
            session = repository.writable_session(half)
            create_arrays(zarr.group(store=session.store), schema)
            repository.create_branch(branch, session.commit(f"create {self.box_id} beside"))
            repository.delete_branch(half)
        return other

    @answering("swap in another cube")
    def adopt(self, other: Cube, expected: str, now: dt.datetime) -> None:
        """Make what another branch holds the present, if this one still points to `expected`; drop the other branch.

        A tag keeps what was the present until now, so that any past answer can be given again.

        Raises
        ------
        LostRaceError
            Somebody published meanwhile.
        """
        repository, tag = self.repository, f"{_UNTIL}{now:{_STAMP}}-{expected}"
        if other.branch not in repository.list_branches():
            raise LostRaceError(f"Another writer swapped in the new cube of box {self.box_id} first.")
        snapshot = other.tip()
        repository.create_tag(tag, expected)  # first: no moment without a name for the past
        try:
            swap(self, snapshot, expected)
        except LostRaceError:
            repository.delete_tag(tag)
            raise
        self.leave_beside(other.branch)
        self._latest = None

    @answering("remove what was built beside a cube")
    def leave_beside(self, branch: str) -> None:
        """Remove a branch that `beside` made, whole or half, where it is there."""
        there = self.repository.list_branches()
        for name in (branch, half_of(branch)):
            if name in there:
                self.repository.delete_branch(name)

    @answering("look up the present of a cube")
    def tip(self) -> str:
        """Id of the snapshot that the branch points to."""
        return self.repository.lookup_branch(self.branch)

    def session(self, as_of: str | dt.datetime | None = None) -> icechunk.Session:
        """A read-only session of the present, of a snapshot, or of a time (aware; naive is taken as UTC)."""
        with answering(f"open the cube of box {self.box_id!r}"):
            if as_of is None:
                return self.repository.readonly_session(self.branch)
            try:
                if isinstance(as_of, dt.datetime):
                    when = as_of if as_of.tzinfo else as_of.replace(tzinfo=dt.UTC)
                    return self._session_at(when)
                return self.repository.readonly_session(snapshot_id=as_of)
            except icechunk.IcechunkError as error:
                if not is_missing(error):
                    raise
                raise self._no_state(as_of, error, as_of if isinstance(as_of, str) else None) from error
            except ValueError as error:
                raise self._no_state(as_of, error) from error

    def _no_state(self, as_of: object, error: Exception, snapshot: str | None = None) -> GeofieldError:
        """For a snapshot that is not there; Icechunk says the same of one that could not be read."""
        if snapshot and snapshot.isalnum() and self.location.exists(f"{self.key}/snapshots/{snapshot}"):
            return unanswered(f"The cube of box {self.box_id!r} could not be read", error)
        return NotFoundError(f"The cube of box {self.box_id!r} has no state as of {as_of}: {error}")

    def _session_at(self, when: dt.datetime) -> icechunk.Session:
        """What was published at a time: in the line of `main`, or in one that a changed box left behind."""
        repository = self.repository
        tags = sorted(tag for tag in repository.list_tags() if tag.startswith(_UNTIL))
        for tag in tags:
            until = dt.datetime.strptime(tag.removeprefix(_UNTIL).partition("-")[0] + "+0000", f"{_STAMP}%z")
            if when < until and self._is_left_behind(tag, tags):
                found = [one.id for one in repository.ancestry(tag=tag) if one.written_at <= when]
                if not found:
                    raise ValueError("it is before the first commit")
                return repository.readonly_session(snapshot_id=found[0])
        return repository.readonly_session(self.branch, as_of=when)

    def _is_left_behind(self, tag: str, tags: list[str]) -> bool:
        """False for the tag of a process that died before its swap: the line that it names went on."""
        repository = self.repository
        snapshot = repository.lookup_tag(tag)
        # of two tags of one snapshot the later one counts
        others = [one for one in tags if one > tag or repository.lookup_tag(one) != snapshot]
        lines = [repository.ancestry(branch=self.branch), *(repository.ancestry(tag=one) for one in others)]
        return all(one.id != snapshot for line in lines for one in line)

    def group(self, as_of: str | dt.datetime | None = None) -> zarr.Group:
        """The Zarr group, read-only."""
        return self.arrays(as_of).group

    def arrays(self, as_of: str | dt.datetime | None = None) -> Arrays:
        """The arrays of that group."""
        return self.opened(as_of)[1]

    def opened(self, as_of: str | dt.datetime | None) -> tuple[str, Arrays]:
        """Id of a snapshot, and its arrays. To open what was the present a moment ago asks nobody again."""
        if self._latest is not None and as_of == self._latest[0]:
            return self._latest
        session = self.session(as_of)
        with answering(f"open the cube of box {self.box_id!r}"):
            try:
                found = (session.snapshot_id, Arrays(group_of(session, self.repository)))
            except FileNotFoundError as error:
                raise self._no_state(as_of, error) from error
            except icechunk.IcechunkError as error:  # the id of a snapshot is not looked up before something is read
                if not is_missing(error):
                    raise
                raise self._no_state(as_of, error, session.snapshot_id) from error
        if as_of is None:
            self._latest = found
        return found

    @property
    def schema(self) -> Schema:
        """What the cube held when its head was last looked at."""
        return read_schema((self._latest or self.opened(None))[1])

    def head(self, as_of: str | dt.datetime | None = None) -> Head:
        """The days of a published state."""
        snapshot, arrays = self.opened(as_of)
        return read_head(arrays, snapshot)

    def open(
        self,
        variables: list[str] | None = None,
        start: dt.date | str | None = None,
        end: dt.date | str | None = None,
        *,
        as_of: str | dt.datetime | None = None,
        chunks: Mapping[str, int] | str | None = None,
    ) -> xr.Dataset:
        """The cube as a lazy xarray.Dataset: physical values, the state carried over days without acquisition.

        Parameters
        ----------
        variables
            Names of variables; default all. A variable with state brings `<v>_filled`, `<v>_sigma`, `<v>_age`.
        start, end
            First and last day, both included.
        as_of
            A time or the id of a snapshot: the cube as it was published then.
        chunks
            None: lazy without Dask, best for small windows. `"tiles"`: Dask chunks of a day and a tile. A mapping:
            as in `xarray.Dataset.chunk`.

        Returns
        -------
        Variables (time, y, x), float64, NaN where missing; coordinate `acquired` (time). No pixel is read until values
        are asked for.

        Raises
        ------
        NotFoundError
            An unknown variable or snapshot.
        """
        from geofield.cube.view import open_view

        return open_view(self, variables, start, end, as_of, chunks)


@answering("publish")
def swap(cube: Cube, snapshot: str, expected: str) -> None:
    """Point a cube's branch to a snapshot if it points to `expected`; `LostRaceError` when it does not."""
    repository = cube.repository
    lost = LostRaceError(f"Another writer published box {cube.box_id} first.")
    try:
        with cube.location.lock(cube.box_id):  # on a directory Icechunk's own check is atomic under the lock only
            repository.reset_branch(cube.branch, snapshot, from_snapshot_id=expected)
    except icechunk.IcechunkError as error:
        found = repository.lookup_branch(cube.branch)
        if found == snapshot:
            return  # the answer to a swap that was done was lost on its way
        if found == expected:
            raise unanswered(f"Box {cube.box_id} could not be published", error) from error
        raise lost from error


@answering("read the schema of a cube")
def read_schema(arrays: Arrays) -> Schema:
    """The schema in a group's attributes."""
    value = arrays.group.attrs.get("geofield")
    if not isinstance(value, Mapping):
        raise CorruptStoreError("The group has no attribute `geofield`: it is no cube of geofield.")
    return Schema.from_dict(value)


@answering("read the days of a cube")
def read_head(arrays: Arrays, snapshot: str) -> Head:
    """The days of an open group."""
    found = together({name: arrays[name].async_array.getitem(...) for name in ("time", "acquired")})
    days, acquired = np.asarray(found["time"], dtype=np.int64), np.asarray(found["acquired"], dtype=np.bool_)
    if len(days) != len(acquired) or (len(days) > 1 and not (np.diff(days) == 1).all()):
        raise CorruptStoreError(f"Snapshot {snapshot} does not hold consecutive days.")
    return Head(snapshot, days, acquired)


def half_of(branch: str) -> str:
    """The branch on which the arrays of one beside the present are made, until they are there."""
    return f"{branch}-empty"


def as_date(value: dt.date | str) -> dt.date:
    """A day as people write it: a date, a time (of which the day is taken) or YYYY-MM-DD."""
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    try:
        return dt.date.fromisoformat(value)
    except ValueError as error:
        raise InputError(f"{value!r} is not a day; write YYYY-MM-DD.") from error


def to_day(day: dt.date) -> int:
    """Days since 1970-01-01."""
    return day.toordinal() - dt.date(1970, 1, 1).toordinal()


def to_date(day: int | np.integer[Any]) -> dt.date:
    """The inverse of `to_day`."""
    return dt.date.fromordinal(dt.date(1970, 1, 1).toordinal() + int(day))


def _configuration() -> icechunk.RepositoryConfig:
    time = icechunk.ManifestSplitDimCondition.DimensionName("time")
    small = icechunk.ManifestSplitCondition.name_matches("^(digest|items)$")
    by_time: dict[Any, Any] = {
        small: {time: _CHUNKS_PER_MANIFEST},
        icechunk.ManifestSplitCondition.AnyArray(): {time: _DAYS_PER_MANIFEST},
    }
    config = icechunk.RepositoryConfig.default()
    config.manifest = icechunk.ManifestConfig(
        # by default Icechunk fetches the manifests of coordinates ahead; nobody here asks for those of x and y
        preload=icechunk.ManifestPreloadConfig(max_total_refs=0, preload_if=icechunk.ManifestPreloadCondition.false()),
        # unsplit manifests are rewritten whole by every append
        splitting=icechunk.ManifestSplittingConfig.from_dict(by_time),
    )
    # many shards are asked for at once already; Icechunk 2 would ask for every range of one in five pieces
    config.storage = icechunk.StorageSettings(
        concurrency=icechunk.StorageConcurrencySettings(max_concurrent_requests_for_object=1)
    )
    return config
