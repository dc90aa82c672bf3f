"""One band of one raster file as physical values on a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterWindow

from geofield.errors import CrsError, MissingBandError, SourceError
from geofield.grid import Window
from geofield.source.access import PLAIN, Access, is_remote
from geofield.source.gdal import open_raster
from geofield.source.resample import Cut, Positions, aligned_offset, cut_around, positions_in, take

Floats = NDArray[np.float64]

_MAX_CUT = 1 << 24
"""Pixels of a raster held at a time where grids differ; 128 MB as float64."""
_STRIP_PIXELS = 1 << 20
"""Pixels of the target worked on at a time where grids differ."""

_BANDS_AT_ONCE = 4


@dataclass(frozen=True)
class RasterBand:
    """A band in a file, and what the caller knows better than the file's tags.

    Attributes
    ----------
    index
        Counted from 1.
    scale, offset, nodata
        None: as the band is tagged. value = number x scale + offset, where the number is not nodata.
    nearest
        How it is brought to another grid: the nearest pixel, or bilinear. None: the nearest for numbers that may
        be classes (integers without scale and offset), else bilinear.
    access
        How the file is reached.
    """

    href: str
    index: int = 1
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    nearest: bool | None = None
    access: Access = PLAIN


def open_band(band: RasterBand) -> AbstractContextManager[rasterio.DatasetReader]:
    """The file of a band; failures inside the block are translated."""
    return open_raster(band.href, band.access)


def geobox_of(dataset: rasterio.DatasetReader) -> GeoBox:
    """The grid of a raster; `CrsError` when it has no CRS."""
    if dataset.crs is None:
        raise CrsError(f"{dataset.name} has no CRS, so nobody can tell where its pixels lie. Write one into the file.")
    return GeoBox(dataset.shape, dataset.transform, dataset.crs.to_wkt())


def read_bands(bands: Mapping[str, RasterBand], geobox: GeoBox) -> tuple[dict[str, Floats], int]:
    """`read_band` for each; bands of files on a network are read side by side."""
    if len(bands) < 2 or not any(is_remote(band.href) for band in bands.values()):
        found = [read_band(band, geobox) for band in bands.values()]
    else:  # what takes the time are round trips
        with ThreadPoolExecutor(_BANDS_AT_ONCE) as pool:
            found = list(pool.map(read_band, bands.values(), [geobox] * len(bands)))
    return dict(zip(bands, (values for values, _ in found), strict=True)), sum(nbytes for _, nbytes in found)


def read_band(band: RasterBand, geobox: GeoBox) -> tuple[Floats, int]:
    """Physical values on the pixels of `geobox`, and how many bytes were decoded.

    On a file whose pixels are those of the grid numbers are taken as they are. Otherwise each pixel takes the value at
    its centre. Both are the same, bit for bit, however a grid is cut into windows.

    Returns
    -------
    (y, x) float64, NaN where missing or outside of the file.
    """
    with open_band(band) as dataset:
        pixels = _BandPixels(dataset, band)
        return values_on(pixels, geobox_of(dataset), geobox), pixels.nbytes


class Pixels(Protocol):
    """Physical values of any cut of one raster."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        ...

    @property
    def nearest(self) -> bool:
        """Whether other grids take the nearest pixel, instead of bilinear values."""
        ...

    def read(self, cut: Cut) -> Floats:
        """The values of a cut, NaN where missing; it may reach over the raster's edge."""
        ...


def values_on(pixels: Pixels, raster: GeoBox, geobox: GeoBox) -> Floats:
    """The pixels of `geobox` out of those of `raster`, as `read_band` says."""
    offset = aligned_offset(raster, geobox)
    if offset is not None:
        return pixels.read(Cut(*offset, (geobox.shape.y, geobox.shape.x)))
    return _resampled(pixels, positions_in(raster, geobox), (geobox.shape.y, geobox.shape.x))


def read_inside(cut: Cut, shape: tuple[int, int], read_into: Callable[[Floats, Window], None]) -> Floats:
    """The values of a cut that may reach over a raster's edge: NaN outside, `read_into` fills what is inside."""
    values = np.full(cut.shape, np.nan)
    (y0, y1), (x0, x1) = (
        (max(start, 0), min(start + size, limit))
        for start, size, limit in zip((cut.row, cut.column), cut.shape, shape, strict=True)
    )
    if y0 < y1 and x0 < x1:
        target = slice(y0 - cut.row, y1 - cut.row), slice(x0 - cut.column, x1 - cut.column)
        read_into(values[target], Window(y0, x0, y1, x1))
    return values


