"""What the pictures have in common: which columns are drawn, and what is missing."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from geofield.errors import InputError, NotFoundError

Days = npt.NDArray[np.datetime64]
Values = npt.NDArray[np.float64]
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Series:
    """One field in one box, ready to be drawn.

    Attributes
    ----------
    field, box, variable
        What it is.
    covered
        Share of the field inside the box, 0 to 1.
    days
        (day,) ascending.
    observed
        (day,) mean of the valid pixels; NaN where there is none.
    estimate, sigma
        (day,) daily estimate and its pixels' mean error; NaN where there is none.
    is_clouded
        (day,) imagery came, and nothing of it was valid.
    planted
        The day of planting; may lie before the first row.
    """

    field: str
    box: str
    variable: str
    covered: float
    days: Days
    observed: Values
    estimate: Values
    sigma: Values
    is_clouded: npt.NDArray[np.bool_]
    planted: dt.date

    @property
    def is_planted_before(self) -> bool:
        """Planted before the first row: before the box's start."""
        return bool(np.datetime64(self.planted) < self.days[0])

    def cloud_gaps(self) -> list[tuple[np.datetime64, np.datetime64]]:
        """Stretches from imagery that was all cloud to the next valid pixel: (first day, day after the last)."""
        gaps = []
        begin: np.datetime64 | None = None
        for day, value, is_clouded in zip(self.days, self.observed, self.is_clouded, strict=True):
            if begin is not None and not np.isnan(value):
                gaps.append((begin, day))
                begin = None
            elif begin is None and is_clouded:
                begin = day
        if begin is not None:
            gaps.append((begin, self.days[-1] + _DAY))
        return gaps


def series_of(rows: pd.DataFrame, variable: str | None = None) -> Series:
    """The series of rows of one field in one box.

    Raises
    ------
    InputError
        There are no rows, or those of several fields or boxes.
    NotFoundError
        No such variable.
    """
    _check(rows)
    for column, what in (("field_id", "fields"), ("box", "boxes")):
        found = rows[column].unique().tolist()
        if len(found) > 1:
            shown = ", ".join(str(name) for name in found[:5])
            raise InputError(f"These rows are of {len(found)} {what} ({shown}): give those of one, or use `multiples`.")
    name = drawn_variable(rows, variable)
    ordered = rows.sort_values("date")
    first = ordered.iloc[0]
    day: dt.date = pd.Timestamp(first["date"]).date()
    return Series(
        field=str(first["field_id"]),
        box=str(first["box"]),
        variable=name,
        covered=float(first["covered"]),
        days=days_of(ordered),
        observed=_column(ordered, f"{name}_mean"),
        estimate=_column(ordered, f"{name}_filled_mean"),
        sigma=_column(ordered, f"{name}_sigma_mean"),
        is_clouded=(ordered["status"] == "all_masked").to_numpy(bool),
        planted=day - dt.timedelta(days=int(first["days_since_planting"])),
    )


def variables_of(rows: pd.DataFrame) -> list[str]:
    """The variables of some rows: each has a column `<variable>_valid`."""
    return [str(name).removesuffix("_valid") for name in rows.columns if str(name).endswith("_valid")]


def drawn_variable(rows: pd.DataFrame, variable: str | None) -> str:
    """The variable that is asked for; else the first that has an estimate, else the first.

    Raises
    ------
    NotFoundError
        The rows have no such variable.
    """
    known = variables_of(rows)
    if variable is None and known:
        return next((name for name in known if f"{name}_filled_mean" in rows.columns), known[0])
    if variable is None or variable not in known:
        raise NotFoundError(f"The rows have no variable {variable or ''!r}; they have {', '.join(known) or 'none'}.")
    return variable


def best_column(rows: pd.DataFrame, variable: str) -> str:
    """The column that has a value on most days: the estimate, or the observation where there is no state."""
    estimate = f"{variable}_filled_mean"
    return estimate if estimate in rows.columns and rows[estimate].notna().any() else f"{variable}_mean"


def latest_values(rows: pd.DataFrame, variable: str | None = None) -> pd.Series[float]:
    """The last value of each field: of the estimate, or of the observation where there is no estimate.

    Parameters
    ----------
    rows
        As `Store.rows` gives them.
    variable
        Default: the first that has an estimate, else the first.

    Returns
    -------
    By field id, in order of the ids; NaN for a field that was never seen.
    """
    _check(rows)
    name = drawn_variable(rows, variable)
    column = best_column(rows, name)
    ordered = rows.sort_values(["field_id", "date"])
    last = ordered.groupby("field_id")[column].last()
    return last.rename(name)


def days_of(rows: pd.DataFrame) -> Days:
    """The dates of rows as days."""
    days: Days = pd.to_datetime(rows["date"]).to_numpy().astype("datetime64[D]")
    return days


def heading(series: Series) -> str:
    """What a picture of a field is called."""
    inside = f", {series.covered:.0%} of it inside" if series.covered < 0.9995 else ""
    return f"Field {series.field} in box {series.box}{inside}"


def _column(rows: pd.DataFrame, name: str) -> Values:
    if name not in rows.columns:
        return np.full(len(rows), np.nan)
    return rows[name].to_numpy(float, na_value=np.nan)


def _check(rows: Any) -> None:
    missing = {"box", "field_id", "date", "status"} - set(rows.columns)
    if missing:
        raise InputError(f"These are no rows of a store: {', '.join(sorted(missing))} missing. Give `store.rows(...)`.")
    if not len(rows):
        raise InputError("There are no rows to draw: `geofield run` writes them, or another field or box has some.")
