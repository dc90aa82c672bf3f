"""Sentinel-2-like scenes made up from a seed: bands in surface reflectance and a scene classification (SCL).

A pixel's values depend on the seed, the date and the pixel's absolute place on its lattice, so that any window of any
box of the same lattice holds the same numbers, bit for bit.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import Field

from geofield.errors import MissingBandError, SourceError
from geofield.grid import Grid, check_north_up
from geofield.source import landscape
from geofield.source.counters import count_read
from geofield.source.noise import Index, derive_key, hash_pixels
from geofield.source.protocol import Acquisition
from geofield.source.settings import Settings, parse_settings

ALGORITHM = "1"
"""Part of every version: raise it when any pixel changes."""
QUANTIFICATION = 10_000
"""DN of reflectance 1, as in Sentinel-2 products."""


@dataclass(frozen=True)
class _Spectrum:
    soil: int
    canopy: int
    cloud: int


_SPECTRA = {
    "blue": _Spectrum(900, 230, 5500),
    "green": _Spectrum(1200, 560, 5300),
    "red": _Spectrum(1600, 300, 5200),
    "nir": _Spectrum(2280, 4600, 5600),
    "swir16": _Spectrum(2900, 1600, 3500),
}
"""DN at brightness 1. Bare soil has an NDVI of 0.18, a closed canopy of 0.88."""
BANDS = (*_SPECTRA, "scl")
_NO_DATA, _SHADOW, _VEGETATION, _SOIL, _MEDIUM, _HIGH, _CIRRUS = 0, 3, 4, 5, 8, 9, 10
_VEGETATED = np.float32(0.35)
_SHADE = np.float32(0.55)
_SCL_OF_LEVEL = np.array([_SOIL] + [_CIRRUS] * 10 + [_MEDIUM] * 11 + [_HIGH] * 11, np.uint8)
_NOISE_BITS = 5
_STRIP_PIXELS = 1 << 16
"""Pixels worked on at a time: a float32 array of them stays in a core's second-level cache."""
_PURPOSE_PHASE, _PURPOSE_ABSENT, _PURPOSE_SECOND = 101, 102, 103


class SimulatedSettings(Settings):
    """Keys of a simulated source."""

    type: Literal["simulated"]
    seed: int = Field(0, ge=0, lt=2**63)
    revisit: int = Field(5, ge=1, le=366, description="days from one pass to the next")
    phase: int | None = Field(None, ge=0, description="first day of the cycle; by default it follows from the seed")
    cloudiness: float = Field(0.4, ge=0, le=1, description="mean share of the sky under cloud")
    reprocessed: dict[dt.date, int] = Field(default_factory=dict, description="date -> revision, 1 or more")
    withhold: tuple[dt.date, ...] = Field((), description="dates whose scene is not there yet")


