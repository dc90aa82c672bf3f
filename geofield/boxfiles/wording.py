"""What is wrong with the settings of a box, in words for people who never heard of the checker."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from geofield.boxes import Box, GridSpec, Variable
from geofield.fields.names import shown

_HAS_TO_BE = {
    "float_parsing": "a number",
    "float_type": "a number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "finite_number": "a finite number",
}
_INNER = ("float", "int", "tuple", "list", "function", "[key]")


def faults(error: ValidationError) -> list[str]:
    """Each fault once: which key, its value, and what it has to be."""
    found: dict[str, str] = {}
    for one in error.errors(include_url=False):
        where = ".".join(str(part) for part in one["loc"] if not str(part).startswith(_INNER))
        found.setdefault(where, _fault(where, one))
    return list(found.values())


def _fault(where: str, one: Any) -> str:
    kind, value, context = one["type"], one["input"], one.get("ctx", {})
    if kind == "value_error":
        return str(context["error"]).rstrip(".")
    if kind == "json_invalid":
        return f"it is not complete JSON ({context['error']})"
    where = where or "it"
    if kind == "extra_forbidden":
        return f"{where} is no key of a box; there are {_keys(where)}"
    if kind == "missing":
        return f"{where} is missing"
    if kind == "literal_error":
        return f"{where} is {shown(value)}: it has to be {context['expected']}"
    if kind in _HAS_TO_BE:
        return f"{where} is {shown(value)}: it has to be {_HAS_TO_BE[kind]}"
    text = one["msg"].replace("Input should be", "it has to be")
    return f"{where} is {shown(value)}: {text[:1].lower()}{text[1:]}"


def _keys(where: str) -> str:
    model: type[BaseModel] = (
        GridSpec if where.startswith("grid.") else Variable if where.startswith("variables.") else Box
    )
    return ", ".join(model.model_fields)
