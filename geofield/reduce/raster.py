"""Any xarray raster brought to one form: (time, y, x), rows to the south, columns to the east, on a checked grid."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import odc.geo.xr  # noqa: F401 - registers the .odc accessor
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.errors import CrsError, GridError, InputError
from geofield.grid import check_north_up

SPATIAL_DIMENSIONS = (("y", "x"), ("latitude", "longitude"), ("lat", "lon"))
EXACT = 1e-4
"""The grid that odc-geo finds is taken when all coordinates lie within this part of a pixel of its centres."""
REGULAR = 1e-2
"""Coordinates are regular when they lie within this part of a pixel of evenly spaced ones."""


@dataclass(frozen=True, eq=False)
class Raster:
    """Variables on one north-up grid."""

    geobox: GeoBox
    variables: dict[str, xr.DataArray]
    """Name -> (time, y, x) or (y, x); the first dimension may have any name."""

    def dimension(self, name: str) -> Hashable | None:
        """The dimension before rows and columns; None when there is none."""
        variable = self.variables[name]
        return variable.dims[0] if variable.ndim == 3 else None


def open_raster(data: xr.DataArray | xr.Dataset) -> Raster:
    """The variables that have rows and columns, without reading a pixel.

    Raises
    ------
    CrsError
        The data have no CRS.
    GridError
        There are no rows and columns, they are not evenly spaced, or the grid is rotated.
    InputError
        A variable has more than one dimension besides rows and columns.
    """
    whole = _dataset(data)
    rows, columns = _spatial_dimensions(whole)
    whole = whole[[name for name, variable in whole.data_vars.items() if {rows, columns} <= set(variable.dims)]]
    for name, variable in whole.data_vars.items():
        if variable.ndim > 3:
            others = [str(dim) for dim in variable.dims if dim not in (rows, columns)]
            raise InputError(
                f"Variable {name!r} has dimensions {others} besides {rows} and {columns}, and one is possible. Select, "
                f"e.g. `data.isel({others[0]}=0)`, or make variables of it with `data.to_dataset({others[0]!r})`."
            )
    for dim, southward in ((rows, True), (columns, False)):
        if whole.sizes[dim] > 1 and (float(whole[dim][0]) > float(whole[dim][-1])) != southward:
            whole = whole.isel({dim: slice(None, None, -1)})
    geobox = _geobox(whole, rows, columns)
    return Raster(geobox, {str(name): part.transpose(..., rows, columns) for name, part in whole.data_vars.items()})


def _dataset(data: object) -> xr.Dataset:
    if isinstance(data, xr.DataArray):
        return data.to_dataset(name=data.name if data.name is not None else "value")
    if not isinstance(data, xr.Dataset):
        raise InputError(f"Data are an xarray Dataset or DataArray; got {type(data).__name__}.")
    return data


def _spatial_dimensions(data: xr.Dataset) -> tuple[str, str]:
    for names in SPATIAL_DIMENSIONS:
        if any(set(names) <= set(variable.dims) for variable in data.data_vars.values()):
            missing = [name for name in names if name not in data.coords]
            if missing:
                raise GridError(
                    f"The data have dimensions {names} but no coordinates {missing} to say where pixels are."
                )
            return names
    raise GridError(
        f"No variable has rows and columns: looked for dimensions {SPATIAL_DIMENSIONS}, found {dict(data.sizes)}. "
        "Rename them, e.g. `data.rename(northing='y', easting='x')`."
    )


def _geobox(data: xr.Dataset, rows: str, columns: str) -> GeoBox:
    """The grid that odc-geo finds, unless its steps do not reach the last coordinate."""
    first = next(iter(data.data_vars.values()))
    if first.odc.crs is None:
        raise CrsError(
            "The data have no CRS. Set the one of their coordinates, e.g. with `data.rio.write_crs('EPSG:32633')` or "
            "`data.odc.assign_crs('EPSG:32633')`."
        )
    geobox = first.odc.geobox
    if not isinstance(geobox, GeoBox):
        raise GridError(
            f"The data of {data.sizes[rows]} x {data.sizes[columns]} pixels have no grid that is evenly spaced in "
            "their CRS (ground control points, or a single row or column). Reproject them first, e.g. with "
            "`data.odc.reproject`."
        )
    check_north_up(geobox)
    y, x = (np.asarray(data[dim], dtype=np.float64) for dim in (rows, columns))
    if not _fits(geobox, y, x, EXACT):
        # odc-geo takes the step between the first two; coordinates kept as float32 do not reach the last with it.
        geobox = GeoBox(geobox.shape, _transform(y, x), geobox.crs)
    if not _fits(geobox, y, x, REGULAR):
        raise GridError(
            f"The coordinates {rows} and {columns} are not evenly spaced, so pixels have no one size. Put the data on "
            "a regular grid first, e.g. with `data.interp`."
        )
    return geobox


def _transform(y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> Affine:
    """From centres of the first and last pixels."""
    height = (y[0] - y[-1]) / max(len(y) - 1, 1)
    width = (x[-1] - x[0]) / max(len(x) - 1, 1)
    return Affine(width, 0, x[0] - width / 2, 0, -height, y[0] + height / 2)


def _fits(geobox: GeoBox, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64], tolerance: float) -> bool:
    """Whether all coordinates are centres of pixels, up to a part of a pixel."""
    a = geobox.transform
    if not (a.a > 0 > a.e):
        return False
    off_x = np.abs((x - a.c) / a.a - np.arange(len(x)) - 0.5).max()
    off_y = np.abs((y - a.f) / a.e - np.arange(len(y)) - 0.5).max()
    return bool(max(off_x, off_y) <= tolerance)
