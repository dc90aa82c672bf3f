"""Files of field polygons: read, judged row by row, normalised and versioned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geofield.fields.geometries import field_geometries
    from geofield.fields.options import FieldOptions
    from geofield.fields.placement import BoxIndex, Placement, place_fields
    from geofield.fields.reading import FieldsRead, read_fields
    from geofield.fields.report import Notice, Rejection

__all__ = [
    "BoxIndex",
    "FieldOptions",
    "FieldsRead",
    "Notice",
    "Placement",
    "Rejection",
    "field_geometries",
    "place_fields",
    "read_fields",
]

_HOME = {
    "FieldOptions": "options",
    "FieldsRead": "reading",
    "Notice": "report",
    "Placement": "placement",
    "Rejection": "report",
    "field_geometries": "geometries",
    "BoxIndex": "placement",
    "place_fields": "placement",
    "read_fields": "reading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
