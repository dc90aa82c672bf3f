"""A month of small scenes, the sources and catalogues over them, for tests of the STAC source."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.source import Source, gdal, open_source
from tests.support.imageserver import ImageServer, stac_api
from tests.support.scenes import stac_item, write_tif

GEOBOX = GeoBox((300, 300), Affine(10, 0, 500_000, 0, -10, 5_490_000), "EPSG:32631")
COARSE = GeoBox((155, 155), Affine(20, 0, 499_990, 0, -20, 5_490_010), "EPSG:32631")
"""20 m pixels whose grid is half a pixel off."""
DAYS = dt.date(2023, 5, 1), dt.date(2023, 5, 31)
RANDOM = np.random.default_rng(7)
BANDS = {"red": "B04", "nir": "B08", "scl": "SCL"}


@contextlib.contextmanager
def without_waiting() -> Iterator[list[float]]:
    """Back-off without the waiting; how long would have been waited."""
    waits: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geofield.source.staccatalog.pause", waits.append)
        patch.setattr("geofield.source.stacversion.pause", waits.append)
        patch.setattr("geofield.source.stac.pause", waits.append)
        patch.setitem(gdal.OPTIONS, "GDAL_HTTP_RETRY_DELAY", 0.01)
        yield waits


@contextlib.contextmanager
def month_on_api(folder: Path) -> Iterator[ImageServer]:
    """A STAC API over four scenes, one of them cloudy, and the server of their files."""
    covers = {3: 10, 8: 20, 13: 95, 18: 0}
    items = [make_scene(folder, day, "{server}", eo__cloud_cover=cover) for day, cover in covers.items()]
    with stac_api(folder, items) as server:
        yield server


def make_scene(folder: Path, day: int, where: str, **properties: Any) -> dict[str, Any]:
    """Three files of a day of May 2023, and their item; `where` begins the files' addresses."""
    name = f"S2A_{day:02}"
    for band in ("B04", "B08"):
        numbers = RANDOM.integers(1000, 6000, GEOBOX.shape).astype("uint16")
        write_tif(folder / f"{name}_{band}.tif", numbers, GEOBOX, 128, nodata=0)
    classes = RANDOM.integers(0, 12, COARSE.shape).astype("uint8")
    write_tif(folder / f"{name}_SCL.tif", classes, COARSE, 64, nodata=0)
    grid = {"proj:shape": list(COARSE.shape), "proj:transform": list(COARSE.transform)[:6]}
    assets = {band: {"href": f"{where}/{name}_{band}.tif"} for band in ("B04", "B08", "SCL")}
    assets["SCL"] |= grid  # type: ignore[arg-type]
    said = {"s2__processing_baseline": "05.09", "created": f"2023-05-{day:02}T20:00:00Z", **properties}
    return stac_item(name, f"2023-05-{day:02}T10:30:00Z", GEOBOX, assets, **said)


def write_items(path: Path, *items: Any) -> str:
    """An ItemCollection; its path."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(path)


def stac(url: str, **options: Any) -> Source:
    """A source of three bands."""
    return open_source({"type": "stac", "url": url, "bands": BANDS, **options})
