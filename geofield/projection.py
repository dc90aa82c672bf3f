"""Polygons and bounds from one CRS to another, with edges that follow the true curve. No I/O.

A straight edge in one CRS is a curve in another: an edge of 10 km of longitude and latitude bends by metres in UTM.
Vertices are added to the edges, in the source CRS, until each projected edge is as close to that curve as asked.
Axis order is always x, y (longitude, latitude).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from geofield.errors import CrsError

Bounds = tuple[float, float, float, float]
Geometries = npt.NDArray[np.object_]
Floats = npt.NDArray[np.float64]

BOUNDS_POINTS = 63
"""Points added to each edge of a rectangle before its bounds are projected; 1 / 64**2 of a bulge can be missed."""
CHECKED_AT = (0.25, 0.5, 0.75)
"""Where along an edge its distance from the true curve is measured; the middle alone misses an S-shaped curve."""
MAX_ROUNDS = 24
MAX_SEGMENTS = 1_000_000
"""An edge cut into more segments than this does not converge: it crosses a place where the projection jumps."""


def same_crs(source: CRS, target: CRS) -> bool:
    """Whether coordinates (x, y) in one are coordinates in the other: EPSG:4326 and OGC:CRS84 are the same here."""
    return source is target or bool(source.equals(target, ignore_axis_order=True))


def project(geometries: npt.ArrayLike, source: CRS, target: CRS, tolerance: float) -> Geometries:
    """Geometries in another CRS; vertices are added so that edges follow the true curve.

    Parameters
    ----------
    geometries
        (n,) shapely geometries; None and empty ones stay as they are.
    source, target
        When both are the same CRS the very same geometries come back.
    tolerance
        Largest distance of an edge from the true curve, in units of `target`.

    Returns
    -------
    (n,) geometries, two-dimensional. Each depends on its own vertices only, never on the others.

    Raises
    ------
    CrsError
        A geometry cannot be projected (outside of where the projection is defined, or across a jump of it).
    """
    shapes: Geometries = np.asarray(geometries, dtype=object)
    if same_crs(source, target):
        return shapes
    if not tolerance > 0:
        raise CrsError(f"Projecting needs a tolerance greater than 0, in units of {target.name}; got {tolerance}.")
    way = _Way(source, target)
    dense = _densified(shapely.force_2d(shapes), way, tolerance)
    points, owner = shapely.get_coordinates(dense, return_index=True)
    moved = way.points(points)
    lost = ~np.isfinite(moved).all(axis=1)
    if lost.any():
        first = int(owner[lost][0])
        raise CrsError(way.not_defined(f"Geometry {first} with bounds {_bounds(shapes[first])}"))
    projected: Geometries = shapely.set_coordinates(dense, moved)
    return projected


def project_bounds(bounds: Bounds, source: CRS, target: CRS) -> Bounds:
    """The bounds in another CRS of a rectangle, whose edges are followed, not only its corners.

    Parameters
    ----------
    bounds
        (xmin, ymin, xmax, ymax) in `source`; they come back unchanged when both are the same CRS.

    Raises
    ------
    CrsError
        The rectangle cannot be projected, or crosses the antimeridian in `target`.
    """
    if same_crs(source, target):
        return bounds
    way = _Way(source, target)
    try:
        projected = way.transformer.transform_bounds(*bounds, densify_pts=BOUNDS_POINTS, errcheck=True)
    except ProjError as error:
        raise CrsError(way.not_defined(f"A rectangle with bounds {bounds}")) from error
    xmin, ymin, xmax, ymax = (float(value) for value in projected)
    if not np.isfinite([xmin, ymin, xmax, ymax]).all():
        raise CrsError(way.not_defined(f"A rectangle with bounds {bounds}"))
    if xmin > xmax:
        raise CrsError(
            f"The bounds {bounds} ({source.name}) cross the antimeridian in {target.name}: from {xmin:g} to {xmax:g}. "
            "Give them as two rectangles, one on each side."
        )
    return xmin, ymin, xmax, ymax


class _Way:
    """From one CRS to another, and how to say that something cannot go there."""

    def __init__(self, source: CRS, target: CRS) -> None:
        self.names = f"from {source.name} to {target.name}"
        self.transformer = Transformer.from_crs(source, target, always_xy=True)

    def points(self, points: Floats) -> Floats:
        """(n, 2) points in the target CRS; NaN where the projection is not defined."""
        if not len(points):
            return points
        moved: Floats = np.column_stack(self.transformer.transform(points[:, 0], points[:, 1]))
        moved[~np.isfinite(moved).all(axis=1)] = np.nan
        return moved

    def not_defined(self, what: str) -> str:
        """The message for what lies outside of the projection."""
        return (
            f"{what} cannot be projected {self.names}: it reaches outside of where the projection is defined. "
            "Check the CRS that was given and the order of the axes (x or longitude first)."
        )

    def jumps(self, shape: Any) -> str:
        """The message for an edge that no number of vertices brings near its curve."""
        return (
            f"A geometry with bounds {_bounds(shape)} cannot be projected {self.names}: an edge crosses a place where "
            "the projection jumps, such as the antimeridian or a pole. Cut it there into parts."
        )


def _densified(shapes: Geometries, way: _Way, tolerance: float) -> Geometries:
    """Edges cut, in the source CRS, until each is within `tolerance` of its curve."""
    dense = shapes.copy()
    open_ = np.arange(len(dense))
    longest = np.full(len(dense), np.inf)
    for _ in range(MAX_ROUNDS):
        owner, length, deviation = _edges(dense[open_], way)
        worst = np.zeros(len(open_))
        np.maximum.at(worst, owner, deviation)
        coarse = np.flatnonzero(worst > tolerance)
        if not coarse.size:
            return dense
        # The deviation of an arc grows with the square of its length; edges that pass already are kept as they are
        # by choosing, per geometry, the largest length that cures every edge that fails.
        wanted = np.where(deviation > tolerance, length * np.sqrt(tolerance / np.maximum(deviation, tolerance)), np.inf)
        cured = np.full(len(open_), np.inf)
        np.minimum.at(cured, owner, wanted)
        open_, cured = open_[coarse], 0.9 * cured[coarse]
        longest[open_] = np.minimum(longest[open_] / 2, cured)
        _check_segments(shapes[open_], longest[open_], way)
        dense[open_] = shapely.segmentize(shapes[open_], longest[open_])
    raise CrsError(way.jumps(shapes[open_[0]]))


def _edges(shapes: Geometries, way: _Way) -> tuple[npt.NDArray[np.intp], Floats, Floats]:
    """Of every edge: the geometry it belongs to, its length (source), its distance from the curve (target)."""
    parts, part_owner = shapely.get_parts(shapes, return_index=True)
    rings, ring_owner = shapely.get_rings(parts, return_index=True)
    lines = shapely.get_type_id(parts) == shapely.GeometryType.LINESTRING
    rings = np.concatenate([rings, parts[lines]])
    ring_shape = np.concatenate([part_owner[ring_owner], part_owner[lines]])
    points, ring = shapely.get_coordinates(rings, return_index=True)
    follows = ring[1:] == ring[:-1]
    start, end = points[:-1][follows], points[1:][follows]
    owner = ring_shape[ring[1:][follows]]
    moved = way.points(points)
    moved_start, moved_end = moved[:-1][follows], moved[1:][follows]
    deviation = np.zeros(len(start))
    for share in CHECKED_AT:
        true = way.points(start + share * (end - start))
        deviation = np.fmax(deviation, _distance(true, moved_start, moved_end))
    return owner, np.hypot(*(end - start).T), deviation


def _distance(points: Floats, start: Floats, end: Floats) -> Floats:
    """Of each point from the segment start-end; NaN where something is not finite."""
    along = end - start
    squared = (along**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(np.where(squared > 0, ((points - start) * along).sum(axis=1) / squared, 0.0), 0.0, 1.0)
        return np.asarray(np.hypot(*(points - start - share[:, None] * along).T))


def _check_segments(shapes: Geometries, longest: Floats, way: _Way) -> None:
    many = np.flatnonzero(~(shapely.length(shapes) / longest < MAX_SEGMENTS))
    if many.size:
        raise CrsError(way.jumps(shapes[many[0]]))


def _bounds(shape: Any) -> Bounds:
    xmin, ymin, xmax, ymax = shapely.bounds(shape).tolist()
    return xmin, ymin, xmax, ymax
