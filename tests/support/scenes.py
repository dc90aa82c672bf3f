"""Small scenes for tests: rasters, and the STAC items that tell of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import ArrayLike
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds


def write_tif(path: Path, numbers: ArrayLike, geobox: GeoBox, block: int = 256, **profile: Any) -> str:
    """A tiled, compressed GeoTIFF; its path."""
    values = np.atleast_3d(np.asarray(numbers).T).T
    assert values.shape[1:] == geobox.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=geobox.shape.x, height=geobox.shape.y, count=values.shape[0],
        dtype=values.dtype, crs=geobox.crs.to_wkt(), transform=geobox.transform,
        **{"tiled": True, "blockxsize": block, "blockysize": block, "compress": "deflate", **profile},
    ) as dataset:  # fmt: skip
        dataset.write(values)
    return str(path)


def stac_item(
    identity: str,
    time: str,
    geobox: GeoBox,
    assets: Mapping[str, Mapping[str, Any]],
    collection: str = "sentinel-2-l2a",
    **properties: Any,
) -> dict[str, Any]:
    """A STAC 1.0 item on one grid; `assets` are taken as they are, with the grid's shape and transform.

    Keyword arguments with `__` stand for properties with a colon: `s2__processing_baseline`.
    """
    box = geobox.boundingbox
    crs = rasterio.crs.CRS.from_wkt(geobox.crs.to_wkt())
    west, south, east, north = transform_bounds(crs, "EPSG:4326", box.left, box.bottom, box.right, box.top)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    grid = {"proj:shape": list(geobox.shape), "proj:transform": list(geobox.transform)[:6]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": identity,
        "collection": collection,
        "bbox": [west, south, east, north],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "datetime": time,
            "platform": "sentinel-2a",
            "constellation": "sentinel-2",
            "proj:epsg": geobox.crs.epsg,
            **{name.replace("__", ":"): value for name, value in properties.items()},
        },
        "assets": {key: {**grid, **asset} for key, asset in assets.items()},
        "links": [],
    }


def noon(day: dt.date) -> str:
    """A time in STAC's words."""
    return f"{day}T10:30:00Z"
