"""One day of a cube as a Cloud Optimized GeoTIFF: what a desktop GIS opens without knowing time."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.crs
import rasterio.shutil
import xarray as xr
from rasterio.windows import Window

from geofield.copies.arrays import CopyArray
from geofield.copies.documents import Layout
from geofield.grid import crs_of, crs_text

_BLOCK = 512
# One thread and nothing of the machine: the same day gives the same bytes. Overviews are means of what is not missing.
_COG: Mapping[str, Any] = {
    "COMPRESS": "DEFLATE",
    "PREDICTOR": "YES",
    "BLOCKSIZE": _BLOCK,
    "OVERVIEW_RESAMPLING": "AVERAGE",
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": "1",
}


def cog_bytes(day: xr.Dataset, layout: Layout, date: dt.date, tags: Mapping[str, str]) -> bytes:
    """A GeoTIFF with a band for each array: float32 physical values, NaN where missing.

    Parameters
    ----------
    day
        (y, x) values; read a strip of rows at a time.
    date
        Becomes the tags `date` and `TIFFTAG_DATETIME`.
    tags
        More of the file's tags.

    Notes
    -----
    Values and not integers with a scale: most readers of GeoTIFF leave scales to their users.
    """
    with tempfile.TemporaryDirectory(prefix="geofield-") as folder:
        plain, cog = Path(folder) / "plain.tif", Path(folder) / "cog.tif"
        _write_plain(plain, day, layout, {**tags, "date": str(date), "TIFFTAG_DATETIME": f"{date:%Y:%m:%d} 00:00:00"})
        # no sidecar files, whatever the user's GDAL is set to
        with rasterio.Env(GDAL_PAM_ENABLED="NO"):
            rasterio.shutil.copy(plain, cog, driver="COG", **_COG)
        return cog.read_bytes()


def _write_plain(path: Path, day: xr.Dataset, layout: Layout, tags: Mapping[str, str]) -> None:
    rows, columns = layout.shape
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": len(layout.arrays),
        "height": rows,
        "width": columns,
        "crs": rasterio.crs.CRS.from_user_input(crs_text(crs_of(layout.geobox))),
        "transform": layout.geobox.transform,
        "nodata": np.nan,
        "BIGTIFF": "IF_SAFER",
    }
    with rasterio.open(path, "w", **profile) as file:
        file.update_tags(**tags)
        _describe(file, layout.arrays)
        for band, one in enumerate(layout.arrays, 1):
            for y in range(0, rows, _BLOCK):
                values = day[one.name].isel(y=slice(y, y + _BLOCK)).values.astype(np.float32)
                file.write(values, band, window=Window(0, y, columns, len(values)))


def _describe(file: Any, arrays: Sequence[CopyArray]) -> None:
    for band, one in enumerate(arrays, 1):
        file.set_band_description(band, one.name)
        file.set_band_unit(band, one.units)
        file.update_tags(band, long_name=one.long_name)
