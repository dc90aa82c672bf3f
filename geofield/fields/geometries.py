"""Polygons of accepted fields in the CRS of a grid."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import shapely
from pyproj import CRS

from geofield.fields.crsnames import parsed
from geofield.fields.report import Objects
from geofield.projection import project


def field_geometries(table: pd.DataFrame, crs: CRS, tolerance: float) -> geopandas.GeoDataFrame:
    """The fields of a table in another CRS.

    Parameters
    ----------
    table
        As `read_fields` makes it: `geometry` is WKB in the CRS that `crs` names, row by row.
    crs
        The target.
    tolerance
        Largest distance of an edge from the true curve, in units of the target.

    Returns
    -------
    geopandas.GeoDataFrame
        Index `field_id`, the other columns as they were but for `crs`, which the frame itself has now.

    Raises
    ------
    CrsError
        A polygon cannot be projected.
    """
    projected = projected_shapes(shapely.from_wkb(table["geometry"].to_numpy(object)), table["crs"], crs, tolerance)
    frame = table.drop(columns=["geometry", "crs"]).set_index("field_id")
    return geopandas.GeoDataFrame(frame, geometry=projected, crs=crs)


def projected_shapes(shapes: Objects, names: pd.Series, crs: CRS, tolerance: float) -> Objects:
    """(n,) shapes, each given in the CRS of its name, in one CRS."""
    out = np.empty(len(shapes), dtype=object)
    for name, rows in names.groupby(names.to_numpy(), sort=False).indices.items():
        out[rows] = project(shapes[rows], parsed(str(name)), crs, tolerance)
    return out
