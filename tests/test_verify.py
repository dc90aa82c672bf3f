"""Every invariant is broken on purpose: it has to be found, by its name, and nothing else may change."""

from __future__ import annotations

import datetime as dt
import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
import zarr

from geofield.copies import zarrcopy
from geofield.cube.cube import Cube, to_day
from geofield.errors import CorruptStoreError, StoreUnavailableError
from geofield.pipeline import correct_days, fill_late_fields, publish, rebuild_cube, refresh_rows
from geofield.pipeline.removal import remove_box
from geofield.pipeline.verify import Finding, verify
from geofield.pipeline.verify.rows import current_fields
from geofield.testing.source import ArraySource
from tests.support.upkept import DAYS, SHAPES, WIDE, Upkept, field_rows, source
from tests.test_upkeep import abandoned

NOW = dt.timedelta(0)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Upkept:
    """Made once; tests break copies of it."""
    return Upkept.make(str(tmp_path_factory.mktemp("original") / "store"))


@pytest.fixture
def anywhere(original: Upkept, store_url: str) -> Upkept:
    """A copy on a directory, then on S3."""
    return original.copy(store_url)


@pytest.fixture
def store(original: Upkept, tmp_path: Path) -> Upkept:
    """A copy on a directory."""
    return original.copy(str(tmp_path / "store"))


def names(findings: list[Finding]) -> list[tuple[str | None, str, str]]:
    return [(one.box, one.invariant, one.severity) for one in findings]


def check(store: Upkept, *expected: str, said: str = "", deep: bool = False, **options: Any) -> Finding:
    """Exactly these findings, each `<invariant> <severity>`; nothing stored may change. The first finding."""
    before = store.objects()
    findings = verify(store.location, deep=deep, **options)
    assert [f"{one.invariant} {one.severity}" for one in findings] == list(expected), findings
    assert store.objects() == before
    assert not any(one.repaired for one in findings)
    assert said in findings[0].found
    assert findings[0].advice
    return findings[0]


def mend(store: Upkept, *untouched: str, **options: Any) -> list[Finding]:
    """Repair; everything is mended, these folders stay as they are, a second repair changes nothing."""
    before = store.objects(*untouched)
    findings = verify(store.location, repair=True, **options)
    assert findings
    assert all(one.repaired for one in findings), findings
    assert store.objects(*untouched) == before
    after = store.objects()
    assert verify(store.location, repair=True, deep=True, **options) == []
    assert store.objects() == after
    return findings


# --- all is well -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"deep": True}, {"repair": True}, {"older_than": NOW}])
def test_a_healthy_store_gives_no_finding_and_is_left_alone(anywhere: Upkept, options: dict[str, Any]) -> None:
    before = anywhere.objects()
    assert verify(anywhere.location, **options) == []
    assert anywhere.objects() == before


def test_an_empty_store_is_healthy(tmp_path: Path) -> None:
    import geofield

    assert verify(geofield.create_store(tmp_path / "store").location) == []


def test_a_box_without_days_is_healthy(tmp_path: Path, original: Upkept) -> None:
    from geofield.pipeline.layers import cube_schema

    store = Upkept(str(tmp_path / "store"))
    store.location.write("boxes/b.json", original.location.read("boxes/b.json"))
    store.cube.create(cube_schema(store.box, store.box.resolved))
    assert verify(store.location, deep=True) == []


# --- the cube --------------------------------------------------------------------------------------------------------


def resize(name: str, length: int) -> Callable[[zarr.Group], None]:
    def change(group: zarr.Group) -> None:
        array: Any = group[name]
        array.resize((length, *array.shape[1:]))

    return change


def put(name: str, place: Any, value: Any) -> Callable[[zarr.Group], None]:
    def change(group: zarr.Group) -> None:
        array: Any = group[name]
        array[place] = value(array[place]) if callable(value) else value

    return change


def both(*changes: Callable[[zarr.Group], None]) -> Callable[[zarr.Group], None]:
    def change(group: zarr.Group) -> None:
        for one in changes:
            one(group)

    return change


def without(name: str) -> Callable[[zarr.Group], None]:
    def change(group: zarr.Group) -> None:
        del group[name]

    return change


