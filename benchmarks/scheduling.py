"""What Dask costs on a box of 64 tiles: the same append in a plain loop, on threads, and on local clusters.

    python benchmarks/scheduling.py --days 2

Two graphs: that of an append (64 chains, a task for each tile and day), and one of the same form of empty tasks,
which shows the scheduler and the client alone. Not named `dask.py`: a script of that name would be imported for Dask.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import dask
from dask.base import compute
from dask.delayed import delayed

import geofield
from geofield.pipeline import append_days
from orchestrate import cluster

START = dt.date(2025, 5, 1)
SIDE, TILE = 2048, 256
PLACES: list[tuple[str, str, int]] = [
    ("one thread, no pool", "synchronous", 1), ("threads, 1", "threads", 1), ("threads, 2", "threads", 2),
    ("local, 1 worker", "local", 1), ("local, 2 workers", "local", 2),
]  # fmt: skip


def make_store(folder: str) -> geofield.Store:
    """A box of 8 x 8 tiles of 256 pixels, imagery every day."""
    store = geofield.create_store(folder)
    bounds = (500_000, 5_000_000, 500_000 + 10 * SIDE, 5_000_000 + 10 * SIDE)
    store.add_box(
        geofield.Box.model_validate(
            {
                "id": "b",
                "bbox": bounds,
                "crs": "EPSG:32633",
                "start": START,
                "grid": {"crs": "EPSG:32633", "resolution": 10, "tile": TILE},
                "source": {"type": "simulated", "seed": 1, "revisit": 1},
                "variables": {"ndvi": {"index": "NDVI", "mask": {"scl": [0, 1, 3, 8, 9, 10, 11]}, "state": "kalman"}},
            }
        )
    )
    return store


@contextlib.contextmanager
def place(kind: str, workers: int) -> Iterator[Any]:
    """Where the work runs."""
    if kind == "synchronous":
        with dask.config.set(scheduler="synchronous"):
            yield None
    else:
        with cluster.connect(kind, workers) as client, cluster.active(client):
            yield client


def link(before: int | None) -> int:
    """A task that does nothing."""
    return (before or 0) + 1


def chains(count: int, length: int, name: str) -> list[Any]:
    """The form of an append's graph."""
    ends = []
    for number in range(count):
        carry: Any = None
        for day in range(length):
            carry = delayed(link, pure=False)(carry, dask_key_name=f"link-{day} tile {number} {name}")
        ends.append(carry)
    return ends


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what it gave."""
    began = time.perf_counter()
    value = call()
    return time.perf_counter() - began, value


def main() -> None:
    """Tell seconds for the append, and milliseconds a task that does nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=2)
    days = parser.parse_args().days
    tiles = (SIDE // TILE) ** 2
    loop, _ = timed(lambda: [link(link(None)) for _ in range(tiles * days // 2)])
    print(f"{tiles} tiles, {days} days: {tiles * days} tasks; a plain loop {1e3 * loop / tiles / days:.4f} ms each")
    for what, kind, workers in PLACES:
        with tempfile.TemporaryDirectory() as folder, place(kind, workers):
            took, empty, tasks = measure(make_store(folder), tiles, days)
        print(
            f"{what:22} append {took:6.2f} s, {1e3 * took / tasks:6.1f} ms a task; "
            f"empty tasks {1e3 * empty / tiles / days:6.3f} ms each",
            flush=True,
        )


def measure(store: geofield.Store, tiles: int, days: int) -> tuple[float, float, int]:
    """Seconds of an append, seconds of as many empty tasks, and how many tasks that were."""
    where = store.source("b"), store.box_fields("b"), store.cube("b"), store.results("b")
    append_days(START, START, *where)  # what is compiled, imported and connected once
    compute(chains(4, 2, "warm"))
    empty = min(timed(lambda n=n: compute(chains(tiles, days, f"{n}")))[0] for n in range(3))
    first, last = START + dt.timedelta(days=1), START + dt.timedelta(days=days)
    took, report = timed(lambda: append_days(first, last, *where))
    assert report.days_appended == days
    return took, empty, report.tasks


if __name__ == "__main__":
    main()
