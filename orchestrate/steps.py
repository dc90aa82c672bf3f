"""The steps of a plan, done in their box: each is tried again when it may succeed later, timed, shown and counted."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import geofield
from orchestrate.crew import Crew
from orchestrate.dashboard import events
from orchestrate.receipt import BoxReceipt
from orchestrate.work import Append, Correct, FillLate, Rebuild, Reduce, Remove, Step, may_succeed_later

if TYPE_CHECKING:
    from geofield import Run, Store
    from orchestrate.config import Settings
    from orchestrate.progress import Progress
    from orchestrate.state import BoxState

DAYS_AT_ONCE = 8
"""Days handed to one call of an append: one window of the pipeline, so that what a failure leaves is accounted for."""
_DAY = dt.timedelta(days=1)

Value = TypeVar("Value")


@dataclass
class BoxResult:
    """What a run did in one box, and what went wrong there.

    Attributes
    ----------
    at
        The day that is being worked on.
    is_disturbed
        Something was tried again, or another writer was at work: rows may be missing that no step wrote.
    """

    receipt: BoxReceipt = field(default_factory=BoxReceipt)
    errors: list[dict[str, Any]] = field(default_factory=list)
    retries: int = 0
    at: dt.date | None = None
    is_disturbed: bool = False


class Retries:
    """How what fails is tried again: as often as the settings say, unless the run is being stopped."""

    def __init__(self, settings: Settings, crew: Crew, progress: Progress) -> None:
        self.limit, self.wait_s, self.crew, self.progress = settings.retries, settings.retry_wait_s, crew, progress

    def call(self, work: Callable[[], Value], result: BoxResult) -> Value:
        """Call, and again, after a wait that doubles, what may succeed later."""
        tries = 0
        while True:
            try:
                return work()
            except Exception as error:
                if not may_succeed_later(error) or tries == self.limit or self.crew.stopping.is_set():
                    raise
                self.wait(tries, str(error))
            tries += 1
            result.retries += 1
            result.is_disturbed = True

    def wait(self, tries: int, reason: str) -> None:
        """The wait after so many tries; who watches is told why."""
        wait = self.wait_s * 2**tries
        self.progress.say(f"trying again in {wait:g} s ({tries + 1} of {self.limit}): {reason}")
        self.crew.wait(wait)


class Steps:
    """What does the steps of one run, in any of its boxes.

    Parameters
    ----------
    work
        The run, for commits and receipts.
    """

    def __init__(self, store: Store, work: Run, crew: Crew, progress: Progress, retries: Retries) -> None:
        self.store, self.work, self.crew, self.progress, self.retries = store, work, crew, progress, retries

    def do(self, step: Step, state: BoxState, result: BoxResult) -> None:
        """One step other than a rebuild, which changes the state that the others stand on."""
        if isinstance(step, Append):
            self._append(step, state, result)
        elif isinstance(step, Remove):
            self._remove(step, state, result)
        elif isinstance(step, Correct):
            self._correct(step, state, result)
        elif isinstance(step, FillLate | Reduce):
            self._fill(step, state, result)

    def rebuild(self, step: Step, result: BoxResult) -> None:
        """A new cube for a box that was changed, swapped in when it is complete."""
        from geofield.pipeline import rebuild_cube

        store, box_id = self.store, step.box
        box = store.pending_change(box_id)
        if box is None or not isinstance(step, Rebuild):
            return
        where = box, geofield.open_source(box.source), store.cube(box_id), store.results(box_id), self.work
        with self._shown(f"{box_id}: new cube", step.days, "days"), _timed(result.receipt, "rebuild"):
            report = self.retries.call(partial(rebuild_cube, *where, self.progress.advance), result)
        store.finish_change(box)
        result.receipt.add_append(replace(report, days_appended=0, days_present=0))
        result.receipt.days_amended += report.days_appended

    def _append(self, step: Append, state: BoxState, result: BoxResult) -> None:
        from geofield.pipeline import append_days

        store, box_id = self.store, step.box
        source, cube, results = store.source(box_id), state.cube_of, state.results
        with self._shown(f"{box_id}: days", step.days, "days"), _timed(result.receipt, "append"):
            for first, last in spans(step.start, step.end, DAYS_AT_ONCE):
                if self.crew.stopping.is_set():
                    break
                result.at, tried = first, result.retries
                report = self.retries.call(
                    partial(append_days, first, last, source, state.ready, cube, results, self.work), result
                )
                result.receipt.add_append(report)
                result.receipt.note_days(first, last, report.days_appended)
                if report.days_present and result.retries > tried:
                    # published by the try whose rows then failed
                    result.receipt.days_appended += report.days_present
                result.is_disturbed |= bool(report.days_present)
                result.receipt.pixel_days += report.days_appended * state.box.pixels
                self.progress.advance(days_between(first, last))
                events.counts(self.work.id, box_id, result.receipt)

    def _fill(self, step: FillLate | Reduce, state: BoxState, result: BoxResult) -> None:
        import numpy as np

        from geofield.pipeline import fill_late_fields, reduce_days

        wanted = set(step.fields)
        places = [number for number, name in enumerate(state.ready.columns.ids) if name in wanted]
        fields = state.ready.take(np.array(places, dtype=np.int64))
        where = fields, state.cube_of, state.results, self.work
        with self._shown(f"{step.box}: late fields", len(fields), "fields"), _timed(result.receipt, "late"):
            if isinstance(step, Reduce):
                report = self.retries.call(partial(reduce_days, step.start, step.end, *where), result)
                self.progress.advance(len(fields))
            else:
                report = self.retries.call(partial(fill_late_fields, *where, self.progress.advance), result)
        result.receipt.add_fill(report, mended=isinstance(step, Reduce))
        events.counts(self.work.id, step.box, result.receipt)

    def _correct(self, step: Correct, state: BoxState, result: BoxResult) -> None:
        from geofield.pipeline import correct_days

        store, box_id = self.store, step.box
        where = store.source(box_id), state.ready, state.cube_of, state.results, self.work
        result.at = step.start
        with self._shown(f"{box_id}: corrections", step.days, "days"), _timed(result.receipt, "correct"):
            result.receipt.add_append(self.retries.call(partial(correct_days, step.start, *where), result))
            self.progress.advance(step.days)
        events.counts(self.work.id, box_id, result.receipt)

    def _remove(self, step: Remove, state: BoxState, result: BoxResult) -> None:
        remove = partial(state.results.remove, step.fields, self.work.metadata("remove", []))
        result.receipt.rows_removed += self.retries.call(remove, result)

    @contextlib.contextmanager
    def _shown(self, what: str, total: int, unit: str) -> Iterator[None]:
        self.progress.begin(what, total, unit)
        events.begin(self.work.id, what, total, unit)
        try:
            yield
        finally:
            events.over(self.work.id, what)
            self.progress.end()


def spans(start: dt.date, end: dt.date, days: int) -> Iterator[tuple[dt.date, dt.date]]:
    """`start` to `end` in pieces, each (first, last)."""
    first = start
    while first <= end:
        last = min(end, first + (days - 1) * _DAY)
        yield first, last
        first = last + _DAY


@contextlib.contextmanager
def _timed(receipt: BoxReceipt, kind: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        receipt.seconds[kind] = round(receipt.seconds.get(kind, 0.0) + time.perf_counter() - began, 3)


def days_between(first: dt.date, last: dt.date) -> int:
    """Both included; none where the first comes after the last."""
    return max(0, (last - first).days + 1)
