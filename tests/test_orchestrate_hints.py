"""Notes of what is done: they save looking, and nothing that happens to them does harm."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import geofield.pipeline
from geofield import Store
from orchestrate import hints, run, summary
from orchestrate.config import Settings
from orchestrate.inbox import submit
from orchestrate.summary import summarise
from orchestrate.survey import Survey
from tests.support.s3server import Counts, S3Server
from tests.support.smallstore import box, day, feature, make_store, numbers, objects, write_fields

QUICK = Settings(retry_wait_s=0)
FIELDS = feature("A", 0, 0), feature("B", 150, 150, planting_date="2025-04-03")


def go(store: Store, until: int, **more: Any) -> dict[str, Any]:
    receipt = run(store, day(until), settings=QUICK, **more)
    assert receipt["errors"] == []
    return receipt


def small(folder: Path, *features: dict[str, Any], days: int = 5) -> Store:
    folder.mkdir(exist_ok=True)
    store = make_store(str(folder / "store"), box("a"), box("b"))
    submit(store, [write_fields(folder / "f.geojson", *(features or FIELDS))])
    go(store, days)
    return store


def quiet(store: Store, until: int = 5, look_back: int = 30) -> dict[str, bool]:
    survey = Survey(store, day(until), look_back)
    return {name: survey.quiet(name) is not None for name in survey.box_ids}


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **named: Any) -> Any:
        raise AssertionError("something was looked at")

    for name in ("results.rows.Results.read", "cube.cube.Cube.head", "registry.FieldRegistry.placeable"):
        monkeypatch.setattr(f"geofield.{name}", never)


def test_nothing_changed_and_nothing_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = small(tmp_path)
    assert quiet(store) == {"a": True, "b": True}
    with monkeypatch.context() as patch:
        forbid(patch)
        again = go(store, 5)
        shorter = go(store, 3)
    assert {name: one["days_present"] for name, one in again["boxes"].items()} == {"a": 5, "b": 5}
    assert {name: one["days_present"] for name, one in shorter["boxes"].items()} == {"a": 3, "b": 3}


def test_marks_are_gone_after_a_run(tmp_path: Path) -> None:
    store = small(tmp_path)
    assert Survey(store, day(5)).listing.marks == {}
    assert sorted(Survey(store, day(5)).listing.hints) == ["a", "b"]


# --- what makes a box be looked at -----------------------------------------------------------------------------------


def _late_field(store: Store, folder: Path) -> None:
    west = box("a").bbox[0]
    assert west == 500_000
    submit(store, [write_fields(folder / "late.geojson", feature("L", 200, 0, box_id="a"))])
    from orchestrate.inbox import InboxReport, read_inbox

    read_inbox(store, geofield.Run(), InboxReport())


def _withdrawn(store: Store, folder: Path) -> None:
    store.withdraw_fields(["A"])


def _changed_box(store: Store, folder: Path) -> None:
    store.change_box(store.box("a").model_copy(update={"source": {"type": "simulated", "seed": 5, "revisit": 1}}))


def _pending_box(store: Store, folder: Path) -> None:
    values = store.box("a").variables["ndvi"].model_copy(update={"q": 1e-3})
    store.change_box(store.box("a").model_copy(update={"variables": {"ndvi": values}}))


def _rows_gone(store: Store, folder: Path) -> None:
    store.results("a").remove(["A"], {})


def _day_published(store: Store, folder: Path) -> None:
    geofield.pipeline.append_days(
        day(6), day(6), store.source("a"), store.box_fields("a"), store.cube("a"), store.results("a")
    )


@pytest.mark.parametrize(
    ("happens", "restless"),
    [
        (_late_field, {"a"}),
        (_withdrawn, {"a", "b"}),
        (_changed_box, {"a"}),
        (_pending_box, {"a"}),
        (_rows_gone, {"a"}),
        (_day_published, {"a"}),
    ],
)
def test_what_changed_is_looked_at(tmp_path: Path, happens: Callable[[Store, Path], None], restless: set[str]) -> None:
    store = small(tmp_path)
    happens(store, tmp_path)
    assert {name for name, is_quiet in quiet(store).items() if not is_quiet} == restless
    go(store, 6)
    if happens is _pending_box:  # its description was replaced in the middle of the run: the note is of the old one
        assert quiet(store, 6)["a"] is False
        go(store, 6)
    assert quiet(store, 6) == {"a": True, "b": True}


def test_scene_that_comes_late_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = small(tmp_path)
    real = geofield.source.simulated.SimulatedSource.search

    def search(*args: Any) -> Any:
        found = real(*args)
        return found[1:]  # the first scene was withdrawn by its provider

    monkeypatch.setattr("geofield.source.simulated.SimulatedSource.search", search)
    assert quiet(store) == {"a": False, "b": False}
    assert quiet(store, look_back=0) == {"a": True, "b": True}
    survey = Survey(store, day(5), 30, dt.timedelta(hours=1))
    assert survey.quiet("a") is not None  # it was asked less than an hour ago
    assert go(store, 5)["boxes"]["a"]["days_amended"] > 0
    assert quiet(store) == {"a": True, "b": True}


def test_run_that_dies_between_cube_and_rows_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*args: Any, **named: Any) -> int:
        raise Killed

    store = small(tmp_path)
    before = {key: store.location.read(key) for key in objects(store, "progress")}
    with monkeypatch.context() as patch:
        patch.setattr("geofield.results.rows.Results.commit", killed)
        with pytest.raises(Killed):
            run(store, day(7), settings=Settings(boxes_at_once=1))
    assert len(Survey(store, day(7)).listing.marks) == 1
    for key, data in before.items():  # notes from the past
        store.location.write(key, data)
    (name,) = Survey(store, day(7)).listing.marks
    assert store.cube(name).head().last == day(7)
    assert quiet(store)[name] is False
    go(store, 5)
    assert len(store.rows(box=name)) == 7 + 5


# --- what may happen to notes ----------------------------------------------------------------------------------------


def _delete(store: Store, old: dict[str, bytes]) -> None:
    for key in old:
        store.location.delete(key)


def _corrupt(store: Store, old: dict[str, bytes]) -> None:
    for key in old:
        store.location.write(key, b'{"box": "a", "note": {"format": 3, "days": [1]')


def _past(store: Store, old: dict[str, bytes]) -> None:
    for key, data in old.items():
        store.location.write(key, data)


def _swapped(store: Store, old: dict[str, bytes]) -> None:
    one, other = (store.location.read(f"progress/{name}.json") for name in "ab")
    store.location.write("progress/a.json", other)
    store.location.write("progress/b.json", one)


def _merged(store: Store, old: dict[str, bytes]) -> None:
    """The newest note with the days and the fields of tomorrow."""
    hint = json.loads(store.location.read("progress/a.json"))
    hint["note"]["days"][1] = day(9).isoformat()
    hint["last_day"] = day(9).isoformat()
    store.location.write("progress/a.json", json.dumps(hint).encode())


def _other_index(store: Store, old: dict[str, bytes]) -> None:
    store.location.write(hints.INDEX, gzip.compress(b'{"format": 2, "entries": {"a": ["x", {}, ""]}, "placed": []}'))


@pytest.mark.parametrize("damage", [_delete, _corrupt, _past, _swapped, _other_index])
def test_damaged_notes_do_no_harm(tmp_path: Path, damage: Callable[[Store, dict[str, bytes]], None]) -> None:
    """Days, notes from the past, a moved field, a lost row, and a run: as if there never were any notes."""
    found = []
    for name in ("noted", "bare"):
        store = small(tmp_path / name)
        old = {key: store.location.read(key) for key in objects(store, "progress")}
        submit(store, [write_fields(tmp_path / "g.geojson", feature("A", 200, 0))])
        go(store, 8)
        store.results("a").remove(["B"], {})
        if name == "noted":
            damage(store, old)
        else:
            for key in objects(store, "progress"):
                store.location.delete(key)
        go(store, 8)
        found.append(numbers(store))
    pd.testing.assert_frame_equal(*found, check_exact=True)
    assert len(found[0]) == 2 * (8 + 6)


def _edited(path: tuple[Any, ...], value: Any) -> Callable[[bytes], bytes]:
    """A note in which one thing is another."""

    def edit(data: bytes) -> bytes:
        hint = json.loads(data)
        *way, last = path
        inner = hint
        for name in way:
            inner = inner[name]
        inner[last] = value
        return json.dumps(hint).encode()

    return edit


_DAMAGES = {
    "nested": lambda data: b"[" * 200_000,
    "infinite": _edited(("note", "rows"), float("inf")),
    "digits": lambda data: data.replace(b'"rows": ', b'"rows": ' + b"9" * 5_000),
    "settles for ever": _edited(("note", "extent", 1), 10**9),
    "settled long ago": _edited(("note", "extent", 1), -(10**9)),
    "huge": _edited(("note", "extent", 2), 10**400),
    "begins with time": _edited(("note", "extent", 0), "0001-01-01"),
    "ends with time": _edited(("note", "days", 1), "9999-12-31"),
    "looked for ever": _edited(("note", "looked"), ["0001-01-01", "9999-12-31"]),
    "fields": _edited(("fields",), [1]),
    "described by nothing": _edited(("description",), "{}"),
    "described too deeply": _edited(("description",), "[" * 200_000),
}


@pytest.mark.parametrize("damage", _DAMAGES.values(), ids=_DAMAGES)
def test_whatever_a_note_says_the_run_goes_on(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = make_store(str(tmp_path / "store"))
    go(store, 1)
    hint = "progress/b.json"
    for is_indexed in (True, False):
        store.location.write(hint, damage(store.location.read(hint)))
        if not is_indexed:
            store.location.delete(hints.INDEX)
        Survey(store, day(2)).quiet("b")
        summarise(store)
        go(store, 2 if is_indexed else 3)
        assert store.cube("b").head().last == day(2 if is_indexed else 3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"[" * 200_000,
        _edited(("registry",), float("inf")),
        _edited(("entries",), {"b": [1, {}, float("inf")]}),
    ],
    ids=["nested", "infinite", "entries"],
)
def test_whatever_the_index_says_the_run_goes_on(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = make_store(str(tmp_path / "store"))
    go(store, 1)
    store.location.write(hints.INDEX, gzip.compress(damage(gzip.decompress(store.location.read(hints.INDEX)))))
    go(store, 2)
    assert store.cube("b").head().last == day(2)


def test_note_that_says_more_than_there_is_does_no_harm_for_long(tmp_path: Path) -> None:
    """A note edited by hand cannot be told from a true one, but by what it says of the store."""
    store = small(tmp_path)
    _merged(store, {})
    receipt = run(store, day(9), settings=QUICK)
    assert receipt["errors"] == []
    assert store.cube("b").head().last == day(9)


def test_young_note_without_marks_is_believed_unseen_only_where_there_are_many_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = small(tmp_path)
    _rows_gone(store, tmp_path)
    assert quiet(store)["a"] is False
    monkeypatch.setattr("orchestrate.survey.CHECKED_EACH_PLAN", 0)
    assert quiet(store)["a"] is True
    hints.put_mark(store, "a", "somebody", dt.datetime.now(dt.UTC))
    assert quiet(store)["a"] is False
    hints.drop_marks(store, "a", "somebody", dt.datetime.now(dt.UTC))
    monkeypatch.setattr("orchestrate.survey.TRUSTED_FOR", dt.timedelta(0))
    assert quiet(store)["a"] is False


def test_status_looks_only_at_boxes_that_are_not_as_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = small(tmp_path)
    noted = summarise(store)
    assert noted["boxes"]["a"]["fields"] > 0
    assert all(one["rows_missing"] == one["fields_late"] == 0 for one in noted["boxes"].values())
    real = summary.gather_box
    looked: list[str] = []

    def look(store: Store, box_id: str, *rest: Any) -> Any:
        looked.append(box_id)
        return real(store, box_id, *rest)

    monkeypatch.setattr(summary, "gather_box", look)
    assert summarise(store) == noted
    assert looked == []
    for info in store.location.list("progress"):
        store.location.delete(info.key)
    assert summarise(store) == noted
    assert looked == sorted(noted["boxes"])


# --- several runners -------------------------------------------------------------------------------------------------


def test_boxes_of_another_run_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "store"), *(box(name) for name in "abc"))
    hints.put_mark(store, "a", "another", dt.datetime.now(dt.UTC))
    order: list[str] = []
    real = geofield.pipeline.append_days

    def append(first: Any, last: Any, source: Any, fields: Any, *rest: Any) -> Any:
        order.append(fields.box.id)
        return real(first, last, source, fields, *rest)

    monkeypatch.setattr(geofield.pipeline, "append_days", append)
    receipt = run(store, day(2), settings=Settings(boxes_at_once=1))
    assert (receipt["errors"], order) == ([], ["b", "c", "a"])
    # its mark is not ours to remove while it may live
    assert [mark.run for mark in Survey(store, day(2)).listing.marks["a"]] == ["another"]


def test_marks_expire() -> None:
    now = dt.datetime(2025, 4, 1, 12, tzinfo=dt.UTC)
    mark = hints.Mark("a", "another", now - dt.timedelta(minutes=14), "")
    assert hints.is_busy([mark], "own", now)
    assert not hints.is_busy([mark], "another", now)
    assert not hints.is_busy([mark], "own", now + dt.timedelta(minutes=2))


# --- what it costs ---------------------------------------------------------------------------------------------------


def asked_for(counts: Counts) -> list[tuple[str, str]]:
    """Requests but for the log of the fields table: Delta reads its files once or twice, as it comes."""
    return [(one.operation, one.key) for one in counts.requests if "/fields/_delta_log/" not in one.key]


@pytest.mark.s3
def test_requests_on_s3(s3: S3Server, s3_url: str, tmp_path: Path) -> None:
    names = [f"box-{number}" for number in range(6)]
    store = make_store(s3_url, *(box(name) for name in names))
    submit(store, [write_fields(tmp_path / "f.geojson", *FIELDS)])
    go(store, 3)
    with s3.counting() as counts:
        assert all(quiet(store, 3, 0).values())
    checked, in_all = asked_for(counts), counts.total
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrate.survey.CHECKED_EACH_PLAN", 0)
        with s3.counting() as counts:
            assert all(quiet(store, 3, 0).values())
    # four LISTs, a HEAD of one of them that is empty, and the index, whatever the number of boxes
    alone = asked_for(counts)
    assert len(alone) == 6, alone
    assert counts.total <= 16
    assert len(checked) == len(alone) + 2 * len(names), checked
    assert in_all <= 16 + 2 * len(names)
    store.location.delete(hints.INDEX)
    with s3.counting() as counts:
        assert all(quiet(store, 3, 0).values())
    # hint, cube's branch and the log of the rows table of each box; and the fields table is read
    assert len(asked_for(counts)) <= len(alone) + 3 * len(names) + 4, asked_for(counts)
    assert counts.total <= 14 + 3 * len(names) + 4
