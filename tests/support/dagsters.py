"""Runs and ticks of the Dagster code location, in this process, on an instance of Dagster's own."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

# what the daemon's tick has around it; Dagster has no public name for it
from dagster._core.definitions.partitions.context import partition_loading_context

from geofield import Store
from orchestrate.dagster import jobs, notices, sensors
from orchestrate.dagster.definitions import defs
from orchestrate.dagster.partitions import key_of
from orchestrate.dagster.resources import StoreResource
from tests.support.smallstore import day


def in_folder(folder: Path) -> dg.DagsterInstance:
    """An instance whose records lie in SQLite in a folder.

    What runs print is not kept: Dagster follows it with processes of `tail`, which may outlast a test.
    """
    nothing = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    folder.mkdir(exist_ok=True)
    return dg.DagsterInstance.local_temp(str(folder), overrides={"compute_logs": nothing})


@dataclass
class Location:
    """The code location on an instance, with one store."""

    instance: dg.DagsterInstance
    store: Store
    cursor: str | None = None

    def run(self, job: str, key: str | None = None, tags: dict[str, str] | None = None) -> Any:
        """One run of a job; its result, failed or not."""
        resolved = defs.resolve_job_def(job)
        return resolved.execute_in_process(
            partition_key=key, instance=self.instance, raise_on_error=False, tags=tags or {}
        )

    def run_day(self, number: int, box: str = "b") -> Any:
        """The n-th day of a box."""
        return self.run("box_days", key_of(box, day(number)))

    def tick(self, sensor: dg.SensorDefinition) -> Any:
        """One tick of a sensor; partitions that it adds or removes are added and removed, as the daemon does it."""
        with (
            partition_loading_context(dynamic_partitions_store=self.instance),
            dg.build_sensor_context(
                instance=self.instance,
                repository_def=defs.get_repository_def(),
                cursor=self.cursor,
                resources=self.resources,
            ) as context,
        ):
            found = sensor.evaluate_tick(context)
        for request in found.dynamic_partitions_requests or []:
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
            else:
                for key in request.partition_keys:
                    self.instance.delete_dynamic_partition(request.partitions_def_name, key)
        if sensor.name == "inbox":
            self.cursor = found.cursor
        return found

    def launch(self, requests: Sequence[dg.RunRequest], job: str) -> list[Any]:
        """What a sensor asks for, one after the other."""
        return [self.run(job, one.partition_key, dict(one.tags)) for one in requests]

    def read_inbox(self) -> None:
        """A tick of the sensor and the run that it asks for."""
        (request,) = self.tick(sensors.inbox).run_requests
        assert self.run("inbox", tags=dict(request.tags)).success

    def schedule(self, today: dt.date) -> list[dg.RunRequest]:
        """What the daily schedule asks for; the instance has to be a stored one."""
        with (
            partition_loading_context(dynamic_partitions_store=self.instance),
            dg.build_schedule_context(
                instance=self.instance,
                repository_def=defs.get_repository_def(),
                resources=self.resources,
                scheduled_execution_time=dt.datetime.combine(today, dt.time(6, 30), dt.UTC),
            ) as context,
        ):
            return list(jobs.daily.evaluate_tick(context).run_requests or [])

    def tell(self, result: Any) -> None:
        """The sensor that belongs to the end of a run."""
        is_success = bool(result.success)
        context = dg.build_run_status_sensor_context(
            sensor_name="recoveries" if is_success else "failures",
            dagster_instance=self.instance,
            dagster_run=self.instance.get_run_by_id(result.run_id),
            dagster_event=next(
                one for one in reversed(result.all_events) if one.event_type_value.startswith("PIPELINE_")
            ),
            resources=self.resources,
        )
        if is_success:
            notices.recoveries(context)
        else:
            notices.failures(context.for_run_failure())

    @property
    def resources(self) -> dict[str, Any]:
        """As the definitions have them; given to ticks."""
        return {"store": StoreResource(url=os.environ["GEOFIELD_STORE"])}


def failures(result: Any) -> Iterator[Any]:
    """The step failures of a run."""
    for event in result.all_events:
        if event.is_step_failure:
            yield event.step_failure_data


def metadata(result: Any, asset: str) -> dict[str, Any]:
    """What the materialisation of an asset shows."""
    (event,) = [one for one in result.get_asset_materialization_events() if one.asset_key.to_user_string() == asset]
    return {name: value.value for name, value in event.materialization.metadata.items()}
