"""Files on their way into a store: nothing is lost, nothing is taken twice, every refusal has its reason."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

import geofield
from geofield import Run, Store
from geofield.errors import (
    AccessError,
    ConfigurationError,
    CorruptStoreError,
    GeofieldError,
    NotFoundError,
    StoreUnavailableError,
)
from geofield.registry import FieldRegistry
from orchestrate import inbox, inboxfiles, run
from orchestrate.inbox import InboxReport, read_inbox, submit
from orchestrate.inboxfiles import waiting
from tests.support.smallstore import box, day, feature, make_store, write_fields


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(str(tmp_path / "store"))


def read(store: Store) -> InboxReport:
    return read_inbox(store, Run())


def keys(store: Store, prefix: str = "inbox") -> list[str]:
    return [info.key.removeprefix("inbox/") for info in store.location.list(prefix)]


def test_options_travel_with_the_file(store: Store, tmp_path: Path) -> None:
    path = write_fields(tmp_path / "f.geojson", feature(None, 0, 0, planting_date=None, number=7))
    (done,) = submit(store, [path], options={"id_column": "number", "planting_date": "box-start"})
    assert done.key == "inbox/fields/f.geojson"
    report = read(store)
    assert (report.counts.files_accepted, report.counts.rows_accepted, report.rejected) == (1, 1, [])
    assert store.registry.current()["field_id"].tolist() == ["7"]
    moved = {key.split("-", 1)[1] for key in keys(store, "inbox/accepted")}
    assert moved == {"f.geojson", "f.geojson.options.json", "f.geojson.why.json"}  # why: what the options were used for
    assert keys(store, "inbox/fields") == []


def test_same_file_again_is_left_and_other_content_gets_a_number(store: Store, tmp_path: Path) -> None:
    path = write_fields(tmp_path / "f.geojson", feature("A", 0, 0))
    first, again = submit(store, [path]), submit(store, [path])
    assert [one.is_new for one in (*first, *again)] == [True, False]
    with_options = submit(store, [path], options={"planting_date": "2025-04-02"})
    write_fields(path, feature("B", 0, 0))
    other = submit(store, [path])
    assert [one.key for one in (*with_options, *other)] == ["inbox/fields/f~2.geojson", "inbox/fields/f~3.geojson"]
    assert len(waiting(store)) == 3


def test_later_file_wins_although_its_name_sorts_first(store: Store, tmp_path: Path) -> None:
    submit(store, [write_fields(tmp_path / "z.geojson", feature("A", 0, 0, crop="old"))])
    submit(store, [write_fields(tmp_path / "a.geojson", feature("A", 50, 0, crop="new"))])
    read(store)
    assert store.registry.current()["crop"].tolist() == ["new"]


NAMES = [
    "fields 2016+04 (1)#2 100%.geojson",
    "fields-2025-05-06-00:02:11.geojson",
    "Ü?&=;~.geojson",
    "x" * 240 + ".geojson",
]


@pytest.mark.parametrize("name", NAMES, ids=["punctuation", "colons", "query", "long"])
def test_names_are_kept(store_url: str, tmp_path: Path, name: str) -> None:
    store = make_store(store_url)
    (done,) = submit(store, [write_fields(tmp_path / name, feature("A", 0, 0))])
    assert len(done.key.rpartition("/")[2].encode()) <= 190
    if len(name) < 190:
        assert done.key == f"inbox/fields/{name}"
    assert read(store).counts.rows_accepted == 1
    (moved,) = (key for key in keys(store, "inbox/accepted") if not key.endswith(".json"))
    assert moved.endswith(done.key.rpartition("/")[2])


def test_good_rows_are_taken_and_bad_ones_explained(store: Store, tmp_path: Path) -> None:
    path = write_fields(tmp_path / "mixed.geojson", feature("A", 0, 0), feature("far", 5000, 0), feature(None, 10, 10))
    submit(store, [path])
    report = read(store)
    counts = report.counts
    assert (counts.files_accepted, counts.files_rejected, counts.rows_accepted, counts.rows_rejected) == (1, 0, 1, 2)
    (why,) = (key for key in keys(store) if key.endswith(".why.json"))
    assert why.startswith("accepted/")
    told = json.loads(store.location.read(f"inbox/{why}"))
    assert told["accepted"] == 1
    assert {(item["row"], item["field_id"], item["rule"]) for item in told["rejected"]} == {
        (1, "far", "outside"),
        (2, None, "no_id"),
    }
    assert all(f"row {item['row']}" in item["reason"] for item in told["rejected"])


def test_bad_file_goes_to_rejected_and_the_next_one_is_read(store: Store, tmp_path: Path) -> None:
    bad = tmp_path / "a.geojson"
    bad.write_bytes(b"<html>not found</html>")
    submit(store, [bad, write_fields(tmp_path / "b.geojson", feature("A", 0, 0))])
    report = read(store)
    assert (report.counts.files_accepted, report.counts.files_rejected) == (1, 1)
    assert {key.split("-", 1)[1] for key in keys(store, "inbox/rejected")} == {
        "a.geojson", "a.geojson.options.json", "a.geojson.why.json",
    }  # fmt: skip
    assert report.rejected[0].row is None


def test_what_nobody_foresaw_is_a_reason(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object) -> None:
        raise RuntimeError("boom")

    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    monkeypatch.setattr(geofield, "read_fields", explode)
    report = read(store)
    assert [(one.rule, "boom" in one.reason) for one in report.rejected] == [("unexpected", True)]
    assert any(key.endswith("f.geojson.why.json") for key in keys(store, "inbox/rejected"))


@pytest.mark.parametrize("error", [StoreUnavailableError, AccessError, CorruptStoreError])
def test_file_waits_while_the_store_does_not_take_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[GeofieldError]
) -> None:
    def unavailable(*args: object, **named: object) -> int:
        raise error("no answer")

    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    with monkeypatch.context() as patch:
        patch.setattr("geofield.registry.FieldRegistry.accept", unavailable)
        report = read(store)
    assert [(one["kind"], one["file"]) for one in report.errors] == [(error.kind, "inbox/fields/f.geojson")]
    assert (report.counts.files_accepted, report.counts.files_rejected) == (0, 0)
    assert len(waiting(store)) == 1
    assert read(store).counts.rows_accepted == 1


@pytest.mark.parametrize("stop_after", range(6))
def test_crash_at_any_write_is_harmless(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """The process dies after some of the writes and deletions by which a file is moved."""
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("far", 5000, 0))])
    left = [stop_after]

    def mortal(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        for name in ("write", "delete"):
            patch.setattr(f"geofield.store.Location.{name}", mortal(getattr(type(store.location), name)))
        if stop_after < 5:  # why, options, copy, and two deletions
            with pytest.raises(KeyboardInterrupt):
                read(store)
        else:
            read(store)
    read(store)
    assert len(store.registry.versions()) == 1
    assert waiting(store) == []
    endings = sorted(key.split("-", 1)[1] for key in keys(store, "inbox/accepted"))
    assert endings == ["f.geojson", "f.geojson.options.json", "f.geojson.why.json"]


def once_before(real: Callable[..., Any], happens: Callable[[], object]) -> Callable[..., Any]:
    """The same, but something happens before it is called for the first time."""
    waits = [happens]

    def call(*args: Any) -> Any:
        if waits:
            waits.pop()()
        return real(*args)

    return call


def crops(store: Store) -> list[str]:
    return store.registry.current()["crop"].tolist()


def test_what_is_put_over_a_file_that_is_being_taken_is_read_next(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(store_url)

    def drop(*features: dict[str, Any]) -> None:
        data = write_fields(tmp_path / "f.geojson", *features).read_bytes()
        store.location.write("inbox/fields/f.geojson", data)

    drop(feature("A", 0, 0))
    more = once_before(inbox._move, lambda: drop(feature("A", 0, 0), feature("B", 150, 0)))
    monkeypatch.setattr(inbox, "_move", more)
    assert read(store).counts.rows_accepted == 1
    assert keys(store, "inbox/fields") == ["fields/f.geojson"]
    assert read(store).counts.rows_accepted == 2
    assert store.registry.current()["field_id"].tolist() == ["A", "B"]
    kept = [store.location.read(f"inbox/{key}") for key in keys(store, "inbox/accepted") if key.endswith("f.geojson")]
    assert sorted(b'"B"' in data for data in kept) == [False, True]
    assert waiting(store) == []


def test_a_file_that_was_half_there_is_not_judged(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_fields(tmp_path / "f.geojson", feature("A", 0, 0)).read_bytes()
    store.location.write("inbox/fields/f.geojson", data[:100])
    rest = once_before(inbox._take, lambda: store.location.write("inbox/fields/f.geojson", data))
    with monkeypatch.context() as patch:
        patch.setattr(inbox, "content", lambda *args: inboxfiles.Content(data[:100], None))
        patch.setattr(inbox, "_take", rest)
        assert read(store) == InboxReport()
    assert read(store).counts.rows_accepted == 1
    assert keys(store, "inbox/rejected") == []


@pytest.mark.parametrize("stands", [False, True], ids=["new", "unchanged"])
def test_the_slower_of_two_runs_puts_nothing_old_over_what_is_newer(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands: bool
) -> None:
    store = make_store(store_url)
    old, new = feature("A", 0, 0, crop="old"), feature("A", 50, 0, crop="new")
    if stands:
        submit(store, [write_fields(tmp_path / "0.geojson", old)])
        read(store)

    def other_run() -> None:  # takes the same file, and then the next
        read(store)
        submit(store, [write_fields(tmp_path / "2.geojson", new)])
        read(store)

    submit(store, [write_fields(tmp_path / "1.geojson", old)])
    monkeypatch.setattr(FieldRegistry, "accept", once_before(FieldRegistry.accept, other_run))
    assert read(store) == InboxReport()
    assert crops(store) == ["new"]
    read(store)
    assert crops(store) == ["new"]
    assert len([key for key in keys(store, "inbox/accepted") if key.endswith("-1.geojson")]) == 1


def test_a_file_that_a_killed_run_had_accepted_brings_no_withdrawn_field_back(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    path = write_fields(tmp_path / "f.geojson", feature("A", 0, 0))
    submit(store, [path])
    with monkeypatch.context() as patch:
        patch.setattr(inbox, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            read(store)
    assert store.withdraw_fields(["A"]) == 1
    assert read(store).counts.files_accepted == 1
    assert (crops(store), waiting(store)) == ([], [])


@pytest.mark.parametrize("by", ["submit", "copy"])
def test_the_same_file_handed_in_again_counts(store: Store, tmp_path: Path, by: str) -> None:
    """Also when a copy keeps the time at which the file was written."""
    path = write_fields(tmp_path / "f.geojson", feature("A", 0, 0))
    folder = tmp_path / "store" / "inbox" / "fields"
    folder.mkdir(parents=True)
    for _ in range(2):
        if by == "submit":
            submit(store, [path])
        else:
            shutil.copy2(path, folder / path.name)
        assert read(store).counts.rows_accepted == 1
        assert store.registry.current()["field_id"].tolist() == ["A"]
        assert store.withdraw_fields(["A"]) == 1


def test_options_that_are_about_to_be_removed_are_not_taken_over(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the same name and options is submitted after a file was moved, before its options are."""
    path = write_fields(tmp_path / "f.geojson", feature(None, 0, 0, planting_date=None, number=7))
    options = {"id_column": "number", "planting_date": "box-start"}
    submit(store, [path], options=options)
    write_fields(path, feature(None, 50, 0, planting_date=None, number=8))

    real = type(store.location).delete

    def delete(location: Any, key: str) -> None:
        real(location, key)
        if key == "inbox/fields/f.geojson":
            submit(store, [path], options=options)

    with monkeypatch.context() as patch:
        patch.setattr("geofield.store.Location.delete", delete)
        read(store)
    assert read(store).rejected == []
    assert store.registry.current()["field_id"].tolist() == ["7", "8"]


