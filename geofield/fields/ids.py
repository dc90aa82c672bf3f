"""Field ids: any printable text up to 200 characters, kept exactly as written (design/storage.md)."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from geofield.fields.names import MISSING, REFUSED, near_misses, shown
from geofield.fields.rawrows import RawRows
from geofield.fields.report import Objects, Report

MAX_LENGTH = 200
EXACT_FLOAT = 2**53
"""From here on a float does not tell neighbouring whole numbers apart."""
_UNPRINTABLE = {
    "Cc": "a control character",
    "Cs": "half a character",
    "Zl": "a line separator",
    "Zp": "a line separator",
}
HELP = "name a column with --id-column, or ask for ids by content with --ids digest"


def judge_ids(raw: RawRows, id_column: str | None, digest: bool) -> Objects:
    """(n,) id as text; None where a row is refused for its id, or, with `digest`, where it has none."""
    cells = raw.cells["id"]
    ids = np.empty(len(raw), dtype=object)
    for row, value in enumerate(cells):
        if type(value) is str and value.isascii() and value.isprintable() and _trimmed(value):
            ids[row] = value
        elif digest and (value is MISSING or value is None or (isinstance(value, str) and not value.strip())):
            continue
        elif value is not REFUSED:
            ids[row] = _judged(row, value, raw, id_column)
    return ids


def _trimmed(value: str) -> bool:
    return 0 < len(value) <= MAX_LENGTH and value[0] != " " != value[-1]


def _judged(row: int, value: Any, raw: RawRows, id_column: str | None) -> str | None:
    report = raw.report
    if value is MISSING:
        report.refuse(row, "no_id", _no_id(raw.columns, id_column))
    elif value is None:
        report.refuse(row, "no_id", f"the field id is null: {HELP}")
    elif isinstance(value, bool) or not isinstance(value, (str, int, float)):
        report.refuse(row, "bad_id", f"the field id is {shown(value)}: it has to be text or a whole number")
    elif isinstance(value, str):
        return _text(row, value, report)
    elif isinstance(value, int):
        return _text(row, str(value), report)
    elif math.isfinite(value) and value == int(value) and abs(value) < EXACT_FLOAT:
        report.note(row, "float_id", f"the field id {value!r} is kept as the text {int(value)}")
        return str(int(value))
    else:
        report.refuse(row, "bad_id", f"the field id is the number {value!r}: write a whole number, or text")
    return None


def _text(row: int, value: str, report: Report) -> str | None:
    if not value.strip():
        report.refuse(row, "blank_id", f"the field id is blank: {HELP}")
        return None
    hidden = next((char for char in value if unicodedata.category(char) in _UNPRINTABLE), None)
    if hidden is not None:
        what = _UNPRINTABLE[unicodedata.category(hidden)]
        report.refuse(row, "unprintable_id", f"the field id {shown(value)} contains {what} (U+{ord(hidden):04X})")
        return None
    if value != value.strip():
        report.refuse(row, "outer_space_in_id", f"the field id {shown(value)} begins or ends with a space")
    if len(value) > MAX_LENGTH:
        report.refuse(
            row, "long_id", f"the field id has {len(value)} characters, more than {MAX_LENGTH}: {shown(value)}"
        )
        return None
    return value


def _no_id(columns: Sequence[str], id_column: str | None) -> str:
    if id_column is not None:
        return f"no {id_column!r}, the column of --id-column"
    near = near_misses("id", columns)
    if near:
        return f"no field id; there is {', '.join(map(repr, near))}, which is no known spelling: {HELP}"
    return f"no field id: {HELP}"


def refuse_twins(ids: Objects, report: Report) -> None:
    """Refuse ids of one file that look the same but are not: composed and decomposed letters."""
    groups = defaultdict(list)
    for row in np.flatnonzero(~report.refused).tolist():
        if ids[row] is not None and not ids[row].isascii():
            groups[unicodedata.normalize("NFC", ids[row])].append(row)
    for rows in groups.values():
        if len({ids[row] for row in rows}) > 1:
            named = ", ".join(map(str, rows[:5]))
            for row in rows:
                report.refuse(
                    row,
                    "ids_look_the_same",
                    f"the ids of rows {named} look the same but differ (composed and decomposed letters)",
                )
