"""Stored integers of chosen pixels at chosen steps, with as few requests as the layout of the cube allows.

zarr-python reads the inner chunks of a shard one after another, and ten shards at a time; a late field asks hundreds of
shards for one chunk each. Here every shard costs one request for its index and one for each run of neighbouring inner
chunks, many shards are asked at once, and only the pixels asked for are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer import default_buffer_prototype

from geofield.cube.arrays import Arrays
from geofield.cube.failures import answering
from geofield.cube.layout import NOWHERE, Bytes, ShardLayout, broken
from geofield.encoding import IntArray

Ints = npt.NDArray[np.int64]

AT_ONCE = 128
"""Shards asked for at the same time. At 30 ms a request, 584 shards take 0.3 s; at zarr's 10 they take 3.6 s."""
BYTES_AT_ONCE = 128 * 2**20
"""Decoded bytes of chunks that may be on their way."""


@dataclass
class Fetched:
    """What reading took: requests for parts of shards, and their bytes."""

    requests: int = 0
    bytes: int = 0

    def count(self, data: Bytes) -> None:
        """One answer."""
        self.requests += 1
        self.bytes += data.nbytes


@answering("read pixels of a cube")
def read_pixels(
    arrays: Arrays,
    steps: dict[str, Ints],
    row: npt.NDArray[np.int32],
    col: npt.NDArray[np.int32],
    fetched: Fetched | None = None,
) -> dict[str, IntArray]:
    """Pixels of some arrays.

    Parameters
    ----------
    steps
        Array -> steps, ascending, each once. Only these are read.
    row, col
        (pixel,) where they lie on the grid; any order, any number of times.
    fetched
        Gets what the reading took added.

    Returns
    -------
    Array -> (step, pixel), as stored; the fill value where nothing is.

    Raises
    ------
    CorruptStoreError
        A shard does not hold what its index says.
    """
    fetched = Fetched() if fetched is None else fetched
    out: dict[str, IntArray] = {}
    jobs: list[_Job] = []
    places: dict[tuple[tuple[int, int], tuple[int, int]], list[_ShardPixels]] = {}
    for name, wanted in steps.items():
        array = arrays[name]
        out[name] = np.full((len(wanted), len(row)), array.fill_value, dtype=array.dtype)
        if not len(row) or not len(wanted):
            continue
        layout = arrays.layout(name)
        if layout is None:
            out[name][:] = _by_zarr(array, wanted, row, col)
            continue
        shape = (layout.shard, layout.chunk)
        if shape not in places:
            places[shape] = _pixels_by_shard(row, col, *shape)
        reader = _ShardReader(array.store, layout, fetched)
        for number, step in enumerate(wanted.tolist()):
            jobs += [
                _Job(reader, layout.key_of((step, *place.shard)), place, out[name][number]) for place in places[shape]
            ]
    if jobs:
        # a thread of its own: the caller may be in a running event loop, as in a notebook
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, _run(jobs)).result()
    return out


@dataclass(frozen=True, eq=False)
class _ShardPixels:
    """The pixels asked for in the shards at one place of the grid."""

    shard: tuple[int, int]
    chunks: list[tuple[int, Ints, Ints]]
    """Number of the inner chunk (row-major), which pixels lie in it, and where in it (row-major)."""


def _pixels_by_shard(
    row: npt.NDArray[np.int32], col: npt.NDArray[np.int32], shard: tuple[int, int], chunk: tuple[int, int]
) -> list[_ShardPixels]:
    (high, wide), (chunk_high, chunk_wide) = shard, chunk
    shard_y, y = np.divmod(row.astype(np.int64), high)
    shard_x, x = np.divmod(col.astype(np.int64), wide)
    inner = y // chunk_high * (wide // chunk_wide) + x // chunk_wide
    place = y % chunk_high * chunk_wide + x % chunk_wide
    order = np.lexsort((inner, shard_x, shard_y))
    keys = np.stack([shard_y[order], shard_x[order], inner[order]])
    first = np.flatnonzero(np.diff(keys, axis=1, prepend=-1).any(axis=0))
    found: dict[tuple[int, int], _ShardPixels] = {}
    for (at_y, at_x, number), which in zip(keys[:, first].T.tolist(), np.split(order, first[1:]), strict=True):
        there = found.setdefault((at_y, at_x), _ShardPixels((at_y, at_x), []))
        there.chunks.append((number, which, place[which]))
    return list(found.values())


