"""Images of a NetCDF file or a Zarr store, one for each step of its time."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import Field, field_validator, model_validator

from geofield.errors import MissingBandError, SourceError, UnreadableFileError
from geofield.grid import Grid, bounds_of, crs_of, crs_text
from geofield.source.counters import count_read
from geofield.source.footprints import projected
from geofield.source.listing import absolute_root
from geofield.source.protocol import Acquisition
from geofield.source.raster import values_on
from geofield.source.settings import BandPlace, Settings, check_no_credentials, check_quality, parse_settings
from geofield.source.stackfiles import (
    Look,
    StackFile,
    StackPixels,
    Step,
    find_files,
    geobox_of_stack,
    opened,
    steps_of,
    steps_of_zarr,
    times_of,
    variable_of,
)


class BandVariable(BandPlace):
    """Where a band is: a variable. `scale`, `offset` and `nodata` stand in for what its attributes say."""

    variable: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"variable": value} if isinstance(value, str) else value


class StackSettings(Settings):
    """Keys of a source of stacks."""

    type: Literal["stack"]
    url: str = Field(min_length=1, description="a Zarr store, a NetCDF file, or several: path or s3://, * for any name")
    bands: dict[str, BandVariable] = Field(min_length=1, description="band -> variable")
    quality: tuple[str, ...] | None = Field(None, description="bands of classes: never interpolated")
    time: str = Field("time", description="the dimension and coordinate of times")
    acquired: str | None = Field(None, description="variable over time, true where imagery came; by default everywhere")
    crs: str | None = Field(None, description="of stacks that do not say theirs")
    anonymous: bool = Field(False, description="requests to S3 are not signed")

    @field_validator("url")
    @classmethod
    def _open_url(cls, value: str) -> str:
        return absolute_root(check_no_credentials(value))

    @model_validator(mode="after")
    def _known_quality(self) -> Self:
        check_quality(self.quality, self.bands)
        return self


@dataclass(frozen=True)
class StackSource:
    """A source of stacks; see `StackSettings`."""

    settings: StackSettings

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> StackSource:
        """From the `source` mapping of a box."""
        return cls(parse_settings(StackSettings, spec))

    def bands(self) -> tuple[str, ...]:
        """As the box names them."""
        return tuple(self.settings.bands)

    def quality_bands(self) -> tuple[str, ...]:
        """As the box names them; empty when it does not say."""
        return self.settings.quality or ()

    def native_geobox(self) -> GeoBox | None:
        """The grid of the first band of the first file, rows to the south."""
        file = self._files()[0]
        with opened(file, self.settings.anonymous) as dataset:
            variable = variable_of(dataset, self._names[0], self.settings.time, file.href)
            return geobox_of_stack(variable, self.settings.crs, file.href)[0]

    def search(self, grid: Grid, start: dt.date, end: dt.date) -> list[Acquisition]:
        """One acquisition for each step of time; two files that hold the same time are refused."""
        found: dict[dt.datetime, Step] = {}
        for file in self._files():
            for one in (steps_of_zarr if file.is_zarr else steps_of)(file, self._look):
                if not start <= one.time.date() <= end:
                    continue
                other = found.setdefault(one.time, one)
                if other is not one:
                    raise SourceError(f"{other.file.href} and {file.href} both hold {one.time}. Remove one of them.")
        if not found:
            return []
        footprint = self._footprint(grid)
        return [self._acquisition(found[time], footprint) for time in sorted(found)]

    def read(self, acquisition: Acquisition, bands: Sequence[str], geobox: GeoBox) -> dict[str, NDArray[np.float64]]:
        """Number x scale + offset where the number is not a fill value; on other grids the value at each centre."""
        settings = self.settings
        for band in bands:
            if band not in settings.bands:
                raise MissingBandError(f"The source has no band {band!r}; it offers {', '.join(settings.bands)}.")
        href = next(iter(acquisition.assets.values())).rpartition("#")[0]
        result: dict[str, NDArray[np.float64]] = {}
        nbytes = 0
        file = next((one for one in self._files() if one.href == href), None)
        if file is None:
            raise UnreadableFileError(f"{href} is not there (any more). Search again, or bring the file back.")
        with opened(file, settings.anonymous) as dataset:
            times = times_of(dataset, settings.time, href)
            if acquisition.time not in times:
                raise UnreadableFileError(f"{href} does not hold {acquisition.time} (any more). Search again.")
            for band in bands:
                pixels, raster = self._pixels(dataset, band, times.index(acquisition.time), href)
                result[band] = values_on(pixels, raster, geobox)
                nbytes += pixels.nbytes
        if nbytes:
            count_read(nbytes)
        return result

    def _pixels(self, dataset: Any, band: str, step: int, href: str) -> tuple[StackPixels, GeoBox]:
        said, quality = self.settings.bands[band], self.settings.quality
        variable = variable_of(dataset, said.variable, self.settings.time, href)
        raster, is_flipped = geobox_of_stack(variable, self.settings.crs, href)
        nearest = None if quality is None else band in quality
        return StackPixels(variable, step, is_flipped, said.overrides, nearest), raster

    @property
    def _look(self) -> Look:
        return Look(self._names, self.settings.time, self.settings.acquired, self.settings.anonymous)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(band.variable for band in self.settings.bands.values()))

    def _files(self) -> list[StackFile]:
        return find_files(self.settings.url, self.settings.anonymous)

    def _footprint(self, grid: Grid) -> tuple[float, float, float, float] | None:
        own = self.native_geobox()
        return None if own is None else projected(bounds_of(own), crs_text(crs_of(own)), crs_text(grid.crs))

    def _acquisition(self, step: Step, footprint: tuple[float, float, float, float] | None) -> Acquisition:
        digest = hashlib.blake2b(step.stamp.encode(), digest_size=12)
        for name, band in sorted(self.settings.bands.items()):
            digest.update(repr((name, band.variable, sorted(band.overrides.items()))).encode())
        return Acquisition(
            id=f"{step.time:%Y%m%dT%H%M%S}" + (f".{step.time.microsecond:06d}" if step.time.microsecond else ""),
            version=digest.hexdigest(),
            time=step.time,
            footprint=footprint,
            assets={name: f"{step.file.href}#{band.variable}" for name, band in self.settings.bands.items()},
        )
