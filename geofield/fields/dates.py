"""Days as people write them: ISO 8601 YYYY-MM-DD is taken, whatever could be read in two ways is refused."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from geofield.fields.names import MISSING, NAMES, REFUSED, near_misses, shown
from geofield.fields.rawrows import RawRows
from geofield.fields.report import Objects

FIRST_DAY = dt.date(1970, 1, 1)
"""No satellite image of land is older."""
YEARS_AHEAD = 100

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d([.,]\d+)?)?\s?(Z|z|[+-]\d{2}(:?\d{2})?)?", re.ASCII
)
_PARTS = re.compile(r"(\d{1,2})[/.\-](\d{1,2})[/.\-](\d{4}|\d{2})", re.ASCII)
WRITE = "write YYYY-MM-DD"


@dataclass(frozen=True)
class Day:
    """A day read from a cell: the day, or the rule it breaks, and what was left out."""

    day: dt.date | None = None
    rule: str | None = None
    reason: str | None = None
    note: str | None = None


def judge_planting(raw: RawRows, default: dt.date | str | None, today: dt.date) -> Objects:
    """(n,) day of planting; None where a row is refused, or where `default` is the box's start."""
    days = _judge(raw, "planting_date", today)
    fallback = default if isinstance(default, dt.date) else None
    for row, value in enumerate(raw.cells["planting_date"]):
        if not _is_absent(value):
            continue
        if default is not None:
            days[row] = fallback
        else:
            raw.report.refuse(row, "no_planting_date", _missing(value, raw))
    for row, day in enumerate(days):
        if day is not None and day > today:
            raw.report.note(row, "planted_in_future", f"planting_date {day} lies ahead: there are no rows until then")
    return days


def judge_harvest(raw: RawRows, planting: Objects, today: dt.date) -> Objects:
    """(n,) day of harvest or None; a harvest before planting is refused."""
    days = _judge(raw, "harvest_date", today)
    for row, (planted, harvested) in enumerate(zip(planting, days, strict=True)):
        if harvested is not None and planted is not None and harvested < planted:
            raw.report.refuse(
                row, "harvest_before_planting", f"harvest_date {harvested} is before planting_date {planted}"
            )
    return days


def judge_arrival(raw: RawRows) -> Objects:
    """(n,) time of arrival (aware; UTC when no zone is given) or None."""
    times = np.empty(len(raw), dtype=object)
    for row, value in enumerate(raw.cells["arrival"]):
        if value is REFUSED or _is_absent(value):
            continue
        time = _time(value)
        if time is None:
            reason = f"arrival_time {shown(value)} is no time: write YYYY-MM-DDThh:mm:ssZ"
            raw.report.refuse(row, "bad_arrival_time", reason)
        else:
            times[row] = time
    return times


def _time(value: Any) -> dt.datetime | None:
    if isinstance(value, str) and (_DAY.fullmatch(value) or _TIME.fullmatch(value)):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
    elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if not isinstance(value, dt.datetime):
        return None
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value


def _is_absent(value: Any) -> bool:
    return value is MISSING or value is None or (isinstance(value, str) and not value.strip())


def _missing(value: Any, raw: RawRows) -> str:
    help_ = "give one for all such fields with --planting-date (a day, or box-start)"
    if value is None:
        return f"planting_date is null: {help_}"
    if value is not MISSING:
        return f"planting_date is empty: {help_}"
    near = near_misses("planting_date", raw.columns)
    there = f"; there is {', '.join(map(repr, near))}, which is no known spelling" if near else ""
    return f"no planting_date{there}: {help_}"


def _judge(raw: RawRows, role: str, today: dt.date) -> Objects:
    days = np.empty(len(raw), dtype=object)
    known: dict[Any, Day] = {}
    for row, value in enumerate(raw.cells[role]):
        if value is REFUSED or _is_absent(value):
            continue
        if not isinstance(value, (str, dt.date)):
            read = _not_text(value, NAMES[role])
        elif value in known:
            read = known[value]
        else:
            read = known[value] = read_day(value, NAMES[role], today)
        days[row] = read.day
        if read.rule is not None and read.reason is not None:
            raw.report.refuse(row, read.rule, read.reason)
        if read.note is not None:
            raw.report.note(row, "time_left_out", read.note)
    return days


def read_day(value: str | dt.date, word: str, today: dt.date) -> Day:
    """The day that a text, date or time says; `word` names it in messages."""
    note = None
    if isinstance(value, dt.datetime):
        day = value.date()
        if value.time() != dt.time(0):
            note = f"{word} {value.isoformat()}: {day} is taken, the time is left out"
    elif isinstance(value, dt.date):
        day = value
    else:
        timed = _TIME.fullmatch(value)
        text = timed[1] if timed else value
        if not _DAY.fullmatch(text):
            return Day(rule=f"bad_{word}", reason=_unreadable(value, word))
        try:
            day = dt.date.fromisoformat(text)
        except ValueError:
            return Day(rule=f"bad_{word}", reason=f"{word} {value} is not a day")
        if timed:
            note = f"{word} {value}: {day} is taken, the time is left out"
    if day < FIRST_DAY:
        return Day(rule=f"{word}_too_early", reason=f"{word} {day} is before any image ({FIRST_DAY})")
    if day.year > today.year + YEARS_AHEAD:
        return Day(rule=f"{word}_too_late", reason=f"{word} {day} is too far ahead (more than {YEARS_AHEAD} years)")
    return Day(day, note=note)


def _not_text(value: Any, word: str) -> Day:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Day(rule=f"bad_{word}", reason=f"{word} is a number ({shown(value)}): {WRITE} as text")
    return Day(rule=f"bad_{word}", reason=f"{word} is {shown(value)}: {WRITE} as text")


def _unreadable(text: str, word: str) -> str:
    parts = _PARTS.fullmatch(text.strip())
    if parts and len(parts[3]) == 4:
        first, second = int(parts[1]), int(parts[2])
        if first != second and 1 <= first <= 12 and 1 <= second <= 12:
            readings = [f"{day} {dt.date(2000, month, 1):%B}" for day, month in ((first, second), (second, first))]
            return f"{word} {text} is {readings[0]} or {readings[1]}: {WRITE}"
    return f"{word} {shown(text)} is no ISO day: {WRITE}" if len(text) > 60 else f"{word} {text!r}: {WRITE}"
