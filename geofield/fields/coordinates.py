"""Geometries from GeoJSON coordinates, WKT and corners: checked number by number, built all at once."""

from __future__ import annotations

import math
import re
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from geofield.fields.names import CORNERS, corner_keys, shown
from geofield.fields.report import Objects

Floats = npt.NDArray[np.float64]

KINDS = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection")
ONLY_POLYGONS = "a field has to be a Polygon or MultiPolygon"
_EWKT = re.compile(r"\s*SRID\s*=\s*(\d{1,9})\s*;", re.IGNORECASE)
_NUMBERS = {int, float}


class BadGeometryError(ValueError):
    """A geometry cannot be taken; `rule` names why."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


class Polygons:
    """Rings of many rows, gathered and turned into polygons in one call."""

    def __init__(self) -> None:
        self._rings: list[Floats] = []
        self._ring_count: list[int] = []  # of each part
        self._part_count: list[int] = []  # of each row
        self._rows: list[int] = []

    def add(self, row: int, geometry: Any) -> list[str]:
        """Gather a GeoJSON geometry; returns what was mended. `BadGeometryError` when it is no polygon."""
        parts = [[_ring(ring) for ring in part] for part in _parts(geometry)]
        self.add_rings(row, [[ring for ring, _, _ in part] for part in parts])
        mended = []
        if any(closed for part in parts for _, closed, _ in part):
            mended.append("ring_closed")
        if any(height for part in parts for _, _, height in part):
            mended.append("height_left_out")
        return mended

    def add_rings(self, row: int, parts: list[list[Floats]]) -> None:
        """Gather closed rings, (n, 2) each, grouped by part."""
        for rings in parts:
            self._rings.extend(rings)
            self._ring_count.append(len(rings))
        self._part_count.append(len(parts))
        self._rows.append(row)

    def build(self, into: Objects) -> None:
        """Write the geometries into the rows they belong to."""
        if not self._rows:
            return
        offsets = [
            np.concatenate([[0], np.cumsum(counts)])
            for counts in ([len(ring) for ring in self._rings], self._ring_count, self._part_count)
        ]
        into[self._rows] = shapely.from_ragged_array(
            shapely.GeometryType.MULTIPOLYGON, np.concatenate(self._rings), tuple(offsets)
        )


def corner_ring(row: dict[str, Any], texts: bool = False) -> Floats | None:
    """The closed ring of a row that gives xmin, ymin, xmax, ymax; None when it gives none of them.

    Parameters
    ----------
    texts
        Numbers may be written as text, as in CSV.
    """
    keys = corner_keys(row)
    if not keys:
        return None
    absent = [corner for corner in CORNERS if corner not in keys]
    if absent:
        raise BadGeometryError("no_geometry", f"{', '.join(absent)} not given, only {', '.join(keys.values())}")
    values = [_number(row[keys[corner]], keys[corner], texts) for corner in CORNERS]
    xmin, ymin, xmax, ymax = values
    if xmin == xmax or ymin == ymax:
        raise BadGeometryError("no_area", f"the rectangle has no area: {values}")
    if xmin > xmax or ymin > ymax:
        low, high = ("xmin", "xmax") if xmin > xmax else ("ymin", "ymax")
        raise BadGeometryError("corners_swapped", f"{low} is greater than {high}: {values}")
    return np.array([[xmin, ymin], [xmax, ymin], [xmax, ymax], [xmin, ymax], [xmin, ymin]])


def read_wkt(text: str) -> tuple[Any, int | None, bool]:
    """Geometry, EPSG code (EWKT) or None, and whether a ring had to be closed."""
    srid = _EWKT.match(text)
    wkt = text[srid.end() :] if srid else text
    code = int(srid.group(1)) if srid else None
    if not wkt.strip():
        raise BadGeometryError("no_geometry", "no geometry: the text is empty")
    geometry = shapely.from_wkt(wkt, on_invalid="ignore")
    if geometry is not None:
        return geometry, code, False
    closed = shapely.from_wkt(wkt, on_invalid="fix")
    if closed is None:
        raise BadGeometryError("not_wkt", f"the geometry is not complete WKT: {shown(text)}")
    return closed, code, True


def _parts(geometry: Any) -> list[list[Any]]:
    if not isinstance(geometry, dict):
        raise BadGeometryError("not_a_polygon", f"the geometry is {shown(geometry)}; {ONLY_POLYGONS}")
    kind = geometry.get("type")
    if kind not in ("Polygon", "MultiPolygon"):
        raise BadGeometryError("not_a_polygon", f"{kind if kind in KINDS else shown(kind)}: {ONLY_POLYGONS}")
    coordinates = geometry.get("coordinates")
    if not isinstance(coordinates, list):
        raise BadGeometryError("no_geometry", f"the {kind} has no coordinates: {shown(coordinates)}")
    parts = coordinates if kind == "MultiPolygon" else [coordinates]
    if not any(parts):
        raise BadGeometryError("empty_geometry", "the geometry is empty")
    for part in parts:
        if not isinstance(part, list) or not part:
            raise BadGeometryError("bad_coordinates", f"a part of the {kind} is {shown(part)}, not a list of rings")
    return parts


def _ring(ring: Any) -> tuple[Floats, bool, bool]:
    """(n, 2) closed, whether it had to be closed, whether there were heights."""
    if type(ring) is not list or set(map(type, ring)) - {list}:
        wrong = ring if type(ring) is not list else next(item for item in ring if type(item) is not list)
        raise BadGeometryError("bad_coordinates", f"rings are lists of positions [x, y]; there is {shown(wrong)}")
    sizes = set(map(len, ring))
    if sizes and min(sizes) < 2:
        raise BadGeometryError("bad_coordinates", "a position has fewer than two numbers: a coordinate is missing")
    height = bool(sizes) and max(sizes) > 2
    positions = [position[:2] for position in ring] if height else ring
    points = _numbers(list(chain.from_iterable(positions))).reshape(-1, 2)
    closed = len(points) > 0 and bool((points[0] != points[-1]).any())
    if closed:
        points = np.concatenate([points, points[:1]])
    if len(points) < 4:
        raise BadGeometryError(
            "too_few_positions",
            f"a ring has {len(ring)} positions, fewer than four (the last one is the first): no area",
        )
    return points, closed, height


def _numbers(values: list[Any]) -> Floats:
    kinds = set(map(type, values))
    if not kinds <= _NUMBERS:
        _number(next(value for value in values if type(value) not in _NUMBERS), "a coordinate", False)
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError as error:
        raise BadGeometryError("not_finite", "a coordinate is not finite: it has more than 300 digits") from error
    if not np.isfinite(numbers).all():
        what = "not a number (NaN)" if np.isnan(numbers).any() else "not finite (Infinity)"
        raise BadGeometryError("not_finite", f"a coordinate is {what}")
    return numbers


def _number(value: Any, what: str, texts: bool) -> float:
    if value is None:
        raise BadGeometryError("bad_coordinates", f"{what} is missing (null)")
    if isinstance(value, str) and not texts:
        raise BadGeometryError("bad_coordinates", f"{what} is text, not a number: {shown(value)}")
    if type(value) not in (*_NUMBERS, str):
        raise BadGeometryError("bad_coordinates", f"{what} is {shown(value)}, not a number")
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise BadGeometryError("bad_coordinates", f"{what} is {shown(value)}, not a number") from error
    if not math.isfinite(number):
        what_it_is = "not a number (NaN)" if math.isnan(number) else "not finite (Infinity)"
        raise BadGeometryError("not_finite", f"{what} is {what_it_is}")
    return number
