"""Statistics of fields from windows of pixels: reduced one by one, combined in one fixed order. No I/O.

`reduce_window` turns the pixels of one window into a `Partial`; `combine` turns the partials of all windows that the
fields touch into numbers. The bits of the numbers are those of one window over everything: moments are kept per block
of 256 x 256 pixels and merged in row-major order, and where a statistic needs all pixels of a field in order of value,
the pixels of a field that crosses the window's edge travel with the partial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from geofield.errors import GridError, InputError
from geofield.grid import Window
from geofield.reduce import kernels, ordering
from geofield.reduce.coverage import Coverage
from geofield.reduce.layer import Layer
from geofield.reduce.runs import Ints
from geofield.reduce.statistics import MOMENTS, Asked, PixelFunction, from_moments, parse_stats

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerPart:
    """What one layer contributes to a partial."""

    moments: Floats
    """(time, segment, 6): count, mean, sum of squares about it, min, max, sum; all 0 where nothing is valid."""
    ordered: Floats
    """(time, done, statistic): statistics of pairs of the fields wholly inside the window; NaN where missing."""
    pixels: Layer
    """(time, 1, pixel): the pixels of the segments that are carried."""


@dataclass(frozen=True, eq=False)
class Partial:
    """What the pixels of one window say about the fields that touch it. Plain arrays; picklable."""

    window: Window
    """The window."""
    cover: tuple[int, int]
    """(fields, segments) of the coverage on the whole grid, to tell whether partials belong together."""
    stats: dict[str, tuple[str, ...]]
    """Columns asked of each layer."""
    number: Ints
    """(segment,) numbers of the segments in the coverage of the whole grid."""
    done: Ints
    """(done,) numbers of the fields wholly inside, where statistics of pairs are asked for."""
    carried: Ints
    """(carried,) numbers of the segments whose pixels are carried, in order."""
    layers: dict[str, LayerPart]
    """Layer -> what it contributes."""

    @property
    def times(self) -> int:
        """Length of the time axis."""
        return next((len(part.moments) for part in self.layers.values()), 0)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        arrays: list[npt.NDArray[Any]] = [self.number, self.done, self.carried]
        for part in self.layers.values():
            arrays += [part.moments, part.ordered, part.pixels.data]
        return sum(array.nbytes for array in arrays)


def reduce_window(
    layers: Mapping[str, Layer], window: Window, cover: Coverage, stats: Mapping[str, Sequence[str | PixelFunction]]
) -> Partial:
    """Reduce the pixels of one window for all fields that touch it, at all times at once.

    Parameters
    ----------
    layers
        Name -> pixels (time, y, x) of exactly this window; the same times in all.
    window
        Its edges are multiples of `BLOCK` or edges of the grid.
    cover
        Of the whole grid, or `cover.within(window)` (which is smaller to send).
    stats
        Layer -> names of statistics; `count` is always added.

    Raises
    ------
    GridError
        The shape of a layer is not that of the window, or the window is not aligned.
    StatisticError
        A statistic is unknown.
    InputError
        Layers and stats do not name the same layers, or times differ.
    """
    times = _check_shapes(layers, window.shape, window)
    return _reduced(layers, window, cover.within(window), _key(cover), stats, times)


def reduce_pixels(
    layers: Mapping[str, Layer], window: Window, cover: Coverage, stats: Mapping[str, Sequence[str | PixelFunction]]
) -> Partial:
    """Reduce pixels that were picked out already; what `reduce_window` makes of the whole window, bit for bit.

    Parameters
    ----------
    layers
        Name -> (time, 1, pixel): the pixels of `cover.within(window)`, in its order.
    window, cover, stats
        As for `reduce_window`.
    """
    part = cover.within(window)
    times = _check_shapes(layers, (1, part.pixels), window)
    return _reduced(layers, window, part.side_by_side(), _key(cover), stats, times, origin=(0, 0))


def _reduced(
    layers: Mapping[str, Layer],
    window: Window,
    part: Coverage,
    key: tuple[int, int],
    stats: Mapping[str, Sequence[str | PixelFunction]],
    times: int,
    origin: tuple[int, int] | None = None,
) -> Partial:
    """`origin` is the (row, column) of the first pixel of the layers; the window's by default."""
    asked = _asked(layers, stats)
    some = np.diff(part.start) > 0
    # a function of the caller's own gets all pixels of a field at once, in the end
    whole = part.held & (not any(_of_pixels(columns) for columns in asked.values()))
    ordered = any(_ordered(columns) or _of_pixels(columns) for columns in asked.values())
    done = np.flatnonzero(some & whole) if ordered else np.empty(0, np.int64)
    crossing = np.repeat(~whole, np.diff(part.start)) if ordered else np.zeros(len(part.number), bool)
    carried = np.flatnonzero(crossing)
    origin = (window.y0, window.x0) if origin is None else origin
    found = {
        name: _reduce_layer(layers[name], origin, part, columns, done, carried, times)
        for name, columns in asked.items()
    }
    names = {name: tuple(one.suffix for one in columns) for name, columns in asked.items()}
    return Partial(window, key, names, part.number, done, part.number[carried], found)


