"""Days, late files, corrections and failures through Dagster, on instances of its own."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("dagster", reason="the extra `dagster` is not installed")

import dagster as dg

from geofield import Store
from geofield.errors import SourceUnavailableError
from geofield.pipeline import verify
from orchestrate import parts, run
from orchestrate.config import Settings
from orchestrate.dagster import jobs, sensors
from orchestrate.dagster.failures import ACTIONS, ASKED, EARLY, WAITING, check
from orchestrate.dagster.partitions import key_of
from orchestrate.inbox import submit
from tests.support.dagsters import Location, failures, in_folder, metadata
from tests.support.smallstore import box, day, feature, make_store, numbers, objects, write_fields

QUICK = Settings(retry_wait_s=0)


def location_of(instance: dg.DagsterInstance, store: Store) -> Location:
    found = Location(instance, store)
    found.tick(sensors.boxes)
    return found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    made = make_store(str(tmp_path / "store"))
    monkeypatch.setenv("GEOFIELD_STORE", made.url)
    monkeypatch.setenv("GEOFIELD_RETRY_WAIT_S", "0")
    monkeypatch.setenv("GEOFIELD_DAGSTER_PICTURES", "0")
    return made


@pytest.fixture
def location(store: Store) -> Iterator[Location]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield location_of(instance, store)


@pytest.fixture
def stored(store: Store, tmp_path: Path) -> Iterator[Location]:
    with sqlite(tmp_path) as instance:
        yield location_of(instance, store)


def sqlite(tmp_path: Path) -> dg.DagsterInstance:
    return in_folder(tmp_path / "dagster")


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    return write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("B", 95, 95, 210))


def undisturbed(tmp_path: Path, fields: Path, until: int) -> Store:
    """The same store, done by one run of the runner."""
    made = make_store(str(tmp_path / "undisturbed"))
    submit(made, [fields])
    run(made, day(until), settings=QUICK)
    return made


def assert_same(one: Store, other: Store) -> None:
    pd.testing.assert_frame_equal(numbers(one), numbers(other), check_exact=True)
    assert one.cube("b").open().equals(other.cube("b").open())
    assert not [finding for finding in verify(one.location) if finding.is_open]


# --- days ------------------------------------------------------------------------------------------------------------


def test_thirty_days_in_any_order(location: Location, store: Store, fields: Path, tmp_path: Path) -> None:
    """Launched by hand, shuffled: early days are refused with the missing days named, and asked for in their turn."""
    submit(store, [fields])
    location.read_inbox()
    order = random.Random(8).sample(range(1, 31), 30)
    refused = []
    for number in order:
        before = store.cube("b").head().last
        result = location.run_day(number)
        following = 1 if before is None else (before - day(1)).days + 2
        assert result.success is (number == following)
        if not result.success:
            refused.append(number)
            (data,) = failures(result)
            said = data.user_failure_data.description
            assert f"Missing: {day(following)} to {day(number - 1)}" in said
            assert store.cube("b").head().last == before
    assert len(refused) > 20
    while requests := location.tick(sensors.early_days).run_requests:
        assert all(one.success for one in location.launch(requests, "box_days"))
    assert store.cube("b").head().last == day(30)
    assert_same(store, undisturbed(tmp_path, fields, 30))
    done = location.instance.get_materialized_partitions(dg.AssetKey("field_rows"))
    assert done == {str(key_of("b", day(number))) for number in range(1, 31)}


def test_days_of_a_stored_instance(tmp_path: Path, store: Store, fields: Path) -> None:
    """SQLite: what waits is known to another process, and a refused run is asked for once."""
    submit(store, [fields])
    with sqlite(tmp_path) as instance:
        location = location_of(instance, store)
        location.read_inbox()
        early = [location.run_day(number).run_id for number in (3, 2)]
        assert "wait for their turn" in location.tick(sensors.early_days).skip_message
        assert location.run_day(1).success
    with sqlite(tmp_path) as instance:
        location = Location(instance, store)
        tags = [instance.get_run_by_id(name).tags[EARLY] for name in early]  # type: ignore[union-attr]
        assert tags == [WAITING, WAITING]
        requests = location.tick(sensors.early_days).run_requests
        assert [one.partition_key for one in requests] == [str(key_of("b", day(2))), str(key_of("b", day(3)))]
        assert not location.tick(sensors.early_days).run_requests
        assert instance.get_run_by_id(early[0]).tags[EARLY] == ASKED  # type: ignore[union-attr]
        assert all(result.success for result in location.launch(requests, "box_days"))
    assert_same(store, undisturbed(tmp_path, fields, 3))


def test_days_launched_at_the_same_time(tmp_path: Path, store: Store, fields: Path) -> None:
    submit(store, [fields])
    with sqlite(tmp_path) as instance:
        location = location_of(instance, store)
        location.read_inbox()
        results = []
        gate = threading.Barrier(4)

        def launch(number: int) -> None:
            gate.wait()
            results.append(location.run_day(number))

        threads = [threading.Thread(target=launch, args=(number,)) for number in (1, 1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        while requests := location.tick(sensors.early_days).run_requests:
            location.launch(requests, "box_days")
    assert_same(store, undisturbed(tmp_path, fields, 3))


def test_day_shows_what_it_did(location: Location, store: Store, fields: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEOFIELD_DAGSTER_PICTURES")
    submit(store, [fields])
    location.read_inbox()
    result = location.run_day(1)
    cube, rows = metadata(result, "box_cube"), metadata(result, "field_rows")
    assert (cube["days_appended"], cube["rows_written"], rows["rows"], rows["rows_written"]) == (1, 2, 2, 0)
    assert cube["source_reads"] == cube["receipt"]["boxes"]["b"]["source_reads"]
    assert cube["picture"].startswith("![ndvi_filled of box b on 2025-04-01")
    assert len(cube["picture"]) < 40_000
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("null_share", True)


def test_day_before_the_start_lets_a_backfill_go_on(location: Location, store: Store) -> None:
    result = location.run_day(0)
    assert result.success
    assert metadata(result, "box_cube")["days_appended"] == 0
    assert store.cube("b").head().last is None


# --- late files, corrections -----------------------------------------------------------------------------------------


def test_late_file_is_filled_without_reading_imagery(location: Location, store: Store, tmp_path: Path) -> None:
    submit(store, [write_fields(tmp_path / "f.geojson", feature("B", 150, 150))])
    location.read_inbox()
    for number in range(1, 6):
        assert location.run_day(number).success
    cubes = objects(store, "cubes")
    submit(store, [write_fields(tmp_path / "late.geojson", feature("L", 150, 150))])
    (request,) = location.tick(sensors.inbox).run_requests
    result = location.run("inbox", tags=dict(request.tags))
    assert result.success
    filled = metadata(result, "late_fields")
    assert (filled["late_fields"], filled["late_field_days"]) == (1, 5)
    assert filled["late_source_reads"] == filled["late_box_tasks"] == filled["source_reads"] == 0
    assert objects(store, "cubes") == cubes
    one, other = (store.rows(field=name).drop(columns="field_id") for name in ("B", "L"))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert not location.tick(sensors.inbox).run_requests


def test_file_that_is_put_there_again_is_read_again(location: Location, store: Store, tmp_path: Path) -> None:
    def upload(x: float) -> None:  # under the same name each time, as other systems do it
        path = write_fields(tmp_path / "f.geojson", feature("A", x, 0))
        store.location.write("inbox/fields/f.geojson", path.read_bytes())

    upload(0)
    first = location.tick(sensors.inbox).run_requests[0]
    location.run("inbox", tags=dict(first.tags))
    location.run_day(1)
    upload(200)
    second = location.tick(sensors.inbox).run_requests[0]
    assert second.run_key != first.run_key
    result = location.run("inbox", tags=dict(second.tags))
    assert metadata(result, "late_fields")["late_field_days"] == 1
    upload(200)  # the very same bytes, once more
    third = location.tick(sensors.inbox).run_requests[0]
    assert third.run_key not in {first.run_key, second.run_key}
    location.run("inbox", tags=dict(third.tags))
    straight = make_store(str(tmp_path / "straight"))
    submit(straight, [write_fields(tmp_path / "s.geojson", feature("A", 200, 0))])
    run(straight, day(1), settings=QUICK)
    pd.testing.assert_frame_equal(numbers(store), numbers(straight), check_exact=True)


def test_files_that_cannot_be_read_are_asked_for_later(
    location: Location, store: Store, fields: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(store, [fields])
    (request,) = location.tick(sensors.inbox).run_requests
    started = dg.DagsterRun("inbox", tags={jobs.PART: "inbox"}, status=dg.DagsterRunStatus.STARTED)
    location.instance.add_run(started)
    assert "under way" in location.tick(sensors.inbox).skip_message
    location.instance.delete_run(started.run_id)
    assert "asked for again from" in location.tick(sensors.inbox).skip_message
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=11)

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            return later

    monkeypatch.setattr(sensors.dt, "datetime", Later)
    (again,) = location.tick(sensors.inbox).run_requests
    assert again.run_key != request.run_key


def test_refused_rows_are_told_and_fail_nothing(location: Location, store: Store, tmp_path: Path) -> None:
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("X", 0, 0, planting_date="soon"))])
    (request,) = location.tick(sensors.inbox).run_requests
    shown = metadata(location.run("inbox", tags=dict(request.tags)), "fields")
    assert (shown["rows_accepted"], shown["rows_rejected"]) == (1, 1)
    assert shown["rejected"][0]["field_id"] == "X"


def test_corrected_scene(location: Location, store: Store, fields: Path, tmp_path: Path) -> None:
    """A scene that the source withheld is there; materialising its day again amends it and what follows from it."""
    offered = dict(store.box("b").source)
    store.change_box(store.box("b").model_copy(update={"source": offered | {"withhold": [str(day(3))]}}))
    submit(store, [fields])
    location.read_inbox()
    for number in range(1, 7):
        assert location.run_day(number).success
    assert metadata(location.run_day(3), "box_cube")["days_amended"] == 0
    store.change_box(store.box("b").model_copy(update={"source": offered}))
    again = metadata(location.run_day(3), "box_cube")
    assert (again["days_amended"], again["days_appended"]) == (4, 0)
    assert_same(store, undisturbed(tmp_path, fields, 6))


# --- failures --------------------------------------------------------------------------------------------------------


def test_failing_box_beside_a_healthy_one(
    tmp_path: Path, store: Store, stored: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of one box is broken: its run fails at once and says so, the other box goes on, people are told once."""
    location, sent = stored, list[str]()
    monkeypatch.setattr("orchestrate.parts.send", lambda urls, title, body: sent.append(body) or True)
    monkeypatch.setenv("GEOFIELD_NOTIFY_URLS", "json://127.0.0.1:9/x")
    root = tmp_path / "imagery"
    root.mkdir()
    (root / "NDVI_2025-04-01.tif").write_bytes(b"no image")
    source = {"type": "files", "root": str(root), "bands": {"ndvi": "NDVI_{time}.tif"}}
    store.add_box(box("broken", source=source, variables={"ndvi": {"band": "ndvi"}}))
    location.tick(sensors.boxes)
    requests = location.schedule(day(2))
    assert [one.partition_key for one in requests] == [str(key_of("b", day(1))), str(key_of("broken", day(1)))]
    healthy, failed = location.launch(requests, "box_days")
    assert healthy.success
    assert not failed.success
    (data,) = failures(failed)
    assert data.user_failure_data.metadata["errors"].value[0]["box"] == "broken"
    for _ in range(2):
        location.tell(failed)
    assert sent == [f"box broken {day(1)}: {data.user_failure_data.description}"]
    assert store.cube("b").head().last == day(1)
    assert store.cube("broken").head().last is None
    assert [one.partition_key for one in location.schedule(day(3))] == [
        str(key_of("b", day(2))), str(key_of("broken", day(1))), str(key_of("broken", day(2))),
    ]  # fmt: skip


