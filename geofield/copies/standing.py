"""Whole objects that a publisher brings up to date, which never go back to an older state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from geofield.errors import LostRaceError
from geofield.store import Location


class Objects:
    """Some objects as they stood before their publisher looked at what they show.

    They are replaced as they stood then only: what another publisher has put there since may show a newer state.

    Parameters
    ----------
    location, keys
        The objects; all are read.
    """

    def __init__(self, location: Location, keys: Iterable[str]) -> None:
        self._location = location
        self._found: dict[str, tuple[str | None, bytes]] = {}
        for key in keys:
            standing = location.look(key)
            self._found[key] = (standing.tag, _digest(standing.data or b""))  # images are too large to be kept

    def is_there(self, key: str) -> bool:
        """Whether there was an object."""
        return self._found[key][0] is not None

    def put(self, key: str, data: bytes) -> bool:
        """Write an object unless these bytes are there; True when they are new.

        Raises
        ------
        LostRaceError
            Another one has been put there since.
        """
        tag, digest = self._found[key]
        if tag is not None and digest == _digest(data):
            return False
        new = self._location.replace(key, data, tag)
        if new is None:
            raise LostRaceError(f"Another publisher has brought {key} up to date first.")
        self._found[key] = (new, _digest(data))
        return True

    def remove(self, key: str) -> None:
        """Remove an object; nothing happens when there was none.

        Raises
        ------
        LostRaceError
            Another one has been put there since.
        """
        tag = self._found[key][0]
        if tag is None:
            return
        if self._location.look(key).tag != tag:  # S3 removes unconditionally
            raise LostRaceError(f"Another publisher has brought {key} up to date first.")
        self._location.delete(key)
        self._found[key] = (None, b"")


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
