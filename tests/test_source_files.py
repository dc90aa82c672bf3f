"""The files source: what a number in a file means, which file is which, and what is said when one is missing."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.errors import CrsError, GridError, MissingBandError, SourceError, UnreadableFileError
from geofield.grid import Grid
from geofield.source import Acquisition, Source, counting, open_source
from geofield.source.timenames import TimePattern
from geofield.testing.source import SourceContract

CRS = "EPSG:32631"
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_490_000)
FOUR = np.arange(1, 17).reshape(4, 4)
ALWAYS = dt.date(1970, 1, 1), dt.date(2100, 1, 1)


def write_tif(
    path: Path,
    *bands: Any,
    dtype: str = "float32",
    transform: Affine = TRANSFORM,
    crs: str | None = CRS,
    nodata: float | None = None,
    scales: tuple[float, ...] = (),
    offsets: tuple[float, ...] = (),
    mask: Any = None,
    alpha: bool = False,
) -> Path:
    """A GeoTIFF of (rows, columns) arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = [np.asarray(band).astype(dtype) for band in bands]
    rows, columns = arrays[0].shape
    options: dict[str, Any] = {"alpha": "yes"} if alpha else {}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", height=rows, width=columns, count=len(arrays), dtype=dtype, crs=crs,
            transform=transform, nodata=nodata, **options,
        ) as dataset,
    ):  # fmt: skip
        for number, array in enumerate(arrays, start=1):
            dataset.write(array, number)
        if scales:
            dataset.scales = scales
        if offsets:
            dataset.offsets = offsets
        if mask is not None:
            dataset.write_mask(np.asarray(mask, bool))
    return path


def box(rows: int = 4, columns: int = 4, transform: Affine = TRANSFORM, crs: str = CRS) -> GeoBox:
    """A grid; by default that of `write_tif`."""
    return GeoBox((rows, columns), transform, crs)


def files(root: Path | str, bands: dict[str, Any] | None = None, **options: Any) -> Source:
    """A source of files; one band `v` in v_{time}.tif by default."""
    return open_source({"type": "files", "root": str(root), "bands": bands or {"v": "v_{time}.tif"}, **options})


def search(source: Source, geobox: GeoBox | None = None) -> list[Acquisition]:
    """Every acquisition."""
    return source.search(Grid(geobox or box()), *ALWAYS)


def read(source: Source, band: str = "v", geobox: GeoBox | None = None) -> np.ndarray:
    """A band of the first acquisition."""
    values: np.ndarray = source.read(search(source)[0], [band], geobox or box())[band]
    return values


