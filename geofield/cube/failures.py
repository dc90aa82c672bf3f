"""What Icechunk raises, as the errors that a caller can act upon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import icechunk

from geofield.errors import LostRaceError, unanswered

# Icechunk has one class for everything but a conflict, so that a missing thing is told by what is said of it.
_MISSING = ("doesn't exist", "not exist", "not found", "invalid snapshot id", "does not have a snapshot")


def is_missing(error: icechunk.IcechunkError) -> bool:
    """True when what was asked for is not there, False when the store did not answer."""
    text = str(error).lower()
    return any(words in text for words in _MISSING)


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
