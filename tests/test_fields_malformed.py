"""Every bad or tricky upload of the shared data, against the outcome that is suggested for it."""

from __future__ import annotations

import datetime as dt
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from geofield.boxes import Box
from geofield.errors import FieldFileError
from geofield.fields import FieldOptions, place_fields, read_fields

# What each refusal has to say, in any words around it. A row of None is the file as a whole.
MEANINGS: dict[str, dict[int | None, str]] = {
    "truncated_json.geojson": {None: r"ends in the middle, on line \d+.*not complete JSON"},
    "utf16.geojson": {None: "not UTF-8"},
    "latin1_crop_name.geojson": {None: r"byte 0xFC at position 163 \(line 9\) is not UTF-8"},
    "empty_file.geojson": {None: "the file is empty$"},
    "html_saved_as.geojson": {None: "HTML page"},
    "nested_too_deep.geojson": {None: "nested too deeply"},
    "duplicate_keys.geojson": {0: "planting_date is given twice: '2016-04-01' and '2015-04-01'"},
    "bare_geometry.geojson": {None: "geometry .*without field id and planting date"},
    "other_key_names.geojson": {1: "no planting_date; there is 'Planting Date'.*--planting-date"},
    "id_missing.geojson": {
        0: "no field id: .*--id-column.*--ids digest",
        1: "field id is null: .*--id-column.*--ids digest",
    },
    "ring_of_three_positions.geojson": {0: "fewer than four.*no area"},
    "line_like_polygon.geojson": {0: "no area"},
    "bowtie.geojson": {0: "crosses itself near 14.5540.?, 45.8684"},
    "hole_outside_shell.geojson": {0: "hole lies outside"},
    "geometry_collection.geojson": {0: "GeometryCollection: .*Polygon or MultiPolygon"},
    "point_geometry.geojson": {0: "Point: .*Polygon or MultiPolygon", 1: "LineString: .*Polygon or MultiPolygon"},
    "null_geometry.geojson": {0: "no geometry", 1: "geometry is empty"},
    "nan_inf_coordinates.geojson": {0: "not a number", 1: "not finite", 2: "coordinate is missing"},
    "text_coordinates.geojson": {0: "is text, not a number: '14.5535'", 1: "is text, not a number: '14,5535'"},
    "lat_lon_swapped.geojson": {0: "outside.*would be inside .* with longitude and latitude swapped"},
    "touches_box_edge_only.geojson": {0: "no area inside the box.*touches the edge", 1: "no area .*touches the corner"},
    "crosses_antimeridian.geojson": {0: "wider than half the globe.*cut it at 180"},
    "crs_member_utm32_but_degrees.geojson": {None: "look like degrees, but the file declares EPSG:32632"},
    "metres_without_crs.geojson": {0: r"465\d+\S* is no longitude: give degrees, or name the CRS \(--crs\)"},
    "planting_date_2025-02-30.geojson": {0: "planting_date 2025-02-30 is not a day"},
    "planting_date_ambiguous.geojson": {
        0: "01/04/2025 is 1 April or 4 January: write YYYY-MM-DD",
        1: "13/04/2025.*write YYYY-MM-DD",
    },
    "planting_date_missing.geojson": {
        0: "no planting_date.*--planting-date",
        1: "planting_date is null",
        2: "planting_date is empty",
        3: "planting_date is empty",
    },
    "planting_date_year_0001_9999.geojson": {
        0: "0001-01-01 is before any image",
        1: "9999-12-31 is too far ahead",
        2: "1677-09-20 is before any image",
        3: "2263-01-01 is too far ahead",
    },
    "planting_date_with_time.geojson": {2: "20160401.*write YYYY-MM-DD", 3: "2016-W13-5.*write YYYY-MM-DD"},
    "planting_date_number.geojson": dict.fromkeys(range(4), r"is a number \(\d+\): write YYYY-MM-DD as text"),
    "id_spaces_unicode_emoji.geojson": {
        1: "begins or ends with a space",
        2: "rows 2, 3 look the same.*composed and decomposed",
        3: "rows 2, 3 look the same.*composed and decomposed",
        7: "blank",
        8: "control character",
    },
    "id_numeric.geojson": {
        0: "7 and '7' are the same field id.*different polygons",
        1: "7 and '7' are the same field id.*different polygons",
        4: "field id is true: it has to be text or a whole number",
    },
    "duplicate_id_other_geometry.geojson": dict.fromkeys((0, 1), "f1 is given twice.*different polygons"),
    "duplicate_id_other_date.geojson": dict.fromkeys((0, 1), "f1 is given twice.*different planting dates"),
    "csv_wkt.csv": {2: "not complete WKT"},
    "good_and_bad_rows.jsonl": {
        1: "line 2 is not complete JSON",
        2: r"\(line 4\).*2016-13-01 is not a day",
        3: "line 5 is a list, not an object",
    },
    "geoparquet_crs_null.parquet": {None: "CRS is unknown.*--crs"},
    "parquet_without_geo_metadata.parquet": {None: 'Parquet but not GeoParquet.*"geo" metadata'},
    "shapefile_without_prj.zip": {None: "no .prj: the CRS is unknown.*--crs"},
    "shapefile_without_shx_dbf.zip": {None: "not complete: .shx and .dbf are missing"},
    "zip_entry_climbs_out.zip": {None: "path outside of itself"},
    "zip_expands_to_64_mb.zip": {None: "empty but for blanks"},
}

