"""A made-up landscape: parcels of crops that grow with the season, under clouds. Pure arithmetic, no I/O.

Everything is a function of the seed, the date and the absolute row and column of a pixel. Digital numbers (DN) are
reflectances times 10,000.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofield.source.noise import Index, LayeredNoise, derive_key, hash_lattice, smoothstep

PARCEL_ROWS = 44
"""Mean height of a row of parcels, pixels."""
_BORDER_JITTER = 8
_TEXTURE = ((90, 0.65), (14, 0.35))
_CLOUDS = ((256, 0.55), (64, 0.3), (16, 0.15))
SHADOW_SHIFT = 10, 7
"""A shadow lies this many rows up and columns left of its cloud: the sun stands in the south-east at 10:30."""
CLOUD_LEVELS = 32
"""Steps of a cloud's thickness, 0 (none) to this (nothing of the ground is seen)."""
_CLOUD_QUANTILES = (
    np.linspace(0.0, 1.0, 11),
    np.array([0.027, 0.319, 0.378, 0.424, 0.465, 0.504, 0.543, 0.584, 0.629, 0.688, 0.97]),
)
"""Share of pixels below a value of the cloud noise, measured over 6 million pixels of 1,500 landscapes."""
_SWATH_PERIOD, _SWATH_GAP = 24_000, 4_000

PARCELS, TEXTURE, CLOUDS, COVER, NOISE, ORBIT = range(1, 7)
"""What a key is for."""


@dataclass(frozen=True)
class Crop:
    """How much of the ground a crop covers through the year, 0 to 1.

    Three smooth ramps between days of the year: growth from `winter` to `top`, harvest to `after`, and back to
    `winter`. `share` is how many parcels of 100 carry it.
    """

    name: str
    share: int
    growth: tuple[int, int]
    harvest: tuple[int, int]
    autumn: tuple[int, int]
    winter: float
    top: float
    after: float


CROPS = (
    Crop("winter wheat", 30, (60, 135), (170, 205), (285, 345), 0.25, 0.98, 0.06),
    Crop("rapeseed", 12, (50, 105), (165, 195), (255, 330), 0.40, 0.96, 0.08),
    Crop("maize", 22, (135, 195), (245, 280), (300, 340), 0.04, 0.96, 0.04),
    Crop("sugar beet", 8, (120, 180), (280, 310), (320, 350), 0.03, 0.94, 0.03),
    Crop("grassland", 16, (70, 130), (210, 260), (270, 340), 0.50, 0.88, 0.62),
    Crop("forest", 8, (95, 140), (285, 325), (330, 350), 0.45, 0.97, 0.45),
    Crop("fallow", 4, (80, 150), (180, 230), (300, 340), 0.08, 0.30, 0.12),
)
_CROP_OF = np.repeat(np.arange(len(CROPS)), [crop.share for crop in CROPS])
_HEDGE = 0.55, 0.85
_TRACK = 0.10, 1.10
"""Cover and brightness of what lies between parcels."""