class TestFilesContract(SourceContract):
    """The files source keeps the contract, on a grid of its own files and on another."""

    @pytest.fixture(autouse=True, params=["own grid", "other CRS"])
    def _write(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        random = np.random.default_rng(1)
        for day in (1, 6, 11):
            v = random.random((200, 220))
            v[random.random(v.shape) < 0.02] = np.nan
            write_tif(tmp_path / f"v_202504{day:02}T103000.tif", v)
            write_tif(tmp_path / f"q_202504{day:02}T103000.tif", random.integers(0, 5, (100, 110)), dtype="uint8",
                      transform=Affine(20, 0, 500_000, 0, -20, 5_490_000))  # fmt: skip
        self.root = tmp_path
        other = GeoBox((130, 150), Affine(1.9e-4, 0, 2.9995, 0, -1.3e-4, 49.561), "EPSG:4326")
        self.box = box(190, 210) if request.param == "own grid" else other

    def source(self) -> Source:
        """Two bands, of 10 m and 20 m."""
        return files(self.root, {"v": "v_{time}.tif", "q": "q_{time}.tif"}, quality=["q"])

    def grid(self) -> Grid:
        """The files' own, or degrees."""
        return Grid(self.box)

    def days(self) -> tuple[dt.date, dt.date]:
        """Three acquisitions."""
        return dt.date(2025, 4, 1), dt.date(2025, 4, 11)


# --- what a number means ----------------------------------------------------------------------------------------------


def test_value_is_number_times_scale_plus_offset_unless_nodata(tmp_path: Path) -> None:
    numbers = [[0, 1000], [2000, 10000]]
    write_tif(tmp_path / "v_20250401.tif", numbers, numbers, dtype="int16", nodata=0, scales=(1e-4, 0.01),
              offsets=(-0.1, 5.0))  # fmt: skip
    source = files(tmp_path, {"one": "v_{time}.tif", "two": "v_{time}.tif#2"})
    (acquisition,) = search(source)
    values = source.read(acquisition, ["one", "two"], box(2, 2))
    # (number x scale) + offset in float64; 0 is nodata, not -0.1
    np.testing.assert_array_equal(values["one"], [[np.nan, 1000 * 1e-4 - 0.1], [2000 * 1e-4 - 0.1, 10000 * 1e-4 - 0.1]])
    np.testing.assert_allclose(values["two"], np.array([[np.nan, 15], [25, 105]]), rtol=1e-15)


def test_box_overrides_the_tags_of_a_file(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", [[0, 1], [2, 3]], dtype="uint8", nodata=0, scales=(9,), offsets=(9,))
    source = files(tmp_path, {"v": {"path": "v_{time}.tif", "scale": 0.5, "offset": -1, "nodata": 3}})
    np.testing.assert_array_equal(read(source, geobox=box(2, 2)), [[-1, -0.5], [0, np.nan]])


def test_partial_override_keeps_the_other_tags(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", [[0, 1], [2, 3]], dtype="uint8", nodata=0, scales=(2,), offsets=(7,))
    source = files(tmp_path, {"v": {"path": "v_{time}.tif", "offset": 0}})
    np.testing.assert_array_equal(read(source, geobox=box(2, 2)), [[np.nan, 2], [4, 6]])


def test_nan_is_missing_whether_tagged_or_not(tmp_path: Path) -> None:
    numbers = [[np.nan, 1], [2, np.nan]]
    write_tif(tmp_path / "tagged_20250401.tif", numbers, nodata=np.nan)
    write_tif(tmp_path / "plain_20250401.tif", numbers)
    write_tif(tmp_path / "other_20250401.tif", numbers, nodata=2)
    source = files(tmp_path, {name: f"{name}_{{time}}.tif" for name in ("tagged", "plain", "other")})
    (acquisition,) = search(source)
    values = source.read(acquisition, ["tagged", "plain", "other"], box(2, 2))
    np.testing.assert_array_equal(values["tagged"], numbers)
    np.testing.assert_array_equal(values["plain"], numbers)
    np.testing.assert_array_equal(values["other"], [[np.nan, 1], [np.nan, np.nan]])


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("float32", -3.4028234663852886e38), ("float32", 0.1), ("float64", -9999), ("int16", -32768)]
)
def test_nodata_is_compared_in_the_type_of_the_file(tmp_path: Path, dtype: str, nodata: float) -> None:
    write_tif(tmp_path / "v_20250401.tif", [[nodata, 1], [2, 3]], dtype=dtype, nodata=nodata)
    np.testing.assert_array_equal(read(files(tmp_path), geobox=box(2, 2)), [[np.nan, 1], [2, 3]])
    write_tif(tmp_path / "v_20250401.tif", [[nodata, 1], [2, 3]], dtype=dtype)
    source = files(tmp_path, {"v": {"path": "v_{time}.tif", "nodata": nodata}})
    np.testing.assert_array_equal(read(source, geobox=box(2, 2)), [[np.nan, 1], [2, 3]])


def test_nodata_close_to_a_value_does_not_mask_it(tmp_path: Path) -> None:
    close = np.nextafter(np.float32(7), np.float32(8))
    write_tif(tmp_path / "v_20250401.tif", [[7, close]], nodata=7)
    np.testing.assert_array_equal(read(files(tmp_path), geobox=box(1, 2)), [[np.nan, close]])


@pytest.mark.parametrize("nodata", [300, -1, 0.5])
def test_nodata_that_no_number_can_be_masks_nothing(tmp_path: Path, nodata: float) -> None:
    write_tif(tmp_path / "v_20250401.tif", [[0, 1], [254, 255]], dtype="uint8")
    source = files(tmp_path, {"v": {"path": "v_{time}.tif", "nodata": nodata}})
    np.testing.assert_array_equal(read(source, geobox=box(2, 2)), [[0, 1], [254, 255]])


def test_mask_inside_the_file_is_honoured(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", [[1, 2], [3, 4]], dtype="uint8", mask=[[1, 0], [1, 1]])
    np.testing.assert_array_equal(read(files(tmp_path), geobox=box(2, 2)), [[1, np.nan], [3, 4]])


def test_alpha_band_is_honoured(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", [[1, 2], [3, 4]], [[255, 255], [0, 255]], dtype="uint8", alpha=True)
    np.testing.assert_array_equal(read(files(tmp_path), geobox=box(2, 2)), [[1, 2], [np.nan, 4]])


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR, dtype="complex64")
    with pytest.raises(SourceError, match="holds complex64 numbers"):
        read(files(tmp_path))


# --- windows and edges ------------------------------------------------------------------------------------------------


def test_window_beyond_the_edge_is_missing_there(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR, dtype="uint8")
    source = files(tmp_path)
    with counting() as counter:
        values = read(source, geobox=box(4, 4, TRANSFORM @ Affine.translation(-2, 1)))
    n = np.nan
    np.testing.assert_array_equal(values, [[n, n, 5, 6], [n, n, 9, 10], [n, n, 13, 14], [n, n, n, n]])
    assert (counter.reads, counter.bytes) == (1, 6)


def test_window_beside_the_file_is_missing_and_no_read(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR, dtype="uint8")
    with counting() as counter:
        values = read(files(tmp_path), geobox=box(3, 5, TRANSFORM @ Affine.translation(4, 0)))
    assert values.shape == (3, 5)
    assert np.isnan(values).all()
    assert (counter.reads, counter.bytes) == (0, 0)


def test_grid_within_a_thousandth_of_a_pixel_is_the_same_grid(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR / 7)
    near = read(files(tmp_path), geobox=box(4, 4, TRANSFORM @ Affine.translation(9e-4, -9e-4)))
    np.testing.assert_array_equal(near, (FOUR / 7).astype("float32"))


def test_reads_are_counted_once_an_acquisition_and_window(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR, FOUR, dtype="int16")
    source = files(tmp_path, {"a": "v_{time}.tif", "b": "v_{time}.tif#2"})
    (acquisition,) = search(source)
    with counting() as outer:
        source.read(acquisition, ["a"], box())
        with counting() as inner:
            source.read(acquisition, ["a", "b"], box(2, 4))
    assert (inner.reads, inner.bytes) == (1, 2 * 8 * 2)
    assert (outer.reads, outer.bytes) == (2, 2 * 16 + 2 * 8 * 2)


# --- which file is which ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "time"),
    [
        ("NDVI_{time}.tif", "NDVI_20150711.tif", "2015-07-11T00:00:00"),
        ("NDVI_{time}.tif", "NDVI_20150711T100008.tif", "2015-07-11T10:00:08"),
        ("NDVI_{time}.tif", "NDVI_20150711T100008Z.tif", "2015-07-11T10:00:08"),
        ("NDVI_{time}.tif", "NDVI_2015-07-11.tif", "2015-07-11T00:00:00"),
        ("NDVI_{time}.tif", "NDVI_2015-07-11T10:00:08.tif", "2015-07-11T10:00:08"),
        ("NDVI_{time}.tif", "NDVI_2015-07-11T10-00-08Z.tif", "2015-07-11T10:00:08"),
        ("NDVI_{time}.tif", "NDVI_2015-07-11T10:00:08.024Z.tif", "2015-07-11T10:00:08.024"),
        ("{time}/B04.tif", "20150711/B04.tif", "2015-07-11T00:00:00"),
        ("{date}/B04_{time}.tif", "2015-07-11/B04_20150711T100008.tif", "2015-07-11T10:00:08"),
        ("{time}/B04_{time}.tif", "20150711/B04_20150711.tif", "2015-07-11T00:00:00"),
        ("S2A_*_{date}_*/B04.tif", "S2A_29RKH_20150711_0_L2A/B04.tif", "2015-07-11T00:00:00"),
        ("{time}_B04.tif", "20150711_B04.tif", "2015-07-11T00:00:00"),
        ("x{date}T{date}.tif", "x20150711T20150711.tif", "2015-07-11T00:00:00"),
    ],
)
def test_times_are_told_from_names(pattern: str, path: str, time: str) -> None:
    assert TimePattern(pattern).match(path) == dt.datetime.fromisoformat(time).replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("NDVI_{time}.tif", "NDVI_20151301.tif"),  # no 13th month
        ("NDVI_{time}.tif", "NDVI_20150711T250000.tif"),  # no 25th hour
        ("NDVI_{time}.tif", "NDVI_201507110.tif"),
        ("NDVI_{time}.tif", "NDVI_20150711xtif"),  # a dot is a dot
        ("NDVI_{time}.tif", "CLM_20150711.tif"),
        ("NDVI_{time}.tif", "old/NDVI_20150711.tif"),
        ("{date}.tif", "20150711T100008.tif"),
        ("{time}/B04_{time}.tif", "20150711/B04_20150712.tif"),
        ("*_{time}.tif", "a/b_20150711.tif"),
    ],
)
def test_other_names_are_no_match(pattern: str, path: str) -> None:
    assert TimePattern(pattern).match(path) is None


