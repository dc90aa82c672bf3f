"""Whole tiles of one step: what the kernels start from, and what they bring forth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype

from geofield.cube.arrays import Arrays
from geofield.cube.failures import answering
from geofield.cube.layout import Bytes, ShardLayout
from geofield.cube.together import together
from geofield.encoding import IntArray
from geofield.grid import Window


@answering("read pixels of a cube")
def read_tile(arrays: Arrays, names: Sequence[str], step: int, window: Window) -> dict[str, IntArray]:
    """Stored integers of some arrays at one step: name -> (y, x).

    Shards are fetched whole and at once, and decoded here: zarr sends every inner chunk through a thread of its own,
    which takes longer than to decode it.

    Parameters
    ----------
    window
        A tile of the cube's grid.

    Raises
    ------
    CorruptStoreError
        A shard does not hold what its index says.
    """
    place = (step, *window.slices)
    layouts = {name: layout for name in names if (layout := arrays.layout(name)) and _is_shard(layout, window)}
    keys = {name: layout.key_of((step, *_place(layout, window))) for name, layout in layouts.items()}
    fetched = together({name: _fetch(arrays.group.store, key) for name, key in keys.items()})
    rows, columns = window.shape
    return {
        name: layouts[name].whole(keys[name], fetched[name])[:rows, :columns]
        if name in layouts
        else np.asarray(arrays[name][place])
        for name in names
    }


@answering("write pixels of a cube")
def write_tile(arrays: Arrays, values: Mapping[str, IntArray], step: int, window: Window) -> None:
    """Write a tile of one step of some arrays: name -> (y, x) stored integers."""
    place = (step, *window.slices)
    together({name: arrays[name].async_array.setitem(place, data) for name, data in values.items()})


def _place(layout: ShardLayout, window: Window) -> tuple[int, int]:
    return window.y0 // layout.shard[0], window.x0 // layout.shard[1]


def _is_shard(layout: ShardLayout, window: Window) -> bool:
    """Whether a window is all that the grid has of one shard's pixels."""
    high, wide = layout.shard
    rows, columns = window.shape
    return window.y0 % high == 0 and window.x0 % wide == 0 and rows <= high and columns <= wide


async def _fetch(store: Store, key: str) -> Bytes | None:
    buffer = await store.get(key, default_buffer_prototype())
    return None if buffer is None else np.asarray(buffer.as_numpy_array())
