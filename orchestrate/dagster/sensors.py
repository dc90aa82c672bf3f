"""What is launched when something happens: files in the inbox, boxes that come and go, days whose turn has come."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from orchestrate import parts
from orchestrate.boxlist import box_ids
from orchestrate.dagster import jobs
from orchestrate.dagster.failures import ASKED, DONE, EARLY, WAITING
from orchestrate.dagster.partitions import BOXES, key_of, of_run
from orchestrate.dagster.resources import StoreResource

if TYPE_CHECKING:
    from geofield import ObjectInfo

_AGAIN = dt.timedelta(minutes=10)
_LONGEST = dt.timedelta(hours=6)
_EARLY_RUNS = 1000

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(job=jobs.inbox, minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def inbox(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
    """Asks for a run while files wait in the inbox.

    By a LIST: no file is opened. Runs take the oldest files, so many at once, one run after the other, since a later
    version of a field must not be read before an earlier one. The cursor knows the files that were asked for last:
    when the same ones still wait after that run, it asks again after 10 minutes, then later and later. A file that was
    put there again, corrected or not, is another one.
    """
    files = parts.inbox_files(store.open())
    if not files:
        return dg.SensorResult(skip_reason="Nothing waits in the inbox.", cursor="")
    if context.instance.get_runs_count(dg.RunsFilter(tags={jobs.PART: "inbox"}, statuses=_UNFINISHED)):
        return dg.SkipReason(f"{len(files)} files wait; a run that reads the inbox is under way.")
    now = dt.datetime.now(dt.UTC)
    asked = _cursor(context.cursor)
    digest = _digest(files)
    tries = int(asked["tries"]) + 1 if asked.get("digest") == digest else 0
    if tries:
        due = dt.datetime.fromisoformat(asked["at"]) + min(_LONGEST, _AGAIN * 2 ** (tries - 1))
        if now < due:
            return dg.SkipReason(f"{len(files)} files could not be read; asked for again from {due:%H:%M} UTC on.")
    cursor = json.dumps({"digest": digest, "tries": tries, "at": now.isoformat()})
    request = dg.RunRequest(run_key=f"inbox-{digest}-{tries}", tags={"geofield/files": str(len(files))})
    return dg.SensorResult(run_requests=[request], cursor=cursor)


def _digest(files: Sequence[ObjectInfo]) -> str:
    told = "\n".join(f"{info.key}\t{info.etag}\t{info.modified.isoformat()}" for info in files)
    return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()


def _cursor(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
        return value if {"digest", "tries", "at"} <= set(value) else {}
    except (ValueError, TypeError):
        return {}


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def boxes(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
    """Keeps the boxes as partitions in step with those of the store, whoever adds or removes them: one LIST."""
    there, known = set(box_ids(store.open())), set(context.instance.get_dynamic_partitions(str(BOXES.name)))
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if new := sorted(there - known):
        requests.append(BOXES.build_add_request(new))
    if gone := sorted(known - there):
        requests.append(BOXES.build_delete_request(gone))
    if not requests:
        return dg.SkipReason(f"{len(there)} boxes, as known.")
    return dg.SensorResult(dynamic_partitions_requests=requests)


@dg.sensor(job=jobs.box_days, minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def early_days(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
    """Asks again for days that were refused because their turn had not come, as soon as it has.

    A refused run is asked for once; refused again, it is another run. What waits longest is looked at first.
    """
    refused: dict[str, dict[dt.date, list[str]]] = {}
    waiting = dg.RunsFilter(tags={EARLY: WAITING})
    for record in context.instance.get_run_records(waiting, limit=_EARLY_RUNS, ascending=True):
        if (found := of_run(record.dagster_run.tags)) is not None:
            refused.setdefault(found[0], {}).setdefault(found[1], []).append(record.dagster_run.run_id)
    if not refused:
        return dg.SkipReason("No day waits for its turn.")
    requests: list[dg.RunRequest] = []
    known = set(context.instance.get_dynamic_partitions(str(BOXES.name)))
    for box in parts.box_days(store.open(), sorted(refused)):
        requests += _turns(context.instance, box, refused[box.id], is_known=box.id in known)
    if not requests:
        return dg.SkipReason(f"Days of {len(refused)} boxes wait for their turn.")
    return dg.SensorResult(run_requests=requests)


def _turns(
    instance: dg.DagsterInstance, box: parts.BoxDays, refused: Mapping[dt.date, Sequence[str]], *, is_known: bool
) -> list[dg.RunRequest]:
    """Requests for the days of a box that follow one another from its cube's last; what is there by now is done."""
    requests = []
    due = set(box.missing) if is_known else set()
    turn = min(due, default=None)
    for day in sorted(refused):
        is_there = box.error is None and (not is_known or (box.last is not None and day <= box.last))
        if day != turn and not is_there:
            continue
        for run_id in refused[day]:
            instance.add_run_tags(run_id, {EARLY: DONE if is_there else ASKED})
        if day == turn:
            newest = refused[day][-1]
            tags = {"geofield/retry_of": newest}
            requests.append(dg.RunRequest(run_key=f"early-{newest}", partition_key=key_of(box.id, day), tags=tags))
            turn = day + dt.timedelta(days=1) if day + dt.timedelta(days=1) in due else None
    return requests
