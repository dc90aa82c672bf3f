"""Corrections against the box that was right from the start."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geofield.cube.attempt import Attempt
from geofield.pipeline import append_days, changed_days, correct_days, fill_late_fields, missing_rows
from geofield.testing.source import ArraySource, Scene
from tests.test_pipeline import DAY1, DAY2, DAY3, FIRST, SMALL, THIRD, A, B, Work, make_box, scene

# 300 x 600 pixels: tiles of 256 in two rows of three
WIDE = GeoBox((300, 600), Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")
FIELDS: dict[str, Any] = {
    "first": shapely.box(500105, 5489805, 500195, 5489895),
    "last": shapely.box(505805, 5487105, 505895, 5487195),
    "cross": shapely.box(502400, 5487300, 502700, 5487600),
}


def check_equal(work: Work, fresh: Work) -> None:
    """The same view and the same rows, digests and all."""
    pd.testing.assert_frame_equal(work.rows(), fresh.rows(), check_exact=True)
    one, other = work.cube.open(), fresh.cube.open()
    assert one["acquired"].values.tolist() == other["acquired"].values.tolist()
    for name in other.data_vars:
        assert np.array_equal(one[name].values, other[name].values, equal_nan=True), name
    stored, wanted = work.cube.group(), fresh.cube.group()
    for name in ("digest", "items"):
        assert np.asarray(stored[name][:]).tolist() == np.asarray(wanted[name][:]).tolist(), name  # type: ignore[index]


CHANGES: dict[str, list[Scene]] = {
    "late": [scene(DAY1, ndvi=FIRST), scene(DAY2, ndvi=FIRST / 2), scene(DAY3, ndvi=THIRD)],
    "reprocessed": [scene(DAY1, version="2", ndvi=FIRST + 0.05), scene(DAY3, ndvi=THIRD)],
    "withdrawn": [scene(DAY3, ndvi=THIRD)],
    "second of a day": [scene(DAY1, ndvi=FIRST), scene(DAY3, ndvi=THIRD), scene(DAY3, hour=11, ndvi=FIRST)],
    "all": [scene(DAY2, ndvi=THIRD), scene(DAY3, version="2", ndvi=FIRST), scene(DAY3, hour=9, ndvi=FIRST / 2)],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_corrected_box_equals_one_that_was_right_from_the_start(store_url: str, tmp_path: Path, change: str) -> None:
    work, fresh = Work(store_url, make_box(SMALL)), Work(str(tmp_path / "fresh"), make_box(SMALL))
    before = ArraySource(SMALL, [scene(DAY1, ndvi=FIRST), scene(DAY3, ndvi=THIRD)])
    after = ArraySource(SMALL, CHANGES[change])
    fields = work.fields(A=A, B=B)
    append_days(DAY1, DAY3, before, fields, work.cube, work.results)
    old_view, old_rows = work.cube.open().load(), work.rows()
    snapshot, version = work.cube.tip(), work.results.table.open().version

    report = correct_days(DAY1, after, fields, work.cube, work.results)
    append_days(DAY1, DAY3, after, fields, fresh.cube, fresh.results)
    check_equal(work, fresh)
    assert report.days_amended >= 1
    assert missing_rows(fields, work.cube, work.results).empty

    assert work.cube.open(as_of=snapshot).load().drop_attrs().identical(old_view.drop_attrs())
    pd.testing.assert_frame_equal(work.results.read(as_of=version), old_rows)
    assert work.results.table.open().version == version + 1
    assert list(work.cube.repository.list_branches()) == ["main"]
    again = correct_days(DAY1, after, fields, work.cube, work.results)
    assert (again.days_amended, again.source_reads, again.rows_written) == (0, 0, 0)


def test_only_what_changed_is_read_and_written(tmp_path: Path) -> None:
    box = make_box(WIDE, 256)
    work = Work(str(tmp_path / "store"), box)
    rng = np.random.default_rng(3)
    images = [rng.uniform(0, 0.9, WIDE.shape) for _ in range(4)]
    corner = (505120.0, 5487000.0, 506000.0, 5487440.0)  # the last tile alone
    scenes = [scene(DAY1, ndvi=images[0]), scene(DAY2, ndvi=images[1]), scene(DAY3, ndvi=images[2])]
    fields = work.fields(**FIELDS)
    append_days(DAY1, DAY3, ArraySource(WIDE, scenes), fields, work.cube, work.results)
    old_rows, old_objects = work.rows(), work.objects()

    extra = scene(DAY3, hour=12, ndvi=images[3])
    late = ArraySource(WIDE, [*scenes, Scene(extra.time, extra.values, "1", "extra", corner)])
    assert changed_days(DAY1, late, fields, work.cube) == [DAY3]
    assert work.objects() == old_objects
    report = correct_days(DAY1, late, fields, work.cube, work.results)
    # the new scene is read once to be counted, and then both scenes of the tile
    assert (report.days_amended, report.source_reads, report.tasks) == (1, 3, 2)
    assert report.rows_written == 1
    rows = work.rows()
    touched = (rows["field_id"] == "last") & (rows["date"] == DAY3)
    pd.testing.assert_frame_equal(rows[~touched], old_rows[~touched], check_exact=True)
    assert (rows.loc[touched, "digest"].to_numpy() != old_rows.loc[touched, "digest"].to_numpy()).all()
    kept = work.objects()
    assert {key for key in old_objects if "/chunks/" in key} <= set(kept)  # nothing published is written over
    assert all(kept[key] == old_objects[key] for key in old_objects if "/chunks/" in key)


def test_a_lost_race_begins_again_from_the_new_tip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, fresh = Work(str(tmp_path / "one"), make_box(SMALL)), Work(str(tmp_path / "two"), make_box(SMALL))
    fields = work.fields(A=A)
    before = ArraySource(SMALL, [scene(DAY1, ndvi=FIRST)])
    after = ArraySource(SMALL, [scene(DAY1, version="2", ndvi=FIRST / 2), scene(DAY3, ndvi=THIRD)])
    append_days(DAY1, DAY2, before, fields, work.cube, work.results)
    publish, raced = Attempt.publish, []

    def overtaken(self: Attempt, snapshot: str) -> None:
        if not raced:
            raced.append(snapshot)
            append_days(DAY3, DAY3, after, fields, work.cube, work.results)
        publish(self, snapshot)

    monkeypatch.setattr(Attempt, "publish", overtaken)
    correct_days(DAY1, after, fields, work.cube, work.results)
    append_days(DAY1, DAY3, after, fields, fresh.cube, fresh.results)
    check_equal(work, fresh)


DAYS = [DAY1 + dt.timedelta(days=n) for n in range(5)]
PLACES = [None, (500000.0, 5487000.0, 502000.0, 5490000.0), (502560.0, 5487440.0, 505120.0, 5490000.0)]


@st.composite
def scene_sets(draw: st.DrawFn) -> list[Scene]:
    scenes = []
    for day in DAYS:
        for hour in draw(st.lists(st.integers(8, 10), max_size=2, unique=True)):
            version = draw(st.sampled_from("12"))
            place = PLACES[(day.day + hour + int(version)) % 3]  # a scene moves only with its version
            rng = np.random.default_rng([day.day, hour, int(version)])
            image = rng.uniform(-0.5, 1.0, WIDE.shape)
            image[rng.uniform(size=WIDE.shape) < 0.3] = np.nan
            image[:, : int(rng.integers(0, 500))] = np.nan
            base = scene(day, hour, version, ndvi=image)
            scenes.append(Scene(base.time, base.values, version, f"{day}-{hour}", place))
    return scenes


@settings(
    max_examples=12, phases=[Phase.explicit, Phase.generate]
)  # a case takes seconds: shrinking would take minutes
@given(st.lists(scene_sets(), min_size=2, max_size=3), st.integers(1, 5))
def test_any_history_of_the_catalogue_ends_in_the_same_box(
    tmp_path_factory: pytest.TempPathFactory, history: list[list[Scene]], days_first: int
) -> None:
    folder = tmp_path_factory.mktemp("histories")
    box = make_box(WIDE, 256)
    work, fresh = Work(str(folder / "one"), box), Work(str(folder / "two"), box)
    fields = work.fields(**FIELDS)
    last = ArraySource(WIDE, history[-1] or [scene(dt.date(2020, 1, 1), ndvi=np.zeros(WIDE.shape))])
    for number, scenes in enumerate(history):
        source = ArraySource(WIDE, scenes or last.scenes)
        end = DAYS[-1] if number else DAYS[days_first - 1]
        append_days(DAYS[0], end, source, fields, work.cube, work.results)
        correct_days(DAYS[0], source, fields, work.cube, work.results)
    append_days(DAYS[0], DAYS[-1], last, fields, fresh.cube, fresh.results)
    check_equal(work, fresh)
    fresh.results.remove(list(FIELDS), {})
    fill_late_fields(fields, fresh.cube, fresh.results)
    pd.testing.assert_frame_equal(work.rows(), fresh.rows(), check_exact=True)
