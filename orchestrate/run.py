"""One run: read the inbox, do what the plan says in every box, write the receipt."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import GeofieldError
from orchestrate import cluster as clusters
from orchestrate import hints
from orchestrate.claims import Claims
from orchestrate.crew import Crew
from orchestrate.forecast import forecast
from orchestrate.inbox import InboxReport, read_inbox
from orchestrate.kube import Job
from orchestrate.logs import of_run
from orchestrate.plan import first_due, last_day, plan
from orchestrate.progress import Progress, Silent
from orchestrate.receipt import Receipt, write_receipt
from orchestrate.sizing import demand
from orchestrate.state import BoxState, gather_box, note_after
from orchestrate.steps import BoxResult, Retries, Steps, days_between
from orchestrate.survey import Survey
from orchestrate.work import WHOLE, Part, Step, fault

if TYPE_CHECKING:
    import os

    from geofield import Run, Store
    from orchestrate.config import Settings

_LISTED = 100  # refused rows told in a receipt; all of them lie beside their file
_ROUNDS = 3


def run(
    store: Store | str | os.PathLike[str],
    until: dt.date | str | None = None,
    client: Any = None,
    *,
    cluster: str | None = None,
    workers: int | tuple[int, int] | None = None,
    look_back: int | None = None,
    progress: Progress | None = None,
    settings: Settings | None = None,
    part: Part = WHOLE,
) -> dict[str, Any]:
    """Make a store complete up to a day.

    Reads the inbox, then for every box: late fields from the stored cube, missing days from the source, their rows.
    What is missing is computed from what is stored; so a run after a crash goes on where the other one ended, and a
    run after a complete one does nothing.

    Parameters
    ----------
    store
        A store or its URL.
    until
        Last day, included; default today (UTC).
    client
        A Dask client, or what `orchestrate.cluster.connect` yields.
    cluster, workers
        Opened for this run when no `client` is given; see `orchestrate.cluster.connect`.
    look_back
        Days before the cube's last that are compared with what the source offers now.
    progress
        Told what happens.
    settings
        Retries; default: from the environment.
    part
        What it is limited to. A part that finds nothing to do leaves no receipt in the store.

    Returns
    -------
    The receipt, as stored under `runs/`. Failures of boxes and files are in its `errors`; they do not raise.

    Raises
    ------
    ConfigurationError, NotFoundError
        The call is wrong: no such store, no such cluster, a day in the future.
    """
    from orchestrate.config import parse_until
    from orchestrate.config import settings as read_settings

    held = settings or read_settings(cluster=cluster, workers=workers, look_back=look_back)
    last = parse_until(until if until is not None else held.until)
    opened = store if isinstance(store, geofield.Store) else geofield.open_store(store)
    opened.location.check_writable("runs", hints.FOLDER)
    is_sized = client is None and held.cluster == "kube"  # by the plan, which is known when the inbox was read
    if client is None:
        clusters.check_ready(held.cluster)
    with contextlib.ExitStack() as stack:
        if client is None and not is_sized:
            client = stack.enter_context(clusters.connect(held.cluster, held.workers))
        page = stack.enter_context(clusters.active(client))
        if page is not None and progress is not None:
            progress.say(f"dashboard: {page}")
        runner = _Runner(opened, last, held, progress or Silent(), clusters.label(client), part, is_sized)
        with of_run(runner.work.id), geofield.searches_kept():
            return runner.run()


class _Runner:
    """One run of one store. Boxes share nothing but the store, so that they may be worked on at the same time."""

    def __init__(
        self, store: Store, until: dt.date, settings: Settings, progress: Progress, label: str, part: Part = WHOLE,
        is_sized: bool = False,
    ) -> None:  # fmt: skip
        self.store, self.until, self.settings, self.progress, self.part = store, until, settings, progress, part
        self.is_sized, self.began = is_sized, time.monotonic()
        self.work: Run = geofield.Run()
        self.crew = Crew(settings.boxes_at_once)
        self.retries = Retries(settings, self.crew, progress)
        self.steps = Steps(store, self.work, self.crew, progress, self.retries)
        self._receiving = threading.Lock()
        self._boxes_done = self._boxes_asked = 0
        self.claims = Claims(store, self.work.id, progress.say)
        self.notes: dict[str, hints.Note] = {}
        self.boxes: dict[str, str] = {}
        self.receipt = Receipt(self.work.id, geofield.__version__, _now(), until.isoformat(), label)

    def run(self) -> dict[str, Any]:
        """Do it; the receipt is written whatever happens."""
        try:
            if self.part.files != 0:
                self._read_inbox()
            if self.part.boxes != ():
                self.survey = self.retries.call(self._survey, BoxResult())
                box_ids = self.part.boxes or self.survey.box_ids
                self._boxes_asked = len(box_ids)
                with self.claims, self._on_cluster(box_ids):
                    self.crew.work(box_ids, self._work_on, self._is_busy)
            if self.part.boxes is None:
                self._write_index()
        except Exception as error:
            self._tell_trace(error)
            self.receipt.errors.append(fault(None, None, error))
        except (KeyboardInterrupt, SystemExit):
            stopped = {"kind": "interrupted", "message": "The run was stopped from outside; the next one goes on."}
            self.receipt.errors.append({"box": None, "date": None, **stopped})
            with contextlib.suppress(GeofieldError):
                self._finish()
            raise
        self._finish()
        return self.receipt.to_dict()

    def _survey(self) -> Survey:
        held = self.settings
        return Survey(
            self.store, self.until, held.look_back, dt.timedelta(hours=held.look_every_h), self.work.id, self.part.boxes
        )

    @contextlib.contextmanager
    def _on_cluster(self, box_ids: Sequence[str]) -> Iterator[None]:
        """The cluster of this run's own that its work asks for; none where one was opened before."""
        if not self.is_sized:
            yield
            return
        steps = forecast(self.survey, box_ids).steps
        job = Job(self.work.id, self.store.url, demand(steps, self.crew.size), self.progress.say)
        job.startup["plan"] = round(time.monotonic() - self.began, 3)
        with clusters.connect("kube", self.settings.workers, job) as client, clusters.active(client):
            self.receipt.cluster = clusters.label(client)
            if self.receipt.cluster == "kube":
                self.receipt.startup = job.startup
            yield

    def _is_busy(self, box_id: str) -> bool:
        """Whether another run is at work in a box: others are done first, and it again when it is known to be done."""
        if hints.is_busy(self.survey.listing.marks.get(box_id, []), self.work.id, self.survey.now):
            return True
        try:
            is_quiet = self.survey.quiet(box_id) is not None
        except (GeofieldError, ValueError, OSError):  # told where it is worked on
            return False
        # one that began at the same time was not at work when the store was surveyed
        return not is_quiet and self.claims.is_foreign(box_id)

    def _write_index(self) -> None:
        try:
            self.survey.write_index(self.notes, self.boxes)
        except (GeofieldError, OSError, ValueError) as error:
            self.progress.say(f"what is done was not noted in one place, which harms nothing: {error}")

    def _finish(self) -> None:
        self.receipt.finished = _now()
        with self._receiving:  # a box that is still at work after a second Ctrl-C is told as far as it came
            self.receipt.boxes = dict(sorted(self.receipt.boxes.items()))
            self.receipt.errors.sort(key=lambda one: (one["box"] is not None, one["box"] or ""))
        if self.part is not WHOLE and not self.receipt.did_something:
            return
        try:
            self.retries.call(partial(write_receipt, self.store, self.receipt), BoxResult())
        except GeofieldError as error:  # what was done is done, and whoever called is told of it
            self.receipt.errors.append(fault(None, None, error))

    # --- the inbox -------------------------------------------------------------------------------------------------

    def _read_inbox(self) -> None:
        report = InboxReport()
        for tries in range(self.settings.retries + 1):
            report.errors.clear()
            read_inbox(self.store, self.work, report, self.part.files)
            if not report.errors or tries == self.settings.retries:
                break
            self.retries.wait(tries, report.errors[0]["message"])
            self.receipt.retries += 1
        counts = report.counts
        self.receipt.inbox = counts
        self.receipt.rejected = [asdict(one) for one in report.rejected[:_LISTED]]
        self.receipt.notices = [asdict(one) for one in report.notices[:_LISTED]]
        self.receipt.errors += report.errors
        if counts.files_accepted or counts.files_rejected:
            self.progress.say(
                f"inbox: {_many(counts.files_accepted, 'file')} accepted, {counts.files_rejected} rejected; "
                f"{_many(counts.rows_accepted, 'row')} accepted, {counts.rows_rejected} rejected"
            )

    # --- a box -----------------------------------------------------------------------------------------------------

    def _work_on(self, box_id: str) -> None:
        """Everything that one box needs. Whatever fails here is told in the receipt, and the next box goes on."""
        result = BoxResult()
        with self._receiving:
            self.receipt.boxes[box_id] = result.receipt  # now, so that a run that is stopped tells what it did
        try:
            if not self._is_quiet(box_id, result):
                self.retries.call(partial(self.claims.put, box_id), BoxResult())
                with self.claims.held(box_id, lambda: box_id in self.notes):
                    self._rounds(box_id, result)
        except Exception as error:
            self._fail(box_id, error, result)
        finally:
            with self._receiving:
                self.receipt.errors += result.errors
                self.receipt.retries += result.retries
                self._boxes_done += 1
                self.progress.boxes(self._boxes_done, self._boxes_asked)
        for told in result.errors:
            self.progress.say(f"box {box_id} failed: {told['message']}")

    def _is_quiet(self, box_id: str, result: BoxResult) -> bool:
        note = self.survey.quiet(box_id)
        if note is None:
            return False
        end = last_day(note.extent, self.until)
        result.receipt.first_due = first_due(note.extent).isoformat()
        if note.cube.last is not None:
            result.receipt.last_day = note.cube.last.isoformat()
            result.receipt.days_present = days_between(note.extent.start, min(note.cube.last, end))
        return True

    def _rounds(self, box_id: str, result: BoxResult) -> None:
        """Look, plan, do; and look again when something was tried twice or another writer was at work."""
        state = self._look(box_id, result)
        for _ in range(_ROUNDS):  # another change may be asked for while one is built
            if not (state.progress.is_pending and self.part.takes("rebuild")):
                break
            self.steps.rebuild(self._plan(state)[0], result)
            state = self._look(box_id, result)
        end = last_day(state.box, self.until)
        result.receipt.first_due = first_due(state.box).isoformat()
        result.receipt.last_day = None if state.cube.last is None else state.cube.last.isoformat()
        result.receipt.days_present = (
            0 if state.cube.last is None else days_between(state.box.start, min(state.cube.last, end))
        )
        for _ in range(_ROUNDS):
            result.is_disturbed = False
            planned = self._plan(state)
            steps = [step for step in planned if self.part.takes(step.action)]
            self._do(steps, state, result)
            if not result.is_disturbed or result.errors or self.crew.stopping.is_set():
                break
            state = self._look(box_id, result)
        is_done = len(steps) == len(planned) and not result.errors and not result.is_disturbed
        if is_done and not self.crew.stopping.is_set():
            self._write_hint(state, max(end, state.cube.last or end))

    def _look(self, box_id: str, result: BoxResult) -> BoxState:
        look = partial(gather_box, self.store, box_id, self.settings.look_back, self.survey.placed, self.until)
        return self.retries.call(look, result)

    def _plan(self, state: BoxState) -> list[Step]:
        name = state.box.id
        return plan({name: state.box}, {name: state.cube}, {name: state.fields}, {name: state.progress}, self.until)

    def _do(self, steps: Sequence[Step], state: BoxState, result: BoxResult) -> None:
        """One step after the other; that late fields fail does not keep the days from being appended."""
        for step in steps:
            if self.crew.stopping.is_set():
                break
            result.at = None
            try:
                self.steps.do(step, state, result)
            except Exception as error:
                self._fail(step.box, error, result)

    def _fail(self, box_id: str, error: Exception, result: BoxResult) -> None:
        result.errors.append(fault(box_id, result.at, error))
        self._tell_trace(error)

    def _tell_trace(self, error: BaseException) -> None:
        if self.settings.debug:
            self.progress.say("".join(traceback.format_exception(error)))

    def _write_hint(self, state: BoxState, last: dt.date) -> None:
        """What is done, for the next plan and whoever wants to know without looking at the rows. It may be lost."""
        box_id, columns = state.box.id, state.ready.columns
        try:
            note = note_after(state, last, self.survey.definitions.get(box_id, ""), self.work.id)
            if note is None:
                return
            hint = {
                "box": box_id,
                "run": self.work.id,
                "last_day": last.isoformat(),
                "fields": {
                    one.id: {"version": version, "done_to": min(last, one.last or last).isoformat()}
                    for one, version in zip(state.fields, columns.versions, strict=True)
                },
                "note": note.to_dict(),
                "description": state.ready.box.model_dump_json(),  # spares a plan that lost the index a request
            }
            self.store.location.write(f"{hints.FOLDER}/{box_id}.json", json.dumps(hint, ensure_ascii=False).encode())
        except (GeofieldError, OSError, ValueError) as error:
            self.progress.say(f"box {box_id}: what is done was not noted, which harms nothing: {error}")
            return
        self.notes[box_id] = note
        self.boxes[box_id] = state.ready.box.model_dump_json()


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def _many(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
