"""A field's series to zoom into and to point at, with Bokeh."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pandas as pd

from geofield.plots.drawing import CLOUD, ESTIMATE, OBSERVATION, PLANTED, missing
from geofield.plots.values import Series, heading, series_of


def interactive_series(rows: pd.DataFrame, variable: str | None = None) -> Any:
    """The picture of `series` as a Bokeh figure: zoom, pan, and values where the pointer is.

    Parameters
    ----------
    rows
        Of one field in one box, as `Store.rows` gives them.
    variable
        Default: the first that has an estimate, else the first.

    Returns
    -------
    A `bokeh.plotting.figure`; `bokeh.io.show` displays it, after `bokeh.io.output_notebook()` in a notebook.

    Raises
    ------
    InputError
        The rows are of several fields or boxes, or there are none.
    NotFoundError
        No such variable.
    ConfigurationError
        Bokeh is not installed.
    """
    models, plotting = _bokeh("bokeh.models"), _bokeh("bokeh.plotting")
    drawn = series_of(rows, variable)
    made = plotting.figure(height=360, sizing_mode="stretch_width", x_axis_type="datetime", title=heading(drawn),
                  y_axis_label=f"{drawn.variable.upper()} (1)", tools="xpan,xwheel_zoom,xbox_zoom,reset,save",
                  active_scroll="xwheel_zoom")  # fmt: skip
    source = models.ColumnDataSource(_data(drawn, rows))
    if gaps := drawn.cloud_gaps():
        begins, ends = (np.array(days, "datetime64[ms]") for days in zip(*gaps, strict=True))
        made.vstrip(begins, ends, fill_color=CLOUD, fill_alpha=0.14, line_alpha=0, legend_label="cloud: nothing valid")
    made.varea("day", "low", "high", source=source, fill_color=ESTIMATE, fill_alpha=0.18,
               legend_label="± 2 sigma of a pixel")  # fmt: skip
    line = made.line("day", "estimate", source=source, color=ESTIMATE, line_width=2, legend_label="daily estimate")
    made.scatter("day", "observed", source=source, color=OBSERVATION, size=8, legend_label="observed mean")
    label = f"planted {drawn.planted}"
    dashed = {"color": PLANTED, "line_dash": "dashed", "line_width": 2}
    if drawn.is_planted_before:  # drawn there it would squeeze the series
        made.line([], [], legend_label=f"{label}, before the box's start", **dashed)
    else:
        made.vspan(np.array([drawn.planted], "datetime64[ms]"), legend_label=label, **dashed)
    tips = [("day", "@day{%F}"), ("estimate", "@estimate{0.000}"), ("observed", "@observed{0.000}"),
            ("sigma of a pixel", "@sigma{0.000}"), ("status", "@status")]  # fmt: skip
    made.add_tools(models.HoverTool(renderers=[line], tooltips=tips, formatters={"@day": "datetime"}, mode="vline"))
    made.legend.click_policy = "hide"
    made.legend.orientation = "horizontal"
    made.add_layout(made.legend[0], "below")
    return made


def _data(drawn: Series, rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "day": drawn.days.astype("datetime64[ms]"),
        "observed": drawn.observed,
        "estimate": drawn.estimate,
        "sigma": drawn.sigma,
        "low": drawn.estimate - 2 * drawn.sigma,
        "high": drawn.estimate + 2 * drawn.sigma,
        "status": rows.sort_values("date")["status"].to_numpy(object),
    }


def _bokeh(name: str) -> Any:
    # its modules tell their names at run time only
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing("Bokeh", "plots") from error
