"""Withdrawn and forgotten fields, removed boxes."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

import geofield
from geofield.errors import BoxError, LostRaceError, NotFoundError
from geofield.pipeline.history import rows_history
from geofield.pipeline.publish import publish
from geofield.pipeline.verify import verify
from geofield.store import Location
from orchestrate import run
from orchestrate.cli import main
from orchestrate.inbox import submit
from orchestrate.summary import summarise
from tests.support import smallstore
from tests.support.unprivileged import commands, read_only, skip_where_bits_do_not_count
from tests.test_orchestrate_changes import END, START, describe, make_store


@pytest.fixture
def store(store_url: str, tmp_path: Path) -> geofield.Store:
    made = make_store(store_url, tmp_path, describe())
    run(made, END)
    assert set(made.rows()["field_id"]) == {"f1", "f2"}
    return made


def holding(store: geofield.Store, text: str, folder: str) -> list[str]:
    location = store.location
    return [info.key for info in location.list(folder) if text.encode() in location.read(info.key)]


def test_a_withdrawn_field_stops_and_can_come_back(store: geofield.Store, tmp_path: Path) -> None:
    rows = store.rows(field="f1")
    assert store.withdraw_fields(["f1"]) == 1
    assert store.withdraw_fields(["f1"]) == 0
    receipt = run(store, END + dt.timedelta(days=1))["boxes"]["b"]
    assert (receipt["rows_removed"], receipt["rows_written"]) == (len(rows), 1)
    assert set(store.rows()["field_id"]) == {"f2"}
    assert "f1" in set(store.registry.versions()["field_id"])
    # handed in again, its past comes from the stored cube
    again = (
        store.registry.versions().query("field_id == 'f1' and not withdrawn").drop(columns=["accepted", "withdrawn"])
    )
    assert store.registry.accept(again, "again", {}) == 1
    assert run(store, END + dt.timedelta(days=1))["boxes"]["b"]["late"]["source_reads"] == 0
    back = store.rows(field="f1", end=END)
    assert back.equals(rows)


def test_the_last_word_on_a_field_holds_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second and third runner's clock is behind that of the first."""
    store = smallstore.make_store(str(tmp_path / "store"))

    def hand_in(x: float) -> str:
        submit(store, [smallstore.write_fields(tmp_path / f"{x}.geojson", smallstore.feature("A", x, 0))])
        assert run(store, smallstore.day(1))["errors"] == []
        return str(store.registry.versions()["version"].iloc[-1])

    class Slow(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Slow:
            return cls.fromtimestamp(dt.datetime.now(tz).timestamp() - 90, tz)

    first = hand_in(0)
    monkeypatch.setattr("geofield.registry.dt", SimpleNamespace(datetime=Slow, UTC=dt.UTC, timedelta=dt.timedelta))
    second = hand_in(50)
    assert store.registry.current()["version"].tolist() == [second] != [first]
    _, placeable = store.registry.placeable()
    assert placeable["version"].to_pylist() == [second]
    assert store.withdraw_fields(["A"]) == 1
    assert store.withdraw_fields(["A"]) == 0
    assert len(store.registry.current()) == 0
    assert run(store, smallstore.day(1))["errors"] == []
    assert verify(store.location) == []


SECRET = "a forgotten field's own id, longer than what statistics keep"


def traces(location: Location, text: str) -> list[str]:
    """Objects that hold a text, or more than the first characters of it; Parquet is read value by value."""
    found = []
    for info in location.list(""):
        said = location.read(info.key)
        if info.key.endswith(".parquet"):
            file = pq.ParquetFile(io.BytesIO(said))
            said = (repr(file.read().to_pylist()) + repr(file.metadata) + repr(file.schema_arrow)).encode()
        if any(part.encode() in said for part in (text, json.dumps(text)[1:-1], text.replace("'", "''"), text[:30])):
            found.append(info.key)
    return found


def test_nothing_stored_tells_of_a_forgotten_field(store: geofield.Store, tmp_path: Path) -> None:
    shape = shapely.box(500155, 5079155, 500255, 5079355)
    path = tmp_path / "more.geojson"
    path.write_text(
        gpd.GeoDataFrame(
            {"field_id": [SECRET], "planting_date": "2025-05-01"}, geometry=[shape], crs="EPSG:32633"
        ).to_json()
    )
    submit(store, [path], "fields", {"crs": "EPSG:32633"})
    run(store, END)
    run(store, END + dt.timedelta(days=1))
    # replaced rows, a checkpoint, and a file that a writer left when it died
    moved = store.registry.versions().query("field_id == @SECRET").drop(columns=["accepted", "withdrawn"])
    assert store.registry.accept(moved.assign(version="0123456789ab", harvest_date=END), "more.geojson", {}) == 1
    run(store, END + dt.timedelta(days=1))
    table = store.results("b").table.open().table
    assert table is not None
    table.create_checkpoint()
    orphan = next(key for key in traces(store.location, SECRET) if key.startswith("rows/b/month"))
    store.location.write(orphan.replace("part-", "part-dead-"), store.location.read(orphan))
    fields, cube = store.registry.current(), store.cube("b")
    publish(store.location, store.box("b"), cube, fields, zarr=False, cog=False, fields=True)
    told = traces(store.location, SECRET)
    for folder in ("rows/b/month", "rows/b/_delta_log/0", "fields/part", "fields/_delta_log/0", "published/b/fields"):
        assert [key for key in told if key.startswith(folder)], folder
    rows, history = store.rows(field=["f1", "f2"]), rows_history(store.location, "b", "f1")
    assert store.forget_fields([SECRET]) > 0
    assert [key for key in traces(store.location, SECRET) if not key.startswith("inbox/accepted/")] == []
    assert set(store.rows()["field_id"]) == {"f1", "f2"}
    pd.testing.assert_frame_equal(store.rows(field=["f1", "f2"]), rows)
    assert len(rows_history(store.location, "b", "f1")) >= len(history)
    assert verify(store.location, deep=True) == []
    assert run(store, END + dt.timedelta(days=1))["boxes"]["b"]["rows_written"] == 0
    assert len(run(store, END + dt.timedelta(days=2))["errors"]) == 0


def test_receipts_tell_no_more_of_a_forgotten_field(store_url: str, tmp_path: Path) -> None:
    store = smallstore.make_store(store_url)
    name, other = "Maria Rossi's north plot, the one behind the mill by the river", smallstore.feature("x", 200, 50)
    submit(store, [smallstore.write_fields(tmp_path / "1.geojson", smallstore.feature(name, 50, 50), other)])
    run(store, smallstore.day(1))
    bad = smallstore.feature(name, 50, 50, planting_date="nonsense")
    far = smallstore.feature("far", 9000, 0)
    submit(store, [smallstore.write_fields(tmp_path / "2.geojson", bad, other, far)])
    receipt = run(store, smallstore.day(2))
    (key,) = (info.key for info in store.location.list("runs") if receipt["run_id"] in info.key)
    told = {"box": "b", "date": None, "kind": "unexpected", "message": f"field {name!r} (row 1): {name!r:.57}..."}
    store.location.write(key, json.dumps(receipt | {"errors": [told]}).encode())
    store.location.write("runs/2025/04/damaged.json", b"[" * 100_000)
    assert key in traces(store.location, name)
    store.forget_fields([name])
    assert all(found.startswith("inbox/") for found in traces(store.location, name))
    left = json.loads(store.location.read(key))
    assert [(one["row"], one["field_id"]) for one in left["rejected"]] == [(2, "far")]
    assert left["errors"] == [told | {"message": 'field "?" (row 1): "?...'}]
    assert {**left, "rejected": 0, "errors": 0} == {**receipt, "rejected": 0, "errors": 0}


def test_files_that_wait_are_named_when_a_field_is_forgotten(
    store: geofield.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.location.write("inbox/fields/again.geojson", b'{"field_id": "f1"}')
    assert main(["forget", store.url, "--field", "f1", "--yes", "--json"]) == 0
    assert "inbox/fields/again.geojson" in json.loads(capsys.readouterr().out)["files_that_hold_it"]


def test_a_writer_that_slept_cannot_commit_what_was_purged(store: geofield.Store) -> None:
    results = store.results("b")
    asleep = results.table.open()
    rows = results.table.read(asleep, None, "field_id = 'f1'")
    assert rows is not None
    store.forget_fields(["f1"])
    with pytest.raises(LostRaceError):
        results.table.commit(asleep, rows)
    assert set(store.rows()["field_id"]) == {"f2"}


def test_a_forgotten_field_is_in_no_table_any_more(store: geofield.Store) -> None:
    assert holding(store, "f1", "rows/b")
    assert store.forget_fields(["f1"]) == 9
    assert [key for key in holding(store, "f1", "rows/b") if "_delta_log" not in key] == []
    assert [key for key in holding(store, "f1", "fields") if "_delta_log" not in key] == []
    assert store.location.list("weights") == []
    assert set(store.rows()["field_id"]) == {"f2"}
    assert run(store, END)["boxes"]["b"]["rows_written"] == 0
    with pytest.raises(NotFoundError, match="no field 'f1' to forget"):
        store.forget_fields(["f1"])


def test_rows_that_a_run_brought_back_of_a_forgotten_field_leave(store: geofield.Store) -> None:
    results = store.results("b")
    rows = results.table.read(results.table.open(), None, "field_id = 'f1'")
    assert rows is not None
    store.forget_fields(["f1"])
    store.results("b").commit(rows, {})
    receipt = run(store, END + dt.timedelta(days=1))
    assert (receipt["errors"], receipt["boxes"]["b"]["rows_removed"]) == ([], len(rows))


def test_rows_are_not_removed_because_the_table_of_fields_is_lost(store: geofield.Store, tmp_path: Path) -> None:
    rows, kept = store.rows(), store.registry.versions().drop(columns=["accepted", "withdrawn"])
    for info in store.location.list("fields"):
        store.location.delete(info.key)
    told = run(store, END + dt.timedelta(days=1))["errors"]
    assert [one["kind"] for one in told] == ["corrupt_store"]
    assert "rows/b holds rows of 2 fields, and the table `fields` of the store is missing: f1, f2" in told[0]["message"]
    # what is handed in afterwards makes a new table, which does not stand for the lost one
    assert store.registry.accept(kept[kept["field_id"] == "f1"], "again", {}) == 1
    told = run(store, END + dt.timedelta(days=1))["errors"]
    assert "does not know them: f2. No row was removed" in told[0]["message"]
    pd.testing.assert_frame_equal(store.rows(), rows)
    assert store.registry.accept(kept, "again", {}) == 1
    assert run(store, END)["errors"] == []
    pd.testing.assert_frame_equal(store.rows(), rows)


def test_a_store_that_may_only_be_read_says_so(tmp_path: Path) -> None:
    skip_where_bits_do_not_count(tmp_path)
    store = make_store(str(tmp_path / "store"), tmp_path, describe())
    run(store, END)
    read_only(tmp_path / "store")
    file, box = tmp_path / "fields.geojson", ["--bbox", "14", "45", "14.01", "45.01", "--source", "simulated"]
    asked = [
        ["run", store.url, "--until", str(END)],
        ["submit", store.url, str(file)],
        ["publish", store.url, "--box", "b"],
        ["compact", store.url],
        ["withdraw", store.url, "--field", "f1"],
        ["forget", store.url, "--field", "f1", "--yes"],
        ["remove-box", store.url, "--id", "b", "--yes"],
        ["add-box", store.url, "--id", "c", "--start", str(START), *box],
        ["init", f"{store.url}/inside"],
    ]
    for words, (status, _, said) in zip(asked, commands(*asked), strict=True):
        assert (status, said[:9]) == (2, "geofield:"), (words, said)
        assert "Give this user the right to read and write everything in the store" in said, words
    reading = [
        ["status", store.url],
        ["verify", store.url],
        ["plan", store.url],
        ["series", store.url, "--field", "f1"],
    ]
    assert [(status, err) for status, _, err in commands(*reading)] == [(0, "")] * 4


def test_rows_of_an_unknown_field_can_be_forgotten(store: geofield.Store) -> None:
    for info in store.location.list("fields"):
        store.location.delete(info.key)
    assert store.forget_fields(["f1"]) == 9
    assert [one["kind"] for one in run(store, END)["errors"]] == ["corrupt_store"]
    assert set(store.rows()["field_id"]) == {"f2"}
    assert store.forget_fields(["f2"]) == 9
    assert run(store, END)["errors"] == []


def test_a_removed_box_leaves_nothing(store: geofield.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["remove-box", store.url, "--id", "b"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert main(["remove-box", store.url, "--id", "b", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] > 10
    assert [info.key for info in store.location.list("") if "/b/" in info.key or info.key.endswith("/b.json")] == []
    assert main(["remove-box", store.url, "--id", "b", "--yes"]) == 2
    assert "no box 'b'" in capsys.readouterr().err
    assert run(store, END)["errors"] == []


def test_the_id_of_a_run_is_no_field(store: geofield.Store, capsys: pytest.CaptureFixture[str]) -> None:
    (why,) = (info.key for info in store.location.list("inbox/accepted") if info.key.endswith(".why.json"))
    said = json.loads(store.location.read(why))
    store.location.write(why, json.dumps(said | {"run": "20250101T000000Z-00f200"}, indent=1).encode())
    assert main(["forget", store.url, "--field", "f2", "--yes", "--json"]) == 0
    (held,) = json.loads(capsys.readouterr().out)["files_that_hold_it"]
    assert held.endswith("fields.geojson")


def test_the_command_line_withdraws_and_forgets(store: geofield.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["withdraw", store.url, "--field", "f1"]) == 0
    assert main(["forget", store.url, "--field", "f2"]) == 2
    assert "1 of 1 withdrawn now" in capsys.readouterr().out
    assert main(["forget", store.url, "--field", "f2", "--yes", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == 9
    assert [key.startswith("inbox/accepted/") for key in said["files_that_hold_it"]] == [True]
    assert main(["withdraw", store.url, "--field", "nobody"]) == 2


def test_a_removed_box_can_be_added_again(store_url: str) -> None:
    store = smallstore.make_store(store_url)
    assert run(store, smallstore.day(3))["errors"] == []
    mean = float(store.cube("b").open()["ndvi"].mean())
    assert store.remove_box("b") > 10
    store.add_box(smallstore.box())
    assert run(store, smallstore.day(3))["errors"] == []
    assert float(store.cube("b").open()["ndvi"].mean()) == mean
    assert verify(store.location) == []


def test_a_removal_that_was_cut_is_finished_before_the_box_is_added_again(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = smallstore.make_store(store_url)
    assert run(store, smallstore.day(2))["errors"] == []
    in_all = len([info for info in store.location.list("") if "/b/" in info.key or info.key.endswith("/b.json")])
    for done in (1, 2, 7, in_all - 1):
        left = iter(range(done))

        def mortal(location: Location, key: str, left: Iterator[int] = left, real: Any = Location.delete) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            real(location, key)

        with monkeypatch.context() as patch:
            patch.setattr(Location, "delete", mortal)
            with pytest.raises(KeyboardInterrupt):
                store.remove_box("b")
        if done > 2:  # its description and the note of what is done
            with pytest.raises(NotFoundError, match="has no cube"):
                store.cube("b").head()
        with pytest.raises(BoxError, match=r"removed and not all of it is gone.*geofield remove-box"):
            store.add_box(smallstore.box())
        assert store.boxes() == {}
        assert store.remove_box("b") == in_all - done
        store.add_box(smallstore.box())
        assert run(store, smallstore.day(2))["errors"] == []
        assert verify(store.location) == []


def test_a_run_that_only_removes_rows_says_so(store: geofield.Store, capsys: pytest.CaptureFixture[str]) -> None:
    rows = len(store.rows(field="f1"))
    store.withdraw_fields(["f1"])
    assert main(["run", store.url, "--until", END.isoformat()]) == 0
    said = capsys.readouterr()
    assert f"run over: rows removed {rows}" in said.err
    assert summarise(store)["runs"][0]["rows_removed"] == rows
    assert main(["runs", store.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["attempts"][-1]["rows_removed"] == rows
