"""The rows of a file before anyone judges them, the same for every format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geofield.fields.names import MISSING, REFUSED, TIERS
from geofield.fields.report import Objects, Report

MENDED = {
    "ring_closed": "a ring was not closed: its first position is repeated at the end",
    "height_left_out": "the height is left out",
}
"""Kind -> what is told about a geometry that was mended."""


@dataclass
class RawRows:
    """n rows of a file; rows that could not even be read are refused in `report` already."""

    geometry: Objects
    """(n,) shapely geometries of any kind, or None."""
    crs: Objects
    """(n,) names of a CRS, as `field_crs` makes them."""
    crs_declared: bool
    """Whether the file itself names its CRS."""
    cells: Mapping[str, Objects]
    """Role -> (n,) values as the file has them, `MISSING` where a row has no such property,
    `REFUSED` where it is refused for it already."""
    rest: Callable[[int], dict[str, Any]]
    """Everything else in a row."""
    columns: tuple[str, ...]
    """Names of all properties, to tell what there is when something is missing."""
    report: Report

    def refuse_unread(self, row: int, rule: str, reason: str) -> None:
        """A row of which nothing could be read: no rule but this one is told."""
        self.report.refuse(row, rule, reason)
        for cells in self.cells.values():
            cells[row] = REFUSED

    def __len__(self) -> int:
        return len(self.geometry)


def empty_cells(rows: int) -> dict[str, Objects]:
    """Role -> (n,) `MISSING`."""
    return {role: filled(rows, MISSING) for role in TIERS}


def filled(rows: int, value: object) -> Objects:
    """(n,) of one object."""
    array = np.empty(rows, dtype=object)
    array.fill(value)
    return array