# Where the design pages differ from the suggestion, they hold: file -> (accepted, refused rows), and why.
DIFFERENT: dict[str, tuple[int, list[int]]] = {
    # "Known spellings of a property are taken as the same": fieldId, FIELD_ID and plantingDate are listed. "Planting
    # Date" of row 1 is not, so its date is missing, as suggested.
    "other_key_names.geojson": (1, [1]),
    # "Field ids are values, never keys: any printable text up to 200 characters, kept exactly as written."
    "id_dot_dot_slash.geojson": (7, []),
    "id_with_slash.geojson": (4, []),
}

# What has to be told about rows that are taken.
MENDED: dict[str, dict[int | None, str]] = {
    "id_missing.geojson": {2: "top-level id of the feature is used"},
    "unclosed_ring.geojson": {0: "not closed"},
    "coordinates_3d.geojson": {0: "height is left out"},
    "crs_member_utm32.geojson": {None: "EPSG:32632"},
    "planting_date_with_time.geojson": {0: "2016-04-01 is taken, the time is left out", 1: "2016-04-01 is taken"},
    "planting_date_in_future.geojson": {0: "lies ahead"},
    "id_numeric.geojson": {3: "kept as the text 8"},
    "duplicate_id_same_geometry.geojson": {1: "left out: identical to row 0"},
    "empty_feature_collection.geojson": {None: "nothing to do"},
}

NAMES = """
    control_fields.geojson truncated_json.geojson bom_crlf.geojson utf16.geojson latin1_crop_name.geojson
    empty_file.geojson empty_feature_collection.geojson html_saved_as.geojson nested_too_deep.geojson
    duplicate_keys.geojson single_feature.geojson bare_geometry.geojson other_key_names.geojson id_missing.geojson
    unclosed_ring.geojson ring_of_three_positions.geojson line_like_polygon.geojson bowtie.geojson
    hole_outside_shell.geojson clockwise_ring.geojson coordinates_3d.geojson multipolygon_with_hole.geojson
    geometry_collection.geojson point_geometry.geojson null_geometry.geojson nan_inf_coordinates.geojson
    text_coordinates.geojson lat_lon_swapped.geojson touches_box_edge_only.geojson partly_outside_box.geojson
    larger_than_box.geojson overlapping_fields.geojson smaller_than_a_pixel.geojson crosses_antimeridian.geojson
    crs_member_utm32.geojson crs_member_utm32_but_degrees.geojson metres_without_crs.geojson
    planting_date_2025-02-30.geojson planting_date_ambiguous.geojson planting_date_missing.geojson
    planting_date_year_0001_9999.geojson planting_date_with_time.geojson planting_date_number.geojson
    planting_date_in_future.geojson id_dot_dot_slash.geojson id_with_slash.geojson id_spaces_unicode_emoji.geojson
    id_numeric.geojson id_huge_integer.geojson duplicate_id_same_geometry.geojson duplicate_id_other_geometry.geojson
    duplicate_id_other_date.geojson text_like_formula.geojson csv_wkt.csv csv_wkt_semicolon.csv
    good_and_bad_rows.jsonl geoparquet_crs_left_out.parquet geoparquet_crs_null.parquet
    parquet_without_geo_metadata.parquet shapefile_without_prj.zip shapefile_without_shx_dbf.zip
    zip_entry_climbs_out.zip zip_expands_to_64_mb.zip
    """.split()  # noqa: SIM905  # sixty names in ten lines