def cover_of(crop: NDArray[np.int64], day_of_year: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ground cover of parcels without their vigour, 0 to 1; `crop` counts in `CROPS`."""
    growth, harvest, autumn = (
        np.array([getattr(one, name) for one in CROPS], np.float64)[crop].T for name in ("growth", "harvest", "autumn")
    )
    winter, top, after = (np.array([getattr(one, name) for one in CROPS])[crop] for name in ("winter", "top", "after"))
    cover = winter + (top - winter) * _ramp(day_of_year, growth)
    cover = cover + (after - cover) * _ramp(day_of_year, harvest)
    held: NDArray[np.float64] = cover + (winter - cover) * _ramp(day_of_year, autumn)
    return held


def _ramp(day: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    ramp: NDArray[np.float64] = smoothstep((day - ends[0]) / (ends[1] - ends[0]))
    return ramp


class Ground:
    """Ground cover and brightness of consecutive rows and columns on one date.

    Rows of parcels have jittered borders; within one, the borders between parcels are slanted, so that they are
    the same along a slanted line: each pixel row is a shifted cut of one line per row of parcels.
    """

    def __init__(self, seed: int, date: dt.date, rows: Index, columns: Index) -> None:
        self._key = derive_key(seed, PARCELS)
        self._day = float(date.timetuple().tm_yday)
        self._rows, self._columns = rows, columns
        self._texture = LayeredNoise(derive_key(seed, TEXTURE), _TEXTURE, rows, columns)
        self._strip_of = self._strips(rows)
        self._lines: dict[int, tuple[int, NDArray[np.float32]]] = {}

    def strip(self, part: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(cover 0 to 1, brightness about 1), each (rows of the part, columns)."""
        texture = self._texture.strip(part)
        rows, strips = self._rows[part], self._strip_of[part]
        both = np.empty((2, *texture.shape), np.float32)
        starts = self._is_first(part)
        for number, (row, strip, is_first) in enumerate(zip(rows.tolist(), strips.tolist(), starts, strict=True)):
            if is_first:
                both[:, number] = np.array(_TRACK, np.float32)[:, None]
                continue
            first, line = self._line(strip)
            start = int(self._columns[0]) + _shear(self._slant(strip), row) - first
            both[:, number] = line[:, start : start + texture.shape[1]]
        cover, brightness = both
        texture *= np.float32(0.22)
        texture += np.float32(0.78)
        cover *= texture
        brightness *= texture
        return cover, brightness

    def _strips(self, rows: Index) -> Index:
        strip = rows // PARCEL_ROWS
        strip = strip - (rows < self._border(strip))
        return strip + (rows >= self._border(strip + 1))

    def _border(self, strip: Index) -> Index:
        bits = hash_lattice(self._key, strip, np.full(1, -1, np.int64))[:, 0]
        jitter: Index = (bits % np.uint64(2 * _BORDER_JITTER + 1)).astype(np.int64) - _BORDER_JITTER
        return strip * PARCEL_ROWS + jitter

    def _is_first(self, part: slice) -> list[bool]:
        first: list[bool] = (self._rows[part] == self._border(self._strip_of[part])).tolist()
        return first

    def _slant(self, strip: int) -> int:
        return derive_key(self._key, strip, 1) % 33 - 16

    def _line(self, strip: int) -> tuple[int, NDArray[np.float32]]:
        """First slanted column, and (cover and brightness, slanted columns) of a row of parcels."""
        if strip not in self._lines:
            rows = self._rows[self._strip_of == strip]
            shears = [_shear(self._slant(strip), int(row)) for row in (rows[0], rows[-1])]
            first = int(self._columns[0]) + min(shears)
            columns = np.arange(first, int(self._columns[-1]) + max(shears) + 1)
            self._lines[strip] = first, self._parcels_along(strip, columns)
        return self._lines[strip]

    def _parcels_along(self, strip: int, columns: Index) -> NDArray[np.float32]:
        width = 36 + derive_key(self._key, strip, 2) % 29
        number = np.arange(columns[0] // width - 1, columns[-1] // width + 3)
        bits = hash_lattice(self._key, np.full(1, strip), number)[0]
        reach = width // 6
        borders = number * width + (bits % np.uint64(2 * reach + 1)).astype(np.int64) - reach
        parcel = np.searchsorted(borders, columns, side="right") - 1
        crop = _CROP_OF[(_byte(bits, 8) * len(_CROP_OF)).astype(np.int64)]
        sowing_shift = (_byte(bits, 16) - 0.5) * 20
        cover = cover_of(crop, self._day - sowing_shift) * (0.82 + 0.18 * _byte(bits, 24))
        line: NDArray[np.float32] = np.stack([cover, 0.9 + 0.35 * _byte(bits, 32)])[:, parcel].astype(np.float32)
        line[:, columns == borders[parcel]] = np.array(_HEDGE, np.float32)[:, None]
        return line


def _shear(slant: int, row: int) -> int:
    return (slant * row) >> 6


def _byte(bits: NDArray[np.uint64], shift: int) -> NDArray[np.float64]:
    """Eight of the bits as a number of [0, 1)."""
    value: NDArray[np.float64] = ((bits >> np.uint64(shift)) & np.uint64(255)).astype(np.float64) / 256
    return value


def cloud_cover(seed: int, date: dt.date, cloudiness: float) -> float:
    """Share of the sky under cloud on a date, 0 to 1.

    With c the cloudiness, (1 - c)^2 of the days are clear, c^2 are overcast, and on the rest any share is as likely as
    any other, so that the mean is c.
    """
    chance = _share(seed, COVER, date)
    clear, overcast = (1 - cloudiness) * (1 - cloudiness), cloudiness * cloudiness
    if chance < clear:
        return 0.0
    if chance >= 1 - overcast:
        return 1.0
    return (chance - clear) / (1 - overcast - clear)


def cloud_levels(seed: int, date: dt.date, cover: float, rows: Index, columns: Index, step: int) -> NDArray[np.uint8]:
    """(rows, columns) thickness of clouds, 0 to `CLOUD_LEVELS`; worked out `step` rows at a time."""
    levels = np.empty((len(rows), len(columns)), np.uint8)
    noise = LayeredNoise(derive_key(seed, CLOUDS, date.toordinal()), _CLOUDS, rows, columns)
    threshold = np.float32(np.interp(1 - cover, *_CLOUD_QUANTILES))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        value = noise.strip(part)
        value -= threshold
        # a cloud of any thickness is at least one level; overcast skies are thick wherever they are
        value *= np.float32(8 * CLOUD_LEVELS)
        value += np.float32(1 if cover < 1 else CLOUD_LEVELS // 2)
        levels[part] = np.minimum(np.maximum(value, np.float32(0)), np.float32(CLOUD_LEVELS), out=value)
    return levels


def swath_gap(seed: int, date: dt.date) -> int | None:
    """Where the missing strips between swaths begin on a date (see `is_outside_swath`), None when there are none."""
    bits = derive_key(seed, ORBIT, date.toordinal())
    return (bits >> 8) % _SWATH_PERIOD if bits % 8 == 0 else None


def is_outside_swath(gap: int, rows: Index, columns: Index) -> NDArray[np.bool_] | None:
    """(rows, columns), True where the satellite did not look: slanted strips; None when it saw every pixel."""
    slanted = np.arange(columns[0] + (rows[0] >> 2), columns[-1] + (rows[-1] >> 2) + 1)
    outside = (slanted - gap) % _SWATH_PERIOD < _SWATH_GAP
    if not outside.any():
        return None
    windows = np.lib.stride_tricks.sliding_window_view(outside, len(columns))
    return np.asarray(windows[(rows >> 2) - (rows[0] >> 2)], np.bool_)


def _share(seed: int, purpose: int, date: dt.date) -> float:
    return (derive_key(seed, purpose, date.toordinal()) >> 11) * 2.0**-53
