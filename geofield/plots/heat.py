"""All fields of a box at once: a row for each, a column for each day."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from geofield.errors import InputError
from geofield.plots.drawing import MISSING, SEQUENTIAL, dress_dates, new_axes
from geofield.plots.values import best_column, days_of, drawn_variable

_LABELS = 40


def heatmap(
    rows: pd.DataFrame,
    variable: str | None = None,
    *,
    order: Literal["field", "planting", "value"] = "field",
    axes: Any = None,
) -> Any:
    """Draw fields x days: the estimate, or the observations where there is no estimate. Grey: no row or no value.

    Parameters
    ----------
    rows
        Of one box, as `Store.rows` gives them.
    variable
        Default: the first that has an estimate, else the first.
    order
        Of the fields from above: by id, by day of planting, or by the last value, the highest first.
    axes
        Where to draw; default: a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    InputError
        Rows of several boxes, none at all, or an unknown order.
    NotFoundError
        No such variable.
    ConfigurationError
        matplotlib is not installed.
    """
    boxes = rows["box"].unique().tolist()
    if len(boxes) != 1:
        raise InputError(f"A heat map is of one box; these rows are of {len(boxes)}: choose with `box=`.")
    name = drawn_variable(rows, variable)
    table = rows.assign(day=days_of(rows)).pivot(index="field_id", columns="day", values=best_column(rows, name))
    every = pd.date_range(table.columns.min(), table.columns.max(), freq="D")
    table = table.reindex(columns=every).reindex(_ordered(rows, table, order))
    axes = new_axes(axes, (10, min(12.0, 1.8 + 0.22 * len(table))))
    edges = np.append(every.to_numpy(), every[-1].to_numpy() + np.timedelta64(1, "D"))
    axes.set_facecolor(MISSING)
    low, high = np.nanpercentile(table.to_numpy(float), (1, 99)) if table.notna().any(axis=None) else (0.0, 1.0)
    mesh = axes.pcolormesh(edges, np.arange(len(table) + 1), table.to_numpy(float), cmap=SEQUENTIAL, vmin=low,
                           vmax=high, rasterized=True)  # fmt: skip
    axes.invert_yaxis()
    step = -(-len(table) // _LABELS)
    axes.set_yticks(np.arange(0, len(table), step) + 0.5, [str(one) for one in table.index[::step]],
                    fontsize="x-small", parse_math=False)  # fmt: skip
    axes.set_title(f"{len(table)} fields of box {boxes[0]}", loc="left", parse_math=False)
    axes.set_xlabel("date (UTC)")
    dress_dates(axes)
    axes.grid(visible=False)
    axes.figure.colorbar(mesh, ax=axes, label=f"{name.upper()} (1)", extend="both")
    return axes


def _ordered(rows: pd.DataFrame, table: pd.DataFrame, order: str) -> list[str]:
    if order == "field":
        return sorted(table.index)
    if order == "planting":
        planted = (pd.to_datetime(rows["date"]) - pd.to_timedelta(rows["days_since_planting"], unit="D")).groupby(
            rows["field_id"]
        )
        return planted.min().sort_values(kind="stable").index.tolist()
    if order == "value":
        return table.ffill(axis=1).iloc[:, -1].sort_values(ascending=False, kind="stable").index.tolist()
    raise InputError(f"order={order!r} is not known: give 'field', 'planting' or 'value'.")
