"""Whether geometries are polygons that a field can have: judged in bulk, one by one only where something is wrong."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from geofield.errors import FieldFileError
from geofield.fields.coordinates import ONLY_POLYGONS
from geofield.fields.crsnames import parsed
from geofield.fields.rawrows import MENDED, RawRows
from geofield.fields.report import Objects, Report

REPAIR_TOLERANCE = 0.01
"""A repair may change the area by this share of it; more is refused (design/numbers.md)."""
FLAT = 1e-9
"""A polygon with less area than this share of the square of its diagonal is a line: a millionth of a metre wide and
a kilometre long."""
CHUNK = 100_000
"""Rows judged at once: a bound on memory."""

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
_PLACE = re.compile(r"(?P<fault>[^\[]*)\[(?P<x>\S+) (?P<y>\S+)\]")


def judge_polygons(raw: RawRows, max_vertices: int) -> Objects:
    """Two-dimensional, valid polygons or multipolygons (of more than one part); None where a row is refused.

    Raises
    ------
    FieldFileError
        All coordinates look like degrees while the CRS is projected; the message lacks the file's name.
    """
    geometry = raw.geometry.copy()
    geographic = _geographic(raw.crs)
    like_degrees = np.zeros(len(raw), dtype=bool)
    for start in range(0, len(raw), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(raw)))
        rows = rows[~shapely.is_missing(geometry[rows])]
        rows = _of_right_kind(geometry, rows, max_vertices, raw.report)
        rows = _on_the_globe(geometry, rows, geographic, raw)
        like_degrees[rows] = ~geographic[rows] & _within_degrees(shapely.bounds(geometry[rows]))
        _valid(geometry, rows, geographic, raw.report)
    _refuse_degrees(like_degrees, raw)
    geometry[raw.report.refused] = None
    return geometry


def _geographic(crs: Objects) -> Mask:
    codes, names = pd.factorize(crs)
    return np.array([parsed(str(name)).is_geographic for name in names], dtype=bool)[codes]


def _of_right_kind(geometry: Objects, rows: npt.NDArray[np.intp], limit: int, report: Report) -> npt.NDArray[np.intp]:
    """Rows whose geometry is a finite polygon; heights and single parts are unwrapped on the way."""
    shapes = geometry[rows]
    kinds = shapely.get_type_id(shapes)
    polygons = np.isin(kinds, (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    for row in rows[~polygons]:
        report.refuse(int(row), "not_a_polygon", f"{geometry[row].geom_type}: {ONLY_POLYGONS}")
    empty = polygons & shapely.is_empty(shapes)
    for row in rows[empty]:
        report.refuse(int(row), "empty_geometry", "the geometry is empty")
    rows, shapes = rows[polygons & ~empty], shapes[polygons & ~empty]

    for row in rows[shapely.has_z(shapes)]:
        report.note(int(row), "height_left_out", MENDED["height_left_out"])
    shapes = _unwrapped(shapely.force_2d(shapes))
    geometry[rows] = shapes

    vertices = shapely.get_num_coordinates(shapes)
    for row, count in zip(rows[vertices > limit], vertices[vertices > limit], strict=True):
        report.refuse(
            int(row), "too_many_vertices", f"the polygon has {count:,} vertices, more than the limit of {limit:,}"
        )
    finite = _finite(shapes)
    for row in rows[~finite]:
        report.refuse(int(row), "not_finite", "a coordinate is not a finite number")
    kept: npt.NDArray[np.intp] = rows[finite & (vertices <= limit)]
    return kept


def _unwrapped(shapes: Objects) -> Objects:
    """A multipolygon of one part is that part: formats differ in which of the two they keep."""
    single = (shapely.get_type_id(shapes) == shapely.GeometryType.MULTIPOLYGON) & (
        shapely.get_num_geometries(shapes) == 1
    )
    shapes[single] = shapely.get_geometry(shapes[single], 0)
    return shapes


def _finite(shapes: Objects) -> Mask:
    coordinates, owner = shapely.get_coordinates(shapes, return_index=True)
    finite = np.ones(len(shapes), dtype=bool)
    finite[owner[~np.isfinite(coordinates).all(axis=1)]] = False
    return finite


def _on_the_globe(
    geometry: Objects, rows: npt.NDArray[np.intp], geographic: Mask, raw: RawRows
) -> npt.NDArray[np.intp]:
    """Rows whose degrees are degrees and which are not wider than half the globe."""
    bounds = shapely.bounds(geometry[rows])
    beyond = geographic[rows] & ~_within_degrees(bounds)
    for row, bound in zip(rows[beyond], bounds[beyond], strict=True):
        raw.report.refuse(int(row), "not_degrees", _no_degrees(bound, raw, int(row)))
    # A multipolygon cut at 180 degrees spans the globe, its parts do not.
    belt = geographic[rows] & ~beyond & (bounds[:, 2] - bounds[:, 0] > 180)
    for row in rows[belt]:
        parts = shapely.bounds(shapely.get_parts(geometry[row]))
        if (parts[:, 2] - parts[:, 0] > 180).any():
            raw.report.refuse(
                int(row),
                "crosses_antimeridian",
                "the polygon is wider than half the globe. If it crosses the antimeridian, cut it at 180 degrees "
                "(RFC 7946, 3.1.9)",
            )
    return rows[~raw.report.refused[rows]]


def _within_degrees(bounds: Floats) -> Mask:
    return np.asarray((np.abs(bounds) <= (180, 90, 180, 90)).all(axis=1))


def _no_degrees(bound: Floats, raw: RawRows, row: int) -> str:
    xmin, ymin, xmax, ymax = bound
    x, y = max(xmin, xmax, key=abs), max(ymin, ymax, key=abs)
    value, word = (x, "longitude") if abs(x) > 180 else (y, "latitude")
    said = f" (the file declares {raw.crs[row]})" if raw.crs_declared else ""
    return f"{value:.10g} is no {word}{said}: give degrees, or name the CRS (--crs)"


def _refuse_degrees(like_degrees: Mask, raw: RawRows) -> None:
    if not like_degrees.any():
        return
    first = int(np.flatnonzero(like_degrees)[0])
    says = "the file declares" if raw.crs_declared else "--crs says"
    if like_degrees[~raw.report.refused].all():
        raise FieldFileError(f"the coordinates look like degrees, but {says} {raw.crs[first]}, which is projected")
    for row in np.flatnonzero(like_degrees):
        reason = f"the coordinates look like degrees, but {says} {raw.crs[row]}, which is projected"
        raw.report.refuse(int(row), "degrees_declared_projected", reason)


def _valid(geometry: Objects, rows: npt.NDArray[np.intp], geographic: Mask, report: Report) -> None:
    """Refuse what has no area or crosses itself; mend what can be mended without changing the area."""
    shapes = geometry[rows]
    valid = shapely.is_valid(shapes)
    flat = shapely.area(shapes) <= FLAT * _squared_diagonal(shapes)
    hulls = np.zeros(len(rows), dtype=bool)
    hulls[~valid] = shapely.area(shapely.convex_hull(shapes[~valid])) <= FLAT * _squared_diagonal(shapes[~valid])
    lines = np.where(valid, flat, hulls)
    for row in rows[lines]:
        report.refuse(int(row), "no_area", "the polygon has no area: its positions lie on one line")
    for row in rows[~valid & ~lines]:
        _mend(geometry, int(row), bool(geographic[row]), report)


def _squared_diagonal(shapes: Objects) -> Floats:
    bounds = shapely.bounds(shapes)
    squared: Floats = (bounds[:, 2] - bounds[:, 0]) ** 2 + (bounds[:, 3] - bounds[:, 1]) ** 2
    return squared


def _mend(geometry: Objects, row: int, degrees: bool, report: Report) -> None:
    shape = geometry[row]
    found = _PLACE.match(shapely.is_valid_reason(shape))
    fault = found["fault"] if found else "the polygon is not valid"
    place = _place(float(found["x"]), float(found["y"]), degrees) if found else ""
    if fault.startswith("Hole lies outside"):
        report.refuse(row, "hole_outside", f"a hole lies outside the polygon{place}")
        return
    mended = shapely.make_valid(shape)
    parts = shapely.get_parts(shapely.get_parts(mended))
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    before, after = shapely.area(shape), float(shapely.area(parts).sum())
    if after > 0 and abs(after - before) <= REPAIR_TOLERANCE * after:
        geometry[row] = _unwrapped(np.array([shapely.multipolygons(parts)], dtype=object))[0]
        change = abs(after - before) / after
        report.note(row, "repaired", f"{_fault(fault)}{place}: repaired, the area changes by {change:.2%}")
    else:
        change = f" (a repair would change the area from {before:.4g} to {after:.4g})" if after > 0 else ""
        report.refuse(row, "crosses_itself", f"{_fault(fault)}{place}{change}")


def _place(x: float, y: float, degrees: bool) -> str:
    return f" near {x:.5f}, {y:.5f}" if degrees else f" near {x:.2f}, {y:.2f}"


def _fault(fault: str) -> str:
    if "Self-intersection" in fault:
        return "the boundary crosses itself"
    known = {
        "Holes are nested": "a hole lies inside another hole",
        "Nested shells": "a part lies inside another part",
        "Duplicate Rings": "two rings are the same",
        "Interior is disconnected": "holes cut the polygon in two",
    }
    return known.get(fault, f"the polygon is not valid ({fault.lower()})")
