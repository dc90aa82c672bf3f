"""Several scenes of one day by each rule, and scenes that lack a band."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofield.boxes import Box
from geofield.cube.view import read_items
from geofield.encoding import Encoding
from geofield.grid import Grid
from geofield.pipeline import append_days, correct_days
from geofield.recipe.digest import recipe_digest
from geofield.recipe.variables import median
from geofield.source.protocol import Acquisition
from geofield.testing.source import ArraySource
from orchestrate import run
from orchestrate.inbox import submit
from tests.support import smallstore
from tests.support.scenes import write_tif
from tests.test_import import GEOBOX, VARIABLES
from tests.test_pipeline import DAY1, DAY2, NAN, SMALL, Work, make_box, scene


@dataclass(frozen=True)
class Told(ArraySource):
    """An `ArraySource` whose catalogue says something of each hour's scene."""

    properties: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def search(self, grid: Grid, start: dt.date, end: dt.date) -> list[Acquisition]:
        """The scenes, with what is said of them."""
        found = super().search(grid, start, end)
        return [replace(one, properties=self.properties.get(one.time.hour, {})) for one in found]


def quarters(*values: float) -> np.ndarray:
    """4 x 4 pixels: a value for each column."""
    return np.tile(np.array(values, dtype=float), (4, 1))


# 9 o'clock: three columns; 10: all of them; 11: two of them
MORNING, NOON, LATE = quarters(0.1, 0.1, 0.1, NAN), quarters(0.2, 0.2, 0.2, 0.2), quarters(0.4, NAN, NAN, 0.4)
SCENES = [scene(DAY1, 9, ndvi=MORNING), scene(DAY1, 10, ndvi=NOON), scene(DAY1, 11, ndvi=LATE)]
SAID: Mapping[int, Mapping[str, Any]] = {
    9: {"eo:cloud_cover": 30, "view:off_nadir": 1.0},
    10: {"eo:cloud_cover": 20, "view:incidence_angle": 9},
    11: {"eo:cloud_cover": 10},
}

SAID_RULES = ("most_valid", "least_cloud", "nearest_nadir", "median")


def day_of(tmp_path: Path, rule: str, said: Mapping[int, Mapping[str, Any]] = SAID) -> list[float]:
    """The first row of the day's pixels under a rule."""
    box = make_box(SMALL).model_copy(update={"merge": rule})
    work = Work(str(tmp_path / rule), box)
    append_days(DAY1, DAY1, Told(SMALL, SCENES, properties=said), work.fields(), work.cube, work.results)
    row: list[float] = work.cube.open()["ndvi"].values[0, 0].tolist()
    return row


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("most_valid", [0.2, 0.2, 0.2, 0.2]),
        ("least_cloud", [0.4, 0.2, 0.2, 0.4]),  # 11, then 10
        ("nearest_nadir", [0.1, 0.1, 0.1, 0.2]),  # 9, then 10; 11 does not say
        ("median", [0.2, 0.15, 0.15, 0.3]),
    ],
)
def test_each_rule_by_hand(tmp_path: Path, rule: str, expected: list[float]) -> None:
    assert day_of(tmp_path, rule) == pytest.approx(expected, abs=1e-9)


def test_what_says_nothing_goes_last_and_then_by_time(tmp_path: Path) -> None:
    assert day_of(tmp_path, "least_cloud", {11: {"eo:cloud_cover": True}}) == pytest.approx([0.1, 0.1, 0.1, 0.2])


def test_pixels_are_read_twice_only_where_they_decide_the_order(tmp_path: Path) -> None:
    reads = {}
    for rule in ("most_valid", "least_cloud", "median"):
        work = Work(str(tmp_path / rule), make_box(SMALL).model_copy(update={"merge": rule}))
        source = Told(SMALL, SCENES, properties=SAID)
        reads[rule] = append_days(DAY1, DAY1, source, work.fields(), work.cube, work.results).source_reads
    assert reads == {"most_valid": 6, "least_cloud": 3, "median": 3}


@given(st.lists(st.lists(st.integers(-30, 30), min_size=6, max_size=6), min_size=1, max_size=5))
def test_the_median_is_that_of_numpy(layers: Sequence[Sequence[int]]) -> None:
    encoding = Encoding("int16", 1e-4)
    stored = [np.array(one, dtype="int16").reshape(2, 3) for one in layers]
    for one in stored:
        one[one == -30] = encoding.fill
    values = np.ma.masked_equal(np.stack(stored), encoding.fill)
    expected = np.ma.filled(np.rint(np.ma.median(values, axis=0)), encoding.fill)
    np.testing.assert_array_equal(median(encoding, stored), expected)


def test_the_rule_belongs_to_the_recipe_and_its_grounds_to_the_digests(tmp_path: Path) -> None:
    plain = make_box(SMALL)
    digests = {recipe_digest(plain.model_copy(update={"merge": rule}), Grid(SMALL)) for rule in SAID_RULES}
    assert len(digests) == len(SAID_RULES)
    box = plain.model_copy(update={"merge": "least_cloud"})
    work = Work(str(tmp_path / "x"), box)
    ready = work.fields()
    append_days(DAY1, DAY1, Told(SMALL, SCENES, properties=SAID), ready, work.cube, work.results)
    other = {**SAID, 9: {"eo:cloud_cover": 5}}
    report = correct_days(DAY1, Told(SMALL, SCENES, properties=other), ready, work.cube, work.results)
    assert report.days_amended == 1
    assert work.cube.open()["ndvi"].values[0, 0].tolist() == pytest.approx([0.1, 0.1, 0.1, 0.4])
    assert correct_days(DAY1, Told(SMALL, SCENES, properties=other), ready, work.cube, work.results).days_amended == 0


def test_an_evening_scene_belongs_to_its_solar_day(tmp_path: Path) -> None:
    """At 177 E the sun is 11.8 hours ahead: 13 o'clock UTC is the next day there."""
    east = Box.model_validate(make_box(SMALL).model_dump() | {"day": "solar"})
    far = type(SMALL)(SMALL.shape, SMALL.transform, "EPSG:32660")
    box = east.model_copy(update={"pixels": Grid(far).to_dict(), "crs": "EPSG:32660"})
    work = Work(str(tmp_path / "x"), box)
    source = ArraySource(far, [scene(DAY1, 11, ndvi=MORNING), scene(DAY1, 13, ndvi=LATE)])
    append_days(DAY1, DAY2, source, work.fields(), work.cube, work.results)
    values = work.cube.open()["ndvi"].values[:, 0]
    np.testing.assert_allclose(values, [MORNING[0], LATE[0]], atol=1e-9)


# --- bands that are missing -------------------------------------------------------------------------------------------


def write_day(folder: Path, number: int, *bands: str) -> None:
    """The files of a day."""
    for band in bands:
        values = np.full(GEOBOX.shape, 0.5 if band == "NDVI" else 0, "float32" if band == "NDVI" else "uint8")
        write_tif(folder / f"{band}_{smallstore.day(number):%Y%m%d}.tif", values, GEOBOX)


def box_over(folder: Path, name: str = "b") -> Any:
    """A box over a folder."""
    bands = {"ndvi": "NDVI_{time}.tif", "cloud": "CLOUD_{time}.tif"}
    source = {"type": "files", "root": str(folder), "bands": bands, "quality": ["cloud"]}
    return smallstore.box(name, source=source, variables=VARIABLES)


def test_a_band_that_is_missing_for_a_day_is_told_and_comes_later(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_day(folder, 1, "NDVI", "CLOUD")
    write_day(folder, 3, "NDVI")
    write_day(folder, 5, "NDVI", "CLOUD")
    store = smallstore.make_store(str(tmp_path / "store"), box_over(folder))
    fields = smallstore.write_fields(tmp_path / "f.geojson", smallstore.feature("f1", 20, 20))
    submit(store, [fields], "fields")
    receipt = run(store, smallstore.day(5))
    assert receipt["errors"] == []
    (text,) = receipt["boxes"]["b"]["incomplete"]
    assert text == "20250403T000000 of 2025-04-03 lacks cloud: no value from it"
    rows = smallstore.numbers(store)
    assert rows["status"].tolist() == ["observed", "no_acquisition", "all_masked", "no_acquisition", "observed"]
    assert rows["ndvi_mean"].notna().tolist() == [True, False, False, False, True]
    assert '"missing_bands":["cloud"]' in read_items(store.cube("b").arrays())[2]
    write_day(folder, 3, "CLOUD")
    assert run(store, smallstore.day(5))["boxes"]["b"]["days_amended"] == 3  # the state of the days after changes too
    assert smallstore.numbers(store)["status"].tolist()[2] == "observed"


def test_a_band_that_never_came_is_an_error_of_its_box_alone(tmp_path: Path) -> None:
    write_day(tmp_path / "in", 1, "NDVI")
    write_day(tmp_path / "good", 1, "NDVI", "CLOUD")
    boxes = [box_over(tmp_path / "in", "bad"), box_over(tmp_path / "good", "good")]
    store = smallstore.make_store(str(tmp_path / "store"), *boxes)
    receipt = run(store, smallstore.day(2))
    (error,) = receipt["errors"]
    assert (error["box"], error["kind"]) == ("bad", "missing_band")
    assert "has no file for band 'cloud'" in error["message"]
    assert receipt["boxes"]["good"]["days_appended"] == 2


def test_a_day_that_fails_stops_its_own_box_only(tmp_path: Path) -> None:
    write_day(tmp_path / "in", 1, "NDVI", "CLOUD")
    write_day(tmp_path / "good", 1, "NDVI", "CLOUD")
    (tmp_path / "in" / f"NDVI_{smallstore.day(1):%Y%m%d}.tif").write_bytes(b"no raster")
    boxes = [box_over(tmp_path / "in", "bad"), box_over(tmp_path / "good", "good")]
    store = smallstore.make_store(str(tmp_path / "store"), *boxes)
    receipt = run(store, smallstore.day(2))
    assert [(one["box"], one["kind"]) for one in receipt["errors"]] == [("bad", "unreadable_file")]
    assert receipt["boxes"]["good"]["days_appended"] == 2
