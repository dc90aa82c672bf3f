"""A cube as plain Zarr v3, brought up to date by the days that are new or were made from something else since.

There is no transaction over fixed keys, so the order of writing carries what can be promised:

1. Days that are written again are marked: their `digest` becomes 0.
2. Chunks of the days, then `time`, `acquired` and `digest`.
3. The documents of the arrays, for readers that use no consolidated metadata.
4. The root, which consolidates them, last and with one write.

A reader with consolidated metadata (the default of `xarray.open_zarr`) sees complete days only, whenever it opens, and
what it opened stays readable. A day that is corrected changes under its keys, chunk by chunk; only the cube itself
shows a correction at once. A reader without consolidated metadata may fail between 3 and 4. A writer that was killed
is completed by the next one: what a day was made from is remembered in `digest` after its chunks are written, never
before.

There is one writer at a time where a lock sees to it. Where nothing does, the root does not go backwards: it is only
replaced as it stood before its writer looked at the cube. Whoever finds another one has been overtaken, looks again,
and writes all that it has touched once more (`Doubt`), since its chunks may lie over newer ones.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from geofield.copies.documents import (
    DAY_CAPACITY,
    Layout,
    array_documents,
    day_key,
    days_of,
    decode_days,
    encode,
    is_same_layout,
    root_document,
    to_bytes,
)
from geofield.errors import InputError, LostRaceError, NotFoundError
from geofield.objects import Standing
from geofield.store import Location

_WINDOW = 64
"""Days that are written before the root shows them: so much a killed writer costs."""

_BATCH_BYTES = 32_000_000
_WRITERS = 8
_ROOT = "zarr.json"
_MADE_ANEW = "a copy that is being made anew"  # of no type that Zarr knows: nobody can open it
Days = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ZarrReport:
    """What bringing a copy up to date did.

    Attributes
    ----------
    days, days_written
        Days of the copy; those that were written now.
    objects_written, bytes_written
        Of any kind.
    is_new
        The copy was made from nothing: there was none, or its arrays or pixels were others.
    """

    days: int
    days_written: int
    objects_written: int
    bytes_written: int
    is_new: bool


@dataclass
class Doubt:
    """What a writer that was overtaken has touched, and another one may take for its own.

    Attributes
    ----------
    days
        Steps whose chunks were written.
    is_all
        Everything that stood was removed.
    """

    days: set[int] = field(default_factory=set)
    is_all: bool = False


def look_at_root(location: Location, key: str) -> Standing:
    """The root of the copy at `key`, for `write_zarr`; taken before the cube is looked at."""
    return location.look(f"{key}/{_ROOT}")


def is_made_anew(root: Mapping[str, Any]) -> bool:
    """Whether this root stands where a copy is being made anew, or where that was cut."""
    return root.get("node_type") == _MADE_ANEW


def write_zarr(
    location: Location,
    key: str,
    dataset: xr.Dataset,
    layout: Layout,
    digests: npt.NDArray[np.uint64],
    snapshot: str,
    standing: Standing | None = None,
    doubt: Doubt | None = None,
) -> ZarrReport:
    """Make the copy at `key` show `dataset`.

    Parameters
    ----------
    location, key
        Where the copy lies.
    dataset
        (time, y, x) values of the arrays of `layout`, NaN where missing, one step per date; `acquired` (time) bool.
        Only days that are written are read.
    digests
        (time,) what each day was made from, never 0: equal numbers mean equal values.
    snapshot
        Name of the state of the cube that this is; kept in the root.
    standing
        The root as it was before `dataset` was looked at; default: as it is now.
    doubt
        What earlier calls of the same writer touched that were overtaken; what this one touches is added.

    Raises
    ------
    LostRaceError
        Another writer has replaced the root.
    """
    _check(dataset, layout, digests)
    standing = standing or look_at_root(location, key)
    with ThreadPoolExecutor(_WRITERS, "geofield-copy") as pool:
        writer = _Writer(_Target(location, key, pool, standing.tag), dataset, layout, digests, doubt or Doubt())
        return writer.write(standing.data, snapshot)


def _check(dataset: xr.Dataset, layout: Layout, digests: npt.NDArray[np.uint64]) -> None:
    days = dataset.sizes["time"]
    if digests.shape != (days,) or not digests.all():
        raise InputError(f"A copy of {days} days needs {days} digests that are not 0; got shape {digests.shape}.")
    if days > DAY_CAPACITY:
        raise InputError(f"A copy holds {DAY_CAPACITY} days at most; the cube has {days}.")
    shape = (dataset.sizes["y"], dataset.sizes["x"])
    if shape != layout.shape:
        raise InputError(f"The dataset has {shape} pixels, the layout of its copy {layout.shape}.")


class _Target:
    """The objects of one copy; counts what is written."""

    def __init__(self, location: Location, key: str, pool: ThreadPoolExecutor, tag: str | None) -> None:
        self.location = location
        self.key = key
        self.pool = pool
        self.tag = tag
        """Of the root that stands."""
        self.objects = 0
        self.bytes = 0

    def read(self, name: str) -> bytes | None:
        try:
            return self.location.read(f"{self.key}/{name}")
        except NotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        self.location.write(f"{self.key}/{name}", data)
        self.objects += 1
        self.bytes += len(data)

    def write_root(self, data: bytes) -> None:
        tag = self.location.replace(f"{self.key}/{_ROOT}", data, self.tag)
        if tag is None:
            raise LostRaceError(f"Another writer has brought {self.key} up to date first.")
        self.tag = tag
        self.objects += 1
        self.bytes += len(data)

    def write_all(self, objects: dict[str, bytes]) -> None:
        """In any order; returns when all are safe."""
        list(self.pool.map(lambda one: self.location.write(f"{self.key}/{one[0]}", one[1]), objects.items()))
        self.objects += len(objects)
        self.bytes += sum(len(data) for data in objects.values())

    def names(self, folder: str = "") -> set[str]:
        found = self.location.list(f"{self.key}/{folder}".rstrip("/"))
        return {info.key.removeprefix(f"{self.key}/") for info in found}

    def delete_all(self, names: set[str]) -> None:
        list(self.pool.map(lambda name: self.location.delete(f"{self.key}/{name}"), sorted(names)))


class _Writer:
    """One call of `write_zarr`."""

    def __init__(
        self, target: _Target, dataset: xr.Dataset, layout: Layout, digests: npt.NDArray[np.uint64], doubt: Doubt
    ) -> None:
        self.target = target
        self.dataset = dataset
        self.layout = layout
        self.digests = digests
        self.doubt = doubt
        self.was_overtaken = bool(doubt.days) or doubt.is_all
        self.days: Days = dataset["time"].values.astype("datetime64[D]").astype(np.int64)
        self.root: dict[str, Any] | None = None
        """The root that stands, when the copy is carried on."""
        self.told = np.zeros(DAY_CAPACITY, np.uint64)
        """What the days that stand say that they were made from; 0: not there, or not to be relied on."""
        self.known = self.told.copy()
        """The same, without days that are in doubt."""

    def write(self, root: bytes | None, snapshot: str) -> ZarrReport:
        self._look(_parsed(root))
        is_new = self.root is None
        if is_new:
            self._clear()
        changed = np.flatnonzero(self.known[: len(self.days)] != self.digests)
        for first in range(0, len(changed), _WINDOW):
            self._write_days(changed[first : first + _WINDOW], is_new)
            if first + _WINDOW < len(changed):
                self._show(int(changed[first + _WINDOW - 1]) + 1, None)
        if is_new and not len(changed):
            self._write_coordinates()
        self._show(len(self.days), snapshot)
        return ZarrReport(len(self.days), len(changed), self.target.objects, self.target.bytes, is_new)

    def _look(self, root: dict[str, Any] | None) -> None:
        """Find out what stands."""
        if root is None or self.doubt.is_all:
            return
        if not is_same_layout(root, self.layout) or days_of(root) > len(self.days):
            return
        if days_of(root):
            time, known = (self.target.read(day_key(name)) for name in ("time", "digest"))
            if time is None or known is None or decode_days(self.layout, "time", time)[0] != self.days[0]:
                return
            self.told = decode_days(self.layout, "digest", known)
            self.known = self.told.copy()
            self.known[list(self.doubt.days)] = 0
        self.root = root

    def _clear(self) -> None:
        """Remove what stands, the root first, so that nobody opens what is about to go."""
        names = self.target.names() - {_ROOT}
        if self.target.tag is not None:
            nothing = {"zarr_format": 3, "node_type": _MADE_ANEW, "attributes": {"by": str(uuid.uuid4())}}
            self.target.write_root(to_bytes(nothing))
        self.doubt.is_all = self.doubt.is_all or bool(names)
        self.target.delete_all(names)

    def _write_days(self, steps: Days, is_new: bool) -> None:
        self.doubt.days.update(steps.tolist())
        if self.told[steps].any():
            # Before the first chunk: were the writer killed and the cube then to go back, these days would look done.
            self.known[steps] = 0
            self._write_small("digest", self.known[: self._remembered()])
        before = set() if is_new else self._standing(steps)
        written: set[str] = set()
        for chunks in self._encoded(steps):
            self.target.write_all(chunks)
            written |= chunks.keys()
        self.target.delete_all(before - written)
        self._write_coordinates()
        self.known[steps] = self.digests[steps]
        self._write_small("digest", self.known[: self._remembered()])

    def _remembered(self) -> int:
        """One past the last day of which something is remembered."""
        return int(np.flatnonzero(self.known)[-1]) + 1 if self.known.any() else 0

    def _standing(self, steps: Days) -> set[str]:
        """Chunks of some days that are there."""
        folders = [f"{one.name}/c/{step}" for one in self.layout.arrays for step in steps.tolist()]
        return set().union(*self.target.pool.map(self.target.names, folders))

    def _encoded(self, steps: Days) -> Iterator[dict[str, bytes]]:
        """The chunks of some days, as many at a time as memory allows."""
        rows, columns = self.layout.shape
        height = self.layout.chunk[0]
        length = max(_BATCH_BYTES // (8 * height * columns), 1)
        for one in self.layout.arrays:
            for number, y in enumerate(range(0, rows, height)):
                strip = self.dataset[one.name].isel(y=slice(y, y + height))
                for first, last in _runs(steps, length):
                    values = one.stored(strip.isel(time=slice(first, last)).values)
                    yield encode(self.layout, one.name, values, (first, number, 0))

    def _write_coordinates(self) -> None:
        self._write_small("time", self.days)
        self._write_small("acquired", self.dataset["acquired"].values)
        if self.root is None:
            for axis in ("y", "x"):
                self._write_small(axis, self.dataset[axis].values)

    def _write_small(self, name: str, values: npt.NDArray[Any]) -> None:
        """An array of one chunk, where it differs from what stands."""
        data = encode(self.layout, name, values).get(day_key(name))
        if data == self.target.read(day_key(name)):
            return
        if data is None:
            self.target.location.delete(f"{self.target.key}/{day_key(name)}")
        else:
            self.target.write(day_key(name), data)

    def _show(self, days: int, snapshot: str | None) -> None:
        """Let readers see the first `days` days; None: the snapshot's days are not all there yet."""
        shown = 0 if self.root is None else days_of(self.root)
        named = None if self.root is None else self.root["attributes"].get("geofield:snapshot")
        documents = array_documents(self.layout, max(days, shown))
        root = root_document(self.layout, documents, named if snapshot is None else snapshot)
        standing = {} if self.root is None else self.root["consolidated_metadata"]["metadata"]
        for name, document in documents.items():
            if standing.get(name) != document or self.was_overtaken:
                self.target.write(f"{name}/{_ROOT}", to_bytes(document))
        if root != self.root or self.doubt.days:  # the same bytes too: to learn whether somebody has come between
            self.target.write_root(to_bytes(root))
            self.root = root


def _parsed(data: bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(data) if data is not None else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _runs(steps: Days, length: int) -> Iterator[tuple[int, int]]:
    """Consecutive steps as (first, one past the last), none longer than `length`."""
    for run in np.split(steps, np.flatnonzero(np.diff(steps) != 1) + 1):
        for first in range(int(run[0]), int(run[-1]) + 1, length):
            yield first, min(first + length, int(run[-1]) + 1)
