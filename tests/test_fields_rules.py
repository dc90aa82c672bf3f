"""The rules by which a row is taken or refused, one small row each."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from geofield.errors import BoxError, ConfigurationError, FieldFileError
from geofield.fields import FieldOptions, FieldsRead, field_geometries, read_fields
from geofield.fields.dates import read_day

SQUARE = [[14.0, 45.0], [14.1, 45.0], [14.1, 45.1], [14.0, 45.1], [14.0, 45.0]]


def feature(field_id: Any = "a", rings: Any = None, **properties: Any) -> dict[str, Any]:
    given_ = {"field_id": field_id, "planting_date": "2016-04-01", **properties}
    coordinates = [SQUARE] if rings is None else rings
    return {
        "type": "Feature",
        "properties": {key: value for key, value in given_.items() if value is not ...},
        "geometry": {"type": "Polygon", "coordinates": coordinates},
    }


def read(*features: Any, options: FieldOptions | None = None, **members: Any) -> FieldsRead:
    document = {"type": "FeatureCollection", "features": list(features), **members}
    return read_fields(json.dumps(document).encode(), "f.geojson", options)


def reason(*features: Any, **options: Any) -> str:
    found = read(*features, options=FieldOptions(**options))
    assert [one.row for one in found.rejected] == [0], found.rejected
    return found.rejected[0].reason


# --- ids -----------------------------------------------------------------------------------------


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=200))
def test_any_printable_text_is_an_id_and_comes_back_as_written(text: str) -> None:
    found = read(feature(text))
    if text == text.strip():
        assert found.table["field_id"].tolist() == [text]
    else:
        assert "begins or ends with a space" in found.rejected[0].reason or "blank" in found.rejected[0].reason


@pytest.mark.parametrize(
    ("field_id", "said"),
    [
        ("x" * 201, "201 characters, more than 200"),
        ("a\nb", r"control character (U+000A)"),
        ("a\u2028b", "line separator (U+2028)"),
        ("a\ud800", "half a character (U+D800)"),
        (1.5, "the number 1.5"),
        (float(2**53), "the number 9007199254740992.0"),
        (float("nan"), "the number nan"),
        ([1], "is [1]: it has to be text or a whole number"),
    ],
)
def test_ids_that_are_refused(field_id: Any, said: str) -> None:
    assert said in reason(feature(field_id))


def test_the_most_specific_spelling_of_an_id_is_taken_and_the_others_stay() -> None:
    table = read(feature("mine", id=7, **{"object-id": "o"})).table
    assert table["field_id"].tolist() == ["mine"]
    assert json.loads(table["properties"][0]) == {"id": 7, "object-id": "o"}
    assert read(feature(..., id=7, **{"object-id": "o"})).table["field_id"].tolist() == ["o"]


def test_spellings_that_disagree_are_ambiguous() -> None:
    assert "'field_id' is 'a' and 'fieldId' is 'b'" in reason(feature("a", fieldId="b"))
    assert "'planting_date' is '2016-04-01' and 'plant-date' is '2016-05-01'" in reason(
        feature("a", **{"plant-date": "2016-05-01"})
    )
    assert len(read(feature("a", fieldId="a")).table) == 1


def test_ids_from_a_named_column_or_by_content() -> None:
    named = read(feature("a", name="north"), options=FieldOptions(id_column="name"))
    assert named.table["field_id"].tolist() == ["north"]
    assert json.loads(named.table["properties"][0]) == {"field_id": "a"}
    assert (
        "no 'name', the column of --id-column"
        in read(feature("a"), feature("b", name="n"), options=FieldOptions(id_column="name")).rejected[0].reason
    )
    with pytest.raises(FieldFileError, match=r"no column 'nam' \(--id-column\); there are 'field_id, planting_date'"):
        read(feature("a"), options=FieldOptions(id_column="nam"))
    found = read(feature(...), feature(None), feature(" "), feature("kept"), options=FieldOptions(ids="digest"))
    version = found.table["version"][0]
    assert found.table["field_id"].tolist() == [version, "kept"], "three times the same content is one field"
    assert not found.rejected


def test_options_that_are_wrong_in_themselves() -> None:
    with pytest.raises(ConfigurationError, match="either --id-column or --ids digest"):
        FieldOptions(id_column="x", ids="digest")
    with pytest.raises(ConfigurationError, match="YYYY-MM-DD, or `box-start`; got '2016'"):
        FieldOptions(planting_date="2016")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="can only be `digest`"):
        FieldOptions(ids="number")  # type: ignore[arg-type]
    with pytest.raises(BoxError, match="'a/b' cannot be the id of a box"):
        FieldOptions(box="a/b")


# --- dates -----------------------------------------------------------------------------------------

TODAY = dt.date(2026, 1, 1)


@given(st.dates(dt.date(1970, 1, 1), dt.date(2126, 12, 31)))
def test_iso_days_are_taken(day: dt.date) -> None:
    assert read_day(day.isoformat(), "planting_date", TODAY).day == day
    timed = read_day(f"{day}T23:59:59.5-11:00", "planting_date", TODAY)
    assert timed.day == day
    assert timed.note is not None


@pytest.mark.parametrize(
    "text",
    [
        *[
            "2016",
            "2016-04",
            "16-04-01",
            "2016-4-1",
            "2016/04/01",
            "2016-04-01 ",
            "1 April 2016",
            "04/01/16",
            "2016-092",
        ],
        *[
            "2016-04-01T25:00",
            "2016-04-01T",
            "2016-04-01TZ",
            "+2016-04-01",
            "\uff12\uff10\uff11\uff16-04-01",
            "today",
            "1969-12-31",
            "2127-01-01",
        ],
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    read_ = read_day(text, "planting_date", TODAY)
    assert read_.day is None
    assert (
        "write YYYY-MM-DD" in str(read_.reason)
        or "before any image" in str(read_.reason)
        or "ahead" in str(read_.reason)
    )


def test_planting_dates_from_the_option() -> None:
    rows = [feature("a", planting_date=...), feature("b", planting_date=None), feature("c")]
    given_ = read(*rows, options=FieldOptions(planting_date=dt.date(2015, 1, 2)))
    assert given_.table["planting_date"].tolist() == [dt.date(2015, 1, 2)] * 2 + [dt.date(2016, 4, 1)]
    start = read(*rows, options=FieldOptions(planting_date="box-start"))
    assert start.table["planting_date"].tolist() == [None, None, dt.date(2016, 4, 1)]
    assert start.table["version"].nunique() == 2
    bad = read(feature("a", planting_date="1.4.2016"), options=FieldOptions(planting_date="box-start"))
    assert "write YYYY-MM-DD" in bad.rejected[0].reason, "a date that is there and wrong is not replaced"


def test_harvest_and_arrival() -> None:
    table = read(
        feature("a", harvest_date="2016-09-01", arrival_time="2016-05-01T10:00:00+02:00"),
        feature("b", harvest_date=None, arrival_time="2016-05-01T10:00:00"),
        feature("c", harvest_date="", arrival_time=None),
    ).table
    assert table["harvest_date"].tolist() == [dt.date(2016, 9, 1), None, None]
    assert table["arrival"][0] == dt.datetime(2016, 5, 1, 8, tzinfo=dt.UTC)
    assert table["arrival"][1] == dt.datetime(2016, 5, 1, 10, tzinfo=dt.UTC)
    assert table["arrival"][2] is None
    assert "harvest_date 2016-03-31 is before planting_date 2016-04-01" in reason(
        feature("a", harvest_date="2016-03-31")
    )
    assert "harvest_date '1/2'" in reason(feature("a", harvest_date="1/2"))
    assert "arrival_time 7 is no time" in reason(feature("a", arrival_time=7))


# --- polygons -----------------------------------------------------------------------------------------


def square(x: float, y: float, side: float) -> list[list[float]]:
    found: list[list[float]] = shapely.get_coordinates(shapely.box(x, y, x + side, y + side)).tolist()
    return found


def test_a_repair_that_keeps_the_area_is_made_and_reported() -> None:
    """A square of 1 x 1 degrees with a loop of 0.05 x 0.05 / 2 where its last corner crosses over: 0.1 %."""
    loop = [[14, 45], [15, 45], [15, 46], [14.05, 46], [14, 45.95], [14, 46], [14.05, 45.95], [14, 45.9], [14, 45]]
    found = read(feature("a", [loop]))
    assert "crosses itself near 14.02500, 45.97500: repaired, the area changes by 0.1" in found.notices[0].what
    shape = shapely.from_wkb(found.table["geometry"][0])
    assert shape.is_valid
    assert shape.area == pytest.approx(shapely.Polygon(loop).area, rel=0.01)
    half = [[14, 45], [15, 46], [15, 45], [14, 46], [14, 45]]
    assert "crosses itself near 14.50000, 45.50000 (a repair would change the area from 0 to 0.5)" in reason(
        feature("a", [half])
    )


@pytest.mark.parametrize(
    ("rings", "said"),
    [
        ([], "the geometry is empty"),
        ([[]], "a ring has 0 positions, fewer than four"),
        ([[[14, 45], [15, 45], [14, 45]]], "a ring has 3 positions, fewer than four"),
        ([[[14, 45], [15, 45], [15]]], "fewer than two numbers"),
        ([[14, 45, 15, 46]], "rings are lists of positions [x, y]; there is 14"),
        ([[[14, 45], [15, True], [15, 46], [14, 45]]], "a coordinate is true, not a number"),
        ([[[14, 45], [15, 45], [10**400, 46], [14, 45]]], "not finite"),
        ([[[14, 45], [1e999, 45], [15, 46], [14, 45]]], "not finite (Infinity)"),
        ([[[14, 45], [14.5, 45], [15, 45], [14, 45]]], "positions lie on one line"),
        ([square(14, 45, 1), square(16, 45, 0.5)], "a hole lies outside the polygon near 16"),
        ([[[14, 91], [15, 91], [15, 92], [14, 91]]], "92 is no latitude"),
        ([[[-179, 1], [179, 1], [179, 2], [-179, 1]]], "wider than half the globe"),
        ("x", "the Polygon has no coordinates: 'x'"),
    ],
)
def test_polygons_that_are_refused(rings: Any, said: str) -> None:
    assert said in reason(feature("a", rings))


def test_one_part_of_many_is_wide_only_when_it_is_wide_itself() -> None:
    geometry = {"type": "MultiPolygon", "coordinates": [[square(179, 1, 1)], [square(-180, 1, 1)]]}
    assert len(read({**feature("a"), "geometry": geometry}).table) == 1


def test_unclosed_rings_and_heights_are_mended_and_told() -> None:
    found = read(feature("a", [[[*position, 300.0] for position in SQUARE[:-1]]]), feature("b"))
    assert {one.what for one in found.notices} == {
        "a ring was not closed: its first position is repeated at the end",
        "the height is left out",
    }
    assert found.table["version"][0] == found.table["version"][1]


def test_many_notices_of_one_kind_are_told_together() -> None:
    found = read(*[feature(float(number)) for number in range(50)])
    assert [one.row for one in found.notices] == [None]
    assert found.notices[0].what.startswith("50 rows, the first of them row 0: the field id 0.0 is kept")


def test_some_rows_in_degrees_in_a_file_of_metres() -> None:
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    found = read(feature("a"), feature("b", [square(465000, 5079000, 100)]), crs=crs)
    assert found.table["field_id"].tolist() == ["b"]
    assert "look like degrees, but the file declares EPSG:32633" in found.rejected[0].reason
    with pytest.raises(FieldFileError, match="look like degrees, but --crs says EPSG:32633, which is projected"):
        read(feature("a"), options=FieldOptions(crs="EPSG:32633"))


# --- rows of one file -----------------------------------------------------------------------------------------


def test_one_id_with_different_content_says_in_what() -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"crop": "rye"}, "crops"),
        ({"name": "x"}, "other properties"),
        ({"box_id": "b"}, "boxes"),
        ({"harvest_date": "2016-09-09"}, "harvest dates"),
        ({"rings": [square(14, 45, 0.2)]}, "polygons"),
    ]
    for change, word in changes:
        found = read(feature("a"), feature("a", **change), feature("b"))
        assert [one.reason.rpartition("different ")[2] for one in found.rejected] == [word, word]
        assert found.table["field_id"].tolist() == ["b"]


def test_a_refused_row_does_not_make_its_twin_a_duplicate() -> None:
    found = read(feature("a", planting_date="?"), feature("a"))
    assert found.table["row"].tolist() == [1]


def test_all_faults_of_a_row_are_told_at_once() -> None:
    assert reason(feature(True, [], planting_date=7)) == (
        "row 0: the geometry is empty; also the field id is true: it has to be text or a whole number; also "
        "planting_date is a number (7): write YYYY-MM-DD as text"
    )


def test_what_else_a_row_holds_is_kept() -> None:
    kept = {
        "irrigation_array": [[1, 0], [0.0, 1]],
        "big": 2**70,
        "text": "ü \ud800",
        "nan": float("nan"),
        "deep": {"a": [None]},
    }
    found = read({**feature("a", **kept), "foreign": 1})
    assert json.loads(found.table["properties"][0]) == {**kept, "nan": None, "foreign": 1}
    found.table["properties"][0].encode()
    assert "NaN or infinite is kept as null" in found.notices[0].what


def test_boxes_named_by_the_file_go_before_the_option() -> None:
    found = read(feature("a", box_id=7), feature("b", bbox_id="x"), feature("c"), options=FieldOptions(box="here"))
    assert found.table["box"].tolist() == ["7", "x", "here"]


@given(st.lists(st.sampled_from(["good", "id", "date", "bowtie", "null", "text"]), max_size=12))
def test_bad_rows_never_stop_good_ones(kinds: list[str]) -> None:
    made: dict[str, Callable[[str], Any]] = {
        "good": feature,
        "id": lambda name: feature(None),
        "date": lambda name: feature(name, planting_date="1/2/2016"),
        "bowtie": lambda name: feature(name, [[[14, 45], [15, 46], [15, 45], [14, 46], [14, 45]]]),
        "null": lambda name: None,
        "text": lambda name: feature(name, [[["14", "45"]] * 4]),
    }
    found = read(*[made[kind](f"f{row}") for row, kind in enumerate(kinds)])
    good = [row for row, kind in enumerate(kinds) if kind == "good"]
    assert found.table["row"].tolist() == good
    assert [one.row for one in found.rejected] == [row for row in range(len(kinds)) if row not in good]


def test_field_geometries_in_another_crs_keep_the_edge_on_its_curve() -> None:
    wide = [[[14.0, 45.0], [16.0, 45.0], [16.0, 45.1], [14.0, 45.1], [14.0, 45.0]]]
    table = read(feature("a", wide), feature("b")).table
    frame = field_geometries(table, CRS.from_epsg(32633), 0.1)
    assert frame.index.tolist() == ["a", "b"]
    assert frame.crs.to_epsg() == 32633
    assert "crs" not in frame.columns
    # On the central meridian of zone 33, 15 E, the parallel 45 N lies at northing 4982950.40 (by the series of the
    # meridian arc, 0.9996 x 4984944.378 m); a straight edge from 14 E to 16 E would be about 480 m further north.
    edge = shapely.LineString([(500000, 4_980_000), (500000, 4_986_000)]).intersection(frame.geometry["a"])
    assert np.asarray(edge.bounds)[1] == pytest.approx(0.9996 * 4984944.378, abs=0.1)
