"""One set of fields through every format, and bytes that are no format at all."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geofield.errors import CrsError, FieldFileError
from geofield.fields import FieldOptions, read_fields

SHAPES = [
    shapely.box(14.5535, 45.868, 14.5545, 45.8688),
    shapely.Polygon(
        shapely.box(14.556, 45.868, 14.557, 45.8688).exterior,
        [shapely.box(14.5562, 45.8682, 14.5564, 45.8684).exterior],
    ),
    shapely.MultiPolygon([shapely.box(14.558, 45.87, 14.559, 45.871), shapely.box(14.56, 45.87, 14.561, 45.871)]),
]
FRAME = geopandas.GeoDataFrame(
    {
        "field_id": ["a", "b/1", "Grüße 3"],
        "plant_date": ["2016-04-01", "2016-04-02", "2016-04-03"],
        "crop": ["maize", "=1+1", None],
        "area_ha": [1.5, 2.25, 3.0],
    },
    geometry=SHAPES,
    crs="EPSG:4326",
)


def features() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(FRAME.to_json())["features"]
    return [{key: value for key, value in feature.items() if key != "id"} for feature in found]


def flat(geometry: str) -> list[dict[str, Any]]:
    return [
        {
            **one["properties"],
            "geometry": one["geometry"] if geometry == "geojson" else shapely.to_wkt(shape, rounding_precision=17),
        }
        for one, shape in zip(features(), SHAPES, strict=True)
    ]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def as_csv(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["field_id", "plant_date", "crop", "geometry"], delimiter=delimiter)
    writer.writeheader()
    for row in flat("wkt"):
        writer.writerow({key: row[key] for key in writer.fieldnames})
    return text.getvalue().encode()


def zipped(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # a date of its own: the bytes are part of a test's name, and workers have to find the same tests
            info = zipfile.ZipInfo(name, (2025, 4, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return data.getvalue()


def written(tmp_path: Path, name: str, driver: str) -> Path:
    path = tmp_path / name
    FRAME.to_file(path, driver=driver)
    return path


def parquet(tmp_path: Path, encoding: str = "WKB") -> Path:
    FRAME.to_parquet(tmp_path / "f.parquet", geometry_encoding=encoding)
    return tmp_path / "f.parquet"


def shapefile(tmp_path: Path) -> bytes:
    written(tmp_path, "f.shp", "ESRI Shapefile")
    return zipped({f"folder/{path.name}": path.read_bytes() for path in tmp_path.glob("f.*")})


FORMATS: dict[str, Callable[[Path], Any]] = {
    "collection": lambda _: json.dumps({"type": "FeatureCollection", "features": features()}).encode(),
    "list": lambda _: json.dumps(features()).encode(),
    "fields list": lambda _: json.dumps({"fields": flat("geojson")}).encode(),
    "fields wkt": lambda _: json.dumps({"fields": flat("wkt")}).encode(),
    "feature lines": lambda _: lines(features()),
    "lines": lambda _: lines(flat("geojson")),
    "wkt lines": lambda _: lines(flat("wkt")),
    "csv": lambda _: as_csv(","),
    "semicolons": lambda _: as_csv(";"),
    "tabs": lambda _: as_csv("\t"),
    "gpkg": lambda folder: written(folder, "f.gpkg", "GPKG"),
    "gpkg bytes": lambda folder: written(folder, "f.gpkg", "GPKG").read_bytes(),
    "flatgeobuf": lambda folder: written(folder, "f.fgb", "FlatGeobuf").read_bytes(),
    "shapefile": shapefile,
    "shapefile path": lambda folder: written(folder, "f.shp", "ESRI Shapefile"),
    "geojson of GDAL": lambda folder: written(folder, "f.geojson", "GeoJSON"),
    "zipped geojson": lambda folder: zipped({"f.geojson": written(folder, "f.geojson", "GeoJSON").read_bytes()}),
    "geoparquet": parquet,
    "geoparquet bytes": lambda folder: parquet(folder).read_bytes(),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_fields(kind: str, tmp_path: Path) -> None:
    read = read_fields(FORMATS[kind](tmp_path), "upload")
    want = read_fields(FORMATS["collection"](tmp_path), "upload").table
    assert not read.rejected
    order = {name: row for row, name in enumerate(want["field_id"])}  # a FlatGeobuf is sorted by place
    table = read.table.sort_values("field_id", key=lambda ids: ids.map(order)).reset_index(drop=True)
    for column in ("field_id", "version", "crs", "planting_date", "crop", "harvest_date", "box"):
        assert table[column].tolist() == want[column].tolist(), column
    for shape, kept in zip(SHAPES, shapely.from_wkb(table["geometry"].to_numpy(object)), strict=True):
        assert shapely.equals(shape, kept)
    if kind not in ("csv", "semicolons", "tabs"):
        assert [json.loads(text) for text in table["properties"]] == [
            {"area_ha": 1.5},
            {"area_ha": 2.25},
            {"area_ha": 3.0},
        ]


def test_geoarrow_encodings_of_geoparquet(tmp_path: Path) -> None:
    FRAME.iloc[:1].to_parquet(tmp_path / "g.parquet", geometry_encoding="geoarrow")
    want = read_fields(FORMATS["collection"](tmp_path), "upload").table
    assert read_fields(tmp_path / "g.parquet", "g").table["version"].tolist() == want["version"].tolist()[:1]


def test_versions_differ_with_everything_that_rows_depend_on() -> None:
    def version(shape: Any = SHAPES[0], **properties: Any) -> str:
        row = {"id": 1, "planting_date": "2016-04-01", "geometry": shapely.to_wkt(shape, rounding_precision=17)}
        read = read_fields(json.dumps({"fields": [{**row, **properties}]}).encode(), "f")
        return str(read.table["version"][0])

    base = version()
    turned = shapely.Polygon(np.roll(shapely.get_coordinates(SHAPES[0])[:-1], 1, axis=0)[::-1])
    assert version(turned) == version(shapely.MultiPolygon([turned])) == base
    assert version(crop="rye", name="x", id=2) == base
    others = [
        version(shapely.box(14.5535, 45.868, 14.5545, 45.86880000001)),
        version(planting_date="2016-04-02"),
        version(harvest_date="2016-09-01"),
        version(crs="EPSG:4258"),
    ]
    assert len({base, *others}) == 5
    assert len(base) == 12


def test_typed_dates_and_ids_of_column_formats(tmp_path: Path) -> None:
    frame = FRAME.iloc[:2].drop(columns="plant_date")
    frame["field_id"] = np.array([2**62 + 1, 2**62 + 3])
    frame["planting_date"] = [dt.date(2016, 4, 1), dt.date(2016, 4, 2)]
    frame["harvest_date"] = np.array(["2016-09-01T00:00", "2016-09-02T13:30"], dtype="datetime64[ms]")
    frame.to_file(tmp_path / "f.gpkg")
    frame.to_parquet(tmp_path / "f.parquet")
    for name in ("f.gpkg", "f.parquet"):
        read = read_fields(tmp_path / name, name)
        assert read.table["field_id"].tolist() == [str(2**62 + 1), str(2**62 + 3)]
        assert read.table["planting_date"].tolist() == [dt.date(2016, 4, 1), dt.date(2016, 4, 2)]
        assert read.table["harvest_date"].tolist() == [dt.date(2016, 9, 1), dt.date(2016, 9, 2)]
        assert [one.row for one in read.notices] == [1]
        assert "time is left out" in read.notices[0].what


def test_arrow_nulls_are_nulls_not_numbers(tmp_path: Path) -> None:
    table = pq.read_table(parquet(tmp_path))
    table = table.set_column(0, "field_id", pa.array([1, None, 3], pa.int64()))
    pq.write_table(table, tmp_path / "nulls.parquet")
    read = read_fields(tmp_path / "nulls.parquet", "nulls")
    assert read.table["field_id"].tolist() == ["1", "3"]
    assert "field id is null" in read.rejected[0].reason


CORNERS = [
    ["xmin", "ymin", "xmax", "ymax"],
    ["x_min", "y_min", "x_max", "y_max"],
    ["coordinatesXMin", "coordinatesYMin", "coordinatesXMax", "coordinatesYMax"],
    ["coordinates_x_min", "coordinates_y_min", "coordinates_x_max", "coordinates_y_max"],
]


@pytest.mark.parametrize("names", CORNERS)
def test_corners_in_every_spelling(names: list[str]) -> None:
    row = {"id": "a", "planting_date": "2016-04-01", **dict(zip(names, [1, 2, 3.5, 4], strict=True))}
    table = read_fields(lines([row, {**row, "id": "b"}]), "f.jsonl").table
    assert shapely.from_wkb(table["geometry"][0]).equals(shapely.box(1, 2, 3.5, 4))
    assert table["properties"][0] == "{}"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"xmin": "1"}, "xmin is text, not a number: '1'"),
        ({"xmin": None}, r"xmin is missing \(null\)"),
        ({"xmin": 9}, "xmin is greater than xmax"),
        ({"xmin": 3}, "the rectangle has no area"),
        ({"xmin": True}, "xmin is true, not a number"),
    ],
)
def test_bad_corners(change: dict[str, Any], reason: str) -> None:
    row = {"id": "a", "planting_date": "2016-04-01", "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}
    (refused,) = read_fields(lines([{**row, **change}, {**row, "id": "b"}]), "f.jsonl").rejected
    assert refused.reason.startswith("row 0 (line 1), field 'a': ")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(refused.reason)


def test_rows_of_one_csv_in_different_crs() -> None:
    text = (
        "id,planting_date,geometry\n"
        'a,2016-04-01,"SRID=32633;POLYGON ((465200 5079300, 465300 5079300, 465300 5079400, 465200 5079300))"\n'
        'b,2016-04-01,"POLYGON ((14 45, 15 45, 15 46, 14 45))"\n'
        'c,2016-04-01,"SRID=999999;POLYGON ((14 45, 15 45, 15 46, 14 45))"\n'
        "d,2016-04-01\n"
    )
    read = read_fields(text.encode(), "f.csv")
    assert read.table["crs"].tolist() == ["EPSG:32633", "EPSG:4326"]
    assert [one.rule for one in read.rejected] == ["unknown_crs", "ragged_row"]
    assert "EPSG:999999" in read.rejected[0].reason


def test_crs_of_the_file_goes_before_the_option(tmp_path: Path) -> None:
    read = read_fields(parquet(tmp_path), "f", FieldOptions(crs="EPSG:32633"))
    assert set(read.table["crs"]) == {"EPSG:4326"}
    assert "--crs EPSG:32633 is not used" in read.notices[0].what
    with pytest.raises(CrsError, match="'EPSG:1' is no CRS"):
        FieldOptions(crs="EPSG:1")
    with pytest.raises(CrsError, match="neither geographic nor projected"):
        FieldOptions(crs="EPSG:5714")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("f.zip", zipped({"a.csv": b"x", "b.csv": b"y"}), "several files .a.csv, b.csv."),
        ("f.zip", zipped({"readme.txt": b"x"}), "no file of fields that can be read, but readme.txt"),
        ("f.zip", zipped({"f.shx": b"x", "f.dbf": b"x"}), ".shp is missing"),
        ("f.zip", zipped({"f.geojson": b""}), "'f.geojson' in the archive is empty$"),
        ("f.zip", zipped({"/etc/f.geojson": b"{}"}), "path outside of itself"),
        ("f.zip", zipped({"a\\..\\..\\f.geojson": b"{}"}), "path outside of itself"),
        ("f.zip", zipped({"f.json": zipped({"f.json": b"{}"})}), "holds another archive"),
        ("f.zip", zipped({"f.geojson": b"{}" * 99})[:60], "zip archive is damaged"),
        ("f.shp", b"\x00\x00\x27\x0a" + b"\0" * 96, "send them in one zip"),
        ("f.gpkg", b"SQLite format 3\x00" + b"\0" * 200, "cannot be read"),
        ("bin.gpkg", bytes(range(255, 0, -1)), "damaged, or no GeoPackage at all"),
        ("f.fgb", b"fgb\x03fgb\x01" + b"\0" * 200, "no layer with geometries"),
        ("f.parquet", b"PAR1" + b"\0" * 200, "cannot be read"),
        ("f.gz", b"\x1f\x8b\x08" + b"\0" * 20, "gzip: unpack it first"),
        ("f.kml", b"<?xml version='1.0'?><kml/>", "is XML, which is not read"),
        ("f.geojson", b"field_id,geometry", "not JSON: it begins with 'field_id"),
        ("f.csv", b"a,b\n1,2\n", "no column holds a geometry.*'a, b'"),
        ("f.csv", b"field_id\n1\n", "no separator"),
        ("f.csv", b";;", "the header is blank"),
        ("f.csv", b"id,id,wkt\n1,2,3\n", "'id' are given twice in the header"),
        ("f.csv", b'id,wkt\n1,"POLYGON', "not complete CSV"),
        ("f.json", b"3", "not JSON: it begins with '3'"),
        ("f.json", b'{"a": 1}', r"holds no fields \(its keys: 'a'\)"),
        ("f.json", b'{"type": "FeatureCollection", "features": 3}', "no list of features: 3"),
        ("f.json", b'{"features": [], "features": []}', "'features' given twice"),
        ("f.json", b'{"type": "FeatureCollection", "crs": null, "features": []}', "CRS is unknown.*--crs"),
        ("f.json", b'{"type": "FeatureCollection", "crs": {"type": "link"}, "features": []}', "is no CRS"),
        ("f.json", b'{"a": ' + b"1" * 5000 + b"}", "too long"),
        ("f.json", b'{"a": }', "line 1, column 7: not JSON"),
        ("f.jsonl", b" \n\n", "empty but for blanks"),
        ("f.jsonl", "{}".encode("utf-16"), "mark of UTF-16"),
    ],
)
def test_files_that_cannot_be_read_say_why(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(FieldFileError, match=f"^{name}.*{reason}"):
        read_fields(data, name)


def test_an_archive_that_lies_about_its_size() -> None:
    bomb = zipped({"f.geojson": b'{"fields": [' + b" " * 3_000_000 + b"]}"})
    with pytest.raises(FieldFileError, match="unpacks to 3,000,014 bytes, more than the limit of 1,000,000"):
        read_fields(bomb, "bomb.zip", FieldOptions(max_bytes=1_000_000))
    lying = bomb.replace((3_000_014).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    with pytest.raises(FieldFileError, match=r"damaged|more bytes than it says"):
        read_fields(lying, "bomb.zip", FieldOptions(max_bytes=1_000_000))


def test_a_geopackage_of_two_layers_is_ambiguous(tmp_path: Path) -> None:
    for layer in ("north", "south"):
        FRAME.to_file(tmp_path / "f.gpkg", layer=layer)
    with pytest.raises(FieldFileError, match=r"2 layers \(north, south\); expected one"):
        read_fields(tmp_path / "f.gpkg", "f.gpkg")


# --- fuzz ------------------------------------------------------------------------------------------------------------

WHOLE = FORMATS["collection"](Path())
SEEDS = [WHOLE, FORMATS["wkt lines"](Path()), as_csv(","), zipped({"f.geojson": WHOLE})]


def only_field_file_errors(data: bytes, name: str) -> None:
    with contextlib.suppress(FieldFileError):
        read_fields(data, name, FieldOptions(ids="digest", planting_date="box-start"))


@given(st.binary(max_size=300), st.sampled_from(["f.geojson", "f.csv", "f.jsonl", "f.zip", "f"]))
def test_random_bytes_raise_nothing_else(data: bytes, name: str) -> None:
    only_field_file_errors(data, name)


@given(st.sampled_from(SEEDS), st.data())
def test_cut_and_damaged_files_raise_nothing_else(seed: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(seed)))
    damage = data.draw(st.binary(max_size=4))
    only_field_file_errors(seed[:cut], "f.geojson")
    only_field_file_errors(seed[:cut] + damage + seed[cut + len(damage) :], "f")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON, JSON, st.sampled_from(["Polygon", "MultiPolygon", "Point", "x"]))
def test_any_json_in_any_place_never_stops_the_good_row(geometry: Any, field_id: Any, day: Any, kind: str) -> None:
    good = features()[0]
    rows = [
        {
            "type": "Feature",
            "properties": {"field_id": field_id, "planting_date": day, "x": geometry},
            "geometry": good["geometry"],
        },
        {"type": "Feature", "properties": geometry, "geometry": {"type": kind, "coordinates": field_id}},
        {
            "id": "flat",
            "geometry": geometry,
            "planting_date": day,
            "harvest_date": field_id,
            "arrival_time": day,
            "crop": field_id,
        },
        geometry,
        {**good, "properties": {**good["properties"], "field_id": "the good one, named as nothing else is"}},
    ]
    read = read_fields(json.dumps({"type": "FeatureCollection", "features": rows}).encode(), "f.geojson")
    assert "the good one, named as nothing else is" in read.table["field_id"].tolist()
    assert read.rows == 5
    assert len(read.table) + len(read.rejected) >= 5 - sum("left out: identical" in one.what for one in read.notices)
    for text in read.table["properties"]:
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
