"""The acquisitions of a day: in which order they are merged, and what the cube remembers of them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dask.delayed import Delayed

from geofield.pipeline.days import DayInputs
from geofield.pipeline.merging import fixed_order, is_counted
from geofield.pipeline.tasks import bound, task_key
from geofield.pipeline.tile import Counts, TileDay, TileJob, count_tile, rank
from geofield.source.protocol import Acquisition

Jobs = Mapping[tuple[int, int], tuple[TileJob, Sequence[TileDay]]]
"""tile -> its job and its days."""


def merge_orders(
    jobs: Jobs, days: Sequence[DayInputs], name: str, known: Mapping[dt.date, Counts] | None = None
) -> tuple[dict[dt.date, Any], list[list[Delayed]]]:
    """For days of several acquisitions: the order of merging, and the counts that it comes from.

    Where the box orders by valid pixels, they are counted over the whole box, so that the order does not depend on the
    tiles; the pixels of such a day are read twice, which costs less than to hold them until every tile was counted.

    Parameters
    ----------
    jobs
        The days of each tile are those of `days`, in order.
    known
        Counts that the cube remembers, by day; their acquisitions are not read again.
    """
    orders: dict[dt.date, Any] = {}
    counted: list[list[Delayed]] = []
    box = next((job.box for job, _ in jobs.values()), None)
    box_id = "" if box is None else box.id
    for number, one in enumerate(days):
        if len(one.acquisitions) < 2:
            continue
        if box is not None and not is_counted(box):
            orders[one.date] = fixed_order(box, one.acquisitions)
            continue
        remembered = (known or {}).get(one.date, {})
        parts = [
            bound(count_tile, job, part)(
                dask_key_name=task_key("count", job.box.id, one.date, f"tile {tile[0]},{tile[1]}", name)
            )
            for tile, (job, tile_days) in jobs.items()
            if (part := _unknown(tile_days[number], remembered)).acquisitions
        ]
        orders[one.date] = bound(rank, one.acquisitions, known=remembered)(
            parts, dask_key_name=task_key("rank", box_id, one.date, "", name)
        )
        counted.append(parts)
    return orders, counted


def _unknown(day: TileDay, remembered: Counts) -> TileDay:
    ids = {one for by_id in remembered.values() for one in by_id}
    return replace(day, acquisitions=tuple(one for one in day.acquisitions if one.id not in ids))


def items_json(acquisitions: Sequence[Acquisition], parts: Iterable[Counts], known: Counts | None = None) -> str:
    """What the cube keeps of a day: each acquisition, and by variable how many pixels of the box were valid.

    Parameters
    ----------
    parts
        Counts of the tiles that were read.
    known
        Counts of the whole box that were remembered; they win.
    """
    valid: dict[str, dict[str, int]] = {one.id: {} for one in acquisitions}
    for counts in parts:
        for variable, by_id in counts.items():
            for one, count in by_id.items():
                valid[one][variable] = valid[one].get(variable, 0) + count
    for variable, by_id in (known or {}).items():
        for one, count in by_id.items():
            if one in valid:
                valid[one][variable] = count
    items: list[dict[str, Any]] = [
        {
            "id": one.id,
            "version": one.version,
            "time": one.time.isoformat(),
            **one.properties,
            "valid_pixels": valid[one.id],
        }
        for one in acquisitions
    ]
    return json.dumps(items, separators=(",", ":"))


def remembered_counts(items: str, acquisitions: Sequence[Acquisition]) -> Counts:
    """variable -> id -> valid pixels of the box, of those acquisitions that the cube holds in the same version."""
    versions = {one.id: one.version for one in acquisitions}
    counts: dict[str, dict[str, int]] = {}
    for item in json.loads(items or "[]"):
        if versions.get(item["id"]) == item["version"]:
            for variable, count in item["valid_pixels"].items():
                counts.setdefault(variable, {})[item["id"]] = count
    return counts