@pytest.mark.parametrize(
    "pattern", ["NDVI.tif", "NDVI_{day}.tif", "{time}/{tile}.tif", "../{time}.tif", "/x/{time}.tif"]
)
def test_pattern_without_a_time_or_outside_the_root_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(
        SourceError, match=r"bands\.v\.path: The file pattern .*(needs \{time\}|below the source's root)"
    ):
        files(tmp_path, {"v": pattern})


def test_several_files_a_day_are_several_acquisitions(tmp_path: Path) -> None:
    for name in ("v_20151208T101125", "v_20151208T100409", "w_20151208T101125", "v_20151209"):
        write_tif(tmp_path / f"{name}.tif", FOUR)
    source = files(tmp_path, {"v": "v_{time}.tif", "w": "w_{time}.tif"})
    found = source.search(Grid(box()), dt.date(2015, 12, 8), dt.date(2015, 12, 8))
    assert [one.id for one in found] == ["20151208T100409", "20151208T101125"]
    assert [sorted(one.assets) for one in found] == [["v"], ["v", "w"]]
    assert found[0].time == dt.datetime(2015, 12, 8, 10, 4, 9, tzinfo=dt.UTC)


def test_missing_band_is_an_error_that_names_the_pattern_and_the_time(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20151208T100409.tif", FOUR)
    source = files(tmp_path, {"v": "v_{time}.tif", "cloud": "CLM_{time}.tif"})
    (acquisition,) = search(source)
    with pytest.raises(
        MissingBandError, match=r"no file for band 'cloud'.*'CLM_\{time\}.tif' for 2015-12-08T10:04:09Z"
    ):
        source.read(acquisition, ["v", "cloud"], box())


def test_index_beyond_the_bands_of_a_file_is_missing(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR)
    with pytest.raises(MissingBandError, match="has 1 bands; band 2 was asked for"):
        read(files(tmp_path, {"v": "v_{time}.tif#2"}))


def test_two_files_of_one_band_and_time_are_refused(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR)
    write_tif(tmp_path / "v_2025-04-01.tif", FOUR)
    with pytest.raises(SourceError, match=r"v_2025-04-01.tif and .*v_20250401.tif both are band v of 2025-04-01"):
        search(files(tmp_path))


def test_footprint_holds_the_files_of_every_band(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR)
    write_tif(tmp_path / "w_20250401.tif", FOUR, transform=TRANSFORM @ Affine.translation(2, 2))
    (acquisition,) = search(files(tmp_path, {"v": "v_{time}.tif", "w": "w_{time}.tif"}))
    assert acquisition.footprint == (500_000, 5_489_940, 500_060, 5_490_000)


def test_footprint_is_in_the_crs_of_the_grid(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR)
    degrees = box(10, 10, Affine(1e-4, 0, 3.0, 0, -1e-4, 49.6), "EPSG:4326")
    (acquisition,) = search(files(tmp_path), degrees)
    assert acquisition.footprint is not None
    # 3 E is the central meridian of zone 31; 40 m are 0.000553 degrees of longitude at 49.56 N
    assert acquisition.footprint[0] == pytest.approx(3.0, abs=1e-6)
    assert acquisition.footprint[2] - acquisition.footprint[0] == pytest.approx(0.000553, abs=1e-6)


def test_search_opens_headers_of_the_asked_days_only(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR)
    (tmp_path / "v_20250402.tif").write_bytes(b"no raster")
    source = files(tmp_path)
    days = [source.search(Grid(box()), day, day) for day in (dt.date(2025, 4, 1), dt.date(2025, 4, 2))]
    assert [len(found) for found in days] == [1, 1]
    # a broken file does not stop the search: reading it does, and names it
    assert days[1][0].footprint is None
    with pytest.raises(UnreadableFileError, match=r"v_20250402.tif cannot be read as a raster"):
        source.read(days[1][0], ["v"], box())


def test_version_is_stable_and_changes_with_the_file(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "v_20250401.tif", FOUR)
    before = search(files(tmp_path))
    assert search(files(tmp_path)) == before
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = search(files(tmp_path))
    assert after[0].id == before[0].id
    assert after[0].version != before[0].version


def test_version_changes_with_any_file_of_the_acquisition_and_with_overrides(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR)
    versions = [search(files(tmp_path, {"v": "v_{time}.tif", "w": "w_{time}.tif"}))[0].version]
    write_tif(tmp_path / "w_20250401.tif", FOUR)
    versions += [
        search(files(tmp_path, {"v": v, "w": "w_{time}.tif"}))[0].version
        for v in ("v_{time}.tif", {"path": "v_{time}.tif", "scale": 2}, {"path": "v_{time}.tif", "offset": 2})
    ]
    assert len(set(versions)) == 4


def test_folders_deeper_than_the_pattern_are_not_searched(tmp_path: Path) -> None:
    for name in ("20250401/B04.tif", "20250406/B04.tif", "20250406/old/B04.tif", "B04.tif"):
        write_tif(tmp_path / name, FOUR)
    assert [one.id for one in search(files(tmp_path, {"red": "{time}/B04.tif"}))] == [
        "20250401T000000",
        "20250406T000000",
    ]


def test_file_that_goes_away_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "v_20250401.tif", FOUR)
    source = files(tmp_path)
    (acquisition,) = search(source)
    path.unlink()
    with pytest.raises(UnreadableFileError, match=r"v_20250401.tif is not there \(any more\)"):
        source.read(acquisition, ["v"], box())


