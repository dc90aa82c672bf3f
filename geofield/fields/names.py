"""Which property of a row is which: the known spellings, in order of precedence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Final


class NoValue(Enum):
    """What stands in a cell that has no value (null is one)."""

    MISSING = "missing"
    REFUSED = "refused"


MISSING: Final = NoValue.MISSING
"""The row has no such property at all."""
REFUSED: Final = NoValue.REFUSED
"""The row is refused already for what it has there."""

GEOMETRY_KEYS = ("geometry", "geom", "the_geom", "wkt", "WKT", "GEOMETRY", "wkt_geom", "WKT_GEOM")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
SHAPEFILE_NAME = 10
"""A shapefile cuts names to this many characters."""


def _spellings(*names: str) -> frozenset[str]:
    """snake_case, kebab-case, camelCase and UPPER_CASE of snake_case names, and each cut as in a shapefile."""
    found = set()
    for name in names:
        first, *others = name.split("_")
        found |= {name, name.replace("_", "-"), first + "".join(word.title() for word in others), name.upper()}
    return frozenset(found | {spelling[:SHAPEFILE_NAME] for spelling in found})


TIERS: Mapping[str, tuple[frozenset[str], ...]] = {
    "id": (_spellings("field_id"), _spellings("object_id"), _spellings("id")),
    "planting_date": (_spellings("planting_date", "plant_date"),),
    "harvest_date": (_spellings("harvest_date"),),
    "crop": (
        _spellings("crop"),
        _spellings("crop_type"),
        _spellings("plant_type"),
        frozenset({"crop:name", "crop_name"}),
    ),
    "box": (_spellings("box_id"), _spellings("bbox_id")),
    "arrival": (_spellings("arrival_time"),),
}
"""Role -> tiers; of the first tier that a row has, the property is taken, the others stay what they are."""

NAMES = {
    "id": "field id",
    "planting_date": "planting_date",
    "harvest_date": "harvest_date",
    "crop": "crop",
    "box": "box_id",
    "arrival": "arrival_time",
}


@lru_cache(maxsize=4096)
def roles_of(keys: tuple[str, ...], id_column: str | None) -> dict[str, tuple[str, ...]]:
    """Role -> the keys that play it; more than one key is ambiguous unless their values agree."""
    roles = {}
    for role, tiers in TIERS.items():
        if role == "id" and id_column is not None:
            found: tuple[str, ...] = (id_column,) if id_column in keys else ()
        else:
            found = next((hits for tier in tiers if (hits := tuple(key for key in keys if key in tier))), ())
        if found:
            roles[role] = found
    return roles


def pick(row: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The value under the keys of a role; `ValueError` when spellings disagree."""
    value = row[keys[0]]
    for key in keys[1:]:
        if row[key] != value:
            raise ValueError(f"{keys[0]!r} is {shown(value)} and {key!r} is {shown(row[key])}: which of them holds?")
    return value


def corner_keys(keys: Iterable[str]) -> dict[str, str]:
    """Corner -> key, for every spelling: xmin, x_min, coordinatesXMin, coordinates_x_min, ..."""
    found: dict[str, str] = {}
    for key in keys:
        squashed = squash(key).removeprefix("coordinates")
        if squashed in CORNERS:
            found.setdefault(squashed, key)
    return found


def near_misses(role: str, keys: Iterable[str]) -> list[str]:
    """Keys that look like the role but are no known spelling."""
    known = {squash(name) for tier in TIERS[role] for name in tier}
    return [key for key in keys if squash(key) in known and not any(key in tier for tier in TIERS[role])]


def squash(key: str) -> str:
    """Letters and digits of a key, in lower case."""
    return re.sub(r"[\W_]+", "", key).lower()


def shown(value: Any, limit: int = 60) -> str:
    """A value for a message, short, on one line."""
    text = repr(value) if isinstance(value, str) else "null" if value is None else str(value)
    if isinstance(value, bool):
        text = text.lower()
    return text if len(text) <= limit else text[: limit - 3] + "..."
