"""Rows from JSON: GeoJSON, an object with a `fields` list, a list of rows, and one row a line."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Any

from geofield.errors import CrsError
from geofield.fields.coordinates import KINDS, BadGeometryError, Polygons, corner_ring, read_wkt
from geofield.fields.crsnames import LONLAT, field_crs
from geofield.fields.jsontext import RepeatedKeys, TextError, check_marks, check_text, decode, parse, repeated_keys
from geofield.fields.names import GEOMETRY_KEYS, MISSING, NAMES, REFUSED, corner_keys, pick, roles_of, shown
from geofield.fields.options import FieldOptions
from geofield.fields.rawrows import MENDED, RawRows, empty_cells, filled
from geofield.fields.report import Report

LINES = (".jsonl", ".ndjson", ".geojsonl", ".geojsons", ".jsonlines")
_START = 1 << 16
_FEATURE = {"type", "id", "properties", "geometry", "bbox", "crs"}


@dataclass
class Line:
    """One line of JSON lines: a value, or why there is none."""

    number: int
    value: Any = None
    problem: str | None = None


@dataclass
class Document:
    """Rows of JSON, as parsed."""

    rows: list[Any]
    crs: Any = MISSING
    """The old `crs` member of a collection."""
    lines: list[Line] | None = None
    repeats: bool = False
    """Whether any object gives a key twice."""


def read_json(data: bytes, name: str, options: FieldOptions) -> RawRows:
    """Rows of a JSON file; `TextError` or `CrsError` when the file as a whole cannot be read."""
    document = read_document(data, name)
    return _Builder(document, options).build()


def read_document(data: bytes, name: str) -> Document:
    """The rows of a JSON text as dictionaries, whatever they hold."""
    if name.lower().endswith(LINES):
        return _lines(data)
    text = decode(data)
    check_text(text)
    if is_lines(text):
        return _lines(data)
    value, repeats = parse(text)
    return _document(value, repeats)


def is_lines(text: str) -> bool:
    """Whether the first line is a whole JSON object and something follows it."""
    first, _, others = text.strip().partition("\n")
    if not (first.lstrip().startswith("{") and first.rstrip().endswith("}") and others.strip()):
        return False
    try:
        parse(first)
    except TextError:
        return False
    return True


def read_lines(data: bytes) -> list[Line]:
    """The lines of a text that are not blank, each a value by itself; `TextError` for a file that has no such lines."""
    check_marks(data)
    check_text(
        data[:_START].decode("utf-8-sig", "replace") if data[:_START].strip() else data.decode("utf-8-sig", "replace")
    )
    numbered = enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1)
    return [_line(number, line) for number, line in numbered if line.strip()]


def _lines(data: bytes) -> Document:
    lines = read_lines(data)
    if len(lines) == 1 and _is_collection(lines[0].value):
        return _document(lines[0].value, bool(repeated_keys(lines[0].value)))
    return Document([line.value for line in lines], lines=lines, repeats=True)


def _line(number: int, data: bytes) -> Line:
    try:
        value, _ = parse(decode(data).strip())
    except TextError as error:
        what = str(error) if "UTF-8" in str(error) or "deep" in str(error) else f"line {number} is not complete JSON"
        return Line(number, problem=what)
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else shown(value)
        return Line(number, problem=f"line {number} is {kind}, not an object")
    return Line(number, value)


def _is_collection(value: Any) -> bool:
    return isinstance(value, dict) and (
        value.get("type") == "FeatureCollection" or isinstance(value.get("fields"), list)
    )


def _document(value: Any, repeats: bool) -> Document:
    if isinstance(value, list):
        return Document(value, repeats=repeats)
    if not isinstance(value, dict):
        raise TextError(f"the file is {shown(value)}: expected a FeatureCollection or an object with a `fields` list")
    if isinstance(value, RepeatedKeys) and value.get("type") != "Feature":
        raise TextError(f"{', '.join(map(repr, value.repeated))} given twice at the top of the file")
    kind = value.get("type")
    crs = value.get("crs", MISSING)
    for key in ("features",) if kind == "FeatureCollection" else ("fields", "features"):
        if isinstance(value.get(key), list):
            return Document(value[key], crs, repeats=repeats)
    if kind == "FeatureCollection":
        raise TextError(f"the FeatureCollection has no list of features: {shown(value.get('features', MISSING))}")
    if kind in KINDS and "geometry" not in value:
        raise TextError(f"the file holds a geometry ({kind}) without field id and planting date: make it a Feature")
    if kind == "Feature" or corner_keys(value) or any(key in value for key in GEOMETRY_KEYS):
        return Document([value], repeats=repeats)
    keys = shown(", ".join(map(str, value)))
    raise TextError(
        f"the JSON object holds no fields (its keys: {keys}): expected a FeatureCollection, a Feature or an object "
        "with a `fields` list"
    )


class _Builder:
    """Turns the dictionaries of a document into `RawRows`."""

    def __init__(self, document: Document, options: FieldOptions) -> None:
        self.document = document
        self.options = options
        rows = len(document.rows)
        lines = document.lines
        self.report = Report(rows, None if lines is None else [line.number for line in lines])
        self.properties: list[dict[str, Any]] = [{}] * rows
        self.polygons = Polygons()
        self.seen: dict[str, None] = {}
        crs, declared = self._document_crs()
        self.raw = RawRows(
            filled(rows, None),
            filled(rows, crs),
            declared,
            empty_cells(rows),
            self.properties.__getitem__,
            (),
            self.report,
        )

    def build(self) -> RawRows:
        """All rows, those refused already included."""
        for row, value in enumerate(self.document.rows):
            self._row(row, value)
            self.document.rows[row] = None  # the lists of coordinates are large; they are arrays by now
        self.polygons.build(self.raw.geometry)
        self.raw.columns = tuple(self.seen)
        return self.raw

    def _document_crs(self) -> tuple[str, bool]:
        """The CRS of all rows, and whether the file names it."""
        member = self.document.crs
        if member is MISSING or (member is None and self.options.crs is not None):
            return field_crs(self.options.crs or LONLAT), False
        crs = member_crs(member)
        if crs != LONLAT:
            self.report.note(None, "crs_member", f"read in {crs}, which the file's old `crs` member declares")
        return crs, True

    def _row(self, row: int, value: Any) -> None:
        problem = None if self.document.lines is None else self.document.lines[row].problem
        if problem is None and not isinstance(value, dict):
            problem = f"{shown(value)} is not an object"
        if problem is not None:
            self.raw.refuse_unread(row, "not_an_object" if "not an object" in problem else "not_json", problem)
            return
        if self.document.repeats and self._refuse_repeats(row, value):
            return
        if value.get("type") == "Feature":
            self._feature(row, value)
        else:
            self._flat(row, value)

    def _refuse_repeats(self, row: int, value: Any) -> bool:
        repeated = repeated_keys(value)
        for key, (first, last) in repeated.items():
            self.raw.refuse_unread(row, "key_given_twice", f"{key} is given twice: {shown(first)} and {shown(last)}")
        return bool(repeated)

    def _feature(self, row: int, feature: dict[str, Any]) -> None:
        properties = feature.get("properties")
        if properties is None:
            properties = {}
        if not isinstance(properties, dict):
            self.raw.refuse_unread(row, "bad_properties", f"the properties are {shown(properties)}, not an object")
            return
        for key in feature.keys() - _FEATURE - properties.keys():
            properties = {**properties, key: feature[key]}
        self._properties(row, properties, feature.get("id"))
        self._crs_member(row, feature)
        self._geometry(row, feature.get("geometry"))

    def _flat(self, row: int, value: dict[str, Any]) -> None:
        self._crs_member(row, value)
        key = next((key for key in GEOMETRY_KEYS if key in value), None)
        if key is not None:
            self._properties(row, {name: item for name, item in value.items() if name != key}, None)
            self._geometry(row, value[key])
            return
        corners = corner_keys(value)
        used = set(corners.values())
        self._properties(row, {name: item for name, item in value.items() if name not in used}, None)
        try:
            ring = corner_ring(value)
        except BadGeometryError as problem:
            self.report.refuse(row, problem.rule, str(problem))
            return
        if ring is None:
            self.report.refuse(row, "no_geometry", "no geometry")
        else:
            self.polygons.add_rings(row, [[ring]])

    def _properties(self, row: int, properties: dict[str, Any], top_level_id: Any) -> None:
        keys = tuple(properties)
        self.seen.update(dict.fromkeys(keys))
        roles = roles_of(keys, self.options.id_column)
        for role, names in roles.items():
            try:
                self.raw.cells[role][row] = pick(properties, names)
            except ValueError as error:
                self.raw.cells[role][row] = REFUSED
                self.report.refuse(row, f"ambiguous_{role}", f"two spellings of {NAMES[role]} disagree: {error}")
        if "id" not in roles and top_level_id is not None and self.options.id_column in (None, "id"):
            self.raw.cells["id"][row] = top_level_id
            self.report.note(row, "top_level_id", "the top-level id of the feature is used as its field id")
        used = {name for names in roles.values() for name in names}
        self.properties[row] = {key: value for key, value in properties.items() if key not in used}

    def _geometry(self, row: int, geometry: Any) -> None:
        try:
            if geometry is None:
                raise BadGeometryError("no_geometry", "no geometry")
            if isinstance(geometry, str):
                self._wkt(row, geometry)
                return
            if isinstance(geometry, dict):
                self._crs_member(row, geometry)
            for kind in self.polygons.add(row, geometry):
                self.report.note(row, kind, MENDED[kind])
        except BadGeometryError as problem:
            self.report.refuse(row, problem.rule, str(problem))

    def _wkt(self, row: int, text: str) -> None:
        self.raw.geometry[row], code, closed = read_wkt(text)
        if closed:
            self.report.note(row, "ring_closed", MENDED["ring_closed"])
        if code is not None:
            self._row_crs(row, f"EPSG:{code}")

    def _crs_member(self, row: int, holder: dict[str, Any]) -> None:
        """The `crs` member that GeoJSON of 2008 allowed on features and geometries too."""
        if holder.get("crs") is not None:
            self._row_crs(row, _member_name(holder["crs"]))

    def _row_crs(self, row: int, name: str) -> None:
        try:
            self.raw.crs[row] = field_crs(name)
        except CrsError as error:
            self.report.refuse(row, "unknown_crs", str(error))


def member_crs(member: Any) -> str:
    """The name of the CRS in the old `crs` member of a collection; `CrsError` when it is null or unknown."""
    if member is None:
        raise CrsError("the file says that its CRS is unknown (crs: null). Name it with --crs")
    return field_crs(_member_name(member))


def _member_name(member: Any) -> str:
    """The name in an old `crs` member; the member itself, for the message, when there is none."""
    properties = member.get("properties") if isinstance(member, dict) else None
    if isinstance(properties, dict):
        if isinstance(properties.get("name"), str):
            return str(properties["name"])
        if isinstance(properties.get("code"), int):
            return f"EPSG:{properties['code']}"
    return str(member)
