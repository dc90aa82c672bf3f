"""Polygons and bounds from one CRS to another."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from pyproj import CRS, Transformer

from geofield.errors import CrsError
from geofield.projection import project, project_bounds

LONLAT = CRS.from_epsg(4326)
UTM33 = CRS.from_epsg(32633)


def largest_distance(degrees: shapely.Geometry, projected: shapely.Geometry) -> float:
    """Of the true curve (each edge of `degrees` at 10,000 points) from the projected outline."""
    fine = shapely.get_coordinates(shapely.segmentize(degrees.exterior, degrees.exterior.length / 10_000))
    x, y = Transformer.from_crs(4326, 32633, always_xy=True).transform(fine[:, 0], fine[:, 1])
    return float(shapely.distance(shapely.points(x, y), projected.exterior).max())


def test_a_known_point_in_utm() -> None:
    # The central meridian of zone 33 is 15 E: x is the false easting, and y at the equator is 0.
    point = project(np.array([shapely.Point(15, 0)]), LONLAT, UTM33, 1e-3)[0]
    assert (point.x, point.y) == pytest.approx((500_000, 0), abs=1e-6)


def test_the_same_crs_gives_the_very_same_geometries() -> None:
    shapes = np.array([shapely.box(0, 0, 1, 1), shapely.Point(0.1, 0.2)])
    assert project(shapes, UTM33, CRS.from_epsg(32633), 1e-3) is shapes
    # CRS84 is EPSG:4326 with longitude first, which is how coordinates are kept here anyway.
    assert project(shapes, CRS.from_user_input("OGC:CRS84"), LONLAT, 1e-3) is shapes


@pytest.mark.parametrize("tolerance", [10.0, 0.1, 0.001])
def test_edges_follow_the_true_curve(tolerance: float) -> None:
    square = shapely.box(14.5, 45.8, 15.5, 46.8)
    corners_only = shapely.transform(
        square, lambda xy: np.column_stack(Transformer.from_crs(4326, 32633, always_xy=True).transform(*xy.T))
    )
    assert largest_distance(square, corners_only) > 100
    projected = project([square], LONLAT, UTM33, tolerance)[0]
    assert largest_distance(square, projected) <= tolerance


def test_short_edges_get_no_vertices() -> None:
    field = shapely.box(14.5, 45.8, 14.501, 45.801)
    assert shapely.get_num_coordinates(project([field], LONLAT, UTM33, 0.01)[0]) == 5


def test_an_edge_across_the_central_meridian_bends_both_ways() -> None:
    # Symmetric about 15 E, the curve of this slanted edge meets its chord in the middle: the middle proves nothing.
    slanted = shapely.Polygon([(13, 45), (17, 47), (15, 48)])
    assert largest_distance(slanted, project([slanted], LONLAT, UTM33, 0.01)[0]) <= 0.01


def test_a_geometry_does_not_depend_on_the_others() -> None:
    small, large = shapely.box(14.5, 45.8, 14.6, 45.9), shapely.box(12, 40, 18, 50)
    alone = project([small], LONLAT, UTM33, 0.01)[0]
    assert shapely.equals_exact(project([large, small], LONLAT, UTM33, 0.01)[1], alone, tolerance=0)


def test_holes_parts_and_empty_geometries() -> None:
    holed = shapely.box(14, 45, 15, 46).difference(shapely.box(14.4, 45.4, 14.6, 45.6))
    parts = shapely.MultiPolygon([holed, shapely.box(16, 45, 17, 46)])
    projected = project(np.array([parts, shapely.Polygon(), None], dtype=object), LONLAT, UTM33, 0.01)
    assert projected[0].geom_type == "MultiPolygon"
    assert [len(part.interiors) for part in projected[0].geoms] == [1, 0]
    assert projected[1].is_empty
    assert projected[2] is None
    back = project(projected[:1], UTM33, LONLAT, 1e-7)[0]
    assert back.area == pytest.approx(parts.area, rel=1e-6)


def test_outside_of_the_projection_is_an_error() -> None:
    with pytest.raises(
        CrsError, match=r"Geometry 1 with bounds \(14.0, 95.0, 15.0, 96.0\) cannot be projected from WGS"
    ):
        project([shapely.box(14, 45, 15, 46), shapely.box(14, 95, 15, 96)], LONLAT, UTM33, 0.01)
    with pytest.raises(CrsError, match="order of the axes"):
        project_bounds((14, 95, 15, 96), LONLAT, UTM33)


def test_a_jump_of_the_projection_is_an_error() -> None:
    across = shapely.box(-100_000, 5_000_000, 400_000, 5_100_000)
    with pytest.raises(CrsError, match="antimeridian"):
        project([across], CRS.from_epsg(32601), LONLAT, 1e-9)
    with pytest.raises(CrsError, match="antimeridian"):
        project_bounds(across.bounds, CRS.from_epsg(32601), LONLAT)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
def test_a_tolerance_has_to_be_positive(tolerance: float) -> None:
    with pytest.raises(CrsError, match="tolerance greater than 0"):
        project([shapely.box(14, 45, 15, 46)], LONLAT, UTM33, tolerance)


def test_bounds_follow_the_edges() -> None:
    bounds = (12.0, 45.0, 18.0, 46.0)
    xmin, ymin, xmax, ymax = project_bounds(bounds, LONLAT, UTM33)
    x, y = Transformer.from_crs(4326, 32633, always_xy=True).transform([12, 15, 18, 12, 18], [45, 45, 45, 46, 46])
    # The southern edge dips to the south between its corners: its lowest point is on the central meridian.
    assert ymin == pytest.approx(y[1], abs=1)
    assert y[0] - ymin > 2_000
    assert (xmin, xmax) == pytest.approx((x[0], x[2]), abs=1e-6)
    assert ymax == pytest.approx(y[3], abs=1e-6)


def test_bounds_in_the_same_crs_are_unchanged() -> None:
    bounds = (0.1, 0.2, 0.3, 0.4)
    assert project_bounds(bounds, UTM33, CRS.from_epsg(32633)) is bounds
