"""Statistics of fields over any raster that xarray holds, in memory or lazy."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.highlevelgraph import HighLevelGraph

from geofield.errors import GridError, InputError, StatisticError
from geofield.grid import BLOCK, Window, bounds_of, crs_of, crs_text
from geofield.reduce.coverage import Coverage, Rule, same_grid
from geofield.reduce.coverage import coverage as compute_coverage
from geofield.reduce.layer import Layer
from geofield.reduce.partial import Partial, combine, reduce_window
from geofield.reduce.raster import REGULAR, Raster, open_raster
from geofield.reduce.runs import Ints
from geofield.reduce.shapes import check_fields, field_ids
from geofield.reduce.statistics import PixelFunction, parse_stats

Floats = npt.NDArray[np.float64]
Progress = Callable[[float], None]
"""Told the share of the work that is done."""

WEIGHTED = ("weighted_mean", "weighted_sum")
"""Statistics that take a second raster."""
WINDOW = 2048
"""Side in pixels of the largest window that is read at once."""
FIELD_PIXELS = 8_000_000
"""Pixels of fields whose weights are held at once."""
FEW_FIELDS = 1000
"""So many fields are not worth counting."""
PIXELS_AT_ONCE = 64_000_000
"""Pixels (of all times) read at once from data that are neither in memory nor Dask arrays."""


def zonal_stats(
    data: xr.DataArray | xr.Dataset,
    fields: gpd.GeoDataFrame | gpd.GeoSeries | Coverage,
    stats: Sequence[str | PixelFunction] | str | PixelFunction = ("mean",),
    *,
    id_column: str | None = None,
    coverage: Rule = "exact",
    weights: xr.DataArray | None = None,
    geometry: bool = False,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Coverage-weighted statistics of fields, as exactextract defines them.

    Parameters
    ----------
    data
        Raster with a CRS (`.rio.write_crs`, `.odc.assign_crs`), dimensions (time, y, x) in any order, or without time;
        `latitude`, `longitude` and `lat`, `lon` are rows and columns too, and `time` may have another name. Missing:
        NaN, and the number in the attributes `nodata` or `_FillValue`. Variables without rows and columns are left out.
    fields
        Polygons with a CRS, in any CRS; or `coverage(fields, data.odc.geobox)`, computed once for many calls.
    stats
        exactextract's names: `count`, `mean`, `stdev`, `median`, `quantile(q=0.25)`, `frac(value=4)`, ...; with
        `weights` also `weighted_mean` and `weighted_sum`; functions `name(values, coverage)` of your own, called for
        each field and time with its valid pixels. One needs no list around it.
    id_column
        The column that names the fields; by default the index does.
    coverage
        `exact`: each pixel counts with the share of its area that the field covers. `centre`: wholly, where its centre
        lies in the field, as rasterstats counts.
    weights
        A second raster on the grid of the data, with or without time.
    geometry
        Add the polygons as the coordinate `geometry` (field), with their CRS in its attributes, as xvec expects.
    progress
        Called with the share of the work that is done, from 0 to 1. Not for Dask arrays, whose work comes later: see
        `dask.diagnostics.ProgressBar`.

    Returns
    -------
    Dataset with dimensions (field, time), or (field,) without time: `<variable>_<stat>`, float64, in units of the data.
    Where no pixel is valid `count` is 0 and everything else NaN. Dask-backed data give a lazy result: nothing is read
    until it is computed, and then only the chunks that hold a pixel of a field.

    Raises
    ------
    CrsError
        Data or fields have no CRS.
    GridError
        The data have no regular grid, or a coverage is of another grid.
    StatisticError
        A statistic is unknown.
    InputError
        An id is missing or occurs twice, a geometry cannot be used, or the fields are nothing that holds polygons.

    Notes
    -----
    The bits of the result do not depend on chunks, on Dask, or on which other fields are asked for.
    """
    stats = (stats,) if isinstance(stats, str) or callable(stats) else tuple(stats)
    plain = tuple(one for one in stats if one not in WEIGHTED)
    parse_stats(plain)
    raster = open_raster(data)
    if not isinstance(fields, Coverage):
        check_fields(fields)
    batches = _batches(raster, fields)
    if len(batches) > 1:
        assert not isinstance(fields, Coverage)
        field_ids(fields, id_column)  # each id once, over all batches
        options: dict[str, Any] = {
            "id_column": id_column, "coverage": coverage, "weights": weights, "geometry": geometry,
        }  # fmt: skip
        parts = [
            zonal_stats(data, fields.iloc[batch], stats, progress=_share(progress, number, len(batches)), **options)
            for number, batch in enumerate(batches)
        ]
        return xr.concat(parts, "field").isel(field=np.argsort(np.concatenate(batches)))
    cover = _cover(raster, fields, id_column, coverage)
    asked = [one for one in stats if one in WEIGHTED]
    rounds = 2 if asked else 1
    result = _reduced(raster, cover, plain, _share(progress, 0, rounds))
    if asked:
        result = result.assign(_weighted(raster, cover, weights, asked, _share(progress, 1, rounds)))
    if progress is not None:
        progress(1.0)
    return _with_geometry(result, fields) if geometry else result


