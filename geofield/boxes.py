"""A box: the rectangle, grid, source and variables of one cube, as data. Reading box files is `boxfiles`."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Annotated, Any, Literal, get_args

from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from geofield.errors import BoxError, GridError
from geofield.grid import (
    DEFAULT_TILE,
    Grid,
    crop_geobox,
    crs_of,
    fitting_tile,
    parse_crs,
    snapped_geobox,
    utm_crs,
)
from geofield.projection import project_bounds

ID_RULE = "1 to 64 of the characters A-Z a-z 0-9 . _ -, not beginning with a dot"
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
DEFAULT_STATS = ("count", "mean", "stdev", "min", "max", "median")
MAX_PIXELS = 500_000_000
MAX_BIT = 31
"""Of a packed quality band."""
_NAME = r"^[a-z][a-z0-9_]{0,40}$"

Bounds = tuple[float, float, float, float]
MergeRule = Literal["most_valid", "least_cloud", "nearest_nadir", "median"]
"""Of several scenes of a day, per pixel: the first valid one, in order of most valid pixels of the box, or of cloud
cover or angle off nadir as their catalogue says, then of time; or the median of the valid ones."""
MERGE_RULES: tuple[str, ...] = get_args(MergeRule)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GridSpec(_Model):
    """The pixels that a box asks for: a CRS (`utm`: the zone of the centre) and a resolution in its units."""

    crs: str = "utm"
    resolution: float | tuple[float, float] = 10.0
    tile: int = Field(DEFAULT_TILE, ge=256, multiple_of=256, description="side of a tile and shard, pixels")
    native: bool = Field(False, description="the source's own grid, cut to the box; crs and resolution are unused")

    @field_validator("resolution")
    @classmethod
    def _positive(cls, value: float | tuple[float, float]) -> float | tuple[float, float]:
        if min(value if isinstance(value, tuple) else (value,)) <= 0:
            raise ValueError(f"a resolution is greater than 0; got {value}")
        return value

    @property
    def resolution_xy(self) -> tuple[float, float]:
        """(x, y) in units of the CRS."""
        return self.resolution if isinstance(self.resolution, tuple) else (self.resolution, self.resolution)


class Bits(_Model):
    """Bits of a packed quality band, counted from 0, the least significant.

    A list of bits: a pixel is not valid when any of them is set. A mapping: `"8-9": [2, 3]` takes bits 8 and 9 as one
    number, and a pixel is not valid when that is 2 or 3.
    """

    bits: tuple[int, ...] | dict[str, tuple[int, ...]]

    @field_validator("bits")
    @classmethod
    def _known_bits(
        cls, value: tuple[int, ...] | dict[str, tuple[int, ...]]
    ) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
        if not value:
            raise ValueError("a mask by bits names at least one bit")
        for low, high in map(bit_range, value):
            if not 0 <= low <= high <= MAX_BIT:
                raise ValueError(f"bits are counted from 0 to {MAX_BIT}, as 3 or as '8-9'; got {value}")
        return value

    @property
    def unwanted(self) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
        """(lowest bit, highest bit, the numbers in them at which a pixel is not valid)."""
        if isinstance(self.bits, dict):
            return tuple((*bit_range(text), numbers) for text, numbers in self.bits.items())
        return tuple((bit, bit, (1,)) for bit in self.bits)


def bit_range(text: str | int) -> tuple[int, int]:
    """(lowest, highest) of `3`, `"3"` or `"8-9"`; (-1, -1) for anything else."""
    low, dash, high = str(text).partition("-")
    if not (low.isdecimal() and (high.isdecimal() or not dash)):
        return -1, -1
    return int(low), int(high or low)


Unwanted = Annotated[
    Annotated[tuple[int, ...], Tag("tuple")] | Annotated[Bits, Tag("tuple of bits")],
    # one of the two is meant, so that what is wrong with it is said once
    Discriminator(lambda value: "tuple of bits" if isinstance(value, dict | Bits) else "tuple"),
]
"""The values, or the bits, of a quality band at which a pixel is not valid."""


class Variable(_Model):
    """One variable of a cube: a band or an index, what makes a pixel invalid, how it is stored and reduced."""

    band: str | None = Field(None, description="a band of the source, taken as it is")
    index: str | None = Field(None, description="a spectral index by its name in the spyndex catalogue, e.g. NDVI")
    mask: dict[str, Unwanted] = Field(
        default_factory=dict,
        description="quality band -> values at which a pixel is not valid, or {bits: ...} of a packed band",
    )
    valid_range: tuple[float, float] | None = Field(None, description="values outside are not valid")
    precision: float = Field(1e-4, gt=0, le=1e6, description="step of the stored integers")
    state: Literal["kalman"] | None = Field(None, description="the day-on-day estimate kept beside the observation")
    q: float | None = Field(None, ge=0, description="variance by which the state drifts in a day")
    r: float | None = Field(None, gt=0, description="variance of one observation")
    stats: tuple[str, ...] = DEFAULT_STATS

    @model_validator(mode="after")
    def _one_origin(self) -> Variable:
        if (self.band is None) == (self.index is None):
            raise ValueError("a variable names either a `band` or an `index`")
        if self.valid_range is not None and not self.valid_range[0] < self.valid_range[1]:
            raise ValueError(f"valid_range is (low, high) with low < high; got {self.valid_range}")
        return self


class Box(_Model):
    """A rectangular processing extent and everything its cube is made from."""

    id: str
    bbox: Bounds = Field(description="xmin, ymin, xmax, ymax in `crs`")
    crs: str = "EPSG:4326"
    start: dt.date
    grid: GridSpec = Field(default_factory=lambda: GridSpec.model_validate({}))
    source: dict[str, Any]
    variables: dict[str, Variable]
    settle_days: int = Field(0, ge=0, le=60)
    day: Literal["utc", "solar"] = "utc"
    merge: MergeRule = Field("most_valid", description="which scene of a day a pixel is taken from")
    pixels: dict[str, Any] | None = Field(None, description="the grid as resolved when the box was added")
    imported: dt.date | None = Field(None, description="days up to here came from elsewhere than `source`")

    @field_validator("grid", mode="before")
    @classmethod
    def _native(cls, value: Any) -> Any:
        return {"native": True} if value == "native" else value

    @field_validator("id")
    @classmethod
    def _key(cls, value: str) -> str:
        return check_box_id(value)

    @field_validator("bbox")
    @classmethod
    def _ordered(cls, value: Bounds) -> Bounds:
        xmin, ymin, xmax, ymax = value
        if xmin == xmax or ymin == ymax:
            raise ValueError(f"the box has no area: {list(value)}")
        if xmin > xmax:
            raise ValueError(
                f"xmin {xmin:g} is greater than xmax {xmax:g}. If the box crosses the antimeridian, give two boxes"
            )
        if ymin > ymax:
            raise ValueError(f"ymin {ymin:g} is greater than ymax {ymax:g}")
        return value

    @field_validator("crs")
    @classmethod
    def _known_crs(cls, value: str) -> str:
        parse_crs(value)
        return value

    @field_validator("variables")
    @classmethod
    def _named(cls, value: dict[str, Variable]) -> dict[str, Variable]:
        if not value:
            raise ValueError("a box needs at least one variable")
        for name in value:
            if not re.match(_NAME, name):
                raise ValueError(f"a variable's name is lower case letters, digits and _; got {name!r}")
        return value

    @model_validator(mode="after")
    def _degrees(self) -> Box:
        if parse_crs(self.crs).is_geographic:
            xmin, ymin, xmax, ymax = self.bbox
            for value, limit, word in ((xmin, 180, "longitude"), (xmax, 180, "longitude"), (ymin, 90, "latitude"),
                                       (ymax, 90, "latitude")):  # fmt: skip
                if abs(value) > limit:
                    raise ValueError(f"{value:g} is no {word}: give degrees, or name the CRS (`crs`, --crs)")
        return self

    @property
    def resolved(self) -> Grid:
        """The grid that was resolved when the box was added."""
        if self.pixels is None:
            raise BoxError(f"Box {self.id} has no resolved grid yet: add it to a store first.")
        return Grid.from_dict(self.pixels)


def check_box_id(value: str) -> str:
    """The id as it is; `BoxError` when it cannot be a key of the store."""
    if not _ID.fullmatch(value):
        raise BoxError(f"{value!r} cannot be the id of a box: it has to be {ID_RULE}.")
    return value


def resolve_grid(box: Box, native: GeoBox | None = None, max_pixels: int = MAX_PIXELS) -> Grid:
    """The grid of a box.

    Parameters
    ----------
    box
        Asks for a CRS and resolution (edges snapped to whole multiples of it) or for the source's grid.
    native
        The source's own grid, needed when the box asks for it.
    max_pixels
        More than this many pixels are refused.

    Raises
    ------
    GridError
        No UTM zone, no pixel, or more than `max_pixels`.
    """
    geobox = _native_geobox(box, native) if box.grid.native else _asked_geobox(box, max_pixels)
    rows, columns = geobox.shape.y, geobox.shape.x
    check_pixel_count(box.id, rows, columns, max_pixels)
    return Grid(geobox, fitting_tile((rows, columns), box.grid.tile))


def check_pixel_count(box_id: str, rows: int, columns: int, max_pixels: int) -> None:
    """`GridError` when a day of the box has more than `max_pixels`."""
    if rows * columns > max_pixels:
        raise GridError(
            f"Box {box_id} would have {columns} x {rows} = {rows * columns:,} pixels a day, more than the limit of "
            f"{max_pixels:,}. Give a coarser --resolution, a smaller box, or raise --max-pixels."
        )


def _native_geobox(box: Box, native: GeoBox | None) -> GeoBox:
    if native is None:
        raise GridError(
            f"Box {box.id} asks for the source's own grid, but its source has none. Give crs and resolution."
        )
    return crop_geobox(native, project_bounds(box.bbox, parse_crs(box.crs), crs_of(native)))


def _asked_geobox(box: Box, max_pixels: int) -> GeoBox:
    given = parse_crs(box.crs)
    if box.grid.crs == "utm":
        lonlat = parse_crs("EPSG:4326")
        west, south, east, north = project_bounds(box.bbox, given, lonlat)
        for lat in (south, north):
            utm_crs((west + east) / 2, lat)  # both edges have to lie where UTM is defined
        crs = utm_crs((west + east) / 2, (south + north) / 2)
    else:
        crs = parse_crs(box.grid.crs)
    bounds = project_bounds(box.bbox, given, crs)
    if not all(math.isfinite(value) for value in bounds):
        raise GridError(f"Box {box.id} cannot be projected to {box.grid.crs}: its bounds there are {bounds}.")
    res = box.grid.resolution_xy
    wide, high = (bounds[2] - bounds[0]) / res[0], (bounds[3] - bounds[1]) / res[1]
    if wide < 1 and high < 1:
        raise GridError(
            f"Box {box.id} is smaller than one pixel: {bounds[2] - bounds[0]:.3g} x {bounds[3] - bounds[1]:.3g} at a "
            f"resolution of {res[0]:g} x {res[1]:g}. Give a finer --resolution or a larger box."
        )
    check_pixel_count(box.id, math.ceil(high), math.ceil(wide), max_pixels)
    return snapped_geobox(bounds, crs, res)