def test_boxes_are_read_before_the_fields_that_lie_in_them(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"), box("far", bbox=[600000, 5490000, 600400, 5490400]))
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    described = tmp_path / "b.json"
    described.write_text(json.dumps(box("near").model_dump(mode="json", exclude={"pixels", "imported"})))
    (done,) = submit(store, [described], "boxes")
    assert done.key == "inbox/boxes/b.json"
    report = read(store)
    assert (report.counts.files_accepted, report.counts.rows_accepted, report.rejected) == (2, 2, [])
    assert set(store.boxes()) == {"far", "near"}


def test_box_file_without_a_start_is_refused_with_the_option_that_gives_it(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "more.json"
    path.write_text('{"id": "more", "bbox": [4.3, 51, 4.301, 51.001]}')
    submit(store, [path], "boxes")
    report = read(store)
    assert report.counts.files_rejected == 1
    assert "--start" in report.rejected[0].reason


def test_shapefile_takes_its_siblings_along(store: Store, tmp_path: Path) -> None:
    shape = shapely.box(500000, 5490000, 500100, 5490100)
    frame = geopandas.GeoDataFrame(
        {"field_id": ["S"], "plant_date": ["2025-04-01"]}, geometry=[shape], crs="EPSG:32631"
    )
    frame.to_file(tmp_path / "parcels.shp")
    parts = sorted(tmp_path.glob("parcels.*"))
    (done,) = submit(store, parts)
    assert done.key == "inbox/fields/parcels.zip"
    with zipfile.ZipFile(tmp_path / "store" / done.key) as archive:
        assert {"parcels.shp", "parcels.dbf", "parcels.shx", "parcels.prj"} <= set(archive.namelist())
    assert not submit(store, parts)[0].is_new
    assert read(store).counts.rows_accepted == 1


def test_files_dropped_by_others_need_no_options(store: Store, tmp_path: Path) -> None:
    data = write_fields(tmp_path / "f.geojson", feature("A", 0, 0)).read_bytes()
    store.location.write("inbox/fields/from/elsewhere.geojson", data)
    store.location.write("inbox/fields/.hidden", b"?")
    assert [one.name for one in waiting(store)] == ["from_elsewhere.geojson"]
    assert read(store).counts.rows_accepted == 1


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"options": 1}', '{"options": {"planting": 1}}', '{"options": {"ids": "x"}}']
)
def test_options_that_make_no_sense_refuse_the_file(store: Store, tmp_path: Path, text: str) -> None:
    data = write_fields(tmp_path / "f.geojson", feature("A", 0, 0)).read_bytes()
    store.location.write("inbox/fields/f.geojson.options.json", text.encode())
    store.location.write("inbox/fields/f.geojson", data)
    report = read(store)
    assert (report.counts.files_rejected, report.rejected[0].rule) == (1, "configuration")


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        (b'{"options": {}, "submitted": "2025-04-01T00:00:00"}', True),
        (b'{"options": {}, "submitted": "0001-01-01T00:00:00+14:00"}', True),
        (b'{"options": {}, "submitted": 7}', True),
        (b'{"submitted": ' + b"[" * 200_000, False),
        (b'{"submitted": ' + b"9" * 5_000 + b"}", False),
        (b"\xff\xfe", False),
    ],
    ids=["naive", "before all time", "number", "nested", "digits", "not text"],
)
def test_one_bad_sidecar_stops_no_other_file_and_no_box(
    store: Store, tmp_path: Path, text: bytes, is_taken: bool
) -> None:
    for name, x in (("bad", 0), ("good", 150)):
        data = write_fields(tmp_path / name, feature(name, x, 0)).read_bytes()
        store.location.write(f"inbox/fields/{name}.geojson", data)
    store.location.write("inbox/fields/bad.geojson.options.json", text)
    receipt = run(store, day(1))
    assert (receipt["errors"], receipt["boxes"]["b"]["days_appended"]) == ([], 1)
    assert store.registry.current()["field_id"].tolist() == (["bad", "good"] if is_taken else ["good"])
    assert [one["rule"] for one in receipt["rejected"]] == ([] if is_taken else ["configuration"])
    assert waiting(store) == []


