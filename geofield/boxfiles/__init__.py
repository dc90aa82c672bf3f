"""Files of boxes: YAML, JSON, GeoJSON and JSON lines, read into boxes that have no grid yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geofield.boxfiles.making import BoxOptions, box_from
    from geofield.boxfiles.reading import BoxesRead, read_boxes

__all__ = ["BoxOptions", "BoxesRead", "box_from", "read_boxes"]

_HOME = {"BoxOptions": "making", "BoxesRead": "reading", "box_from": "making", "read_boxes": "reading"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
