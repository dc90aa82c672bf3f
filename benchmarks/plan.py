"""What planning costs for many boxes: time, memory and requests, on a made-up S3 prefix.

    python benchmarks/plan.py --boxes 10000 --fields 1000000 --late 100

The store is as a complete run leaves it: descriptions, notes, the index, heads of cubes and logs of rows tables; no
pixel and no row, since planning reads none. The fields table is a real Delta table in a folder. Requests are counted
as S3 would see them: one for each object read, one for each thousand keys listed; those that deltalake makes for the
fields table are not among them (about ten, and one for each of its files). Latency is none: for a real
server add what 20 ms for each request come to.

The store is made by one process and each figure comes from a process of its own, so that its peak of memory is that of
the planning alone. What was made lies in one file, mapped: of it only what is read counts.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import mmap
import multiprocessing
import pickle
import resource
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

import geofield
from geofield import Store
from geofield.errors import NotFoundError
from geofield.objects import ObjectInfo
from geofield.registry import SCHEMA
from geofield.store import Location
from orchestrate import hints
from orchestrate.hints import Note
from orchestrate.placing import fields_digest
from orchestrate.summary import planned
from orchestrate.survey import Survey
from orchestrate.work import BoxExtent, CubeDays

START, LAST = dt.date(2025, 1, 1), dt.date(2025, 12, 31)
SIDE = 10_000.0
NOW = dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class MemoryLocation(Location):
    """Objects in a dict, or parts of a mapped file; tables in the folder of the url."""

    objects: dict[str, bytes | memoryview] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def read(self, key: str) -> bytes:
        """One GET."""
        self.counts["GET"] += 1
        try:
            return bytes(self.objects[key])
        except KeyError:
            raise NotFoundError(key) from None

    def write(self, key: str, data: bytes) -> None:
        """One PUT."""
        self.counts["PUT"] += 1
        if key not in self.objects:
            self.keys.insert(bisect_left(self.keys, key), key)
        self.objects[key] = data
        self.etags[key] = hashlib.md5(data, usedforsecurity=False).hexdigest()

    def list(self, prefix: str) -> list[ObjectInfo]:
        """One LIST for each thousand keys."""
        folder = prefix.strip("/") + "/"
        first, last = bisect_left(self.keys, folder), bisect_left(self.keys, folder[:-1] + "0")
        self.counts["LIST"] += 1 + (last - first) // 1000
        return [ObjectInfo(key, len(self.objects[key]), NOW, self.etags[key]) for key in self.keys[first:last]]

    def save(self, folder: Path) -> None:
        """Keep everything for another process."""
        places, at = [], 0
        new = folder / "new"  # beside the old one, which is mapped
        with new.open("wb") as file:
            for key in self.keys:
                places.append((key, self.etags[key], at, at + len(self.objects[key])))
                at += file.write(self.objects[key])
        new.replace(folder / "objects")
        (folder / "places").write_bytes(pickle.dumps(places))

    def load(self, folder: Path) -> None:
        """What another process kept."""
        with (folder / "objects").open("rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        for key, etag, first, last in pickle.loads((folder / "places").read_bytes()):
            self.keys.append(key)
            self.etags[key] = etag
            self.objects[key] = whole[first:last]

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        """Without counting."""
        self.objects.update(objects)
        self.keys[:] = sorted(self.objects)
        self.etags.update((key, hashlib.md5(data, usedforsecurity=False).hexdigest()) for key, data in objects.items())


def make_boxes(number: int) -> dict[str, geofield.Box]:
    """Boxes of 10 km side by side in one zone, 70 in a row."""
    boxes = {}
    for index in range(number):
        row, column = divmod(index, 70)
        x, y = 150_000 + SIDE * column, 3_000_000 + SIDE * row
        bbox = (x, y, x + SIDE, y + SIDE)
        box = geofield.Box.model_validate(
            {
                "id": f"box-{index:05}", "bbox": bbox, "crs": "EPSG:32633", "start": START,
                "grid": {"crs": "EPSG:32633", "resolution": 10}, "source": {"type": "simulated", "seed": index},
                "variables": {"ndvi": {"index": "NDVI", "mask": {"scl": [0, 1, 3, 8, 9, 10, 11]}, "state": "kalman"}},
            }
        )  # fmt: skip
        resolved = geofield.boxes.resolve_grid(box, None, 10**9)
        boxes[box.id] = box.model_copy(update={"pixels": resolved.to_dict()})
    return boxes


def make_fields(boxes: dict[str, geofield.Box], number: int) -> pa.Table:
    """Squares of 80 m inside the boxes, as many in each."""
    each = number // len(boxes)
    origin = np.repeat([box.bbox[:2] for box in boxes.values()], each, axis=0)
    place = np.tile(np.arange(each), len(boxes))
    x = origin[:, 0] + 100 + 95.0 * (place % 100)
    y = origin[:, 1] + 100 + 95.0 * (place // 100)
    ids = np.char.add(np.repeat(list(boxes), each), np.char.add("/", place.astype(str)))
    return fields_table(ids, shapely.to_wkb(shapely.box(x, y, x + 80, y + 80)), NOW)


def fields_table(ids: Any, shapes: Any, accepted: dt.datetime) -> pa.Table:
    """Fields planted on the boxes' first day."""
    count = len(ids)
    version = [hashlib.blake2b(str(name).encode(), digest_size=6).hexdigest() for name in ids]
    same = {"crs": "EPSG:32633", "planting_date": START, "crop": "wheat", "properties": "{}", "file": "f.parquet",
            "accepted": accepted, "arrival": accepted, "withdrawn": False}  # fmt: skip
    columns: dict[str, Any] = {
        name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), count) for name, value in same.items()
    }
    columns |= {"field_id": pa.array(ids.astype(object)), "version": version, "geometry": pa.array(shapes, pa.binary())}
    columns |= {
        "row": np.arange(count),
        "box": pa.nulls(count, pa.string()),
        "harvest_date": pa.nulls(count, pa.date32()),
    }
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def make_notes(location: MemoryLocation, boxes: dict[str, geofield.Box], fields: pa.Table) -> None:
    """Everything that a complete run leaves and a plan may read."""
    ids = np.array(fields["field_id"].to_pylist(), dtype=object)
    versions = np.array(fields["version"].to_pylist(), dtype=object)
    owner = np.array([name.split("/")[0] for name in ids])
    starts = np.searchsorted(owner, list(boxes))  # the table is ordered by box
    ends = np.append(starts[1:], len(ids))
    made = {f"boxes/{name}.json": box.model_dump_json().encode() for name, box in boxes.items()}
    location.put_all(made)
    done = {}
    for (name, _), first, last in zip(boxes.items(), starts, ends, strict=True):
        order = np.argsort(ids[first:last].astype(str)) + first
        own = dict(zip(ids[order].tolist(), versions[order].tolist(), strict=True))
        note = Note(
            definition=location.etags[f"boxes/{name}.json"], snapshot="CDKHYHRYP0FHZGKN42TG", rows=1,
            fields=fields_digest(list(own), list(own.values())), extent=BoxExtent(name, START, 0, 10**6, 4, 3, 4),
            cube=CubeDays(START, LAST, 150), checked=NOW, totals=(len(own), 365 * len(own)),
        )  # fmt: skip
        hint = {
            "box": name, "run": "r", "last_day": str(LAST), "note": note.to_dict(),
            "description": boxes[name].model_dump_json(),
            "fields": {one: {"version": version, "done_to": str(LAST)} for one, version in own.items()},
        }  # fmt: skip
        done[f"progress/{name}.json"] = json.dumps(hint).encode()
        done[f"cubes/{name}/refs/branch.main/ref.json"] = b'{"snapshot":"CDKHYHRYP0FHZGKN42TG"}'
        done |= {f"rows/{name}/_delta_log/{version:020}.json": b"{}" for version in (0, 1)}
    location.put_all(done)


