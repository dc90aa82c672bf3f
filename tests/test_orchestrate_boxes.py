"""Boxes at the same time: as many as asked for, days in order, one failing alone, stopping in good order."""

from __future__ import annotations

import datetime as dt
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import geofield.pipeline
from geofield import Store
from geofield.errors import MissingBandError
from orchestrate import run
from orchestrate.config import Settings
from orchestrate.crew import Crew
from orchestrate.inbox import submit
from orchestrate.progress import Lines
from orchestrate.receipt import recent_receipts
from tests.support.smallstore import box, day, feature, make_store, numbers, write_fields

NAMES = "abcde"


def many(folder: Path) -> Store:
    """Five boxes over the same ground, with a source of their own each, and two fields in all of them."""
    boxes = [box(name, source={"type": "simulated", "seed": number, "revisit": 2}) for number, name in enumerate(NAMES)]
    store = make_store(str(folder / "store"), *boxes)
    submit(store, [write_fields(folder / "f.geojson", feature("A", 0, 0), feature("B", 95, 95, 210))])
    return store


def test_results_do_not_depend_on_how_many_boxes_are_worked_on_at_once(tmp_path: Path) -> None:
    found = []
    for at_once in (1, 4):
        folder = tmp_path / str(at_once)
        folder.mkdir()
        store = many(folder)
        receipt = run(store, day(10), settings=Settings(boxes_at_once=at_once))
        assert receipt["errors"] == []
        assert list(receipt["boxes"]) == list(NAMES)
        assert {one["days_appended"] for one in receipt["boxes"].values()} == {10}
        found.append((numbers(store), [store.cube(name).open().load() for name in NAMES]))
    (rows, cubes), (others, other_cubes) = found
    assert len(rows) == 5 * 2 * 10
    pd.testing.assert_frame_equal(rows, others, check_exact=True)
    assert all(one.equals(other) for one, other in zip(cubes, other_cubes, strict=True))


def test_boxes_in_hand_are_bounded_and_their_days_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = many(tmp_path)
    two = threading.Barrier(2, timeout=60)
    lock = threading.Lock()
    inside, most = set[str](), 0
    days: dict[str, list[dt.date]] = {}

    def append(first: dt.date, last: dt.date, source: Any, fields: Any, *rest: Any) -> Any:
        nonlocal most
        with lock:
            inside.add(fields.box.id)
            most = max(most, len(inside))
            days.setdefault(fields.box.id, []).append(first)
        two.wait()  # nobody goes on alone: fewer than two at once would wait for ever
        with lock:
            inside.remove(fields.box.id)
        return geofield.pipeline.AppendReport(days_appended=(last - first).days + 1)

    monkeypatch.setattr(geofield.pipeline, "append_days", append)
    store.remove_box("e")
    receipt = run(store, day(20), settings=Settings(boxes_at_once=2))
    assert receipt["errors"] == []
    assert most == 2
    assert days == {name: [day(1), day(9), day(17)] for name in "abcd"}


def test_one_failing_stops_no_other_and_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = many(tmp_path)
    real = geofield.pipeline.append_days

    def append(first: dt.date, last: dt.date, source: Any, fields: Any, *rest: Any) -> Any:
        if fields.box.id in "bd":
            raise MissingBandError(f"no band in {fields.box.id}")
        return real(first, last, source, fields, *rest)

    monkeypatch.setattr(geofield.pipeline, "append_days", append)
    receipt = run(store, day(2), settings=Settings(boxes_at_once=3))
    assert [(one["box"], one["message"]) for one in receipt["errors"]] == [("b", "no band in b"), ("d", "no band in d")]
    assert {name: one["days_appended"] for name, one in receipt["boxes"].items()} == {
        "a": 2, "b": 0, "c": 2, "d": 0, "e": 2,
    }  # fmt: skip


def test_ctrl_c_finishes_what_is_in_hand_and_leaves_a_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = many(tmp_path)
    real = geofield.pipeline.append_days
    told = threading.Event()

    def append(*given: Any) -> Any:
        # as the terminal does: in the middle of the first window of every box that is in hand
        if not told.is_set():
            told.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert crew.stopping.wait(60)
        return real(*given)

    monkeypatch.setattr(geofield.pipeline, "append_days", append)
    crew = Crew(1)
    monkeypatch.setattr(sys.modules["orchestrate.run"], "Crew", lambda size: crew)
    with pytest.raises(KeyboardInterrupt):
        run(store, day(20))
    monkeypatch.undo()
    (receipt,) = recent_receipts(store)
    assert [one["kind"] for one in receipt["errors"]] == ["interrupted"]
    assert receipt["finished"] is not None
    assert {name: one["days_appended"] for name, one in receipt["boxes"].items()} == {"a": 8}
    assert store.cube("a").head().last == day(8)
    assert len(store.rows(box="a")) == 2 * 8
    whole = run(store, day(20))
    assert whole["errors"] == []
    assert {name: one["days_appended"] for name, one in whole["boxes"].items()} == {
        "a": 12, "b": 20, "c": 20, "d": 20, "e": 20,
    }  # fmt: skip


# --- the crew --------------------------------------------------------------------------------------------------------


def test_crew_does_everything_once_and_what_waits_last() -> None:
    done: list[str] = []
    asked: list[str] = []

    def later(item: str) -> bool:
        asked.append(item)
        return item in "bc"

    Crew(1).work("abcde", done.append, later)
    assert "".join(done) == "adebc"
    assert "".join(asked) == "abcde"


def test_crew_raises_what_no_item_may_survive_after_the_others_are_done() -> None:
    both = threading.Barrier(2, timeout=60)
    done: list[str] = []

    def do(item: str) -> None:
        both.wait()
        if item == "a":
            raise SystemExit(3)
        assert crew.stopping.wait(60)
        done.append(item)

    crew = Crew(2)
    with pytest.raises(SystemExit, match="3"):
        crew.work("abc", do)
    assert done == ["b"]


def test_lines_of_several_threads_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    both = threading.Barrier(2, timeout=60)

    def tell(item: str) -> None:
        lines.begin(item, 2, "days")
        both.wait()
        lines.advance(1 if item == "a" else 2)
        both.wait()
        lines.end()

    Crew(2).work("ab", tell)
    assert sorted(capsys.readouterr().err.splitlines()) == ["a: 1 of 2 days", "b: 2 of 2 days"]