NAMES.append("fields 2016+04 (1)#2 100%.geojson")


def box(name: str, bbox: list[float]) -> Box:
    return Box.model_validate(
        {
            "id": name,
            "bbox": bbox,
            "start": "2015-07-11",
            "source": {"type": "simulated"},
            "variables": {"ndvi": {"index": "NDVI"}},
        }
    )


@pytest.fixture(scope="session")
def malformed(shared: Path) -> Path:
    return shared / "data" / "malformed"


@pytest.fixture(scope="session")
def suggested(malformed: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((malformed / "expected.json").read_text(encoding="utf-8"))["files"]
    return found


def test_every_suggested_file_is_tested(suggested: dict[str, Any]) -> None:
    assert sorted(NAMES) == sorted(name for name, one in suggested.items() if one["kind"] == "fields")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_path", [False, True], ids=["bytes", "path"])
def test_outcome_is_the_suggested_one(name: str, as_path: bool, malformed: Path, suggested: dict[str, Any]) -> None:
    want = suggested[name]
    refused = [one["row"] for one in want["reject"]]
    accepted, refused = DIFFERENT.get(name, (want["accept"], refused))
    meanings = MEANINGS.get(name, {})
    assert set(meanings) == set(refused), "every refusal has a meaning to look for"

    data: bytes | Path = malformed / name if as_path else (malformed / name).read_bytes()
    if refused == [None]:
        with pytest.raises(FieldFileError, match=meanings[None]) as raised:
            read_fields(data, name)
        assert str(raised.value).startswith(name)
        return
    read = read_fields(data, name)
    reasons = {one.row: one for one in read.rejected}
    notices = {one.row: one.what for one in read.notices}
    if name != "crosses_antimeridian.geojson":  # its box is refused: it crosses the antimeridian
        placed = place_fields(read.table, {"control_box": box("control_box", [14.552, 45.867, 14.564, 45.874])})
        reasons |= {one.row: one for one in placed.rejected}
        taken = placed.table
    else:
        taken = read.table

    assert read.rows == want["rows"]
    assert (len(taken), sorted(row for row in reasons if row is not None)) == (accepted, refused)
    for row, meaning in meanings.items():
        assert re.search(meaning, reasons[row].reason), reasons[row].reason
        assert reasons[row].reason.startswith(f"row {row}")
    for row, meaning in MENDED.get(name, {}).items():
        assert re.search(meaning, notices.get(row, "")), notices
    assert set(notices) == set(MENDED.get(name, {}))


def test_the_same_upload_gives_the_same_answer_twice(malformed: Path) -> None:
    first, second = (read_fields(malformed / "id_numeric.geojson", "x") for _ in range(2))
    assert first.rejected == second.rejected
    assert first.notices == second.notices
    assert first.table.equals(second.table)


def test_ids_come_back_exactly_as_written(malformed: Path) -> None:
    found = {
        name: read_fields(malformed / f"{name}.geojson", name).table["field_id"].tolist()
        for name in ("id_huge_integer", "id_dot_dot_slash", "id_spaces_unicode_emoji")
    }
    assert found["id_huge_integer"][:4] == [
        "9007199254740992",
        "9007199254740993",
        "18446744073709551616",
        "123456789012345678901234567890",
    ]
    assert found["id_dot_dot_slash"][:2] == ["../f1", "../../other-box/f2"]
    assert found["id_spaces_unicode_emoji"][0] == "Feld 1"


def test_a_ring_in_either_direction_and_a_reprojected_file_keep_what_was_submitted(malformed: Path) -> None:
    control = read_fields(malformed / "control_fields.geojson", "control").table.iloc[0]
    clockwise = read_fields(malformed / "clockwise_ring.geojson", "clockwise").table.iloc[0]
    assert clockwise["version"] == control["version"]
    utm = read_fields(malformed / "crs_member_utm32.geojson", "utm").table.iloc[0]
    assert utm["crs"] == "EPSG:32632"


def test_fields_would_be_inside_a_box_with_swapped_axes(malformed: Path) -> None:
    bbox = json.loads((malformed / "box_lat_lon_swapped.json").read_text())["bbox"]
    placed = place_fields(read_fields(malformed / "control_fields.geojson", "c").table, {"yemen": box("yemen", bbox)})
    assert len(placed.rejected) == 3
    for one in placed.rejected:
        assert "inside yemen with longitude and latitude swapped" in one.reason


def test_nothing_is_written_outside_of_an_archive(
    malformed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "inner"))
    (tmp_path / "inner").mkdir()
    with pytest.raises(FieldFileError, match="outside of itself"):
        read_fields(malformed / "zip_entry_climbs_out.zip", "z")
    assert not list(tmp_path.rglob("climbed_out*"))


