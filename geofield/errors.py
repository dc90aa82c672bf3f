"""Every error geofield raises, grouped by what the caller does next.

A message says what was asked, what was found, and what to do. `kind` is stable: receipts, metrics and retry
policies key on it.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import ClassVar, Literal

Action = Literal["retry", "skip", "fix", "stop"]


class GeofieldError(Exception):
    """The root. `action` says what the caller does next, `kind` names the error in receipts."""

    action: ClassVar[Action] = "stop"
    kind: ClassVar[str] = "error"


# --- retry: the same call may succeed later -------------------------------------------------------------------------


class TransientError(GeofieldError):
    """The same call may succeed if it is made again."""

    action = "retry"
    kind = "transient"


class SourceUnavailableError(TransientError, OSError):
    """The imagery or its catalogue did not answer."""

    kind = "source_unavailable"


class StoreUnavailableError(TransientError, OSError):
    """The store did not answer."""

    kind = "store_unavailable"


class LostRaceError(TransientError):
    """Another writer published first; look again and go on from what stands there now."""

    kind = "lost_race"


# --- skip: this one cannot be done, the others can -------------------------------------------------------------------


class SkipError(GeofieldError):
    """This item cannot be done now; the others can."""

    action = "skip"
    kind = "skip"


class MissingDaysError(SkipError, ValueError):
    """A day was to be appended on top of days that are not there."""

    kind = "missing_days"


class MissingBandError(SkipError, LookupError):
    """A band that a variable needs is not there for a day."""

    kind = "missing_band"


class UnreadableFileError(SkipError, OSError):
    """A file of imagery is missing, or it is there and cannot be decoded."""

    kind = "unreadable_file"


# --- fix: the caller's input is wrong ---------------------------------------------------------------------------------


class InputError(GeofieldError, ValueError):
    """What the caller gave is wrong; the message says what to change."""

    action = "fix"
    kind = "input"


class BoxError(InputError):
    """A box or its file is wrong."""

    kind = "box"


class FieldFileError(InputError):
    """A file of fields cannot be read at all."""

    kind = "field_file"


class GridError(InputError):
    """A grid cannot be made, or two grids do not fit."""

    kind = "grid"


class CrsError(InputError):
    """A CRS is missing or unknown."""

    kind = "crs"


class RecipeError(InputError):
    """A variable asks for something that does not exist."""

    kind = "recipe"


class StatisticError(InputError):
    """A statistic's name is unknown or its argument is wrong."""

    kind = "statistic"


class SourceError(InputError):
    """A source's settings are wrong."""

    kind = "source"


class ConfigurationError(InputError):
    """A setting is missing or wrong."""

    kind = "configuration"


class AccessError(ConfigurationError, OSError):
    """The credentials are missing, or they do not allow what was asked."""

    kind = "access"


class NotFoundError(InputError, LookupError):
    """What was asked for by name is not in the store."""

    kind = "not_found"


# --- stop: nothing more should be written -----------------------------------------------------------------------------


class StoreError(GeofieldError):
    """The store is not what geofield needs or expects."""

    kind = "store"


class UnsafeStoreError(StoreError):
    """The store cannot give a guarantee that every commit relies on."""

    kind = "unsafe_store"


class CorruptStoreError(StoreError):
    """What is stored breaks an invariant."""

    kind = "corrupt_store"


# --- from other libraries' errors -----------------------------------------------------------------------------------

_DENIED = ("AccessDenied", "403 Forbidden", "lacked the necessary privileges", "InvalidAccessKeyId",
           "SignatureDoesNotMatch", "NoCredentials", "Unable to locate credentials")  # fmt: skip


_CLOSED = ("os error 13)", "os error 30)", "os error 1)")  # how Rust's libraries end EACCES, EROFS and EPERM
FORBIDDING = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""Numbers of the system's errors with which it says that a file is not for this user."""


def forbidden(what: str) -> AccessError:
    """The error for files that the system keeps from this user; `what` begins the message."""
    return AccessError(
        f"{what}. Give this user the right to read and write everything in the store, or work as the user who owns it."
    )


def unanswered(what: str, error: Exception) -> GeofieldError:
    """The error for a store that did not do what it was asked: no access, or try again.

    Parameters
    ----------
    what
        The beginning of the message: what was asked of whom.
    error
        What a library raised; of some there is only the text to tell them apart.
    """
    told = str(error).rstrip(".")
    if any(word in told for word in _DENIED):
        return AccessError(f"{what}: {told}. Check the credentials and the bucket's policy.")
    if any(word in told for word in _CLOSED):
        return forbidden(f"{what}: {told}")
    return StoreUnavailableError(f"{what}: {told}. Try again; nothing was lost.")


# --- what there is instead ------------------------------------------------------------------------------------------

_NEAR = 8


def there_is(asked: str, known: Collection[str]) -> str:
    """The end of a message about a name that is not known: those near to it, or the first of those there are."""
    import difflib

    if not known:
        return "There is none yet."
    if near := difflib.get_close_matches(asked, known, _NEAR):
        return f"Near it: {', '.join(near)}."
    first = sorted(known)[:_NEAR]
    rest = len(known) - len(first)
    return f"There {'is' if len(known) == 1 else 'are'} {', '.join(first)}{f' and {rest:,} more' if rest else ''}."