def to_physical(out: Floats, raw: NDArray[Any], scale: float, offset: float, nodata: np.generic | None) -> None:
    """Number x scale + offset where the number is not nodata, else NaN; in place."""
    np.copyto(out, raw)
    if scale != 1:
        out *= scale
    if offset != 0:
        out += offset
    if nodata is not None:
        np.copyto(out, np.nan, where=raw == nodata)


class _BandPixels:
    """An open band of a raster file."""

    def __init__(self, dataset: rasterio.DatasetReader, band: RasterBand) -> None:
        if not 1 <= band.index <= dataset.count:
            raise MissingBandError(f"{band.href} has {dataset.count} bands; band {band.index} was asked for.")
        self._dataset, self._index = dataset, band.index
        dtype = np.dtype(dataset.dtypes[band.index - 1])
        if dtype.kind not in "iuf":
            raise SourceError(f"{band.href} holds {dtype} numbers; only integers and floats have physical values.")
        self._scale = dataset.scales[band.index - 1] if band.scale is None else band.scale
        self._offset = dataset.offsets[band.index - 1] if band.offset is None else band.offset
        self._nodata, self._has_mask = _missing_rule(dataset, band)
        is_plain = self._scale == 1 and self._offset == 0
        self.nearest = (dtype.kind in "iu" and is_plain) if band.nearest is None else band.nearest
        self.shape: tuple[int, int] = dataset.shape
        self.nbytes = 0

    def read(self, cut: Cut) -> Floats:
        """The values of a cut, NaN where missing; it may reach over the file's edge."""
        return read_inside(cut, self.shape, self._read_into)

    def _read_into(self, out: Floats, inside: Window) -> None:
        window = RasterWindow(inside.x0, inside.y0, inside.shape[1], inside.shape[0])
        raw: NDArray[Any] = self._dataset.read(self._index, window=window)
        self.nbytes += raw.nbytes
        to_physical(out, raw, self._scale, self._offset, self._nodata)
        if self._has_mask:
            np.copyto(out, np.nan, where=self._dataset.read_masks(self._index, window=window) == 0)


def _missing_rule(dataset: rasterio.DatasetReader, band: RasterBand) -> tuple[np.generic | None, bool]:
    """The number that means missing, in the band's own type, and whether there is a mask band.

    NaN needs no rule: it is missing in any band.
    """
    dtype = np.dtype(dataset.dtypes[band.index - 1])
    flags = dataset.mask_flag_enums[band.index - 1]
    has_mask = band.nodata is None and MaskFlags.per_dataset in flags
    nodata = dataset.nodatavals[band.index - 1] if band.nodata is None else band.nodata
    if nodata is None or math.isnan(nodata):
        return None, has_mask
    if dtype.kind in "iu" and not (np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max and nodata == int(nodata)):
        return None, has_mask  # no number of this type is it
    # -3.4028234663852886e+38 and other decimals are tagged as text and mean the nearest number of the type
    with np.errstate(over="ignore"):
        return dtype.type(nodata), has_mask


def _resampled(pixels: Pixels, positions: Positions, shape: tuple[int, int]) -> Floats:
    out = np.full(shape, np.nan)
    for rows in _strips(slice(0, shape[0]), max(1, _STRIP_PIXELS // shape[1]), positions, pixels):
        part = positions.part(rows)
        cut = cut_around(part, pixels.shape, margin=1)
        if cut is not None:
            out[rows] = take(pixels.read(cut), cut, part, pixels.shape, pixels.nearest)
    return out


def _strips(rows: slice, step: int, positions: Positions, pixels: Pixels) -> Iterator[slice]:
    """Rows of the target at a time, fewer where they would need too many pixels of the raster."""
    for start in range(rows.start, rows.stop, step):
        strip = slice(start, min(start + step, rows.stop))
        cut = cut_around(positions.part(strip), pixels.shape, margin=1)
        if cut is not None and math.prod(cut.shape) > _MAX_CUT and strip.stop - strip.start > 1:
            yield from _strips(strip, max(1, (strip.stop - strip.start) // 4), positions, pixels)
        else:
            yield strip