def test_truncated_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0).random((300, 300))
    path = write_tif(tmp_path / "v_20250401.tif", random)
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(UnreadableFileError, match=r"v_20250401.tif cannot be read as a raster: .*Replace the file"):
        read(files(tmp_path), geobox=box(300, 300))


def test_empty_folder_has_nothing_yet(tmp_path: Path) -> None:
    source = files(tmp_path)
    assert search(source) == []
    with pytest.raises(SourceError, match=r"No file at .* matches 'v_\{time\}.tif' \(band v\) yet"):
        source.native_geobox()


def test_folder_of_other_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "B04-2025.tif").touch()
    with pytest.raises(
        SourceError, match=r"None of the 1 files at .* matches any of 'v_\{time\}.tif'; .*'B04-2025.tif'"
    ):
        search(files(tmp_path))


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"There is nothing at .*nowhere\. Check `root`"):
        search(files(tmp_path / "nowhere"))


# --- the source's own grid --------------------------------------------------------------------------------------------


def test_native_grid_is_that_of_the_first_file_of_the_first_band(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250402.tif", np.ones((9, 9)))
    write_tif(tmp_path / "v_20250401.tif", FOUR)
    write_tif(tmp_path / "a_20250331.tif", np.ones((2, 2)))
    assert files(tmp_path, {"v": "v_{time}.tif", "a": "a_{time}.tif"}).native_geobox() == box()


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 500_000, 0, 10, 5_490_000),
        Affine(10, 0, 500_000, 0, -10, 5_490_000) @ Affine.rotation(30),
    ],
    ids=["flipped", "rotated"],
)
def test_grid_that_is_not_north_up_is_no_native_grid(tmp_path: Path, transform: Affine) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR, transform=transform)
    with pytest.raises(GridError, match=r"v_20250401.tif: .*north-up"):
        files(tmp_path).native_geobox()


