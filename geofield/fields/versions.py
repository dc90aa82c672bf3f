"""The version of a field: a digest of everything about it that its rows depend on."""

from __future__ import annotations

import datetime as dt
from hashlib import blake2b

import numpy as np
import shapely

from geofield.fields.report import Objects

DIGITS = 12


def field_versions(geometry: Objects, crs: Objects, planting: Objects, harvest: Objects) -> Objects:
    """(n,) 12 hexadecimal digits of a digest of geometry, CRS, planting and harvest date.

    Parameters
    ----------
    geometry
        (n,) two-dimensional polygons. Neither the direction nor the first position of a ring, nor the order of parts
        and holes, makes another version.
    crs
        (n,) names, as `field_crs` makes them.
    planting, harvest
        (n,) days; None for the box's start and for no harvest.
    """
    normal = shapely.to_wkb(shapely.normalize(_without_negative_zero(geometry)), byte_order=1, output_dimension=2)
    versions = np.empty(len(geometry), dtype=object)
    for row, (wkb, name, planted, harvested) in enumerate(zip(normal, crs, planting, harvest, strict=True)):
        text = f"{name}\n{_day(planted)}\n{_day(harvested)}\n".encode()
        versions[row] = blake2b(text + wkb, digest_size=DIGITS // 2).hexdigest()
    return versions


def _without_negative_zero(geometry: Objects) -> Objects:
    zeroed: Objects = shapely.set_coordinates(geometry.copy(), shapely.get_coordinates(geometry) + 0.0)
    return zeroed


def _day(day: dt.date | None) -> str:
    return "" if day is None else day.isoformat()
