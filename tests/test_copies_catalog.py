"""Published copies as STAC and schema.org: valid, true of what stands, readable by others, the same bytes each time."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import pystac
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geofield.boxes import Box
from geofield.errors import InputError
from geofield.grid import Grid
from geofield.pipeline import append_days, correct_days, publish
from geofield.pipeline.removal import remove_box
from geofield.source import open_source
from geofield.store import Location
from geofield.testing.source import ArraySource
from tests.support.published import FOLDER, copies, day, fields, image, source
from tests.test_pipeline import SMALL, A, B, Work, make_box, scene

EVERYTHING = {"zarr": True, "cog": True, "fields": True, "stac": True}
DOCUMENTS = ("stac/latest.json", "stac/collection.json", "dataset.jsonld", "index.html")


def append(work: Work, days: int) -> None:
    """Extend cube and rows to so many days."""
    first = len(work.cube.head().days) + 1
    append_days(day(first), day(days), source(days), work.fields(A=A, B=B), work.cube, work.results)


def make_work(url: str, days: int) -> Work:
    """A cube of so many days, and its rows."""
    work = Work(url, make_box(SMALL))
    if days:
        append(work, days)
    return work


def changed(box: Box, **values: Any) -> Box:
    """The box with other values."""
    return box.model_copy(update=values)


def publish_everything(work: Work, **chosen: bool) -> Any:
    """All copies, and what tells of them."""
    return publish(work.location, work.box, work.cube, fields(), **{**EVERYTHING, **chosen})


def read(location: Location, key: str) -> Any:
    """A JSON document."""
    return json.loads(location.read(key))


def documents(location: Location) -> dict[str, Any]:
    """The STAC documents of a store with one box."""
    names = ("published/catalog.json", f"{FOLDER}/stac/collection.json", f"{FOLDER}/stac/latest.json")
    return {name: read(location, name) for name in names}


def children(location: Location) -> list[str]:
    """The boxes that the catalogue lists."""
    return [one["title"] for one in read(location, "published/catalog.json")["links"] if one["rel"] == "child"]


# --- valid ------------------------------------------------------------------------------------------------------------


def validator() -> JsonSchemaSTACValidator:
    """Pystac's, with the schemas that its package holds; it must not look for others anywhere."""
    return JsonSchemaSTACValidator()


def test_documents_are_valid_stac(tmp_path: Path) -> None:
    work = make_work(str(tmp_path / "store"), 5)
    publish_everything(work)
    for name, document in documents(work.location).items():
        validator().validate_core(document, pystac.STACObjectType(document["type"]), "1.1.0", name)
    broken = documents(work.location)[f"{FOLDER}/stac/collection.json"] | {"license": None}
    with pytest.raises(pystac.STACValidationError, match="license"):
        validator().validate_core(broken, pystac.STACObjectType.COLLECTION, "1.1.0")


def extension_schemas() -> dict[str, Any]:
    """Address -> schema, of a folder of schemas; that of PROJJSON comes with pyproj."""
    folder = os.environ.get("STAC_EXTENSION_SCHEMAS")
    if not folder:
        pytest.skip(
            "no package has the schemas of STAC's extensions; STAC_EXTENSION_SCHEMAS=DIR names a folder of them"
        )
    found = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
    projjson = json.loads((Path(pyproj.datadir.get_data_dir()) / "projjson.schema.json").read_text())
    own = {f"https://proj.org/schemas/v0.{minor}/projjson.schema.json": projjson for minor in (4, 5, 6, 7)}
    return own | {one["$id"].rstrip("#"): one for one in found}


WITHOUT_CODE = "+proj=tmerc +lat_0=0 +lon_0=3 +k=0.9997 +x_0=500000 +y_0=-549 +datum=WGS84 +units=m"
"""Almost UTM zone 31."""


@pytest.mark.parametrize("crs", ["EPSG:32631", WITHOUT_CODE])
def test_extensions_are_valid(tmp_path: Path, crs: str) -> None:
    schemas = extension_schemas()
    work = make_work(str(tmp_path / "store"), 5) if crs == "EPSG:32631" else _elsewhere(tmp_path, crs)
    publish_everything(work)
    own = validator()
    own.schema_cache.update(schemas)
    checked = set()
    for name, document in documents(work.location).items():
        for extension in document.get("stac_extensions", ()):
            own.validate_extension(document, pystac.STACObjectType(document["type"]), "1.1.0", extension, f"/{name}")
            checked.add(extension.split("/")[3])
    assert checked == {"datacube", "projection", "raster", "processing", "table"}


