"""What imagery a path holds, for those who have it already: a folder of GeoTIFFs, a NetCDF file, a Zarr store."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from odc.geo.geobox import GeoBox

from geofield.errors import SourceError
from geofield.grid import Grid, bounds_of, crs_of, crs_text
from geofield.source import open_source
from geofield.source.access import Access
from geofield.source.footprints import projected
from geofield.source.listing import absolute_root, list_files
from geofield.source.protocol import Source
from geofield.source.raster import RasterBand, open_band
from geofield.source.stackfiles import find_files, image_variables, opened
from geofield.source.timenames import TimePattern

_ALWAYS = dt.date(1, 1, 2), dt.date(9999, 12, 30)
_RASTERS = (".tif", ".tiff")
_STACKS = (".nc", ".nc4", ".zarr")
_DEPTH = 3
_TIME = re.compile(
    r"(?<!\d)(?:\d{4}-\d\d-\d\d|\d{8})(?:T\d\d[:\-]?\d\d[:\-]?\d\d(?:\.\d{1,6})?(?:Z|\+00:?00)?)?(?![\d])"
)


@dataclass(frozen=True)
class Imagery:
    """Imagery that lies somewhere.

    Attributes
    ----------
    spec
        The `source` mapping of a box.
    first, last
        Days of the first and the last image.
    images
        How many there are.
    geobox
        Their own grid.
    """

    spec: Mapping[str, Any]
    first: dt.date
    last: dt.date
    images: int
    geobox: GeoBox

    @property
    def source(self) -> Source:
        """What reads it."""
        return open_source(self.spec)

    def touches(self, grid: Grid) -> bool:
        """Whether it has area in common with a grid."""
        xmin, ymin, xmax, ymax = projected(bounds_of(self.geobox), crs_text(crs_of(self.geobox)), crs_text(grid.crs))
        west, south, east, north = grid.bounds
        return xmin < east and xmax > west and ymin < north and ymax > south


def imagery_at(
    path: str, bands: Mapping[str, str] | None = None, quality: Sequence[str] = (), **options: Any
) -> Imagery:
    """What a path holds.

    Parameters
    ----------
    path
        A folder or `s3://` prefix of GeoTIFFs with times in their names; a NetCDF file, or several by `*`; a Zarr
        store.
    bands
        Band -> file pattern or variable, as the sources `files` and `stack` take them. Default: one band for each
        pattern of names, or for each variable over time, rows and columns.
    quality
        Bands of classes.
    options
        More keys of the source: `time`, `crs`, `acquired`, `anonymous`.

    Raises
    ------
    SourceError
        There is nothing that can be read, or its names do not tell bands apart.
    """
    root = absolute_root(path)
    said = {name: value for name, value in options.items() if value is not None}
    is_stack = _is_stack(root, bool(said.get("anonymous")))
    spec: dict[str, Any] = {"type": "stack", "url": root} if is_stack else {"type": "files", "root": root}
    spec["bands"] = dict(bands) if bands else (_variables if is_stack else _patterns)(root, said)
    spec |= {"quality": list(quality)} if quality else {}
    source = open_source(spec | said)
    geobox = source.native_geobox()
    if geobox is None:
        raise SourceError(f"The imagery at {root} has no grid.")
    found = source.search(Grid(geobox), *_ALWAYS)
    if not found:
        raise SourceError(f"There is no image at {root}.")
    return Imagery(spec | said, found[0].time.date(), found[-1].time.date(), len(found), geobox)


def _is_stack(root: str, anonymous: bool) -> bool:
    if root.endswith(_STACKS):
        return True
    try:
        return find_files(root, anonymous)[0].is_zarr
    except SourceError:
        return False


def _variables(root: str, said: Mapping[str, Any]) -> dict[str, str]:
    file = find_files(root, bool(said.get("anonymous")))[0]
    with opened(file, bool(said.get("anonymous"))) as dataset:
        names = image_variables(dataset, str(said.get("time", "time")))
    if not names:
        raise SourceError(f"{file.href} has no variable over {said.get('time', 'time')}, rows and columns.")
    return {name: name for name in names}


def _patterns(root: str, said: Mapping[str, Any]) -> dict[str, str]:
    """Band -> pattern, from the names of the files: what is left of a name without its time is the band."""
    anonymous = bool(said.get("anonymous"))
    found: dict[str, str] = {}
    for path in sorted(list_files(root, _DEPTH, anonymous)):
        text = _TIME.sub("{time}", path)
        if path.lower().endswith(_RASTERS) and "{time}" in text and TimePattern(text).match(path) is not None:
            found.setdefault(text, path)
    if not found:
        raise SourceError(
            f"No GeoTIFF at {root} has a time in its name, such as NDVI_20250401.tif or 2025-04-01/B04.tif. Name the "
            "patterns: --band ndvi=NAME_{time}.tif."
        )
    bands: dict[str, str] = {}
    for text, path in found.items():
        for name, pattern in _bands_of(text, root, path, anonymous):
            if name in bands:
                raise SourceError(
                    f"The files at {root} do not tell their bands: {bands[name]!r} and {pattern!r} both look like "
                    f"{name!r}. Name them: --band NAME=PATTERN."
                )
            bands[name] = pattern
    return bands


def _bands_of(text: str, root: str, path: str, anonymous: bool) -> list[tuple[str, str]]:
    name = _name(str(PurePosixPath(text).with_suffix("")).replace("{time}", " ")) or "image"
    with open_band(RasterBand(f"{root}/{path}", access=Access(anonymous=anonymous))) as dataset:
        if dataset.count == 1:
            return [(name, text)]
        own = [_name(said or "") or f"{name}_{number}" for number, said in enumerate(dataset.descriptions, 1)]
    return [(one, f"{text}#{number}") for number, one in enumerate(own, 1)]


def _name(text: str) -> str:
    """A text in the letters that names of variables have."""
    words = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return words if not words or words[0].isalpha() else f"b{words}"
