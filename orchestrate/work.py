"""What exists and what is to be done, as plain values: what planning takes and what it gives."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any, ClassVar

from geofield.errors import GeofieldError


@dataclass(frozen=True)
class BoxExtent:
    """What planning has to know of a box.

    Attributes
    ----------
    pixels, tiles
        Of one day.
    bands
        Bands that one acquisition is read in; None where the source could not say.
    layers
        Arrays of the cube, observations and states.
    """

    id: str
    start: dt.date
    settle_days: int = 0
    pixels: int = 0
    tiles: int = 1
    bands: int | None = None
    layers: int = 1


@dataclass(frozen=True)
class CubeDays:
    """The days that a cube holds: consecutive, from the box's start.

    Attributes
    ----------
    last
        None: the cube is empty.
    """

    first: dt.date | None = None
    last: dt.date | None = None
    acquired: int = 0

    @property
    def days(self) -> int:
        """How many."""
        return 0 if self.first is None or self.last is None else (self.last - self.first).days + 1


@dataclass(frozen=True)
class FieldDays:
    """When a field of a box has rows: from `first` to `last`, both included; no `last`: without end."""

    id: str
    first: dt.date
    last: dt.date | None = None

    def days_between(self, start: dt.date, end: dt.date) -> int:
        """How many of the days `start` to `end` have a row."""
        low = max(self.first, start)
        high = end if self.last is None else min(self.last, end)
        return max(0, (high - low).days + 1)


@dataclass(frozen=True)
class Gap:
    """A field whose rows are not what they should be, within the days that the cube holds.

    Attributes
    ----------
    days
        Rows that are missing or not current.
    first, last
        Of those; None when there are none.
    surplus
        Rows that should not be there: before planting, after harvest, of another version.
    """

    field_id: str
    days: int
    first: dt.date | None
    last: dt.date | None
    surplus: int = 0


@dataclass(frozen=True)
class BoxProgress:
    """How far the rows of a box are.

    Attributes
    ----------
    strays
        Field id -> rows of fields that the box does not have (any more).
    """

    gaps: tuple[Gap, ...] = ()
    strays: dict[str, int] = field(default_factory=dict)
    changed: tuple[dt.date, ...] = ()
    is_pending: bool = False


@dataclass(frozen=True)
class Rates:
    """How long work took before, seconds; None: not known."""

    per_pixel_day: float | None = None
    per_field_day: float | None = None


@dataclass(frozen=True)
class Append:
    """Extend a cube by the days `start` to `end`, both included, and write the rows of the fields that are there.

    Attributes
    ----------
    source_bytes
        Estimate: every pixel of every band, 2 bytes each, on as many days as had imagery so far (all, before there
        is any).
    cube_bytes
        Estimate, before compression.
    """

    action: ClassVar[str] = "append"
    box: str
    start: dt.date
    end: dt.date
    days: int
    tasks: int
    field_days: int
    source_bytes: int | None
    cube_bytes: int
    seconds: float | None = None


@dataclass(frozen=True)
class FillLate:
    """Give fields all their days from the stored cube."""

    action: ClassVar[str] = "fill_late"
    box: str
    fields: tuple[str, ...]
    field_days: int
    seconds: float | None = None


@dataclass(frozen=True)
class Reduce:
    """Write the rows of the days `start` to `end` of some fields again from the stored cube."""

    action: ClassVar[str] = "reduce"
    box: str
    start: dt.date
    end: dt.date
    fields: tuple[str, ...]
    field_days: int
    seconds: float | None = None


@dataclass(frozen=True)
class Rebuild:
    """Build the cube of a box that was changed beside the old one, and swap it in.

    Attributes
    ----------
    days
        That the old cube holds.
    """

    action: ClassVar[str] = "rebuild"
    box: str
    days: int
    tasks: int
    seconds: float | None = None


@dataclass(frozen=True)
class Correct:
    """Amend the days from `start` on whose acquisitions are others than those that the cube was made from.

    Attributes
    ----------
    days
        Of which some tile is made from other inputs, those that only follow from an earlier one included.
    """

    action: ClassVar[str] = "correct"
    box: str
    start: dt.date
    days: int
    seconds: float | None = None


@dataclass(frozen=True)
class Remove:
    """Delete every row of fields that have none in this box (any more)."""

    action: ClassVar[str] = "remove"
    box: str
    fields: tuple[str, ...]
    rows: int
    seconds: float | None = None


Step = Append | Correct | FillLate | Rebuild | Reduce | Remove


def step_to_dict(step: Step) -> dict[str, Any]:
    """A step as JSON has it."""
    values = {name: getattr(step, name) for name in step.__dataclass_fields__}
    return {"action": step.action, **{name: _plain(value) for name, value in values.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, dt.date):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Part:
    """What a run is limited to; by default nothing is left out.

    Attributes
    ----------
    boxes
        Their ids; None: every box.
    actions
        Kinds of steps (`append`, `fill_late`, ...); None: all. What is left out stays for another run.
    files
        So many files of the inbox, boxes first, then those that came first; None: all; 0: it is not looked at.
    """

    boxes: tuple[str, ...] | None = None
    actions: frozenset[str] | None = None
    files: int | None = None

    def takes(self, action: str) -> bool:
        """Whether steps of a kind are done."""
        return self.actions is None or action in self.actions


WHOLE = Part()


@dataclass
class InboxCounts:
    """What reading an inbox came to; `rows` are boxes and fields."""

    files_accepted: int = 0
    files_rejected: int = 0
    rows_accepted: int = 0
    rows_rejected: int = 0


def fault(box: str | None, date: dt.date | None, error: BaseException) -> dict[str, Any]:
    """An error as a receipt has it; `kind` is stable."""
    known = isinstance(error, GeofieldError)
    kind = error.kind if isinstance(error, GeofieldError) else "cluster" if _of_cluster(error) else "unexpected"
    return {
        "box": box,
        "date": None if date is None else date.isoformat(),
        "kind": kind,
        "message": str(error) if known else f"{type(error).__name__}: {error}",
    }


def may_succeed_later(error: BaseException) -> bool:
    """Whether the same call is worth another try."""
    return error.action == "retry" if isinstance(error, GeofieldError) else _of_cluster(error)


def _of_cluster(error: BaseException) -> bool:
    # told by its module: distributed is imported only where a cluster is used
    return type(error).__module__.partition(".")[0] == "distributed"