@pytest.mark.parametrize(("failing", "succeeds"), [(1, True), (3, False)])
def test_source_that_is_down_is_tried_again(
    location: Location, store: Store, monkeypatch: pytest.MonkeyPatch, failing: int, succeeds: bool
) -> None:
    real, tries = parts.extend_box, []

    def extend_box(*told: Any) -> dict[str, Any]:
        tries.append(told)
        with monkeypatch.context() as patch:
            if len(tries) <= failing:
                patch.setattr(Store, "source", unavailable)
            return real(*told)

    def unavailable(self: Store, box_id: str) -> None:
        raise SourceUnavailableError("The catalogue did not answer. Try again.")

    monkeypatch.setenv("GEOFIELD_RETRIES", "1")
    monkeypatch.setattr(parts, "extend_box", extend_box)
    result = location.run_day(1)
    assert (len(tries), result.success) == (2, succeeds)
    assert store.cube("b").head().last == (day(1) if succeeds else None)
    if not succeeds:
        assert "source_unavailable: The catalogue did not answer" in str(next(failures(result)).error)


@pytest.mark.parametrize("kind", ["corrupt_store", "configuration", "unexpected"])
def test_error_that_would_come_back_is_not_tried_again(kind: str) -> None:
    errors = [{"box": "b", "date": None, "kind": kind, "message": "as it is"}]
    with pytest.raises(dg.Failure, match="as it is") as raised:
        check(None, QUICK, {"errors": [*errors, {**errors[0], "kind": "store_unavailable"}]})
    assert raised.value.allow_retries is False


def test_every_kind_of_error_has_an_action() -> None:
    assert ACTIONS["lost_race"] == ACTIONS["cluster"] == "retry"
    assert ACTIONS["missing_days"] == "skip"
    assert set(ACTIONS.values()) == {"retry", "skip", "fix", "stop"}
