"""What a person sees while a run is at work. Everything goes to stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from orchestrate.logs import is_json
from orchestrate.masking import mask

if TYPE_CHECKING:
    from rich.progress import TaskID

_LOG = logging.getLogger(__name__)
_EVERY_S = 5.0
_BARS = 12
_TELLING_S = 0.5  # what took less says nothing about a rate
_LONG_S = 120


class Progress(Protocol):
    """What a run tells while it works. Several threads tell it; each has one piece of work at a time."""

    def say(self, text: str) -> None:
        """A line worth reading."""

    def begin(self, what: str, total: int, unit: str) -> None:
        """A piece of work of `total` units begins: `what` names it, e.g. the box."""

    def advance(self, done: int) -> None:
        """`done` more units of it are finished."""

    def end(self) -> None:
        """It is over, done or not."""

    def boxes(self, done: int, total: int) -> None:
        """So many of all boxes are finished, whichever thread worked on them."""


class Silent:
    """Tells nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def begin(self, what: str, total: int, unit: str) -> None:
        """Nothing."""

    def advance(self, done: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    def boxes(self, done: int, total: int) -> None:
        """Nothing."""


class _Piece(threading.local):
    """What a thread is at."""

    what = unit = ""
    done = total = 0
    began = told = 0.0
    task: TaskID | None = None

    def __str__(self) -> str:
        return f"{self.what}: {self.done} of {self.total} {self.unit}"


def pace(done: int, total: int, unit: str, seconds: float) -> str:
    """Such as `, 3.2 days/s, 40 s left`; nothing before something is done, or at once."""
    if not done or seconds < _TELLING_S:
        return ""
    rate = done / seconds
    told = f", {rate:.3g} {unit}/s" if rate >= 1 else f", {60 * rate:.3g} {unit}/min"
    left = (total - done) / rate
    if done >= total:
        return told
    return f"{told}, {left:.0f} s left" if left < _LONG_S else f"{told}, {left / 60:.0f} min left"


class Lines:
    """Plain lines, for logs: when something begins, every few seconds, and when it is over."""

    def __init__(self) -> None:
        self._own = _Piece()
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        return None

    def say(self, text: str) -> None:
        """One line."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def begin(self, what: str, total: int, unit: str) -> None:
        """Remember what is going on."""
        own = self._own
        own.what, own.unit, own.total, own.done = what, unit, total, 0
        own.began = own.told = time.monotonic()

    def advance(self, done: int) -> None:
        """Tell where it stands, not too often."""
        own = self._own
        own.done += done
        if time.monotonic() - own.told >= _EVERY_S and own.done < own.total:
            own.told = time.monotonic()
            self.say(self._line())

    def end(self) -> None:
        """Tell how far it came."""
        self.say(self._line())

    def boxes(self, done: int, total: int) -> None:
        """Tell it, not too often."""
        now = time.monotonic()
        if now - self._told >= _EVERY_S and done < total:
            self._told = now
            self.say(f"{done} of {total} boxes{pace(done, total, 'boxes', now - self._began)}")

    def _line(self) -> str:
        own = self._own
        return f"{own}{pace(own.done, own.total, own.unit, time.monotonic() - own.began)}"


class Logged(Lines):
    """The same, by way of the log."""

    def say(self, text: str) -> None:
        """One line."""
        _LOG.info("%s", text)


class Bars:
    """Progress bars of a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress
        from rich.text import Text

        class _Pace(ProgressColumn):
            def render(self, task: Any) -> Text:
                told = pace(int(task.completed), int(task.completed), task.fields["unit"], task.elapsed or 0.0)
                return Text(told.removeprefix(", "))

        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            _Pace(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._own = _Piece()
        self._finished: list[TaskID] = []
        self._boxes: TaskID | None = None

    def __enter__(self) -> Self:
        self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rich.stop()

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._rich.console.print(mask(text), markup=False, highlight=False)

    def begin(self, what: str, total: int, unit: str) -> None:
        """A new bar."""
        self._own.task = self._rich.add_task(what.replace("[", r"\["), total=total, unit=unit)

    def advance(self, done: int) -> None:
        """Move the bar."""
        if self._own.task is not None:
            self._rich.advance(self._own.task, done)

    def end(self) -> None:
        """Leave the bar as it stands."""
        if self._own.task is not None:
            self._rich.stop_task(self._own.task)
            self._finished.append(self._own.task)
            self._own.task = None
        self._forget()

    def boxes(self, done: int, total: int) -> None:
        """One bar for all boxes, where there are several."""
        if total < 2:
            return
        if self._boxes is None:
            self._boxes = self._rich.add_task("boxes", total=total, unit="boxes")
        self._rich.update(self._boxes, completed=done)

    def _forget(self) -> None:
        if len(self._finished) > _BARS:  # more boxes than a terminal has lines
            with contextlib.suppress(IndexError):  # another thread was faster
                self._rich.remove_task(self._finished.pop(0))


def for_people(as_json: bool) -> Any:
    """Bars on a terminal; lines of the log elsewhere, with --json and where the log is JSON."""
    return Bars() if sys.stderr.isatty() and not as_json and not is_json() else Logged()