def item(**changes: Any) -> Callable[[Any], Any]:
    def changed(text: Any) -> Any:
        items = json.loads(str(text))
        items[0].update(changes)
        return json.dumps(items)

    return changed


LONGER = {"ndvi": "ndvi 7", "ndvi_age": "ndvi_age 7", "items": "items 7", "digest": "digest 7", "time": "time 7"}


@pytest.mark.parametrize("name", LONGER)
def test_an_array_of_other_length_is_found(store: Upkept, name: str) -> None:
    store.commit(resize(name, 7))
    check(store, "I1 broken", said=LONGER[name])


def test_a_lost_array_is_found(store: Upkept) -> None:
    store.commit(without("ndvi_filled"))
    check(store, "I1 broken", said="no array 'ndvi_filled'")


def test_a_gap_and_a_doubled_day_are_found(store: Upkept) -> None:
    store.commit(put("time", slice(3, None), lambda days: days + 1))
    check(store, "I1 broken", said="gaps or doubles after 2025-04-03")
    store.commit(put("time", slice(3, None), lambda days: days - 2))
    check(store, "I1 broken", said="gaps or doubles after 2025-04-03")


def test_a_cube_that_begins_on_another_day_is_found(store: Upkept) -> None:
    store.commit(put("time", slice(None), lambda days: days + 2))
    check(store, "I1 broken", said="begins on 2025-04-03, the box on 2025-04-01")


def test_a_digest_of_nothing_is_found(store: Upkept) -> None:
    store.commit(put("digest", (2, 0, 1), 0))
    findings = verify(store.location)
    assert findings[0].invariant == "I5"
    assert "no digest: 2025-04-03" in findings[0].found
    # what follows from it: the day after does not build on it, and rows have another digest
    assert "do not follow" in findings[1].found
    assert "2025-04-04" in findings[1].found


def test_a_digest_that_does_not_follow_is_found(store: Upkept) -> None:
    store.commit(put("digest", (5, 0, 0), 12345))
    check(store, "I5 broken", "I9 unfinished", said="the day before: 2025-04-06")


def test_digests_of_many_acquisitions_are_told_not_judged(store: Upkept) -> None:
    many = [{"id": f"s{n}", "version": "1", "time": f"{DAYS[5]}T10:00:00+00:00", "valid_pixels": {}} for n in range(9)]
    store.commit(put("items", 5, json.dumps(many)))
    finding = check(store, "I5 note", said="2025-04-06")
    assert not finding.is_open


@pytest.mark.parametrize(
    ("step", "change", "said"),
    [
        (0, lambda text: "[", "cannot be read: 2025-04-01"),
        (0, lambda text: '[{"id": 1}]', "cannot be read: 2025-04-01"),
        (0, item(time="yesterday"), "cannot be read: 2025-04-01"),
        (0, item(time="2025-04-02T10:00:00+00:00"), "of another day: 2025-04-01"),
        (0, item(id="corner"), "counts twice: 2025-04-01"),
        (2, lambda text: "[]", "disagree: 2025-04-03"),
    ],
)
def test_damaged_items_are_found(store: Upkept, step: int, change: Callable[[Any], Any], said: str) -> None:
    store.commit(put("items", step, change))
    findings = verify(store.location)
    assert findings[0].invariant == "I1"
    assert said in findings[0].found


def test_a_changed_version_of_an_item_does_not_explain_the_digest(store: Upkept) -> None:
    store.commit(put("items", 5, item(version="2")))
    check(store, "I5 broken", said="2025-04-06")


def test_acquired_that_disagrees_is_found(store: Upkept) -> None:
    store.commit(put("acquired", 1, True))
    findings = verify(store.location)
    assert "disagree: 2025-04-02" in findings[0].found
    assert {one.invariant for one in findings} >= {"I1", "I5"}


def test_pixels_of_a_day_without_acquisition_are_found(anywhere: Upkept) -> None:
    anywhere.commit(put("ndvi", (1, slice(0, 256), slice(0, 256)), 7))
    check(anywhere, "I1 broken", said="Pixels of ndvi are stored for days without acquisition: 2025-04-02")


