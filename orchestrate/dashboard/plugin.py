"""What the scheduler knows of the run it works for: tasks by box and kind, and what the run tells."""

from __future__ import annotations

import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from orchestrate.dashboard.events import TOPIC

NAME = "geofield"
_KEY = re.compile(r"^(?P<kind>[a-z_]+)-\((?P<box>[A-Za-z0-9._-]{1,64}) ")
_SAMPLES, _SAMPLE_S = 1800, 1.0
_BOXES = 2000  # remembered at most; the ones told of longest ago are dropped


@dataclass
class BoxWork:
    """A box as the run and its tasks tell of it.

    Attributes
    ----------
    doing
        What is going on: `days`, `late fields`, ...; empty when nothing is.
    days_total, days
        To append or amend in this run, and done.
    late_in_work
        Fields that are being filled from the cube.
    tasks
        State of Dask -> how many tasks, those in work or to come.
    done, failed
        Tasks.
    """

    doing: str = ""
    days_total: int = 0
    days: int = 0
    late_in_work: int = 0
    late_fields: int = 0
    rows: int = 0
    source_bytes: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    done: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Sample:
    """Totals at a time (seconds)."""

    at: float
    days: int
    source_bytes: int
    tasks: int


class Work(SchedulerPlugin):
    """Counts what goes on, by box. Costs a dictionary entry for each task that is not done."""

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.run = ""
        self.boxes: dict[str, BoxWork] = {}
        self.kinds: dict[str, int] = {}
        self.samples: deque[Sample] = deque(maxlen=_SAMPLES)
        self._tasks: dict[Any, tuple[str, str]] = {}
        self._scheduler: Any = None

    async def start(self, scheduler: Any) -> None:
        """Called by Dask."""
        self._scheduler = scheduler

    # --- tasks -------------------------------------------------------------------------------------------------------

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, **kwargs: Any) -> None:
        """A task goes from one state to another; called by Dask."""
        known = self._tasks.get(key)
        if known is None:
            known = self._recognise(key)
            if known is None:
                return
            self._tasks[key] = known
            start = None
        kind, box = known
        work = self._box(box)
        if start in work.tasks:
            work.tasks[start] = max(0, work.tasks[start] - 1)
        if finish == "memory" and start == "processing":
            work.done += 1
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
        elif finish == "erred":
            work.failed += 1
        if finish in ("forgotten", "memory", "erred", "released"):
            if finish == "forgotten":
                del self._tasks[key]
            return
        work.tasks[str(finish)] = work.tasks.get(str(finish), 0) + 1

    def _recognise(self, key: Any) -> tuple[str, str] | None:
        """(kind, box) of a task of geofield: from its annotations, else from its name."""
        task = None if self._scheduler is None else self._scheduler.tasks.get(key)
        said = (getattr(task, "annotations", None) or {}).get("geofield")
        if isinstance(said, dict) and isinstance(said.get("box"), str):
            match = re.match(r"[a-z_]+", str(key))
            return (match.group() if match else str(said.get("kind"))), said["box"]
        found = _KEY.match(key) if isinstance(key, str) else None
        return (found["kind"], found["box"]) if found else None

    # --- what the run tells ------------------------------------------------------------------------------------------

    def log_event(self, topic: str, msg: Any) -> None:
        """A message of the run; called by Dask."""
        if topic != TOPIC or not isinstance(msg, dict):
            return
        try:
            self._hear(msg)
        except (KeyError, TypeError, ValueError):  # of another version: what it tells is left out
            return
        self.sample()

    def _hear(self, msg: dict[str, Any]) -> None:
        if msg["run"] != self.run:
            self.run = str(msg["run"])
            self.boxes.clear()
            self.kinds.clear()
            self.samples.clear()
        if msg["event"] == "counts":
            work = self._box(str(msg["box"]))
            for name in ("days", "rows", "source_bytes", "late_fields"):
                setattr(work, name, int(msg[name]))
            return
        box, _, doing = str(msg["what"]).partition(": ")
        work = self._box(box)
        if msg["event"] == "end":
            work.doing, work.late_in_work = "", 0
            return
        work.doing = doing
        if msg["unit"] == "days":
            work.days_total += int(msg["total"])
        else:
            work.late_in_work = int(msg["total"])

    def _box(self, name: str) -> BoxWork:
        if name not in self.boxes:
            while len(self.boxes) >= _BOXES:
                del self.boxes[next(iter(self.boxes))]
            self.boxes[name] = BoxWork()
        return self.boxes[name]

    # --- totals ------------------------------------------------------------------------------------------------------

    def sample(self, at: float | None = None) -> None:
        """Note the totals, at most once a second."""
        at = time.time() if at is None else at
        if self.samples and at - self.samples[-1].at < _SAMPLE_S:
            return
        every = self.boxes.values()
        self.samples.append(
            Sample(at, sum(one.days for one in every), sum(one.source_bytes for one in every),
                   sum(one.done for one in every))
        )  # fmt: skip

    def rates(self, over_s: float = 60.0) -> tuple[float, float, float]:
        """Box-days, bytes and tasks a second over the last `over_s` seconds."""
        if len(self.samples) < 2:
            return 0.0, 0.0, 0.0
        last = self.samples[-1]
        first = next(one for one in self.samples if last.at - one.at <= over_s)
        seconds = last.at - first.at
        if seconds <= 0:
            return 0.0, 0.0, 0.0
        return (
            (last.days - first.days) / seconds,
            (last.source_bytes - first.source_bytes) / seconds,
            (last.tasks - first.tasks) / seconds,
        )


async def serve(dask_scheduler: Any) -> bool:
    """Listen in a scheduler, and put the page on its dashboard; once. Whether the page is there.

    Dask calls it by `Client.run_on_scheduler`.
    """
    if NAME in dask_scheduler.plugins:
        return True
    work = Work()
    await work.start(dask_scheduler)
    dask_scheduler.add_plugin(work, name=NAME, idempotent=True)
    if not getattr(dask_scheduler, "http_server", None):
        return False
    from orchestrate.dashboard.page import mount

    return mount(dask_scheduler, work)
