"""From a file of fields to rows that are taken and rows that are refused, each judged by itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from geofield.errors import FieldFileError
from geofield.fields.crsnames import field_crs
from geofield.fields.dates import judge_arrival, judge_harvest, judge_planting
from geofield.fields.formats import read_rows
from geofield.fields.ids import judge_ids, refuse_twins
from geofield.fields.jsontext import TextError, dump
from geofield.fields.names import MISSING, REFUSED, shown
from geofield.fields.options import FieldOptions
from geofield.fields.polygons import judge_polygons
from geofield.fields.rawrows import RawRows
from geofield.fields.report import Notice, Objects, Rejection, Report, objects
from geofield.fields.versions import field_versions

COLUMNS = (
    "field_id",
    "version",
    "box",
    "geometry",
    "crs",
    "planting_date",
    "harvest_date",
    "crop",
    "properties",
    "row",
    "arrival",
)


@dataclass(frozen=True)
class FieldsRead:
    """What a file of fields held."""

    table: pd.DataFrame
    """One row per accepted field, columns `COLUMNS`: geometry is WKB (2D, in `crs`), dates are `date` or None,
    properties are JSON text, row counts from 0 in the file, arrival is an aware datetime or None."""
    rejected: list[Rejection]
    notices: list[Notice]
    rows: int
    """Rows in the file, refused ones included."""


def read_fields(data: bytes | Path, name: str, options: FieldOptions | None = None) -> FieldsRead:
    """Read a file of fields and judge its rows.

    Parameters
    ----------
    data
        The file's content, or where it lies.
    name
        What the file is called, for messages; the format goes by the content.
    options
        What the caller says that the file does not.

    Raises
    ------
    FieldFileError
        Nothing of the file can be read. A bad row never raises: it is in `rejected`.
    """
    options = options or FieldOptions()
    raw = read_rows(data, name, options)
    _check_id_column(raw, name, options.id_column)
    _note_crs(raw, options.crs)
    today = dt.datetime.now(dt.UTC).date()
    try:
        raw.geometry = judge_polygons(raw, options.max_vertices)
    except FieldFileError as error:
        raise FieldFileError(f"{name}: {error}") from error
    ids = judge_ids(raw, options.id_column, options.ids == "digest")
    planting = judge_planting(raw, options.planting_date, today)
    harvest = judge_harvest(raw, planting, today)
    arrival = judge_arrival(raw)
    crop, box = _texts(raw, "crop", None), _texts(raw, "box", options.box)
    properties = _properties(raw)

    versions = np.empty(len(raw), dtype=object)
    rows = _standing(raw.report)
    versions[rows] = field_versions(raw.geometry[rows], raw.crs[rows], planting[rows], harvest[rows])
    _name_by_digest(rows, ids, versions, raw.report)
    refuse_twins(ids, raw.report)
    content = {"version": versions, "box": box, "crop": crop, "properties": properties}
    kept = _without_duplicates(ids, content, planting, harvest, raw)

    columns = {
        "field_id": ids,
        "version": versions,
        "box": box,
        "geometry": raw.geometry,
        "crs": raw.crs,
        "planting_date": planting,
        "harvest_date": harvest,
        "crop": crop,
        "properties": properties,
        "row": objects(range(len(raw))),
        "arrival": arrival,
    }
    table = _table({name: values[kept] for name, values in columns.items()})
    rejected, notices = raw.report.finish(ids)
    if not len(raw):
        notices.append(Notice(None, None, "the file holds no fields: there was nothing to do"))
    return FieldsRead(table, rejected, notices, len(raw))


def _table(columns: dict[str, Objects]) -> pd.DataFrame:
    """Columns of Python objects as they are: pandas would make NaN of a None beside text."""
    columns["geometry"] = shapely.to_wkb(columns["geometry"])
    table = pd.DataFrame({name: pd.Series(columns[name], dtype=object) for name in COLUMNS})
    return table.astype({"row": "int64"})


def _standing(report: Report) -> npt.NDArray[np.intp]:
    return np.flatnonzero(~report.refused)


def _check_id_column(raw: RawRows, name: str, id_column: str | None) -> None:
    cells = list(raw.cells["id"])
    if id_column is None or MISSING not in cells or any(cell is not MISSING and cell is not REFUSED for cell in cells):
        return
    raise FieldFileError(
        f"{name}: no column {id_column!r} (--id-column); there are {shown(', '.join(raw.columns), 300) or 'none'}"
    )


def _note_crs(raw: RawRows, asked: str | None) -> None:
    if asked is not None and raw.crs_declared and len(raw) and raw.crs[0] != field_crs(asked):
        raw.report.note(None, "crs_unused", f"the file declares {raw.crs[0]}, so --crs {asked} is not used")


def _texts(raw: RawRows, role: str, default: str | None) -> Objects:
    """(n,) text or None; whole numbers become text."""
    texts = np.empty(len(raw), dtype=object)
    for row, value in enumerate(raw.cells[role]):
        if value is REFUSED:
            continue
        if value is MISSING or value is None or (isinstance(value, str) and not value.strip()):
            texts[row] = default
        elif isinstance(value, str):
            texts[row] = value
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1:
            texts[row] = str(int(value))
        else:
            raw.report.refuse(row, f"bad_{role}", f"{role} is {shown(value)}: it has to be text")
    return texts


def _properties(raw: RawRows) -> Objects:
    """(n,) JSON text of everything else in a row; None where the row is refused."""
    texts = np.empty(len(raw), dtype=object)
    for row in _standing(raw.report):
        try:
            texts[row], mended = dump(raw.rest(int(row)))
        except TextError as error:
            raw.report.refuse(int(row), "bad_properties", str(error))
            continue
        if mended:
            raw.report.note(int(row), "not_finite_property", "a property that is NaN or infinite is kept as null")
    return texts


def _name_by_digest(rows: npt.NDArray[np.intp], ids: Objects, versions: Objects, report: Report) -> None:
    for row in rows:
        if ids[row] is None:
            ids[row] = versions[row]
            report.note(
                int(row), "digest_id", f"no field id: {versions[row]}, a digest of its content, is taken (--ids)"
            )


def _without_duplicates(
    ids: Objects, content: dict[str, Objects], planting: Objects, harvest: Objects, raw: RawRows
) -> npt.NDArray[np.intp]:
    """Rows to keep: of equal rows the first, of rows with one id and different content none."""
    rows = _standing(raw.report)
    twice = rows[pd.Series(ids[rows]).duplicated(keep=False).to_numpy()]
    groups: dict[str, list[int]] = {}
    for row in twice:
        groups.setdefault(ids[row], []).append(int(row))
    left_out = np.zeros(len(raw), dtype=bool)
    for field_id, group in groups.items():
        differ = _differences(group, content, planting, harvest)
        if differ:
            reason = f"{_spelled(field_id, group, raw)} is given {_times(group)} with different {differ}"
            for row in group:
                raw.report.refuse(row, "id_given_twice", reason)
            continue
        for row in group[1:]:
            left_out[row] = True
            raw.report.note(row, "duplicate", f"left out: identical to row {group[0]}")
    return np.flatnonzero(~raw.report.refused & ~left_out)


def _differences(group: Sequence[int], content: dict[str, Objects], planting: Objects, harvest: Objects) -> str:
    """What rows of one id differ in, in words; empty when they are equal."""
    found = []
    if _varies(content["version"], group):
        dates = [("planting dates", planting), ("harvest dates", harvest)]
        found = [word for word, days in dates if _varies(days, group)]
    if _varies(content["version"], group) and not found:
        found = ["polygons"]
    words = {"box": "boxes", "crop": "crops", "properties": "other properties"}
    return " and ".join(found + [word for key, word in words.items() if _varies(content[key], group)])


def _varies(values: Objects, group: Sequence[int]) -> bool:
    return len({values[row] for row in group}) > 1


def _spelled(field_id: str, group: Sequence[int], raw: RawRows) -> str:
    """The id, and how the file writes it when it writes it in two ways (7 and "7")."""
    written: list[Any] = list({str(shown(raw.cells["id"][row])): None for row in group})
    if len(written) > 1:
        return f"{' and '.join(written)} are the same field id, which"
    return f"field id {field_id}"


def _times(group: Sequence[int]) -> str:
    rows = ", ".join(map(str, group[:5])) + (", ..." if len(group) > 5 else "")
    return f"{'twice' if len(group) == 2 else f'{len(group)} times'} (rows {rows})"
