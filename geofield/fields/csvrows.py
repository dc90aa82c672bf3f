"""Rows from text with separators: a column of WKT (or EWKT), or four columns with the corners."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from typing import Any

from geofield.errors import CrsError
from geofield.fields.coordinates import BadGeometryError, Polygons, corner_ring, read_wkt
from geofield.fields.crsnames import LONLAT, field_crs
from geofield.fields.jsontext import TextError, check_text, decode
from geofield.fields.names import GEOMETRY_KEYS, NAMES, REFUSED, corner_keys, pick, roles_of, shown
from geofield.fields.options import FieldOptions
from geofield.fields.rawrows import MENDED, RawRows, empty_cells, filled
from geofield.fields.report import Report

SEPARATORS = ",;\t|"


def read_csv(data: bytes, options: FieldOptions) -> RawRows:
    """Rows of a text with a header; `TextError` when it is no such thing."""
    text = decode(data)
    check_text(text)
    separator = _separator(text)
    header, records, lines = _records(text, separator)
    return _build(header, records, lines, options)


def _separator(text: str) -> str:
    first = next(line for line in text.splitlines() if line.strip())
    counts = Counter(char for char in first if char in SEPARATORS)
    if not counts:
        raise TextError(
            f"the first line, {shown(first)}, has no separator (comma, semicolon, tab or |): it is neither JSON nor CSV"
        )
    return counts.most_common(1)[0][0]


def _records(text: str, separator: str) -> tuple[list[str], list[list[str]], list[int]]:
    csv.field_size_limit(sys.maxsize)  # a polygon of many corners is longer than the default, 131072 characters
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    records: list[list[str]] = []
    lines: list[int] = []
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                records.append(record)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise TextError(f"the file is not complete CSV, near line {reader.line_num}: {error}") from error
    if not records:
        raise TextError("the header is blank: expected the names of the columns in the first line")
    header = [cell.strip() for cell in records[0]]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise TextError(f"the columns {', '.join(map(repr, twice))} are given twice in the header")
    return header, records[1:], lines[1:]


def _build(header: list[str], records: list[list[str]], lines: list[int], options: FieldOptions) -> RawRows:
    geometry_key = next((key for key in GEOMETRY_KEYS if key in header), None)
    corners = corner_keys(header)
    if geometry_key is None and not corners:
        there = shown(", ".join(header), 200)
        raise TextError(f"no column holds a geometry: expected WKT in `geometry` or `wkt`; there are {there}")
    rows = len(records)
    raw = RawRows(
        filled(rows, None), filled(rows, field_crs(options.crs) if options.crs else LONLAT), False, empty_cells(rows),
        lambda row: properties[row], tuple(header), Report(rows, lines),
    )  # fmt: skip
    roles = roles_of(tuple(header), options.id_column)
    used = {name for names in roles.values() for name in names}
    used |= {geometry_key} if geometry_key is not None else set(corners.values())
    properties: list[dict[str, Any]] = [{}] * rows
    polygons = Polygons()
    for row, record in enumerate(records):
        if len(record) != len(header):
            raw.refuse_unread(row, "ragged_row", f"{len(record)} cells where the header names {len(header)} columns")
            continue
        cells = dict(zip(header, record, strict=True))
        for role, names in roles.items():
            _cell(raw, row, role, cells, names)
        properties[row] = {key: cell for key, cell in cells.items() if key not in used}
        _geometry(raw, row, cells, geometry_key, polygons)
    polygons.build(raw.geometry)
    return raw


def _cell(raw: RawRows, row: int, role: str, cells: dict[str, Any], names: tuple[str, ...]) -> None:
    try:
        raw.cells[role][row] = pick(cells, names)
    except ValueError as error:
        raw.cells[role][row] = REFUSED
        raw.report.refuse(row, f"ambiguous_{role}", f"two spellings of {NAMES[role]} disagree: {error}")


def _geometry(raw: RawRows, row: int, cells: dict[str, Any], key: str | None, polygons: Polygons) -> None:
    try:
        if key is None:
            ring = corner_ring(cells, texts=True)
            if ring is not None:
                polygons.add_rings(row, [[ring]])
            return
        raw.geometry[row], code, closed = read_wkt(cells[key])
        if code is not None:
            raw.crs[row] = field_crs(f"EPSG:{code}")
    except BadGeometryError as problem:
        raw.report.refuse(row, problem.rule, str(problem))
        return
    except CrsError as error:
        raw.report.refuse(row, "unknown_crs", str(error))
        return
    if closed:
        raw.report.note(row, "ring_closed", MENDED["ring_closed"])
