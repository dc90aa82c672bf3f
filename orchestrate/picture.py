"""A box's day with its fields over it, beside the series of some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    import geopandas as gpd
    import pandas as pd

    from geofield import Store

COLOURS = {"on time": "white", "late": "#ffd92f", "moved": "#e7298a"}
"""Outline of a field, by how it came."""


def draw_box(
    store: Store,
    box: str,
    path: str | os.PathLike[str],
    groups: Mapping[str, Sequence[str]],
    series: Sequence[str],
    variable: str = "ndvi",
) -> None:
    """Draw the latest estimate of a box with its fields, and the series of some fields, into a PNG.

    Parameters
    ----------
    groups
        How fields came -> their ids; keys are those of `COLOURS`.
    series
        Fields whose series are drawn, one below the other.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(series), 2, width_ratios=(1.05, 1))
    cube = store.cube(box).open(variables=[variable])
    fields = store.fields().to_crs(cube.odc.geobox.crs.to_wkt())
    fields = fields.clip(cube.odc.geobox.boundingbox.bbox)
    _map(figure, figure.add_subplot(grid[:, 0]), cube, fields, groups, box, variable)
    for number, name in enumerate(series):
        kind = next((word for word, ids in groups.items() if name in ids), "on time")
        axes = figure.add_subplot(grid[number, 1])
        _series(axes, store.rows(box=box, field=name), name, kind, variable, is_last=number == len(series) - 1)
    figure.savefig(path, format="png", dpi=110)


def _map(
    figure: Any,
    axes: Any,
    cube: Any,
    fields: gpd.GeoDataFrame,
    groups: Mapping[str, Sequence[str]],
    box: str,
    variable: str,
) -> None:
    last = cube[f"{variable}_filled"].isel(time=-1).load()
    bounds = cube.odc.geobox.boundingbox
    image = axes.imshow(
        last.values,
        extent=(bounds.left / 1000, bounds.right / 1000, bounds.bottom / 1000, bounds.top / 1000),
        cmap="YlGn",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    for kind, ids in groups.items():
        chosen = fields[fields.index.isin(ids)]
        if len(chosen):
            outlines = chosen.geometry.affine_transform([0.001, 0, 0, 0.001, 0, 0])
            outlines.boundary.plot(ax=axes, color=COLOURS[kind], linewidth=1.4)
            axes.plot([], [], color=COLOURS[kind], lw=1.6, label=f"{kind} ({len(chosen)})")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=3, fontsize="small", facecolor="#7f9f6f")
    axes.set_xlabel("easting (km)")
    axes.set_ylabel("northing (km)")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.set_aspect("equal")
    day = str(last["time"].values)[:10]
    axes.set_title(f"{box}: estimate of {variable.upper()} on {day}", loc="left")
    figure.colorbar(image, ax=axes, shrink=0.75, label=f"{variable.upper()} (1)")


def _series(axes: Any, rows: pd.DataFrame, name: str, kind: str, variable: str, *, is_last: bool) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    middle = rows[f"{variable}_filled_mean"].to_numpy(float)
    band = 2 * rows[f"{variable}_sigma_mean"].to_numpy(float)
    axes.fill_between(rows["date"], middle - band, middle + band, color="#2166ac", alpha=0.15, lw=0)
    axes.plot(rows["date"], middle, color="#2166ac", lw=1.6, label="daily estimate, ± 2 sigma of a pixel")
    seen = rows[rows[f"{variable}_mean"].notna()]
    axes.plot(seen["date"], seen[f"{variable}_mean"], "o", color="#1b7837", ms=5, label="observed")
    clouded = rows.loc[rows["status"] == "all_masked", "date"]
    axes.plot(
        clouded, [0.05] * len(clouded), "x", color="#777777", ms=5, transform=axes.get_xaxis_transform(), label="cloud"
    )
    axes.set_title(f"field {name} ({kind})", loc="left", fontsize="medium")
    axes.set_ylabel(variable.upper())
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if is_last:
        axes.set_xlabel("date (UTC)")
        axes.legend(frameon=False, fontsize="small", loc="best")