def test_a_submitted_time_without_a_zone_is_utc() -> None:
    assert inboxfiles.submitted_in(b'{"submitted": "2025-04-01T00:00:00"}') == dt.datetime(2025, 4, 1, tzinfo=dt.UTC)
    assert inboxfiles.submitted_in(b'{"submitted": "0001-01-01T00:00:00+14:00"}') is None


def test_a_sidecar_that_cannot_be_read_keeps_its_file_alone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(
        store, [write_fields(tmp_path / f"{name}.geojson", feature(name, x, 0)) for name, x in (("A", 0), ("B", 150))]
    )
    real = type(store.location).read

    def denied(location: Any, key: str) -> bytes:
        if key == "inbox/fields/A.geojson.options.json":
            raise AccessError("not yours")
        return real(location, key)

    with monkeypatch.context() as patch:
        patch.setattr("geofield.store.Location.read", denied)
        report = read(store)
    assert [one["file"] for one in report.errors] == ["inbox/fields/A.geojson"]
    assert len(waiting(store)) == 1
    assert read(store).counts.rows_accepted == 1


def test_a_file_that_waits_for_the_store_is_not_overtaken(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, crop in enumerate(("old", "new")):
        submit(store, [write_fields(tmp_path / f"{crop}.geojson", feature("A", 50 * number, 0, crop=crop))])
    real = type(store.location).read

    def unavailable(location: Any, key: str) -> bytes:
        if key == "inbox/fields/old.geojson":
            raise StoreUnavailableError("no answer")
        return real(location, key)

    with monkeypatch.context() as patch:
        patch.setattr("geofield.store.Location.read", unavailable)
        assert [one["file"] for one in read(store).errors] == ["inbox/fields/old.geojson"]
    assert len(waiting(store)) == 2
    read(store)
    assert crops(store) == ["new"]


def test_a_file_that_cannot_be_moved_stops_no_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(
        store, [write_fields(tmp_path / f"{name}.geojson", feature(name, x, 0)) for name, x in (("A", 0), ("B", 150))]
    )
    real = inbox._move

    def stuck(*args: Any) -> None:
        if args[2].name == "A.geojson":
            raise OSError("no space")
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(inbox, "_move", stuck)
        report = read(store)
    assert [(one["kind"], one["file"]) for one in report.errors] == [("unexpected", "inbox/fields/A.geojson")]
    assert (report.counts.files_accepted, len(waiting(store))) == (1, 1)


def test_names_and_ids_that_are_no_text_are_taken_or_refused(store: Store, tmp_path: Path) -> None:
    path = write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("\ud800", 150, 0))
    folder = os.fsencode(tmp_path / "store" / "inbox" / "fields")
    os.makedirs(folder)
    shutil.copy(path, os.path.join(folder, b"\xff.geojson"))
    report = read(store)
    assert (report.errors, report.counts.rows_accepted, report.counts.rows_rejected) == ([], 1, 1)
    assert waiting(store) == []
    assert any(key.endswith("Z-?.geojson.why.json") for key in keys(store, "inbox/accepted"))


def test_what_cannot_be_submitted(store: Store, tmp_path: Path) -> None:
    good = write_fields(tmp_path / "f.geojson", feature("A", 0, 0))
    with pytest.raises(NotFoundError, match=r"There is no file .*nowhere"):
        submit(store, [good, tmp_path / "nowhere.geojson"])
    with pytest.raises(ConfigurationError, match="is a folder"):
        submit(store, [tmp_path])
    with pytest.raises(ConfigurationError, match="'soon'"):
        submit(store, [good], options={"planting_date": "soon"})
    hidden = write_fields(tmp_path / ".f.geojson", feature("A", 0, 0))
    with pytest.raises(ConfigurationError, match="hidden"):
        submit(store, [hidden])
    assert waiting(store) == []
