"""People are told of failed runs as the store's settings say: once, and again when a box fails after a recovery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg

from orchestrate import parts
from orchestrate.dagster.failures import EARLY
from orchestrate.dagster.partitions import of_run
from orchestrate.dagster.resources import StoreResource


@dg.run_failure_sensor(default_status=dg.DefaultSensorStatus.RUNNING, monitor_all_code_locations=False)
def failures(context: dg.RunFailureSensorContext, store: StoreResource) -> dg.SkipReason | None:
    """Tells of a run that failed for good. A day whose turn had not come is none: it is asked for again."""
    run = context.dagster_run
    stored = context.instance.get_run_by_id(run.run_id)
    if stored is not None and EARLY in stored.tags:
        return dg.SkipReason(f"{run.run_id} waits for its turn.")
    found = of_run(run.tags)
    errors = list(_errors(context)) or [
        {"box": found and found[0], "date": found and str(found[1]), "kind": "run_failed",
         "message": f"{run.job_name} {run.run_id}: {context.failure_event.message}"}
    ]  # fmt: skip
    parts.tell_failure(store.url, errors, run.run_id, [found[0]] if found else [])
    return None


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS, default_status=dg.DefaultSensorStatus.RUNNING,
    monitor_all_code_locations=False,
)  # fmt: skip
def recoveries(context: dg.RunStatusSensorContext, store: StoreResource) -> dg.SkipReason | None:
    """Notes that a box works again, so that its next failure is told."""
    found = of_run(context.dagster_run.tags)
    if found is None:
        return dg.SkipReason("No run of a box.")
    parts.tell_failure(store.url, [], context.dagster_run.run_id, [found[0]])
    return None


def _errors(context: dg.RunFailureSensorContext) -> Iterator[dict[str, Any]]:
    """The errors of the receipt, as the failed step told them; else what Dagster says of the step."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        told = data.user_failure_data.metadata.get("errors") if data.user_failure_data else None
        if isinstance(told, dg.JsonMetadataValue) and isinstance(told.value, list):
            yield from told.value
        else:
            text = data.error.message.strip() if data.error else event.message
            found = of_run(context.dagster_run.tags)
            yield {"box": found and found[0], "date": found and str(found[1]), "kind": "step_failed",
                   "message": f"{event.step_key}: {text}"}  # fmt: skip