def measured(what: str, location: MemoryLocation, boxes: int, call: Callable[[], Any]) -> Any:
    """Call it, and tell what it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    location.counts.clear()
    began, cpu = time.perf_counter(), time.process_time()
    result = call()
    took, used = time.perf_counter() - began, time.process_time() - cpu
    requests = sum(location.counts.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:48} {took:6.2f} s {used:6.2f} s CPU  peak {peak:4.2f} GB (before: {before:4.2f})  "
          f"{requests:6} requests ({requests / boxes:.2f} a box) {dict(location.counts)}", flush=True)  # fmt: skip
    return result


def opened(folder: Path) -> tuple[Store, MemoryLocation]:
    """The store as it was made."""
    location = MemoryLocation(str(folder))
    location.load(folder)
    return Store(location, {}), location


def make(folder: Path, count: int, number: int) -> None:
    """The store as a complete run leaves it, but for the index."""
    location = MemoryLocation(str(folder))
    boxes = make_boxes(count)
    fields = make_fields(boxes, number)
    table = Store(location, {}).registry.table
    table.commit(table.open(), fields)
    make_notes(location, boxes, fields)
    location.save(folder)


def without_index(folder: Path, count: int) -> None:
    """A plan that finds the index lost; then a run writes it."""
    store, location = opened(folder)
    steps = measured("all up to date, the index lost", location, count, lambda: planned(store, LAST)["steps"])
    assert steps == []
    survey = Survey(store, LAST)
    assert all(survey.quiet(name) is not None for name in survey.box_ids)
    survey.write_index({}, {})
    assert len(hints.read_index(store).entries) == count
    location.save(folder)


def unchanged(folder: Path, count: int) -> None:
    """A plan right after a run."""
    store, location = opened(folder)
    assert measured("nothing changed", location, count, lambda: planned(store, LAST)["steps"]) == []


def with_late_fields(folder: Path, count: int, late: int) -> None:
    """A plan after some fields came."""
    store, location = opened(folder)
    boxes = list(store.boxes())
    names = boxes[:: max(1, len(boxes) // late)][:late]
    corners = np.array([store.box(name).bbox[:2] for name in names]) + 9800
    shapes = shapely.to_wkb(shapely.box(corners[:, 0], corners[:, 1], corners[:, 0] + 80, corners[:, 1] + 80))
    new = fields_table(np.array([f"{name}/late" for name in names]), shapes, NOW + dt.timedelta(seconds=1))
    store.registry.table.commit(store.registry.table.open(), new)
    steps = measured(f"{late} late fields", location, count, lambda: planned(store, LAST)["steps"])
    assert [(step["action"], step["box"], list(step["fields"])) for step in steps] == [
        ("fill_late", name, [f"{name}/late"]) for name in names
    ]


def main() -> None:
    """Make the store, then plan it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=10_000)
    parser.add_argument("--fields", type=int, default=1_000_000)
    parser.add_argument("--late", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for target, arguments in (
            (make, (folder, asked.boxes, asked.fields)),
            (without_index, (folder, asked.boxes)),
            (unchanged, (folder, asked.boxes)),
            (with_late_fields, (folder, asked.boxes, asked.late)),
        ):
            child = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
            child.start()
            child.join()
            assert child.exitcode == 0, target.__name__


if __name__ == "__main__":
    main()