def combine(
    partials: Sequence[Partial], cover: Coverage, stats: Mapping[str, Sequence[str | PixelFunction]]
) -> dict[str, npt.NDArray[np.float64]]:
    """Statistics of all fields from the partials of all windows that they touch, in any order.

    Parameters
    ----------
    partials
        Of windows that do not overlap, with the same layers, statistics and times.
    cover
        Of the whole grid.
    stats
        As they were given to `reduce_window`.

    Returns
    -------
    `<layer>_<statistic>` -> (time, field), always with `<layer>_count`; where no pixel is valid the count is 0 and
    everything else NaN.

    Raises
    ------
    InputError
        A block that a field touches is in no partial or in two, or partials do not belong together.
    """
    if not cover.is_whole:
        raise InputError("Partials are combined with the coverage of the whole grid, not of one window.")
    asked = {name: parse_stats(columns) for name, columns in stats.items()}
    times = _check_partials(partials, cover, asked)
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for name, wanted in asked.items():
        moments = _merged(partials, cover, name, times)
        for one in wanted:
            if one.statistic.needs == "moments":
                columns[f"{name}_{one.suffix}"] = from_moments(one, moments)
        in_order = _ordered(wanted) + _of_pixels(wanted)
        if in_order:
            values = _combine_ordered(partials, cover, name, in_order, times)
            columns |= {f"{name}_{one.suffix}": values[..., k] for k, one in enumerate(in_order)}
    return columns


def _reduce_layer(
    layer: Layer,
    origin: tuple[int, int],
    part: Coverage,
    columns: Sequence[Asked],
    done: Ints,
    carried: Ints,
    times: int,
) -> LayerPart:
    moments = np.zeros((times, len(part.number), MOMENTS))
    arguments = _kernel_arguments(layer, origin, part)
    kernels.moments_kernel(arguments[0].dtype)(*arguments, moments)
    wanted = _ordered(columns)
    in_order = np.full((times, len(done), len(wanted)), np.nan)
    if in_order.size:
        ordering.sorted_kernel(arguments[0].dtype)(
            *arguments, part.start, done, *_countable(layer), *_codes(wanted), in_order
        )
    pixels = _pixels_of(part, carried) if wanted or _of_pixels(columns) else np.empty(0, np.int64)
    row, col = part.places if pixels.size else (pixels, pixels)
    raw = layer.data[:, row[pixels] - origin[0], col[pixels] - origin[1]][:, None]
    return LayerPart(moments, in_order, Layer(np.ascontiguousarray(raw), layer.scale, layer.fill))


