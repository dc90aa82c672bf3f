"""Parts of a run, one call each, for schedulers that decide themselves what is done when.

Each is idempotent and safe beside any other run of the same store; each returns a receipt as `run` does, whose errors
are told there and do not raise. What cannot be begun raises.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geofield.errors import GeofieldError, MissingDaysError, SkipError
from orchestrate.boxlist import box_ids
from orchestrate.config import Settings
from orchestrate.config import settings as read_settings
from orchestrate.inboxfiles import KINDS, OPTIONS
from orchestrate.notify import Notifier, send
from orchestrate.run import run
from orchestrate.tenants import StoreFile
from orchestrate.work import Part

if TYPE_CHECKING:
    from geofield import Box, ObjectInfo, Store

FROM_SOURCE = frozenset({"rebuild", "correct", "append"})
FROM_CUBE = frozenset({"remove", "fill_late", "reduce"})
_BEFORE_ALL = dt.date(1970, 1, 1)  # no box lacks days until then
_DAY = dt.timedelta(days=1)
_AT_ONCE = 16


def receive(store: Store, files: int | None = None, settings: Settings | None = None) -> dict[str, Any]:
    """Take what waits in the inbox into the store, at most so many files, and nothing else.

    Returns
    -------
    The receipt; `rejected` has the first rows that were refused.
    """
    return run(store, _BEFORE_ALL, settings=settings, cluster="threads", part=Part(boxes=(), files=files))


def extend_box(
    store: Store, box_id: str, day: dt.date, client: Any = None, settings: Settings | None = None
) -> dict[str, Any]:
    """Append one day to a box with the rows of its fields; amend it and what follows from it when it is there already.

    Parameters
    ----------
    day
        Before the box's start: nothing is done. The cube's next day: it is appended, and as many of the days before it
        as are younger than `look_back` are compared with what the source offers now. A day of the cube: it and those
        after it are compared, and what changed is amended.
    client
        What `orchestrate.cluster.connect` yields.

    Raises
    ------
    MissingDaysError
        Days before it are missing; they are named, and nothing was changed.
    SkipError
        The provider may still be filling the day (`settle_days`).
    """
    held = settings or read_settings()
    box = store.box(box_id)
    last = store.cube(box_id).head().last
    today = dt.datetime.now(dt.UTC).date()
    check_day(box, last, day, today)
    if last is not None and day <= last:
        look_back = (last - day).days + 1
    else:
        look_back = max(0, held.look_back - (today - day).days)
    held = held.model_copy(update={"look_back": look_back})
    until = max(day, box.start - _DAY) + box.settle_days * _DAY
    return run(store, until, client, settings=held, part=Part((box_id,), FROM_SOURCE, files=0))


def check_day(box: Box, last: dt.date | None, day: dt.date, today: dt.date) -> None:
    """Whether a day can be appended now, or was: `MissingDaysError` or `SkipError` says why not. See `extend_box`."""
    following = box.start if last is None else last + _DAY
    if day > following:
        raise MissingDaysError(
            f"Box {box.id}: {day} cannot be appended before the days that it follows from. Missing: {following} to "
            f"{day - _DAY}. Append those first, or wait for the runs that do. Nothing was changed."
        )
    if day >= following and day + box.settle_days * _DAY > today:
        raise SkipError(
            f"Box {box.id}: {day} is appended from {day + box.settle_days * _DAY} on: its provider may still be "
            f"filling it (settle_days: {box.settle_days}). Nothing was changed."
        )


def complete_rows(
    store: Store, box_id: str, day: dt.date, client: Any = None, settings: Settings | None = None
) -> dict[str, Any]:
    """Bring the rows of a box up to date from its stored cube; of `day` and of every other day that lacks some.

    Raises
    ------
    MissingDaysError
        The cube does not hold `day`.
    """
    last = store.cube(box_id).head().last
    if day >= store.box(box_id).start and (last is None or day > last):
        raise MissingDaysError(
            f"Box {box_id}: there are no rows of {day}, since its cube "
            f"{'is empty' if last is None else f'ends on {last}'}. Append the day first. Nothing was changed."
        )
    return _from_cube(store, (box_id,), client, settings)


def fill_fields(
    store: Store, boxes: Sequence[str] | None = None, client: Any = None, settings: Settings | None = None
) -> dict[str, Any]:
    """Give late and corrected fields the rows they lack, from the stored cubes; the source is not asked for anything.

    Parameters
    ----------
    boxes
        Their ids; None: every box of the store.
    """
    return _from_cube(store, None if boxes is None else tuple(boxes), client, settings)


def _from_cube(store: Store, boxes: tuple[str, ...] | None, client: Any, settings: Settings | None) -> dict[str, Any]:
    held = (settings or read_settings()).model_copy(update={"look_back": 0})
    return run(store, _BEFORE_ALL, client, settings=held, part=Part(boxes, FROM_CUBE, files=0))


# --- what a scheduler asks before it launches anything ---------------------------------------------------------------


@dataclass(frozen=True)
class BoxDays:
    """A box as a scheduler sees it.

    Attributes
    ----------
    last
        Day of the cube; None: it is empty.
    due
        The last day that may be appended today; before `start`: none.
    error
        Why the box cannot be read; the rest means nothing then.
    """

    id: str
    start: dt.date = dt.date.max
    last: dt.date | None = None
    due: dt.date = dt.date.min
    error: str | None = None

    @property
    def missing(self) -> list[dt.date]:
        """The days that may be appended today, in their order."""
        if self.error is not None:
            return []
        first = self.start if self.last is None else self.last + _DAY
        return [first + number * _DAY for number in range((self.due - first).days + 1)]


def box_days(store: Store, boxes: Sequence[str] | None = None, today: dt.date | None = None) -> list[BoxDays]:
    """How far boxes are; one that cannot be read says so and holds up none of the others.

    Parameters
    ----------
    boxes
        Their ids; None: every box of the store.
    today
        UTC; what is due is over by then: the day before, less the box's `settle_days`.
    """
    now = today or dt.datetime.now(dt.UTC).date()
    chosen = box_ids(store) if boxes is None else boxes

    def look(box_id: str) -> BoxDays:
        try:
            box = store.box(box_id)
            due = now - max(1, box.settle_days) * _DAY
            return BoxDays(box_id, box.start, store.cube(box_id).head().last, due)
        except (GeofieldError, ValueError, OSError, LookupError) as error:
            return BoxDays(box_id, error=str(error))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(look, chosen))


def inbox_files(store: Store) -> list[ObjectInfo]:
    """The files that wait in the inbox, by a LIST alone: no file is opened, options beside a file are left out."""
    found = (info for kind in KINDS for info in store.location.list(f"inbox/{kind}"))
    return [
        info
        for info in found
        if not info.key.endswith((OPTIONS, "/")) and not any(part.startswith(".") for part in info.key.split("/"))
    ]


def tell_failure(store_url: str, errors: Sequence[Mapping[str, Any]], run_id: str, boxes: Collection[str]) -> int:
    """Tell people of failures by the notifications that the store's settings name; how many messages arrived.

    Parameters
    ----------
    errors
        As a receipt has them: box, date, kind, message.
    boxes
        That were worked on: failures of theirs which are not among `errors` are over.
    """
    file = StoreFile(store_url)
    (tenant,) = file.tenants(file.text(), {}, os.environ)
    urls = [one.get_secret_value() for one in tenant.notify.urls]
    notifier = Notifier(tenant.name, urls, tenant.notify.events, tenant.notify.stale_days, send)
    receipt = {"run_id": run_id, "errors": list(errors), "boxes": {name: {} for name in boxes}}
    return notifier.tell(receipt, tenant.open(), dt.datetime.now(dt.UTC))
