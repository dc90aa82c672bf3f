"""How much of each pixel each field covers: exact, sparse, computed once on the grid of the whole box. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from exactextract import exact_extract
from exactextract.feature import Feature, FeatureSource
from exactextract.raster import RasterSource
from odc.geo.geobox import GeoBox

from geofield.errors import CrsError, GridError, InputError
from geofield.grid import BLOCK, EDGE_TOLERANCE, Window, bounds_of, check_north_up, crs_of
from geofield.projection import project, same_crs
from geofield.reduce import kernels
from geofield.reduce.centres import centre_cells

Ints = npt.NDArray[np.int64]
Geometries = npt.NDArray[np.object_]
Rule = Literal["exact", "centre"]

PROJECTED_TO = 1e-3
"""Edges of reprojected fields are within this part of a pixel of the true curve."""


@dataclass(frozen=True, eq=False)
class Coverage:
    """Sparse weights of fields on a grid.

    Pixels are sorted by field, then by block (blocks of `BLOCK` x `BLOCK` pixels from the grid's upper left corner,
    row-major), then row-major. The pixels of one field in one block are a segment.
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
    segment_start: Ints
    """(segment + 1,) first pixel of each segment."""
    row: npt.NDArray[np.int32]
    """(pixel,) row on the whole grid."""
    col: npt.NDArray[np.int32]
    """(pixel,) column on the whole grid."""
    weight: npt.NDArray[np.float64]
    """(pixel,) share of the pixel that the field covers, above 0 to 1."""
    number: Ints
    """(segment,) the segment's number in the coverage of the whole grid."""
    parts: Ints
    """(field,) segments of the field on the whole grid."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the whole grid."""
        return self.geobox.shape.y, self.geobox.shape.x

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    @property
    def is_whole(self) -> bool:
        """Whether it holds every pixel of its fields, not only those in a window."""
        return len(self.number) == int(self.parts.sum())

    @property
    def held(self) -> npt.NDArray[np.bool_]:
        """(field,) whether all pixels of the field are here; also for a field that has none."""
        return np.asarray(np.diff(self.start) == self.parts)

    def __getstate__(self) -> dict[str, Any]:
        """Half the bytes in a task: exactextract's weights are float32 exactly, and a pixel is one number."""
        state = dict(vars(self))
        weight, (rows, columns) = self.weight.astype(np.float32), self.shape
        if np.array_equal(weight, self.weight):
            state["weight"] = weight
        if rows * columns < 2**31:
            state["cell"] = state.pop("row") * np.int32(columns) + state.pop("col")
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "cell" in state:
            state["row"], state["col"] = np.divmod(state.pop("cell"), np.int32(state["geobox"].shape.x))
        state["weight"] = state["weight"].astype(np.float64)
        self.__dict__.update(state)

    def take(self, fields: npt.ArrayLike) -> Coverage:
        """The coverage of some fields, by number, in the order asked for.

        Raises
        ------
        InputError
            Only a window is held: take the fields first.
        """
        if not self.is_whole:
            raise InputError("Fields are taken from the coverage of the whole grid: call `take` before `within`.")
        chosen = np.asarray(fields, dtype=np.int64)
        segments, start = _ranges(self.start, chosen)
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
        first = self.segment_start[self.start]
        some = np.flatnonzero(np.diff(first))
        if some.size:
            first = first[some]
            found[some, 0] = np.minimum.reduceat(self.row, first)
            found[some, 1] = np.minimum.reduceat(self.col, first)
            found[some, 2] = np.maximum.reduceat(self.row, first) + 1
            found[some, 3] = np.maximum.reduceat(self.col, first) + 1
        return found

    def _of_segments(self, segments: Ints, start: Ints) -> Coverage:
        """Only some segments; `start` says which of them belong to which field."""
        pixels, segment_start = _ranges(self.segment_start, segments)
        return replace(
            self,
            start=start,
            segment_block=self.segment_block[segments],
            segment_start=segment_start,
            row=self.row[pixels],
            col=self.col[pixels],
            weight=self.weight[pixels],
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
    return coverage_of(geobox, ids, pixel_weights(fields, geobox, ids, rule))


@dataclass(frozen=True, eq=False)
class PixelWeights:
    """The weights of some fields, one field after another: what takes time to compute, and nothing else."""

    covered: npt.NDArray[np.float64]
    """(field,) share of the field's area inside the grid."""
    counts: Ints
    """(field,) pixels of each field."""
    cells: npt.NDArray[Any]
    """(pixel,) number of the pixel on the grid, row-major."""
    weight: npt.NDArray[np.float64]
    """(pixel,) share of the pixel that the field covers, above 0 to 1."""


def pixel_weights(
    fields: gpd.GeoDataFrame | gpd.GeoSeries,
    geobox: GeoBox,
    ids: npt.NDArray[Any] | None = None,
    rule: Rule = "exact",
) -> PixelWeights:
    """Compute the weights of fields; see `coverage`. `ids` are for messages; the index by default."""
    check_north_up(geobox)
    target = crs_of(geobox)
    ids = np.asarray(fields.index) if ids is None else ids
    shapes: Geometries = np.asarray(fields.geometry.array, dtype=object)
    _check_shapes(ids, shapes)
    if fields.crs is None:
        raise CrsError(
            "The fields have no CRS. Set the one that their coordinates are in, e.g. `fields.set_crs('EPSG:4326')`."
        )
    pixel = min(abs(geobox.resolution.x), abs(geobox.resolution.y))
    shapes = project(shapes, fields.crs, target, PROJECTED_TO * pixel)
    if rule not in _RULES:
        raise InputError(f"coverage={rule!r} is no rule. Known are: {', '.join(_RULES)}.")
    cells, weight, counts = _RULES[rule](shapes, geobox)
    return PixelWeights(_covered(shapes, geobox), counts, cells, weight)


def coverage_of(geobox: GeoBox, ids: npt.NDArray[Any], weights: PixelWeights) -> Coverage:
    """The coverage that weights make, their pixels row-major in each field, or in the order of a coverage."""
    return _sorted_coverage(geobox, ids, weights.covered, weights.cells, weights.weight, weights.counts)


def field_ids(fields: gpd.GeoDataFrame | gpd.GeoSeries, id_column: str | None) -> npt.NDArray[Any]:
    """(field,) names, each there and each once; `InputError` says which is not."""
    if id_column is not None and id_column not in fields:
        raise InputError(f"The fields have no column {id_column!r}. Their columns are {list(fields.columns)}.")
    names = pd.Index(fields.index if id_column is None else fields[id_column])
    where = "the index" if id_column is None else f"column {id_column!r}"
    if names.hasnans:
        raise InputError(f"Field {int(np.argmax(names.isna()))} has no id in {where}. Name one, or use another column.")
    if not names.is_unique:
        twice = names[names.duplicated()].tolist()[0]
        raise InputError(
            f"Id {twice!r} occurs {int((names == twice).sum())} times in {where}. Name another column with "
            "`id_column=`, or number the fields with `fields.reset_index(drop=True)`."
        )
    return np.asarray(names.to_numpy())


def _check_shapes(ids: npt.NDArray[Any], shapes: Geometries) -> None:
    """`InputError` for the first geometry that is no polygon with an area and a valid outline."""
    polygon = np.isin(shapely.get_type_id(shapes), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    wrong = np.flatnonzero(~polygon | shapely.is_empty(shapes) | ~shapely.is_valid(shapes))
    if not wrong.size:
        return
    shape, name = shapes[wrong[0]], ids[wrong[:1]].tolist()[0]
    if shape is None or shape.is_empty:
        reason = "has no geometry"
    elif not polygon[wrong[0]]:
        reason = f"is a {shape.geom_type}, not a polygon"
    else:
        reason = f"is invalid: {shapely.is_valid_reason(shape)}"
    raise InputError(
        f"Field {name!r} {reason} ({wrong.size} of {len(shapes)} fields cannot be used). Leave such fields out, or "
        "repair them, e.g. with `fields.make_valid()`."
    )


def _covered(shapes: Geometries, geobox: GeoBox) -> npt.NDArray[np.float64]:
    """Share of each area inside the grid; areas are compared only for those that are not wholly inside."""
    xmin, ymin, xmax, ymax = bounds_of(geobox)
    bounds = shapely.bounds(shapes)
    covered = np.ones(len(shapes))
    out = np.flatnonzero(~((bounds[:, :2] >= (xmin, ymin)).all(axis=1) & (bounds[:, 2:] <= (xmax, ymax)).all(axis=1)))
    if out.size:
        inside = shapely.area(shapely.intersection(shapes[out], shapely.box(xmin, ymin, xmax, ymax)))
        covered[out] = np.clip(inside / shapely.area(shapes[out]), 0.0, 1.0)
    return covered


class _CellNumbers(RasterSource):  # type: ignore[misc]
    """A raster whose value is the number of the cell, made for the window that is asked for and never as a whole."""

    def __init__(self, geobox: GeoBox) -> None:
        super().__init__()
        a = geobox.transform
        self.shape = (geobox.shape.y, geobox.shape.x)
        self.box = (a.c, a.f + a.e * self.shape[0], a.c + a.a * self.shape[1], a.f)
        self.resolution = (a.a, -a.e)
        self.dtype = _cell_type(geobox)

    def extent(self) -> tuple[float, float, float, float]:
        return self.box

    def res(self) -> tuple[float, float]:
        return self.resolution

    def nodata_value(self) -> None:
        return None

    def srs_wkt(self) -> None:
        return None

    def read_window(self, x0: int, y0: int, nx: int, ny: int) -> npt.NDArray[Any]:
        first = np.arange(y0, y0 + ny, dtype=np.int64) * self.shape[1] + x0
        return np.asarray(np.add.outer(first.astype(self.dtype), np.arange(nx, dtype=self.dtype)))


class _Polygon(Feature):  # type: ignore[misc]
    """A polygon without properties."""

    def __init__(self, wkb: bytes) -> None:
        super().__init__()
        self.wkb = wkb

    def geometry(self) -> bytes:
        return self.wkb

    def fields(self) -> list[str]:
        return []


class _Polygons(FeatureSource):  # type: ignore[misc]
    """Polygons as WKB: passed as a GeoDataFrame they travel as JSON text, which takes as long as the coverage."""

    def __init__(self, shapes: Geometries) -> None:
        super().__init__()
        self.wkb = shapely.to_wkb(shapes, output_dimension=2)

    def count(self) -> int:
        return len(self.wkb)

    def __iter__(self) -> Iterator[_Polygon]:
        return map(_Polygon, self.wkb)

    def srs_wkt(self) -> None:
        return None


def _pixels(shapes: Geometries, geobox: GeoBox) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], Ints]:
    """Cell numbers and weights, field after field and row-major in each, and how many each field has."""
    if not len(shapes):
        return np.empty(0, np.int32), np.empty(0), np.empty(0, np.int64)
    rows, columns = geobox.shape.y, geobox.shape.x
    found = exact_extract(
        _CellNumbers(geobox),
        _Polygons(shapes),
        ["values", "coverage"],
        output="pandas",
        # A field is never cut into parts: the last digits of the weights would depend on where.
        max_cells_in_memory=max(rows * columns, 30_000_000),
    )
    none = np.empty(0)
    cells = [none if value is None else value for value in found["values"]]
    weights = [none if value is None else value for value in found["coverage"]]
    counts = np.array([len(value) for value in cells], dtype=np.int64)
    return _joined(cells, _cell_type(geobox)), _joined(weights, np.float64), counts


