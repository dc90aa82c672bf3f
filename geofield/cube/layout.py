"""How a shard of a cube lies in bytes: `sharding_indexed` of Zarr v3, index at the end, chunks compressed by Blosc."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]

from geofield.encoding import IntArray
from geofield.errors import CorruptStoreError

Bytes = npt.NDArray[np.uint8]

NOWHERE = 2**64 - 1
"""Offset and length of an inner chunk that is not stored."""
_BLOSC = Blosc()  # decodes whatever its settings were


@dataclass(frozen=True)
class ShardLayout:
    """The shards of an array (time, y, x): one step each, cut into inner chunks.

    Attributes
    ----------
    fill
        What a pixel of an inner chunk is that is not stored.
    shard, chunk
        (rows, columns).
    key_of
        Key of the shard at (step, row, column) of the raster of shards.
    """

    dtype: np.dtype[Any]
    fill: int
    shard: tuple[int, int]
    chunk: tuple[int, int]
    key_of: Callable[[tuple[int, int, int]], str]

    @property
    def inner(self) -> int:
        """Inner chunks of a shard."""
        return (self.shard[0] // self.chunk[0]) * (self.shard[1] // self.chunk[1])

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded inner chunk."""
        return self.chunk[0] * self.chunk[1] * self.dtype.itemsize

    @property
    def index_bytes(self) -> int:
        """Bytes of the index, with its checksum."""
        return 16 * self.inner + 4

    def index(self, key: str, tail: Bytes) -> npt.NDArray[np.uint64]:
        """(inner chunk, 2): offset and length, from the last bytes of a shard; `CorruptStoreError` if they are not."""
        if tail.nbytes != self.index_bytes:
            raise broken(key, "it is shorter than its index")
        content = tail[:-4].tobytes()
        if google_crc32c.value(content) != struct.unpack("<I", tail[-4:].tobytes())[0]:
            raise broken(key, "the checksum of its index is wrong")
        return np.frombuffer(content, dtype="<u8").reshape(-1, 2)

    def decoded(self, key: str, data: Bytes, length: int) -> IntArray:
        """(pixel,) of one inner chunk, row by row."""
        # Blosc says in bytes 4 to 8 what it will become: a broken header must not ask for memory without end
        if data.nbytes != length or length < 16 or struct.unpack("<I", data[4:8].tobytes())[0] != self.chunk_bytes:
            raise broken(key, "an inner chunk is not where its index says")
        try:
            decoded = _BLOSC.decode(data)
        except RuntimeError as error:
            raise broken(key, f"an inner chunk cannot be decompressed ({error})") from error
        return np.frombuffer(decoded, dtype=self.dtype.newbyteorder("<"))

    def whole(self, key: str, data: Bytes | None) -> IntArray:
        """(rows, columns) of a whole shard; fill where there is none."""
        out = np.full(self.shard, self.fill, self.dtype)
        if data is None:
            return out
        rows, columns = self.chunk
        across = self.shard[1] // columns
        for number, (offset, length) in enumerate(self.index(key, data[-self.index_bytes :]).tolist()):
            if offset != NOWHERE:
                y, x = number // across * rows, number % across * columns
                pixels = self.decoded(key, data[offset : offset + length], length)
                out[y : y + rows, x : x + columns] = pixels.reshape(self.chunk)
        return out


def layout_of(array: zarr.Array[Any]) -> ShardLayout | None:
    """None for an array that does not lie as `create_arrays` lays it: those are left to zarr."""
    shards, chunks, codecs = array.shards, array.chunks, array.metadata.to_dict().get("codecs")
    if array.ndim != 3 or shards is None or shards[0] != 1 or chunks[0] != 1 or not isinstance(codecs, Sequence):
        return None
    found: Any = codecs[0]
    if len(codecs) != 1 or found.get("name") != "sharding_indexed":
        return None
    sharding = found["configuration"]
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    inner, index = list(sharding["codecs"]), list(sharding["index_codecs"])
    if not (
        str(getattr(sharding.get("index_location", "end"), "value", sharding.get("index_location", "end"))) == "end"
        and len(inner) == 2
        and inner[0] == little
        and inner[1].get("name") == "blosc"
        and len(index) == 2
        and index[0] == little
        and index[1].get("name") == "crc32c"
    ):
        return None
    encode: Callable[[tuple[int, ...]], str] = array.metadata.chunk_key_encoding.encode_chunk_key  # type: ignore[union-attr]
    return ShardLayout(
        np.dtype(array.dtype),
        int(array.fill_value),
        (shards[1], shards[2]),
        (chunks[1], chunks[2]),
        lambda place: f"{array.path}/{encode(place)}",
    )


def broken(key: str, why: str) -> CorruptStoreError:
    """The error for a shard that is not what it should be."""
    return CorruptStoreError(f"Shard {key} of the cube is broken: {why}. Run `geofield verify` on the store.")
