"""What lies in a cube: arrays over (time, y, x), the days, what they were made of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.errors import UnstableSpecificationWarning

from geofield.encoding import Encoding
from geofield.errors import CorruptStoreError
from geofield.grid import BLOCK, Grid, bounds_of, crs_text

FORMAT = 1
_TIME_CHUNK = 4096
_ACQUIRED_CHUNK = 2048  # and so few that it stays as small
_DAY_CHUNK = 8  # days of items and digests that one append rewrites
# An append rewrites the last chunk of each of these arrays. With the bytes of the numbers sorted, ten years of days are
# 350 bytes: Icechunk keeps so small a chunk inside the manifest, which spares two requests of every append.
_DAYS = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=8)
_FLAGS = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=1)
_EPOCH = "days since 1970-01-01"


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One stored array (time, y, x).

    Attributes
    ----------
    name, encoding
        As stored.
    role
        `observation`, `filled`, `sigma0` or `age`.
    variable
        The variable that it belongs to.
    """

    name: str
    encoding: Encoding
    role: str
    variable: str


@dataclass(frozen=True)
class Schema:
    """The arrays of a cube on its grid, and what belongs to each variable."""

    grid: Grid
    arrays: tuple[ArraySpec, ...]
    drift: Mapping[str, float] = field(default_factory=dict)
    """q (variance per day) of each variable with state."""
    recipe: str = ""
    """Digest of all that turns bands into these arrays."""

    def of(self, variable: str) -> dict[str, ArraySpec]:
        """role -> array of one variable."""
        return {spec.role: spec for spec in self.arrays if spec.variable == variable}

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables, in order."""
        return tuple(dict.fromkeys(spec.variable for spec in self.arrays))

    def to_dict(self) -> dict[str, Any]:
        """JSON, kept as the attribute `geofield` of the cube's group."""
        return {
            "format": FORMAT,
            "grid": self.grid.to_dict(),
            "drift": dict(self.drift),
            "recipe": self.recipe,
            "arrays": [
                {
                    "name": spec.name,
                    "dtype": spec.encoding.dtype,
                    "scale": spec.encoding.scale,
                    "role": spec.role,
                    "variable": spec.variable,
                }
                for spec in self.arrays
            ],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Schema:
        """The inverse of `to_dict`; `CorruptStoreError` for a format that this version does not know."""
        if value.get("format") != FORMAT:
            raise CorruptStoreError(
                f"The cube has format {value.get('format')!r}; this geofield reads {FORMAT}. Update it."
            )
        arrays = tuple(
            ArraySpec(item["name"], Encoding(item["dtype"], item["scale"]), item["role"], item["variable"])
            for item in value["arrays"]
        )
        return cls(Grid.from_dict(value["grid"]), arrays, dict(value["drift"]), value["recipe"])


_LONG_NAMES = {
    "observation": "{} as observed",
    "filled": "daily estimate of {}",
    "sigma0": "standard error of the estimate of {} on the day the pixel was last seen",
    "age": "days since {} was last seen",
}


def create_arrays(group: zarr.Group, schema: Schema) -> None:
    """Lay out a cube of no days in an empty group."""
    grid = schema.grid
    rows, columns = grid.shape
    group.attrs.update({"Conventions": "CF-1.11", "geofield": schema.to_dict()})
    _create_coordinates(group, grid)
    for spec in schema.arrays:
        group.create_array(
            spec.name,
            shape=(0, rows, columns),
            chunks=(1, BLOCK, BLOCK),
            shards=(1, grid.tile, grid.tile),  # a shard never spans two days
            dtype=spec.encoding.dtype,
            fill_value=spec.encoding.fill,
            compressors=_compressor(spec),
            dimension_names=("time", "y", "x"),
            attributes=_array_attributes(spec, grid),
        )  # fmt: skip
    _create_days(group, grid)


def _compressor(spec: ArraySpec) -> BloscCodec:
    return BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=np.dtype(spec.encoding.dtype).itemsize)


def _array_attributes(spec: ArraySpec, grid: Grid) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "_FillValue": spec.encoding.fill,
        "long_name": _LONG_NAMES[spec.role].format(spec.variable),
        "grid_mapping": "spatial_ref",
        "proj:code": crs_text(grid.crs),
        "spatial:transform": list(grid.geobox.transform)[:6],
    }
    if spec.role == "age":
        attributes["units"] = "day"  # `days` would make readers decode it as a time span
    else:
        attributes |= {"scale_factor": spec.encoding.scale, "add_offset": 0.0, "units": "1"}
    return attributes


def _create_coordinates(group: zarr.Group, grid: Grid) -> None:
    a = grid.geobox.transform
    rows, columns = grid.shape
    crs = grid.crs
    units = "degree" if crs.is_geographic else "m"
    names = ("latitude", "longitude") if crs.is_geographic else ("projection_y_coordinate", "projection_x_coordinate")
    for name, standard, values in (
        ("y", names[0], a.f + (np.arange(rows) + 0.5) * a.e),
        ("x", names[1], a.c + (np.arange(columns) + 0.5) * a.a),
    ):
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype="float64",
            dimension_names=(name,),
            attributes={"standard_name": standard, "units": units, "axis": name.upper()},
        )
        array[:] = values
    xmin, _, _, ymax = bounds_of(grid.geobox)
    mapping = {
        **{name: value for name, value in crs.to_cf().items() if value is not None},
        "spatial_ref": crs.to_wkt(),
        "GeoTransform": f"{xmin!r} {a.a!r} 0.0 {ymax!r} 0.0 {a.e!r}",
    }
    group.create_array("spatial_ref", shape=(), dtype="int64", dimension_names=(), attributes=mapping, fill_value=0)


def _create_days(group: zarr.Group, grid: Grid) -> None:
    group.create_array(
        "time",
        shape=(0,),
        chunks=(_TIME_CHUNK,),
        dtype="int64",
        compressors=_DAYS,
        fill_value=-(2**62),
        dimension_names=("time",),
        attributes={"units": _EPOCH, "calendar": "proleptic_gregorian", "standard_name": "time", "axis": "T"},
    )
    group.create_array(
        "acquired",
        shape=(0,),
        chunks=(_ACQUIRED_CHUNK,),
        dtype="bool",
        compressors=_FLAGS,
        fill_value=False,
        dimension_names=("time",),
        attributes={"long_name": "some acquisition came that day"},
    )
    tiles = grid.tiles_shape
    group.create_array(
        "digest",
        shape=(0, *tiles),
        chunks=(_DAY_CHUNK, *tiles),
        dtype="uint64",
        fill_value=0,
        dimension_names=("time", "tile_y", "tile_x"),
        attributes={"long_name": "hash of what the tile of that day was made from"},
    )
    with warnings.catch_warnings():
        # Zarr's text type is read by zarr-python and xarray; its paper specification is still a draft.
        warnings.simplefilter("ignore", UnstableSpecificationWarning)
        group.create_array(
            "items",
            shape=(0,),
            chunks=(_DAY_CHUNK,),
            dtype=str,
            fill_value="",
            dimension_names=("time",),
            attributes={"long_name": "JSON: the acquisitions of that day and their share of valid pixels"},
        )