def test_many_vertices_are_taken_up_to_a_limit_that_is_told(malformed: Path, tmp_path: Path) -> None:
    written = tmp_path / "many.geojson"
    runpy.run_path(str(malformed / "make_many_vertices.py"))["main"](str(written), 100_000)
    read = read_fields(written, "many")
    assert read.table["field_id"].tolist() == ["many-vertices"]
    refused = read_fields(written, "many", FieldOptions(max_vertices=50_000)).rejected
    assert re.search(r"vertices, more than the limit of 50,000", refused[0].reason)
    with pytest.raises(FieldFileError, match="more than the limit of 1,000"):
        read_fields(written, "many", FieldOptions(max_bytes=1000))


# --- real files ------------------------------------------------------------------------------------------------------

DAY = dt.date(2024, 1, 1)


@pytest.mark.parametrize(
    ("path", "options", "accepted", "crs", "first"),
    [
        # 6 ids stand for 13 polygons: which of them is meant nobody can say
        ("fields/dk/dk_2024_fiboa_0_2.parquet", {"planting_date": DAY}, 87, "EPSG:25832", "75-1"),
        (
            "fields/nl/brpgewaspercelen_definitief_2023.gpkg",
            {"planting_date": DAY, "ids": "digest"},
            100,
            "EPSG:28992",
            None,
        ),
        (
            "fields/jecam/BD_JECAM_CIRAD_2023_feb.shp",
            {"planting_date": DAY, "id_column": "Id"},
            100,
            "EPSG:4326",
            "8218",
        ),
        ("fields/spec/spec_example.parquet", {"planting_date": "box-start"}, 2, "EPSG:4326", "12324"),
        ("fields/spec/fiboa-example.json", {"planting_date": "box-start"}, 2, "EPSG:4326", "12324"),
        ("sentinel2_tomaj/fields.parquet", {"planting_date": "box-start", "id_column": "fid"}, 44, "EPSG:32633", "0"),
        ("sentinel2_tomaj/fields_wgs84.geojson", {"planting_date": DAY, "id_column": "fid"}, 44, "EPSG:4326", "0"),
        ("malformed/shapefile_without_prj.zip", {"crs": "EPSG:32633"}, 2, "EPSG:32633", "f1"),
    ],
)
def test_real_files(
    shared: Path, path: str, options: dict[str, Any], accepted: int, crs: str, first: str | None
) -> None:
    table = read_fields(shared / "data" / path, path, FieldOptions(**options)).table
    assert len(table) == accepted
    assert set(table["crs"]) == {crs}
    assert table["field_id"][0] == (first or table["version"][0])