def _batches(raster: Raster, fields: gpd.GeoDataFrame | gpd.GeoSeries | Coverage) -> list[Ints]:
    """Numbers of fields whose weights are held at once: neighbours, so that windows are read about once.

    One batch when a coverage is given, and for Dask arrays, whose graph has to hold all weights anyway.
    """
    if isinstance(fields, Coverage) or any(one.chunks is not None for one in raster.variables.values()):
        return [np.arange(len(fields.ids) if isinstance(fields, Coverage) else len(fields))]
    if len(fields) <= FEW_FIELDS or fields.crs is None:
        return [np.arange(len(fields))]
    shapes = fields.geometry.to_crs(crs_text(crs_of(raster.geobox)))
    resolution = raster.geobox.resolution
    pixels = shapes.area / abs(resolution.x * resolution.y) + shapes.length / min(abs(resolution.x), abs(resolution.y))
    order = np.argsort(shapes.hilbert_distance().to_numpy(), kind="stable")
    batch = np.cumsum(np.nan_to_num(pixels.to_numpy()[order])) // FIELD_PIXELS
    return [np.sort(part) for part in np.split(order, np.flatnonzero(np.diff(batch)) + 1)]


def _share(progress: Progress | None, number: int, of: int) -> Progress | None:
    """The progress of one of several equal parts."""
    return None if progress is None else lambda done: progress((number + done) / of)


def _reduced(
    raster: Raster, cover: Coverage, stats: tuple[str | PixelFunction, ...], progress: Progress | None
) -> xr.Dataset:
    """`<variable>_<stat>` -> (field, time) or (field,)."""
    wanted = [one.suffix for one in parse_stats(stats)]
    if "count" not in stats:
        wanted.remove("count")
    if not wanted:
        return xr.Dataset()
    at_hand = all(one.variable._in_memory for one in raster.variables.values())  # xarray has no public word for it
    windows = [(Window(0, 0, *cover.shape), cover)] if at_hand else list(_windows(cover))
    task = _Task(cover, windows, stats, wanted, at_hand)
    found: dict[str, tuple[Any, ...]] = {}
    coords: dict[Any, Any] = {"field": ("field", cover.ids)}
    for number, (name, variable) in enumerate(raster.variables.items()):
        if variable.chunks is not None:
            values: Floats | da.Array = _lazy(variable, task)
        else:
            values = _eager(variable, task, _share(progress, number, len(raster.variables)))
        coords |= _along_time(raster, name)
        dimension = raster.dimension(name)
        for k, column in enumerate(wanted):
            dims, array = (("field",), values[k, 0]) if dimension is None else (("field", dimension), values[k].T)
            found[f"{name}_{column}"] = (dims, array)
    return xr.Dataset(found, coords)


def _weighted(
    raster: Raster,
    cover: Coverage,
    weights: xr.DataArray | None,
    asked: Sequence[str | PixelFunction],
    progress: Progress | None,
) -> dict[str, xr.DataArray]:
    """sum(c w x) and sum(c w x) / sum(c w) over the valid pixels x; missing where one of them has no weight w."""
    if weights is None:
        raise StatisticError(f"{' and '.join(map(str, asked))} need a second raster: pass it as `weights=`.")
    second = open_raster(weights)
    if not same_grid(second.geobox, raster.geobox, REGULAR):
        raise GridError(f"The weights are of another grid than the data: {_described(second)}; {_described(raster)}.")
    if len(second.variables) != 1:
        raise InputError(f"The weights are one raster; got the variables {', '.join(second.variables)}.")
    (by,) = (_decoded(one) for one in second.variables.values())
    found: dict[str, xr.DataArray] = {}
    for number, (name, variable) in enumerate(raster.variables.items()):
        value = _decoded(variable)
        # without coordinates: the grids are the same, their numbers may differ in the last digit
        share = xr.DataArray(by.data, dims=(*by.dims[:-2], *value.dims[-2:]))
        there = value.notnull()
        layers = {
            "product": value * share,
            "weight": share.where(there),
            "lost": share.isnull().where(there).astype(np.float64),
        }
        order = (..., *value.dims[-2:])
        part = replace(raster, variables={key: layer.transpose(*order) for key, layer in layers.items()})
        sums = _reduced(part, cover, ("sum",), _share(progress, number, len(raster.variables)))
        total = sums["product_sum"].where(sums["lost_sum"] == 0)
        columns = {"weighted_sum": total, "weighted_mean": total / sums["weight_sum"]}
        found |= {f"{name}_{one}": columns[str(one)] for one in asked}
    return found