def test_file_without_a_crs_is_told(tmp_path: Path) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR, crs=None)
    source = files(tmp_path)
    with pytest.raises(CrsError, match=r"v_20250401.tif has no CRS"):
        source.native_geobox()
    with pytest.raises(CrsError, match=r"v_20250401.tif has no CRS"):
        read(source)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": "x"}, r"prefix is no key of it \(value 'x'\).*Its keys are type, root, bands, quality, anonymous"),
        ({"quality": ["scl"]}, "quality names 'scl', which is none of the bands v"),
        ({"bands": {"v": {"path": "{time}", "gain": 2}}}, r"bands\.v\.gain is no key of it"),
        ({"bands": {"v": "{time}.tif#0"}}, r"bands\.v\.index = 0"),
        ({"bands": {}}, r"bands = \{\}"),
        ({"bands": {"v": {"path": "{time}.tif", "scale": float("inf")}}}, r"bands\.v\.scale = inf"),
        ({"root": "ftp://host/x"}, "no root of files"),
        ({"root": ""}, "root = ''"),
        ({"root": "s3://me:secret@bucket/x"}, "s3://bucket/x carries a user name"),
        ({"secret_access_key": "abc"}, r"secret_access_key is no key of it \(value not shown\)"),
        ({"root": "s3://bucket/x?X-Amz-Signature=abc"}, "s3://bucket/x carries"),
    ],
)
def test_wrong_settings_are_told(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    spec = {"type": "files", "root": str(tmp_path), "bands": {"v": "v_{time}.tif"}} | options
    with pytest.raises(SourceError, match=message) as caught:
        open_source(spec)
    told = "".join(traceback.format_exception(caught.value))
    assert not any(secret in told for secret in ("me:secret", "abc"))


def test_missing_keys_are_told() -> None:
    with pytest.raises(SourceError, match="root is missing; bands is missing"):
        open_source({"type": "files"})


def test_relative_root_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tif(tmp_path / "cog" / "v_20250401.tif", FOUR)
    monkeypatch.chdir(tmp_path)
    source = files("cog")
    monkeypatch.chdir("/")
    assert search(source)[0].assets == {"v": str(tmp_path / "cog" / "v_20250401.tif")}


def test_pickle_holds_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tif(tmp_path / "v_20250401.tif", FOUR)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-travel")
    source = files(tmp_path)
    acquisition = search(source)[0]
    assert b"do-not-travel" not in pickle.dumps((source, acquisition))