def _centres(shapes: Geometries, geobox: GeoBox) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], Ints]:
    """As `_pixels`, with weight 1 where the centre lies inside."""
    cells = [centre_cells(shape, geobox) for shape in shapes]
    numbers = _joined(cells, _cell_type(geobox))
    return numbers, np.ones(len(numbers)), np.array([len(one) for one in cells], dtype=np.int64)


def _cell_type(geobox: GeoBox) -> type[np.integer[Any]]:
    """The narrowest type that numbers all cells."""
    return np.int32 if geobox.shape.y * geobox.shape.x < 2**31 else np.int64


def _joined(arrays: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate([array for array in arrays if len(array)] or [np.empty(0)]).astype(dtype, copy=False)


def _sorted_coverage(
    geobox: GeoBox,
    ids: npt.NDArray[Any],
    covered: npt.NDArray[np.float64],
    cells: npt.NDArray[Any],
    weight: npt.NDArray[np.float64],
    counts: Ints,
) -> Coverage:
    """Pixels that are row-major in each field, sorted by block and cut into segments."""
    columns = geobox.shape.x
    field = np.repeat(np.arange(len(ids)), counts)
    some = weight > 0
    if not some.all():
        cells, weight, field = cells[some], weight[some], field[some]
    row, col = (part.astype(np.int32, copy=False) for part in np.divmod(cells, cells.dtype.type(columns)))
    across = -(-columns // BLOCK)
    block = (row // BLOCK) * cells.dtype.type(across) + col // BLOCK
    order = _block_order(field, block)
    if order is not None:
        row, col, weight, block = row[order], col[order], weight[order], block[order]
    first = np.flatnonzero(np.diff(block, prepend=-1).astype(bool) | np.diff(field, prepend=-1).astype(bool))
    segment_start = np.append(first, len(row))
    start = np.searchsorted(field[first], np.arange(len(ids) + 1))
    total = np.empty(len(ids))
    kernels.totals(weight, segment_start, start, total)
    return Coverage(
        geobox, ids, covered, total, start, block[first].astype(np.int64), segment_start, row, col, weight,
        number=np.arange(len(first)), parts=np.diff(start),
    )  # fmt: skip


def _block_order(field: Ints, block: npt.NDArray[Any]) -> Ints | None:
    """The order by field and block that keeps row-major order in each; None when it is so already."""
    back = np.flatnonzero((block[1:] < block[:-1]) & (field[1:] == field[:-1]))
    if not back.size:
        return None
    # Most fields lie in one block: only the others are sorted.
    crossing = np.zeros(int(field[-1]) + 1, dtype=bool)
    crossing[field[back]] = True
    pixels = np.flatnonzero(crossing[field])
    order = np.arange(len(field))
    order[pixels] = pixels[np.lexsort((block[pixels], field[pixels]))]
    return order


def _ranges(start: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """The elements start[i] to start[i + 1] of every chosen i, one after another, and where each begins."""
    lengths = start[chosen + 1] - start[chosen]
    begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(begins[-1]) + np.repeat(start[chosen] - begins[:-1], lengths), begins


def same_grid(one: GeoBox, other: GeoBox, tolerance: float = EDGE_TOLERANCE) -> bool:
    """Whether two grids have the same pixels: CRS and shape, and edges within a part of a pixel."""
    if one.shape != other.shape or not same_crs(crs_of(one), crs_of(other)):
        return False
    pixel = min(abs(one.resolution.x), abs(one.resolution.y))
    return bool(np.allclose(bounds_of(one), bounds_of(other), rtol=0, atol=tolerance * pixel))


_RULES = {"exact": _pixels, "centre": _centres}
