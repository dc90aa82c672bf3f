"""Bounds of scenes, in the CRS that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from geofield.grid import parse_crs
from geofield.projection import project_bounds

Bounds = tuple[float, float, float, float]


@lru_cache(maxsize=10_000)
def projected(bounds: Bounds, source: str, target: str) -> Bounds:
    """Bounds from one CRS in another; scenes of one tile have the same."""
    return project_bounds(bounds, parse_crs(source), parse_crs(target))


def union(bounds: Sequence[Bounds]) -> Bounds:
    """The smallest bounds around all."""
    xmin, ymin, xmax, ymax = zip(*bounds, strict=True)
    return min(xmin), min(ymin), max(xmax), max(ymax)
