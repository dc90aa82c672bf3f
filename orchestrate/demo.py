"""The main job from end to end on made-up imagery: two boxes, a month of days, late fields and scenes, a correction."""

from __future__ import annotations

import datetime as dt
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geofield
from orchestrate import cluster
from orchestrate.boxadding import add_boxes
from orchestrate.inbox import submit
from orchestrate.picture import draw_box
from orchestrate.report import render, report_of
from orchestrate.run import run

if TYPE_CHECKING:
    from geofield import Box, Store

START, PAUSE, END = dt.date(2025, 5, 1), dt.date(2025, 5, 20), dt.date(2025, 5, 30)
FOLDER = Path("demo-store")
DAY = dt.timedelta(days=1)
LATE_SCENE = dt.date(2025, 5, 16)
MARKER = "made by `make demo`; removed by the next one\n"
BOXES = {"north": (14.50, 45.870, 14.55, 45.895), "south": (14.50, 45.78, 14.54, 45.80)}
MOVED = "north-03"


def main(arguments: Sequence[str] = ()) -> int:
    """Run the demo, or with the URL of a store only put the boxes and fields into it; 0 when everything went well."""
    if arguments:
        return seed(arguments[0])
    began = time.monotonic()
    store = _fresh_store(Path.cwd() / FOLDER)
    _add_boxes(store)
    on_time, late = _make_fields(18), _make_fields(6, first=18)
    with cluster.connect("local", workers=2) as client:
        _tell(f"1. {len(on_time)} fields come on time, and a run appends {START} to {PAUSE}")
        _submit(store, "fields.geojson", on_time)
        first = run(store, PAUSE, client)
        _tell(f"2. {len(late)} fields come late, one polygon is corrected, and a run appends {PAUSE + DAY} to {END}")
        _submit(store, "fields-late.geojson", late)
        _submit(store, "field-corrected.geojson", [_moved(on_time)])
        second = run(store, END, client)
        _tell(f"3. the scene of {LATE_SCENE} comes late for box north, and a run amends what follows from it")
        store.change_box(_without_gaps(store.box("north")))
        third = run(store, END, client)
        _tell("4. the same run again")
        fourth = run(store, END, client)
    picture = Path(FOLDER) / "demo.png"
    groups = {
        "on time": [field["id"] for field in on_time if field["id"] != MOVED],
        "late": [field["id"] for field in late],
        "moved": [MOVED],
    }
    shown = [_liveliest(store, groups["on time"]), _liveliest(store, groups["late"])]
    draw_box(store, "north", picture, groups, shown)
    (FOLDER / "report.html").write_text(render(report_of(store)), encoding="utf-8")
    _summarise(store, [first, second, third, fourth], shown[1], picture, time.monotonic() - began)
    return 1 if any(receipt["errors"] for receipt in (first, second, third, fourth)) else 0


def seed(url: str) -> int:
    """Make a store with the demo's boxes and fields, for whatever runs stores; one that has boxes stays as it is."""
    store = geofield.create_store(url)
    if store.boxes():
        _tell(f"{store.url} has boxes already; nothing was changed")
        return 0
    fields = _make_fields(24)
    _submit(store, "fields.geojson", fields)
    _add_boxes(store)  # last: with them the store counts as seeded
    _tell(f"{store.url}: {len(BOXES)} boxes from {START} on, and {len(fields)} fields. Next: geofield run {store.url}")
    return 0


def _tell(text: str) -> None:
    print(text, flush=True)


