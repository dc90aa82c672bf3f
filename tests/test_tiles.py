"""Whole tiles, read without zarr: what zarr reads, whatever the layout."""

from __future__ import annotations

import pickle
from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from geofield.cube.arrays import Arrays, Writer
from geofield.cube.tiles import read_tile, write_tile
from geofield.errors import CorruptStoreError
from geofield.grid import Window

SHAPE, TILE, BLOCK = (40, 56), 16, 8
FILL = {"v": -32768, "w": -1}
TILES = [
    Window(y, x, min(y + TILE, SHAPE[0]), min(x + TILE, SHAPE[1]))
    for y in range(0, SHAPE[0], TILE)
    for x in range(0, SHAPE[1], TILE)
]


def make(**changes: object) -> tuple[Arrays, dict[str, np.ndarray]]:
    """Three days in tiles of 16 x 16: the second day is empty, and so are one tile and one inner chunk of the third."""
    group = zarr.group(store=MemoryStore())
    rng = np.random.default_rng(4)
    arrays = {}
    for name, dtype in (("v", "int16"), ("w", "int32")):
        data = rng.integers(-100, 100, (3, *SHAPE)).astype(dtype)
        data[1] = data[2, :TILE, TILE : 2 * TILE] = data[2, 32:40, 48:56] = FILL[name]
        layout = {
            "chunks": (1, BLOCK, BLOCK), "shards": (1, TILE, TILE), "compressors": BloscCodec(cname="zstd"), **changes,
        }  # fmt: skip
        array = group.create_array(name, shape=data.shape, dtype=dtype, fill_value=FILL[name], **layout)  # type: ignore[arg-type]
        array[:] = data
        arrays[name] = data
    return Arrays(group), arrays


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"compressors": BloscCodec(cname="lz4", shuffle="bitshuffle")},
        {"chunks": (1, 16, 16)},
        {"chunks": (1, 4, 16)},
        {"shards": None},
        {"compressors": None},
        {"shards": (1, 24, 24)},
    ],
    ids=str,
)
@pytest.mark.parametrize("window", TILES, ids=str)
def test_a_tile_is_what_zarr_reads(changes: dict[str, object], window: Window) -> None:
    stored, arrays = make(**changes)
    for step in range(3):
        found = read_tile(stored, ["w", "v"], step, window)
        assert list(found) == ["w", "v"]
        for name, values in found.items():
            assert values.dtype == arrays[name].dtype
            assert np.array_equal(values, arrays[name][(step, *window.slices)])


def test_what_was_written_is_read_again_by_both() -> None:
    stored, arrays = make()
    for number, window in enumerate(TILES):
        values = {name: (data[0][window.slices] + number).astype(data.dtype) for name, data in arrays.items()}
        write_tile(stored, values, 1, window)
        found = read_tile(stored, ["v", "w"], 1, window)
        for name, data in values.items():
            assert np.array_equal(found[name], data)
            assert np.array_equal(np.asarray(stored[name][(1, *window.slices)]), data)


def test_a_tile_of_fill_alone_is_not_stored() -> None:
    stored, _ = make()
    store = stored.group.store
    assert isinstance(store, MemoryStore)
    assert "v/c/0/0/0" in store._store_dict
    write_tile(stored, {"v": np.full((TILE, TILE), FILL["v"], np.int16)}, 0, TILES[0])
    assert "v/c/0/0/0" not in store._store_dict
    assert (read_tile(stored, ["v"], 0, TILES[0])["v"] == FILL["v"]).all()


@pytest.mark.parametrize(("place", "why"), [(-3, "checksum"), (5, "not where its index says"), (None, "shorter")])
def test_a_broken_shard_is_named(place: int | None, why: str) -> None:
    stored, _ = make()
    store = stored.group.store
    assert isinstance(store, MemoryStore)
    shard = bytearray(store._store_dict["v/c/0/0/0"].to_bytes())
    if place is None:
        del shard[20:]
    else:
        shard[place] ^= 0xFF
    store._store_dict["v/c/0/0/0"] = type(store._store_dict["v/c/0/0/0"]).from_bytes(bytes(shard))
    with pytest.raises(CorruptStoreError, match=f"Shard v/c/0/0/0 of the cube is broken: .*{why}"):
        read_tile(stored, ["w", "v"], 0, TILES[0])


def test_an_array_that_is_not_there_is_named() -> None:
    stored, _ = make()
    with pytest.raises(CorruptStoreError, match="no array 'x'"):
        read_tile(stored, ["v", "x"], 0, TILES[0])


def test_an_array_that_was_lengthened_is_longer_for_all_who_share_it() -> None:
    stored, _ = make()
    stored["v"].resize((4, *SHAPE))
    assert stored["v"].shape[0] == 4
    write_tile(stored, {"v": np.ones((TILE, TILE), np.int16)}, 3, TILES[0])
    assert (np.asarray(stored["v"][3, :TILE, :TILE]) == 1).all()


def test_a_writer_takes_its_session_alone_to_another_process(tmp_path: Path) -> None:
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path)))
    session = repository.writable_session("main")
    zarr.group(store=session.store).create_array("v", shape=(1,), dtype="int8")
    session.commit("an array")
    writer = Writer(repository.writable_session("main").fork())
    assert writer.arrays["v"] is writer.arrays["v"]
    other = pickle.loads(pickle.dumps(writer))
    assert "arrays" not in other.__dict__
    assert other.session is not writer.session
