"""What the days of a box are made of, before any pixel is read: acquisitions by day, and the digest of each tile."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from odc.geo.geom import BoundingBox

from geofield.boxes import Box
from geofield.cube.cube import to_day
from geofield.grid import Grid, parse_crs
from geofield.pipeline.merging import prepared
from geofield.projection import project_bounds
from geofield.recipe.digest import recipe_digest, tile_digest
from geofield.recipe.variables import needed_bands
from geofield.source.protocol import Acquisition, Source

_BYTES = 2  # of a pixel: imagery comes as 16 bit integers as a rule


@dataclass(frozen=True)
class DayInputs:
    """One day of a box: its acquisitions by time, and the tiles' digests.

    Attributes
    ----------
    digests
        (tile_y, tile_x) uint64.
    tiles
        (tile_y, tile_x) -> the acquisitions whose footprint has area in common with the tile.
    """

    date: dt.date
    acquisitions: tuple[Acquisition, ...]
    digests: npt.NDArray[np.uint64]
    tiles: Mapping[tuple[int, int], tuple[Acquisition, ...]]

    @property
    def day(self) -> int:
        """Days since 1970-01-01."""
        return to_day(self.date)

    @property
    def acquired(self) -> bool:
        """Whether some acquisition came."""
        return bool(self.acquisitions)


def day_inputs(
    box: Box, grid: Grid, source: Source, dates: Sequence[dt.date], before: npt.NDArray[np.uint64] | None
) -> list[DayInputs]:
    """Search the catalogue for consecutive days.

    Parameters
    ----------
    before
        (tile_y, tile_x) digests of the day before the first; None when that is the box's start.
    """
    found = acquisitions_by_day(box, grid, source, dates)
    recipe = recipe_digest(box, grid)
    stateful = any(variable.state for variable in box.variables.values())
    # once for all days, and not for days without imagery: it takes longer than all digests
    bounds = {tile: grid.window_geobox(grid.tile_window(*tile)).boundingbox for tile in grid.tiles() if found}
    result = []
    for date in dates:
        acquisitions = tuple(found.get(date, ()))
        tiles = {tile: tuple(_touching(acquisitions, bounds[tile])) if acquisitions else () for tile in grid.tiles()}
        digests = np.empty(grid.tiles_shape, dtype=np.uint64)
        for tile, touching in tiles.items():
            items = [(one.id, one.version) for one in touching]
            earlier = int(before[tile]) if stateful and before is not None else None
            digests[tile] = tile_digest(recipe, bool(acquisitions), items, earlier)
        result.append(DayInputs(date, acquisitions, digests, tiles))
        before = digests
    return result


def acquisitions_by_day(
    box: Box, grid: Grid, source: Source, dates: Sequence[dt.date]
) -> dict[dt.date, list[Acquisition]]:
    """The acquisitions of some days, by the box's own rule for what a day is."""
    margin = dt.timedelta(days=1 if box.day == "solar" else 0)
    shift = dt.timedelta(hours=_longitude(grid) / 15) if box.day == "solar" else dt.timedelta()
    wanted = set(dates)
    offered = source.bands()
    result: dict[dt.date, list[Acquisition]] = {}
    for one in sorted(source.search(grid, min(dates) - margin, max(dates) + margin), key=lambda a: (a.time, a.id)):
        date = (one.time.astimezone(dt.UTC) + shift).date()
        if date in wanted:
            result.setdefault(date, []).append(prepared(box, one, offered))
    return result


def catalogue_digest(box: Box, source: Source, start: dt.date, end: dt.date) -> str:
    """What a source offers for some days, as one short text: the same text, the same digests of tiles.

    A catalogue search; no pixel is read.
    """
    if start > end:
        return ""
    dates = [start + dt.timedelta(days=number) for number in range((end - start).days + 1)]
    found = acquisitions_by_day(box, box.resolved, source, dates)
    told = [(str(date), one.id, one.version, one.footprint) for date in dates for one in found.get(date, ())]
    return hashlib.blake2b(repr(told).encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Offer:
    """What a source offers for some days, by its catalogue alone.

    Attributes
    ----------
    items, days
        Scenes; days that have any.
    cloud_cover
        (least, mean, most) per cent of the whole scenes, as far as their catalogue says; None: it says nothing.
    source_bytes
        To be read, at most: the pixels of the box that lie within the scenes, in every band, 2 bytes each.
    """

    items: int
    days: int
    cloud_cover: tuple[float, float, float] | None
    source_bytes: int


def offer(box: Box, source: Source, start: dt.date, end: dt.date) -> Offer:
    """What a source offers for some days. A catalogue search; no pixel is read."""
    dates = [start + dt.timedelta(days=number) for number in range((end - start).days + 1)]
    found = acquisitions_by_day(box, box.resolved, source, dates)
    every = [one for date in dates for one in found.get(date, ())]
    said = [one.properties.get("eo:cloud_cover") for one in every]
    covers = [float(value) for value in said if isinstance(value, int | float)]
    bands = len(needed_bands(box.variables, source.bands()))
    return Offer(
        len(every),
        len(found),
        (min(covers), sum(covers) / len(covers), max(covers)) if covers else None,
        sum(_pixels_within(one, box.resolved) for one in every) * bands * _BYTES,
    )


def _pixels_within(one: Acquisition, grid: Grid) -> int:
    if one.footprint is None:
        return grid.shape[0] * grid.shape[1]
    xmin, ymin, xmax, ymax = grid.bounds
    wide = min(one.footprint[2], xmax) - max(one.footprint[0], xmin)
    high = min(one.footprint[3], ymax) - max(one.footprint[1], ymin)
    step = grid.geobox.resolution
    return max(0, round(wide / abs(step.x))) * max(0, round(high / abs(step.y)))


def _touching(acquisitions: Sequence[Acquisition], box: BoundingBox) -> Iterator[Acquisition]:
    """Those whose footprint has area in common with it."""
    for one in acquisitions:
        if one.footprint is None:
            yield one
            continue
        xmin, ymin, xmax, ymax = one.footprint
        if xmin < box.right and xmax > box.left and ymin < box.top and ymax > box.bottom:
            yield one


def _longitude(grid: Grid) -> float:
    west, _, east, _ = project_bounds(grid.bounds, grid.crs, parse_crs("EPSG:4326"))
    return (west + east) / 2