@dataclass(frozen=True)
class SimulatedSource:
    """A source that makes its pixels up; see `SimulatedSettings`."""

    settings: SimulatedSettings

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> SimulatedSource:
        """From the `source` mapping of a box."""
        return cls(parse_settings(SimulatedSettings, spec))

    def bands(self) -> tuple[str, ...]:
        """Blue, green, red, nir, swir16 (reflectance) and scl (classes)."""
        return BANDS

    def quality_bands(self) -> tuple[str, ...]:
        """Scl."""
        return ("scl",)

    def native_geobox(self) -> GeoBox | None:
        """None: pixels are made on whatever grid is asked for."""
        return None

    @cached_property
    def phase(self) -> int:
        """Day number (proleptic Gregorian ordinal) of a pass, modulo the revisit."""
        settings = self.settings
        phase = derive_key(settings.seed, _PURPOSE_PHASE) if settings.phase is None else settings.phase
        return phase % settings.revisit

    def search(self, grid: Grid, start: dt.date, end: dt.date) -> list[Acquisition]:
        """One acquisition each `revisit` days, at about 10:30; about one in 16 never came."""
        return [self._acquisition(day) for day in self._days(start, end)]

    def read(self, acquisition: Acquisition, bands: Sequence[str], geobox: GeoBox) -> dict[str, NDArray[np.float64]]:
        """Reflectance in whole steps of 1e-4, NaN outside the swath; scl as Sentinel-2 numbers its classes."""
        if unknown := [band for band in bands if band not in BANDS]:
            raise MissingBandError(f"The simulated source has no band {unknown[0]!r}; it offers {', '.join(BANDS)}.")
        if not acquisition.id.startswith(f"sim-{self.settings.seed}-"):
            raise SourceError(f"Acquisition {acquisition.id} is none of the simulated source {self.settings.seed}.")
        scene = _Scene(self.settings, acquisition.time.date(), *lattice_of(geobox))
        values = scene.read(bands)
        count_read(sum(2 if band in _SPECTRA else 1 for band in bands) * math.prod(geobox.shape))
        return values

    def _days(self, start: dt.date, end: dt.date) -> Iterator[dt.date]:
        settings = self.settings
        first = start.toordinal() + (self.phase - start.toordinal()) % settings.revisit
        for number in range(first, end.toordinal() + 1, settings.revisit):
            day = dt.date.fromordinal(number)
            if day not in settings.withhold and derive_key(settings.seed, _PURPOSE_ABSENT, number) % 16:
                yield day

    def _acquisition(self, day: dt.date) -> Acquisition:
        settings = self.settings
        second = derive_key(settings.seed, _PURPOSE_SECOND, day.toordinal()) % 600
        revision = settings.reprocessed.get(day, 0)
        # what changes the pixels and is not in the id
        version = ALGORITHM + (f".r{revision}" if revision else "") + f";cloudiness={settings.cloudiness!r}"
        identity = f"sim-{settings.seed}-{day:%Y%m%d}"
        return Acquisition(
            id=identity,
            version=version,
            time=dt.datetime.combine(day, dt.time(10, 25), dt.UTC) + dt.timedelta(seconds=second),
            footprint=None,
            assets={band: f"simulated:{identity}/{band}" for band in BANDS},
            properties={
                "eo:cloud_cover": round(100 * landscape.cloud_cover(settings.seed, day, settings.cloudiness), 1)
            },
        )


def lattice_of(geobox: GeoBox) -> tuple[Index, Index]:
    """Absolute (rows, columns) of the pixels of a GeoBox on the lattice that its resolution spans.

    A pixel's centre divided by the resolution is a whole number plus a phase that all pixels of a lattice share. It is
    rounded down where the phase is below 0.618 and up above: grids that begin at whole or simple fractions of a pixel
    never come near, so the last bits of a window's transform do not matter. Only the first pixel is rounded.
    """
    check_north_up(geobox)
    a = geobox.transform
    column = math.floor((a.c + a.a / 2) / a.a + 0.381966)
    row = -math.floor((a.f + a.e / 2) / -a.e + 0.381966)
    return row + np.arange(geobox.shape.y, dtype=np.int64), column + np.arange(geobox.shape.x, dtype=np.int64)


