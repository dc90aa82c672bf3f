"""One field's series: as a table, as text, as a picture."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from geofield.errors import ConfigurationError, NotFoundError, there_is

if TYPE_CHECKING:
    import os

    import pandas as pd

    from geofield import Store

PICTURES = ("png", "svg", "pdf")
FILES = ("csv", "parquet", "json")
_KEY = ("box", "field_id", "field_version", "date", "days_since_planting", "status", "covered", "digest")


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
    return f"There is no field {field!r}. {there_is(field, known)}"


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
    # not by `to_json` of pandas, which cuts numbers to 15 digits
    values = rows.assign(date=rows["date"].astype(str)).astype(object)
    return json.dumps(values.where(values.notna(), None).to_dict("records"), ensure_ascii=False, allow_nan=False)


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


def picture_format(path: str | os.PathLike[str]) -> str:
    """What a picture of this name is; `ConfigurationError` when it is nothing that is written."""
    suffix = Path(path).suffix.lower().lstrip(".") or PICTURES[0]
    if suffix not in PICTURES:
        raise ConfigurationError(f"{path}: a picture is written as .{', .'.join(PICTURES[:-1])} or .{PICTURES[-1]}.")
    return suffix


def plot(rows: pd.DataFrame, path: str | os.PathLike[str], variable: str | None = None) -> str:
    """Draw a field's series into a PNG, SVG or PDF: observations, the estimate with its error, days of cloud, planting.

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
        The field lies in several boxes, the path's suffix is that of another format, or it cannot be written.
    """
    from geofield import plots

    kind = picture_format(path)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError("--plot needs matplotlib: pip install 'geofield[plots]'.") from error
    boxes = rows["box"].unique().tolist()
    if len(boxes) > 1:
        raise ConfigurationError(f"The field lies in several boxes ({', '.join(boxes)}): choose one with --box.")
    known = variables_of(rows)
    with_state = [name for name in known if f"{name}_filled_mean" in rows]
    drawn = variable or (with_state or known)[0]
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    plots.series(rows, drawn, axes=figure.add_subplot())
    try:
        figure.savefig(path, format=kind, dpi=150)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}.") from error
    return drawn
