"""The cube and its copies in the tools that people have, none of which knows geofield."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geofield.copies.arrays import CopyArray
from geofield.copies.cog import cog_bytes
from geofield.copies.conventions import axis_attributes, geozarr_attributes, mapping_attributes
from geofield.copies.documents import Layout
from geofield.grid import parse_crs
from tests.support.published import FOLDER, check_copy, copies, cube_path, day, make_work, open_copy, publish_all
from tests.test_pipeline import SMALL, A, B, Work


@pytest.fixture
def work(store_url: str) -> Work:
    made = make_work(store_url, 6)
    publish_all(made)
    return made


@pytest.fixture
def local(tmp_path: Path) -> Work:
    made = make_work(str(tmp_path), 6)
    publish_all(made)
    return made


def elsewhere(program: str, *arguments: str, folder: Path) -> Any:
    """What a program prints as JSON, run in a process and a folder where there is no geofield."""
    code = f"{textwrap.dedent(program)}\nassert not [name for name in sys.modules if name.startswith('geofield')]"
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=dict(os.environ), capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout.splitlines()[-1])  # Icechunk logs on stdout


# --- the cube itself, through Icechunk -------------------------------------------------------------------------------


def test_xarray_reads_the_cube_through_icechunk(work: Work, tmp_path: Path) -> None:
    program = """
        import json, sys
        import icechunk, xarray
        url = sys.argv[1]
        if url.startswith("s3://"):
            bucket, _, prefix = url[5:].partition("/")
            endpoint = __import__("os").environ["AWS_ENDPOINT_URL"]
            storage = icechunk.s3_storage(
                bucket=bucket, prefix=f"{prefix}/cubes/b", endpoint_url=endpoint, allow_http=True,
                force_path_style=True, region="us-east-1", from_env=True)
        else:
            storage = icechunk.local_filesystem_storage(f"{url}/cubes/b")
        session = icechunk.Repository.open(storage).readonly_session("main")
        cube = xarray.open_zarr(session.store, consolidated=False, chunks=None)
        one = cube["ndvi"]
        print(json.dumps({
            "days": [str(day)[:10] for day in cube.time.values], "acquired": cube.acquired.values.tolist(),
            "ndvi": one.fillna(-9).values.tolist(), "code": one.attrs["proj:code"], "wkt": cube.spatial_ref.crs_wkt,
            "transform": one.attrs["spatial:transform"],
        }))
        """
    found = elsewhere(program, work.location.url, folder=tmp_path)
    cube = work.cube.open()
    assert found["days"] == [str(day(number)) for number in range(1, 7)]
    assert found["acquired"] == [True, True, False, True, True, False]
    assert np.array_equal(found["ndvi"], cube["ndvi"].fillna(-9).values)
    assert (found["code"], parse_crs(found["wkt"])) == ("EPSG:32631", parse_crs("EPSG:32631"))
    assert found["transform"] == [10, 0, 500000, 0, -10, 5490000]


# --- cube.zarr -------------------------------------------------------------------------------------------------------


def test_xarray_reads_the_copy(work: Work, tmp_path: Path) -> None:
    program = """
        import json, sys
        import xarray
        copy = xarray.open_zarr(sys.argv[1] + "/published/b/cube.zarr")
        print(json.dumps({
            "days": [str(day)[:10] for day in copy.time.values],
            **{name: array.fillna(-9).values.tolist() for name, array in copy.items()},
            "coordinates": sorted(copy.coords), "encoding": copy.time.encoding["units"],
        }))
        """
    found = elsewhere(program, work.location.url, folder=tmp_path)
    cube = work.cube.open()
    assert found["days"] == [str(day(number)) for number in range(1, 7)]
    for name, array in cube.items():
        assert np.allclose(found[str(name)], array.fillna(-9).values, rtol=1e-7, atol=0), name
    assert found["coordinates"] == ["acquired", "digest", "spatial_ref", "time", "x", "y"]
    assert found["encoding"] == "days since 1970-01-01"


def test_rioxarray_and_odc_find_the_grid(work: Work) -> None:
    copy, cube = open_copy(work), work.cube.open()
    check_copy(copy, cube)
    for one in (copy, copy["ndvi_sigma"]):
        assert one.rio.crs.to_epsg() == 32631
        assert one.rio.transform() == SMALL.transform
        assert one.odc.geobox == SMALL
    assert cube.odc.geobox == SMALL
    clipped = copy["ndvi_filled"].rio.clip_box(500010.1, 5489970.1, 500029.9, 5489989.9)
    assert np.array_equal(clipped.values, cube["ndvi_filled"].values[:, 1:3, 1:3], equal_nan=True)
    assert copy["ndvi"].rio.reproject("EPSG:4326").rio.bounds() == pytest.approx(
        (3, 49.562, 3.00056, 49.5625), abs=1e-3
    )


def test_without_consolidated_metadata_it_reads_too(work: Work) -> None:
    url = f"{work.location.url}/{FOLDER}/cube.zarr"
    check_copy(xr.open_zarr(url, chunks=None, consolidated=False), work.cube.open())


@pytest.mark.skipif(
    tuple(int(part) for part in rasterio.__gdal_version__.split(".")[:2]) < (3, 12),
    reason="GDAL 3.10 reads a draft of Zarr v3 only; rasterio brings a newer one on Python 3.12 and newer",
)
def test_gdal_reads_the_copy(local: Work) -> None:
    cube = local.cube.open()
    for name in cube.data_vars:
        with rasterio.open(f'ZARR:"{cube_path(local)}":/{name}') as file:
            assert (file.count, file.crs.to_epsg(), file.transform) == (6, 32631, SMALL.transform)
            values = file.read(masked=True).astype(float).filled(np.nan) * file.scales[0]
        assert np.allclose(values, cube[name].values, rtol=1e-7, equal_nan=True)
        with rasterio.open(f'ZARR:"{cube_path(local)}":/{name}:2') as file:  # one day
            day = file.read(1, masked=True).astype(float).filled(np.nan) * file.scales[0]
        assert np.allclose(day, cube[name].values[2], rtol=1e-7, equal_nan=True)


def test_every_array_says_where_it_is(local: Work) -> None:
    root = json.loads((cube_path(local) / "zarr.json").read_bytes())
    documents = root["consolidated_metadata"]["metadata"]
    assert root["attributes"]["Conventions"] == "CF-1.11"
    assert root["attributes"]["geofield:snapshot"] == local.cube.tip()
    for name in ("ndvi", "ndvi_filled", "ndvi_sigma", "ndvi_age"):
        said = documents[name]["attributes"]
        assert said["grid_mapping"] == "spatial_ref"
        assert said["proj:code"] == "EPSG:32631"
        assert said["spatial:transform"] == [10, 0, 500000, 0, -10, 5490000]
        assert said["spatial:bbox"] == [500000, 5489960, 500040, 5490000]
        assert [one["name"] for one in said["zarr_conventions"]] == ["proj:", "spatial"]
    assert documents["ndvi"]["attributes"]["_FillValue"] == documents["ndvi"]["fill_value"] == -32768
    assert documents["time"]["data_type"] == "int64"
    assert documents["time"]["chunk_grid"]["configuration"]["chunk_shape"] == [32768]
    for name, document in documents.items():
        assert json.loads((cube_path(local) / name / "zarr.json").read_bytes()) == document


def test_a_grid_without_a_code_and_one_in_degrees() -> None:
    local = parse_crs("+proj=laea +lat_0=50 +lon_0=4 +ellps=GRS80 +units=m")
    said = geozarr_attributes(GeoBox((2, 3), Affine(10, 0, 0, 0, -10, 20), local.to_wkt()))
    assert "proj:code" not in said  # the schema of `proj:` takes one way to name a CRS
    assert parse_crs(said["proj:wkt2"]) == local
    degrees = GeoBox((2, 3), Affine(0.1, 0, 4, 0, -0.1, 50), "EPSG:4326")
    assert mapping_attributes(degrees)["GeoTransform"] == "4.0 0.1 0.0 50.0 0.0 -0.1"
    assert axis_attributes(parse_crs("EPSG:4326"), "y")["standard_name"] == "latitude"
    assert axis_attributes(parse_crs("EPSG:2263"), "x")["units"] == "US_survey_foot"


# --- latest.tif ------------------------------------------------------------------------------------------------------


def test_the_geotiff_shows_the_newest_day_with_imagery(work: Work) -> None:
    cube = work.cube.open().sel(time="2025-04-05")  # day 6 has none
    with rasterio.MemoryFile(copies(work.location)[f"{FOLDER}/latest.tif"]) as memory, memory.open() as file:
        assert file.descriptions == ("ndvi", "ndvi_filled", "ndvi_sigma", "ndvi_age")
        assert file.units == ("1", "1", "1", "day")
        assert file.dtypes == ("float32",) * 4
        assert np.isnan(file.nodata)
        assert (file.crs.to_epsg(), file.transform, file.shape) == (32631, SMALL.transform, (4, 4))
        assert file.tags()["date"] == "2025-04-05"
        assert file.tags()["TIFFTAG_DATETIME"] == "2025:04:05 00:00:00"
        assert (file.tags()["box"], file.tags()["snapshot"]) == ("b", work.cube.tip())
        assert file.tags(2)["long_name"] == "daily estimate of ndvi"
        for band, name in enumerate(file.descriptions, 1):
            assert np.array_equal(file.read(band), cube[name].values.astype("float32"), equal_nan=True)


def test_rioxarray_reads_the_geotiff(local: Work) -> None:
    with rioxarray.open_rasterio(Path(local.location.url) / FOLDER / "latest.tif", masked=True) as found:
        assert found.rio.crs.to_epsg() == 32631
        assert found.odc.geobox == SMALL
        assert found.attrs["long_name"] == ("ndvi", "ndvi_filled", "ndvi_sigma", "ndvi_age")
        assert np.isnan(found.values[0]).sum() == 5


def wide_cog() -> tuple[bytes, xr.Dataset]:
    """1,100 x 1,300 pixels, a quarter of them missing."""
    geobox = GeoBox((1100, 1300), Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")
    values = np.add.outer(np.arange(1100.0), np.arange(1300.0)) / 1000
    values[:550, :650] = np.nan
    dataset = xr.Dataset({name: (("y", "x"), values * factor) for name, factor in (("one", 1), ("two", 2))})
    layout = Layout(geobox, (CopyArray("one", "one", None), CopyArray("two", "two", None)), {})
    return cog_bytes(dataset, layout, day(1), {"box": "b"}), dataset


def test_a_wide_geotiff_is_cloud_optimized_and_always_the_same() -> None:
    data, dataset = wide_cog()
    with rasterio.MemoryFile(data) as memory, memory.open() as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.block_shapes == [(512, 512)] * 2
        assert file.overviews(1) == file.overviews(2) == [2, 4]
        assert np.array_equal(file.read(2), dataset["two"].values.astype("float32"), equal_nan=True)
        smaller = file.read(1, out_shape=(550, 650))
        # the mean of 2 x 2 pixels; beside missing ones, of those that are there
        assert smaller[400, 500] == pytest.approx((800.5 + 1000.5) / 1000, abs=1e-5)
        assert np.isnan(smaller[100, 100])
        assert file.tags()["box"] == "b"
    assert wide_cog()[0] == data
    assert_cloud_optimized(data)


def assert_cloud_optimized(data: bytes) -> None:
    """The layout that the COG specification asks for, read from the bytes: all directories, then all pixels.

    The pixels of the smallest overview come first, those of the full image last.
    """
    order = "<" if data[:2] == b"II" else ">"
    assert data[2:4] == (42).to_bytes(2, "little" if order == "<" else "big"), "a classic TIFF"
    directories, first_tiles, position = [], [], int.from_bytes(data[4:8], "little")
    while position:
        directories.append(position)
        count = int.from_bytes(data[position : position + 2], "little")
        entries = {}
        for number in range(count):
            at = position + 2 + 12 * number
            tag, kind = (int.from_bytes(data[at + shift : at + shift + 2], "little") for shift in (0, 2))
            entries[tag] = (kind, *(int.from_bytes(data[at + shift : at + shift + 4], "little") for shift in (4, 8)))
        assert 322 in entries, "tiled"
        _, tiles, where = entries[324]
        first_tiles.append(where if tiles == 1 else int.from_bytes(data[where : where + 4], "little"))
        position = int.from_bytes(data[position + 2 + 12 * count :][:4], "little")
    assert directories == sorted(directories)
    assert first_tiles == sorted(first_tiles, reverse=True)
    assert directories[-1] < first_tiles[-1]


# --- fields.parquet --------------------------------------------------------------------------------------------------


def test_geopandas_reads_the_fields(work: Work) -> None:
    data = copies(work.location)[f"{FOLDER}/fields.parquet"]
    found = geopandas.read_parquet(io.BytesIO(data))
    assert found.crs.to_epsg() == 4326
    assert found["id"].tolist() == ["A", "B"]
    assert found["collection"].tolist() == ["b", "b"]
    assert found["planting_date"].tolist() == [day(1)] * 2
    assert found["harvest_date"].tolist() == [day(30), None]
    assert found["crop"].fillna("").tolist() == ["", "maize"]
    assert found["properties"].tolist() == ["{}", '{"farm": "Höfe"}']
    assert found["covered"].tolist() == pytest.approx([1, 1])
    back = found.to_crs("EPSG:32631").geometry
    assert [one.symmetric_difference(shape).area < 1e-3 for one, shape in zip(back, (A, B), strict=True)] == [True] * 2
    said = json.loads(pq.read_schema(io.BytesIO(data)).metadata[b"geo"])
    assert said["version"] == "1.1.0"
    assert said["primary_column"] == "geometry"
    assert said["columns"]["geometry"]["encoding"] == "WKB"
    assert said["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]


def test_duckdb_reads_the_fields(local: Work) -> None:
    import duckdb
    import shapely

    path = Path(local.location.url) / FOLDER / "fields.parquet"
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT id, planting_date, harvest_date, crop, bbox.xmin, geometry FROM '{path}' WHERE covered > 0.5 "
            "ORDER BY id"
        ).fetchall()
    assert [row[:4] for row in rows] == [("A", day(1), day(30), None), ("B", day(1), None, "maize")]
    shapes = [shapely.from_wkb(row[5]) for row in rows]
    assert [shape.bounds[0] for shape in shapes] == [row[4] for row in rows]
    centre = Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True).transform(500010, 5489990)
    assert shapes[0].centroid.coords[0] == pytest.approx(centre, abs=1e-7)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_publishes_what_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from orchestrate.cli import main
    from tests.support.smallstore import day as nth
    from tests.support.smallstore import feature, make_store, write_fields

    url = str(tmp_path / "store")
    make_store(url)
    main(["submit", url, str(write_fields(tmp_path / "f.geojson", feature("f1", 50, 50)))])
    assert main(["run", url, "--until", str(nth(4)), "--json"]) == 0
    capsys.readouterr()
    assert main(["publish", url, "--box", "b", "--fields", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["zarr"], found["cog"], found["fields"]["key"]) == (None, None, "published/b/fields.parquet")
    assert main(["publish", url, "--box", "b"]) == 0
    told = capsys.readouterr().out
    assert "published/b/cube.zarr: 4 days, 4 days written" in told
    assert "latest.tif of 2025-04-03" in told
    (of_fields,) = (line for line in told.splitlines() if "fields.parquet: " in line)
    assert of_fields.endswith("was up to date")  # since it was asked for alone before
    assert xr.open_zarr(f"{url}/published/b/cube.zarr", chunks=None).sizes == {"time": 4, "y": 40, "x": 40}
    assert main(["publish", url, "--box", "c"]) == 2
    assert "There is no box 'c'" in capsys.readouterr().err
