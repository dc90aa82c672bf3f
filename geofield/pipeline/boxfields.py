"""The fields of one box, made ready once: when each has rows, its weights on the grid, the tiles that it touches."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from geofield.boxes import Box
from geofield.fields import field_geometries
from geofield.grid import BLOCK, Grid
from geofield.recipe.digest import row_digest
from geofield.reduce.coverage import Coverage, coverage
from geofield.reduce.weights import WeightStore, polygon_keys
from geofield.results.rows import FieldColumns

_TOLERANCE = 1e-3  # of a pixel: how far a projected edge may lie from the true one


@dataclass(frozen=True)
class BoxFields:
    """A box and the current versions of its fields.

    Attributes
    ----------
    box, grid
        The box, and its resolved grid.
    columns
        Ids, versions, planting dates (the box's start where the field says so), covered share.
    first, last
        (field,) datetime64[D], first and last day with a row; NaT: no last day.
    cover
        The weights of the fields on the grid.
    """

    box: Box
    grid: Grid
    columns: FieldColumns
    first: npt.NDArray[np.datetime64]
    last: npt.NDArray[np.datetime64]
    cover: Coverage

    def __len__(self) -> int:
        return len(self.columns.ids)

    def active(self, dates: Sequence[dt.date]) -> npt.NDArray[np.bool_]:
        """(time, field) whether a field has a row on a day."""
        days = np.array(dates, dtype="datetime64[D]")[:, None]
        return np.asarray((days >= self.first) & (np.isnat(self.last) | (days <= self.last)), dtype=np.bool_)

    def take(self, numbers: npt.NDArray[np.int64]) -> BoxFields:
        """Some of the fields."""
        columns = FieldColumns(
            [self.columns.ids[i] for i in numbers],
            [self.columns.versions[i] for i in numbers],
            [self.columns.planted[i] for i in numbers],
            self.columns.covered[numbers],
        )
        return BoxFields(
            self.box, self.grid, columns, self.first[numbers], self.last[numbers], self.cover.take(numbers)
        )

    @cached_property
    def tiles(self) -> list[tuple[int, ...]]:
        """For each field the tiles that it touches, numbered row-major."""
        blocks_wide = -(-self.grid.shape[1] // BLOCK)
        step = self.grid.tile // BLOCK
        tiles_wide = self.grid.tiles_shape[1]
        rows, columns = np.divmod(self.cover.segment_block, blocks_wide)
        tile = rows // step * tiles_wide + columns // step
        start = self.cover.start
        return [tuple(np.unique(tile[start[i] : start[i + 1]]).tolist()) for i in range(len(self))]

    def digests(self, tile_digests: npt.NDArray[np.uint64]) -> npt.NDArray[np.object_]:
        """(time, field) text: what a row of that day was made from.

        Parameters
        ----------
        tile_digests
            (time, tile_y, tile_x).
        """
        flat = tile_digests.reshape(len(tile_digests), -1)
        stats = {name: variable.stats for name, variable in self.box.variables.items()}
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, tiles in enumerate(self.tiles):
            groups.setdefault(tiles, []).append(number)
        result = np.empty((len(flat), len(self)), dtype=object)
        for tiles, numbers in groups.items():
            chosen = flat[:, list(tiles)]
            result[:, numbers] = np.array([row_digest(row.tolist(), stats) for row in chosen], dtype=object)[:, None]
        return result


def box_fields(box: Box, table: pd.DataFrame, kept: WeightStore | None = None) -> BoxFields:
    """Make the fields of a box ready.

    Parameters
    ----------
    table
        Current versions of the fields that have area inside the box: columns as the store keeps them.
    kept
        Where weights are kept; without it they are computed. The bits are the same.
    """
    grid = box.resolved
    ordered = table.sort_values("field_id").reset_index(drop=True)
    pixel = min(abs(grid.geobox.resolution.x), abs(grid.geobox.resolution.y))
    shapes = field_geometries(ordered, grid.crs, _TOLERANCE * pixel)
    if kept is None:
        cover = coverage(shapes, grid.geobox)
    else:
        cover = kept.coverage(shapes, polygon_keys(ordered["geometry"], ordered["crs"]), grid.geobox)
    planted = [box.start if value is None or pd.isna(value) else value for value in ordered["planting_date"]]
    first = np.maximum(np.array(planted, dtype="datetime64[D]"), np.datetime64(box.start, "D"))
    last = np.array([None if pd.isna(value) else value for value in ordered["harvest_date"]], dtype="datetime64[D]")
    columns = FieldColumns(ordered["field_id"].tolist(), ordered["version"].tolist(), planted, cover.covered)
    return BoxFields(box, grid, columns, first, last, cover)
