"""The arrays of a cube in one of its states."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import icechunk
import zarr

from geofield.cube.failures import group_of
from geofield.cube.layout import ShardLayout, layout_of
from geofield.errors import CorruptStoreError


class Arrays:
    """The arrays of an open group, by name. To look one up takes a third of a millisecond: it is done once for each.

    An array that is lengthened through this is longer for all who share it; what lengthens it elsewhere is not seen.
    Threads may share it.
    """

    def __init__(self, group: zarr.Group) -> None:
        self.group = group
        self._found: dict[str, zarr.Array[Any]] = {}
        self._layouts: dict[str, ShardLayout | None] = {}

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        """`CorruptStoreError` when there is no such array."""
        if name not in self._found:
            member = self.group.get(name)
            if not isinstance(member, zarr.Array):
                raise CorruptStoreError(f"The cube has no array {name!r}.")
            self._found[name] = member
        return self._found[name]

    def layout(self, name: str) -> ShardLayout | None:
        """How the array's shards lie; None when zarr alone knows how to read them."""
        if name not in self._layouts:
            self._layouts[name] = layout_of(self[name])
        return self._layouts[name]


class Writer:
    """A session, and the arrays that are read and written through it.

    Pickled it takes along the session alone.
    """

    def __init__(self, session: icechunk.Session) -> None:
        self.session = session

    def __reduce__(self) -> tuple[Any, ...]:
        return Writer, (self.session,)

    @cached_property
    def arrays(self) -> Arrays:
        """Looked up when they are first asked for."""
        return Arrays(group_of(self.session))