@pytest.mark.parametrize("name", ["ndvi", "ndvi_filled", "ndvi_sigma0", "ndvi_age"])
def test_lost_pixels_are_found(store: Upkept, name: str) -> None:
    def lose(group: zarr.Group) -> None:
        array: Any = group[name]
        array[2] = array.fill_value

    store.commit(lose)
    check(
        store, "I1 broken", said="Pixels of ndvi are not there although the cube says that they were seen: 2025-04-03"
    )


def test_a_state_that_does_not_follow_is_found_when_every_day_is_looked_at(store: Upkept) -> None:
    store.commit(put("ndvi_filled", (3, 0, 0), lambda value: value + 1))
    # days 4 and 6 build on it: day 4 itself, and what follows from it
    finding = check(store, "I5 broken", deep=True)
    assert "2025-04-04" in finding.found


def test_lost_objects_of_pixels_are_found_when_every_one_is_read(anywhere: Upkept) -> None:
    chunks = anywhere.location.list("cubes/b/chunks")
    assert len(chunks) > 4
    for info in chunks:
        anywhere.location.delete(info.key)
    anywhere.cube = Cube(anywhere.location, "b")
    findings = verify(anywhere.location, deep=True)
    assert ("b", "I1", "broken") in names(findings)
    assert any("Pixels cannot be read on 2025-04-01" in one.found for one in findings)


def test_a_broken_shard_is_told_by_whoever_reads_it(store: Upkept) -> None:
    for info in store.location.list("cubes/b/chunks"):
        store.location.write(info.key, bytes(byte ^ 0xFF for byte in store.location.read(info.key)))
    cube = Cube(store.location, "b")
    told = r"A shard of 'ndvi\w*' in the cube is broken: .*[^.]\. `geofield verify --deep` tells which"
    with pytest.raises(CorruptStoreError, match=told):
        cube.open()["ndvi"].isel(time=0).load()
    for what in ("zarr", "cog"):
        copies = {"zarr": False, "cog": False, "fields": False} | {what: True}
        with pytest.raises(CorruptStoreError, match=told):
            publish(store.location, store.box, cube, store.registry.current(), **copies)


def test_a_lost_snapshot_of_the_past_is_found(anywhere: Upkept) -> None:
    past = list(anywhere.cube.repository.ancestry(branch="main"))
    anywhere.location.delete(f"cubes/b/snapshots/{past[2].id}")
    findings = verify(anywhere.location)
    assert names(findings) == [("b", "I2", "broken")]


def test_a_cube_that_does_not_open_is_found(store: Upkept) -> None:
    for info in store.location.list("cubes/b/refs"):
        store.location.delete(info.key)
    check(store, "cube broken")


def test_a_cube_of_another_format_is_found(store: Upkept) -> None:
    def newer(group: zarr.Group) -> None:
        group.attrs["geofield"] = {**group.attrs["geofield"], "format": 99}  # type: ignore[dict-item]

    store.commit(newer)
    check(store, "cube broken", said="has format 99")


# --- the box ---------------------------------------------------------------------------------------------------------


def test_a_description_that_is_no_box_is_found(store: Upkept) -> None:
    store.location.write("boxes/c.json", b"{")
    store.location.write("boxes/d.json", store.location.read("boxes/b.json"))
    findings = verify(store.location)
    assert names(findings) == [("c", "box", "broken"), ("d", "box", "broken")]
    assert "it describes box 'b'" in findings[1].found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variables": {"evi": {"band": "evi", "state": "kalman"}}}, "it holds ndvi"),
        ({"variables": {"ndvi": {"band": "ndvi", "state": "kalman", "valid_range": [0, 1]}}}, "another recipe"),
    ],
)
def test_a_description_of_another_cube_is_found(store: Upkept, change: dict[str, Any], said: str) -> None:
    box = json.loads(store.location.read("boxes/b.json")) | change
    store.location.write("boxes/b.json", json.dumps(box).encode())
    check(store, "box broken", said=said)


def test_a_change_whose_cube_is_in_place_already_is_unfinished(store: Upkept) -> None:
    box = json.loads(store.location.read("boxes/b.json"))
    store.location.write("changes/b.json", json.dumps(box).encode())
    box["variables"]["ndvi"]["valid_range"] = [0, 1]
    store.location.write("boxes/b.json", json.dumps(box).encode())
    check(store, "I7 unfinished", said="its description is the old one")


