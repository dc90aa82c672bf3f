"""A store with a box of 40 x 40 pixels and simulated imagery every second day, for tests of runs."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import geofield
from geofield import Store

START = dt.date(2025, 4, 1)
CRS = "EPSG:32631"
X0, Y0 = 500_000.0, 5_490_000.0


def day(number: int) -> dt.date:
    """The n-th day of the box, counted from 1."""
    return START + dt.timedelta(days=number - 1)


def box(name: str = "b", **changes: Any) -> geofield.Box:
    """400 m x 400 m, 10 m pixels."""
    values: dict[str, Any] = {
        "id": name,
        "bbox": [X0, Y0, X0 + 400, Y0 + 400],
        "crs": CRS,
        "start": START,
        "grid": {"crs": CRS, "resolution": 10},
        "source": {"type": "simulated", "seed": 5, "revisit": 2, "phase": 0},
        "variables": {"ndvi": {"index": "NDVI", "mask": {"scl": [0, 1, 3, 8, 9, 10, 11]}, "state": "kalman"}},
    }
    return geofield.Box.model_validate(values | changes)


def feature(name: object, x: float, y: float, side: float = 100.0, **properties: Any) -> dict[str, Any]:
    """A square field, its lower left corner `x`, `y` metres from that of the box."""
    west, south = X0 + x, Y0 + y
    ring = [[west, south], [west + side, south], [west + side, south + side], [west, south + side], [west, south]]
    said = {"field_id": name, "planting_date": START.isoformat()} | properties
    return {
        "type": "Feature",
        "properties": {key: value for key, value in said.items() if value is not None},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


def write_fields(path: Path, *features: Mapping[str, Any]) -> Path:
    """A GeoJSON file whose `crs` member says that it is in metres."""
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": list(features)}))
    return path


def make_store(url: str, *boxes: geofield.Box) -> Store:
    """A store with boxes; by default one."""
    store = geofield.create_store(url)
    for one in boxes or (box(),):
        store.add_box(one)
    return store


def objects(store: Store, prefix: str) -> dict[str, str]:
    """Key -> digest of the bytes, of everything below a prefix."""
    return {
        info.key: hashlib.blake2b(store.location.read(info.key)).hexdigest() for info in store.location.list(prefix)
    }


def numbers(store: Store, name: str | None = None) -> pd.DataFrame:
    """All rows, in an order that does not depend on when they were written."""
    return store.rows(box=name).sort_values(["box", "field_id", "date"]).reset_index(drop=True)
