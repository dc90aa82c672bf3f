"""One field's series: as a table, as text, as a picture."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from geofield.errors import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    import os

    import pandas as pd

    from geofield import Store

_KEY = ("box", "field_id", "field_version", "date", "days_since_planting", "status", "covered", "digest")
_NEAR = 8
_OBSERVATION, _ESTIMATE, _PLANTED, _CLOUD = "#1b7837", "#2166ac", "#8c510a", "#9e9e9e"


def field_rows(store: Store, field: str, box: str | None = None, variable: str | None = None) -> pd.DataFrame:
    """The rows of one field, all columns, or the key and the columns of one variable.

    Raises
    ------
    NotFoundError
        No such field, box or variable, or no rows of it yet.
    """
    rows = store.rows(box=box, field=field)
    if rows.empty:
        raise NotFoundError(_why_none(store, field, box))
    if variable is None:
        return rows.dropna(axis="columns", how="all") if rows["box"].nunique() > 1 else rows
    known = variables_of(rows)
    if variable not in known:
        raise NotFoundError(f"There is no variable {variable!r}; there is {', '.join(known)}.")
    return rows[[name for name in rows.columns if name in _KEY or _variable(name, known) == variable]]


def variables_of(rows: pd.DataFrame) -> list[str]:
    """The variables of some rows: each has a column `<variable>_valid`."""
    return [name.removesuffix("_valid") for name in rows.columns if name.endswith("_valid")]


def _variable(column: str, known: list[str]) -> str | None:
    """The variable of a column; of `ndvi` and `ndvi_red` the longer one that fits."""
    fitting = [name for name in known if column.startswith(f"{name}_")]
    return max(fitting, key=len, default=None)


def _why_none(store: Store, field: str, box: str | None) -> str:
    known = store.registry.current()["field_id"].tolist()
    if field in known:
        where = "" if box is None else f" in box {box}"
        return f"Field {field!r} has no rows{where} yet: `geofield run` writes them."
    import difflib

    near = difflib.get_close_matches(field, known, _NEAR) or known[:_NEAR]
    there = f"There is {', '.join(near)}{', ...' if len(known) > len(near) else ''}." if near else "There is none yet."
    return f"There is no field {field!r}. {there}"


# --- text ------------------------------------------------------------------------------------------------------------


def to_csv(rows: pd.DataFrame) -> str:
    """Comma-separated values; missing ones are empty."""
    return str(rows.to_csv(index=False))


def to_parquet(rows: pd.DataFrame) -> bytes:
    """A Parquet file."""
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    return buffer.getvalue()


def to_json(rows: pd.DataFrame) -> str:
    """A JSON list of rows; missing values are null, dates ISO 8601."""
    records = json.loads(rows.assign(date=rows["date"].astype(str)).to_json(orient="records", double_precision=15))
    return json.dumps(records, ensure_ascii=False)


def table_columns(rows: pd.DataFrame) -> dict[str, str]:
    """Column -> heading of those that a person looks at."""
    columns = {"date": "date", "days_since_planting": "day", "status": "status"}
    if rows["box"].nunique() > 1:
        columns = {"box": "box"} | columns
    for name in variables_of(rows):
        columns |= {f"{name}_valid": f"{name} valid"}
        columns |= {f"{name}_{stat}": f"{name} {stat}" for stat in ("mean", "stdev")}
        columns |= {f"{name}_{part}_mean": f"{name} {part}" for part in ("filled", "sigma", "age")}
    return {name: heading for name, heading in columns.items() if name in rows.columns}


# --- a picture -------------------------------------------------------------------------------------------------------


def plot(rows: pd.DataFrame, path: str | os.PathLike[str], variable: str | None = None) -> str:
    """Draw a field's series into a PNG: observations, the estimate with its error, days of cloud, planting.

    Parameters
    ----------
    rows
        Of one field in one box.
    variable
        Default: the first that has an estimate, else the first.

    Returns
    -------
    The variable that was drawn.

    Raises
    ------
    ConfigurationError
        The field lies in several boxes, or the path cannot be written.
    """
    boxes = rows["box"].unique().tolist()
    if len(boxes) > 1:
        raise ConfigurationError(f"The field lies in several boxes ({', '.join(boxes)}): choose one with --box.")
    known = variables_of(rows)
    with_state = [name for name in known if f"{name}_filled_mean" in rows]
    drawn = variable or (with_state or known)[0]
    figure = _draw(rows, drawn)
    try:
        figure.savefig(path, format="png", dpi=150)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}.") from error
    return drawn


def _draw(rows: pd.DataFrame, variable: str) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_estimate(axes, rows, variable)
    seen = rows[rows[f"{variable}_mean"].notna()]
    axes.plot(seen["date"], seen[f"{variable}_mean"], "o", color=_OBSERVATION, ms=6, label="observed mean", zorder=3)
    _draw_clouds(axes, rows)
    _draw_planting(axes, rows)
    _dress(axes, rows, variable)
    return figure


def _draw_estimate(axes: Any, rows: pd.DataFrame, variable: str) -> None:
    column, error = f"{variable}_filled_mean", f"{variable}_sigma_mean"
    if column not in rows or rows[column].isna().all():
        return
    middle = rows[column].to_numpy(float)
    axes.plot(rows["date"], middle, color=_ESTIMATE, lw=1.8, label="daily estimate", zorder=2)
    if error in rows:
        band = 2 * rows[error].to_numpy(float)
        axes.fill_between(rows["date"], middle - band, middle + band, color=_ESTIMATE, alpha=0.15, lw=0,
                          label="± 2 sigma of a pixel", zorder=1)  # fmt: skip


def _draw_clouds(axes: Any, rows: pd.DataFrame) -> None:
    clouded = rows.loc[rows["status"] == "all_masked", "date"]
    if len(clouded):
        axes.plot(clouded, [0.02] * len(clouded), "x", color=_CLOUD, ms=6, mew=1.5, ls="none",
                  transform=axes.get_xaxis_transform(), label="imagery, all of it masked", zorder=2)  # fmt: skip


def _draw_planting(axes: Any, rows: pd.DataFrame) -> None:
    import datetime as dt

    first = rows.iloc[0]
    planted = first["date"] - dt.timedelta(days=int(first["days_since_planting"]))
    if planted == first["date"]:
        axes.axvline(planted, color=_PLANTED, ls="--", lw=1.2, label=f"planted {planted}", zorder=1)
        return
    # planted before the first row (before the box's start): drawn there it would squeeze the series
    axes.plot([], [], color=_PLANTED, ls="--", lw=1.2, label=f"planted {planted}, before the box's start")


def _dress(axes: Any, rows: pd.DataFrame, variable: str) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    first = rows.iloc[0]
    covered = f", {first['covered']:.0%} of it inside" if first["covered"] < 0.9995 else ""
    axes.set_title(f"Field {first['field_id']} in box {first['box']}{covered}", loc="left", parse_math=False)
    axes.set_ylabel(f"{variable.upper()} (1)")
    axes.set_xlabel("date (UTC)")
    locator = AutoDateLocator(minticks=3, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.margins(x=0.02)
    axes.grid(alpha=0.3, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.figure.legend(frameon=False, fontsize="small", ncols=5, loc="outside lower center")
