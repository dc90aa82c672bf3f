"""Which boxes a field belongs to."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geofield.boxes import Box, resolve_grid
from geofield.fields import FieldOptions, place_fields, read_fields


def box(name: str, bbox: tuple[float, float, float, float], **settings: Any) -> Box:
    return Box.model_validate(
        {
            "id": name,
            "bbox": bbox,
            "start": "2016-01-01",
            "source": {"type": "simulated"},
            "variables": {"ndvi": {"index": "NDVI"}},
            **settings,
        }
    )


def table(*shapes: Any, crs: str | None = None, **properties: Any) -> pd.DataFrame:
    rows = [
        {
            "id": f"f{row}",
            "planting_date": "2016-04-01",
            **properties,
            "geometry": shapely.to_wkt(shape, rounding_precision=17),
        }
        for row, shape in enumerate(shapes)
    ]
    found = read_fields(json.dumps({"fields": rows}).encode(), "f", FieldOptions(crs=crs, planting_date="box-start"))
    assert not found.rejected
    return found.table


WEST, EAST = box("west", (4, 51, 5, 52)), box("east", (4.9, 51, 6, 52))
BOXES = {"west": WEST, "east": EAST}


def test_a_field_belongs_to_every_box_in_which_it_has_area() -> None:
    fields = table(shapely.box(4.2, 51.2, 4.3, 51.3), shapely.box(4.85, 51.2, 4.95, 51.3), shapely.box(3, 50, 7, 53))
    placed = place_fields(fields, BOXES)
    assert placed.table["boxes"].tolist() == [["west"], ["east", "west"], ["east", "west"]]
    assert placed.rejected == []


def test_without_explanations_the_same_fields_are_placed() -> None:
    fields = table(shapely.box(4.2, 51.2, 4.3, 51.3), shapely.box(1, 1, 2, 2))
    silent = place_fields(fields, BOXES, explain=False)
    assert silent.rejected == []
    assert silent.table.equals(place_fields(fields, BOXES).table)


def test_a_field_of_a_named_box_belongs_to_no_other() -> None:
    shape = shapely.box(4.92, 51.2, 4.95, 51.3)
    assert place_fields(table(shape, box_id="west"), BOXES).table["boxes"].tolist() == [["west"]]
    (refused,) = place_fields(table(shapely.box(4.2, 51.2, 4.3, 51.3), box_id="east"), BOXES).rejected
    assert refused.reason == (
        "row 0, field 'f0': the field is outside of box east, which it names: about 41.9 km away; it lies in box west"
    )
    (unknown,) = place_fields(table(shape, box_id="North"), BOXES).rejected
    assert unknown.reason == "row 0, field 'f0': there is no box 'North'; there is east, west"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (shapely.box(3.9, 51.2, 4, 51.3), "only touches the edge"),
        (shapely.box(3.9, 50.9, 4, 51), "only touches the corner"),
        (shapely.box(3.5, 51.2, 3.99, 51.3), "the nearest is west, about 699 m away"),
        (shapely.box(51.2, 4.2, 51.3, 4.3), "it would be inside west with longitude and latitude swapped"),
        (shapely.box(6.1, 51.2, 6.2, 51.3), "the nearest is east, about 7.0 km away"),
    ],
)
def test_fields_without_area_inside(shape: Any, said: str) -> None:
    placed = place_fields(table(shape, shapely.box(4.2, 51.2, 4.3, 51.3)), BOXES)
    assert placed.table["field_id"].tolist() == ["f1"]
    assert said in placed.rejected[0].reason


def test_touching_in_another_crs_is_only_touching() -> None:
    """The box is given in UTM; fields in UTM share its edge to the last bit, and the same fields in degrees nearly."""
    utm = box("utm", (465000, 5079000, 466000, 5080000), crs="EPSG:32633")
    beside, inside = shapely.box(464900, 5079100, 465000, 5079200), shapely.box(464900, 5079100, 465000.01, 5079200)
    placed = place_fields(table(beside, inside, crs="EPSG:32633"), {"utm": utm})
    assert placed.table["field_id"].tolist() == ["f1"]
    assert "touches the edge" in placed.rejected[0].reason


def test_a_box_on_its_sources_grid_reaches_as_far_as_its_pixels() -> None:
    native = box("native", (465000, 5079000, 467000, 5080000), crs="EPSG:32633", grid="native")
    utm = box("half", (465000, 5079000, 466000, 5080000), crs="EPSG:32633")
    native = native.model_copy(update={"pixels": resolve_grid(utm).to_dict()})
    fields = table(
        shapely.box(465100, 5079100, 465200, 5079200), shapely.box(466100, 5079100, 466200, 5079200), crs="EPSG:32633"
    )
    placed = place_fields(fields, {"native": native})
    assert placed.table["field_id"].tolist() == ["f0"]


def test_a_box_across_the_antimeridian_in_a_projected_crs() -> None:
    fiji = box("fiji", (600000, 8100000, 900000, 8200000), crs="EPSG:32760")
    fields = table(
        shapely.box(179.5, -17, 179.6, -16.9),
        shapely.MultiPolygon([shapely.box(179.9, -17, 180, -16.9), shapely.box(-180, -17, -179.9, -16.9)]),
        shapely.box(0, -17, 0.1, -16.9),
    )
    placed = place_fields(fields, {"fiji": fiji})
    assert placed.table["field_id"].tolist() == ["f0", "f1"]
    assert [one.field_id for one in placed.rejected] == ["f2"]


def test_harvest_before_the_first_day_of_the_box() -> None:
    shape = shapely.box(4.2, 51.2, 4.3, 51.3)
    (refused,) = place_fields(table(shape, planting_date=None, harvest_date="2015-09-01"), BOXES).rejected
    assert (
        "harvest_date 2015-09-01 is before 2016-01-01, the first day of box west, which is its planting date"
        in refused.reason
    )
    placed = place_fields(table(shape, planting_date="2015-04-01", harvest_date="2015-09-01"), BOXES)
    assert placed.table["boxes"].tolist() == [["west"]]
    assert "there are no rows" in placed.notices[0].what


def test_nothing_to_place_and_nowhere_to_place_it() -> None:
    shape = shapely.box(4.2, 51.2, 4.3, 51.3)
    assert "geofield add-box" in place_fields(table(shape), {}).rejected[0].reason
    empty = place_fields(table(shape).iloc[:0], BOXES)
    assert (len(empty.table), empty.rejected) == (0, [])
    assert "boxes" in empty.table.columns


def test_rows_of_several_files_may_share_their_numbers() -> None:
    inside, outside = shapely.box(4.2, 51.2, 4.3, 51.3), shapely.box(1, 1, 2, 2)
    both = pd.concat([table(outside), table(outside), table(inside)])
    placed = place_fields(both, BOXES)
    assert [one.row for one in placed.rejected] == [0, 0]
    assert placed.table["boxes"].tolist() == [["west"]]


@given(
    st.lists(st.tuples(st.floats(3.9, 6.1), st.floats(50.9, 52.1), st.floats(0.001, 0.4)), min_size=1, max_size=6),
    st.sampled_from([None, "EPSG:3857"]),
)
def test_boxes_are_those_of_the_plain_definition(corners: list[tuple[float, float, float]], crs: str | None) -> None:
    """Mercator keeps rectangles along the axes, so that areas in degrees tell overlap for both."""
    shapes = [shapely.box(x, y, x + side, y + side) for x, y, side in corners]
    given_ = shapes if crs is None else [shapely.transform(shape, _mercator) for shape in shapes]
    placed = place_fields(table(*given_, crs=crs), BOXES)
    found = {name: set(boxes) for name, boxes in zip(placed.table["field_id"], placed.table["boxes"], strict=True)}
    for row, shape in enumerate(shapes):
        area = {name: shape.intersection(shapely.box(*one.bbox)).area / shape.area for name, one in BOXES.items()}
        clear = {name for name, share in area.items() if share > 1e-6}
        maybe = {name for name, share in area.items() if share > 0}
        assert clear <= found.get(f"f{row}", set()) <= maybe


def _mercator(points: Any) -> Any:
    radius = 6378137.0
    lon, lat = np.radians(points).T
    return np.stack([radius * lon, radius * np.log(np.tan(np.pi / 4 + lat / 2))], axis=1)


def test_many_fields_among_many_boxes() -> None:
    """10,000 fields, one a cell of 100 boxes of 10 x 10 cells."""
    boxes = {
        f"b{row}-{column}": box(
            f"b{row}-{column}", (10 + column / 10, 50 + row / 10, 10.1 + column / 10, 50.1 + row / 10)
        )
        for row in range(10)
        for column in range(10)
    }
    cell = np.arange(10_000)
    x, y = 10 + (cell % 100) / 100, 50 + (cell // 100) / 100
    shapes = shapely.box(x + 0.001, y + 0.001, x + 0.009, y + 0.009)
    fields = pd.DataFrame(
        {
            "field_id": cell.astype(str),
            "box": None,
            "geometry": shapely.to_wkb(shapes),
            "crs": "EPSG:4326",
            "planting_date": dt.date(2016, 4, 1),
            "harvest_date": None,
            "row": cell,
        }
    )
    placed = place_fields(fields, boxes)
    assert placed.rejected == []
    assert placed.table["boxes"].tolist() == [[f"b{one // 1000}-{one % 100 // 10}"] for one in cell.tolist()]