class _Scene:
    """The pixels of one date over one window."""

    def __init__(self, settings: SimulatedSettings, date: dt.date, rows: Index, columns: Index) -> None:
        self.shape = len(rows), len(columns)
        self._rows, self._columns = rows, columns
        self._step = max(1, _STRIP_PIXELS // len(columns))
        self._ground = landscape.Ground(settings.seed, date, rows, columns)
        self._noise_key = derive_key(settings.seed, landscape.NOISE, date.toordinal())
        self._revision = settings.reprocessed.get(date, 0)
        self._gap = landscape.swath_gap(settings.seed, date)
        self._levels = self._cloud_levels(settings, date)

    def read(self, bands: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        values = {band: np.empty(self.shape) for band in bands}
        spectral = [band for band in bands if band in _SPECTRA]
        for start in range(0, self.shape[0], self._step):
            part = slice(start, min(start + self._step, self.shape[0]))
            cover, brightness = self._ground.strip(part)
            cloud, shadow = self._sky(part)
            self._fill_spectral({band: values[band][part] for band in spectral}, part, cover, brightness, cloud, shadow)
            if "scl" in values:
                values["scl"][part] = _classes(cover, cloud, shadow)
            self._blank_outside({band: values[band][part] for band in values}, part)
        return values

    def _cloud_levels(self, settings: SimulatedSettings, date: dt.date) -> NDArray[np.uint8] | None:
        """Thickness over the window and over what throws shadows into it; None under a clear sky."""
        share = landscape.cloud_cover(settings.seed, date, settings.cloudiness)
        if share == 0:
            return None
        down, right = landscape.SHADOW_SHIFT
        rows = np.arange(self._rows[0], self._rows[-1] + 1 + down)
        columns = np.arange(self._columns[0], self._columns[-1] + 1 + right)
        return landscape.cloud_levels(settings.seed, date, share, rows, columns, self._step)

    def _sky(self, part: slice) -> tuple[NDArray[np.uint8] | None, NDArray[np.bool_] | None]:
        """(levels of cloud, shadow) of a strip, None where it has neither."""
        if self._levels is None:
            return None, None
        down, right = landscape.SHADOW_SHIFT
        own = self._levels[part, : self.shape[1]]
        thrower = self._levels[part.start + down : part.stop + down, right:]
        if not own.any() and not thrower.any():
            return None, None
        return own, (thrower > landscape.CLOUD_LEVELS // 3) & (own == 0)

    def _fill_spectral(
        self,
        out: Mapping[str, NDArray[np.float64]],
        part: slice,
        cover: NDArray[np.float32],
        brightness: NDArray[np.float32],
        cloud: NDArray[np.uint8] | None,
        shadow: NDArray[np.bool_] | None,
    ) -> None:
        """Reflectance = brightness x (soil + cover x (canopy - soil)), dimmed, veiled by cloud, with sensor noise."""
        if not out:
            return
        bits = hash_pixels(self._noise_key, self._rows[part], self._columns)
        veil = None
        light = brightness
        if cloud is not None and shadow is not None:
            veil = cloud.astype(np.float32)
            veil *= np.float32(1 / landscape.CLOUD_LEVELS)
            light = (1 - _SHADE * shadow) * (1 - veil) * brightness
        for band, values in out.items():
            spectrum = _SPECTRA[band]
            dn = cover * np.float32(spectrum.canopy - spectrum.soil)
            dn += np.float32(spectrum.soil)
            dn *= light
            if veil is not None:
                dn += veil * np.float32(spectrum.cloud)
            shift = np.uint32(_NOISE_BITS * tuple(_SPECTRA).index(band))
            dn += ((bits >> shift) & np.uint32((1 << _NOISE_BITS) - 1)).astype(np.float32)
            dn += np.float32(20 * self._revision - ((1 << _NOISE_BITS) - 1) / 2)
            np.rint(dn, out=dn)
            np.maximum(dn, np.float32(1), out=dn)
            np.divide(dn, np.float64(QUANTIFICATION), out=values)

    def _blank_outside(self, out: Mapping[str, NDArray[np.float64]], part: slice) -> None:
        if self._gap is None:
            return
        outside = landscape.is_outside_swath(self._gap, self._rows[part], self._columns)
        if outside is not None:
            for band, values in out.items():
                np.copyto(values, np.nan if band in _SPECTRA else _NO_DATA, where=outside)


def _classes(
    cover: NDArray[np.float32], cloud: NDArray[np.uint8] | None, shadow: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    classes: NDArray[np.uint8] = np.uint8(_SOIL) - (cover >= _VEGETATED)
    if cloud is not None and shadow is not None:
        classes[shadow] = _SHADOW
        np.copyto(classes, _SCL_OF_LEVEL[cloud], where=cloud > 0)
    return classes
