"""What happened: questions to the receipts, of which only those of the months in question are listed and read."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from geofield.errors import NotFoundError
from orchestrate.masking import mask_all

if TYPE_CHECKING:
    from geofield import Store

DAYS_BACK = 30
_READERS = 8


def receipts_since(store: Store, since: dt.date, until: dt.date) -> Iterator[dict[str, Any]]:
    """The receipts of runs that started on the days `since` to `until` (UTC), oldest first.

    What is no receipt is passed over. One listing for each month; one read for each run that is in question.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        for prefix in months(since, until):
            keys = [info.key for info in store.location.list(prefix) if _may_be_of(info.key, since, until)]
            read = pool.map(lambda key: _receipt(store, key), keys)
            found = [one for one in read if one is not None and since <= _day(one) <= until]
            yield from sorted(found, key=lambda one: str(one["started"]))


def months(since: dt.date, until: dt.date) -> Iterator[str]:
    """The folders of receipts from the month of `since` to that of `until`."""
    for month in range(since.year * 12 + since.month - 1, until.year * 12 + until.month):
        yield f"runs/{month // 12:04d}/{month % 12 + 1:02d}"


def attempts(receipts: Iterable[Mapping[str, Any]], box: str | None = None) -> Iterator[dict[str, Any]]:
    """One entry for each run and box: days, outcome, what went wrong, how long it took.

    A run that failed before any box was looked at has an entry without a box.

    Yields
    ------
    run_id, started, seconds (None: it never ended), box, outcome, first_day, last_day (of what it appended),
    days_appended, days_amended, rows_written, rows_removed, late_fields, errors (date, kind, message).
    `outcome` is done, nothing (all was there), failed, interrupted, or unfinished.
    """
    for receipt in receipts:
        errors = [one for one in receipt.get("errors") or [] if isinstance(one, dict)]
        boxes = receipt.get("boxes") or {}
        for name, one in boxes.items():
            if box is None or name == box:
                own = [error for error in errors if error.get("box") == name]
                yield _attempt(receipt, name, one, own)
        strays = [error for error in errors if error.get("box") not in boxes]
        if strays and (box is None or any(error.get("box") in (box, None) for error in strays)):
            yield _attempt(receipt, None, {}, strays)


def _attempt(
    receipt: Mapping[str, Any], box: str | None, one: Mapping[str, Any], errors: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    appended = int(one.get("days_appended") or 0)
    return {
        "run_id": receipt["run_id"],
        "started": receipt["started"],
        "seconds": _seconds(receipt) if box is None else round(sum((one.get("seconds") or {}).values()), 3),
        "box": box,
        "outcome": _outcome(receipt, one, errors),
        "first_day": one.get("first_day_appended") if appended else None,
        "last_day": one.get("last_day") if appended else None,
        "days_appended": appended,
        "days_amended": int(one.get("days_amended") or 0),
        "rows_written": int(one.get("rows_written") or 0),
        "rows_removed": int(one.get("rows_removed") or 0),
        "late_fields": int((one.get("late") or {}).get("fields") or 0),
        "errors": [{key: error.get(key) for key in ("date", "kind", "message")} for error in errors],
    }


def _outcome(receipt: Mapping[str, Any], one: Mapping[str, Any], errors: Sequence[Mapping[str, Any]]) -> str:
    kinds = {error.get("kind") for error in errors}
    if kinds - {"interrupted"}:
        return "failed"
    if kinds or any(error.get("kind") == "interrupted" for error in receipt.get("errors") or []):
        return "interrupted"
    if not receipt.get("finished"):
        return "unfinished"
    worked = ("days_appended", "days_amended", "rows_written", "rows_removed")
    return "done" if any(one.get(name) for name in worked) else "nothing"


def by_day(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each box and day that was worked on: how often, how often in vain, why, and which run appended it.

    Returns
    -------
    box, date, attempts, failed, kinds, appended_by (run id, or None), sorted by box and date.
    """
    days: dict[tuple[str, str], dict[str, Any]] = {}

    def at(box: str, date: str) -> dict[str, Any]:
        empty = {"box": box, "date": date, "attempts": 0, "failed": 0, "kinds": [], "appended_by": None}
        return days.setdefault((box, date), empty)

    for entry in entries:
        if entry["box"] is None:
            continue
        for date in _span(entry["first_day"], entry["last_day"]):
            one = at(entry["box"], date)
            one["attempts"] += 1
            one["appended_by"] = entry["run_id"]
        for error in entry["errors"]:
            if error["date"] is None:
                continue
            one = at(entry["box"], error["date"])
            one["attempts"] += 1
            one["failed"] += 1
            one["kinds"] = sorted({*one["kinds"], str(error["kind"])})
    return [days[key] for key in sorted(days)]


def _span(first: str | None, last: str | None) -> Iterator[str]:
    if first is None or last is None:
        return
    start, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    for number in range((end - start).days + 1):
        yield (start + dt.timedelta(days=number)).isoformat()


def _may_be_of(key: str, since: dt.date, until: dt.date) -> bool:
    """False for a receipt whose name tells that it is of another day: ids begin with the time."""
    name = key.rpartition("/")[2]
    if not name.endswith(".json"):
        return False
    digits = name[:8]
    if not digits.isdigit():
        return True
    # the id is made before the start is noted; around midnight they differ
    early, late = (day + dt.timedelta(days=days) for day, days in ((since, -1), (until, 1)))
    return f"{early:%Y%m%d}" <= digits <= f"{late:%Y%m%d}"


def _receipt(store: Store, key: str) -> dict[str, Any] | None:
    try:
        value = json.loads(store.location.read(key))
        if not isinstance(value, dict) or not isinstance(value["run_id"], str):
            return None
        _day(value)
    except (ValueError, KeyError, TypeError, NotFoundError):
        return None
    masked: dict[str, Any] = mask_all(value)
    return masked


def _day(receipt: Mapping[str, Any]) -> dt.date:
    return dt.datetime.fromisoformat(receipt["started"]).astimezone(dt.UTC).date()


def _seconds(receipt: Mapping[str, Any]) -> float | None:
    if not receipt.get("finished"):
        return None
    ended, began = (dt.datetime.fromisoformat(receipt[name]) for name in ("finished", "started"))
    return round((ended - began).total_seconds(), 3)
