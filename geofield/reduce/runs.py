"""Pixels of fields as runs: neighbours in one row of one block, with a weight each or wholly covered. No I/O.

A field of 20 pixels across has one run a row: its kernel reads neighbours, not places. A field as large as the box is
runs of a block's width almost everywhere, without a weight for each pixel: 20 bytes for 256 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from geofield.grid import BLOCK

Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]

LONG = 24
"""So many wholly covered neighbours are a run of their own: shorter ones cost less as weights."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of some fields, one field after another; in each by block (row-major), and row-major in each block."""

    counts: Ints
    """(field,) runs of each field."""
    row: Places
    """(run,) row on the grid."""
    col: Places
    """(run,) first column on the grid."""
    length: Places
    """(run,) number of pixels; a run never leaves its block."""
    whole: npt.NDArray[np.bool_]
    """(run,) whether every pixel is wholly covered: no weights are kept then."""
    weight: Weights
    """Weights, above 0 to 1, of the pixels of the other runs, one after another; exactextract's are float32."""

    @property
    def offset(self) -> Ints:
        """(run,) where its weights begin; -1 for whole ones."""
        kept = np.where(self.whole, 0, self.length).astype(np.int64)
        return np.where(self.whole, -1, np.cumsum(kept) - kept)

    def take(self, fields: Ints) -> Runs:
        """Runs of some fields, by number, in the order asked for."""
        if np.array_equal(fields, np.arange(len(self.counts))):
            return self
        chosen, _ = ranges(np.concatenate([[0], np.cumsum(self.counts)]), fields)
        return self.select(self.counts[fields], chosen)

    def as_one(self) -> Runs:
        """The same runs, of one field."""
        return replace(self, counts=np.array([len(self.row)], dtype=np.int64))

    def select(self, counts: Ints, chosen: Ints) -> Runs:
        """Some runs, by number; `counts` says how many belong to each field."""
        weight = picked_weights(self.length[chosen], self.offset[chosen], self.weight)
        return Runs(counts, self.row[chosen], self.col[chosen], self.length[chosen], self.whole[chosen], weight)


