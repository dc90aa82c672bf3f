"""What a check found, in words for the person who has to act."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import icechunk
import pyarrow as pa
from deltalake.exceptions import DeltaError
from shapely.errors import ShapelyError

from geofield.cube.cube import to_date
from geofield.errors import GeofieldError

Severity = Literal["broken", "unfinished", "note"]

UNREADABLE = (
    GeofieldError, icechunk.IcechunkError, DeltaError, pa.ArrowException, ShapelyError, ValueError, LookupError,
    TypeError, OSError,
)  # fmt: skip
"""What reading something damaged may raise."""

_SHOWN = 5
_TRY_AGAIN = "Try again; if it stays so, bring these objects back from a copy of the store."


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes
    ----------
    box
        The box, None for what belongs to the whole store.
    invariant
        `I1` to `I9` of the storage design, or `box`, `cube`, `rows`, `fields`, `copies`, `receipts`: what cannot be
        read or does not fit together.
    severity
        `broken`: an invariant does not hold, and nothing but a person mends it. `unfinished`: what a crash, or a run
        that is at work now, leaves behind; the next run or a repair completes it. `note`: nothing is wrong.
    found, advice
        What was found, and what to do.
    repaired
        It was mended, and a second look did not find it again.
    """

    box: str | None
    invariant: str
    severity: Severity
    found: str
    advice: str
    repaired: bool = False

    @property
    def is_open(self) -> bool:
        """True for what is wrong now."""
        return self.severity != "note" and not self.repaired


def unreadable(box: str | None, invariant: str, what: str, error: Exception) -> Finding:
    """Something cannot be read."""
    return Finding(box, invariant, "broken", f"{what} cannot be read: {error}", _TRY_AGAIN)


def listed(values: Sequence[object]) -> str:
    """`1 day` is said in full, many are counted: `a, b and 7 more`."""
    shown = ", ".join(str(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown} and {len(values) - _SHOWN:,} more"


def day_list(days: Iterable[int]) -> str:
    """Days since 1970-01-01 as dates."""
    return listed([to_date(day) for day in sorted(set(days))])


def date_list(dates: Iterable[dt.date]) -> str:
    """Dates, each once and in order."""
    return listed(sorted(set(dates)))
