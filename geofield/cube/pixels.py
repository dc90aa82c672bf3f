"""Stored integers of chosen pixels at chosen steps, with as few requests as the layout of the cube allows.

zarr-python reads the inner chunks of a shard one after another, and ten shards at a time; a late field asks hundreds of
shards for one chunk each. Here every shard costs one request for its index and one for each run of neighbouring inner
chunks, many shards are asked at once, and only the pixels asked for are kept.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer import default_buffer_prototype

from geofield.cube.cube import array_of
from geofield.cube.failures import answering
from geofield.encoding import IntArray
from geofield.errors import CorruptStoreError

Ints = npt.NDArray[np.int64]

AT_ONCE = 128
"""Shards asked for at the same time. At 30 ms a request, 584 shards take 0.3 s; at zarr's 10 they take 3.6 s."""
BYTES_AT_ONCE = 128 * 2**20
"""Decoded bytes of chunks that may be on their way."""
_BLOSC = Blosc()  # decodes whatever its settings were
_NOWHERE = 2**64 - 1  # offset and length of an inner chunk that is not stored


@dataclass
class Fetched:
    """What reading took: requests for parts of shards, and their bytes."""

    requests: int = 0
    bytes: int = 0

    def count(self, data: npt.NDArray[np.uint8]) -> None:
        """One answer."""
        self.requests += 1
        self.bytes += data.nbytes