def _decoded(variable: xr.DataArray) -> xr.DataArray:
    """Physical values, NaN where missing."""
    fill = _fill(variable)
    values = variable.astype(np.float64)
    return values if fill is None else values.where(variable != fill)


def _with_geometry(result: xr.Dataset, fields: gpd.GeoDataFrame | gpd.GeoSeries | Coverage) -> xr.Dataset:
    if isinstance(fields, Coverage):
        raise InputError("A coverage holds no polygons: pass the fields themselves to get `geometry`.")
    shapes = xr.DataArray(np.asarray(fields.geometry.array, dtype=object), dims="field", attrs={"crs": fields.crs})
    return result.assign_coords(geometry=shapes)


def _cover(
    raster: Raster, fields: gpd.GeoDataFrame | gpd.GeoSeries | Coverage, id_column: str | None, rule: Rule
) -> Coverage:
    if not isinstance(fields, Coverage):
        return compute_coverage(fields, raster.geobox, id_column=id_column, rule=rule)
    if not same_grid(fields.geobox, raster.geobox, REGULAR):
        raise GridError(
            f"The coverage is of another grid than the data. Coverage: {_described(fields)}; data: "
            f"{_described(raster)}. Make it with `geofield.coverage(fields, data.odc.geobox)`, or pass the fields "
            "themselves."
        )
    return fields


def _described(thing: Coverage | Raster) -> str:
    rows, columns = thing.geobox.shape.y, thing.geobox.shape.x
    return f"{rows} x {columns} pixels, {crs_text(crs_of(thing.geobox))}, bounds {bounds_of(thing.geobox)}"


def _along_time(raster: Raster, name: str) -> dict[Any, Any]:
    """The coordinates that lie along the first dimension of a variable."""
    dimension = raster.dimension(name)
    if dimension is None:
        return {}
    coords = raster.variables[name].coords
    return {key: value.variable for key, value in coords.items() if value.dims == (dimension,)}


