"""The code location. Loading it reads the environment and connects to nothing."""

from __future__ import annotations

import dagster as dg

from orchestrate.dagster import assets, checks, jobs, notices, sensors
from orchestrate.dagster.resources import ClusterResource, StoreResource

automation = dg.AutomationConditionSensorDefinition(
    "automation", target=dg.AssetSelection.all(), default_status=dg.DefaultSensorStatus.RUNNING
)

defs = dg.Definitions(
    assets=[assets.registries, assets.box_cube, assets.field_rows, assets.late_fields, assets.STORED],
    asset_checks=[checks.is_fresh, checks.verify],
    jobs=[jobs.box_days, jobs.inbox, jobs.checks],
    schedules=[jobs.daily, jobs.weekly_checks],
    sensors=[
        sensors.inbox, sensors.boxes, sensors.early_days, notices.failures, notices.recoveries, automation,
    ],
    resources={"store": StoreResource(url=dg.EnvVar("GEOFIELD_STORE")), "cluster": ClusterResource()},
)  # fmt: skip
