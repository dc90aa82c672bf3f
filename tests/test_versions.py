"""What stands of a field that changed, whoever appends first: all of one version, never a part, never two."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import geofield
from geofield.errors import CorruptStoreError
from geofield.pipeline import append_days, fill_late_fields, missing_rows, rebuild_cube, refresh_rows, verify
from geofield.results.rows import Results, row_schema
from geofield.store import Location
from orchestrate import parts, run
from orchestrate.config import Settings
from orchestrate.inbox import submit
from tests.support.smallstore import day, feature, make_store, write_fields
from tests.support.workload import FIELDS, MOVED, SCENES, Work, extend, in_this_thread, ready_fields, source
from tests.support.workload import day as work_day
from tests.support.workload import make_box as work_box

QUICK = Settings(retry_wait_s=0, retries=0)


def submit_field(store: geofield.Store, folder: Path, x: float = 50, **properties: Any) -> None:
    submit(store, [write_fields(folder / "f.geojson", feature("A", x, 50, **properties))])
    parts.receive(store, settings=QUICK)


def versions(store: geofield.Store) -> list[int]:
    """Rows of each version of the field."""
    counts: list[int] = store.rows().groupby("field_version", sort=False).size().tolist()
    return counts


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "a moved polygon": ({}, {"x": 100}, 40),
    "a harvest date taken back": ({"harvest_date": str(day(4))}, {}, 4),
    "an earlier planting": ({"planting_date": str(day(38))}, {"planting_date": str(day(1))}, 3),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_day_leaves_a_changed_field_to_the_fill(tmp_path: Path, change: str) -> None:
    first, then, stood = CHANGES[change]
    store = make_store(str(tmp_path / "store"))
    submit_field(store, tmp_path, **first)
    run(store, day(40), settings=QUICK)
    assert versions(store) == [stood]
    submit_field(store, tmp_path, **then)
    for number in (41, 42):
        parts.extend_box(store, "b", day(number), settings=QUICK)
        assert versions(store) == [stood]
    run(store, day(42), settings=QUICK)
    assert versions(store) == [42]
    assert verify(store.location) == []


def test_a_day_leaves_a_field_whose_fill_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "store"))
    submit_field(store, tmp_path, harvest_date=str(day(4)))
    run(store, day(40), settings=QUICK)
    submit_field(store, tmp_path)

    def fail(*arguments: object) -> None:
        raise CorruptStoreError("an old shard cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr("geofield.pipeline.fill_late_fields", fail)
        assert run(store, day(41), settings=QUICK)["errors"]
        assert versions(store) == [4]
    run(store, day(41), settings=QUICK)
    assert versions(store) == [41]


def test_a_writer_with_the_polygon_of_before_takes_nothing_away(tmp_path: Path) -> None:
    work = Work(str(tmp_path / "store"))
    before, after = (ready_fields(work_box(), **shapes) for shapes in (FIELDS, {**FIELDS, **MOVED}))
    with in_this_thread():
        extend(work.create(), 1, 5, SCENES)
        fill_late_fields(after, work.cube, work.results)
        stood = work.results.read(fields=["left"])
        append_days(work_day(6), work_day(6), source(SCENES), before, work.cube, work.results)
        assert work.results.read(fields=["left"]).equals(stood)
        assert len(work.results.read(fields=["both"])) == 6
        refresh_rows(after, work.cube, work.results)
    assert missing_rows(after, work.cube, work.results).empty
    assert len(work.results.read()) == 12


def test_two_fields_that_were_mixed_up(tmp_path: Path) -> None:
    """Each gets the polygon of the other, and so its version."""
    work = Work(str(tmp_path / "store"))
    swapped = ready_fields(work_box(), left=FIELDS["both"], both=FIELDS["left"])
    with in_this_thread():
        extend(work.create(), 1, 5, SCENES)
        before = work.results.read()
        append_days(work_day(6), work_day(6), source(SCENES), swapped, work.cube, work.results)
        assert work.results.read().equals(before)
        refresh_rows(swapped, work.cube, work.results)
    assert missing_rows(swapped, work.cube, work.results).empty


def test_a_field_without_rows_gets_those_of_its_day(tmp_path: Path) -> None:
    work = Work(str(tmp_path / "store"))
    with in_this_thread():
        extend(work.create(), 1, 5, SCENES)
        late = ready_fields(work_box(), **FIELDS, late=MOVED["left"])
        append_days(work_day(6), work_day(7), source(SCENES), late, work.cube, work.results)
    assert work.results.read()["field_id"].value_counts().to_dict() == {"left": 7, "both": 7, "late": 2}


def test_rows_before_a_later_start_leave(tmp_path: Path) -> None:
    """A changed box may not begin later; a cube that was made so by hand has no rows that nobody can check."""
    work = Work(str(tmp_path / "store"))
    later = work_box(q=1e-3).model_copy(update={"start": work_day(3)})
    fields = ready_fields(later, **FIELDS)
    with in_this_thread():
        extend(work.create(), 1, 5, SCENES)
        rebuild_cube(later, source(SCENES), work.cube, work.results)
        fill_late_fields(fields, work.cube, work.results)
    assert work.results.read()["date"].min() == work_day(3)
    assert len(work.results.read()) == 6
    assert missing_rows(fields, work.cube, work.results).empty


def test_thousands_of_fields_with_days_of_their_own(tmp_path: Path) -> None:
    """Each from another first day to another last one, in one commit."""
    results, count = Results(Location.parse(tmp_path / "store"), "b"), 3000
    number = np.arange(count)
    first = np.datetime64("2015-01-01") + (number // 100).astype("timedelta64[D]")
    last = first + (200 + number % 100).astype("timedelta64[D]")
    days = np.stack([first, last], axis=1).ravel()

    def rows(value: float, version: str) -> pa.Table:
        return pa.table(
            {
                "box": ["b"] * 2 * count,
                "field_id": np.repeat([f"f{number}" for number in range(count)], 2),
                "field_version": [version] * 2 * count,
                "date": days,
                "days_since_planting": np.tile(np.int32([0, 200]), count),
                "status": ["observed"] * 2 * count,
                "covered": np.ones(2 * count),
                "x_valid": np.full(2 * count, value),
                "digest": ["d"] * 2 * count,
                "month": [str(one)[:7] for one in days],
            },
            schema=row_schema(["x_valid"]),
        )

    kept = rows(1.0, "v")
    between = kept.slice(0, 1).set_column(3, "date", pa.array([dt.date(2015, 1, 2)]))  # of a field, in no commit below
    results.commit(pa.concat_tables([kept.slice(0, 2), between]), {})
    assert results.commit(rows(2.0, "v"), {}) == 2 * count
    assert sorted(results.read()["x_valid"].value_counts().to_dict().items()) == [(1.0, 1), (2.0, 2 * count)]
    results.commit(rows(3.0, "w"), {})
    assert results.read()["x_valid"].value_counts().to_dict() == {3.0: 2 * count}