def test_a_published_example_has_one_version_in_both_of_its_formats(shared: Path) -> None:
    options = FieldOptions(planting_date="box-start")
    parquet, geojson = (
        read_fields(shared / "data/fields/spec" / name, name, options).table["version"].tolist()
        for name in ("spec_example.parquet", "fiboa-example.json")
    )
    assert parquet == geojson


def test_real_files_without_options_say_which_option_helps(shared: Path) -> None:
    read = read_fields(shared / "data/fields/nl/brpgewaspercelen_definitief_2023.gpkg", "nl.gpkg")
    assert (len(read.table), len(read.rejected)) == (0, 100)
    assert all("--id-column" in one.reason and "--planting-date" in one.reason for one in read.rejected)
    with pytest.raises(FieldFileError, match=r"no column 'nummer'.*category.*gewas"):
        read_fields(
            shared / "data/fields/nl/brpgewaspercelen_definitief_2023.gpkg", "nl", FieldOptions(id_column="nummer")
        )


def test_inputs_as_users_wrote_them(shared: Path) -> None:
    inputs = shared / "data" / "inputs"
    boxes = {
        "normandy": box("normandy", [-0.2164, 49.0402, -0.1958, 49.0474]),
        "wide": box("wide", [22.0, 41.0, 30.0, 49.0]),
        "1": box("1", [4.0, 51.0, 5.0, 52.0]),
        "2": box("2", [10.0, 48.0, 11.0, 49.0]),
    }
    found: dict[str | None, Any] = {}
    for path in [*inputs.glob("normandy/*fields*"), *inputs.glob("*/fields.*json")]:
        placed = place_fields(read_fields(path, path.name).table, boxes)
        found |= dict(zip(placed.table["field_id"], placed.table["boxes"], strict=True))
        found |= {one.field_id: one.reason for one in placed.rejected}
    assert found.pop("plot-3").startswith(
        "row 2, field 'plot-3': the field is outside of every box: the nearest is wide"
    )
    assert found == {
        "field_1": ["normandy"],
        "field_2": ["normandy"],
        "field_3": ["normandy"],
        "field_4": ["normandy"],
        "field_5": ["normandy"],
        "plot-1": ["wide"],
        "plot-2": ["wide"],
        "1": ["1"],
        "2": ["2"],
        "3": ["1"],
    }
    other = read_fields(inputs / "normandy" / "other-key-names.geojson", "other")
    assert [one.row for one in other.rejected] == [3, 4]
    assert re.search("crosses itself near .* no field id: .* no planting_date", other.rejected[1].reason)


def test_fields_of_json_lines_lie_outside_of_the_box_they_name(shared: Path) -> None:
    folder = shared / "data" / "inputs" / "jsonl_boxes"
    options = FieldOptions(ids="digest", planting_date=DAY)
    camel = read_fields(folder / "readme-camel" / "fields" / "fields_two_boxes.jsonl", "camel.jsonl", options)
    boxes = {"01976dbcbdb77dc4b9b61ba545503b77": box("01976dbcbdb77dc4b9b61ba545503b77", [97, 28, 112, 42])}
    assert json.loads(camel.table["properties"][1])["irrigationgArray"] == [[0.0, 0.0], [0.0, 0.0]]
    first, second = place_fields(camel.table, boxes).rejected
    assert "no box '01976dbcbdba78e1ba120a45b75e45da'; there is 01976dbcbdb77dc4b9b61ba545503b77" in first.reason
    assert re.search("outside of box 01976dbcbdb77dc4b9b61ba545503b77, which it names: about [0-9,]+ km", second.reason)
    snake = read_fields(folder / "readme-snake" / "fields" / "fields_duplicate_rows.jsonl", "snake.jsonl", options)
    assert len(snake.table) == 1
    assert snake.notices[-1].what == "left out: identical to row 0"
