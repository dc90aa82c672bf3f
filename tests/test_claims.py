"""Who works on which box, and what is left when a run fails where nobody foresaw it."""

from __future__ import annotations

import datetime as dt
import importlib
import threading
from pathlib import Path
from typing import Any

import pytest

import geofield
from geofield.errors import StoreUnavailableError
from orchestrate import claims, hints, run
from orchestrate.claims import Claims
from orchestrate.config import Settings
from orchestrate.receipt import recent_receipts
from orchestrate.survey import Survey
from orchestrate.threads import Threads
from tests.support.smallstore import box, day, make_store, numbers

RUNNER = importlib.import_module("orchestrate.run")  # the package offers the function of that name
QUICK = Settings(retry_wait_s=0, boxes_at_once=1)


def seen(store: geofield.Store, name: str) -> list[tuple[str, dt.datetime]]:
    return [(mark.run, mark.seen) for mark in hints.marks_of(store, name)]


def test_claim_is_renewed_as_long_as_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "s"))
    monkeypatch.setattr(claims, "RENEWED_EVERY_S", 0.02)
    renewed = threading.Event()
    real = hints.put_mark

    def put(*args: Any) -> None:
        real(*args)
        if threading.current_thread().name == "claims":
            renewed.set()

    with Claims(store, "own", pytest.fail) as own:
        own.put("b")
        monkeypatch.setattr(hints, "put_mark", put)
        with own.held("b", lambda: True):
            assert renewed.wait(30)
            assert [name for name, _ in seen(store, "b")] == ["own"]
        renewed.clear()
        assert not renewed.wait(0.2)
    assert seen(store, "b") == []


def test_claim_of_a_dead_process_stays_until_it_is_too_old(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "s"))
    with Claims(store, "dead", pytest.fail) as dead:
        dead.put("b")
        with pytest.raises(KeyboardInterrupt), dead.held("b", lambda: True):
            raise KeyboardInterrupt
    other = Claims(store, "other", pytest.fail)
    assert other.is_foreign("b")
    assert not dead.is_foreign("b")
    assert run(store, day(2), settings=QUICK)["boxes"]["b"]["days_appended"] == 2  # last of all, but at once


def test_two_runners_that_begin_together_take_different_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a", "b", "c", "d"]
    store = make_store(str(tmp_path / "s"), *(box(name) for name in names))
    real_put, real_append = Claims.put, geofield.pipeline.append_days
    surveyed = threading.Barrier(2)
    first = threading.Event()
    order: dict[str, list[str]] = {}

    class Together(Survey):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            surveyed.wait(60)
            if "second" in threading.current_thread().name:
                first.wait(60)

    def put(self: Claims, box_id: str) -> None:
        real_put(self, box_id)
        first.set()

    done = threading.Barrier(2)

    def append(start: dt.date, end: dt.date, source: Any, fields: Any, *rest: Any) -> Any:
        mine = order.setdefault(rest[-1].id, [])
        if not mine:
            done.wait(60)  # each has its first box
        mine.append(fields.box.id)
        return real_append(start, end, source, fields, *rest)

    monkeypatch.setattr(RUNNER, "Survey", Together)
    monkeypatch.setattr(Claims, "put", put)
    monkeypatch.setattr(geofield.pipeline, "append_days", append)
    receipts: list[Any] = []
    threads = [
        threading.Thread(
            name=name,
            target=lambda: receipts.append(run(geofield.open_store(store.url), day(2), Threads(1), settings=QUICK)),
        )
        for name in ("first", "second")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [receipt["errors"] for receipt in receipts] == [[], []]
    assert {boxes[0] for boxes in order.values()} == {"a", "b"}
    days = [sum(one["days_appended"] for one in receipt["boxes"].values()) for receipt in receipts]
    assert sum(days) == 2 * len(names)
    assert min(days) >= 2


def test_what_nobody_foresaw_leaves_a_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "s"))

    def broken(*args: Any, **named: Any) -> Any:
        raise ZeroDivisionError("a mistake of ours")

    with monkeypatch.context() as patch:
        patch.setattr(RUNNER, "Survey", broken)
        receipt = run(store, day(2), settings=QUICK)
    assert [(one["kind"], one["box"]) for one in receipt["errors"]] == [("unexpected", None)]
    assert "a mistake of ours" in receipt["errors"][0]["message"]
    assert recent_receipts(store) == [receipt]
    assert run(store, day(2), settings=QUICK)["errors"] == []


def test_receipt_that_cannot_be_stored_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "s"))

    def away(*args: Any) -> Any:
        raise StoreUnavailableError("the store is away")

    monkeypatch.setattr(RUNNER, "write_receipt", away)
    receipt = run(store, day(2), settings=QUICK)
    assert receipt["boxes"]["b"]["days_appended"] == 2
    assert [one["kind"] for one in receipt["errors"]] == ["store_unavailable"]
    assert len(numbers(store)) == 0
