"""A folder, or an `s3://` prefix, of GeoTIFFs with the time of acquisition in their names."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import Field, field_validator, model_validator

from geofield.errors import CrsError, GridError, MissingBandError, SourceError, UnreadableFileError
from geofield.grid import Grid, bounds_of, check_north_up, crs_of, crs_text
from geofield.source.access import Access
from geofield.source.counters import count_read
from geofield.source.footprints import projected, union
from geofield.source.listing import absolute_root, list_files, stamp_of
from geofield.source.protocol import Acquisition
from geofield.source.raster import RasterBand, geobox_of, open_band, read_bands
from geofield.source.settings import (
    BandPlace,
    Settings,
    check_no_credentials,
    check_quality,
    parse_settings,
    with_index,
)
from geofield.source.timenames import TimePattern

Bounds = tuple[float, float, float, float]

_HEADERS_AT_ONCE = 8


class BandFiles(BandPlace):
    """The files of one band. `scale`, `offset` and `nodata` stand in for the tags of the files."""

    path: str = Field(description="pattern below the root, e.g. NDVI_{time}.tif")
    index: int = Field(1, ge=1, description="band in the file, counted from 1")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """`file.tif#2` is band 2 of file.tif."""
        return with_index("path", value)

    @field_validator("path")
    @classmethod
    def _has_time(cls, value: str) -> str:
        TimePattern(value)
        return value


class FilesSettings(Settings):
    """Keys of a source of files."""

    type: Literal["files"]
    root: str = Field(min_length=1, description="a folder, or s3://bucket/prefix")
    bands: dict[str, BandFiles] = Field(min_length=1, description="band -> pattern, or {path, index, scale, ...}")
    quality: tuple[str, ...] | None = Field(
        None, description="bands of classes: never interpolated; by default every band of plain integers"
    )
    anonymous: bool = Field(False, description="an open bucket: requests are not signed")

    @field_validator("root")
    @classmethod
    def _open_root(cls, value: str) -> str:
        return absolute_root(check_no_credentials(value))

    @model_validator(mode="after")
    def _known_quality(self) -> Self:
        check_quality(self.quality, self.bands)
        return self


@dataclass(frozen=True)
class _Asset:
    href: str
    stamp: str


@dataclass(frozen=True)
class FilesSource:
    """A source of files; see `FilesSettings`."""

    settings: FilesSettings

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> FilesSource:
        """From the `source` mapping of a box."""
        return cls(parse_settings(FilesSettings, spec))

    def bands(self) -> tuple[str, ...]:
        """As the box names them."""
        return tuple(self.settings.bands)

    def quality_bands(self) -> tuple[str, ...]:
        """As the box names them; empty when it does not say."""
        return self.settings.quality or ()

    def native_geobox(self) -> GeoBox | None:
        """The grid of the first file of the first band.

        Raises
        ------
        SourceError
            There is no such file yet.
        GridError, CrsError
            Its grid is flipped or rotated, or it has no CRS.
        """
        name, band = next(iter(self.settings.bands.items()))
        pattern = TimePattern(band.path)
        times = {path: time for path in self._listing() if (time := pattern.match(path)) is not None}
        if not times:
            raise SourceError(f"No file at {self.settings.root} matches {band.path!r} (band {name}) yet.")
        href = f"{self.settings.root}/{min(times, key=lambda path: (times[path], path))}"
        with open_band(self._raster_band(name, href)) as dataset:
            geobox = geobox_of(dataset)
        try:
            check_north_up(geobox)
        except GridError as error:
            raise GridError(f"{href}: {error}") from error
        return geobox

    def search(self, grid: Grid, start: dt.date, end: dt.date) -> list[Acquisition]:
        """One acquisition for each distinct time in the files' names.

        The folder is listed once; headers are opened of the files of these days only, and kept by the process while
        the files stay as they are.
        """
        found = self._assets_by_time(start, end)
        headers = self._headers(asset for assets in found.values() for asset in assets.values())
        target = crs_text(grid.crs)
        return [self._acquisition(time, found[time], headers, target) for time in sorted(found)]

    def read(self, acquisition: Acquisition, bands: Sequence[str], geobox: GeoBox) -> dict[str, NDArray[np.float64]]:
        """Number x scale + offset where the number is not nodata; on other grids the value at each pixel's centre."""
        for band in bands:
            self._check_band(acquisition, band)
        result, nbytes = read_bands({band: self._raster_band(band, acquisition.assets[band]) for band in bands}, geobox)
        if nbytes:
            count_read(nbytes)
        return result

    def _check_band(self, acquisition: Acquisition, band: str) -> None:
        if band not in self.settings.bands:
            raise MissingBandError(f"The source has no band {band!r}; it offers {', '.join(self.settings.bands)}.")
        if band not in acquisition.assets:
            raise MissingBandError(
                f"Acquisition {acquisition.id} has no file for band {band!r}: nothing at {self.settings.root} matches "
                f"{self.settings.bands[band].path!r} for {acquisition.time:%Y-%m-%dT%H:%M:%SZ}. "
                "Bring the file, or drop the others of that time."
            )

    def _raster_band(self, name: str, href: str) -> RasterBand:
        band, quality = self.settings.bands[name], self.settings.quality
        return RasterBand(
            href,
            band.index,
            band.scale,
            band.offset,
            band.nodata,
            nearest=None if quality is None else name in quality,
            access=Access(anonymous=self.settings.anonymous),
        )

    def _listing(self) -> dict[str, Mapping[str, Any]]:
        depth = max(TimePattern(band.path).depth for band in self.settings.bands.values())
        return list_files(self.settings.root, depth, self.settings.anonymous)

    def _assets_by_time(self, start: dt.date, end: dt.date) -> dict[dt.datetime, dict[str, _Asset]]:
        listing = self._listing()
        patterns = {name: TimePattern(band.path) for name, band in self.settings.bands.items()}
        found: dict[dt.datetime, dict[str, _Asset]] = {}
        matched = False
        for path in sorted(listing):
            for name, pattern in patterns.items():
                time = pattern.match(path)
                matched = matched or time is not None
                if time is None or not start <= time.date() <= end:
                    continue
                href = f"{self.settings.root}/{path}"
                other = found.setdefault(time, {}).setdefault(name, _Asset(href, stamp_of(href, listing[path])))
                if other.href != href:
                    raise SourceError(f"{other.href} and {href} both are band {name} of {time}. Remove one of them.")
        if listing and not matched:
            raise SourceError(
                f"None of the {len(listing)} files at {self.settings.root} matches any of "
                f"{', '.join(repr(pattern.text) for pattern in patterns.values())}; the first is {min(listing)!r}."
            )
        return found

    def _headers(self, assets: Iterable[_Asset]) -> dict[str, tuple[Bounds, str] | None]:
        """Href -> (bounds, CRS), None for a file that cannot be read: reading its pixels will say so."""
        distinct = list(dict.fromkeys(assets))
        anonymous = [self.settings.anonymous] * len(distinct)
        if len(distinct) < 2 or not self.settings.root.startswith("s3://"):
            headers = list(map(_header, distinct, anonymous))
        else:  # each costs a round trip
            with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
                headers = list(pool.map(_header, distinct, anonymous))
        return {asset.href: header for asset, header in zip(distinct, headers, strict=True)}

    def _acquisition(
        self,
        time: dt.datetime,
        assets: Mapping[str, _Asset],
        headers: Mapping[str, tuple[Bounds, str] | None],
        target: str,
    ) -> Acquisition:
        own = [headers[asset.href] for asset in assets.values()]
        lacking = [name for name in self.settings.bands if name not in assets]
        known = [projected(*header, target) for header in own if header is not None]
        return Acquisition(
            id=f"{time:%Y%m%dT%H%M%S}" + (f".{time.microsecond:06d}" if time.microsecond else ""),
            version=self._version(assets),
            time=time,
            footprint=union(known) if len(known) == len(own) else None,
            assets={name: asset.href for name, asset in assets.items()},
            properties={"missing_bands": lacking} if lacking else {},
        )

    def _version(self, assets: Mapping[str, _Asset]) -> str:
        """Over the files' stamps, and over what makes other values of the same files."""
        digest = hashlib.blake2b(digest_size=12)
        for name in sorted(assets):
            band = self.settings.bands[name]
            digest.update(repr((name, assets[name].stamp, band.index, sorted(band.overrides.items()))).encode())
        return digest.hexdigest()


@lru_cache(maxsize=100_000)
def _header(asset: _Asset, anonymous: bool) -> tuple[Bounds, str] | None:
    try:
        with open_band(RasterBand(asset.href, access=Access(anonymous=anonymous))) as dataset:
            geobox = geobox_of(dataset)
            return bounds_of(geobox), crs_text(crs_of(geobox))
    except (UnreadableFileError, CrsError):
        return None
