"""Parts of a run: one day of one box, rows from the cube, late fields, the inbox; each by itself."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import geofield.pipeline
from geofield import Store
from geofield.errors import MissingDaysError, SkipError
from orchestrate import parts, run
from orchestrate.config import Settings
from orchestrate.inbox import submit
from orchestrate.work import Part
from tests.support.smallstore import box, day, feature, make_store, numbers, objects, write_fields

QUICK = Settings(retry_wait_s=0)


def extend(store: Store, number: int, name: str = "b") -> dict[str, Any]:
    receipt = parts.extend_box(store, name, day(number), settings=QUICK)
    assert receipt["errors"] == []
    done: dict[str, Any] = receipt["boxes"][name]
    return done


def test_days_one_by_one_equal_one_run(tmp_path: Path) -> None:
    fields = write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("B", 95, 95, 210))
    whole, single = make_store(str(tmp_path / "whole")), make_store(str(tmp_path / "single"))
    for store in (whole, single):
        submit(store, [fields])
    run(whole, day(6), settings=QUICK)
    assert parts.receive(single, settings=QUICK)["inbox"]["rows_accepted"] == 2
    assert [extend(single, number)["days_appended"] for number in range(1, 7)] == [1] * 6
    pd.testing.assert_frame_equal(numbers(whole), numbers(single), check_exact=True)
    assert whole.cube("b").open().equals(single.cube("b").open())


def test_early_day_is_refused_with_the_missing_days(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"))
    before = objects(store, "")
    with pytest.raises(MissingDaysError, match="Missing: 2025-04-01 to 2025-04-02"):
        extend(store, 3)
    with pytest.raises(MissingDaysError, match="its cube is empty"):
        parts.complete_rows(store, "b", day(1), settings=QUICK)
    assert objects(store, "") == before
    extend(store, 1)
    with pytest.raises(MissingDaysError, match="Missing: 2025-04-02 to 2025-04-03"):
        extend(store, 4)
    with pytest.raises(MissingDaysError, match="its cube ends on 2025-04-01"):
        parts.complete_rows(store, "b", day(2), settings=QUICK)


def test_day_before_the_start_is_nothing_to_do(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"))
    assert extend(store, 0)["days_appended"] == 0
    assert store.cube("b").head().last is None
    assert not store.location.list("runs")  # a part that had nothing to do leaves no receipt


def test_day_that_may_still_be_filled_is_refused() -> None:
    one = box("b", settle_days=3)
    parts.check_day(one, day(9), day(10), day(13))
    with pytest.raises(SkipError, match=r"appended from 2025-04-13 on.*settle_days: 3"):
        parts.check_day(one, day(9), day(10), day(12))
    parts.check_day(one, day(10), day(10), day(12))  # it is there: compared, whenever


def test_present_day_is_compared_with_the_source(tmp_path: Path) -> None:
    late = day(3)
    source = {"type": "simulated", "seed": 5, "revisit": 2, "phase": 0}
    store = make_store(str(tmp_path / "store"), box(source=source | {"withhold": [str(late)]}))
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    parts.receive(store, settings=QUICK)
    for number in range(1, 7):
        extend(store, number)
    assert extend(store, 6)["days_amended"] == 0
    store.change_box(store.box("b").model_copy(update={"source": source}))
    assert extend(store, 4)["days_amended"] == 0  # looks at day 4 and later, whose scenes are the same
    done = extend(store, 3)
    assert (done["days_amended"], done["days_appended"]) == (4, 0)
    straight = make_store(str(tmp_path / "straight"), box(source=source))
    submit(straight, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    run(straight, day(6), settings=QUICK)
    pd.testing.assert_frame_equal(numbers(store), numbers(straight), check_exact=True)


def test_rows_and_late_fields_come_from_the_cube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "store"), box("b"), box("c"))
    for name, number in itertools.product("bc", range(1, 5)):
        extend(store, number, name)
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    parts.receive(store, settings=QUICK)
    monkeypatch.setattr(geofield.pipeline, "append_days", None)
    monkeypatch.setattr(geofield.pipeline, "correct_days", None)
    cubes = objects(store, "cubes")
    only = parts.complete_rows(store, "b", day(2), settings=QUICK)
    assert only["boxes"]["b"]["rows_written"] == 4
    assert list(only["boxes"]) == ["b"]
    every = parts.fill_fields(store, settings=QUICK)
    late = {name: one["late"]["field_days"] for name, one in every["boxes"].items()}
    assert late == {"b": 0, "c": 4}
    assert all(one["late"]["source_reads"] == one["late"]["box_tasks"] == 0 for one in every["boxes"].values())
    assert objects(store, "cubes") == cubes
    assert len(store.rows()) == 8


def test_fill_leaves_a_changed_box_alone(tmp_path: Path) -> None:
    """Building a new cube reads imagery: that is no part of filling late fields."""
    store = make_store(str(tmp_path / "store"))
    extend(store, 1)
    store.change_box(box(variables={"ndvi": {"index": "NDVI"}}))
    receipt = parts.fill_fields(store, settings=QUICK)
    assert receipt["errors"] == []
    assert store.pending_change("b") is not None
    extend(store, 1)
    assert store.pending_change("b") is None


def test_inbox_is_read_file_by_file(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"))
    for name in "AB":
        submit(store, [write_fields(tmp_path / f"{name}.geojson", feature(name, 0, 0))])
    assert [info.key for info in parts.inbox_files(store)] == ["inbox/fields/A.geojson", "inbox/fields/B.geojson"]
    assert parts.receive(store, 1, settings=QUICK)["inbox"]["files_accepted"] == 1
    assert [info.key for info in parts.inbox_files(store)] == ["inbox/fields/B.geojson"]
    assert store.registry.current()["field_id"].tolist() == ["A"]


def test_days_of_boxes(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"), box("b"), box("c", settle_days=3), box("d", start="2025-06-01"))
    extend(store, 1)
    store.location.write("boxes/e.json", b"{")
    found = {one.id: one for one in parts.box_days(store, today=day(5))}
    assert found["b"].missing == [day(2), day(3), day(4)]
    assert found["c"].missing == [day(1), day(2)]
    assert found["d"].missing == []
    assert found["e"].missing == []
    assert found["e"].error is not None


def test_whole_run_after_parts_finds_nothing_to_do(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"))
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    parts.receive(store, settings=QUICK)
    for number in (1, 2):
        extend(store, number)
    receipt = run(store, day(2), settings=QUICK)
    assert not receipt["boxes"]["b"]["rows_written"]
    assert receipt["boxes"]["b"]["days_present"] == 2


def test_failures_are_told_by_the_settings_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr("orchestrate.parts.send", lambda urls, title, body: sent.append(f"{title}\n{body}") or True)
    monkeypatch.setenv("GEOFIELD_NOTIFY_URLS", "json://127.0.0.1:9/x")
    store = make_store(str(tmp_path / "store"))
    error = {"box": "b", "date": None, "kind": "source_unavailable", "message": "no answer"}
    assert parts.tell_failure(store.url, [error], "run-1", ["b"]) == 1
    assert "box b: source_unavailable: no answer" in sent[0]
    assert parts.tell_failure(store.url, [error], "run-2", ["b"]) == 0  # told once
    assert parts.tell_failure(store.url, [], "run-3", ["b"]) == 0
    assert parts.tell_failure(store.url, [error], "run-4", ["b"]) == 1  # it was gone in between


def test_part_says_what_it_takes() -> None:
    assert Part().takes("append")
    assert not Part(actions=frozenset({"reduce"})).takes("append")
