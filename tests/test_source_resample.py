"""Files on other grids than the one asked for: rasterio's warper as the oracle, and the same bits in any window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geofield.source import raster
from geofield.source.raster import RasterBand, read_band
from geofield.source.resample import Axis, aligned_offset, positions_in

UTM = "EPSG:32633"
SOURCE = GeoBox((60, 80), Affine(20, 0, 465_180, 0, -20, 5_080_260), UTM)
NEAREST, BILINEAR = True, False

TARGETS = {
    "half the pixel": GeoBox((100, 130), Affine(10, 0, 465_240, 0, -10, 5_080_220), UTM),
    "three times the pixel": GeoBox((18, 24), Affine(60, 0, 465_180, 0, -60, 5_080_260), UTM),
    "shifted by a third": GeoBox((50, 70), Affine(20, 0, 465_206.667, 0, -20, 5_080_213.333), UTM),
    "degrees": GeoBox((70, 90), Affine(1.7e-4, 0, 14.5508, 0, -1.2e-4, 45.8772), "EPSG:4326"),
    "next UTM zone": GeoBox((70, 90), Affine(13, 0, -300, 0, -13, 5_100_200), "EPSG:32634"),
    "equal area": GeoBox((60, 80), Affine(17, 0, 4_674_750, 0, -17, 2_539_900), "EPSG:3035"),
}


@pytest.fixture(scope="module")
def raster_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random numbers over `SOURCE`, a few of them missing; band 2 holds the same rounded."""
    values = np.random.default_rng(4).normal(size=SOURCE.shape).cumsum(axis=0).cumsum(axis=1)
    values[np.random.default_rng(5).random(SOURCE.shape) < 0.03] = np.nan
    path = tmp_path_factory.mktemp("raster") / "v.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=60, width=80, count=1, dtype="float64", crs=UTM, transform=SOURCE.transform,
        nodata=np.nan, tiled=True, blockxsize=16, blockysize=16,
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
    return path


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("nearest", [NEAREST, BILINEAR])
def test_targets_hit_the_raster(raster_file: Path, name: str, nearest: bool) -> None:
    values, nbytes = read_band(RasterBand(str(raster_file), nearest=nearest), TARGETS[name])
    assert np.isfinite(values).mean() > 0.5
    assert nbytes > 0


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_any_window_has_the_same_bits(raster_file: Path, name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    rows, columns = target.shape
    y0, x0 = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, rows)), data.draw(st.integers(x0 + 1, columns))
    band = RasterBand(str(raster_file), nearest=data.draw(st.booleans()))
    whole, _ = read_band(band, target)
    part, _ = read_band(band, target[y0:y1, x0:x1])
    np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])


@pytest.mark.parametrize("name", TARGETS)
def test_windows_of_windows_have_the_same_bits(raster_file: Path, name: str) -> None:
    # each slicing rounds the transform once more
    target = inner = TARGETS[name]
    band = RasterBand(str(raster_file), nearest=BILINEAR)
    whole, _ = read_band(band, target)
    for step in range(1, 6):
        inner = inner[3:, 4:]
        np.testing.assert_array_equal(read_band(band, inner)[0], whole[3 * step :, 4 * step :])


@pytest.mark.parametrize("name", TARGETS)
def test_small_strips_have_the_same_bits(raster_file: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    band = RasterBand(str(raster_file), nearest=BILINEAR)
    whole, _ = read_band(band, TARGETS[name])
    monkeypatch.setattr(raster, "_STRIP_PIXELS", 1000)
    monkeypatch.setattr(raster, "_MAX_CUT", 200)
    np.testing.assert_array_equal(read_band(band, TARGETS[name])[0], whole)


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "three times the pixel"])
@pytest.mark.parametrize("nearest", [NEAREST, BILINEAR])
def test_values_are_those_of_the_gdal_warper(raster_file: Path, name: str, nearest: bool) -> None:
    # GDAL widens its bilinear kernel when it makes pixels larger; ours takes the value at the centre (see below).
    target = TARGETS[name]
    ours, _ = read_band(RasterBand(str(raster_file), nearest=nearest), target)
    theirs = np.full(target.shape, np.nan)
    with rasterio.open(raster_file) as dataset:
        reproject(
            dataset.read(1), theirs, src_transform=dataset.transform, src_crs=UTM, src_nodata=np.nan,
            dst_transform=target.transform, dst_crs=str(target.crs), dst_nodata=np.nan,
            resampling=Resampling.nearest if nearest else Resampling.bilinear, tolerance=0,
        )  # fmt: skip
    both = np.isfinite(ours) & np.isfinite(theirs)
    assert both.mean() > 0.5
    # the two differ in how they treat the outermost half pixel and a centre that lies on a line between two pixels
    assert (np.isnan(ours) != np.isnan(theirs)).mean() < 0.03
    close = np.isclose(ours[both], theirs[both], rtol=1e-3, atol=1e-3 * np.nanstd(ours))
    assert close.mean() > (0.97 if nearest else 0.99)


