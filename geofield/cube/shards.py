"""Which shards a snapshot holds, asked of its manifests: no pixel is read."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import icechunk
import numpy as np
import numpy.typing as npt

from geofield.cube.schema import Schema


def stored_shards(session: icechunk.Session, schema: Schema, days: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Array name -> (time, tile_y, tile_x), whether the shard is stored.

    Parameters
    ----------
    session
        Read-only.
    days
        Length of the time axis; shards beyond it are left out, as every reader does.
    """
    # a thread of its own: the caller may be in a running event loop, as in a notebook
    with ThreadPoolExecutor(1) as pool:
        return {
            spec.name: pool.submit(asyncio.run, _present(session, spec.name, (days, *schema.grid.tiles_shape))).result()
            for spec in schema.arrays
        }


async def _present(session: icechunk.Session, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    present = np.zeros(shape, dtype=np.bool_)
    async for place in session.chunk_coordinates(f"/{name}"):
        if all(0 <= at < size for at, size in zip(place, shape, strict=True)):
            present[tuple(place)] = True
    return present