def join(parts: Sequence[Runs]) -> Runs:
    """Runs of the fields of all parts, one part after another."""
    if len(parts) == 1:
        return parts[0]
    names = ("counts", "row", "col", "length", "whole", "weight")
    return Runs(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def ranges(start: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """The elements start[i] to start[i + 1] of every chosen i, one after another, and where each begins."""
    lengths = start[chosen + 1] - start[chosen]
    begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(begins[-1]) + np.repeat(start[chosen] - begins[:-1], lengths), begins


def picked_weights(length: Places, offset: Ints, weight: Weights) -> Weights:
    """The weights of some runs, one after another."""
    kept = offset >= 0
    return np.asarray(_slices(offset[kept], length[kept], weight), dtype=np.float32)


def from_cells(cells: npt.NDArray[Any], weight: npt.NDArray[Any], counts: Ints, columns: int) -> Runs:
    """Runs of pixels that are given by number.

    Parameters
    ----------
    cells, weight
        (pixel,) number on the grid, row-major, ascending in each field; share that is covered, left out where it is 0.
    counts
        (field,) pixels of each field.
    columns
        Of the grid.
    """
    return ordered(Runs(*_cut(cells, weight.astype(np.float32, copy=False), counts, columns, BLOCK, LONG)), columns)


def whole_rectangle(y0: int, x0: int, y1: int, x1: int) -> Runs:
    """A wholly covered rectangle as one field, block by block."""
    parts = []
    for y in range(y0 - y0 % BLOCK, y1, BLOCK):
        for x in range(x0 - x0 % BLOCK, x1, BLOCK):
            rows = np.arange(max(y, y0), min(y + BLOCK, y1), dtype=np.int32)
            left, right = max(x, x0), min(x + BLOCK, x1)
            parts.append(np.stack([rows, np.full_like(rows, left), np.full_like(rows, right - left)]))
    row, col, length = np.concatenate(parts, axis=1)
    return Runs(np.array([len(row)]), row, col, length, np.ones(len(row), np.bool_), np.empty(0, np.float32))


def ordered(runs: Runs, columns: int) -> Runs:
    """The runs by block in each field; those of one block keep their order."""
    block = blocks_of(runs.row, runs.col, columns)
    field = np.repeat(np.arange(len(runs.counts)), runs.counts)
    back = np.flatnonzero((block[1:] < block[:-1]) & (field[1:] == field[:-1]))
    if not back.size:
        return runs
    # Most fields lie in one block: only the others are sorted.
    crossing = np.zeros(len(runs.counts), dtype=np.bool_)
    crossing[field[back]] = True
    some = np.flatnonzero(crossing[field])
    order = np.arange(len(field))
    order[some] = some[np.lexsort((block[some], field[some]))]
    return runs.select(runs.counts, order)


def blocks_of(row: Places, col: Places, columns: int) -> Ints:
    """Number, row-major, of the block in which each run lies."""
    across = -(-columns // BLOCK)
    return np.asarray((row // BLOCK).astype(np.int64) * across + col // BLOCK)


@numba.njit(cache=True, nogil=True)
def _cut(cells: Any, weight: Any, counts: Any, columns: int, block: int, long: int) -> Any:
    """Runs in the order of the pixels: cut at gaps, at edges of blocks, and around long stretches of weight 1."""
    size = len(cells)
    row, col, length = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    whole, kept = np.empty(size, np.bool_), np.empty(size, np.float32)
    found = np.zeros(len(counts), np.int64)
    n, k, pixel = 0, 0, 0
    for field in range(len(counts)):
        end, last, before = pixel + counts[field], np.int64(-2), n
        while pixel < end:
            share = weight[pixel]
            if not share > 0:
                pixel += 1
                continue
            cell = np.int64(cells[pixel])
            y = cell // columns
            x = cell - y * columns
            one, after, edge = share == 1, pixel + 1, x // block * block + block
            while (
                after < end
                and x + (after - pixel) < columns
                and x + (after - pixel) < edge
                and np.int64(cells[after]) == cell + (after - pixel)
                and weight[after] > 0
                and (weight[after] == 1) == one
            ):
                after += 1
            own = one and after - pixel >= long
            if not own and cell == last + 1 and x % block != 0 and not whole[n - 1]:
                length[n - 1] += after - pixel
            else:
                row[n], col[n], length[n], whole[n] = y, x, after - pixel, own
                n += 1
            last = cell + (after - pixel) - 1
            if own:
                pixel = after
            else:
                while pixel < after:
                    kept[k] = weight[pixel]
                    k += 1
                    pixel += 1
        found[field] = n - before
    return found, row[:n].copy(), col[:n].copy(), length[:n].copy(), whole[:n].copy(), kept[:k].copy()


@numba.njit(cache=True, nogil=True)
def _slices(offset: Any, length: Any, weight: Any) -> Any:
    out = np.empty(length.sum(), weight.dtype)
    at = 0
    for run in range(len(offset)):
        for i in range(length[run]):
            out[at + i] = weight[offset[run] + i]
        at += length[run]
    return out


@numba.njit(cache=True, nogil=True)
def expand(row: Any, col: Any, length: Any) -> Any:
    """(pixel,) rows and columns of all pixels of some runs."""
    total = length.sum()
    rows, cols = np.empty(total, np.int32), np.empty(total, np.int32)
    at = 0
    for run in range(len(row)):
        for i in range(length[run]):
            rows[at + i], cols[at + i] = row[run], col[run] + i
        at += length[run]
    return rows, cols


@numba.njit(cache=True, nogil=True)
def expand_weights(length: Any, offset: Any, weight: Any) -> Any:
    """(pixel,) weights of all pixels of some runs, float64."""
    out = np.empty(length.sum())
    at = 0
    for run in range(len(length)):
        for i in range(length[run]):
            out[at + i] = 1.0 if offset[run] < 0 else weight[offset[run] + i]
        at += length[run]
    return out