def test_value_at_the_centre_where_pixels_grow(raster_file: Path) -> None:
    # the centre of 3 x 3 pixels of 20 m is the centre of the middle one
    target = TARGETS["three times the pixel"]
    with rasterio.open(raster_file) as dataset:
        middle = dataset.read(1)[1:54:3, 1:72:3]
    for nearest in (NEAREST, BILINEAR):
        np.testing.assert_array_equal(read_band(RasterBand(str(raster_file), nearest=nearest), target)[0], middle)


def write(path: Path, values: list[list[float]], dtype: str = "float64") -> str:
    """A raster of 10 m from (0, 0), UTM zone 33."""
    array = np.array(values)
    with rasterio.open(
        path, "w", driver="GTiff", height=array.shape[0], width=array.shape[1], count=1, dtype=dtype, crs=UTM,
        transform=Affine(10, 0, 0, 0, -10, 0), nodata=-1,
    ) as dataset:  # fmt: skip
        dataset.write(array.astype(dtype), 1)
    return str(path)


def test_bilinear_by_hand(tmp_path: Path) -> None:
    href = write(tmp_path / "v.tif", [[0, 10, 20], [40, 50, 60]])
    # centres of 5 m pixels lie a quarter of a pixel off the centres of 10 m pixels
    values, _ = read_band(RasterBand(href, nearest=BILINEAR), GeoBox((4, 6), Affine(5, 0, 0, 0, -5, 0), UTM))
    np.testing.assert_allclose(values[0], [0, 2.5, 7.5, 12.5, 17.5, 20])
    np.testing.assert_allclose(values[1], np.array([0, 2.5, 7.5, 12.5, 17.5, 20]) + 10)
    np.testing.assert_allclose(values[:, 0], [0, 10, 30, 40])


def test_bilinear_leaves_missing_pixels_out(tmp_path: Path) -> None:
    href = write(tmp_path / "v.tif", [[8, -1, 20]])
    values, _ = read_band(RasterBand(href, nearest=BILINEAR), GeoBox((1, 6), Affine(5, 0, 0, 0, -10, 0), UTM))
    # beside the gap a neighbour's share falls to the one that is there; in the gap nothing is made up
    np.testing.assert_array_equal(values, [[8, 8, np.nan, np.nan, 20, 20]])


def test_classes_are_never_mixed_and_ties_fall_to_one_side(tmp_path: Path) -> None:
    href = write(tmp_path / "v.tif", [[4, 8, 5, 9]], "int16")
    # centres of 20 m pixels lie on the line between two pixels
    values, _ = read_band(RasterBand(href), GeoBox((1, 2), Affine(20, 0, 0, 0, -10, 0), UTM))
    np.testing.assert_array_equal(values, [[8, 9]])


@pytest.mark.parametrize(("width", "x0"), [(9.99479222007154, 465181.0522318204), (0.1, 7.3), (1 / 3, 5.0)])
def test_ties_fall_to_the_same_side_everywhere(tmp_path: Path, width: float, x0: float) -> None:
    # pixels that no float is: computed, the lines between them are off by some last bits, to either side
    path = tmp_path / "v.tif"
    with rasterio.open(path, "w", driver="GTiff", height=1, width=4000, count=1, dtype="int16", crs=UTM,
                       transform=Affine(width, 0, x0, 0, -width, 0)) as dataset:  # fmt: skip
        dataset.write(np.arange(4000, dtype="int16")[None], 1)
    values, _ = read_band(RasterBand(str(path)), GeoBox((1, 2000), Affine(2 * width, 0, x0, 0, -width, 0), UTM))
    steps = np.unique(np.diff(values[0]))
    np.testing.assert_array_equal(steps, [2])
    assert values[0, 0] in (0, 1)