def test_a_box_without_a_cube_is_given_an_empty_one(anywhere: Upkept) -> None:
    box = json.loads(anywhere.location.read("boxes/b.json")) | {"id": "new"}
    anywhere.location.write("boxes/new.json", json.dumps(box).encode())
    finding = check(anywhere, "I7 unfinished", said="no cube yet")
    assert finding.box == "new"
    mend(anywhere, "cubes/b", "rows", "fields", "boxes")


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rows_that_a_crash_left_out_are_written(anywhere: Upkept, original: Upkept) -> None:
    anywhere.table().delete("date >= DATE '2025-04-05'")
    check(anywhere, "I9 unfinished", said="6 rows are missing: fields cross, first, last")
    mend(anywhere, "cubes", "fields", "boxes")
    pd.testing.assert_frame_equal(anywhere.rows(), original.rows(), check_exact=True)


def test_rows_from_another_cube_are_written_again(store: Upkept, original: Upkept) -> None:
    store.table().update({"digest": "'0123456789abcdef'", "ndvi_mean": "0.5"}, predicate="field_id = 'cross'")
    check(store, "I9 unfinished", said="6 rows are not from what the cube holds now: fields cross")
    mend(store, "cubes", "fields")
    pd.testing.assert_frame_equal(store.rows(), original.rows(), check_exact=True)


def test_rows_that_are_there_twice_are_there_once(anywhere: Upkept, original: Upkept) -> None:
    rows = anywhere.rows()
    anywhere.write_rows(rows[rows["field_id"] == "last"].head(2))
    check(anywhere, "I4 unfinished", said="twice: fields last, days 2025-04-01, 2025-04-02")
    mend(anywhere, "cubes", "fields")
    pd.testing.assert_frame_equal(anywhere.rows(), original.rows(), check_exact=True)


@pytest.mark.parametrize(
    ("change", "expected", "said"),
    [
        ({"date": dt.date(2025, 4, 7)}, "I9 unfinished", "the cube does not hold: fields cross, days 2025-04-07"),
        ({"date": dt.date(2025, 3, 1)}, "I9 unfinished", "the cube does not hold: fields cross, days 2025-03-01"),
        (
            {"date": dt.date(2025, 4, 7), "field_version": "0" * 12},
            "I6 unfinished",
            "an earlier version of the field: fields cross",
        ),
    ],
)
def test_rows_that_belong_nowhere_leave(
    store: Upkept, original: Upkept, change: dict[str, Any], expected: str, said: str
) -> None:
    store.write_rows(store.rows().head(1).assign(**change))
    check(store, expected, said=said)
    mend(store, "cubes", "fields")
    pd.testing.assert_frame_equal(store.rows(), original.rows(), check_exact=True)


def test_rows_whose_field_versions_are_lost_are_left(store: Upkept) -> None:
    store.write_rows(store.rows().head(1).assign(field_id="ghost"))
    before = store.objects()
    finding = check(store, "fields broken", said="does not know them: ghost")
    assert "geofield forget" in finding.found
    assert verify(store.location, repair=True) == [finding]
    for info in store.location.list("fields"):
        store.location.delete(info.key)
    check(store, "fields broken", said="is missing: cross, first, ghost, last. No row was removed")
    verify(store.location, repair=True)
    assert store.objects() == {key: data for key, data in before.items() if not key.startswith("fields/")}


def test_rows_after_harvest_leave(store: Upkept) -> None:
    fields = field_rows(harvest=DAYS[3], first=SHAPES["first"])
    old = store.rows()
    store.registry.accept(fields, "again.geojson", {})
    check(store, "I6 unfinished", "I9 unfinished", said="an earlier version")
    mend(store, "cubes", "fields")
    assert store.rows()["field_id"].value_counts().to_dict() == {"cross": 6, "last": 6, "first": 4}
    late = old[(old["field_id"] == "first") & (old["date"] > DAYS[3])].assign(field_version=fields["version"].iloc[0])
    store.write_rows(late)
    check(store, "I6 unfinished", said="before planting or after harvest: fields first, days 2025-04-05, 2025-04-06")
    mend(store, "cubes", "fields")


