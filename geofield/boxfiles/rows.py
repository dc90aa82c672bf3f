"""The boxes of a file as mappings in the keys of a box file, whatever the format."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from geofield.boxes import MERGE_RULES
from geofield.boxfiles.making import ID_KEYS, SETTINGS
from geofield.fields.coordinates import KINDS
from geofield.fields.jsonrows import LINES, is_lines, member_crs, read_lines
from geofield.fields.jsontext import TextError, check_text, decode, parse, repeated_keys
from geofield.fields.names import MISSING, corner_keys, roles_of, shown

YAML = (".yaml", ".yml")
_FEATURE = {"type", "id", "properties", "geometry", "bbox", "crs"}
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "source": Mapping,
    "variables": Mapping,
    "grid": (Mapping, str),
    "start": (str, dt.date),
    "settle_days": int,
    "crs": str,
}


@dataclass
class Row:
    """One box of a file: its settings, or why there are none."""

    values: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    ignored: list[str] = field(default_factory=list)
    """Properties that mean nothing for a box."""
    notes: list[str] = field(default_factory=list)
    place: str = ""
    """Where it stands, for messages."""


def read_rows(data: bytes, name: str) -> list[Row]:
    """The boxes of a file; `TextError` or `CrsError` when nothing of it can be read."""
    if name.lower().endswith(LINES):
        return _lines(data)
    text = decode(data)
    check_text(text)
    start = text.lstrip()
    if name.lower().endswith(YAML) or not start.startswith(("{", "[")):
        if start.startswith("<"):
            raise TextError("the file is XML: a file of boxes is YAML, JSON, GeoJSON or JSON lines")
        return _documents([value for value in _yaml(text) if value is not None])
    if is_lines(text):
        return _lines(data)
    return _documents([parse(text)[0]])


def _lines(data: bytes) -> list[Row]:
    rows = []
    for line in read_lines(data):
        row = Row(problem=line.problem) if line.problem is not None else _loose(line.value)
        row.place = f" (line {line.number})"
        rows.append(row)
    return rows


def _documents(values: list[Any]) -> list[Row]:
    rows = []
    for value in values:
        rows.extend(_document(value))
    return rows


def _document(value: Any) -> list[Row]:
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if not isinstance(value, dict):
        raise TextError(f"the file is {shown(value)}: expected a mapping with `id`, `bbox`, `start`, ...")
    kind = value.get("type")
    if kind == "FeatureCollection":
        features = value.get("features")
        if not isinstance(features, list):
            raise TextError(f"the FeatureCollection has no list of features: {shown(features)}")
        crs = value.get("crs", MISSING)
        return [_loose(feature, None if crs is MISSING else member_crs(crs)) for feature in features]
    if kind == "Feature":
        crs = value.get("crs", MISSING)
        return [_loose(value, None if crs is MISSING else member_crs(crs))]
    if kind in KINDS and "geometry" not in value and "bbox" not in value:
        return [Row({"geometry": value})]
    if isinstance(value.get("boxes"), list) and len(value) == 1:
        return [_strict(item) for item in value["boxes"]]
    return [_strict(value)]


def _strict(value: Any) -> Row:
    """A row of a file that was written as a box file: an unknown key is a typo."""
    if not isinstance(value, dict):
        return Row(problem=f"{shown(value)} is not a mapping")
    if value.get("type") == "Feature":
        return _loose(value)
    repeated = _repeated(value)
    if repeated is not None:
        return Row(problem=repeated)
    unknown = [str(key) for key in _unknown(value)]
    if unknown:
        known = ", ".join(("id", *SETTINGS))
        problem = (
            f"{', '.join(map(repr, unknown))} {'is' if len(unknown) == 1 else 'are'} no key of a box; there are {known}"
        )
        return Row({key: value[key] for key in ID_KEYS if key in value}, problem)
    return Row(value)


def _loose(value: Any, crs: str | None = None) -> Row:
    """A row of data from elsewhere: a GeoJSON feature, or an object a line; unknown properties are other things."""
    if not isinstance(value, dict):
        return Row(problem=f"{shown(value)} is not an object")
    repeated = _repeated(value)
    if repeated is not None:
        return Row(problem=repeated)
    if value.get("type") == "Feature":
        properties = value.get("properties") or {}
        if not isinstance(properties, dict):
            return Row(problem=f"the properties are {shown(properties)}, not an object")
        row = _picked({**properties, **{key: value[key] for key in value.keys() - _FEATURE}})
        row.values["geometry"] = value.get("geometry")
        if crs is not None:
            row.values.setdefault("crs", crs)
        if value.get("geometry") is None and "bbox" in value:
            row.values["bbox"] = value["bbox"]
        if not any(key in row.values for key in ID_KEYS) and value.get("id") is not None:
            row.values["id"] = value["id"]
            row.notes.append("the top-level id of the feature is used as its id")
    else:
        row = _picked(value)
    if _is_field(value.get("properties") if value.get("type") == "Feature" else value):
        row.problem = "this is a field, not a box: it has a planting date. Submit the file with --as fields"
    return row


def _is_field(properties: Any) -> bool:
    """Whether a row's properties are those of a field."""
    return isinstance(properties, dict) and "planting_date" in roles_of(tuple(properties), None)


def _picked(properties: dict[str, Any]) -> Row:
    unknown = set(_unknown(properties))
    odd = {key for key, kind in _KINDS.items() if key in properties and not isinstance(properties[key], kind)}
    if properties.get("day") not in ("utc", "solar"):
        odd.add("day")
    if properties.get("merge") not in MERGE_RULES:
        odd.add("merge")
    ignored = [key for key in properties if key in unknown or key in odd]
    return Row({key: value for key, value in properties.items() if key not in ignored}, ignored=ignored)


def _unknown(values: Mapping[str, Any]) -> list[str]:
    corners = set(corner_keys(str(key) for key in values).values())
    return [key for key in values if key not in (*ID_KEYS, *SETTINGS, "geometry") and str(key) not in corners]


def _repeated(value: dict[str, Any]) -> str | None:
    repeated = repeated_keys(value)
    said = [f"{key} is given twice: {shown(first)} and {shown(last)}" for key, (first, last) in repeated.items()]
    return "; ".join(said) or None


class _Loader(yaml.SafeLoader):
    """YAML without a risk, aliases (they can grow without end), and without a trap, a key that is given twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise TextError(f"line {mark.line + 1}: anchors and aliases (& and *) are not read; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise TextError(f"line {key.start_mark.line + 1}: {key.value!r} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep=True)


def _yaml(text: str) -> list[Any]:
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except TextError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise TextError(f"{where}not YAML ({error.problem or error.context})") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise TextError(f"not YAML ({error})") from error
    except RecursionError as error:
        raise TextError("the file is nested too deeply") from error
