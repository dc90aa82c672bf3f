"""Chosen pixels of a cube: what zarr reads itself, with one request for each index and each run of chunks."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from geofield.cube.arrays import Arrays
from geofield.cube.pixels import Fetched, read_pixels
from geofield.errors import CorruptStoreError

STEPS = np.array([0, 2, 3])


def make_group(**changes: object) -> tuple[Arrays, dict[str, np.ndarray]]:
    """Four days of 40 x 56 pixels, shards of 16 x 16, inner chunks of 8 x 8; day 1 and one shard of day 2 are empty."""
    group = zarr.group(store=MemoryStore())
    rng = np.random.default_rng(1)
    arrays = {}
    for name, dtype in (("v", "int16"), ("w", "int32")):
        data = rng.integers(-100, 100, (4, 40, 56)).astype(dtype)
        data[1] = np.iinfo(dtype).min
        data[2, :16, :16] = np.iinfo(dtype).min
        data[3, 16:24, 16:24] = np.iinfo(dtype).min
        layout = {"chunks": (1, 8, 8), "shards": (1, 16, 16), "compressors": BloscCodec(cname="zstd"), **changes}
        array = group.create_array(name, shape=data.shape, dtype=dtype, fill_value=int(np.iinfo(dtype).min), **layout)  # type: ignore[arg-type]
        array[:] = data
        arrays[name] = data
    return Arrays(group), arrays


def some_pixels() -> tuple[np.ndarray, np.ndarray]:
    """Everywhere, in no order, one of them twice."""
    rng = np.random.default_rng(2)
    row, col = rng.integers(0, 40, 300), rng.integers(0, 56, 300)
    row[7], col[7] = row[0], col[0]
    return row.astype(np.int32), col.astype(np.int32)


@pytest.mark.parametrize(
    "changes",
    [{}, {"shards": None}, {"compressors": None}, {"compressors": BloscCodec(cname="lz4")}, {"chunks": (1, 16, 16)}],
)
def test_pixels_are_those_that_zarr_reads_whatever_the_layout(changes: dict[str, object]) -> None:
    stored, arrays = make_group(**changes)
    row, col = some_pixels()
    found = read_pixels(stored, {"v": STEPS, "w": STEPS[1:]}, row, col)
    assert np.array_equal(found["v"], arrays["v"][STEPS][:, row, col])
    assert np.array_equal(found["w"], arrays["w"][STEPS[1:]][:, row, col])
    assert found["v"].dtype == np.int16


def test_nothing_is_asked_for_no_pixel_and_no_step() -> None:
    stored, _ = make_group()
    fetched = Fetched()
    nothing = np.empty(0, np.int32)
    assert read_pixels(stored, {"v": STEPS}, nothing, nothing, fetched)["v"].shape == (3, 0)
    assert read_pixels(stored, {"v": STEPS[:0]}, *some_pixels(), fetched)["v"].shape == (0, 300)
    assert (fetched.requests, fetched.bytes) == (0, 0)


def test_requests_are_an_index_and_a_run_for_each_shard() -> None:
    stored, _ = make_group()
    corner = np.array([0, 7], np.int32)  # one inner chunk
    one = Fetched()
    read_pixels(stored, {"v": np.array([0, 3])}, corner, corner, one)
    assert one.requests == 4
    whole = Fetched()
    row, col = (part.ravel().astype(np.int32) for part in np.mgrid[0:16, 0:16])
    read_pixels(stored, {"v": np.array([0, 3])}, row, col, whole)
    assert whole.requests == 2  # whole shards
    absent = Fetched()
    read_pixels(stored, {"v": np.array([1])}, corner, corner, absent)
    assert absent.requests == 0
    column = Fetched()
    read_pixels(stored, {"v": np.array([0])}, np.array([0, 8], np.int32), np.zeros(2, np.int32), column)
    assert column.requests <= 3
    most = Fetched()  # three of four chunks: whatever order a shard keeps them in, two are neighbours
    read_pixels(stored, {"v": np.array([0])}, np.array([0, 8, 0], np.int32), np.array([0, 0, 8], np.int32), most)
    assert most.requests <= 3


@pytest.mark.parametrize("place", [-3, -30, 5])
def test_a_broken_shard_is_refused(place: int) -> None:
    stored, _ = make_group()
    store = stored.group.store
    assert isinstance(store, MemoryStore)
    shard = bytearray(store._store_dict["v/c/0/0/0"].to_bytes())
    shard[place] ^= 0xFF
    store._store_dict["v/c/0/0/0"] = type(store._store_dict["v/c/0/0/0"]).from_bytes(bytes(shard))
    row, col = (part.ravel().astype(np.int32) for part in np.mgrid[0:9, 0:9])
    with pytest.raises(CorruptStoreError, match="v/c/0/0/0 of the cube is broken"):
        read_pixels(stored, {"v": np.array([0])}, row, col)


def test_a_shard_that_was_cut_is_refused() -> None:
    stored, _ = make_group()
    store = stored.group.store
    assert isinstance(store, MemoryStore)
    whole = store._store_dict["v/c/0/0/0"]
    store._store_dict["v/c/0/0/0"] = type(whole).from_bytes(whole.to_bytes()[:20])
    with pytest.raises(CorruptStoreError, match="shorter than its index"):
        read_pixels(stored, {"v": np.array([0])}, np.zeros(1, np.int32), np.zeros(1, np.int32))
