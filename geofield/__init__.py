"""Field statistics from satellite imagery: a cube per box that every day extends, and rows per field and day."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geofield import plots as plots
    from geofield.boxes import Box as Box
    from geofield.boxfiles import BoxOptions as BoxOptions
    from geofield.boxfiles import box_from as box_from
    from geofield.boxfiles import read_boxes as read_boxes
    from geofield.cube.cube import Cube as Cube
    from geofield.errors import GeofieldError as GeofieldError
    from geofield.facade import Store as Store
    from geofield.facade import create_store as create_store
    from geofield.facade import open_store as open_store
    from geofield.fields import BoxIndex as BoxIndex
    from geofield.fields import FieldOptions as FieldOptions
    from geofield.fields import place_fields as place_fields
    from geofield.fields import read_fields as read_fields
    from geofield.objects import ObjectInfo as ObjectInfo
    from geofield.pipeline import Run as Run
    from geofield.recipe.variables import needed_bands as needed_bands
    from geofield.reduce.coverage import Coverage as Coverage
    from geofield.reduce.coverage import coverage as coverage
    from geofield.reduce.zonal import zonal_stats as zonal_stats
    from geofield.results.rows import Results as Results
    from geofield.source import advice_on as advice_on
    from geofield.source import open_source as open_source
    from geofield.source.existing import Imagery as Imagery
    from geofield.source.existing import imagery_at as imagery_at
    from geofield.source.searches import searches_kept as searches_kept

__version__ = "0.1.0"

# name -> defining module; loaded when first asked for, so that importing geofield costs little
_NAMES = {
    "Box": "geofield.boxes",
    "BoxOptions": "geofield.boxfiles",
    "Coverage": "geofield.reduce.coverage",
    "Cube": "geofield.cube.cube",
    "FieldOptions": "geofield.fields",
    "GeofieldError": "geofield.errors",
    "Imagery": "geofield.source.existing",
    "ObjectInfo": "geofield.objects",
    "Results": "geofield.results.rows",
    "Run": "geofield.pipeline",
    "Store": "geofield.facade",
    "advice_on": "geofield.source",
    "box_from": "geofield.boxfiles",
    "coverage": "geofield.reduce.coverage",
    "create_store": "geofield.facade",
    "imagery_at": "geofield.source.existing",
    "needed_bands": "geofield.recipe.variables",
    "open_source": "geofield.source",
    "open_store": "geofield.facade",
    "BoxIndex": "geofield.fields",
    "place_fields": "geofield.fields",
    "read_boxes": "geofield.boxfiles",
    "read_fields": "geofield.fields",
    "searches_kept": "geofield.source.searches",
    "zonal_stats": "geofield.reduce.zonal",
}

__all__ = [
    "Box",
    "BoxIndex",
    "BoxOptions",
    "Coverage",
    "Cube",
    "FieldOptions",
    "GeofieldError",
    "Imagery",
    "ObjectInfo",
    "Results",
    "Run",
    "Store",
    "__version__",
    "advice_on",
    "box_from",
    "coverage",
    "create_store",
    "imagery_at",
    "needed_bands",
    "open_source",
    "open_store",
    "place_fields",
    "plots",
    "read_boxes",
    "read_fields",
    "searches_kept",
    "zonal_stats",
]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return importlib.import_module("geofield.plots")
    if name not in _NAMES:
        raise AttributeError(f"module 'geofield' has no attribute {name!r}")
    value = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
