"""Which items a box wants, by their properties, time and place, decided here whatever a server can decide. Pure.

A query is written as STAC's query extension has it: `{"eo:cloud_cover": {"lt": 80}}`.
"""

from __future__ import annotations

import datetime as dt
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import shapely
from shapely.errors import ShapelyError

from geofield.source.footprints import Bounds
from geofield.source.stacitem import Json, lonlat_bounds, properties_of, time_of

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
    "in": lambda value, wanted: value in wanted,
    "startsWith": lambda value, wanted: str(value).startswith(wanted),
    "endsWith": lambda value, wanted: str(value).endswith(wanted),
    "contains": lambda value, wanted: wanted in value,
}


def is_wanted(
    item: Json,
    collections: Sequence[str],
    bbox: Bounds,
    days: tuple[dt.date, dt.date],
    query: Mapping[str, Mapping[str, Any]],
) -> bool:
    """Whether an item is of the collections, touches the box, was acquired on the days and meets the query.

    Parameters
    ----------
    collections
        Ids; none given: any.
    bbox
        Longitude and latitude.
    days
        First and last, UTC.
    """
    return (
        (not collections or item.get("collection") in collections)
        and days[0] <= time_of(item).date() <= days[1]
        and meets(item, query)
        and _touches(item, bbox)
    )


def meets(item: Json, query: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether every condition holds; a property that the item does not have meets none."""
    properties = {**properties_of(item), "id": item.get("id")}
    for name, conditions in query.items():
        value = properties.get(name)
        if value is None:
            return False
        try:
            if not all(OPERATORS[operation](value, wanted) for operation, wanted in conditions.items()):
                return False
        except TypeError:  # a text where a number is wanted
            return False
    return True


def _touches(item: Json, bbox: Bounds) -> bool:
    """By the item's outline, as an API decides; by its bounds where it has none; else it may."""
    geometry = item.get("geometry")
    if isinstance(geometry, Mapping):
        try:
            shape = shapely.geometry.shape(geometry)
            return bool(shapely.intersects(shapely.make_valid(shape), shapely.box(*bbox)))
        except (ShapelyError, ValueError, TypeError, KeyError, AttributeError, IndexError):
            pass  # not GeoJSON: its bounds are asked
    bounds = lonlat_bounds(item)
    if bounds is None:
        return True
    return bounds[0] <= bbox[2] and bounds[2] >= bbox[0] and bounds[1] <= bbox[3] and bounds[3] >= bbox[1]
