"""Series of fields: one in full, or many small ones side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from geofield.errors import InputError
from geofield.plots.drawing import CLOUD, ESTIMATE, OBSERVATION, PLANTED, dress_dates, new_axes, new_grid
from geofield.plots.values import Series, heading, series_of

MOST = 100


def series(rows: pd.DataFrame, variable: str | None = None, *, axes: Any = None) -> Any:
    """Draw a field: what was observed, the daily estimate with its error, gaps by cloud, and planting.

    Parameters
    ----------
    rows
        Of one field in one box, as `Store.rows` gives them.
    variable
        Default: the first that has an estimate, else the first.
    axes
        Where to draw; default: a new figure.

    Returns
    -------
    The axes. The band is twice the mean error of the field's pixels, which is not the error of their mean.

    Raises
    ------
    InputError
        The rows are of several fields or boxes, or there are none.
    NotFoundError
        No such variable.
    ConfigurationError
        matplotlib is not installed.
    """
    drawn = series_of(rows, variable)
    axes = new_axes(axes, (10, 4.5))
    _draw(axes, drawn, small=False)
    _draw_planting(axes, drawn)
    axes.set_title(heading(drawn), loc="left", parse_math=False)
    axes.set_ylabel(f"{drawn.variable.upper()} (1)")
    axes.set_xlabel("date (UTC)")
    axes.margins(x=0.02)
    dress_dates(axes)
    axes.legend(frameon=False, fontsize="small", ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return axes


def multiples(rows: pd.DataFrame, variable: str | None = None, *, columns: int = 4) -> Any:
    """Draw many fields side by side, on the same scales.

    Parameters
    ----------
    rows
        Of up to 100 fields; each field in each of its boxes gets a panel.
    columns
        Panels in a row.

    Returns
    -------
    The figure.

    Raises
    ------
    InputError
        Too many fields, or no rows.
    NotFoundError
        No such variable.
    ConfigurationError
        matplotlib is not installed.
    """
    groups = [group for _, group in rows.groupby(["box", "field_id"], sort=True)]
    if not 0 < len(groups) <= MOST:
        raise InputError(f"Small multiples are for 1 to {MOST} fields; these rows are of {len(groups)}. Choose some.")
    drawn = [series_of(group, variable) for group in groups]
    columns = min(columns, len(drawn))
    high = -(-len(drawn) // columns)
    figure, panels = new_grid(high, columns, (3 * columns, 1.9 * high + 0.6))
    has_boxes = rows["box"].nunique() > 1
    for one, axes in zip(drawn, panels.flat, strict=False):
        _draw(axes, one, small=True)
        name = f"{one.box}: {one.field}" if has_boxes else one.field
        axes.set_title(name, loc="left", fontsize="small", parse_math=False)
        dress_dates(axes, ticks=4)
        axes.tick_params(labelsize="x-small")
    for axes in list(panels.flat)[len(drawn) :]:
        axes.set_visible(False)
    figure.supylabel(f"{drawn[0].variable.upper()} (1)", fontsize="small")
    known: dict[str, Any] = {}
    for axes in panels.flat:
        known |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(known.values(), known.keys(), frameon=False, fontsize="small", ncols=4, loc="outside lower center")
    return figure


def _draw(axes: Any, drawn: Series, *, small: bool) -> None:
    for number, (begin, end) in enumerate(drawn.cloud_gaps()):
        label = "cloud: nothing valid" if number == 0 else "_"
        axes.axvspan(begin, end, color=CLOUD, alpha=0.14, lw=0, label=label, zorder=0)
    if not np.isnan(drawn.estimate).all():
        if not np.isnan(drawn.sigma).all():
            band = 2 * drawn.sigma
            axes.fill_between(drawn.days, drawn.estimate - band, drawn.estimate + band, color=ESTIMATE, alpha=0.18,
                              lw=0, label="± 2 sigma of a pixel", zorder=1)  # fmt: skip
        axes.plot(drawn.days, drawn.estimate, color=ESTIMATE, lw=1.2 if small else 1.8, label="daily estimate",
                  zorder=2)  # fmt: skip
    is_seen = ~np.isnan(drawn.observed)
    axes.plot(drawn.days[is_seen], drawn.observed[is_seen], "o", color=OBSERVATION, ms=3 if small else 6,
              label="observed mean", zorder=3)  # fmt: skip


def _draw_planting(axes: Any, drawn: Series) -> None:
    if not drawn.is_planted_before:
        label = f"planted {drawn.planted}"
        axes.axvline(np.datetime64(drawn.planted), color=PLANTED, ls="--", lw=1.4, label=label, zorder=1)
        return
    # drawn there it would squeeze the series
    axes.plot([], [], color=PLANTED, ls="--", lw=1.4, label=f"planted {drawn.planted}, before the box's start")