def test_rows_of_a_withdrawn_field_leave(store: Upkept) -> None:
    withdrawn = (
        store.registry.versions()
        .query("field_id == 'first'")
        .assign(withdrawn=True, accepted=dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    )
    store.write_rows(withdrawn, "fields")
    check(store, "I6 unfinished", said="withdrawn")
    mend(store, "cubes", "fields")
    assert set(store.rows()["field_id"]) == {"cross", "last"}


@pytest.mark.parametrize(
    ("column", "value", "where"),
    [
        ("ndvi_mean", "ndvi_mean + 1e-16", "ndvi_mean < 0.5"),
        ("status", "'all_masked'", "status = 'observed'"),
        ("covered", "0.5", "TRUE"),
        ("days_since_planting", "days_since_planting + 1", "TRUE"),
        ("ndvi_filled_mean", "NULL", "TRUE"),
    ],
)
def test_numbers_that_are_not_those_of_the_cube_are_found_and_left(
    store: Upkept, column: str, value: str, where: str
) -> None:
    store.table().update({column: value}, predicate=f"field_id = 'cross' AND {where}")
    finding = check(store, "I6 broken", said="do not say what the cube gives: fields cross")
    assert column in finding.found
    before = store.objects()
    (again,) = verify(store.location, repair=True)
    assert not again.repaired
    assert store.objects() == before


def test_rows_without_their_key_are_found(store: Upkept) -> None:
    import deltalake

    rows = store.rows().drop(columns="digest")
    deltalake.write_deltalake(store.location.table_uri("rows/b"), rows, mode="overwrite", schema_mode="overwrite",
                              partition_by=["month"])  # fmt: skip
    check(store, "rows broken", said="no column digest")


def test_lost_files_of_rows_are_found(anywhere: Upkept, original: Upkept) -> None:
    for info in anywhere.location.list("rows/b"):
        if info.key.endswith(".parquet"):
            anywhere.location.delete(info.key)
    check(anywhere, "rows broken", said="cannot be read: Table rows/b needs the file rows/b/month=2025-04/part-")
    with pytest.raises(CorruptStoreError, match=r"which is not there.*Bring it back.*Or remove the whole folder"):
        anywhere.results.read()
    for info in anywhere.location.list("rows/b"):
        anywhere.location.delete(info.key)
    mend(anywhere, "cubes", "fields")
    pd.testing.assert_frame_equal(anywhere.rows(), original.rows(), check_exact=True)


def test_a_file_of_rows_that_was_freed_while_somebody_read_is_no_loss(store: Upkept) -> None:
    asleep = store.results.table.open()
    store.results.remove(["first"], {})
    store.results.table.free(dt.timedelta(0))
    with pytest.raises(StoreUnavailableError, match="Try again"):
        store.results.table.read(asleep)


def test_a_damaged_log_of_a_table_is_found(store: Upkept) -> None:
    for key in ("rows/b", "fields"):
        store.location.write(f"{key}/_delta_log/00000000000000000001.json", b"{")
    findings = verify(store.location)
    assert names(findings) == [(None, "fields", "broken"), ("b", "rows", "broken")]


def test_a_broken_cube_is_not_copied_into_the_rows(store: Upkept) -> None:
    store.table().delete("field_id = 'cross'")
    store.commit(put("ndvi", (1, 0, 0), 7))
    before = store.objects()
    findings = verify(store.location, repair=True)
    assert names(findings) == [("b", "I1", "broken"), ("b", "I9", "unfinished")]
    assert not any(one.repaired for one in findings)
    assert store.objects() == before


def test_a_repair_does_not_replace_what_it_has_not_seen(store: Upkept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer commits rows of the same field between the look and the commit."""
    from geofield.pipeline.verify import rows as checking

    rows = store.rows()
    store.write_rows(rows[rows["field_id"] == "last"].head(1))
    computed = checking._computed_now
    calls: list[int] = []

    def overtaken(fields: Any, cube: Any) -> Any:
        made = computed(fields, cube)
        if not calls:
            store.table().delete("field_id = 'cross' AND date = DATE '2025-04-01'")
            chosen = current_fields(store.box, store.registry)
            fill_late_fields(chosen.take(np.array([0])), store.cube, store.results)
        calls.append(len(made))
        return made

    monkeypatch.setattr(checking, "_computed_now", overtaken)
    assert all(one.repaired for one in verify(store.location, repair=True))
    assert calls == [6, 6]
    assert len(store.rows()) == 18


# --- fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "0" * 12}, "not the digest of what it holds: odd"),
        ({"geometry": b"nonsense"}, "no polygon: odd"),
        ({"geometry": shapely.Point(500150, 5489850).wkb}, "no polygon: odd"),
        ({"box": "nowhere"}, "a box that the store does not have: odd"),
    ],
)
def test_damaged_field_versions_are_found(store: Upkept, change: dict[str, Any], said: str) -> None:
    far = shapely.box(400000, 5489805, 400090, 5489895)
    store.registry.accept(field_rows(odd=far).assign(**change), "odd.geojson", {})
    findings = verify(store.location)
    assert ("fields", "broken") in [(one.invariant, one.severity) for one in findings]
    assert said in findings[0].found


def test_a_version_that_was_accepted_twice_is_found(store: Upkept) -> None:
    table = store.registry.versions()
    store.write_rows(table.head(1).assign(accepted=dt.datetime(2030, 1, 1, tzinfo=dt.UTC)), "fields")
    check(store, "fields broken", said=f"the same version twice in a row: {table['field_id'].iloc[0]}")


def test_a_field_that_went_back_to_an_earlier_polygon_is_healthy(store: Upkept) -> None:
    for shape in (SHAPES["last"].buffer(-10), SHAPES["last"]):
        store.registry.accept(field_rows(last=shape), "again.geojson", {})
    assert verify(store.location) == []


# --- while others are at work ----------------------------------------------------------------------------------------


def meanwhile(monkeypatch: pytest.MonkeyPatch, module: str, name: str, work: Callable[[], None], when: str) -> None:
    """Somebody else works before or after the first time that a part of the check is called."""
    part = importlib.import_module(f"geofield.pipeline.verify.{module}")
    original = getattr(part, name)

    def interrupted(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(part, name, original)
        if when == "before":
            work()
        result = original(*args, **more)
        if when == "after":
            work()
        return result

    monkeypatch.setattr(part, name, interrupted)


def test_a_correction_meanwhile_is_nothing_broken(store: Upkept, monkeypatch: pytest.MonkeyPatch) -> None:
    later = Upkept(store.location.url)

    def work() -> None:
        scenes = [replace(one, version="2", values={"ndvi": one.values["ndvi"] / 2}) for one in source().scenes]
        fields = current_fields(later.box, later.registry)
        correct_days(DAYS[0], ArraySource(WIDE, scenes), fields, later.cube, later.results)
        refresh_rows(fields, later.cube, later.results)

    meanwhile(monkeypatch, "rows", "computed_rows", work, "after")
    assert verify(store.location) == []
    assert verify(store.location, deep=True) == []


@pytest.mark.parametrize("name", ["check_fields", "check_cube", "check_shards"])
def test_a_rebuild_meanwhile_is_nothing_broken(store: Upkept, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    later = Upkept(store.location.url)

    def work() -> None:
        variable = later.box.variables["ndvi"].model_copy(update={"valid_range": (0.0, 1.0)})
        box = later.box.model_copy(update={"variables": {"ndvi": variable}})
        rebuild_cube(box, source(), later.cube, later.results)
        later.location.write("boxes/b.json", box.model_dump_json().encode())
        refresh_rows(current_fields(box, later.registry), later.cube, later.results)

    meanwhile(monkeypatch, "main", name, work, "before")
    assert verify(store.location) == []
    assert verify(store.location, deep=True) == []


def test_a_day_that_is_published_meanwhile_is_nothing_broken(copied: Upkept, monkeypatch: pytest.MonkeyPatch) -> None:
    later = Upkept(copied.location.url)

    def work() -> None:
        later.append(DAYS[-1] + dt.timedelta(days=1), DAYS[-1] + dt.timedelta(days=1))
        publish(later.location, later.box, later.cube, later.registry.current(), zarr=True, cog=False, fields=False)

    meanwhile(monkeypatch, "main", "check_copy", work, "before")
    assert verify(copied.location) == []


@pytest.mark.parametrize("repair", [False, True])
def test_a_box_that_is_removed_meanwhile_is_nothing_broken(
    store: Upkept, monkeypatch: pytest.MonkeyPatch, repair: bool
) -> None:
    for name in ("check_fields", "check_cube", "check_rows"):
        other = store.copy(f"{store.location.url}-{name}")
        meanwhile(monkeypatch, "main", name, partial(remove_box, other.location, "b"), "before")
        assert verify(other.location, repair=repair) == []
        assert other.location.list("cubes") == []


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(store: Upkept) -> Upkept:
    publish(store.location, store.box, store.cube, store.registry.current(), zarr=True, cog=False, fields=False)
    return store


ROOT = "published/b/cube.zarr/zarr.json"


def test_a_copy_of_what_is_there_is_healthy(copied: Upkept) -> None:
    assert verify(copied.location) == []
    publish(copied.location, copied.box, copied.cube, copied.registry.current(), zarr=True, cog=True, fields=True)
    assert verify(copied.location, deep=True) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"geofield:snapshot": "', b'"geofield:snapshot": "X', "which the cube does not have"),
        (b'"geofield:snapshot"', b'"other"', "is no copy of a cube"),
        (b"{", b"", "is no copy of a cube"),
    ],
)
def test_a_copy_of_what_is_not_there_is_found(copied: Upkept, old: bytes, new: bytes, said: str) -> None:
    text = copied.location.read(ROOT)
    assert old in text
    copied.location.write(ROOT, text.replace(old, new, 1))
    finding = check(copied, "copies broken", said=said)
    assert "--box b --zarr" in finding.advice


def test_a_copy_of_more_days_than_the_cube_has_is_found(copied: Upkept) -> None:
    root = json.loads(copied.location.read(ROOT))
    root["consolidated_metadata"]["metadata"]["time"]["shape"] = [7]
    copied.location.write(ROOT, json.dumps(root).encode())
    check(copied, "copies broken", said="shows 7 days, the cube holds 6")


@pytest.mark.parametrize("folder", ["cubes", "rows"])
def test_what_no_box_describes_is_told(anywhere: Upkept, folder: str) -> None:
    anywhere.location.delete("boxes/b.json")
    other = "rows" if folder == "cubes" else "cubes"
    for info in anywhere.location.list(other):
        anywhere.location.delete(info.key)
    finding = check(anywhere, "I7 unfinished", said=f"no boxes/b.json for what lies in {folder}/b.")
    assert finding.box == "b"
    assert "--id b --yes" in finding.advice
    assert "bring boxes/b.json back" in finding.advice
    assert verify(anywhere.location, repair=True)[0].is_open
    remove_box(anywhere.location, "b")
    assert verify(anywhere.location) == []


def test_a_box_that_comes_or_goes_meanwhile_is_not_told(store: Upkept, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = store.copy(f"{store.location.url}-gone")
    meanwhile(monkeypatch, "main", "_read_boxes", partial(remove_box, gone.location, "b"), "before")
    assert verify(gone.location) == []
    description = store.location.read("boxes/b.json")
    store.location.delete("boxes/b.json")
    meanwhile(monkeypatch, "main", "_read_boxes", partial(store.location.write, "boxes/b.json", description), "after")
    assert verify(store.location) == []


def test_a_copy_that_is_being_made_anew_is_unfinished(copied: Upkept, monkeypatch: pytest.MonkeyPatch) -> None:
    copied.location.write(ROOT, b"{}")
    monkeypatch.setattr(zarrcopy._Target, "delete_all", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        publish(copied.location, copied.box, copied.cube, copied.registry.current(), zarr=True, cog=False, fields=False)
    check(copied, "copies unfinished", said="is being made anew, or that was cut")


def test_a_damaged_image_is_found_by_a_deep_look(copied: Upkept) -> None:
    publish(copied.location, copied.box, copied.cube, copied.registry.current(), zarr=False, cog=True, fields=False)
    key = "published/b/latest.tif"
    whole = copied.location.read(key)
    copied.location.write(key, b"II" + whole[100:])
    assert verify(copied.location) == []
    check(copied, "copies broken", said="is no image", deep=True)
    copied.location.write(key, whole.replace(copied.cube.tip().encode(), b"X" * 20))
    finding = check(copied, "copies broken", said="which the cube does not have", deep=True)
    assert "--box b --cog" in finding.advice


def test_a_copy_of_fields_that_nobody_knows_is_found(copied: Upkept) -> None:
    fields = copied.registry.current()
    publish(copied.location, copied.box, copied.cube, fields, zarr=False, cog=False, fields=True)
    assert verify(copied.location) == []
    ghosts = fields.assign(field_id="ghost")
    publish(copied.location, copied.box, copied.cube, ghosts.head(1), zarr=False, cog=False, fields=True)
    finding = check(copied, "copies broken", said="tells of fields that the store does not know: ghost")
    assert "--box b --fields" in finding.advice
    copied.location.write("published/b/fields.parquet", b"PAR1")
    check(copied, "copies broken", said="is no copy of fields")


def test_a_damaged_receipt_is_found_by_a_deep_look(store: Upkept) -> None:
    store.location.write("runs/2025/04/one.json", b"{}")
    assert verify(store.location, deep=True) == []
    store.location.write("runs/2025/04/two.json", b'{"run": ')
    store.location.write("runs/2025/04/three.json", b"[]")
    assert verify(store.location) == []
    finding = check(store, "receipts broken", said="three.json, runs/2025/04/two.json", deep=True)
    assert finding.box is None


# --- what dies ------------------------------------------------------------------------------------------------------


def test_dead_attempts_go_with_their_garbage(anywhere: Upkept) -> None:
    clean = set(anywhere.objects("cubes"))
    abandoned(anywhere)  # type: ignore[arg-type]
    waste = set(anywhere.objects("cubes")) - clean
    assert waste
    assert verify(anywhere.location) == []  # it may be alive: something was committed just now
    finding = check(anywhere, "I7 note", said="Attempts that died or lost have left", older_than=NOW)
    assert not finding.is_open
    mend(anywhere, "rows", "fields", "boxes", older_than=NOW)
    left = set(anywhere.objects("cubes"))
    assert clean <= left
    assert not left & waste
    fresh = Cube(anywhere.location, "b")
    assert fresh.open(as_of=next(iter(fresh.repository.ancestry(branch="main"))).id)["ndvi"][0].notnull().any()


def test_a_rebuild_that_nobody_asks_for_goes_and_one_in_progress_stays(store: Upkept) -> None:
    from geofield.pipeline.rebuild import branch_of

    pending = store.box.model_copy(
        update={"variables": {"ndvi": store.box.variables["ndvi"].model_copy(update={"valid_range": (0.0, 1.0)})}}
    )
    store.location.write("changes/b.json", pending.model_dump_json().encode())
    store.cube.repository.create_branch(branch_of(pending), store.cube.tip())
    assert verify(store.location, older_than=NOW) == []
    store.location.delete("changes/b.json")
    check(store, "I7 unfinished", said="rebuild-", older_than=NOW)
    mend(store, "rows", "fields", older_than=NOW)
    assert list(store.cube.repository.list_branches()) == ["main"]


def test_temporary_files_go(store: Upkept) -> None:
    root = Path(store.location.url)
    half = root / "inbox" / "fields" / f".{'0123456789abcdef' * 2}.tmp"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert verify(store.location) == []
    finding = verify(store.location, older_than=NOW)[0]
    assert (finding.invariant, finding.box) == ("I7", None)
    mend(store, "cubes", "rows", "fields", older_than=NOW)
    assert not half.exists()


def test_a_network_below_the_store_is_told(store: Upkept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geofield import filesystem

    table = tmp_path / "mountinfo"
    table.write_text(f"2 1 0:9 / {store.location.url} rw - nfs server:/export rw\n")
    monkeypatch.setattr(filesystem, "MOUNTS", table)
    monkeypatch.delenv("GEOFIELD_ALLOW_NETWORK_FS", raising=False)
    check(store, "I8 broken", said="network file system (nfs")


def test_one_damaged_box_does_not_hide_another(store: Upkept) -> None:
    box = json.loads(store.location.read("boxes/b.json")) | {"id": "a"}
    store.location.write("boxes/a.json", json.dumps(box).encode())
    store.location.write("cubes/a/repo", b"nonsense")
    store.table().delete("field_id = 'cross'")
    findings = verify(store.location, repair=True)
    assert names(findings) == [("a", "cube", "broken"), ("b", "I9", "unfinished")]
    assert [one.repaired for one in findings] == [False, True]
    assert to_day(DAYS[0]) == 20179