def _windows(cover: Coverage) -> Iterator[tuple[Window, Coverage]]:
    """Windows of whole blocks around the fields, none larger than `WINDOW`, with what they hold; at least one."""
    rows, columns = cover.shape
    across = -(-columns // BLOCK)
    block_row, block_col = np.divmod(cover.segment_block, across)
    per_window = WINDOW // BLOCK
    keys = np.unique(np.stack([block_row // per_window, block_col // per_window], axis=-1), axis=0)
    for row, col in keys if len(keys) else np.zeros((1, 2), np.int64):
        window = Window(
            int(row) * WINDOW,
            int(col) * WINDOW,
            min(int(row + 1) * WINDOW, rows),
            min(int(col + 1) * WINDOW, columns),
        )
        part = cover.within(window)
        touched = part.windows()
        touched = touched[touched[:, 0] >= 0]
        if len(touched):
            low, high = touched[:, :2].min(axis=0).tolist(), touched[:, 2:].max(axis=0).tolist()
            window = Window(*low, *high).snap(BLOCK, (rows, columns))
        yield window, part


@dataclass(frozen=True, eq=False)
class _Task:
    """What is asked of every variable."""

    cover: Coverage
    windows: list[tuple[Window, Coverage]]
    stats: tuple[str | PixelFunction, ...]
    columns: list[str]
    at_hand: bool
    """Whether all pixels are in memory: nothing is read, so there is one window."""

    @property
    def fields(self) -> int:
        return len(self.cover.ids)


def _eager(data: xr.DataArray, task: _Task, progress: Progress | None) -> Floats:
    """(column, time, field) at once; data that are not in memory are read window by window."""
    variable, fill = data.variable, _fill(data)  # without coordinates, which would be cut as well
    times = len(variable) if variable.ndim == 3 else 1
    largest = task.cover.pixels if task.at_hand else max(np.prod(window.shape) for window, _ in task.windows)
    step = max(1, PIXELS_AT_ONCE // max(int(largest), 1))
    found = [np.empty((len(task.columns), 0, task.fields))]
    for first in range(0, times, step):
        partials = []
        for number, (window, part) in enumerate(task.windows):
            if progress is not None:
                progress((first + min(step, times - first) * number / len(task.windows)) / times)
            piece = variable[..., window.slices[0], window.slices[1]]
            pixels = piece[first : first + step].to_numpy() if piece.ndim == 3 else piece.to_numpy()[None]
            partials.append(_reduce(pixels, fill, window, part, task.stats))
        found.append(_combined(partials, task.cover, task.stats, task.columns))
    return np.concatenate(found, axis=1)


def _lazy(variable: xr.DataArray, task: _Task) -> da.Array:
    """(column, time, field) as a Dask array: a task per window and chunk of time, and one that combines them.

    The graph is written by hand: made of `dask.delayed` it takes a hundred times longer to build.
    """
    array = variable.data if variable.ndim == 3 else variable.data[None]
    name = f"zonal-{uuid.uuid4().hex}"
    graph: dict[Any, Any] = {f"{name}-cover": task.cover}
    for number, (window, part) in enumerate(task.windows):
        graph[f"{name}-cover-{number}"] = part
        places, corners = _touched_chunks(array, part)
        reduce = functools.partial(
            _reduce_pieces, corners=corners, dtype=array.dtype, fill=_fill(variable), window=window, stats=task.stats
        )
        for time, length in enumerate(array.chunks[0]):
            pieces = [(array.name, time, y, x) for y, x in places]
            graph[f"{name}-part", time, number] = (reduce, pieces, f"{name}-cover-{number}", length)
    combined = functools.partial(_combined, stats=task.stats, columns=task.columns)
    for time in range(len(array.chunks[0])):
        partials = [(f"{name}-part", time, number) for number in range(len(task.windows))]
        graph[name, 0, time, 0] = (combined, partials, f"{name}-cover")
    chunks = ((len(task.columns),), array.chunks[0], (task.fields,))
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[array])
    return da.Array(layers, name, chunks, dtype=np.float64)


def _fill(variable: xr.DataArray) -> float | None:
    """The number that says missing, as rioxarray and odc-geo keep it; decoded data have none."""
    for key in ("nodata", "_FillValue"):
        value = variable.attrs.get(key)
        if value is not None:
            try:
                return float(value)
            except (TypeError, ValueError) as error:
                raise InputError(f"Attribute {key} of {variable.name!r} is no number: {value!r}.") from error
    return None


def _touched_chunks(array: da.Array, part: Coverage) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Of the chunks that hold a pixel of a field: numbers along y and x, and the (row, column) of their corners."""
    edges_y, edges_x = (np.cumsum([0, *chunks]) for chunks in array.chunks[1:])
    row, col = part.places
    chunk_y = np.searchsorted(edges_y, row, side="right") - 1
    chunk_x = np.searchsorted(edges_x, col, side="right") - 1
    numbers = np.unique(chunk_y * len(edges_x) + chunk_x).tolist()
    places = [divmod(number, len(edges_x)) for number in numbers]
    return places, [(int(edges_y[y]), int(edges_x[x])) for y, x in places]


def _reduce_pieces(
    pieces: list[npt.NDArray[Any]],
    part: Coverage,
    times: int,
    *,
    corners: list[tuple[int, int]],
    dtype: np.dtype[Any],
    fill: float | None,
    window: Window,
    stats: tuple[str | PixelFunction, ...],
) -> Partial:
    """Put chunks side by side and reduce them; pixels of chunks that no field touches are never looked at."""
    pixels = np.zeros((times, *window.shape), dtype)
    for piece, (row, col) in zip(pieces, corners, strict=True):
        here = window.intersect(Window(row, col, row + piece.shape[1], col + piece.shape[2]))
        if here is not None:
            target = pixels[:, here.y0 - window.y0 : here.y1 - window.y0, here.x0 - window.x0 : here.x1 - window.x0]
            target[...] = piece[:, here.y0 - row : here.y1 - row, here.x0 - col : here.x1 - col]
    return _reduce(pixels, fill, window, part, stats)


def _reduce(
    pixels: npt.NDArray[Any], fill: float | None, window: Window, part: Coverage, stats: tuple[str | PixelFunction, ...]
) -> Partial:
    return reduce_window({"": Layer(np.asarray(pixels), fill=fill)}, window, part, {"": stats})


def _combined(
    partials: list[Partial], cover: Coverage, stats: tuple[str | PixelFunction, ...], columns: list[str]
) -> Floats:
    found = combine(partials, cover, {"": stats})
    return np.stack([found[f"_{name}"] for name in columns])
