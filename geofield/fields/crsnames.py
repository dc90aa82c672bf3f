"""One name for one CRS, so that the same polygon has the same version in every file format."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pyproj import CRS

from geofield.errors import CrsError
from geofield.grid import crs_text, parse_crs

LONLAT = "EPSG:4326"
"""Longitude, latitude on WGS 84, always in this order."""


@lru_cache(maxsize=256)
def field_crs(text: str) -> str:
    """The name under which the CRS of a field is kept: `EPSG:n` where there is a code, else WKT.

    Raises
    ------
    CrsError
        PROJ does not know it, or positions in it are neither degrees nor map coordinates.
    """
    crs = _horizontal(parse_crs(text))
    if not (crs.is_geographic or crs.is_projected):
        raise CrsError(
            f"{crs.name!r} is neither geographic nor projected: the corners of a field cannot be given in it."
        )
    if crs.equals(_lonlat(), ignore_axis_order=True):
        return LONLAT
    return crs_text(crs)


def parsed(text: str) -> CRS:
    """The CRS of a name made by `field_crs`."""
    return _parsed(text)


def from_projjson(value: Any) -> str:
    """The name of a CRS given as PROJJSON (GeoParquet)."""
    try:
        return field_crs(CRS.from_json_dict(value).to_wkt())
    except CrsError:
        raise
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise CrsError("the CRS in the file's metadata cannot be read") from error


def _horizontal(crs: CRS) -> CRS:
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    return crs.to_2d() if len(crs.axis_info) == 3 and (crs.is_geographic or crs.is_projected) else crs


@lru_cache(maxsize=256)
def _parsed(text: str) -> CRS:
    return parse_crs(text)


@lru_cache(maxsize=1)
def _lonlat() -> CRS:
    return CRS.from_epsg(4326)
