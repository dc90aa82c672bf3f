"""What a tile of a day was made from, as one number: equal digests mean equal inputs, so nothing has to be redone.

No pixel is read for it, and the version of the code is not part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from geofield.boxes import Box
from geofield.grid import Grid
from geofield.recipe.state import noise


def recipe_digest(box: Box, grid: Grid) -> bytes:
    """16 bytes over the pixels' positions and all that turns bands into variables; the tile size is not part of it."""
    pixels = {name: value for name, value in grid.to_dict().items() if name != "tile"}
    variables = {
        name: {
            **variable.model_dump(mode="json", exclude={"stats", "q", "r"}),
            "noise": noise(variable) if variable.state else None,
        }
        for name, variable in box.variables.items()
    }
    merge = {} if box.merge == "most_valid" else {"merge": box.merge}
    return _hash(16, {"pixels": pixels, "variables": variables, "day": box.day, **merge})


def tile_digest(recipe: bytes, acquired: bool, items: Iterable[tuple[str, str]], before: int | None) -> int:
    """uint64, never 0.

    Parameters
    ----------
    recipe
        `recipe_digest` of the box.
    acquired
        Whether imagery came for the box that day: rows tell a cloud from a day without imagery.
    items
        (id, version) of the acquisitions that touch the tile that day, in any order.
    before
        The tile's digest of the day before when a variable has state and there is such a day, else None.
    """
    parts = {
        "recipe": recipe.hex(),
        "acquired": acquired,
        "items": sorted([list(item) for item in items]),
        "before": before,
    }
    return int.from_bytes(_hash(8, parts), "big") or 1


def row_digest(tiles: Iterable[int], stats: Mapping[str, Iterable[str]]) -> str:
    """16 hex digits over the set of tile digests that a field touches on a day and the statistics that were asked for.

    A set, so that the tile size does not matter where the acquisitions cover the whole box.
    """
    parts = {"tiles": sorted(set(tiles)), "stats": {name: list(names) for name, names in stats.items()}}
    return _hash(8, parts).hex()


def _hash(size: int, value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=size).digest()
