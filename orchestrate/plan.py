"""What is missing, from what is there. Pure: no store, no clock, no environment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from orchestrate.work import (
    Append,
    BoxExtent,
    BoxProgress,
    Correct,
    CubeDays,
    FieldDays,
    FillLate,
    Gap,
    Rates,
    Rebuild,
    Reduce,
    Remove,
    Step,
)

_DAY = dt.timedelta(days=1)
_SOURCE_BYTES = 2  # of a pixel: imagery comes as 16 bit integers as a rule
_CUBE_BYTES = 2  # of a pixel, before compression


def plan(
    boxes: Mapping[str, BoxExtent],
    cubes: Mapping[str, CubeDays],
    fields: Mapping[str, Sequence[FieldDays]],
    progress: Mapping[str, BoxProgress],
    until: dt.date,
    rates: Rates | None = None,
) -> list[Step]:
    """The steps that make a store complete up to a day.

    Parameters
    ----------
    boxes, cubes, fields, progress
        What exists, by box.
    until
        The last day, included. A box holds back its `settle_days`.
    rates
        How long work took before, for the estimates of time.

    Returns
    -------
    list of Step
        By box id; within a box first what needs no imagery, so that late fields do not wait for the imagery, nor
        for a source that is down.
    """
    known = rates or Rates()
    steps: list[Step] = []
    for box_id in sorted(boxes):
        box, cube = boxes[box_id], cubes.get(box_id, CubeDays())
        there = fields.get(box_id, ())
        done = progress.get(box_id, BoxProgress())
        if done.is_pending:
            # every row and every day follows from the new cube: the rest is planned when it is there
            steps.append(
                Rebuild(box.id, cube.days, cube.days * box.tiles, _times(known.per_pixel_day, cube.days * box.pixels))
            )
            continue
        steps += _mending_steps(box, cube, there, done, known)
        steps += _correction_steps(box, done, known)
        steps += _append_steps(box, cube, there, until, known)
    return steps


def last_day(box: BoxExtent, until: dt.date) -> dt.date:
    """The last day that a run until `until` appends: later ones may still be filling at the provider."""
    return until - box.settle_days * _DAY


def first_due(box: BoxExtent) -> dt.date:
    """The earliest `until` of a run that appends a day."""
    return box.start + box.settle_days * _DAY


def _correction_steps(box: BoxExtent, progress: BoxProgress, rates: Rates) -> list[Step]:
    if not progress.changed:
        return []
    days = len(progress.changed)
    return [Correct(box.id, min(progress.changed), days, _times(rates.per_pixel_day, days * box.pixels))]


def _append_steps(
    box: BoxExtent, cube: CubeDays, fields: Sequence[FieldDays], until: dt.date, rates: Rates
) -> list[Step]:
    start = box.start if cube.last is None else cube.last + _DAY
    end = last_day(box, until)
    days = (end - start).days + 1
    if days < 1:
        return []
    share = cube.acquired / cube.days if cube.days else 1.0
    acquired = max(1, round(days * share))
    source_bytes = None if box.bands is None else acquired * box.pixels * box.bands * _SOURCE_BYTES
    return [
        Append(
            box.id,
            start,
            end,
            days,
            tasks=days * box.tiles,
            field_days=sum(one.days_between(start, end) for one in fields),
            source_bytes=source_bytes,
            cube_bytes=acquired * box.pixels * box.layers * _CUBE_BYTES,
            seconds=_times(rates.per_pixel_day, days * box.pixels),
        )
    ]


def _mending_steps(
    box: BoxExtent, cube: CubeDays, fields: Sequence[FieldDays], progress: BoxProgress, rates: Rates
) -> list[Step]:
    """Rows that should be otherwise within the days that the cube holds."""
    if cube.first is None or cube.last is None:
        gaps: tuple[Gap, ...] = ()
        wanted: dict[str, int] = {}
    else:
        gaps = progress.gaps
        wanted = {one.id: one.days_between(cube.first, cube.last) for one in fields}
    gone, late = dict(progress.strays), []
    parts: dict[tuple[dt.date, dt.date], list[Gap]] = {}
    for gap in gaps:
        if not wanted.get(gap.field_id, 0):
            gone[gap.field_id] = gap.surplus
        elif gap.surplus or gap.days >= wanted[gap.field_id] or gap.first is None or gap.last is None:
            late.append(gap)
        else:
            parts.setdefault((gap.first, gap.last), []).append(gap)
    steps: list[Step] = []
    gone = {name: rows for name, rows in gone.items() if rows}
    if gone:
        steps.append(Remove(box.id, tuple(sorted(gone)), sum(gone.values())))
    if late:
        days = sum(wanted[gap.field_id] for gap in late)
        names = tuple(sorted(gap.field_id for gap in late))
        steps.append(FillLate(box.id, names, days, _times(rates.per_field_day, days)))
    ends = {one.id: one for one in fields}
    for (start, end), group in sorted(parts.items()):
        days = sum(ends[gap.field_id].days_between(start, end) for gap in group)
        names = tuple(sorted(gap.field_id for gap in group))
        steps.append(Reduce(box.id, start, end, names, days, _times(rates.per_field_day, days)))
    return steps


def _times(rate: float | None, amount: int) -> float | None:
    return None if rate is None else rate * amount