def test_plain_integers_are_nearest_unless_the_caller_knows_better(tmp_path: Path) -> None:
    href = write(tmp_path / "v.tif", [[4, 8]], "int16")
    target = GeoBox((1, 4), Affine(5, 0, 0, 0, -10, 0), UTM)
    assert read_band(RasterBand(href), target)[0].tolist() == [[4, 4, 8, 8]]
    assert read_band(RasterBand(href, nearest=BILINEAR), target)[0].tolist() == [[4, 5, 7, 8]]
    assert read_band(RasterBand(href, scale=0.5), target)[0].tolist() == [[2, 2.5, 3.5, 4]]


def test_projected_positions_are_close_to_exact_ones() -> None:
    # nodes are 16 pixels apart, linear in between
    for name, limit in {"degrees": 1e-3, "next UTM zone": 1e-3, "equal area": 1e-3}.items():
        target = TARGETS[name]
        positions = positions_in(SOURCE, target)
        ys, xs = np.mgrid[0 : target.shape.y, 0 : target.shape.x] + 0.5
        x, y = target.transform @ (xs, ys)
        columns, rows = ~SOURCE.transform @ Transformer.from_crs(str(target.crs), UTM, always_xy=True).transform(x, y)
        assert np.abs(positions.rows - rows).max() < limit
        assert np.abs(positions.columns - columns).max() < limit


def test_places_that_cannot_be_projected_are_missing(tmp_path: Path) -> None:
    href = write(tmp_path / "v.tif", [[1, 2]])
    values, nbytes = read_band(RasterBand(href), GeoBox((8, 8), Affine(45, 0, -180, 0, -22.5, 90), "EPSG:4326"))
    assert np.isnan(values).all()
    assert nbytes == 0


def test_rotated_raster_is_read_at_the_centres(tmp_path: Path) -> None:
    path = tmp_path / "v.tif"
    turned = Affine(0, 10, 0, -10, 0, 0)  # rows run east, columns run south
    with rasterio.open(path, "w", driver="GTiff", height=2, width=3, count=1, dtype="uint8", crs=UTM, transform=turned,
                       nodata=0) as dataset:  # fmt: skip
        dataset.write(np.array([[1, 2, 3], [4, 5, 6]], "uint8"), 1)
    values, _ = read_band(RasterBand(str(path)), GeoBox((3, 2), Affine(10, 0, 0, 0, -10, 0), UTM))
    np.testing.assert_array_equal(values, [[1, 4], [2, 5], [3, 6]])


@pytest.mark.parametrize("edge", [465181.0522318204, -0.3, 14.5508, 0.0])
@pytest.mark.parametrize("step", [9.99479222007154, -9.997448467363668, 1e-4])
def test_axis_is_the_same_from_any_pixel_on(edge: float, step: float) -> None:
    whole = Axis.from_edge(edge, step, 5000)
    for start in (1, 17, 1234, 4999):
        part = Axis.from_edge(edge + start * step, step, 5000 - start)
        np.testing.assert_array_equal(part.centres, whole.centres[start:])
    exact = edge + (np.arange(5000) + 0.5) * step
    assert np.abs((whole.centres - exact) / step).max() < 2e-5


def test_grids_are_aligned_or_not() -> None:
    def shifted(x: float, y: float, scale: float = 1.0, crs: str = UTM) -> GeoBox:
        return GeoBox((9, 9), SOURCE.transform @ Affine.translation(x, y) @ Affine.scale(scale), crs)

    assert aligned_offset(SOURCE, shifted(3, -2)) == (-2, 3)
    assert aligned_offset(SOURCE, shifted(3.0009, -2)) == (-2, 3)
    assert aligned_offset(SOURCE, shifted(3.002, -2)) is None
    assert aligned_offset(SOURCE, shifted(3, -2, scale=2)) is None
    assert aligned_offset(SOURCE, shifted(3, -2, scale=1.0001)) is None
    assert aligned_offset(SOURCE, shifted(3, -2, crs="EPSG:32634")) is None
