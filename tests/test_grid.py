"""Grids, tiles and windows, and how a box gets its grid."""

from __future__ import annotations

import datetime as dt

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pydantic import ValidationError

from geofield.boxes import Box, resolve_grid
from geofield.errors import GridError
from geofield.grid import Grid, Window, crop_geobox, parse_crs, snapped_geobox, utm_crs
from geofield.projection import project_bounds


def make_box(**values: object) -> Box:
    defaults: dict[str, object] = {
        "id": "b",
        "bbox": (465000.0, 5079000.0, 466000.0, 5080000.0),
        "crs": "EPSG:32633",
        "start": dt.date(2025, 4, 1),
        "source": {"type": "simulated"},
        "variables": {"ndvi": {"index": "NDVI"}},
    }
    return Box.model_validate(defaults | values)


def test_a_grid_is_cut_into_tiles_that_cover_it_once() -> None:
    grid = Grid(GeoBox((600, 1100), Affine(10, 0, 0, 0, -10, 0), "EPSG:32631"), 512)
    assert grid.tiles_shape == (2, 3)
    windows = [grid.tile_window(*tile) for tile in grid.tiles()]
    assert sum(w.shape[0] * w.shape[1] for w in windows) == 600 * 1100
    assert windows[-1] == Window(512, 1024, 600, 1100)
    assert list(grid.tiles_of(Window(500, 500, 513, 513))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert Grid.from_dict(grid.to_dict()) == grid


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 500), st.integers(1, 500))
def test_a_snapped_window_holds_the_window(y: int, x: int, high: int, wide: int) -> None:
    window = Window(y, x, y + high, x + wide)
    snapped = window.snap(256, (4000, 4000))
    assert snapped.intersect(window) == window
    assert snapped.y0 % 256 == snapped.x0 % 256 == 0


def test_edges_within_a_thousandth_of_a_pixel_lie_on_the_line() -> None:
    crs = parse_crs("EPSG:32631")
    near = snapped_geobox((500000.005, 5489999.995, 500100.009, 5490100.0), crs, (10.0, 10.0))
    assert near.shape == (10, 10)
    beyond = snapped_geobox((500000.0, 5490000.0, 500100.02, 5490100.0), crs, (10.0, 10.0))
    assert beyond.shape == (10, 11)


def test_the_native_grid_is_cut_not_shifted() -> None:
    native = GeoBox((101, 100), Affine(9.99479, 0, 465181.05, 0, -9.99745, 5080254.63), "EPSG:32633")
    cut = crop_geobox(native, (465200.0, 5080200.0, 465260.0, 5080240.0))
    assert cut.shape == (5, 7)  # columns 1 to 7, rows 1 to 5
    assert cut.transform == Affine(9.99479, 0, 465181.05 + 9.99479, 0, -9.99745, 5080254.63 - 9.99745)
    assert crop_geobox(native, native.boundingbox.bbox).shape == native.shape
    with pytest.raises(GridError, match="no pixel on the source's grid"):
        crop_geobox(native, (0.0, 0.0, 10.0, 10.0))


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [(14.558, 45.87, 32633), (5.3, 60.4, 32632), (29.0, -3.0, 32735), (10.0, 78.0, 32633), (179.9, 0.0, 32660),
     (180.0, -10.0, 32760), (-180.0, 10.0, 32601)],
)  # fmt: skip
def test_utm_zones_as_sentinel_2_numbers_them(lon: float, lat: float, epsg: int) -> None:
    assert utm_crs(lon, lat).to_epsg() == epsg


def test_a_box_beyond_utm_is_refused() -> None:
    with pytest.raises(GridError, match="north of 84 N"):
        resolve_grid(make_box(bbox=(10.0, 83.9, 10.5, 84.5), crs="EPSG:4326"))


def test_a_box_of_too_many_pixels_is_refused_with_the_number() -> None:
    with pytest.raises(GridError, match=r"limit of 500,000,000.*--resolution"):
        resolve_grid(make_box(bbox=(22.0, 41.0, 30.0, 49.0), crs="EPSG:4326"))
    with pytest.raises(GridError, match=r"100 x 100 = 10,000 pixels a day, more than the limit of 9,999"):
        resolve_grid(make_box(), max_pixels=9_999)


def test_a_box_without_a_pixel_is_refused() -> None:
    with pytest.raises(GridError, match="smaller than one pixel"):
        resolve_grid(make_box(bbox=(465000.0, 5079000.0, 465002.3, 5079002.2)))


def test_the_grid_of_a_lonlat_box_holds_it() -> None:
    box = make_box(bbox=(-0.2164, 49.0402, -0.1958, 49.0474), crs="EPSG:4326")
    grid = resolve_grid(box)
    assert grid.crs.to_epsg() == 32630
    assert grid.tile == 256
    west, south, east, north = project_bounds(box.bbox, parse_crs("EPSG:4326"), grid.crs)
    xmin, ymin, xmax, ymax = grid.bounds
    assert xmin <= west < xmin + 10
    assert xmax - 10 < east <= xmax
    assert ymin <= south < ymin + 10
    assert ymax - 10 < north <= ymax


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "../x"}, "cannot be the id of a box"),
        ({"id": ".hidden"}, "cannot be the id of a box"),
        ({"id": "a" * 65}, "cannot be the id of a box"),
        ({"bbox": (5.0, 0.0, 1.0, 1.0)}, "xmin 5 is greater than xmax 1"),
        ({"bbox": (5.0, 0.0, 5.0, 1.0)}, "no area"),
        ({"crs": "EPSG:4326"}, "465000 is no longitude"),
        ({"crs": "EPSG:1"}, "no CRS that PROJ knows"),
        ({"variables": {}}, "at least one variable"),
        ({"variables": {"ndvi": {"index": "NDVI", "band": "red"}}}, "either a `band` or an `index`"),
        ({"variables": {"NDVI 2": {"index": "NDVI"}}}, "lower case"),
        ({"grid": {"resolution": -10}}, "greater than 0"),
        ({"colour": "green"}, "colour"),
    ],
)
def test_a_wrong_box_says_what_is_wrong(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make_box(**change)


def test_a_grid_is_north_up() -> None:
    with pytest.raises(GridError, match="north-up"):
        Grid(GeoBox((10, 10), Affine(10, 0, 0, 0, 10, 0), "EPSG:32631"), 256)
    with pytest.raises(GridError, match="multiple of 256"):
        Grid(GeoBox((10, 10), Affine(10, 0, 0, 0, -10, 0), "EPSG:32631"), 300)