def _fresh_store(folder: Path) -> Store:
    marker = folder / "DEMO"
    if folder.exists() and not marker.exists():
        sys.exit(f"{folder} exists and was not made by the demo. Move it away, or run the demo in another folder.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    marker.write_text(MARKER)
    return geofield.create_store(folder)


def _add_boxes(store: Store) -> None:
    for name, bbox in BOXES.items():
        source: dict[str, Any] = {"type": "simulated", "seed": 7, "revisit": 3}
        if name == "north":
            source["withhold"] = [str(LATE_SCENE)]
        add_boxes(store, None, {"id": name, "bbox": bbox, "start": START, "source": source})


def _without_gaps(box: Box) -> Box:
    """The box with a source that offers every scene."""
    return box.model_copy(update={"source": {key: value for key, value in box.source.items() if key != "withhold"}})


def _make_fields(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Fields of both boxes, scattered, each with its corners a little off a rectangle."""
    fields = []
    for name, (xmin, ymin, xmax, ymax) in BOXES.items():
        wide, high = (xmax - xmin) / 6, (ymax - ymin) / 4
        places = [(column, row) for row in range(4) for column in range(6)]
        random.Random(name).shuffle(places)
        for number in range(first, first + count):
            chance = random.Random(f"{name} {number}")
            x = xmin + (places[number][0] + chance.uniform(0.15, 0.35)) * wide
            y = ymin + (places[number][1] + chance.uniform(0.15, 0.35)) * high
            corners = [(x, y), (x + wide / 2, y), (x + wide / 2, y + high / 2), (x, y + high / 2)]
            ring = [
                (cx + chance.uniform(-0.1, 0.1) * wide, cy + chance.uniform(-0.1, 0.1) * high) for cx, cy in corners
            ]
            planted = START + dt.timedelta(days=chance.randrange(-10, 8))
            fields.append({"id": f"{name}-{number:02}", "planted": planted, "ring": [*ring, ring[0]]})
    return fields


def _moved(fields: list[dict[str, Any]]) -> dict[str, Any]:
    """The same field with its eastern side half as far away."""
    field = next(one for one in fields if one["id"] == MOVED)
    west = min(x for x, _ in field["ring"])
    return field | {"ring": [((x + west) / 2, y) for x, y in field["ring"]]}


def _liveliest(store: Store, names: list[str]) -> str:
    """The field whose estimate changes most: the one to look at."""
    rows = store.rows(box="north", field=names)
    spread = rows.groupby("field_id")["ndvi_filled_mean"].agg(lambda values: values.max() - values.min())
    return str(spread.idxmax())


def _submit(store: Store, name: str, fields: list[dict[str, Any]]) -> None:
    features = [
        {
            "type": "Feature",
            "properties": {"field_id": field["id"], "planting_date": str(field["planted"])},
            "geometry": {"type": "Polygon", "coordinates": [field["ring"]]},
        }
        for field in fields
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        submit(store, [path], "fields", {})


def _summarise(store: Store, receipts: list[dict[str, Any]], late_field: str, picture: Path, seconds: float) -> None:
    boxes = [box for receipt in receipts for box in receipt["boxes"].values()]
    days = sum(box["days_appended"] for box in boxes)
    reads, size = (sum(box[name] for box in boxes) for name in ("source_reads", "source_bytes"))
    append = sum(box["seconds"].get("append", 0.0) for box in boxes)
    filling = sum(box["seconds"].get("late", 0.0) for box in boxes)
    late = [box["late"] for box in boxes]
    fields, field_days, late_reads, tasks, bytes_read = (
        sum(one[name] for one in late)
        for name in ("fields", "field_days", "source_reads", "box_tasks", "cube_bytes_read")
    )
    past = receipts[0]["boxes"].values()
    past_reads, past_seconds = (
        sum(box["source_reads"] for box in past),
        sum(box["seconds"].get("append", 0.0) for box in past),
    )
    rows = store.rows(box="north", field=late_field)
    shown = rows[["field_id", "date", "status", "ndvi_valid", "ndvi_mean", "ndvi_filled_mean"]].head(6)
    idle = receipts[-1]["boxes"].values()
    amended = receipts[2]["boxes"]["north"]
    again = sum(box["days_appended"] + box["rows_written"] for box in idle)
    _tell(f"""
days appended   {days} box-days in {append:.1f} s, {1000 * append / days:.0f} ms a day \
({reads} source reads, {size / 1e6:.0f} MB of pixels)
late fields     {fields} fields, {field_days} field-days filled from the stored cubes in {filling:.1f} s: \
{late_reads} source reads, {tasks} box tasks, {bytes_read / 1e6:.0f} MB of cube read
                recomputing the boxes for them would have read the source {past_reads} times \
and taken about {past_seconds:.0f} s
late scene      {amended["days_amended"]} days amended at once with {amended["source_reads"]} source reads, \
{amended["rows_written"]} rows replaced
run again       {again} days and rows written
rows            the first days of {late_field}, which came late:
{shown.to_string(index=False, na_rep="-", float_format="{:.3f}".format)}
picture         {picture}
report          {FOLDER}/report.html
times           are sums over boxes that ran at the same time; by the clock the demo took {seconds:.0f} s in all
try next        .venv/bin/geofield status {FOLDER}
                .venv/bin/geofield series {FOLDER} --field {late_field} --plot series.png
                .venv/bin/geofield run {FOLDER} --until {END + dt.timedelta(days=5)}""")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
