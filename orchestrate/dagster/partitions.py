"""Partitions: a day of a box. Fields are never partitions: they are rows."""

from __future__ import annotations

import datetime as dt
import os
import warnings
from collections.abc import Mapping

import dagster as dg

from geofield.errors import ConfigurationError

FIRST_DAY = "GEOFIELD_DAGSTER_START"
_DEFAULT_FIRST_DAY = "2024-01-01"


def first_day(environment: Mapping[str, str] = os.environ) -> dt.date:
    """The first day that has a partition, from `GEOFIELD_DAGSTER_START`: no later than the first box's start."""
    text = environment.get(FIRST_DAY) or _DEFAULT_FIRST_DAY
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"{FIRST_DAY} is a day, YYYY-MM-DD; got {text!r}.") from error


BOXES = dg.DynamicPartitionsDefinition(name="boxes")
DAYS = dg.DailyPartitionsDefinition(start_date=first_day().isoformat(), timezone="UTC")
BOX_DAYS = dg.MultiPartitionsDefinition({"box": BOXES, "day": DAYS})


def _day_before() -> dg.MultiPartitionMapping:
    same_box = dg.DimensionPartitionMapping("box", dg.IdentityPartitionMapping())
    yesterday = dg.DimensionPartitionMapping("day", dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1))
    with warnings.catch_warnings():
        # it has been in beta since 2023, and is the one way to say that a day of a box follows the day before it
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.MultiPartitionMapping({"box": same_box, "day": yesterday})


DAY_BEFORE = _day_before()


def key_of(box: str, day: dt.date) -> dg.MultiPartitionKey:
    """The partition of a day of a box."""
    return dg.MultiPartitionKey({"box": box, "day": day.isoformat()})


def box_and_day(key: str) -> tuple[str, dt.date]:
    """What a partition's key says: `north|2025-05-01`."""
    box, _, day = key.rpartition("|")
    return box, dt.date.fromisoformat(day)


def of_run(tags: Mapping[str, str]) -> tuple[str, dt.date] | None:
    """Box and day of a run, by its tags; None for a run that has none."""
    box, day = tags.get("dagster/partition/box"), tags.get("dagster/partition/day")
    return None if box is None or day is None else (box, dt.date.fromisoformat(day))
