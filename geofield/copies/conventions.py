"""Where pixels are, said in every way that readers look for: CF, GDAL's GeoTransform, and the GeoZarr conventions.

The conventions `proj:` and `spatial:` are those of github.com/zarr-conventions, version 1. The schema of `proj:` takes
exactly one of code, WKT2 and PROJJSON: it is the code where the CRS has one; the WKT2 is in `spatial_ref` always.
"""

from __future__ import annotations

from typing import Any

from odc.geo.geobox import GeoBox
from pyproj import CRS

from geofield.grid import bounds_of, crs_of

CF = "CF-1.11"
MAPPING = "spatial_ref"
_REPOSITORIES = "https://github.com/zarr-conventions"
_SCHEMAS = "https://raw.githubusercontent.com/zarr-conventions"
_CONVENTIONS = (
    {
        "schema_url": f"{_SCHEMAS}/geo-proj/refs/tags/v1/schema.json",
        "spec_url": f"{_REPOSITORIES}/geo-proj/blob/v1/README.md",
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "name": "proj:",
        "description": "Coordinate reference system information for geospatial data",
    },
    {
        "schema_url": f"{_SCHEMAS}/spatial/refs/tags/v1/schema.json",
        "spec_url": f"{_REPOSITORIES}/spatial/blob/v1/README.md",
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "name": "spatial",
        "description": "Spatial coordinate information",
    },
)


def geozarr_attributes(geobox: GeoBox) -> dict[str, Any]:
    """The attributes of `proj:` and `spatial:`, for a group and for each of its arrays."""
    crs = crs_of(geobox)
    code = crs.to_epsg()
    return {
        "zarr_conventions": [dict(one) for one in _CONVENTIONS],
        **({"proj:wkt2": crs.to_wkt("WKT2_2019")} if code is None else {"proj:code": f"EPSG:{code}"}),
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [geobox.shape.y, geobox.shape.x],
        "spatial:transform": [float(number) for number in list(geobox.transform)[:6]],
        "spatial:bbox": [float(number) for number in bounds_of(geobox)],
    }


def mapping_attributes(geobox: GeoBox) -> dict[str, Any]:
    """The attributes of the CF grid mapping, with the WKT that GDAL and rioxarray look for."""
    crs, a = crs_of(geobox), geobox.transform
    numbers = (a.c, a.a, 0.0, a.f, 0.0, a.e)
    return {
        **{name: value for name, value in crs.to_cf().items() if value is not None},
        "spatial_ref": crs.to_wkt(),
        "GeoTransform": " ".join(repr(float(number)) for number in numbers),
    }


def axis_attributes(crs: CRS, axis: str) -> dict[str, Any]:
    """CF attributes of the coordinate `y` or `x`."""
    if crs.is_geographic:
        name, units = {"y": ("latitude", "degrees_north"), "x": ("longitude", "degrees_east")}[axis]
    else:
        name = f"projection_{axis}_coordinate"
        unit = crs.axis_info[0].unit_name
        units = {"metre": "m", "foot": "ft", "US survey foot": "US_survey_foot"}.get(unit, unit)
    return {"standard_name": name, "units": units, "axis": axis.upper()}