def _kernel_arguments(layer: Layer, origin: tuple[int, int], part: Coverage) -> tuple[Any, ...]:
    data = layer.native
    fill, fills = layer.missing()
    runs = part.run_row, part.run_col, part.run_length, part.run_weight, part.weights
    return data, fill, fills, layer.factor, *origin, *runs, part.segment_run, part.segment_start


def _countable(layer: Layer) -> tuple[bool, bool]:
    """Whether the pixels are integers of at most 16 bits that grow with the value, and whether they have a sign."""
    dtype = layer.native.dtype
    return dtype.kind in "iu" and dtype.itemsize <= 2 and layer.factor > 0, dtype.kind == "i"


def _codes(columns: Sequence[Asked]) -> tuple[Ints, Floats]:
    return np.array([one.statistic.code for one in columns], np.int64), np.array([one.q for one in columns])


def _ordered(columns: Sequence[Asked]) -> list[Asked]:
    """Those that need the pixels in order of value."""
    return [one for one in columns if one.statistic.needs == "pairs"]


def _of_pixels(columns: Sequence[Asked]) -> list[Asked]:
    """Those that are functions of the caller's own."""
    return [one for one in columns if one.statistic.needs == "pixels"]


def _pixels_of(part: Coverage, segments: Ints) -> Ints:
    """Numbers of the pixels of some segments."""
    lengths = np.diff(part.segment_start)[segments]
    begins = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(part.segment_start[segments] - begins, lengths))


def _merged(partials: Sequence[Partial], cover: Coverage, name: str, times: int) -> Floats:
    """(time, field, 6): moments of the segments, wherever they were computed, merged in order."""
    moments = np.zeros((times, len(cover.number), MOMENTS))
    for partial in partials:
        moments[:, partial.number] = partial.layers[name].moments
    merged = np.zeros((times, len(cover.ids), MOMENTS))
    kernels.merge(moments, cover.start, merged)
    return merged


def _combine_ordered(
    partials: Sequence[Partial], cover: Coverage, name: str, columns: Sequence[Asked], times: int
) -> Floats:
    """(time, field, statistic): as computed, or from the carried pixels of fields that lie in several windows."""
    found = np.full((times, len(cover.ids), len(columns)), np.nan)
    in_order = _ordered(columns)
    for partial in partials:
        if partial.done.size:  # nothing is, when a function of pixels was asked for
            found[:, partial.done] = partial.layers[name].ordered
    segments = np.unique(np.concatenate([partial.carried for partial in partials])).astype(np.int64)
    if not segments.size:
        return found
    fields = np.unique(np.searchsorted(cover.start, segments, side="right") - 1)
    pieces = cover.take(fields)
    layer = _carried_layer(partials, segments, pieces, name, times)
    values = np.full((times, len(fields), len(in_order)), np.nan)
    arguments = _kernel_arguments(layer, (0, 0), pieces.side_by_side())
    ordering.sorted_kernel(arguments[0].dtype)(
        *arguments, pieces.start, np.arange(len(fields)), *_countable(layer), *_codes(in_order), values
    )
    found[:, fields, : len(in_order)] = values
    for k, one in enumerate(_of_pixels(columns), len(in_order)):
        found[:, fields, k] = _of_functions(one, _decoded(layer)[:, 0], pieces)
    return found


def _carried_layer(partials: Sequence[Partial], segments: Ints, pieces: Coverage, name: str, times: int) -> Layer:
    """(time, 1, pixel): the pixels that were carried, put together; stored numbers where all windows store alike."""
    parts = [(partial.carried, partial.layers[name].pixels) for partial in partials if len(partial.carried)]
    first = parts[0][1]
    kinds = {(layer.native.dtype, layer.scale, layer.fill) for _, layer in parts}
    alike = len(kinds) == 1 and first.fill == first.fill
    raw = np.empty((times, 1, pieces.pixels), first.native.dtype if alike else np.float64)
    for carried, layer in parts:
        # A carried segment's place among the taken ones: they are in the same order.
        at = np.searchsorted(segments, carried)
        raw[:, 0, _pixels_of(pieces, at)] = (layer.native if alike else _decoded(layer))[:, 0]
    return Layer(raw, first.scale, first.fill) if alike else Layer(raw)


