"""A day of a box as a map, with its fields over it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geofield.errors import CrsError, InputError, NotFoundError
from geofield.plots.drawing import MISSING, SEQUENTIAL, new_axes

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

_MOST_PIXELS = 1500
_LOOKED_AT = 10


def day(
    cube: xr.Dataset,
    fields: gpd.GeoDataFrame | None = None,
    *,
    variable: str | None = None,
    date: dt.date | str | None = None,
    labels: bool = False,
    axes: Any = None,
) -> Any:
    """Draw one day of a cube, with the outlines of fields.

    Parameters
    ----------
    cube
        As `Cube.open` gives it; a long side of more than 1,500 pixels is drawn from every n-th.
    fields
        In any CRS; those outside are left out.
    variable
        An array of `cube`, e.g. `ndvi` or `ndvi_filled`. Default: the first estimate, else the first array.
    date
        Default: the last day for an estimate, the last one with a valid pixel for an observation (of the last ten
        with imagery).
    labels
        Write the fields' ids.
    axes
        Where to draw; default: a new figure.

    Returns
    -------
    The axes, in kilometres of the grid's CRS, or degrees. Grey: no value.

    Raises
    ------
    InputError
        The cube does not hold the day, or no day at all.
    NotFoundError
        No such variable.
    CrsError
        The fields do not say their CRS.
    ConfigurationError
        matplotlib is not installed.
    """
    name = _chosen(cube, variable)
    layer = _layer(cube[name], cube, date)
    step = -(-max(layer.shape) // _MOST_PIXELS)
    values = layer.to_numpy()[::step, ::step]
    box = cube.odc.geobox.boundingbox
    is_degrees = cube.odc.geobox.crs.geographic
    unit = 1.0 if is_degrees else 1000.0
    axes = new_axes(axes, (7.5, 6.5))
    seen = values[np.isfinite(values)]
    low, high = np.percentile(seen, (2, 98)) if seen.size else (0.0, 1.0)
    axes.set_facecolor(MISSING)
    image = axes.imshow(
        values, cmap=SEQUENTIAL, vmin=low, vmax=high, interpolation="nearest", origin="upper",
        extent=(box.left / unit, box.right / unit, box.bottom / unit, box.top / unit),
    )  # fmt: skip
    if fields is not None:
        _draw_fields(axes, _inside(fields, cube), unit, labels)
    axes.set_xlabel("longitude" if is_degrees else "easting (km)")
    axes.set_ylabel("latitude" if is_degrees else "northing (km)")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.set_aspect("equal")
    when = str(layer["time"].to_numpy())[:10]
    axes.set_title(f"{cube.attrs.get('geofield_box', 'cube')}: {name} on {when}", loc="left", parse_math=False)
    axes.figure.colorbar(image, ax=axes, shrink=0.75, label=f"{name} (1)", extend="both")
    return axes


def _chosen(cube: xr.Dataset, variable: str | None) -> str:
    known = [str(name) for name, array in cube.data_vars.items() if array.dims == ("time", "y", "x")]
    if variable is None and known:
        return next((name for name in known if name.endswith("_filled")), known[0])
    if variable is None or variable not in known:
        raise NotFoundError(f"The cube has no array {variable or ''!r}; it has {', '.join(known) or 'none'}.")
    return variable


def _layer(array: xr.DataArray, cube: xr.Dataset, date: dt.date | str | None) -> xr.DataArray:
    if not array.sizes["time"]:
        raise InputError("The cube holds no day yet: `geofield run` appends them.")
    if date is not None:
        try:
            wanted = np.datetime64(pd.Timestamp(date).date(), "ns")
        except ValueError as error:
            raise InputError(f"{date!r} is not a day; write YYYY-MM-DD.") from error
        if wanted not in array["time"].to_numpy():
            first, last = (str(array["time"].to_numpy()[at])[:10] for at in (0, -1))
            raise InputError(f"The cube does not hold {date}: it was opened for {first} to {last}.")
        return array.sel(time=wanted).load()
    is_observation = not str(array.name).endswith(("_filled", "_sigma", "_age"))
    came: list[int] = []
    if is_observation and "acquired" in cube.coords:
        came = np.flatnonzero(cube["acquired"].to_numpy()).tolist()
    for step in came[: -_LOOKED_AT - 1 : -1]:
        layer = array.isel(time=step).load()
        if layer.notnull().any():
            return layer
    return array.isel(time=-1).load()


def _inside(fields: gpd.GeoDataFrame, cube: xr.Dataset) -> gpd.GeoDataFrame:
    if fields.crs is None:
        raise CrsError("The fields have no CRS: set it with fields.set_crs(...).")
    placed = fields.to_crs(cube.odc.geobox.crs.to_wkt())
    box = cube.odc.geobox.boundingbox
    return placed.cx[box.left : box.right, box.bottom : box.top]


def _draw_fields(axes: Any, fields: gpd.GeoDataFrame, unit: float, labels: bool) -> None:
    from matplotlib.patheffects import withStroke

    if not len(fields):
        return
    limits = axes.get_xlim(), axes.get_ylim()
    shapes = fields.geometry.affine_transform([1 / unit, 0, 0, 1 / unit, 0, 0])
    # dark with a light rim: seen on any colour
    shapes.boundary.plot(ax=axes, color="#222222", linewidth=1.1,
                         path_effects=[withStroke(linewidth=2.6, foreground="white", alpha=0.7)])  # fmt: skip
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    if labels:
        for name, point in shapes.representative_point().items():
            axes.annotate(str(name), (point.x, point.y), ha="center", va="center", fontsize="xx-small",
                          parse_math=False, path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip
