"""Files of boxes in every format, what is missing, and what is wrong."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofield.boxes import Box, resolve_grid
from geofield.boxfiles import BoxesRead, BoxOptions, box_from, read_boxes
from geofield.errors import BoxError, ConfigurationError, GridError

OPTIONS = BoxOptions(start="2015-07-11", source={"type": "simulated"})
BBOX = [14.552, 45.867, 14.564, 45.874]


def polygon(xmin: float, ymin: float, xmax: float, ymax: float) -> dict[str, Any]:
    ring = [[xmin, ymin], [xmin, ymax], [xmax, ymax], [xmax, ymin], [xmin, ymin]]
    return {"type": "Polygon", "coordinates": [ring]}


def read(value: Any, name: str = "b.json", options: Any = OPTIONS, defaults: Any = None) -> BoxesRead:
    data = (
        value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else json.dumps(value).encode()
    )
    return read_boxes(data, name, options, defaults)


def reason(value: Any, **given_: Any) -> str:
    found = read(value, **given_)
    assert (len(found.boxes), len(found.rejected)) == (0, 1)
    return found.rejected[0].reason


YAML = """
id: tomaj
bbox: [465181.0522318204, 5079244.8912012065, 466180.53145382757, 5080254.63349641]
crs: EPSG:32633            # default EPSG:4326
start: 2015-07-11
grid: {crs: utm, resolution: 10}
source:
  type: files
  root: ../data/cog
  bands: {ndvi: "NDVI_{time}.tif", cloud: "CLM_{time}.tif"}
variables:
  ndvi: {band: ndvi, mask: {cloud: [1]}, valid_range: [-1, 1], precision: 1e-4, state: kalman}
"""


def test_the_box_file_of_the_documentation(tmp_path: Path) -> None:
    folder = tmp_path / "boxes"
    folder.mkdir()
    path = folder / "any.yaml"
    path.write_text(YAML)
    (box,) = read_boxes(path, path.name).boxes
    assert (box.id, box.crs, box.start) == ("tomaj", "EPSG:32633", dt.date(2015, 7, 11))
    assert box.source["root"] == str(tmp_path / "data" / "cog")
    assert box.variables["ndvi"].precision == 1e-4
    assert box.variables["ndvi"].mask == {"cloud": (1,)}
    assert box.pixels is None


@pytest.mark.parametrize("root", ["/data/cog", "s3://bucket/cog", "https://example.org/cog"])
def test_roots_that_are_absolute_stay(root: str, tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(YAML.replace("../data/cog", root))
    assert read_boxes(path, "b.yaml").boxes[0].source["root"] == root


def test_a_relative_root_of_a_file_without_a_folder_is_refused() -> None:
    assert "source.root '../data/cog' is relative" in reason(YAML, name="b.yaml", options=None)


FORMATS = {
    "b.yaml": f"id: west\nbbox: {BBOX}\n",
    "two.yml": f"id: west\nbbox: {BBOX}\n---\nid: east\nbbox: [1, 2, 3, 4]\n",
    "list.yaml": f"- {{id: west, bbox: {BBOX}}}\n- {{id: east, bbox: [1, 2, 3, 4]}}\n",
    "boxes.json": {"boxes": [{"box_id": "west", "bbox": BBOX}]},
    "b.json": {"boxId": "west", "bbox": BBOX},
    "west.json": {"bbox": BBOX},
    "six.json": {"id": "west", "bbox": [*BBOX[:2], 0, *BBOX[2:], 900]},
    "corners.json": {"id": "west", **dict(zip(["xmin", "ymin", "xmax", "ymax"], BBOX, strict=True))},
    "f.geojson": {"type": "Feature", "properties": {"object-id": "west"}, "geometry": polygon(*BBOX)},
    "top.geojson": {"type": "Feature", "id": "west", "properties": None, "geometry": polygon(*BBOX)},
    "bboxed.geojson": {"type": "Feature", "id": "west", "bbox": BBOX, "properties": {}, "geometry": None},
    "c.geojson": {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {"bbox_id": "west", "name": "x"}, "geometry": polygon(*BBOX)}],
    },
    "west.geojson": polygon(*BBOX),
    "l.jsonl": json.dumps(
        {
            "box_id": "west",
            **dict(zip([f"coordinates_{c}" for c in ("x_min", "y_min", "x_max", "y_max")], BBOX, strict=True)),
        }
    ),
    "camel.jsonl": json.dumps(
        {"boxId": "west", **dict(zip([f"coordinates{c}" for c in ("XMin", "YMin", "XMax", "YMax")], BBOX, strict=True))}
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_box(name: str) -> None:
    found = read(FORMATS[name], name)
    assert not found.rejected
    want = box_from({"id": "west", "bbox": BBOX}, OPTIONS)
    assert found.boxes[0] == want
    assert len(found.boxes) == found.rows


def test_the_file_goes_first_then_the_options_then_the_defaults() -> None:
    defaults = {
        "start": "2010-01-01",
        "grid": {"crs": "EPSG:3035", "resolution": 30},
        "source": "stac",
        "settle_days": 3,
    }
    options = {"resolution": 20, "start": dt.date(2011, 1, 1), "crs": "EPSG:4258"}
    box = box_from({"id": "a", "bbox": BBOX, "start": "2012-01-01"}, options, defaults)
    assert box.start == dt.date(2012, 1, 1)
    assert (box.grid.crs, box.grid.resolution) == ("EPSG:3035", 20)
    assert (box.source, box.settle_days, box.crs) == ({"type": "stac"}, 3, "EPSG:4258")
    assert box_from({"id": "a", "bbox": BBOX}, options, defaults).start == dt.date(2011, 1, 1)
    assert box_from({"id": "a", "bbox": BBOX}, None, defaults).start == dt.date(2010, 1, 1)
    native = box_from({"id": "a", "bbox": BBOX, "grid": "native"}, options, defaults).grid
    assert (native.native, native.resolution) == (True, 10.0)
    assert box_from({}, {"id": "a", "bbox": BBOX, "grid_crs": "native"}, defaults).grid.native


def test_variables_when_nobody_says() -> None:
    (ndvi,) = box_from({"id": "a", "bbox": BBOX}, OPTIONS).variables.values()
    assert (ndvi.index, ndvi.state, ndvi.mask) == ("NDVI", "kalman", {"scl": (0, 1, 3, 8, 9, 10, 11)})
    assert "--variables" in reason({"id": "a", "bbox": BBOX, "source": {"type": "files", "root": "/x"}})


def test_everything_that_is_missing_is_told_at_once_with_its_option() -> None:
    said = reason("id: a", name="b.yaml", options=None)
    assert said.startswith("b.yaml: row 0, box 'a': ")
    for option in ("--bbox", "--start", "--source"):
        assert option in said
    with pytest.raises(BoxError, match="--id"):
        box_from({"bbox": BBOX}, OPTIONS, None, "...")
    with pytest.raises(ConfigurationError, match="strat is no option of a box; there are id, bbox"):
        read({"bbox": BBOX}, options={"strat": 1})


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("north field (1).json", "north-field-1"),
        ("a/b/Größe.geojson", "Gr-e"),
        ("x" * 99 + ".json", "x" * 64),
        ("b.tar.json", "b"),
    ],
)
def test_an_id_is_made_from_the_name_of_the_file(name: str, made: str) -> None:
    found = read({"bbox": BBOX}, name)
    assert found.boxes[0].id == made
    assert f"the id {made!r} is taken from the file's name" in found.notices[0].what


@pytest.mark.parametrize("value", [7, 7.0, "7"])
def test_ids_that_are_numbers_become_text(value: Any) -> None:
    assert read({"id": value, "bbox": BBOX}).boxes[0].id == "7"


GOOD = {"id": "a", "bbox": BBOX}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "a/b"}, "'a/b' cannot be the id of a box"),
        ({"id": ".a"}, "not beginning with a dot"),
        ({"id": True}, "the id is true"),
        ({"id": 1.5}, "the id is 1.5"),
        ({"box_id": "b"}, "given in several ways that differ"),
        ({"strat": 1}, "'strat' is no key of a box; there are id, bbox, crs, start, grid"),
        ({"bbox": "14 45 15 46"}, "bbox is '14 45 15 46': a box needs four numbers"),
        ({"bbox": [1, 2, 3]}, "there are three"),
        ({"bbox": [1, 2, 3, "4"]}, "'4' is text, not a number"),
        ({"bbox": [1, 2, 3, None]}, "a coordinate is null"),
        ({"bbox": [1, 2, 3, 10**400]}, "not finite"),
        ({"xmin": 1}, "ymin, xmax, ymax not given, only xmin"),
        ({"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}, "the bounds are given in two ways that differ"),
        ({"crs": "EPSG:1"}, "'EPSG:1' is no CRS that PROJ knows"),
        ({"start": "11/07/2015"}, "start 11/07/2015 is 11 July or 7 November: write YYYY-MM-DD"),
        ({"start": 2015}, "start is 2015: write YYYY-MM-DD as text"),
        ({"grid": 10}, "grid is 10: write"),
        ({"grid": {"resolution": -1}}, "a resolution is greater than 0; got -1"),
        ({"grid": {"rez": 3}}, "grid.rez is no key of a box; there are crs, resolution, tile, native"),
        ({"grid": {"resolution": "fine"}}, "grid.resolution is 'fine': it has to be a number"),
        ({"source": {"root": "/x"}}, "it needs a `type`"),
        ({"variables": ["ndvi"]}, "variables is ['ndvi']: write a mapping"),
        ({"variables": {"NDVI": {"band": "b"}}}, "a variable's name is lower case"),
        ({"variables": {"ndvi": {}}}, "names either a `band` or an `index`"),
        (
            {"variables": {"ndvi": {"index": "NDVI", "state": "x"}}},
            "variables.ndvi.state is 'x': it has to be 'kalman'",
        ),
        ({"settle_days": "some"}, "settle_days is 'some': it has to be a whole number"),
        ({"settle_days": 99}, "settle_days is 99: it has to be less than or equal to 60"),
        ({"day": "lunar"}, "day is 'lunar': it has to be 'utc' or 'solar'"),
    ],
)
def test_settings_that_are_wrong_say_so_in_plain_words(change: dict[str, Any], said: str) -> None:
    told = reason({**GOOD, **change})
    assert said in told
    assert not re.search("pydantic|input_value|Input should|type=|validation error|Value error", told)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("b.yaml", b"", "the file is empty"),
        ("b.yaml", b"a: [b", "line 1, column 6: not YAML"),
        ("b.yaml", b"just text", "the file is 'just text': expected a mapping"),
        ("b.yaml", b"id: a\nid: b", "line 2: 'id' is given twice"),
        ("b.yaml", b"a: &x [1]\nb: *x", r"line 2: anchors and aliases \(& and \*\) are not read"),
        ("b.yaml", b"a: !!python/object:os.system x", "not YAML .could not determine a constructor"),
        ("b.yaml", b"[" * 100_000, "nested too deeply"),
        ("b.json", b'{"bbox": [1', "ends in the middle, on line 1"),
        ("b.json", b"<!DOCTYPE html><html>", "HTML page"),
        ("b.kml", b"<kml/>", "is XML"),
        ("b.json", "{}".encode("utf-16"), "UTF-16"),
        ("b.json", b'{"type": "FeatureCollection"}', "no list of features"),
    ],
)
def test_files_that_cannot_be_read(name: str, data: bytes, said: str) -> None:
    with pytest.raises(BoxError, match=f"^{name}: .*{said}"):
        read_boxes(data, name)


def test_a_field_is_not_taken_for_a_box() -> None:
    feature = {"type": "Feature", "properties": {"id": "f", "plant-date": "2016-04-01"}, "geometry": polygon(*BBOX)}
    assert "this is a field, not a box" in reason(feature)


def test_properties_of_other_things_are_left_out_and_told() -> None:
    properties = {"box_id": "a", "name": "North", "source": "OpenStreetMap", "day": "Monday", "settle_days": 2}
    found = read({"type": "Feature", "properties": properties, "geometry": polygon(*BBOX)})
    assert found.notices[0].what == "not used: 'name, source, day'"
    assert found.boxes[0].settle_days == 2
    assert found.boxes[0].source == {"type": "simulated"}


def test_the_old_crs_member_of_a_collection() -> None:
    feature = {"type": "Feature", "properties": {"id": "a"}, "geometry": polygon(465000, 5079000, 466000, 5080000)}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    assert read({"type": "FeatureCollection", "crs": crs, "features": [feature]}).boxes[0].crs == "EPSG:32633"
    assert "465000 is no longitude" in reason({"type": "FeatureCollection", "features": [feature]})


def test_equal_boxes_are_one_and_different_ones_of_one_id_are_refused() -> None:
    found = read([GOOD, {**GOOD, "bbox": BBOX}, {"id": "b", "bbox": BBOX}, {"bbox": BBOX}])
    assert [box.id for box in found.boxes] == ["a", "b"]
    assert [(one.row, one.what) for one in found.notices] == [(1, "left out: identical to row 0")]
    assert "has to name each" in found.rejected[0].reason
    found = read([GOOD, {**GOOD, "start": "2011-01-01"}, {"id": "b", "bbox": BBOX}])
    assert [box.id for box in found.boxes] == ["b"]
    assert all("given twice (rows 0, 1) with different start" in one.reason for one in found.rejected)


# --- the shared data -----------------------------------------------------------------------------------------

MEANINGS = {
    "box_xmin_gt_xmax.json": "xmin 14.564 is greater than xmax 14.552",
    "box_zero_area.json": "no area",
    "box_smaller_than_a_pixel.json": "smaller than one pixel",
    "box_near_pole.json": "north of 84 N.*no UTM zone",
    "box_crosses_antimeridian.json": "antimeridian, give .*two boxes",
    "box_whole_world.json": "no UTM zone|more than the limit",
    "box_latitude_91.json": "91 is no latitude",
    "box_metres.json": "465200 is no longitude: give degrees, or name the CRS",
    "box_three_numbers.json": "four numbers.*there are three",
    "box_text_numbers.json": "'14.552' is text, not a number",
    "box_nan.json": "not a number",
    "box_two_in_one_file.geojson": "b1 is given twice.*different bounds",
}
# An L-shaped box is refused by the suggestion, or taken by its bounds when that is said, as design/interface.md wants.
BOUNDS_MEANT = "box_not_a_rectangle.geojson"
GRIDS = {
    "control_box.json": 32633,
    "box_two_utm_zones.json": 32633,
    "box_at_zone_edge_of_tile.json": 32633,
    "box_norway_zone_exception.json": 32632,
    "box_southern_hemisphere.json": 32735,
    "box_six_numbers.json": 32633,
    "box_lat_lon_swapped.json": 32638,
    BOUNDS_MEANT: 32633,
}


def test_every_malformed_box_file(shared: Path) -> None:
    folder = shared / "data" / "malformed"
    suggested = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["files"]
    names = {name for name, one in suggested.items() if one["kind"] == "box"}
    assert names == set(MEANINGS) | set(GRIDS)
    for name in sorted(names):
        found = read_boxes(folder / name, name, OPTIONS)
        said = [one.reason for one in found.rejected]
        boxes: list[Box] = []
        for box in found.boxes:
            try:
                assert resolve_grid(box).crs.to_epsg() == GRIDS[name]
                boxes.append(box)
            except GridError as error:
                said.append(str(error))
        want = 1 if name == BOUNDS_MEANT else suggested[name]["accept"]
        assert len(boxes) == want, name
        assert bool(said) == (name in MEANINGS), name
        assert all(re.search(MEANINGS[name], one) for one in said), said
        assert found.rows == suggested[name]["rows"]
    notices = [one.what for one in read_boxes(folder / BOUNDS_MEANT, "L", OPTIONS).notices]
    assert notices == ["the polygon is not a rectangle along the axes: its bounds are taken"]
    six = read_boxes(folder / "box_six_numbers.json", "six.json", OPTIONS)
    assert six.boxes[0].bbox == tuple(BBOX)
    assert six.notices[-1].what == "the heights are left out"


def test_boxes_as_users_wrote_them(shared: Path) -> None:
    inputs = shared / "data" / "inputs"
    found: dict[tuple[str, str], Any] = {}
    for path in inputs.rglob("b*ox*"):
        if path.is_file():
            folder = path.relative_to(inputs).parts[0]
            found |= {(folder, box.id): box.bbox for box in read_boxes(path, path.name, OPTIONS).boxes}
    assert found == {
        ("normandy", "1"): (-0.2164, 49.0402, -0.1958, 49.0474),
        ("two_boxes", "1"): (4.0, 51.0, 5.0, 52.0),
        ("two_boxes", "2"): (10.0, 48.0, 11.0, 49.0),
        ("partial_and_outside", "bbox"): (22.0, 41.0, 30.0, 49.0),
        ("jsonl_boxes", "01976dbcbdb77dc4b9b61ba545503b77"): (97.0, 28.0, 112.0, 42.0),
        ("jsonl_boxes", "01976f4eff467c6b9612bfd80d7ea83f"): (30.0, 44.0, 65.0, 59.0),
    }


# --- fuzz -----------------------------------------------------------------------------------------

SEEDS = [
    YAML.encode(),
    *[value.encode() if isinstance(value, str) else json.dumps(value).encode() for value in FORMATS.values()],
]
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")))
def test_random_bytes_raise_box_errors_only(data: bytes) -> None:
    for name in ("b.yaml", "b.json", "b.jsonl"):
        with contextlib.suppress(BoxError):
            read_boxes(data, name, OPTIONS)


@given(st.sampled_from(SEEDS), st.data())
def test_damaged_files_raise_box_errors_only(seed: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(seed)))
    damage = data.draw(st.binary(max_size=3))
    for damaged in (seed[:cut], seed[:cut] + damage + seed[cut + len(damage) :]):
        for name in ("b.yaml", "b.json"):
            with contextlib.suppress(BoxError):
                read_boxes(damaged, name, OPTIONS)


@given(
    st.sampled_from(["id", "bbox", "crs", "start", "grid", "source", "variables", "settle_days", "day", "xmin"]), PLAIN
)
def test_any_value_under_any_key_refuses_that_box_only(key: str, value: Any) -> None:
    found = read([{**GOOD, key: value}, {"id": "good", "bbox": BBOX}])
    assert "good" in [box.id for box in found.boxes]
    assert len(found.boxes) + len(found.rejected) == 2