def _elsewhere(tmp_path: Path, crs: str) -> Work:
    """The same pixels in a CRS without a code."""
    grid = GeoBox(SMALL.shape, SMALL.transform, crs)
    work = Work(str(tmp_path / "store"), make_box(grid))
    scenes = ArraySource(grid, [scene(day(1), ndvi=image(1))])
    append_days(day(1), day(2), scenes, work.fields(A=A), work.cube, work.results)
    return work


# --- true -------------------------------------------------------------------------------------------------------------


def test_what_is_told_is_what_readers_find(tmp_path: Path) -> None:
    work = make_work(str(tmp_path / "store"), 5)
    publish_everything(work)
    root = pystac.Catalog.from_file(str(tmp_path / "store" / "published" / "catalog.json"))
    (box,) = root.get_children()
    assert isinstance(box, pystac.Collection)
    (image,) = box.get_items()

    asset = image.assets["image"]
    with rasterio.open(asset.get_absolute_href()) as dataset:
        assert dataset.crs.to_epsg() == int(asset.extra_fields["proj:code"].removeprefix("EPSG:"))
        assert list(dataset.transform)[:6] == asset.extra_fields["proj:transform"]
        assert list(dataset.shape) == asset.extra_fields["proj:shape"]
        assert list(dataset.descriptions) == [band["name"] for band in asset.to_dict()["bands"]]
        assert dataset.tags()["date"] == str(image.common_metadata.start_datetime)[:10] == str(day(5))

    cube = xr.open_zarr(box.assets["cube"].get_absolute_href(), chunks=None)
    dimensions = box.ext.cube.dimensions
    assert dimensions["time"].extent == [f"{day(1)}T00:00:00Z", f"{day(5)}T00:00:00Z"]
    assert [str(cube["time"].values[n])[:10] for n in (0, -1)] == [str(day(1)), str(day(5))]
    for axis in ("x", "y"):
        assert dimensions[axis].extent == [cube[axis].values.min(), cube[axis].values.max()]
        assert dimensions[axis].step == cube[axis].values[1] - cube[axis].values[0]
    assert set(box.ext.cube.variables) == set(cube.data_vars)
    assert box.assets["cube"].extra_fields["geofield:snapshot"] == work.cube.tip()

    table = geopandas.read_parquet(box.assets["fields"].get_absolute_href())
    told = [column["name"] for column in box.assets["fields"].extra_fields["table:columns"]]
    assert told == [name for name in table.columns if name != "bbox"]
    rows = work.results.read()
    told = [column["name"] for column in box.assets["rows"].extra_fields["table:columns"]]
    assert told == [*rows.columns, "month"]  # the partition, which readers of rows need not see
    assert Path(box.assets["rows"].get_absolute_href(), "_delta_log").is_dir()

    west, south, east, north = image.bbox or ()
    x, y = pyproj.Transformer.from_crs(4326, SMALL.crs.epsg, always_xy=True).transform(
        (west + east) / 2, (south + north) / 2
    )
    assert SMALL.boundingbox.left < x < SMALL.boundingbox.right
    assert SMALL.boundingbox.bottom < y < SMALL.boundingbox.top


def test_the_newest_image_is_a_source_for_others(tmp_path: Path) -> None:
    work = make_work(str(tmp_path / "store"), 5)
    publish_everything(work)
    bands = {"ndvi": "image#1"}
    url = str(tmp_path / "store" / "published" / "catalog.json")
    source = open_source({"type": "stac", "url": url, "bands": bands})
    (one,) = source.search(Grid(SMALL), day(1), day(9))
    assert one.time.date() == day(5)
    expected = work.cube.open()["ndvi"].values[-1]
    np.testing.assert_array_equal(source.read(one, ["ndvi"], SMALL)["ndvi"], expected.astype("float32"))


def test_a_dataset_for_harvesters(tmp_path: Path) -> None:
    work = make_work(str(tmp_path / "store"), 5)
    publish_everything(work)
    found = read(work.location, f"{FOLDER}/dataset.jsonld")
    assert found["@type"] == "Dataset"
    assert found["@context"] == "https://schema.org/"
    assert 50 <= len(found["description"]) <= 5000  # what Google's harvester takes
    assert found["temporalCoverage"] == f"{day(1)}/{day(5)}"
    south, west, north, east = map(float, found["spatialCoverage"]["geo"]["box"].split())
    assert [west, south, east, north] == documents(work.location)[f"{FOLDER}/stac/collection.json"]["extent"][
        "spatial"
    ]["bbox"][0]
    assert [one["name"] for one in found["variableMeasured"]][:2] == ["ndvi", "ndvi_filled"]
    for part in found["distribution"]:
        assert (tmp_path / "store" / FOLDER / part["contentUrl"]).exists()
    text = work.location.read(f"{FOLDER}/index.html").decode()
    (script,) = re.findall(r'<script type="application/ld\+json">(.*?)</script>', text, re.DOTALL)
    assert json.loads(script) == found


