"""How much of each pixel each field covers: exact, sparse, computed once on the grid of the whole box. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from geofield.errors import GridError, InputError
from geofield.grid import BLOCK, EDGE_TOLERANCE, Window, bounds_of, crs_of
from geofield.projection import same_crs
from geofield.reduce import kernels
from geofield.reduce.centres import centre_runs
from geofield.reduce.exact import exact_runs
from geofield.reduce.runs import Ints, Places, Runs, Weights, blocks_of, expand, expand_weights, picked_weights, ranges
from geofield.reduce.shapes import covered_shares, field_ids, projected_shapes

Rule = Literal["exact", "centre"]


@dataclass(frozen=True, eq=False)
class Coverage:
    """Sparse weights of fields on a grid.

    Pixels are sorted by field, then by block (blocks of `BLOCK` x `BLOCK` pixels from the grid's upper left corner,
    row-major), then row-major. The pixels of one field in one block are a segment; neighbours in a row of a segment are
    a run (`geofield.reduce.runs`).
    """

    geobox: GeoBox
    """The grid of the whole box, also when only a part is held."""
    ids: npt.NDArray[Any]
    """(field,) names of the fields, as they were given."""
    covered: npt.NDArray[np.float64]
    """(field,) share of the field's area inside the grid; exactly 1 when it is wholly inside."""
    total: npt.NDArray[np.float64]
    """(field,) sum of the field's weights on the whole grid: `count` when every pixel is valid."""
    start: Ints
    """(field + 1,) first segment of each field."""
    segment_block: Ints
    """(segment,) number of the block, row-major."""
    segment_run: Ints
    """(segment + 1,) first run of each segment."""
    segment_start: Ints
    """(segment + 1,) first pixel of each segment."""
    run_row: Places
    """(run,) row on the whole grid."""
    run_col: Places
    """(run,) first column on the whole grid."""
    run_length: Places
    """(run,) number of pixels, side by side."""
    run_weight: Ints
    """(run,) where its weights begin in `weights`; -1 where every pixel is wholly covered."""
    weights: Weights
    """Shares, above 0 to 1, of the pixels of the other runs."""
    number: Ints
    """(segment,) the segment's number in the coverage of the whole grid."""
    parts: Ints
    """(field,) segments of the field on the whole grid."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the whole grid."""
        return self.geobox.shape.y, self.geobox.shape.x

    @property
    def pixels(self) -> int:
        """How many pixels are held, of all fields together."""
        return int(self.segment_start[-1])

    @property
    def places(self) -> tuple[Places, Places]:
        """(pixel,) row and column on the whole grid, made from the runs."""
        row, col = expand(self.run_row, self.run_col, self.run_length)
        return row, col

    @property
    def row(self) -> Places:
        """(pixel,) row on the whole grid, made from the runs."""
        return self.places[0]

    @property
    def col(self) -> Places:
        """(pixel,) column on the whole grid, made from the runs."""
        return self.places[1]

    @property
    def weight(self) -> npt.NDArray[np.float64]:
        """(pixel,) share of the pixel that the field covers, above 0 to 1, made from the runs."""
        return np.asarray(expand_weights(self.run_length, self.run_weight, self.weights))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        held = (getattr(self, one.name) for one in fields(self))
        return sum(value.nbytes for value in held if isinstance(value, np.ndarray))

    @property
    def is_whole(self) -> bool:
        """Whether it holds every pixel of its fields, not only those in a window."""
        return len(self.number) == int(self.parts.sum())

    @property
    def held(self) -> npt.NDArray[np.bool_]:
        """(field,) whether all pixels of the field are here; also for a field that has none."""
        return np.asarray(np.diff(self.start) == self.parts)

    def take(self, numbers: npt.ArrayLike) -> Coverage:
        """The coverage of some fields, by number, in the order asked for.

        Raises
        ------
        InputError
            Only a window is held: take the fields first.
        """
        if not self.is_whole:
            raise InputError("Fields are taken from the coverage of the whole grid: call `take` before `within`.")
        chosen = np.asarray(numbers, dtype=np.int64)
        segments, start = ranges(self.start, chosen)
        taken = replace(
            self, ids=self.ids[chosen], covered=self.covered[chosen], total=self.total[chosen], parts=self.parts[chosen]
        )
        return replace(taken._of_segments(segments, start), number=np.arange(len(segments)))

    def within(self, window: Window) -> Coverage:
        """The segments whose blocks lie in a window; the axis of fields stays as it is.

        Raises
        ------
        GridError
            An edge of the window is neither a multiple of `BLOCK` nor the grid's edge.
        """
        rows, columns = self.shape
        if window != window.snap(BLOCK, self.shape) or window.y1 > rows or window.x1 > columns:
            raise GridError(
                f"{window} cannot be reduced by itself: its edges have to be multiples of {BLOCK} or edges of the grid "
                f"of {rows} x {columns} pixels. Use window.snap({BLOCK}, {self.shape})."
            )
        block_row, block_col = np.divmod(self.segment_block, -(-columns // BLOCK))
        inside = (window.y0 <= block_row * BLOCK) & (block_row * BLOCK < window.y1)
        inside &= (window.x0 <= block_col * BLOCK) & (block_col * BLOCK < window.x1)
        if inside.all():
            return self
        start = np.concatenate([[0], np.cumsum(inside)])[self.start]
        return self._of_segments(np.flatnonzero(inside), start)

    def windows(self) -> Ints:
        """(field, 4): y0, x0, y1, x1 around the pixels that are held of each field; -1 where there are none."""
        found = np.full((len(self.ids), 4), -1, dtype=np.int64)
        first = self.segment_run[self.start]
        some = np.flatnonzero(np.diff(first))
        if some.size:
            first = first[some]
            found[some, 0] = np.minimum.reduceat(self.run_row, first)
            found[some, 1] = np.minimum.reduceat(self.run_col, first)
            found[some, 2] = np.maximum.reduceat(self.run_row, first) + 1
            found[some, 3] = np.maximum.reduceat(self.run_col + self.run_length, first)
        return found

    def side_by_side(self) -> Coverage:
        """The same weights for pixels that were picked out: pixel i of the coverage lies in row 0, column i."""
        column = (np.cumsum(self.run_length) - self.run_length).astype(np.int32)
        return replace(self, run_row=np.zeros_like(self.run_row), run_col=column)

    def runs(self) -> Runs:
        """What `coverage_of` makes this coverage of."""
        counts = np.diff(self.segment_run[self.start])
        return Runs(counts, self.run_row, self.run_col, self.run_length, self.run_weight < 0, self.weights)

    def _of_segments(self, segments: Ints, start: Ints) -> Coverage:
        """Only some segments; `start` says which of them belong to which field."""
        runs, segment_run = ranges(self.segment_run, segments)
        length, offset = self.run_length[runs], self.run_weight[runs]
        picked = Runs(
            np.empty(0, np.int64), self.run_row[runs], self.run_col[runs], length, offset < 0,
            picked_weights(length, offset, self.weights),
        )  # fmt: skip
        return replace(
            self,
            start=start,
            segment_block=self.segment_block[segments],
            segment_run=segment_run,
            segment_start=_first_pixels(length, segment_run),
            run_row=picked.row,
            run_col=picked.col,
            run_length=length,
            run_weight=picked.offset,
            weights=picked.weight,
            number=self.number[segments],
        )


def coverage(
    fields: gpd.GeoDataFrame | gpd.GeoSeries,
    geobox: GeoBox,
    *,
    id_column: str | None = None,
    rule: Rule = "exact",
) -> Coverage:
    """Coverage of the pixels of a grid by fields.

    Parameters
    ----------
    fields
        Polygons with a CRS; in another CRS than the grid's they are reprojected with densified edges. They may overlap,
        have holes and parts, be smaller than a pixel and reach over the edge of the grid.
    geobox
        The grid of the whole box, north-up. Never a tile: weights computed per tile differ in their last digits.
    id_column
        The column that names the fields; by default the index does.
    rule
        `exact`: the share of each pixel's area. `centre`: 1 for pixels whose centre lies in the field, as rasterstats
        counts them; small fields may have none.

    Raises
    ------
    CrsError
        Fields or grid have no CRS, or a field cannot be projected.
    GridError
        The grid is not north-up.
    InputError
        An id is missing or occurs twice; a geometry is missing, empty, no polygon, or invalid.

    Notes
    -----
    The share of each pixel is the area of its intersection with the field, computed by exactextract (float32).
    """
    ids = field_ids(fields, id_column)
    return coverage_of(geobox, ids, *compute_runs(fields, geobox, ids, rule))


def compute_runs(
    fields: gpd.GeoDataFrame | gpd.GeoSeries,
    geobox: GeoBox,
    ids: npt.NDArray[Any] | None = None,
    rule: Rule = "exact",
) -> tuple[npt.NDArray[np.float64], Runs]:
    """(field,) shares of area inside the grid, and the runs: what takes time. `ids` are for messages."""
    if rule not in _RULES:
        raise InputError(f"coverage={rule!r} is no rule. Known are: {', '.join(_RULES)}.")
    shapes = projected_shapes(fields, geobox, np.asarray(fields.index) if ids is None else ids)
    return covered_shares(shapes, geobox), _RULES[rule](shapes, geobox)


def coverage_of(geobox: GeoBox, ids: npt.NDArray[Any], covered: npt.NDArray[np.float64], runs: Runs) -> Coverage:
    """The coverage that runs make: cut into segments, and their weights summed."""
    block = blocks_of(runs.row, runs.col, geobox.shape.x)
    field = np.repeat(np.arange(len(ids)), runs.counts)
    first = np.flatnonzero(np.diff(block, prepend=-1).astype(bool) | np.diff(field, prepend=-1).astype(bool))
    segment_run = np.append(first, len(block)).astype(np.int64)
    start = np.searchsorted(field[first], np.arange(len(ids) + 1))
    offset, total = runs.offset, np.empty(len(ids))
    kernels.totals(runs.length, offset, runs.weight, segment_run, start, total)
    return Coverage(
        geobox, ids, covered, total, start, block[first], segment_run, _first_pixels(runs.length, segment_run),
        runs.row, runs.col, runs.length, offset, runs.weight, number=np.arange(len(first)), parts=np.diff(start),
    )  # fmt: skip


def _first_pixels(length: Places, segment_run: Ints) -> Ints:
    """(segment + 1,) first pixel of each segment."""
    return np.concatenate([[0], np.cumsum(length, dtype=np.int64)])[segment_run]


def same_grid(one: GeoBox, other: GeoBox, tolerance: float = EDGE_TOLERANCE) -> bool:
    """Whether two grids have the same pixels: CRS and shape, and edges within a part of a pixel."""
    if one.shape != other.shape or not same_crs(crs_of(one), crs_of(other)):
        return False
    pixel = min(abs(one.resolution.x), abs(one.resolution.y))
    return bool(np.allclose(bounds_of(one), bounds_of(other), rtol=0, atol=tolerance * pixel))


_RULES = {"exact": exact_runs, "centre": centre_runs}
