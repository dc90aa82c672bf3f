"""Runs from end to end: days, late fields, crashes, retries, failures, receipts."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import geofield
import geofield.pipeline
from geofield import Store
from geofield.errors import ConfigurationError, MissingBandError, NotFoundError, StoreUnavailableError
from orchestrate import cluster, run
from orchestrate.config import Settings
from orchestrate.inbox import submit
from orchestrate.receipt import recent_receipts
from orchestrate.state import gather
from tests.support.smallstore import box, day, feature, make_store, numbers, objects, write_fields

QUICK = Settings(retry_wait_s=0)


def go(store: Store, until: int, **more: Any) -> dict[str, Any]:
    return run(store, day(until), settings=QUICK, **more)


def late_of(receipt: dict[str, Any], name: str = "b") -> tuple[int, int, int, int]:
    late = receipt["boxes"][name]["late"]
    return late["fields"], late["field_days"], late["source_reads"], late["box_tasks"]


def test_main_job(store_url: str, tmp_path: Path) -> None:
    """Days, then the same again, then a late field, then a corrected polygon and more days."""
    store = make_store(store_url)
    submit(
        store,
        [write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("B", 150, 150, planting_date="2025-04-04"))],
    )
    first = go(store, 10)
    done = first["boxes"]["b"]
    assert first["errors"] == []
    assert first["inbox"] == {"files_accepted": 1, "files_rejected": 0, "rows_accepted": 2, "rows_rejected": 0}
    # imagery comes every second day, on one tile; one day in 16 is withheld by the source
    acquired = int(store.cube("b").head().acquired.sum())
    assert (done["days_appended"], done["days_present"], done["source_reads"]) == (10, 0, acquired)
    assert 3 <= acquired <= 5
    assert done["rows_written"] == 10 + 7
    assert late_of(first) == (0, 0, 0, 0)

    cubes, rows, fields = (objects(store, prefix) for prefix in ("cubes", "rows", "fields"))
    again = go(store, 10)
    assert again["boxes"]["b"]["days_present"] == 10
    assert not any(
        again["boxes"]["b"][name] for name in ("days_appended", "source_reads", "rows_written", "rows_removed")
    )
    assert (objects(store, "cubes"), objects(store, "rows"), objects(store, "fields")) == (cubes, rows, fields)

    submit(store, [write_fields(tmp_path / "late.geojson", feature("L", 150, 150, planting_date="2025-04-04"))])
    third = go(store, 10)
    assert late_of(third) == (1, 7, 0, 0)
    assert third["boxes"]["b"]["source_reads"] == 0
    assert third["boxes"]["b"]["rows_written"] == 7
    assert objects(store, "cubes") == cubes
    # it lies where B lies: the numbers of the late field are those of the one that was on time
    one, other = (store.rows(field=name).drop(columns="field_id") for name in ("B", "L"))
    pd.testing.assert_frame_equal(one, other, check_exact=True)

    submit(store, [write_fields(tmp_path / "moved.geojson", feature("A", 200, 0, planting_date="2025-04-06"))])
    fourth = go(store, 12)
    # its 5 days in the cube are filled from there, days 11 and 12 come with the append
    assert late_of(fourth) == (1, 5, 0, 0)
    assert (fourth["boxes"]["b"]["days_appended"], fourth["boxes"]["b"]["rows_written"]) == (2, 5 + 3 * 2)
    moved = store.rows(field="A")
    assert moved["date"].tolist() == [day(number) for number in range(6, 13)]
    assert moved["field_version"].nunique() == 1
    assert not go(store, 12)["boxes"]["b"]["rows_written"]


def test_cut_runs_equal_one_run(tmp_path: Path) -> None:
    fields = write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("B", 95, 95, 210))
    whole, cut = make_store(str(tmp_path / "whole")), make_store(str(tmp_path / "cut"))
    submit(whole, [fields])
    go(whole, 12)
    for until in (1, 5, 6, 12):
        go(cut, until)
        if until == 5:
            submit(cut, [fields])
    pd.testing.assert_frame_equal(numbers(whole), numbers(cut), check_exact=True)
    one, other = (store.cube("b").open() for store in (whole, cut))
    assert one.equals(other)


class _Killed(BaseException):
    """The process dies here."""


# 17 days in three windows; the first rows are those of the late field
@pytest.mark.parametrize(
    ("point", "call"), [("accept", 0), *(("publish", n) for n in range(3)), *(("rows", n) for n in range(4))]
)
def test_killed_run_is_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, call: int
) -> None:
    """A run of several windows dies right after the n-th publication or before the n-th commit of rows or fields."""
    store = make_store(str(tmp_path / "store"))
    fields = write_fields(
        tmp_path / "f.geojson", feature("A", 0, 0), feature("B", 150, 150, planting_date="2025-04-04")
    )
    submit(store, [fields])
    go(store, 3)
    submit(store, [write_fields(tmp_path / "late.geojson", feature("L", 0, 200))])
    names = {
        "publish": "geofield.cube.attempt.Attempt.publish",
        "rows": "geofield.results.rows.Results.commit",
        "accept": "geofield.registry.FieldRegistry.accept",
    }
    owner, _, method = names[point].rpartition(".")
    real = getattr(_imported(owner), method)
    left = [call]

    def mortal(*args: Any, **named: Any) -> Any:
        if left[0] == 0 and point != "publish":
            raise _Killed
        left[0] -= 1
        value = real(*args, **named)
        if left[0] == -1 and point == "publish":
            raise _Killed
        return value

    with monkeypatch.context() as patch:
        patch.setattr(names[point], mortal)
        with pytest.raises(_Killed):
            go(store, 20)
    go(store, 20)
    again = go(store, 20)
    assert not again["boxes"]["b"]["rows_written"]
    other = make_store(str(tmp_path / "other"))
    submit(other, [fields, tmp_path / "late.geojson"])
    go(other, 20)
    pd.testing.assert_frame_equal(numbers(store), numbers(other), check_exact=True)


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def test_rows_that_a_crash_left_out_come_from_the_cube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "store"))
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    go(store, 4)

    def killed(*args: Any, **named: Any) -> int:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr("geofield.results.rows.Results.commit", killed)
        with pytest.raises(_Killed):
            go(store, 6)
    assert store.cube("b").head().last == day(6)
    assert len(store.rows()) == 4
    mended = go(store, 6)["boxes"]["b"]
    assert (mended["mended"]["fields"], mended["mended"]["field_days"], mended["mended"]["source_reads"]) == (1, 2, 0)
    assert (mended["late"]["fields"], mended["source_reads"], mended["rows_written"]) == (0, 0, 2)
    assert len(store.rows()) == 6


def test_what_may_succeed_later_is_tried_again_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "store"))
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    real = geofield.results.rows.Results.commit  # type: ignore[attr-defined]
    failures = [StoreUnavailableError("no answer"), StoreUnavailableError("no answer")]

    def flaky(*args: Any, **named: Any) -> int:
        if failures:
            raise failures.pop()
        return int(real(*args, **named))

    monkeypatch.setattr("geofield.results.rows.Results.commit", flaky)
    receipt = go(store, 4)
    assert (receipt["errors"], receipt["retries"]) == ([], 2)
    # the days were published by the try whose rows failed: the rows came from the cube afterwards
    assert receipt["boxes"]["b"]["days_appended"] == 4
    assert len(store.rows()) == 4


def test_it_gives_up_after_some_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "store"))

    def unavailable(*args: Any) -> Any:
        raise StoreUnavailableError("no answer")

    monkeypatch.setattr(geofield.pipeline, "append_days", unavailable)
    receipt = run(store, day(4), settings=Settings(retry_wait_s=0, retries=2))
    assert receipt["retries"] == 2
    assert receipt["errors"] == [
        {"box": "b", "date": "2025-04-01", "kind": "store_unavailable", "message": "no answer"}
    ]


@pytest.mark.parametrize("error", [MissingBandError("no band"), ZeroDivisionError("oops")])
def test_one_box_failing_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store = make_store(str(tmp_path / "store"), box("a"), box("b"), box("c"))
    real = geofield.pipeline.append_days

    def failing(first: dt.date, last: dt.date, source: Any, fields: Any, *rest: Any) -> Any:
        if fields.box.id == "b":
            raise error
        return real(first, last, source, fields, *rest)

    monkeypatch.setattr(geofield.pipeline, "append_days", failing)
    receipt = go(store, 3)
    assert {name: one["days_appended"] for name, one in receipt["boxes"].items()} == {"a": 3, "b": 0, "c": 3}
    (told,) = receipt["errors"]
    assert (told["box"], told["date"], told["kind"]) == ("b", "2025-04-01", getattr(error, "kind", "unexpected"))
    monkeypatch.undo()
    assert {name: one["days_appended"] for name, one in go(store, 3)["boxes"].items()} == {"a": 0, "b": 3, "c": 0}


def test_box_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"), box("a"), box("b"))
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    store.location.write("boxes/a.json", b"{}")
    receipt = go(store, 2)
    assert [(one["box"], one["kind"]) for one in receipt["errors"]] == [("a", "corrupt_store")]
    assert (receipt["boxes"]["b"]["days_appended"], receipt["inbox"]["rows_accepted"]) == (2, 1)
    assert list(gather(store).failures) == ["a"]


def test_field_that_left_the_box_leaves_no_rows(tmp_path: Path) -> None:
    east = box("east", bbox=[500400, 5490000, 500800, 5490400])
    store = make_store(str(tmp_path / "store"), box("b"), east)
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("K", 0, 0))])
    go(store, 3)
    submit(store, [write_fields(tmp_path / "g.geojson", feature("A", 500, 0))])
    receipt = go(store, 3)
    assert receipt["boxes"]["b"]["rows_removed"] == 3
    assert late_of(receipt, "east") == (1, 3, 0, 0)
    assert set(store.rows(box="b")["field_id"]) == {"K"}
    assert set(store.rows(box="east")["field_id"]) == {"A"}


def test_field_planted_later_than_was_said(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"))
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("B", 0, 0))])
    go(store, 5)
    later = feature("A", 0, 0, planting_date="2025-04-04"), feature("B", 0, 0, planting_date="2025-05-04")
    submit(store, [write_fields(tmp_path / "g.geojson", *later)])
    receipt = go(store, 5)
    assert store.rows()[["field_id", "date"]].to_numpy().tolist() == [["A", day(4)], ["A", day(5)]]
    assert receipt["boxes"]["b"]["rows_removed"] == 5
    assert not go(store, 5)["boxes"]["b"]["rows_removed"]


def test_settle_days_hold_days_back(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"), box(settle_days=3))
    assert go(store, 10)["boxes"]["b"]["days_appended"] == 7
    assert store.cube("b").head().last == day(7)


def test_receipt_is_stored_as_it_is_returned(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"))
    receipt = go(store, 2)
    started = dt.datetime.fromisoformat(receipt["started"])
    key = f"runs/{started:%Y}/{started:%m}/{receipt['run_id']}.json"
    assert json.loads(store.location.read(key)) == receipt
    assert (receipt["version"], receipt["until"], receipt["cluster"]) == (geofield.__version__, "2025-04-02", "threads")
    assert receipt["started"] <= receipt["finished"]
    newest = go(store, 2)
    assert [one["run_id"] for one in recent_receipts(store)] == [newest["run_id"], receipt["run_id"]]


def test_hint_says_what_is_done(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"))
    submit(
        store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("B", 0, 0, harvest_date="2025-04-02"))]
    )
    go(store, 3)
    hint = json.loads(store.location.read("progress/b.json"))
    assert hint["last_day"] == "2025-04-03"
    assert {name: one["done_to"] for name, one in hint["fields"].items()} == {"A": "2025-04-03", "B": "2025-04-02"}
    store.location.write("progress/b.json", b"lost")
    assert go(store, 4)["boxes"]["b"]["days_appended"] == 1


def test_interrupted_run_leaves_a_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "store"))

    def stopped(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(geofield.pipeline, "append_days", stopped)
    with pytest.raises(KeyboardInterrupt):
        go(store, 2)
    (receipt,) = recent_receipts(store)
    assert [one["kind"] for one in receipt["errors"]] == ["interrupted"]


def test_store_without_boxes(tmp_path: Path) -> None:
    store = geofield.create_store(tmp_path / "store")
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    receipt = go(store, 2)
    assert (receipt["boxes"], receipt["inbox"]["files_rejected"]) == ({}, 1)
    assert "add-box" in receipt["rejected"][0]["reason"]


# --- where it runs ---------------------------------------------------------------------------------------------------


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="geofield init"):
        run(tmp_path / "nowhere", day(1))
    store = make_store(str(tmp_path / "store"))
    with pytest.raises(ConfigurationError, match="'fast'"):
        run(store, day(1), cluster="fast")
    with pytest.raises(ConfigurationError, match="extra `kube`"):
        run(store, day(1), cluster="kube")
    with pytest.raises(ConfigurationError, match="future"):
        run(store, dt.datetime.now(dt.UTC).date() + dt.timedelta(days=2))
    assert recent_receipts(store) == []


def test_threads_are_those_that_were_asked_for() -> None:
    import dask

    with cluster.connect("threads", 3) as pool:
        assert (pool.workers, dask.config.get("scheduler"), dask.config.get("num_workers")) == (3, "threads", 3)
    assert dask.config.get("scheduler", None) is None


def test_runs_that_come_and_go_leave_nothing_behind() -> None:
    """Two runs of one process, and the first ends first, while the other still hands out work."""
    import pickle

    import dask

    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(cluster.connect("threads", 2))
        held = dask.config.get("pool")
        second.enter_context(cluster.connect("threads", 3))
        assert (dask.config.get("num_workers"), dask.config.get("pool") is held) == (3, False)
        first.close()
        assert dask.compute(dask.delayed(sum)([1, 2])) == (3,)
        assert held.submit(sum, [1, 2]).result() == 3, "a run that came before may have taken the pool from Dask"
        assert pickle.loads(pickle.dumps(dask.config.config))["pool"] is None, "it is sent to new processes"
    assert {"scheduler", "num_workers", "pool"}.isdisjoint(dask.config.config)
    with pytest.raises(RuntimeError, match="shutdown"):
        held.submit(sum, [1, 2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_local_cluster_gives_the_same_numbers(tmp_path: Path) -> None:
    fields = write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("B", 95, 95, 210))
    here, there = make_store(str(tmp_path / "here")), make_store(str(tmp_path / "there"))
    submit(here, [fields])
    submit(there, [fields])
    go(here, 4)
    with cluster.connect("local", 1) as client:
        receipt = go(there, 4, client=client)
        assert (receipt["cluster"], receipt["errors"]) == ("local", [])
        assert receipt["boxes"]["b"]["source_reads"] > 0
    pd.testing.assert_frame_equal(numbers(here), numbers(there), check_exact=True)
