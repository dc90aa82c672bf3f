"""The bounds of a box, however a file gives them: four or six numbers, corners, or a polygon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely

from geofield.errors import BoxError
from geofield.fields.coordinates import BadGeometryError, Polygons
from geofield.fields.names import CORNERS, corner_keys, shown

Bounds = tuple[float, float, float, float]

RECTANGLE = 1e-9
"""A polygon that fills its bounds but for this share of them is a rectangle along the axes."""
HEIGHTS_LEFT_OUT = "the heights are left out"
BOUNDS_TAKEN = "the polygon is not a rectangle along the axes: its bounds are taken"
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def bounds_from(row: Mapping[str, Any]) -> tuple[Bounds | None, list[str]]:
    """Bounds of a row (xmin, ymin, xmax, ymax) or None when it gives none, and what was left out or widened.

    Raises
    ------
    BoxError
        They cannot be read, or the row gives them in two ways that differ.
    """
    found: list[tuple[Bounds, list[str]]] = []
    if row.get("bbox") is not None:
        found.append(_numbers(row["bbox"]))
    corners = corner_keys(row)
    if corners:
        absent = [corner for corner in CORNERS if corner not in corners]
        if absent:
            raise BoxError(f"{', '.join(absent)} not given, only {', '.join(corners.values())}")
        found.append(_numbers([row[corners[corner]] for corner in CORNERS]))
    if row.get("geometry") is not None:
        found.append(_polygon(row["geometry"]))
    if not found:
        return None, []
    if len({bounds for bounds, _ in found}) > 1:
        ways = " and ".join(str(list(bounds)) for bounds, _ in found)
        raise BoxError(f"the bounds are given in two ways that differ: {ways}")
    return found[0][0], [note for _, notes in found for note in notes]


def _numbers(values: Any) -> tuple[Bounds, list[str]]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise BoxError(f"bbox is {shown(values)}: a box needs four numbers, [xmin, ymin, xmax, ymax]")
    if len(values) not in (4, 6):
        count = _WORDS[len(values)] if len(values) < len(_WORDS) else len(values)
        raise BoxError(f"a box needs four numbers, [xmin, ymin, xmax, ymax]; there are {count}: {shown(list(values))}")
    numbers = [_number(value) for value in values]
    if len(numbers) == 6:  # xmin, ymin, zmin, xmax, ymax, zmax (RFC 7946, 5)
        return (numbers[0], numbers[1], numbers[3], numbers[4]), [HEIGHTS_LEFT_OUT]
    return (numbers[0], numbers[1], numbers[2], numbers[3]), []


def _number(value: Any) -> float:
    if isinstance(value, str):
        raise BoxError(f"{shown(value)} is text, not a number")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BoxError(f"a coordinate is {shown(value)}, not a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise BoxError("a coordinate is not finite: it has more than 300 digits") from error
    if not math.isfinite(number):
        what = "not a number (NaN)" if math.isnan(number) else "not finite (Infinity)"
        raise BoxError(f"a coordinate is {what}")
    return number


def _polygon(geometry: Any) -> tuple[Bounds, list[str]]:
    polygons, into = Polygons(), np.empty(1, dtype=object)
    try:
        polygons.add(0, geometry)
    except BadGeometryError as problem:
        raise BoxError(str(problem).replace("a field has to be", "a box has to be")) from problem
    polygons.build(into)
    bounds: Bounds = tuple(shapely.bounds(into[0]).tolist())
    rectangle = shapely.box(*bounds)
    if not rectangle.area or shapely.area(shapely.make_valid(into[0])) < (1 - RECTANGLE) * rectangle.area:
        return bounds, [BOUNDS_TAKEN]
    return bounds, []
