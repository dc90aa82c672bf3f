"""Coverage weights: exact, computed once, cut without changing."""

from __future__ import annotations

import pickle

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.errors import CrsError, GridError, InputError
from geofield.grid import Window
from geofield.reduce import exact
from geofield.reduce.coverage import Coverage, coverage
from tests.support.shapes import CRS, make_fields, make_geobox


def squares(*bounds: tuple[float, float, float, float]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(geometry=[shapely.box(*one) for one in bounds], crs=CRS)


def arrays_equal(one: Coverage, other: Coverage) -> bool:
    names = (
        "ids",
        "covered",
        "total",
        "start",
        "segment_block",
        "segment_start",
        "row",
        "col",
        "weight",
        "parts",
        "weights",
    )
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def test_a_square_of_four_pixels_with_halves_and_quarters() -> None:
    # Pixels of 10 m from (500000, 5000030) downwards; the square leaves half a pixel on each side.
    cover = coverage(squares((500_005, 5_000_005, 500_025, 5_000_025)), make_geobox(3, 3))
    assert cover.row.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert cover.col.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert cover.weight.tolist() == [0.25, 0.5, 0.25, 0.5, 1.0, 0.5, 0.25, 0.5, 0.25]
    assert cover.total.tolist() == [4.0]
    assert cover.covered.tolist() == [1.0]
    assert cover.windows().tolist() == [[0, 0, 3, 3]]


def test_covered_says_how_much_lies_inside() -> None:
    fields = squares(
        (500_000, 5_000_000, 500_030, 5_000_030),  # the whole grid
        (499_990, 5_000_000, 500_010, 5_000_010),  # half
        (499_000, 5_000_000, 499_010, 5_000_010),  # none
        (499_990, 5_000_000, 500_000, 5_000_010),  # its edge only
    )
    cover = coverage(fields, make_geobox(3, 3))
    assert cover.covered.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert cover.total.tolist() == [9.0, 1.0, 0.0, 0.0]
    assert np.diff(cover.start).tolist() == [1, 1, 0, 0]
    assert cover.windows().tolist() == [[0, 0, 3, 3], [2, 0, 3, 1], [-1] * 4, [-1] * 4]


def test_weights_are_areas_of_intersection() -> None:
    geobox = make_geobox(40, 30, (9.99479, 9.99745))
    fields = make_fields(24, geobox, seed=3)
    cover = coverage(fields, geobox)
    a = geobox.transform
    x, y = a.c + a.a * cover.col, a.f + a.e * cover.row
    pixels = shapely.box(x, y + a.e, x + a.a, y)
    field = np.repeat(np.arange(len(fields)), np.diff(cover.segment_start[cover.start]))
    shapes = fields.geometry.to_numpy()
    share = shapely.area(shapely.intersection(pixels, shapes[field])) / (a.a * -a.e)
    np.testing.assert_allclose(cover.weight, share, rtol=0, atol=1e-6)
    box = shapely.box(*geobox.boundingbox.bbox)
    inside = shapely.area(shapely.intersection(shapes, box))
    np.testing.assert_allclose(cover.total * (a.a * -a.e), inside, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(cover.covered, inside / shapely.area(shapes), rtol=1e-12)


def test_pixels_are_sorted_by_field_block_and_row() -> None:
    geobox = make_geobox(600, 700)
    cover = coverage(make_fields(30, geobox, seed=5), geobox)
    field = np.repeat(np.arange(len(cover.ids)), np.diff(cover.segment_start[cover.start]))
    block = (cover.row // 256) * 3 + cover.col // 256
    order = np.lexsort((cover.col, cover.row, block, field))
    assert np.array_equal(order, np.arange(len(order)))
    assert np.array_equal(block[cover.segment_start[:-1]], cover.segment_block)
    assert np.diff(cover.start).max() > 1


def test_tiles_hold_each_segment_once_and_change_no_weight() -> None:
    geobox = make_geobox(600, 700)
    cover = coverage(make_fields(30, geobox, seed=5), geobox)
    parts = [
        cover.within(Window(y, x, min(y + 256, 600), min(x + 256, 700)))
        for y in range(0, 600, 256)
        for x in range(0, 700, 256)
    ]
    numbers = np.concatenate([part.number for part in parts])
    assert np.array_equal(np.sort(numbers), np.arange(len(cover.number)))
    for part in parts:
        for own, number in enumerate(part.number):
            mine = slice(part.segment_start[own], part.segment_start[own + 1])
            whole = slice(cover.segment_start[number], cover.segment_start[number + 1])
            assert np.array_equal(part.weight[mine], cover.weight[whole])
            assert np.array_equal(part.col[mine], cover.col[whole])
        assert len(part.ids) == len(cover.ids)
        assert np.array_equal(part.held, np.diff(part.start) == np.diff(cover.start))
    assert cover.within(Window(0, 0, 600, 700)) is cover


def test_a_part_of_a_part_is_the_part_of_the_whole() -> None:
    geobox = make_geobox(600, 700)
    cover = coverage(make_fields(30, geobox, seed=5), geobox)
    tile = Window(0, 256, 256, 512)
    assert arrays_equal(cover.within(Window(0, 0, 512, 512)).within(tile), cover.within(tile))


def test_a_field_alone_has_the_same_weights_as_among_others() -> None:
    geobox = make_geobox(600, 700, (9.99479, 9.99745))
    fields = make_fields(30, geobox, seed=7)
    cover = coverage(fields, geobox)
    some = [4, 17, 5]
    assert arrays_equal(cover.take(some), coverage(fields.iloc[some], geobox))


def test_fields_are_taken_before_windows() -> None:
    geobox = make_geobox(600, 700)
    part = coverage(make_fields(30, geobox, seed=5), geobox).within(Window(0, 0, 256, 256))
    with pytest.raises(InputError, match="call `take` before `within`"):
        part.take([0])


@pytest.mark.parametrize("window", [Window(0, 0, 100, 700), Window(5, 0, 256, 256), Window(0, 0, 768, 700)])
def test_windows_are_made_of_blocks(window: Window) -> None:
    geobox = make_geobox(600, 700)
    with pytest.raises(GridError, match=r"multiples of 256 or edges of the grid of 600 x 700 pixels"):
        coverage(make_fields(2, geobox, seed=5), geobox).within(window)


def test_pickling_keeps_every_bit() -> None:
    geobox = make_geobox(30, 30)
    cover = coverage(make_fields(6, geobox, seed=5), geobox)
    back = pickle.loads(pickle.dumps(cover))
    assert arrays_equal(cover, back)
    assert back.geobox == cover.geobox
    assert len(cover.weight) * 4 < cover.nbytes < len(pickle.dumps(cover)) < len(cover.weight) * 40


def test_a_large_field_is_computed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """With holes, two parts and an edge outside of the grid; pieces of one block, of which many lie wholly inside."""
    geobox = make_geobox(1400, 1300, (9.99479, 9.99745))
    ring = shapely.Point(506_000, 5_007_000).buffer(7_000) - shapely.Point(505_000, 5_006_000).buffer(900)
    far = shapely.box(512_003, 5_000_011, 512_700, 5_000_777)
    fields = gpd.GeoDataFrame(geometry=[*make_fields(3, geobox, 2).geometry, shapely.union_all([ring, far])], crs=CRS)
    whole = coverage(fields, geobox)
    monkeypatch.setattr(exact, "LARGE", 100_000)
    monkeypatch.setattr(exact, "PIECE", 256)
    pieces = coverage(fields, geobox)
    assert (pieces.weight == 1).sum() > 1_000_000
    assert pieces.nbytes < 0.3 * pieces.pixels
    for name in ("ids", "covered", "start", "segment_block"):
        assert np.array_equal(getattr(pieces, name), getattr(whole, name)), name
    grid = np.zeros((2, *geobox.shape))
    for image, cover in zip(grid, (whole, pieces), strict=True):
        np.add.at(image, cover.places, cover.weight)
    np.testing.assert_allclose(grid[1], grid[0], rtol=0, atol=2e-6)
    assert pieces.take([0, 1, 2]).nbytes == whole.take([0, 1, 2]).nbytes
    assert arrays_equal(pieces.take([3]), coverage(fields.iloc[[3]], geobox))


def test_runs_stay_in_their_row_and_block() -> None:
    geobox = make_geobox(600, 700)
    field = gpd.GeoDataFrame(geometry=[geobox.extent.geom.buffer(50)], crs=CRS)
    cover = coverage(field, geobox)
    last = cover.run_col + cover.run_length - 1
    assert np.array_equal(cover.run_col // 256, last // 256)
    assert last.max() == 699
    assert cover.pixels == 600 * 700
    assert len(cover.weights) == 0  # wholly covered: a run of a block's width, and no weight for each pixel
    assert cover.nbytes < 600 * 3 * 30


def test_fields_in_degrees_are_projected_with_their_curve() -> None:
    # One degree wide: with corners only, the long edges would be 100 m off.
    geobox = make_geobox(500, 1000, (100.0, 100.0))
    degrees = gpd.GeoDataFrame(geometry=[shapely.box(15.1, 45.2, 16.1, 45.5)], crs="EPSG:4326")
    fine = gpd.GeoDataFrame(geometry=shapely.segmentize(degrees.geometry.to_numpy(), 1e-4), crs="EPSG:4326").to_crs(CRS)
    mine, theirs = coverage(degrees, geobox), coverage(fine, geobox)
    assert mine.total[0] == pytest.approx(theirs.total[0], rel=1e-7)
    coarse = coverage(degrees.to_crs(CRS), geobox)
    assert abs(coarse.total[0] / theirs.total[0] - 1) > 1e-5


@pytest.mark.parametrize(
    ("bounds", "crs", "transform"),
    [
        ([(-180, -90, 180, -88)], "EPSG:3031", (2000, -400_000, 400_000)),  # a cap around the pole
        ([(170, -89, 180, -87.5), (-180, -89, -170, -87.5)], "EPSG:3031", (2000, -400_000, 400_000)),
        ([(179.5, -17.5, 180, -17), (-180, -17.5, -179.5, -17)], "EPSG:3832", (500, 3_270_000, -1_890_000)),
    ],
    ids=["pole", "pole and antimeridian", "antimeridian"],
)
def test_fields_at_a_pole_and_across_the_antimeridian(
    bounds: list[tuple[float, float, float, float]], crs: str, transform: tuple[float, float, float]
) -> None:
    pixel, left, top = transform
    geobox = GeoBox((400, 400), Affine(pixel, 0, left, 0, -pixel, top), crs)
    field = gpd.GeoSeries([shapely.union_all([shapely.box(*one) for one in bounds])], crs="EPSG:4326")
    expected = field.segmentize(0.01).to_crs(crs).area.item()
    assert coverage(field, geobox).total.item() * pixel**2 == pytest.approx(expected, rel=1e-5)


def test_ids_come_from_the_index_or_a_column() -> None:
    fields = squares((500_000, 5_000_000, 500_010, 5_000_010), (500_010, 5_000_000, 500_020, 5_000_010))
    fields["name"] = ["b", "a"]
    assert coverage(fields, make_geobox(3, 3)).ids.tolist() == [0, 1]
    assert coverage(fields, make_geobox(3, 3), id_column="name").ids.tolist() == ["b", "a"]
    with pytest.raises(InputError, match=r"no column 'nom'. Their columns are \['geometry', 'name'\]"):
        coverage(fields, make_geobox(3, 3), id_column="nom")
    with pytest.raises(InputError, match="Id 'a' occurs 2 times in column 'name'"):
        coverage(fields.assign(name="a"), make_geobox(3, 3), id_column="name")
    with pytest.raises(InputError, match="Field 1 has no id in column 'name'"):
        coverage(fields.assign(name=["a", None]), make_geobox(3, 3), id_column="name")


def test_no_fields_at_all() -> None:
    cover = coverage(squares(), make_geobox(3, 3))
    assert len(cover.ids) == len(cover.weight) == len(cover.segment_block) == 0
    assert cover.windows().shape == (0, 4)


def test_a_missing_crs_is_an_error() -> None:
    bare = squares((0, 0, 1, 1)).set_crs(None, allow_override=True)
    with pytest.raises(CrsError, match=r"The fields have no CRS.*set_crs"):
        coverage(bare, make_geobox(3, 3))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)]), r"is invalid: Self-intersection\[1 1\]"),
        (shapely.Point(1, 1), "is a Point, not a polygon"),
        (shapely.Polygon(), "has no geometry"),
        (None, "has no geometry"),
    ],
)
def test_a_geometry_that_is_no_field_is_named(shape: shapely.Geometry | None, reason: str) -> None:
    fields = gpd.GeoDataFrame({"name": ["good", "bad"]}, geometry=[shapely.box(0, 0, 1, 1), shape], crs=CRS)
    with pytest.raises(InputError, match=rf"Field 'bad' {reason} \(1 of 2 fields cannot be used\)"):
        coverage(fields, make_geobox(3, 3), id_column="name")


def test_a_grid_that_is_not_north_up_is_an_error() -> None:
    with pytest.raises(GridError, match="north-up"):
        coverage(squares((0, 0, 1, 1)), make_geobox(3, 3).flipy())
