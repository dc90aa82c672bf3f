"""What Icechunk raises, as the errors that a caller can act upon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import icechunk
import zarr

from geofield.errors import LostRaceError, unanswered

# Icechunk has one class for everything but a conflict, so that a missing thing is told by what is said of it.
_MISSING = ("doesn't exist", "not exist", "not found", "invalid snapshot id", "does not have a snapshot")


def is_missing(error: icechunk.IcechunkError) -> bool:
    """True when what was asked for is not there, False when the store did not answer."""
    text = str(error).lower()
    return any(words in text for words in _MISSING)


def group_of(session: icechunk.Session, repository: icechunk.Repository | None = None) -> zarr.Group:
    """The group that a session shows, for writing if the session is.

    Icechunk says that a node is not there also when it could not read the snapshot. So the snapshot is read by itself,
    which tells of a store that does not answer, and the group is asked for again.

    Parameters
    ----------
    repository
        Without it the group is known to be there: what does not find it could not read the snapshot.

    Raises
    ------
    FileNotFoundError
        The snapshot holds no group.
    StoreUnavailableError
        The snapshot could not be read.
    """
    mode: Literal["r", "r+"] = "r" if session.read_only else "r+"
    try:
        return zarr.open_group(session.store, mode=mode, zarr_format=3)
    except FileNotFoundError as error:
        if repository is None:
            raise unanswered("Could not read a cube", error) from error
        repository.lookup_snapshot(session.snapshot_id)
        return zarr.open_group(session.store, mode=mode, zarr_format=3)
    except icechunk.IcechunkError as error:  # what its second version makes of it
        raise unanswered("Could not read a cube", error) from error


@contextlib.contextmanager
def answering(doing: str) -> Iterator[None]:
    """Errors of the repository as `LostRaceError`, `AccessError` or `StoreUnavailableError`. Also decorates a function.

    Parameters
    ----------
    doing
        For the message: what was tried.
    """
    try:
        yield
    except icechunk.ConflictError as error:
        raise LostRaceError(f"Another writer was faster: could not {doing}.") from error
    except icechunk.IcechunkError as error:
        raise unanswered(f"Could not {doing}", error) from error
