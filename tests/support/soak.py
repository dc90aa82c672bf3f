"""How much of a long search a run takes: `GEOFIELD_SOAK` is 0 or unset for the tests of every day."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

SOAK = int(os.environ.get("GEOFIELD_SOAK", "0"))


def rounds(ordinary: int, each: int) -> int:
    """`ordinary`, or `each` times GEOFIELD_SOAK."""
    return each * SOAK or ordinary


def some(items: Sequence[Item], ordinary: int) -> list[Item]:
    """All items in a long search, else about so many, evenly spread, the first and the last among them."""
    if SOAK or len(items) <= ordinary:
        return list(items)
    step = (len(items) - 1) / (ordinary - 1)
    return [items[round(number * step)] for number in range(ordinary)]
