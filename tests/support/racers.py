"""What the processes of a race do. They live here so that a child can import them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from geofield.cube import attempt
from geofield.pipeline import append_days, correct_days, fill_late_fields
from geofield.results.rows import Results
from geofield.table import Table
from tests.support import children
from tests.support.workload import (
    FIELDS,
    LATE,
    START,
    Work,
    check_cube,
    check_rows,
    day,
    fields_of,
    in_this_thread,
    persistently,
    source,
)


def race_to_append(url: str, first: int, last: int, scenes: Mapping[int, int]) -> int:
    """How many days this process published."""
    work, fields = Work(url), fields_of(**FIELDS)
    call = partial(append_days, day(first), day(last), source(scenes), fields, work.cube, work.results)
    with in_this_thread():
        return int(persistently(call).days_appended)


def race_to_correct(url: str, scenes: Mapping[int, int]) -> int:
    """How many days this process amended."""
    work, fields = Work(url), fields_of(**FIELDS)
    with in_this_thread():
        return int(
            persistently(lambda: correct_days(START, source(scenes), fields, work.cube, work.results)).days_amended
        )


def race_to_fill(url: str) -> int:
    """Zero: nothing of the cube changes."""
    work = Work(url)
    with in_this_thread():
        persistently(lambda: fill_late_fields(fields_of(**LATE), work.cube, work.results))
    return 0


def read_on(url: str) -> int:
    """Read everything again and again until told to end; how often. Any error, or half a day, comes out."""
    held = Work(url).cube.open()
    before = held["ndvi"].values
    days, number = 0, 0
    children.say("reading")
    while not children.is_told():
        # rows are committed after the cube that they come from, so they are read first
        rows = Work(url).results.read()
        check_rows(rows)
        found = check_cube(Work(url).cube)
        assert len(found) >= days, "a day is gone"
        days = len(found)
        assert not len(rows) or rows["date"].max() <= day(days), "rows of a day that is not in the cube"
        number += 1
    assert np.array_equal(held["ndvi"].values, before, equal_nan=True), "what was held open changed"
    return number


# --- processes that are stopped --------------------------------------------------------------------------------------

STEPS: dict[str, tuple[Any, str]] = {
    "grow": (attempt.Attempt, "grow"),
    "begin": (attempt.Attempt, "begin"),
    "write": (attempt.Attempt, "write"),
    "amend": (attempt.Attempt, "amend"),
    "publish": (attempt.Attempt, "publish"),
    "swap": (attempt, "swap"),
    "rows": (Results, "commit"),
    "look": (Table, "open"),
    "commit": (Table, "commit"),
}


def stop_at(step: str, moment: str, run: Callable[..., Any], *arguments: Any) -> Any:
    """Do something in a process that stops itself the first time it comes to a step, `before` or `after` it."""
    owner, name = STEPS[step]
    call = getattr(owner, name)
    stopped: list[str] = []

    def stopping(*values: Any, **named: Any) -> Any:
        if moment == "before" and not stopped:
            _stop(stopped)
        result = call(*values, **named)
        if moment == "after" and not stopped:
            _stop(stopped)
        return result

    setattr(owner, name, stopping)
    try:
        return run(*arguments)
    finally:
        if not stopped:
            children.say("never came there")


def _stop(stopped: list[str]) -> None:
    stopped.append("now")
    children.say("stopping")
    os.kill(os.getpid(), signal.SIGSTOP)
