"""What happened to a box and to a field, told from the commits."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import zarr

from geofield.errors import NotFoundError
from geofield.pipeline import Run, append_days, correct_days, fill_late_fields
from geofield.pipeline.compact import compact
from geofield.pipeline.history import box_history, field_boxes, field_versions, rows_history
from geofield.pipeline.verify.rows import current_fields
from geofield.testing.source import ArraySource
from tests.support.upkept import DAYS, SHAPES, Upkept, field_rows
from tests.test_pipeline import DAY1, DAY2, DAY3, FIRST, SCENES, SMALL, THIRD, A, Work, make_box, scene


@pytest.fixture
def work(store_url: str) -> Work:
    return Work(store_url, make_box(SMALL))


def test_every_commit_of_a_cube_is_told(work: Work) -> None:
    fields = work.fields(A=A)
    append_days(DAY1, DAY2, SCENES, fields, work.cube, work.results, Run("r1"))
    append_days(DAY3, DAY3, SCENES, fields, work.cube, work.results, Run("r2"))
    late = ArraySource(
        SMALL,
        [
            scene(DAY1, version="2", ndvi=FIRST + 0.05),
            scene(DAY2, ndvi=FIRST),
            scene(DAY3, hour=9, ndvi=THIRD),
        ],
    )
    correct_days(DAY1, late, fields, work.cube, work.results, Run("r3"))
    correction, third, first, creation = box_history(work.cube)
    assert [one.kind for one in (correction, third, first, creation)] == ["correct", "append", "append", "create"]
    assert [one.run for one in (correction, third, first, creation)] == ["r3", "r2", "r1", None]
    assert first.days == ("2025-04-01", "2025-04-02")
    assert third.days == ("2025-04-03", "2025-04-03")
    assert correction.snapshot == work.cube.tip()
    assert creation.time <= first.time <= third.time <= correction.time
    assert set(first.versions) == {"geofield", "icechunk", "numpy", "zarr"}
    assert (first.amended, first.changes) == ((), ())
    assert correction.amended == ("2025-04-01", "2025-04-02", "2025-04-03")
    told = [(one.date, one.added, one.removed, one.reprocessed) for one in correction.changes]
    assert told == [
        (DAY1, (), (), ("scene-20250401T100000",)),
        (DAY2, ("scene-20250402T100000",), (), ()),
        (DAY3, ("scene-20250403T090000",), ("scene-20250403T100000",), ()),
    ]


def test_a_commit_by_hand_and_the_past_of_a_changed_box_are_told(work: Work) -> None:
    append_days(DAY1, DAY2, SCENES, work.fields(), work.cube, work.results, Run("r1"))
    repository = work.cube.repository
    root = list(repository.ancestry(branch="main"))[-1].id
    repository.create_tag("until-20250401T000000.000000-x", work.cube.tip())
    repository.reset_branch("main", root)
    session = repository.writable_session("main")
    zarr.group(store=session.store)
    session.commit("by hand")
    told = [(one.kind, one.message, one.line) for one in box_history(work.cube)]
    assert told == [
        ("other", "by hand", "present"),
        ("append", "append 2025-04-01 to 2025-04-02", "until-20250401T000000.000000-x"),
        ("create", "create b", "until-20250401T000000.000000-x"),
    ]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Upkept:
    return Upkept.make(str(tmp_path_factory.mktemp("original") / "store"))


def test_every_version_of_a_field_and_every_commit_that_touched_it_is_told(original: Upkept, store_url: str) -> None:
    store = original.copy(store_url)
    fields = current_fields(store.box, store.registry)
    one = {name: number for number, name in enumerate(fields.columns.ids)}
    store.registry.accept(field_rows(late=SHAPES["last"]), "late.geojson", {})
    late = current_fields(store.box, store.registry)
    chosen = late.take(np.array([late.columns.ids.index("late")]))
    fill_late_fields(chosen, store.cube, store.results, Run("r-late"))
    store.registry.accept(field_rows(harvest=DAYS[3], first=SHAPES["first"]), "again.geojson", {})
    moved = current_fields(store.box, store.registry)
    fill_late_fields(moved.take(np.array([one["first"]])), store.cube, store.results, Run("r-moved"))
    store.results.remove(["cross"], Run("r-gone").metadata("remove", []))

    versions = field_versions(store.registry, "first")
    assert [(item.file, item.row, item.harvest_date) for item in versions] == [
        ("again.geojson", 1, DAYS[3]),
        ("fields.geojson", 1, None),
    ]
    assert versions[0].version != versions[1].version
    assert versions[0].accepted > versions[1].accepted > versions[1].arrival
    assert field_boxes(store.registry, "first", {"b": store.box}) == ["b"]

    def told(field_id: str) -> list[tuple[object, ...]]:
        return [
            (item.kind, item.run and item.run[:2], item.added, item.changed, item.removed, item.first, item.last)
            for item in rows_history(store.location, "b", field_id)
        ]

    assert [item[:1] + item[2:] for item in told("last")] == [("append", 6, 0, 0, DAYS[0], DAYS[5])]
    assert told("late") == [("late", "r-", 6, 0, 0, DAYS[0], DAYS[5])]
    assert [item[:1] + item[2:] for item in told("first")] == [
        ("late", 0, 4, 2, DAYS[0], DAYS[5]),
        ("append", 6, 0, 0, DAYS[0], DAYS[5]),
    ]
    assert [item[:1] + item[2:] for item in told("cross")] == [
        ("remove", 0, 0, 6, DAYS[0], DAYS[5]),
        ("append", 6, 0, 0, DAYS[0], DAYS[5]),
    ]

    before = {name: rows_history(store.location, "b", name) for name in ("first", "cross", "late", "last")}
    compact(store.location, ["b"], dt.date(2030, 1, 1))
    assert {name: rows_history(store.location, "b", name) for name in before} == before
    # what is freed cannot be told exactly any more, and this is said
    compact(store.location, ["b"], dt.date(2030, 1, 1), keep=dt.timedelta(0))
    vague = rows_history(store.location, "b", "first")
    assert [item.run for item in vague][-1:] == [before["first"][-1].run]
    assert vague[-1].added is None


def test_an_unknown_field_is_no_history(original: Upkept) -> None:
    with pytest.raises(NotFoundError, match="no field 'ghost'"):
        field_versions(original.registry, "ghost")
    assert rows_history(original.location, "b", "ghost") == []


def test_a_box_without_rows_has_no_history_of_them(tmp_path: Path) -> None:
    made = Work(str(tmp_path / "store"), make_box(SMALL))
    assert rows_history(made.location, "b", "A") == []
    assert [one.kind for one in box_history(made.cube)] == ["create"]
