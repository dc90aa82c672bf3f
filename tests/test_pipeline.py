"""Days, rows and late fields, on a small box worked by hand."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.boxes import Box
from geofield.cube.cube import Cube, as_date
from geofield.errors import InputError, LostRaceError, MissingDaysError
from geofield.grid import Grid
from geofield.pipeline import (
    BoxFields,
    append_day,
    append_days,
    box_fields,
    fill_late_fields,
    missing_rows,
    reduce_days,
)
from geofield.pipeline.layers import cube_schema
from geofield.results.rows import Results
from geofield.store import Location
from geofield.testing.source import ArraySource, Scene

DAY1, DAY2, DAY3 = (dt.date(2025, 4, day) for day in (1, 2, 3))
NAN = np.nan
SMALL = GeoBox((4, 4), Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")
FIRST = np.array(
    [[0.10, 0.14, 0.18, 0.22], [0.26, 0.30, 0.34, 0.38], [0.42, 0.46, 0.50, 0.54], [0.58, 0.62, 0.66, 0.70]]
)
THIRD = np.array([[0.20, 0.24, 0.28, 0.32], [0.36, NAN, NAN, 0.48], [0.52, 0.56, 0.60, 0.64], [0.68, 0.72, 0.76, 0.80]])
A = shapely.box(500000, 5489980, 500020, 5490000)
B = shapely.box(500005, 5489975, 500025, 5489995)


def scene(day: dt.date, hour: int = 10, version: str = "1", **bands: Any) -> Scene:
    time = dt.datetime(day.year, day.month, day.day, hour, tzinfo=dt.UTC)
    return Scene(time, {name: np.asarray(value, dtype=float) for name, value in bands.items()}, version)


def make_box(geobox: GeoBox, tile: int = 256, **variable: Any) -> Box:
    return Box.model_validate(
        {
            "id": "b",
            "bbox": geobox.boundingbox.bbox,
            "crs": "EPSG:32631",
            "start": DAY1,
            "source": {"type": "array"},
            "variables": {"ndvi": {"band": "ndvi", "valid_range": [-1, 1], "state": "kalman", **variable}},
            "pixels": Grid(geobox, tile).to_dict(),
        }
    )


def field_table(**fields: Any) -> pd.DataFrame:
    rows = [
        {
            "field_id": name,
            "version": hashlib.blake2b(shape.wkb, digest_size=6).hexdigest(),
            "geometry": shape.wkb,
            "crs": "EPSG:32631",
            "planting_date": DAY1,
            "harvest_date": None,
        }
        for name, shape in fields.items()
    ]
    columns = ["field_id", "version", "geometry", "crs", "planting_date", "harvest_date"]
    return pd.DataFrame(rows, columns=columns)


class Work:
    """A cube and a rows table with nothing in them."""

    def __init__(self, url: str, box: Box) -> None:
        location = Location.parse(url)
        location.probe()
        self.box = box
        self.cube = Cube(location, box.id)
        self.cube.create(cube_schema(box, box.resolved))
        self.results = Results(location, box.id)
        self.location = location

    def fields(self, **fields: Any) -> BoxFields:
        return box_fields(self.box, field_table(**fields))

    def rows(self) -> pd.DataFrame:
        return self.results.read()

    def objects(self) -> dict[str, bytes]:
        return {info.key: self.location.read(info.key) for info in self.location.list(f"cubes/{self.box.id}")}


@pytest.fixture
def small(store_url: str) -> Work:
    return Work(store_url, make_box(SMALL))


SCENES = ArraySource(SMALL, [scene(DAY1, ndvi=FIRST), scene(DAY3, ndvi=THIRD)])

EXPECTED = {  # status, valid, count, mean, stdev, min, max, median, filled, sigma, age
    ("A", DAY1): ("observed", 1, 4, 0.2, 0.082462, 0.10, 0.30, 0.20, 0.2000, 0.0200, 0),
    ("A", DAY2): ("no_acquisition", 0, 0, NAN, NAN, NAN, NAN, NAN, 0.2000, 0.022361, 1),
    ("A", DAY3): ("observed", 0.75, 3, 0.266667, 0.067987, 0.20, 0.36, 0.24, 0.2450, 0.017749, 0.5),
    ("B", DAY1): ("observed", 1, 4, 0.3, 0.116619, 0.10, 0.50, 0.30, 0.3000, 0.0200, 0),
    ("B", DAY2): ("no_acquisition", 0, 0, NAN, NAN, NAN, NAN, NAN, 0.3000, 0.022361, 1),
    ("B", DAY3): ("observed", 0.625, 2.5, 0.392, 0.146205, 0.20, 0.60, 0.36, 0.3375, 0.018873, 0.75),
}
COLUMNS = ["status", "ndvi_valid", "ndvi_count", "ndvi_mean", "ndvi_stdev", "ndvi_min", "ndvi_max", "ndvi_median",
           "ndvi_filled_mean", "ndvi_sigma_mean", "ndvi_age_mean"]  # fmt: skip


def check_rows(rows: pd.DataFrame, fields: str) -> None:
    expected = {key: value for key, value in EXPECTED.items() if key[0] in fields}
    assert [(row.field_id, row.date) for row in rows.itertuples()] == sorted(expected)
    for row in rows.to_dict("records"):
        found = [row[name] for name in COLUMNS]
        wanted = expected[row["field_id"], row["date"]]
        assert found[0] == wanted[0]
        assert found[1:] == pytest.approx(wanted[1:], abs=2e-6, nan_ok=True), row
        assert row["covered"] == 1
        assert row["days_since_planting"] == (row["date"] - DAY1).days


def test_the_worked_box_day_by_day_and_a_late_field(small: Work) -> None:
    report = append_days(DAY1, DAY3, SCENES, small.fields(A=A), small.cube, small.results)
    assert (report.days_appended, report.source_reads, report.rows_written) == (3, 2, 3)
    check_rows(small.rows(), "A")
    before, rows_before = small.objects(), small.rows()

    both = small.fields(A=A, B=B)
    missing = missing_rows(both, small.cube, small.results)
    assert missing[["field_id", "days", "first", "last"]].to_numpy().tolist() == [["B", 3, DAY1, DAY3]]
    late = fill_late_fields(both.take(np.array([1])), small.cube, small.results)
    assert (late.fields, late.field_days, late.source_reads, late.box_tasks) == (1, 3, 0, 0)
    assert small.objects() == before
    check_rows(small.rows(), "AB")
    pd.testing.assert_frame_equal(small.rows()[lambda rows: rows["field_id"] == "A"], rows_before)
    assert missing_rows(both, small.cube, small.results).empty


def test_the_view_carries_the_state_over_a_day_without_imagery(small: Work) -> None:
    append_days(DAY1, DAY3, SCENES, small.fields(), small.cube, small.results)
    cube = small.cube.open()
    assert cube["acquired"].values.tolist() == [True, False, True]
    assert cube.odc.geobox == SMALL
    assert np.isnan(cube["ndvi"][1]).all()
    assert cube["ndvi_filled"][1].values == pytest.approx(FIRST)
    assert cube["ndvi_filled"][2].values == pytest.approx(
        np.array(
            [[0.16, 0.20, 0.24, 0.28], [0.32, 0.30, 0.34, 0.44], [0.48, 0.52, 0.56, 0.60], [0.64, 0.68, 0.72, 0.76]]
        )
    )
    assert cube["ndvi_age"][:, 1, 1].values.tolist() == [0, 1, 2]
    assert cube["ndvi_sigma"][:, 1, 1].values == pytest.approx([0.02, np.sqrt(5e-4), np.sqrt(6e-4)])
    part = small.cube.open(variables=["ndvi"], start="2025-04-03", end="2025-04-03")
    assert part["ndvi"].isel(time=0, y=0, x=[0, 3]).values == pytest.approx([0.20, 0.32])
    chunked = small.cube.open(chunks="tiles")
    with dask.config.set(scheduler="synchronous"):
        assert np.array_equal(chunked["ndvi_age"].values, cube["ndvi_age"].values)


def test_a_day_without_imagery_stores_no_shard(small: Work) -> None:
    append_day(DAY1, SCENES, small.fields(), small.cube, small.results)
    chunks = {key for key in small.objects() if "/chunks/" in key}
    report = append_day(DAY2, SCENES, small.fields(), small.cube, small.results)
    assert (report.days_appended, report.cube_objects_written, report.tasks) == (1, 0, 0)
    new = {key for key in small.objects() if "/chunks/" in key} - chunks
    assert all(len(small.objects()[key]) < 1000 for key in new)  # days, digests and items; no pixels


def test_one_attempt_or_three_give_the_same_bits(tmp_path: Path) -> None:
    cut, whole = (Work(str(tmp_path / name), make_box(SMALL)) for name in ("cut", "whole"))
    for day in (DAY1, DAY2, DAY3):
        append_day(day, SCENES, cut.fields(A=A, B=B), cut.cube, cut.results)
    append_days(DAY1, DAY3, SCENES, whole.fields(A=A, B=B), whole.cube, whole.results)
    pd.testing.assert_frame_equal(cut.rows(), whole.rows(), check_exact=True)
    for name, array in whole.cube.open().data_vars.items():
        assert np.array_equal(array.values, cut.cube.open()[name].values, equal_nan=True), name


def test_appending_again_changes_nothing(small: Work) -> None:
    fields = small.fields(A=A)
    append_days(DAY1, DAY3, SCENES, fields, small.cube, small.results)
    before, version = small.objects(), small.results.table.open().version
    report = append_days(DAY1, DAY3, SCENES, fields, small.cube, small.results)
    assert (report.days_appended, report.days_present, report.rows_written) == (0, 3, 0)
    assert small.objects() == before
    assert small.results.table.open().version == version


def test_a_gap_is_refused_and_named(small: Work) -> None:
    with pytest.raises(MissingDaysError, match=r"cube is empty.*Missing: 2025-04-01 to 2025-04-02"):
        append_day(DAY3, SCENES, small.fields(), small.cube, small.results)
    append_day(DAY1, SCENES, small.fields(), small.cube, small.results)
    with pytest.raises(MissingDaysError, match=r"Missing: 2025-04-02 to 2025-04-02"):
        append_day(DAY3, SCENES, small.fields(), small.cube, small.results)


def test_a_day_before_the_start_is_refused(small: Work) -> None:
    with pytest.raises(MissingDaysError, match="2025-03-31 is before that"):
        append_day(dt.date(2025, 3, 31), SCENES, small.fields(), small.cube, small.results)


def test_rows_that_a_crash_left_out_come_from_the_cube(small: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = small.fields(A=A, B=B)
    append_day(DAY1, SCENES, fields, small.cube, small.results)
    with monkeypatch.context() as patch:
        patch.setattr(Results, "commit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            append_days(DAY2, DAY3, SCENES, fields, small.cube, small.results)
    assert len(small.cube.head().days) == 3
    assert missing_rows(fields, small.cube, small.results)["days"].tolist() == [2, 2]
    report = reduce_days(DAY2, DAY3, fields, small.cube, small.results)
    assert (report.source_reads, report.box_tasks, report.rows_written) == (0, 0, 4)
    check_rows(small.rows(), "AB")


def test_two_scenes_of_a_day_are_merged_by_most_valid_pixels_then_time(small: Work) -> None:
    few = np.where(np.arange(16).reshape(4, 4) < 4, 0.9, NAN)
    many = np.where(np.arange(16).reshape(4, 4) >= 2, 0.1, NAN)
    source = ArraySource(SMALL, [scene(DAY1, 9, ndvi=few), scene(DAY1, 10, ndvi=many), scene(DAY1, 11, ndvi=few / 3)])
    append_day(DAY1, source, small.fields(A=A), small.cube, small.results)
    values = small.cube.open()["ndvi"][0].values
    assert values[0] == pytest.approx([0.9, 0.9, 0.1, 0.1])  # the second scene first, then the earlier of the others
    assert values[1:] == pytest.approx(np.full((3, 4), 0.1))


def test_a_tie_is_decided_by_time(small: Work) -> None:
    source = ArraySource(SMALL, [scene(DAY1, 9, ndvi=FIRST), scene(DAY1, 10, ndvi=FIRST / 2)])
    append_day(DAY1, source, small.fields(), small.cube, small.results)
    assert small.cube.open()["ndvi"][0].values == pytest.approx(FIRST)


def test_a_day_published_by_another_is_not_written_twice(small: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    from geofield.cube.attempt import Attempt

    fields = small.fields(A=A)
    publish = Attempt.publish
    raced: list[str] = []

    def overtaken(self: Attempt, snapshot: str) -> None:
        if not raced:
            raced.append(snapshot)
            append_day(DAY1, SCENES, fields, Cube(small.location, "b"), small.results)
        publish(self, snapshot)

    monkeypatch.setattr(Attempt, "publish", overtaken)
    report = append_days(DAY1, DAY2, SCENES, fields, small.cube, small.results)
    assert report.days_appended == 1
    assert small.cube.head().days.tolist() == [20179, 20180]
    assert list(small.cube.repository.list_branches()) == ["main"]
    assert len(small.rows()) == 2


def test_a_writer_that_always_loses_says_so(small: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    from geofield.cube.attempt import Attempt

    def lost(self: Attempt, snapshot: str) -> None:
        raise LostRaceError("Another writer published box b first.")

    monkeypatch.setattr(Attempt, "publish", lost)
    with pytest.raises(LostRaceError, match="published box b first"):
        append_day(DAY1, SCENES, small.fields(), small.cube, small.results)
    assert len(small.cube.head().days) == 0


def test_a_field_has_rows_from_planting_to_harvest(small: Work) -> None:
    table = field_table(A=A, B=B)
    table["planting_date"] = [DAY2, dt.date(2025, 3, 1)]
    table["harvest_date"] = [None, DAY2]
    append_days(DAY1, DAY3, SCENES, box_fields(small.box, table), small.cube, small.results)
    found = [(row.field_id, row.date, row.days_since_planting) for row in small.rows().itertuples()]
    assert found == [("A", DAY2, 0), ("A", DAY3, 1), ("B", DAY1, 31), ("B", DAY2, 32)]


def test_a_moved_polygon_replaces_its_rows_in_one_commit(small: Work) -> None:
    append_days(DAY1, DAY3, SCENES, small.fields(A=A, B=B), small.cube, small.results)
    moved = small.fields(A=B, B=B)
    assert missing_rows(moved, small.cube, small.results)[["field_id", "days", "surplus"]].to_numpy().tolist() == [
        ["A", 3, 3]
    ]
    version = small.results.table.open().version
    fill_late_fields(moved.take(np.array([0])), small.cube, small.results)
    assert small.results.table.open().version == version + 1
    rows = small.rows()
    assert len(rows) == 6
    numbers = [name for name in rows.columns if name.startswith("ndvi")]
    pd.testing.assert_frame_equal(
        rows[rows["field_id"] == "A"][numbers].reset_index(drop=True),
        rows[rows["field_id"] == "B"][numbers].reset_index(drop=True),
    )


def make_wide(tile: int) -> tuple[Box, ArraySource, dict[str, Any]]:
    """600 x 1,000 pixels that are no whole number, and fields over every edge of the tiles."""
    geobox = GeoBox((600, 1000), Affine(9.99479, 0, 465181.0522, 0, -9.99745, 5080254.6335), "EPSG:32631")
    rng = np.random.default_rng(7)
    images = [rng.uniform(-0.2, 0.9, geobox.shape) for _ in range(3)]
    images[1][rng.uniform(size=geobox.shape) < 0.4] = NAN
    days = [DAY1, DAY3, DAY3 + dt.timedelta(days=1)]
    source = ArraySource(geobox, [scene(day, ndvi=image) for day, image in zip(days, images, strict=True)])
    x0, y0 = 465181.0522, 5080254.6335
    fields = {
        f"f{number}": shapely.Point(x0 + 9.99479 * x, y0 - 9.99745 * y).buffer(radius, 5)
        for number, (x, y, radius) in enumerate(
            [
                (256, 256, 420.0),
                (512, 512, 777.7),
                (512, 100, 91.0),
                (255.5, 400, 12.0),
                (700, 512.01, 333.3),
                (500, 300, 2800.0),
            ]
        )
    }
    return make_box(geobox, tile), source, fields


def wide_rows(folder: Path, tile: int, workers: int) -> tuple[pd.DataFrame, Work, BoxFields, ArraySource]:
    box, source, fields = make_wide(tile)
    work = Work(str(folder), box)
    ready = work.fields(**fields)
    with dask.config.set(scheduler="threads", num_workers=workers):
        append_days(DAY1, DAY3 + dt.timedelta(days=1), source, ready, work.cube, work.results)
    return work.rows(), work, ready, source


def test_rows_do_not_depend_on_tiles_workers_or_lateness(tmp_path: Path) -> None:
    reference, work, _, _ = wide_rows(tmp_path / "2048", 2048, 1)
    assert len(reference) == 6 * 4
    for tile, workers in ((256, 2), (512, 1), (512, 2)):
        rows, work, fields, _ = wide_rows(tmp_path / f"{tile}-{workers}", tile, workers)
        pd.testing.assert_frame_equal(rows, reference, check_exact=True)
        work.results.remove([f"f{number}" for number in range(6)], {})
        fill_late_fields(fields, work.cube, work.results)
        pd.testing.assert_frame_equal(work.rows(), reference, check_exact=True)


def test_days_are_given_as_people_write_them() -> None:
    assert as_date("2025-04-01") == as_date(DAY1) == as_date(dt.datetime(2025, 4, 1, 23, 59)) == DAY1
    assert type(as_date(dt.datetime(2025, 4, 1))) is dt.date
    with pytest.raises(InputError, match="'1 April' is not a day; write YYYY-MM-DD"):
        as_date("1 April")
