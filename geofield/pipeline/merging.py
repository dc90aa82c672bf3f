"""The scenes of one day: which of them a pixel is taken from, and what a scene lacks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from geofield.boxes import Box
from geofield.recipe.variables import needed_bands
from geofield.source.protocol import Acquisition

_PROPERTIES = {
    "least_cloud": ("eo:cloud_cover",),
    "nearest_nadir": ("view:off_nadir", "view:incidence_angle"),
}
"""Rule -> what an acquisition is put in its place by, the first that it has; the lowest number goes first."""
MISSING_BANDS = "missing_bands"


def prepared(box: Box, one: Acquisition, offered: Sequence[str]) -> Acquisition:
    """An acquisition as a box takes it.

    Of the bands that it lacks those are kept that the box needs; where its place among others follows from what its
    catalogue says of it, that is part of its version.
    """
    lacking = set(one.properties.get(MISSING_BANDS, ()))
    needed = [name for name in needed_bands(box.variables, offered) if name in lacking]
    properties = {name: value for name, value in one.properties.items() if name != MISSING_BANDS}
    version = one.version
    if box.merge in _PROPERTIES:
        version = f"{version} {box.merge} {_place(box.merge, one)}"
    return replace(one, version=version, properties=properties | ({MISSING_BANDS: needed} if needed else {}))


def is_counted(box: Box) -> bool:
    """Whether the order of merging follows from how many pixels are valid, which is known only after reading them."""
    return box.merge == "most_valid"


def fixed_order(box: Box, acquisitions: Sequence[Acquisition]) -> dict[str, tuple[str, ...]]:
    """variable -> acquisition ids in the order in which they are merged; what says nothing goes last, then time."""

    def key(one: Acquisition) -> tuple[bool, float]:
        place = _place(box.merge, one) if box.merge in _PROPERTIES else 0.0
        return place is None, place or 0.0

    ordered = tuple(one.id for one in sorted(acquisitions, key=key))
    return dict.fromkeys(box.variables, ordered)


def lacking(acquisitions: Iterable[Acquisition]) -> list[str]:
    """What is said of acquisitions that lack a band."""
    return [
        f"{one.id} of {one.time:%Y-%m-%d} lacks {', '.join(one.properties[MISSING_BANDS])}: no value from it"
        for one in acquisitions
        if one.properties.get(MISSING_BANDS)
    ]


def _place(rule: str, one: Acquisition) -> float | None:
    said: list[Any] = [one.properties.get(name) for name in _PROPERTIES[rule]]
    numbers = [float(value) for value in said if isinstance(value, int | float) and not isinstance(value, bool)]
    return next(iter(numbers), None)
