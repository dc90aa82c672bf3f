"""What a STAC item says, in STAC 1.0 or 1.1. Pure functions of JSON that is somebody else's: nothing is trusted."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from affine import Affine

from geofield.errors import CrsError, SourceError
from geofield.grid import crs_text, parse_crs
from geofield.source.footprints import Bounds, union

Json = Mapping[str, Any]

LONLAT = "EPSG:4326"


def name_of(item: Json) -> str:
    """Collection and id, for messages."""
    return f"{item.get('collection') or 'item'}/{item.get('id')}"


def properties_of(item: Json) -> Json:
    """The item's properties; empty when it has none."""
    return _mapping(item.get("properties"))


def assets_of(item: Json) -> dict[str, Json]:
    """Key -> asset, those with an address."""
    assets = _mapping(item.get("assets"))
    return {
        key: asset
        for key, asset in assets.items()
        if isinstance(asset, Mapping) and isinstance(asset.get("href"), str) and asset["href"]
    }


def time_of(item: Json) -> dt.datetime:
    """UTC; the start where the item names an interval only.

    Raises
    ------
    SourceError
        There is no time, or none that can be read.
    """
    properties = properties_of(item)
    text = properties.get("datetime") or properties.get("start_datetime")
    try:
        time = dt.datetime.fromisoformat(str(text))
    except ValueError as error:
        raise SourceError(
            f"{name_of(item)} was acquired at {text!r}, which is no time. Leave it out by a `query`, or mend the item."
        ) from error
    return (time if time.tzinfo else time.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)


@dataclass(frozen=True)
class BandFields:
    """What is said of one band of an asset; None: nothing.

    Attributes
    ----------
    scale, offset
        value = number x scale + offset.
    nodata
        May be NaN.
    count
        Bands that the asset is said to have; 0 when it is not said.
    """

    name: str | None
    common_name: str | None
    scale: float | None
    offset: float | None
    nodata: float | None
    count: int


def band_fields(item: Json, asset: Json, index: int = 1) -> BandFields:
    """One band of an asset: `bands` of STAC 1.1 before what stands on the asset, then `raster:bands` and `eo:bands`.

    Parameters
    ----------
    index
        Counted from 1.
    """
    new, raster, eo = (_entries(asset.get(key)) for key in ("bands", "raster:bands", "eo:bands"))
    own, old, spectral = (
        _mapping(entries[index - 1] if index <= len(entries) else None) for entries in (new, raster, eo)
    )
    return BandFields(
        name=_text(own.get("name"), spectral.get("name")),
        common_name=_text(
            own.get("eo:common_name"), own.get("common_name"), asset.get("eo:common_name"), spectral.get("common_name")
        ),
        scale=_number(item, "scale", own.get("raster:scale"), asset.get("raster:scale"), old.get("scale")),
        offset=_number(item, "offset", own.get("raster:offset"), asset.get("raster:offset"), old.get("offset")),
        nodata=_number(item, "nodata", own.get("nodata"), asset.get("nodata"), old.get("nodata"), finite=False),
        count=max(len(new), len(raster), len(eo)),
    )


def extent_of(item: Json, assets: Iterable[Json]) -> tuple[Bounds, str] | None:
    """(bounds, CRS) around the grids that the assets are said to have; None when they do not say."""
    found: list[Bounds] = []
    text = None
    for asset in assets:
        crs = _crs_of(item, asset)
        bounds = _grid_bounds(item, asset)
        if crs is None or bounds is None or text not in (None, crs):
            return None
        text = crs
        found.append(bounds)
    return (union(found), text) if found and text is not None else None


def lonlat_bounds(item: Json) -> Bounds | None:
    """The item's `bbox`, without heights; None when it has none or crosses the antimeridian."""
    bbox = _numbers(item.get("bbox"))
    if bbox is None or len(bbox) not in (4, 6):
        return None
    half = len(bbox) // 2
    west, south, east, north = bbox[0], bbox[1], bbox[half], bbox[half + 1]
    return (west, south, east, north) if west < east and south < north else None


def _crs_of(item: Json, asset: Json) -> str | None:
    for place in (asset, properties_of(item)):
        for key in ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson"):
            value = place.get(key)
            if value is None:
                continue
            try:
                return crs_text(parse_crs(dict(value) if isinstance(value, Mapping) else value))
            except CrsError:
                return None
    return None


def _grid_bounds(item: Json, asset: Json) -> Bounds | None:
    transform, shape, bbox = (
        _numbers(asset.get(key) or properties_of(item).get(key))
        for key in ("proj:transform", "proj:shape", "proj:bbox")
    )
    if transform is not None and len(transform) in (6, 9) and shape is not None and len(shape) == 2:
        matrix = Affine(*transform[:6])
        rows, columns = shape
        corners = [matrix @ corner for corner in ((0, 0), (columns, 0), (0, rows), (columns, rows))]
        x, y = zip(*corners, strict=True)
        bounds = min(x), min(y), max(x), max(y)
    elif bbox is not None and len(bbox) == 4:
        bounds = bbox[0], bbox[1], bbox[2], bbox[3]
    else:
        return None
    return bounds if bounds[0] < bounds[2] and bounds[1] < bounds[3] else None


def _mapping(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def _entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(*values: Any) -> str | None:
    return next((value for value in values if isinstance(value, str) and value), None)


def _numbers(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list | tuple) or not value:
        return None
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in value):
        return None
    return tuple(float(one) for one in value)


def _number(item: Json, what: str, *values: Any, finite: bool = True) -> float | None:
    value = next((value for value in values if value is not None), None)
    if value is None:
        return None
    try:
        number = None if isinstance(value, bool) else float(value)  # "nan" and "-inf" are text in JSON
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (finite and not math.isfinite(number)):
        raise SourceError(
            f"{name_of(item)} gives {value!r} as {what}, which is no number. Give it yourself under `bands`."
        )
    return number