@answering("read pixels of a cube")
def read_pixels(
    group: zarr.Group,
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
    layouts: dict[tuple[tuple[int, ...], tuple[int, ...]], list[_ShardPixels]] = {}
    for name, wanted in steps.items():
        array = array_of(group, name)
        out[name] = np.full((len(wanted), len(row)), array.fill_value, dtype=array.dtype)
        if not len(row) or not len(wanted):
            continue
        if not _is_known(array):
            out[name][:] = _by_zarr(array, wanted, row, col)
            continue
        assert array.shards is not None
        key = (array.shards, array.chunks)
        if key not in layouts:
            layouts[key] = _pixels_by_shard(row, col, *key)
        reader = _ShardReader(group.store, np.dtype(array.dtype), array.chunks, array.shards, fetched)
        for number, step in enumerate(wanted.tolist()):
            keys = (f"{array.path}/{_chunk_key(array, (step, *place.shard))}" for place in layouts[key])
            jobs += [
                _Job(reader, shard, place, out[name][number]) for shard, place in zip(keys, layouts[key], strict=True)
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
    row: npt.NDArray[np.int32], col: npt.NDArray[np.int32], shards: tuple[int, ...], chunks: tuple[int, ...]
) -> list[_ShardPixels]:
    (_, high, wide), (_, chunk_high, chunk_wide) = shards, chunks
    shard_y, y = np.divmod(row.astype(np.int64), high)
    shard_x, x = np.divmod(col.astype(np.int64), wide)
    chunk = y // chunk_high * (wide // chunk_wide) + x // chunk_wide
    place = y % chunk_high * chunk_wide + x % chunk_wide
    order = np.lexsort((chunk, shard_x, shard_y))
    keys = np.stack([shard_y[order], shard_x[order], chunk[order]])
    first = np.flatnonzero(np.diff(keys, axis=1, prepend=-1).any(axis=0))
    found: dict[tuple[int, int], _ShardPixels] = {}
    for (at_y, at_x, number), which in zip(keys[:, first].T.tolist(), np.split(order, first[1:]), strict=True):
        shard = found.setdefault((at_y, at_x), _ShardPixels((at_y, at_x), []))
        shard.chunks.append((number, which, place[which]))
    return list(found.values())


@dataclass(frozen=True, eq=False)
class _Job:
    """One shard: where it lies, which pixels are asked of it, and where they go (pixel,)."""

    reader: _ShardReader
    key: str
    pixels: _ShardPixels
    out: IntArray


async def _run(jobs: Sequence[_Job]) -> None:
    largest = max(len(job.pixels.chunks) * job.reader.chunk_bytes for job in jobs)
    limit = asyncio.Semaphore(max(4, min(AT_ONCE, BYTES_AT_ONCE // largest)))

    async def one(job: _Job) -> None:
        async with limit:
            await job.reader.read(job)

    await asyncio.gather(*(one(job) for job in jobs))


@dataclass(frozen=True, eq=False)
class _ShardReader:
    """Reads shards of one array: `sharding_indexed` of Zarr v3, index at the end, chunks compressed by Blosc."""

    store: Store
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    fetched: Fetched

    @property
    def inner(self) -> int:
        """Inner chunks of a shard."""
        return int(np.prod(self.shards) // np.prod(self.chunks))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded inner chunk."""
        return int(np.prod(self.chunks)) * self.dtype.itemsize

    async def read(self, job: _Job) -> None:
        size = 16 * self.inner + 4
        if len(job.pixels.chunks) == self.inner:  # all of it: one request
            whole = await self._get(job.key, None)
            if whole is not None:
                index = self._index(job.key, whole[-size:])
                self._place(job, index, 0, whole, job.pixels.chunks)
            return
        tail = await self._get(job.key, SuffixByteRequest(size))
        if tail is None:
            return
        index = self._index(job.key, tail)
        for run in _runs(index, job.pixels.chunks):
            start, end = int(index[run[0][0], 0]), int(index[run[-1][0]].sum())
            data = await self._get(job.key, RangeByteRequest(start, end))
            if data is None:
                raise _corrupt(job.key, "it vanished while it was read")
            self._place(job, index, start, data, run)

    async def _get(self, key: str, part: Any) -> npt.NDArray[np.uint8] | None:
        buffer = await self.store.get(key, default_buffer_prototype(), part)
        if buffer is None:
            return None
        data: npt.NDArray[np.uint8] = np.asarray(buffer.as_numpy_array())
        self.fetched.count(data)
        return data

    def _index(self, key: str, tail: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
        """(inner chunk, 2): offset and length."""
        if tail.nbytes != 16 * self.inner + 4:
            raise _corrupt(key, "it is shorter than its index")
        content = tail[:-4].tobytes()
        if google_crc32c.value(content) != struct.unpack("<I", tail[-4:].tobytes())[0]:
            raise _corrupt(key, "the checksum of its index is wrong")
        return np.frombuffer(content, dtype="<u8").reshape(-1, 2)

    def _place(
        self,
        job: _Job,
        index: npt.NDArray[np.uint64],
        start: int,
        data: npt.NDArray[np.uint8],
        chunks: Sequence[tuple[int, Ints, Ints]],
    ) -> None:
        for number, pixels, place in chunks:
            if index[number, 0] == _NOWHERE:
                continue
            begin, length = int(index[number, 0]) - start, int(index[number, 1])
            job.out[pixels] = self._decoded(job.key, data[begin : begin + length], length)[place]

    def _decoded(self, key: str, data: npt.NDArray[np.uint8], length: int) -> IntArray:
        # Blosc says in bytes 4 to 8 what it will become: a broken header must not ask for memory without end
        if data.nbytes != length or length < 16 or struct.unpack("<I", data[4:8].tobytes())[0] != self.chunk_bytes:
            raise _corrupt(key, "an inner chunk is not where its index says")
        try:
            decoded = _BLOSC.decode(data)
        except RuntimeError as error:
            raise _corrupt(key, f"an inner chunk cannot be decompressed ({error})") from error
        return np.frombuffer(decoded, dtype=self.dtype.newbyteorder("<"))


def _runs(
    index: npt.NDArray[np.uint64], chunks: Sequence[tuple[int, Ints, Ints]]
) -> list[list[tuple[int, Ints, Ints]]]:
    """Stored chunks in the order in which they lie, those without a gap between them together."""
    stored = [chunk for chunk in chunks if int(index[chunk[0], 0]) != _NOWHERE]
    stored.sort(key=lambda chunk: int(index[chunk[0], 0]))
    runs: list[list[tuple[int, Ints, Ints]]] = []
    for chunk in stored:
        if runs and int(index[runs[-1][-1][0]].sum()) == int(index[chunk[0], 0]):
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return runs


def _is_known(array: zarr.Array[Any]) -> bool:
    """Whether the array lies as `create_arrays` lays it; others are left to zarr."""
    shards, codecs = array.shards, array.metadata.to_dict().get("codecs")
    if array.ndim != 3 or shards is None or shards[0] != 1 or array.chunks[0] != 1 or not isinstance(codecs, Sequence):
        return False
    found: Any = codecs[0]
    if len(codecs) != 1 or found.get("name") != "sharding_indexed":
        return False
    sharding = found["configuration"]
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    inner, index = list(sharding["codecs"]), list(sharding["index_codecs"])
    return (
        str(getattr(sharding.get("index_location", "end"), "value", sharding.get("index_location", "end"))) == "end"
        and len(inner) == 2
        and inner[0] == little
        and inner[1].get("name") == "blosc"
        and len(index) == 2
        and index[0] == little
        and index[1].get("name") == "crc32c"
    )


def _by_zarr(array: zarr.Array[Any], steps: Ints, row: npt.NDArray[np.int32], col: npt.NDArray[np.int32]) -> IntArray:
    y0, x0 = int(row.min()), int(col.min())
    window = np.asarray(array.oindex[steps, slice(y0, int(row.max()) + 1), slice(x0, int(col.max()) + 1)])
    return window[:, row - y0, col - x0]


def _chunk_key(array: zarr.Array[Any], place: tuple[int, int, int]) -> str:
    encode: Callable[[tuple[int, ...]], str] = array.metadata.chunk_key_encoding.encode_chunk_key  # type: ignore[union-attr]
    return encode(place)


def _corrupt(key: str, why: str) -> CorruptStoreError:
    return CorruptStoreError(f"Shard {key} of the cube is broken: {why}. Run `geofield verify` on the store.")