def _of_functions(asked: Asked, raw: Floats, pieces: Coverage) -> Floats:
    """(time, field): the caller's function of the valid pixels of each field; NaN where there is none."""
    function = asked.statistic.function
    assert function is not None
    edges, weight = pieces.segment_start[pieces.start], pieces.weight
    found = np.full((len(raw), len(pieces.ids)), np.nan)
    for time, values in enumerate(raw):
        for field, (low, high) in enumerate(pairwise(edges.tolist())):
            valid = ~np.isnan(values[low:high])
            if valid.any():
                found[time, field] = function(values[low:high][valid], weight[low:high][valid])
    return found


def _decoded(layer: Layer) -> Floats:
    """float64, NaN where missing: what the kernels make of stored pixels."""
    data, (fill, fills) = layer.native, layer.missing()
    value = data.astype(np.float64) * layer.factor
    if fills:
        value[data == fill] = np.nan
    return value


def _asked(
    layers: Mapping[str, Layer], stats: Mapping[str, Sequence[str | PixelFunction]]
) -> dict[str, tuple[Asked, ...]]:
    if set(layers) != set(stats):
        raise InputError(
            f"Layers and their statistics have to name the same: layers are {sorted(layers)}, stats {sorted(stats)}."
        )
    return {name: parse_stats(columns) for name, columns in stats.items()}


def _check_shapes(layers: Mapping[str, Layer], shape: tuple[int, int], window: Window) -> int:
    """The number of times; `GridError` or `InputError` when a layer does not fit."""
    for name, layer in layers.items():
        if layer.data.shape[1:] != shape:
            raise GridError(
                f"Layer {name!r} has {layer.data.shape[1:]} pixels (rows, columns) but {window} has {shape}."
            )
    times = {name: len(layer.data) for name, layer in layers.items()}
    if len(set(times.values())) > 1:
        raise InputError(f"Layers of one window have the same times; their numbers are {times}.")
    return next(iter(times.values()), 0)


def _key(cover: Coverage) -> tuple[int, int]:
    return len(cover.ids), int(cover.parts.sum())


def _check_partials(partials: Sequence[Partial], cover: Coverage, asked: Mapping[str, Sequence[Asked]]) -> int:
    """The number of times; `InputError` unless the partials hold every segment once and agree with one another."""
    names = {name: tuple(one.suffix for one in columns) for name, columns in asked.items()}
    for partial in partials:
        if partial.cover != _key(cover):
            raise InputError(
                f"The partial of {partial.window} was made with another coverage: (fields, segments) are "
                f"{partial.cover}, here {_key(cover)}."
            )
        if partial.stats != names:
            raise InputError(f"The partial of {partial.window} has {partial.stats}; asked are {names}.")
        if partial.times != partials[0].times:
            raise InputError(
                f"Partials have the same times: {partials[0].window} has {partials[0].times}, "
                f"{partial.window} has {partial.times}."
            )
    seen = np.zeros(len(cover.number), dtype=np.int64)
    for partial in partials:
        np.add.at(seen, partial.number, 1)
    for wrong, word in ((seen == 0, "no partial"), (seen > 1, "more than one partial")):
        if wrong.any():
            first = int(np.argmax(wrong))
            field = int(np.searchsorted(cover.start, first, side="right")) - 1
            raise InputError(
                f"{int(wrong.sum())} of {len(seen)} blocks of fields are in {word}, the first is block "
                f"{int(cover.segment_block[first])} of field {cover.ids[[field]].tolist()[0]!r}. Give each window once."
            )
    return partials[0].times if partials else 0
