"""Fields on a map to move about in, with lonboard or folium."""

from __future__ import annotations

import html
import importlib.util
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from geofield.errors import CrsError, InputError
from geofield.plots.drawing import ESTIMATE, SEQUENTIAL, missing

if TYPE_CHECKING:
    import geopandas as gpd

_UNKNOWN = "#bbbbbb"


def field_map(
    fields: gpd.GeoDataFrame,
    values: pd.Series[float] | None = None,
    *,
    library: Literal["lonboard", "folium"] | None = None,
    tiles: str | None = "OpenStreetMap",
) -> Any:
    """Fields on a map, coloured by a value.

    Parameters
    ----------
    fields
        Polygons in any CRS; the index names them.
    values
        By field id, e.g. of `latest_values`. Fields without one are grey.
    library
        Default: lonboard where it is installed, else folium. lonboard draws a hundred thousand fields.
    tiles
        Of folium: the background map, which the browser loads from the network; None: no background.

    Returns
    -------
    `lonboard.Map` or `folium.Map`. Ids are shown as text: markup in them is not interpreted.

    Raises
    ------
    InputError
        There is no field.
    CrsError
        The fields do not say their CRS.
    ConfigurationError
        Neither library is installed.
    """
    if fields.crs is None:
        raise CrsError("The fields have no CRS: set it with fields.set_crs(...).")
    if not len(fields):
        raise InputError("There are no fields to draw.")
    names = [name for name in ("lonboard", "folium") if library in (None, name)]
    found = next((name for name in names if importlib.util.find_spec(name) is not None), None)
    if found is None:
        raise missing(" or ".join(names) or "lonboard or folium", "notebook")
    placed = fields[["geometry"]].to_crs("EPSG:4326")
    shown = pd.Series(np.nan, index=placed.index) if values is None else values.reindex(placed.index)
    return _lonboard(placed, shown) if found == "lonboard" else _folium(placed, shown, tiles)


def _colours(values: pd.Series[float]) -> Any:
    """(field, 4) colours, 0 to 1; without matplotlib one colour for all."""
    numbers = values.to_numpy(float)
    try:
        from matplotlib import colormaps, colors
    except ImportError as error:
        raise missing("matplotlib", "plots") from error
    is_known = np.isfinite(numbers)
    if not is_known.any():
        return np.tile(colors.to_rgba(ESTIMATE), (len(numbers), 1))
    low, high = np.percentile(numbers[is_known], (2, 98))
    scaled = np.clip((numbers - low) / max(high - low, 1e-9), 0, 1)
    result = colormaps[SEQUENTIAL](np.nan_to_num(scaled))
    result[~is_known] = colors.to_rgba(_UNKNOWN)
    return result


def _lonboard(fields: gpd.GeoDataFrame, values: pd.Series[float]) -> Any:
    from lonboard import Map, PolygonLayer

    colours = (255 * _colours(values)).astype(np.uint8)
    colours[:, 3] = 200
    named = fields.assign(field=[str(name) for name in fields.index], value=values.to_numpy(float))
    layer = PolygonLayer.from_geopandas(
        named.reset_index(drop=True), get_fill_color=colours, get_line_color=[40, 40, 40], line_width_min_pixels=1
    )
    return Map(layer)


def _folium(fields: gpd.GeoDataFrame, values: pd.Series[float], tiles: str | None) -> Any:
    import folium
    from matplotlib.colors import to_hex

    table = fields.assign(
        # ids are anybody's text, and folium puts them into the page as they are
        field=[html.escape(str(name)) for name in fields.index],
        value=["never seen" if np.isnan(value) else f"{value:.3f}" for value in values.to_numpy(float)],
        colour=[to_hex(colour) for colour in _colours(values)],
    ).reset_index(drop=True)
    west, south, east, north = (float(value) for value in table.total_bounds)
    made = folium.Map(tiles=tiles, control_scale=True)
    folium.GeoJson(
        table,
        style_function=lambda feature: {"fillColor": feature["properties"]["colour"], "color": "#222222",
                                        "weight": 1, "fillOpacity": 0.75},
        tooltip=folium.GeoJsonTooltip(["field", "value"], ["field", str(values.name or "value")]),
    ).add_to(made)  # fmt: skip
    made.fit_bounds([[south, west], [north, east]])
    return made
