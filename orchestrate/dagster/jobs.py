"""What is launched together, and when: the days of boxes, the inbox, checks."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator

import dagster as dg

from orchestrate import parts
from orchestrate.dagster.partitions import BOXES, first_day, key_of
from orchestrate.dagster.resources import StoreResource

PART = "geofield/part"
"""Tag that the instance's limits go by: runs of the inbox one after the other."""
CATCH_UP = 7
"""Days of a box that one tick of the schedule asks for, the oldest first: one a day as a rule, more after a pause."""

box_days = dg.define_asset_job(
    "box_days",
    selection=dg.AssetSelection.assets("box_cube", "field_rows"),
    description="A day of a box: its cube, then its rows.",
)
inbox = dg.define_asset_job(
    "inbox",
    selection=dg.AssetSelection.assets("boxes", "fields", "late_fields"),
    tags={PART: "inbox"},
    description="What waits in the inbox is taken in; fields that came late are filled from the stored cubes.",
)
checks = dg.define_asset_job(
    "checks",
    selection=dg.AssetSelection.checks_for_assets("store"),
    description="How far the boxes are, and whether what is stored holds.",
)


@dg.schedule(
    job=box_days,
    cron_schedule=os.environ.get("GEOFIELD_DAGSTER_SCHEDULE") or "30 6 * * *",
    execution_timezone=os.environ.get("GEOFIELD_TIMEZONE") or "UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def daily(context: dg.ScheduleEvaluationContext, store: StoreResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """The days that every box lacks and that are due by now, as far as they have a partition."""
    today = context.scheduled_execution_time.astimezone(dt.UTC).date()
    known = context.instance.get_dynamic_partitions(str(BOXES.name))
    asked, first = 0, first_day()
    for box in parts.box_days(store.open(), sorted(known), today):
        if box.error is not None:
            context.log.warning(f"box {box.id} cannot be read: {box.error}")
        for day in box.missing[:CATCH_UP]:
            if day < first:
                context.log.warning(f"box {box.id} lacks {day}, before the first partition ({first}): see the docs")
                break
            asked += 1
            yield dg.RunRequest(run_key=f"{box.id}|{day}|{today}", partition_key=key_of(box.id, day))
    if not asked:
        yield dg.SkipReason(f"None of {len(known)} boxes lacks a day that is due.")


weekly_checks = dg.ScheduleDefinition(
    "weekly_checks", job=checks, cron_schedule="0 9 * * 0", default_status=dg.DefaultScheduleStatus.RUNNING
)
