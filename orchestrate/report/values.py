"""What a report consists of, and numbers packed for a page."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

MISSING = 65535
"""Stands for a missing value among packed ones."""


@dataclass(frozen=True)
class VariableData:
    """One variable of a box.

    Attributes
    ----------
    observed, estimate, sigma
        (field, day), NaN where missing; `estimate` and `sigma` are None without a day-on-day state.
    quicklook
        (row, column) the latest estimate, or observation, of the box, coarsened; None where it was not read.
    valid_range
        Values that there can be, (least, most); None: any.
    """

    name: str
    observed: npt.NDArray[np.float64]
    estimate: npt.NDArray[np.float64] | None = None
    sigma: npt.NDArray[np.float64] | None = None
    quicklook: npt.NDArray[np.float64] | None = None
    valid_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class BoxData:
    """A box with its fields.

    Attributes
    ----------
    width, height
        Of the map, in its own units (pixels of the box's grid).
    first_day
        Of the series, ISO 8601.
    fields
        One mapping for each: id, rings (polygons of rings of x, y, x, y, ... in the map's units, y down), planted,
        harvest, crop, covered, version, versions, properties.
    status
        (field, day) 0 no row, 1 observed, 2 all masked, 3 no acquisition.
    """

    id: str
    width: float
    height: float
    resolution: str
    first_day: str
    fields: list[dict[str, Any]]
    status: npt.NDArray[np.uint8]
    variables: list[VariableData] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """The page's content: what is told as text, and the boxes."""

    meta: dict[str, Any]
    boxes: list[BoxData]


def pack(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Values as 16-bit steps between the lowest and the highest, compressed, as base64.

    Returns
    -------
    data, low, step: value = low + step * number; the number 65535 is missing.
    """
    known = np.isfinite(values)
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
    step = (high - low) / (MISSING - 1) or 1.0
    numbers = np.full(values.shape, MISSING, dtype="<u2")
    numbers[known] = np.rint((values[known] - low) / step).astype("<u2")
    # byte planes apart: half of what compresses otherwise
    planes = numbers.view(np.uint8).reshape(*numbers.shape, 2)
    return {"data": squeeze(np.moveaxis(planes, -1, 0).tobytes()), "low": low, "step": step}


def squeeze(data: bytes) -> str:
    """Bytes, compressed, as base64; the same for the same bytes."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()
