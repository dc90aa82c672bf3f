"""Polygons before their pixels are looked for: named once each, valid, in the CRS of the grid. No I/O."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from odc.geo.geobox import GeoBox

from geofield.errors import CrsError, InputError
from geofield.grid import bounds_of, check_north_up, crs_of
from geofield.projection import project

Geometries = npt.NDArray[np.object_]

PROJECTED_TO = 1e-3
"""Edges of reprojected fields are within this part of a pixel of the true curve."""


def field_ids(fields: gpd.GeoDataFrame | gpd.GeoSeries, id_column: str | None) -> npt.NDArray[Any]:
    """(field,) names, each there and each once; `InputError` says which is not."""
    check_fields(fields)
    if id_column is not None and isinstance(fields, gpd.GeoSeries):
        raise InputError(f"A GeoSeries has no column {id_column!r}; its index names the fields.")
    if id_column is not None and id_column not in fields:
        raise InputError(f"The fields have no column {id_column!r}. Their columns are {list(fields.columns)}.")
    names = pd.Index(fields.index if id_column is None else fields[id_column])
    where = "the index" if id_column is None else f"column {id_column!r}"
    if names.hasnans:
        raise InputError(f"Field {int(np.argmax(names.isna()))} has no id in {where}. Name one, or use another column.")
    if not names.is_unique:
        twice = names[names.duplicated()].tolist()[0]
        raise InputError(
            f"Id {twice!r} occurs {int((names == twice).sum())} times in {where}. Name another column with "
            "`id_column=`, or number the fields with `fields.reset_index(drop=True)`."
        )
    return np.asarray(names.to_numpy())


def check_fields(fields: object) -> None:
    """`InputError` unless these are the polygons of GeoPandas."""
    if not isinstance(fields, gpd.GeoDataFrame | gpd.GeoSeries):
        raise InputError(
            f"Fields are a GeoDataFrame or a GeoSeries of polygons with a CRS; got {type(fields).__name__}. Read them "
            "with `geopandas.read_file`, or wrap shapes in `geopandas.GeoSeries(shapes, crs=...)`."
        )
    if isinstance(fields, gpd.GeoDataFrame) and fields.active_geometry_name is None:
        raise InputError(
            f"The fields have no geometry, only the columns {list(fields.columns)}. Say which one it is with "
            "`fields.set_geometry(...)`."
        )


def projected_shapes(fields: gpd.GeoDataFrame | gpd.GeoSeries, geobox: GeoBox, ids: npt.NDArray[Any]) -> Geometries:
    """Checked polygons in the CRS of the grid, their edges densified; `ids` are for messages."""
    check_north_up(geobox)
    shapes: Geometries = np.asarray(fields.geometry.array, dtype=object)
    _check_shapes(ids, shapes)
    if fields.crs is None:
        raise CrsError(
            "The fields have no CRS. Set the one that their coordinates are in, e.g. `fields.set_crs('EPSG:4326')`."
        )
    pixel = min(abs(geobox.resolution.x), abs(geobox.resolution.y))
    return project(shapes, fields.crs, crs_of(geobox), PROJECTED_TO * pixel)


def _check_shapes(ids: npt.NDArray[Any], shapes: Geometries) -> None:
    """`InputError` for the first geometry that is no polygon with an area and a valid outline."""
    polygon = np.isin(shapely.get_type_id(shapes), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    wrong = np.flatnonzero(~polygon | shapely.is_empty(shapes) | ~shapely.is_valid(shapes))
    if not wrong.size:
        return
    shape, name = shapes[wrong[0]], ids[wrong[:1]].tolist()[0]
    if shape is None or shape.is_empty:
        reason = "has no geometry"
    elif not polygon[wrong[0]]:
        reason = f"is a {shape.geom_type}, not a polygon"
    else:
        reason = f"is invalid: {shapely.is_valid_reason(shape)}"
    raise InputError(
        f"Field {name!r} {reason} ({wrong.size} of {len(shapes)} fields cannot be used). Leave such fields out, or "
        "repair them, e.g. with `fields.make_valid()`."
    )


def covered_shares(shapes: Geometries, geobox: GeoBox) -> npt.NDArray[np.float64]:
    """Share of each area inside the grid; areas are compared only for those that are not wholly inside."""
    xmin, ymin, xmax, ymax = bounds_of(geobox)
    bounds = shapely.bounds(shapes)
    covered = np.ones(len(shapes))
    out = np.flatnonzero(~((bounds[:, :2] >= (xmin, ymin)).all(axis=1) & (bounds[:, 2:] <= (xmax, ymax)).all(axis=1)))
    if out.size:
        inside = shapely.area(shapely.intersection(shapes[out], shapely.box(xmin, ymin, xmax, ymax)))
        covered[out] = np.clip(inside / shapely.area(shapes[out]), 0.0, 1.0)
    return covered
