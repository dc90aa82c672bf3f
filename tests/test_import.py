"""Imagery that is there already: what a path holds, stacks as a source, and bringing it into a cube."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import geofield
from geofield.errors import (
    BoxError,
    CrsError,
    GridError,
    MissingBandError,
    MissingDaysError,
    SourceError,
    UnreadableFileError,
)
from geofield.grid import Grid
from geofield.source import Source, open_source
from geofield.testing.source import SourceContract
from orchestrate import cli, run
from orchestrate.importing import import_imagery
from orchestrate.inbox import submit
from tests.support import smallstore
from tests.support.scenes import write_tif

GEOBOX = GeoBox((40, 40), Affine(10, 0, smallstore.X0, 0, -10, smallstore.Y0 + 400), smallstore.CRS)
DAYS = [smallstore.day(number) for number in range(1, 21, 2)]
VARIABLES = {"ndvi": {"band": "ndvi", "mask": {"cloud": [1]}, "valid_range": [-1, 1], "state": "kalman"}}
SCALE, FILL = 0.0001, -9999


def images() -> dict[str, np.ndarray]:
    """(time, y, x): ndvi in ten-thousandths, -9999 where missing, and a cloud mask."""
    random = np.random.default_rng(11)
    shape = (len(DAYS), *GEOBOX.shape)
    ndvi = random.integers(-2000, 9000, shape).astype("int16")
    ndvi[random.random(shape) < 0.1] = FILL
    return {"ndvi": ndvi, "cloud": (random.random(shape) < 0.2).astype("uint8")}


IMAGES = images()


def write_folder(folder: Path) -> Path:
    """A folder of daily GeoTIFFs."""
    for step, day in enumerate(DAYS):
        path = folder / f"NDVI_{day:%Y%m%d}T103000.tif"
        write_tif(path, IMAGES["ndvi"][step], GEOBOX, nodata=FILL)
        with rasterio.open(path, "r+") as dataset:
            dataset.scales = (SCALE,)
        write_tif(folder / f"CLOUD_{day:%Y%m%d}T103000.tif", IMAGES["cloud"][step], GEOBOX)
    return folder


def stack(**changes: Any) -> xr.Dataset:
    """The same as a dataset with the attributes of CF, numbers as they are stored."""
    times = [np.datetime64(f"{day}T10:30:00", "ns") for day in DAYS]
    dims = ("time", "y", "x")
    data = {name: (dims, changes.get(name, values)) for name, values in IMAGES.items()}
    found = xr.Dataset(data, coords={**xr_coords(GEOBOX), "time": times})
    found["ndvi"].attrs |= {"scale_factor": SCALE, "_FillValue": np.int16(FILL)}
    for name in IMAGES:
        found[name].attrs["grid_mapping"] = "spatial_ref"
    return found


def write_zarr(path: Path) -> str:
    """A Zarr store, an image to a chunk."""
    found = stack()
    found.to_zarr(path, encoding={name: {"chunks": (1, 40, 40)} for name in IMAGES}, consolidated=False, zarr_format=3)
    return str(path)


def write_netcdf(path: Path, dataset: xr.Dataset | None = None) -> str:
    """A NetCDF 4 file."""
    pytest.importorskip("h5netcdf")
    path.parent.mkdir(parents=True, exist_ok=True)
    (stack() if dataset is None else dataset).to_netcdf(path, engine="h5netcdf")
    return str(path)


def source(url: str, **options: Any) -> Source:
    """A source of both bands."""
    return open_source({"type": "stack", "url": url, "bands": {"ndvi": "ndvi", "cloud": "cloud"}, **options})


class _StackContract(SourceContract):
    def grid(self) -> Grid:
        return Grid(GEOBOX)

    def days(self) -> tuple[dt.date, dt.date]:
        return DAYS[0], DAYS[-1]

    def source(self) -> Source:
        return source(self.url, quality=["cloud"])


class TestZarr(_StackContract):
    """A Zarr store."""

    @pytest.fixture(autouse=True)
    def _made(self, tmp_path: Path) -> None:
        self.url = write_zarr(tmp_path / "stack.zarr")


class TestNetcdf(_StackContract):
    """A NetCDF file."""

    @pytest.fixture(autouse=True)
    def _made(self, tmp_path: Path) -> None:
        self.url = write_netcdf(tmp_path / "stack.nc")


# --- numbers ----------------------------------------------------------------------------------------------------------


def physical(step: int) -> np.ndarray:
    """The NDVI of an image, worked from its numbers."""
    return np.where(IMAGES["ndvi"][step] == FILL, np.nan, IMAGES["ndvi"][step] * SCALE)


@pytest.mark.parametrize("kind", ["zarr", "netcdf", "rows to the north", "other grid, cut"])
def test_values_are_the_numbers_by_scale(tmp_path: Path, kind: str) -> None:
    if kind == "zarr":
        url = write_zarr(tmp_path / "x.zarr")
    else:
        url = write_netcdf(tmp_path / "x.nc", stack().isel(y=slice(None, None, -1)) if "north" in kind else None)
    one = source(url)
    assert one.native_geobox() == GEOBOX
    found = one.search(Grid(GEOBOX), DAYS[0], DAYS[-1])
    assert [scene.time for scene in found] == [dt.datetime(*day.timetuple()[:3], 10, 30, tzinfo=dt.UTC) for day in DAYS]
    window = GEOBOX[5:30, 7:19] if "cut" in kind else GEOBOX
    values = one.read(found[3], ["ndvi", "cloud"], window)
    rows = (slice(5, 30), slice(7, 19)) if "cut" in kind else (slice(None), slice(None))
    np.testing.assert_array_equal(values["ndvi"], physical(3)[rows])
    np.testing.assert_array_equal(values["cloud"], IMAGES["cloud"][3][rows].astype(float))


def test_unsigned_numbers_of_old_files_and_what_the_box_says(tmp_path: Path) -> None:
    dataset = stack()
    dataset["cloud"] = (dataset["cloud"].dims, np.full(dataset["cloud"].shape, -56, "int8"))
    dataset["cloud"].attrs |= {"_Unsigned": "true", "grid_mapping": "spatial_ref"}
    url = write_netcdf(tmp_path / "x.nc", dataset)
    bands = {"ndvi": {"variable": "ndvi", "scale": 2.0, "offset": 1.0, "nodata": 5}, "cloud": "cloud"}
    one = source(url, bands=bands)
    values = one.read(one.search(Grid(GEOBOX), *DAYS[:2])[0], ["ndvi", "cloud"], GEOBOX)
    assert (values["cloud"] == 200).all()  # 256 - 56
    expected = np.where(IMAGES["ndvi"][0] == 5, np.nan, IMAGES["ndvi"][0] * 2.0 + 1)
    np.testing.assert_array_equal(values["ndvi"], expected)


def test_only_steps_with_imagery_are_acquisitions(tmp_path: Path) -> None:
    dataset = stack().assign(came=("time", [step % 3 == 0 for step in range(len(DAYS))]))
    url = write_netcdf(tmp_path / "x.nc", dataset)
    found = source(url, acquired="came").search(Grid(GEOBOX), DAYS[0], DAYS[-1])
    assert [one.time.date() for one in found] == DAYS[::3]
    with pytest.raises(MissingBandError, match=r"no variable 'cloud' over time alone"):
        source(url, acquired="cloud").search(Grid(GEOBOX), DAYS[0], DAYS[-1])


def test_versions_follow_the_chunks_of_a_zarr_store(tmp_path: Path) -> None:
    url = write_zarr(tmp_path / "x.zarr")

    def versions() -> list[str]:
        return [one.version for one in source(url).search(Grid(GEOBOX), DAYS[0], DAYS[-1])]

    before = versions()
    assert len(set(before)) == len(DAYS)
    group = zarr.open_group(url, mode="r+")
    for name in (*IMAGES, "time"):
        array = group[name]
        assert isinstance(array, zarr.Array)
        array.append(np.asarray(array[-1:]) + (400 if name == "time" else 0), axis=0)
    assert versions() == before  # that the store grew is no news of older days
    chunk = tmp_path / "x.zarr" / "ndvi" / "c" / "4" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes())
    assert [a == b for a, b in zip(versions(), before, strict=True)] == [step != 4 for step in range(len(DAYS))]


def test_files_by_a_star_and_times_that_are_there_twice(tmp_path: Path) -> None:
    for step in (0, 1):
        write_netcdf(tmp_path / f"d{step}.nc", stack().isel(time=[step]))
    one = source(str(tmp_path / "d*.nc"))
    found = one.search(Grid(GEOBOX), DAYS[0], DAYS[-1])
    assert [scene.time.date() for scene in found] == DAYS[:2]
    np.testing.assert_array_equal(one.read(found[1], ["ndvi"], GEOBOX)["ndvi"], physical(1))
    write_netcdf(tmp_path / "d2.nc", stack().isel(time=[1]))
    with pytest.raises(SourceError, match=r"d1\.nc and .*d2\.nc both hold"):
        one.search(Grid(GEOBOX), DAYS[0], DAYS[-1])


def test_what_is_wrong_with_a_stack_is_told(tmp_path: Path) -> None:
    everything = (Grid(GEOBOX), DAYS[0], DAYS[-1])
    with pytest.raises(SourceError, match="neither a Zarr store nor a NetCDF file"):
        source(str(tmp_path / "nothing.nc")).search(*everything)
    url = write_zarr(tmp_path / "x.zarr")
    with pytest.raises(MissingBandError, match=r"no variable 'evi'; it has cloud, ndvi"):
        source(url, bands={"evi": "evi"}).search(*everything)
    with pytest.raises(SourceError, match=r"no times in 'day'"):
        source(url, time="day").search(*everything)
    bare = stack().drop_vars("spatial_ref")
    for name in (*IMAGES, "x", "y"):
        bare[name].attrs.clear()
    named = write_netcdf(tmp_path / "bare.nc", bare)
    with pytest.raises(CrsError, match="does not say its CRS"):
        source(named).native_geobox()
    assert source(named, crs="EPSG:32631").native_geobox() == GEOBOX
    uneven = stack().assign_coords(x=np.cumsum(np.arange(40) + 1.0))
    with pytest.raises(GridError, match="no regular grid"):
        source(write_netcdf(tmp_path / "uneven.nc", uneven)).native_geobox()
    (tmp_path / "broken.nc").write_bytes(b"CDF no file at all")
    with pytest.raises((UnreadableFileError, SourceError), match=r"broken\.nc"):
        source(str(tmp_path / "broken.nc")).search(*everything)


@pytest.mark.s3
def test_a_zarr_store_on_s3(s3_url: str) -> None:
    url = f"{s3_url}/stack.zarr"
    stack().to_zarr(url, encoding={name: {"chunks": (1, 40, 40)} for name in IMAGES}, consolidated=False)
    one = source(url)
    found = one.search(Grid(GEOBOX), DAYS[0], DAYS[-1])
    assert len({scene.version for scene in found}) == len(DAYS)
    np.testing.assert_array_equal(one.read(found[2], ["ndvi"], GEOBOX)["ndvi"], physical(2))


# --- what a path holds ------------------------------------------------------------------------------------------------


def test_bands_are_read_off_the_names(tmp_path: Path) -> None:
    found = geofield.imagery_at(str(write_folder(tmp_path / "in")), quality=["cloud"])
    assert found.spec["bands"] == {"cloud": "CLOUD_{time}.tif", "ndvi": "NDVI_{time}.tif"}
    assert (found.first, found.last, found.images, found.geobox) == (DAYS[0], DAYS[-1], len(DAYS), GEOBOX)
    for name in ("20250401/B04.tif", "20250406/B04.tif", "20250401/notes.txt"):
        write_tif(tmp_path / "folders" / name, IMAGES["cloud"][:2], GEOBOX)
    assert geofield.imagery_at(str(tmp_path / "folders")).spec["bands"] == {
        "b04_1": "{time}/B04.tif#1", "b04_2": "{time}/B04.tif#2",
    }  # fmt: skip
    stacked = geofield.imagery_at(write_zarr(tmp_path / "x.zarr"))
    assert stacked.spec["bands"] == {"ndvi": "ndvi", "cloud": "cloud"}


def test_what_is_no_imagery_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="There is nothing at"):
        geofield.imagery_at(str(tmp_path / "none"))
    write_tif(tmp_path / "a" / "NDVI.tif", IMAGES["cloud"][0], GEOBOX)
    with pytest.raises(SourceError, match=r"No GeoTIFF at .* has a time in its name"):
        geofield.imagery_at(str(tmp_path / "a"))
    for name in ("A_20250401.tif", "a-20250401.tif"):
        write_tif(tmp_path / "b" / name, IMAGES["cloud"][0], GEOBOX)
    with pytest.raises(SourceError, match="do not tell their bands"):
        geofield.imagery_at(str(tmp_path / "b"))


# --- into a cube ------------------------------------------------------------------------------------------------------


def fields_into(store: geofield.Store, folder: Path) -> None:
    """Three fields, in the inbox."""
    fields = [smallstore.feature("f1", 20, 20), smallstore.feature("f2", 205, 111, 73),
              smallstore.feature("f3", 150, 250, planting_date=str(smallstore.day(12)))]  # fmt: skip
    submit(store, [smallstore.write_fields(folder / "fields.geojson", *fields)], "fields")


def rows_of(store: geofield.Store) -> pd.DataFrame:
    """What the rows say of the imagery."""
    return smallstore.numbers(store).drop(columns=["digest"])


@pytest.fixture
def expected(tmp_path: Path) -> pd.DataFrame:
    """The rows of an ordinary box over the folder."""
    folder = write_folder(tmp_path / "in")
    bands = {"ndvi": "NDVI_{time}.tif", "cloud": "CLOUD_{time}.tif"}
    files = {"type": "files", "root": str(folder), "bands": bands, "quality": ["cloud"]}
    store = smallstore.make_store(str(tmp_path / "plain"), smallstore.box(source=files, variables=VARIABLES))
    fields_into(store, tmp_path)
    run(store, DAYS[-1])
    return rows_of(store)


@pytest.mark.parametrize("kind", ["folder", "zarr", "netcdf"])
def test_imported_rows_are_those_of_the_same_files(tmp_path: Path, expected: pd.DataFrame, kind: str) -> None:
    path = {
        "folder": lambda: str(tmp_path / "in"),
        "zarr": lambda: write_zarr(tmp_path / "x.zarr"),
        "netcdf": lambda: write_netcdf(tmp_path / "x.nc"),
    }[kind]()
    store = geofield.create_store(str(tmp_path / "store"))
    imagery = geofield.imagery_at(path, quality=["cloud"])
    receipt = import_imagery(store, imagery, "b", {"variables": VARIABLES})
    assert receipt["is_new_box"]
    assert receipt["boxes"]["b"]["days_appended"] == 19
    before = smallstore.objects(store, "cubes")
    again = import_imagery(store, geofield.imagery_at(path, quality=["cloud"]), "b")
    assert (again["boxes"]["b"]["days_appended"], again["boxes"]["b"]["days_present"]) == (0, 19)
    assert smallstore.objects(store, "cubes") == before
    fields_into(store, tmp_path)
    late = run(store, DAYS[-1])["boxes"]["b"]
    assert (late["days_appended"], late["days_amended"], late["late"]["fields"]) == (0, 0, 3)
    pd.testing.assert_frame_equal(rows_of(store), expected, check_exact=True)


def test_fields_that_are_there_get_their_rows_at_once(tmp_path: Path, expected: pd.DataFrame) -> None:
    store = smallstore.make_store(
        str(tmp_path / "store"), smallstore.box(source={"type": "simulated"}, variables={"ndvi": {"index": "NDVI"}})
    )
    fields_into(store, tmp_path)
    imagery = geofield.imagery_at(str(tmp_path / "in"), quality=["cloud"])
    assert import_imagery(store, imagery, "c", {"variables": VARIABLES})["boxes"]["c"]["rows_written"] == 0
    run(store, DAYS[0])  # takes the fields into both boxes
    assert set(store.rows()["box"]) == {"b", "c"}
    pd.testing.assert_frame_equal(rows_of_box(store, "c"), expected.assign(box="c"), check_exact=True)


def rows_of_box(store: geofield.Store, name: str) -> pd.DataFrame:
    """The rows of one box."""
    return smallstore.numbers(store, name).drop(columns=["digest"])


def test_a_cut_import_is_completed_by_the_same_call(
    tmp_path: Path, expected: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = geofield.create_store(str(tmp_path / "store"))
    imagery = geofield.imagery_at(str(tmp_path / "in"), quality=["cloud"])

    def stop(done: int, days: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_imagery(store, imagery, "b", {"variables": VARIABLES}, progress=stop)
    assert len(store.cube("b").open()["time"]) == 8
    assert import_imagery(store, imagery, "b")["boxes"]["b"]["days_appended"] == 11
    fields_into(store, tmp_path)
    run(store, DAYS[-1])
    pd.testing.assert_frame_equal(rows_of(store), expected, check_exact=True)


def test_new_files_are_appended_by_ordinary_runs(tmp_path: Path, expected: pd.DataFrame) -> None:
    store = geofield.create_store(str(tmp_path / "store"))
    imagery = geofield.imagery_at(str(tmp_path / "in"), quality=["cloud"])
    receipt = import_imagery(store, imagery, "b", {"variables": VARIABLES}, until=DAYS[4])
    assert receipt["boxes"]["b"]["days_appended"] == 9
    fields_into(store, tmp_path)
    assert run(store, DAYS[-1])["boxes"]["b"]["days_appended"] == 10
    pd.testing.assert_frame_equal(rows_of(store), expected, check_exact=True)


def test_a_box_with_another_source_keeps_what_was_imported(tmp_path: Path, expected: pd.DataFrame) -> None:
    """The source knows nothing of those days; comparing them with it would take them away."""
    root = write_folder(tmp_path / "later")
    for path in root.iterdir():
        if path.name.rpartition("_")[2] < f"{DAYS[6]:%Y%m%d}":
            path.unlink()
    bands = {"ndvi": "NDVI_{time}.tif", "cloud": "CLOUD_{time}.tif"}
    files = {"type": "files", "root": str(root), "bands": bands, "quality": ["cloud"]}
    store = smallstore.make_store(str(tmp_path / "store"), smallstore.box(source=files, variables=VARIABLES))
    imagery = geofield.imagery_at(str(tmp_path / "in"), quality=["cloud"])
    import_imagery(store, imagery, "b", until=DAYS[5])
    assert store.box("b").imported == DAYS[5]
    fields_into(store, tmp_path)
    done = run(store, DAYS[-1])["boxes"]["b"]
    assert (done["days_appended"], done["days_amended"]) == (8, 0)
    pd.testing.assert_frame_equal(rows_of(store), expected, check_exact=True)
    store.add_box(smallstore.box(source=files, variables=VARIABLES))  # said again
    assert store.box("b").imported == DAYS[5]


def test_imports_that_would_mislead_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    imagery = geofield.imagery_at(str(folder), quality=["cloud"])
    own = {"type": "files", "root": str(folder), "bands": {"ndvi": "NDVI_{time}.tif"}}
    ten_days_before = DAYS[0] - dt.timedelta(days=10)
    early = smallstore.box(start=ten_days_before, variables={"ndvi": {"band": "ndvi"}}, source=own)
    store = smallstore.make_store(str(tmp_path / "store"), early)
    with pytest.raises(MissingDaysError, match=r"kept as days without imagery\. Run until 2025-03-31 first"):
        import_imagery(store, imagery, "b")
    with pytest.raises(GridError, match=r"no area in common|has no pixel on the source's grid"):
        import_imagery(store, imagery, "far", {"bbox": [10.0, 50.0, 10.01, 50.01], "grid": {"resolution": 10}})


def test_imported_days_and_a_new_cube_exclude_each_other(tmp_path: Path) -> None:
    """The new cube is built from the box's own source, which knows nothing of those days."""
    imagery = geofield.imagery_at(str(write_folder(tmp_path / "in")), quality=["cloud"])
    (tmp_path / "later").mkdir()
    bands = {"ndvi": "NDVI_{time}.tif", "cloud": "CLOUD_{time}.tif"}
    files = {"type": "files", "root": str(tmp_path / "later"), "bands": bands, "quality": ["cloud"]}
    box, other = (
        smallstore.box(source=files, variables={"ndvi": VARIABLES["ndvi"] | noise}) for noise in ({}, {"q": 1e-3})
    )
    store = smallstore.make_store(str(tmp_path / "store"), box)
    store.add_box(box.model_copy(update={"id": "c"}))
    import_imagery(store, imagery, "b")
    with pytest.raises(BoxError, match=r"up to 2025-04-19 were imported.*Make a box with another id"):
        store.change_box(other)
    assert store.pending_change("b") is None
    store.change_box(box.model_copy(update={"settle_days": 2}))  # leaves the cube as it is
    store.change_box(other.model_copy(update={"id": "c"}))
    with pytest.raises(BoxError, match="Run first, then import"):
        import_imagery(store, imagery, "c")
    run(store, DAYS[0])
    import_imagery(store, imagery, "c")
    assert [int(store.cube(name).head().acquired.sum()) for name in "bc"] == [10, 9]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, url = str(write_folder(tmp_path / "in")), str(tmp_path / "store")
    geofield.create_store(url)
    variables = json.dumps(VARIABLES)
    words = ["import", url, folder, "--box", "b", "--quality", "cloud", "--variables", variables]
    assert cli.main([*words, "--until", str(DAYS[2])]) == 0
    assert "10 images from 2025-04-01 to 2025-04-19; bands: cloud, ndvi" in (said := capsys.readouterr().out)
    assert "box b (made now): 5 days appended, 0 were there, 0 rows written; last day 2025-04-05" in said
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["boxes"]["b"]["days_appended"], found["imagery"]["images"]) == (14, 10)
    monkeypatch.setenv("GEOFIELD_STORE", url)
    assert cli.main(["import", folder, "--box", "b", "--quality", "cloud"]) == 0
    assert "box b: 0 days appended, 19 were there" in capsys.readouterr().out
    assert cli.main(["import", url, folder, "--box", "b", "--band", "ndvi"]) == 2
    assert "--band is NAME=PATTERN" in capsys.readouterr().err