def test_no_path_and_no_address_of_the_source_is_told(tmp_path: Path) -> None:
    work = Work(str(tmp_path / "store"), changed(make_box(SMALL), source={"type": "files", "root": "/secret/place"}))
    append(work, 5)
    publish_everything(work)
    for name, data in copies(work.location).items():
        if name.endswith(DOCUMENTS):
            assert b"/secret" not in data
    lineage = documents(work.location)[f"{FOLDER}/stac/latest.json"]["properties"]["processing:lineage"]
    assert lineage.startswith("ndvi: band ndvi of the source `files`")


# --- kept up to date --------------------------------------------------------------------------------------------------


def test_published_again_it_has_the_same_bytes_and_is_not_written(store_url: str) -> None:
    work = make_work(store_url, 4)
    publish_everything(work)
    before = copies(work.location)
    assert not any(one.is_new for one in publish_everything(work).stac)
    for info in work.location.list("published"):
        work.location.delete(info.key)
    publish_everything(work)
    assert copies(work.location) == before
    append(work, 5)
    report = publish_everything(work)
    assert [one.key.rpartition("/")[2] for one in report.stac if one.is_new] == [
        "latest.json", "collection.json", "dataset.jsonld", "index.html",
    ]  # fmt: skip


def test_only_copies_that_stand_are_told_of(tmp_path: Path) -> None:
    work = make_work(str(tmp_path / "store"), 0)
    with pytest.raises(InputError, match="no copy of box b to tell of"):
        publish_everything(work)
    append(work, 2)
    publish(work.location, work.box, work.cube, fields(), zarr=False, cog=True, fields=False, stac=True)
    found = documents(work.location)[f"{FOLDER}/stac/collection.json"]
    assert set(found["assets"]) == {"rows", "fields"}  # the fields stood already
    assert "cube:dimensions" not in found
    append(work, 5)
    publish(work.location, work.box, work.cube, fields(), zarr=False, cog=False, fields=False, stac=True)
    item = documents(work.location)[f"{FOLDER}/stac/latest.json"]
    assert item["properties"]["start_datetime"] == f"{day(5)}T00:00:00Z"  # the image came up to date with it


def withdraw_all(work: Work) -> None:
    """The source has no imagery any more."""
    report = correct_days(day(1), ArraySource(SMALL, []), work.fields(A=A, B=B), work.cube, work.results)
    assert report.days_amended
    assert not work.cube.head().acquired.any()


@pytest.mark.parametrize("chosen", [EVERYTHING, EVERYTHING | {"cog": False}, EVERYTHING | {"stac": False}])
def test_an_image_that_was_withdrawn_goes_with_its_item(store_url: str, chosen: dict[str, bool]) -> None:
    work = make_work(store_url, 2)
    publish_everything(work)
    withdraw_all(work)
    assert publish_everything(work, **chosen).cog is None
    left = copies(work.location)
    assert f"{FOLDER}/latest.tif" not in left
    assert f"{FOLDER}/stac/latest.json" not in left
    if chosen["stac"]:
        assert b"latest" not in left[f"{FOLDER}/stac/collection.json"]
    append(work, 4)
    assert publish_everything(work).cog.date == str(day(4))


def test_where_no_copy_is_left_nothing_tells_of_one(tmp_path: Path) -> None:
    work = make_work(str(tmp_path), 2)
    publish_everything(work, zarr=False, fields=False)
    assert children(work.location) == ["b"]
    withdraw_all(work)
    with pytest.raises(InputError, match="no copy of box b to tell of"):
        publish_everything(work, zarr=False, fields=False)
    assert copies(work.location) == {}
    assert children(work.location) == []


@pytest.mark.parametrize("name", ["catalog", "publish-catalog"])
def test_a_box_may_be_called_like_what_is_locked(tmp_path: Path, name: str) -> None:
    work = Work(str(tmp_path / "store"), changed(make_box(SMALL), id=name))
    append(work, 1)
    with work.location.lock(name):
        publish_everything(work)
    assert children(work.location) == [name]


def test_boxes_that_went_leave_the_catalogue(tmp_path: Path) -> None:
    works = [Work(str(tmp_path / "store"), changed(make_box(SMALL), id=name)) for name in ("b", "c")]
    for work in works:
        append(work, 2)
        publish_everything(work)
    links = [
        one["title"] for one in read(works[0].location, "published/catalog.json")["links"] if one["rel"] == "child"
    ]
    assert links == ["b", "c"]
    works[0].location.write("boxes/c.json", b"{}")
    remove_box(works[0].location, "c")
    publish_everything(works[0])
    links = [
        one["title"] for one in read(works[0].location, "published/catalog.json")["links"] if one["rel"] == "child"
    ]
    assert links == ["b"]