@dataclass(frozen=True, eq=False)
class _Job:
    """One shard: where it lies, which pixels are asked of it, and where they go (pixel,)."""

    reader: _ShardReader
    key: str
    pixels: _ShardPixels
    out: IntArray


async def _run(jobs: Sequence[_Job]) -> None:
    largest = max(len(job.pixels.chunks) * job.reader.layout.chunk_bytes for job in jobs)
    limit = asyncio.Semaphore(max(4, min(AT_ONCE, BYTES_AT_ONCE // largest)))

    async def one(job: _Job) -> None:
        async with limit:
            await job.reader.read(job)

    await asyncio.gather(*(one(job) for job in jobs))


@dataclass(frozen=True, eq=False)
class _ShardReader:
    """Reads parts of the shards of one array."""

    store: Store
    layout: ShardLayout
    fetched: Fetched

    async def read(self, job: _Job) -> None:
        layout = self.layout
        if len(job.pixels.chunks) == layout.inner:  # all of it: one request
            whole = await self._get(job.key, None)
            if whole is not None:
                index = layout.index(job.key, whole[-layout.index_bytes :])
                self._place(job, index, 0, whole, job.pixels.chunks)
            return
        tail = await self._get(job.key, SuffixByteRequest(layout.index_bytes))
        if tail is None:
            return
        index = layout.index(job.key, tail)
        for run in _runs(index, job.pixels.chunks):
            start, end = int(index[run[0][0], 0]), int(index[run[-1][0]].sum())
            data = await self._get(job.key, RangeByteRequest(start, end))
            if data is None:
                raise broken(job.key, "it vanished while it was read")
            self._place(job, index, start, data, run)

    async def _get(self, key: str, part: Any) -> Bytes | None:
        buffer = await self.store.get(key, default_buffer_prototype(), part)
        if buffer is None:
            return None
        data: Bytes = np.asarray(buffer.as_numpy_array())
        self.fetched.count(data)
        return data

    def _place(
        self,
        job: _Job,
        index: npt.NDArray[np.uint64],
        start: int,
        data: Bytes,
        chunks: Sequence[tuple[int, Ints, Ints]],
    ) -> None:
        for number, pixels, place in chunks:
            if index[number, 0] == NOWHERE:
                continue
            begin, length = int(index[number, 0]) - start, int(index[number, 1])
            job.out[pixels] = self.layout.decoded(job.key, data[begin : begin + length], length)[place]


def _runs(
    index: npt.NDArray[np.uint64], chunks: Sequence[tuple[int, Ints, Ints]]
) -> list[list[tuple[int, Ints, Ints]]]:
    """Stored chunks in the order in which they lie, those without a gap between them together."""
    stored = [chunk for chunk in chunks if int(index[chunk[0], 0]) != NOWHERE]
    stored.sort(key=lambda chunk: int(index[chunk[0], 0]))
    runs: list[list[tuple[int, Ints, Ints]]] = []
    for chunk in stored:
        if runs and int(index[runs[-1][-1][0]].sum()) == int(index[chunk[0], 0]):
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return runs


def _by_zarr(array: zarr.Array[Any], steps: Ints, row: npt.NDArray[np.int32], col: npt.NDArray[np.int32]) -> IntArray:
    y0, x0 = int(row.min()), int(col.min())
    window = np.asarray(array.oindex[steps, slice(y0, int(row.max()) + 1), slice(x0, int(col.max()) + 1)])
    return window[:, row - y0, col - x0]
