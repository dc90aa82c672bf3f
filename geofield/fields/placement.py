"""Which boxes a field belongs to: the one it names, or every one in which it has area."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from geofield.boxes import Box
from geofield.fields.extents import ANY, NONE, Extents, Fields, Index
from geofield.fields.report import Notice, Objects, Rejection, reason_of

KNOWN_SHOWN = 10
"""Boxes named in a message."""


@dataclass(frozen=True)
class Placement:
    """Fields with the boxes they belong to."""

    table: pd.DataFrame
    """The fields that belong to a box, with a column `boxes`: a sorted list of ids."""
    rejected: list[Rejection]
    notices: list[Notice]


class BoxIndex:
    """Boxes that fields are looked up in several times: their outlines are projected once.

    Parameters
    ----------
    boxes
        Every box of the store, by id.
    """

    def __init__(self, boxes: Mapping[str, Box]) -> None:
        self.boxes = dict(boxes)
        self.extents = Extents(self.boxes)


def place_fields(table: pd.DataFrame, boxes: Mapping[str, Box] | BoxIndex, *, explain: bool = True) -> Placement:
    """Find the boxes of fields.

    Parameters
    ----------
    table
        As `read_fields` makes it.
    boxes
        Every box of the store, by id; or an index of them.
    explain
        Say why fields are refused. Without it `rejected` stays empty, which saves the time of a sentence per field
        where fields known to the store are looked up for one of its boxes.

    Notes
    -----
    A field that only touches a box, or lies outside of all of them or of the one it names, is refused. The extent of
    a box is the rectangle it asks for, and its pixel grid where that is its source's own.
    """
    table = table.reset_index(drop=True)
    index = boxes if isinstance(boxes, BoxIndex) else BoxIndex(boxes)
    placing = _Placing(table, index, explain)
    if index.boxes:
        placing.place()
    else:
        for row in range(len(table)):
            placing.refuse(row, "no_box", "there is no box yet: add one with `geofield add-box`")
    kept = np.flatnonzero([found is not None for found in placing.boxes])
    placed = table.iloc[kept].reset_index(drop=True)
    placed["boxes"] = pd.Series(placing.boxes[kept], dtype=object)
    return Placement(placed, placing.rejected, placing.notices)


class _Placing:
    """One call of `place_fields`."""

    def __init__(self, table: pd.DataFrame, index: BoxIndex, explain: bool) -> None:
        self.table = table
        self.known, self.extents = index.boxes, index.extents
        self.explain = explain
        self.boxes: Objects = np.empty(len(table), dtype=object)
        self.refused: set[int] = set()
        self.rejected: list[Rejection] = []
        self.notices: list[Notice] = []

    def refuse(self, row: int, rule: str, reason: str) -> None:
        self.refused.add(row)
        if not self.explain:
            return
        number, field_id = int(self.table["row"].iloc[row]), self.table["field_id"].iloc[row]
        self.rejected.append(Rejection(number, field_id, rule, reason_of(number, field_id, reason)))

    def place(self) -> None:
        self.fields = Fields(self.table)
        only, unknown = self._named()
        field, box, lost = self.extents.overlaps(self.fields, only)
        names = np.array(self.extents.ids, dtype=object)[box]
        starts = np.searchsorted(field, np.arange(len(self.table) + 1))
        for row, (first, last) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            if first < last:
                self.boxes[row] = names[first:last].tolist()
        self.boxes[unknown] = None
        self._check_harvest()
        if self.explain:
            self._explain_outside(only, set(lost.tolist()))
        self.rejected.sort(key=lambda rejection: -1 if rejection.row is None else rejection.row)

    def _named(self) -> tuple[Index, Index]:
        """(n,) position of the box that each field names, `ANY` for none; and the rows that name an unknown box."""
        named = self.table["box"].to_numpy(object)
        only = np.array(
            [ANY if pd.isna(name) else self.extents.position.get(name, NONE) for name in named], dtype=np.intp
        )
        unknown = np.flatnonzero(only == NONE)
        ids = self.extents.ids
        known = ", ".join(ids[:KNOWN_SHOWN]) + (f" and {len(ids) - KNOWN_SHOWN} more" if len(ids) > KNOWN_SHOWN else "")
        for row in unknown.tolist():
            self.refuse(row, "unknown_box", f"there is no box {named[row]!r}; there is {known}")
        return only, unknown

    def _check_harvest(self) -> None:
        """A field planted at its box's start cannot have been harvested before it."""
        harvest, planting = self.table["harvest_date"].to_numpy(object), self.table["planting_date"].to_numpy(object)
        for row in np.flatnonzero(~pd.isna(harvest)).tolist():
            boxes = self.boxes[row]
            early = [] if boxes is None else [name for name in boxes if harvest[row] < self.known[name].start]
            if not early:
                continue
            said = (
                f"harvest_date {harvest[row]} is before {self.known[early[0]].start}, the first day of box {early[0]}"
            )
            if len(early) < len(boxes):
                self.boxes[row] = [name for name in boxes if name not in early]
            elif pd.isna(planting[row]):
                self.boxes[row] = None
                self.refuse(row, "harvest_before_planting", f"{said}, which is its planting date")
                continue
            number, field_id = int(self.table["row"].iloc[row]), self.table["field_id"].iloc[row]
            self.notices.append(Notice(number, field_id, f"{said}: there are no rows"))

    def _explain_outside(self, only: Index, lost: set[int]) -> None:
        outside = [row for row, found in enumerate(self.boxes) if found is None and row not in self.refused]
        if not outside:
            return
        rows = np.array(outside, dtype=np.intp)
        asked = only[rows]
        near = np.where(asked >= 0, asked, self.extents.nearest(self.fields, rows))
        distances = self.extents.distance_km(self.fields, rows, near)
        turned = self.extents.swapped(self.fields, rows, asked)
        elsewhere = self._elsewhere(rows, asked)
        for index, row in enumerate(outside):
            box_id = self.extents.ids[near[index]]
            if row in lost:
                reason = (
                    f"the field cannot be projected to the CRS of box {box_id}: check its CRS and the order of its axes"
                )
                self.refuse(row, "not_projectable", reason)
                continue
            touch = self.extents.touch(self.fields, row, int(near[index])) if distances[index] < 1 else None
            if touch is not None:
                self.refuse(row, "touches_only", f"no area inside the box {box_id}: it only touches the {touch}")
                continue
            if asked[index] >= 0:
                said = (
                    f"the field is outside of box {box_id}, which it names: {_away(distances[index])}{elsewhere[index]}"
                )
            else:
                said = f"the field is outside of every box: the nearest is {box_id}, {_away(distances[index])}"
            if turned[index] >= 0:
                said += f"; it would be inside {self.extents.ids[turned[index]]} with longitude and latitude swapped"
            self.refuse(row, "outside", said)

    def _elsewhere(self, rows: Index, asked: Index) -> list[str]:
        """(n,) where fields lie that are not in the box they name."""
        said = [""] * len(rows)
        named = np.flatnonzero(asked >= 0)
        if named.size:
            only = np.full(len(self.table), NONE, dtype=np.intp)
            only[rows[named]] = ANY
            field, box, _ = self.extents.overlaps(self.fields, only)
            found = dict(zip(field.tolist(), box.tolist(), strict=True))
            for index in named.tolist():
                if rows[index] in found:
                    said[index] = f"; it lies in box {self.extents.ids[found[int(rows[index])]]}"
        return said


def _away(kilometres: float) -> str:
    if kilometres < 1:
        return f"about {max(kilometres * 1000, 1):.0f} m away"
    return f"about {kilometres:,.1f} km away" if kilometres < 100 else f"about {kilometres:,.0f} km away"
