"""The STAC source: numbers, scenes, catalogues of every kind. All on loopback."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geofield.errors import (
    SourceError,
)
from geofield.grid import Grid
from geofield.source import Source
from geofield.testing.source import SourceContract
from tests.support.imageserver import ImageServer
from tests.support.scenes import stac_item, write_tif
from tests.support.stacs import (
    BANDS,
    DAYS,
    GEOBOX,
    make_scene,
    month_on_api,
    stac,
    write_items,
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageServer]:
    with month_on_api(tmp_path_factory.mktemp("api")) as server:
        yield server


class TestListOfItems(SourceContract):
    """Items in a file, addresses relative to it."""

    @pytest.fixture(autouse=True)
    def _made(self, tmp_path: Path) -> None:
        items = [make_scene(tmp_path, day, ".") for day in (3, 8)]
        self.url = write_items(tmp_path / "items.json", *items)

    def source(self) -> Source:
        return stac(self.url)

    def grid(self) -> Grid:
        return Grid(GEOBOX)

    def days(self) -> tuple[dt.date, dt.date]:
        return DAYS


class TestApi(SourceContract):
    """An API, and files over HTTP."""

    @pytest.fixture(autouse=True)
    def _served(self, api: ImageServer) -> None:
        self.url = api.api

    def source(self) -> Source:
        return stac(self.url, collection="sentinel-2-l2a")

    def grid(self) -> Grid:
        return Grid(GEOBOX)

    def days(self) -> tuple[dt.date, dt.date]:
        return DAYS


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_pixels_by_hand(tmp_path: Path) -> None:
    """DN 4000 of baseline 05.09 is (4000 - 1000) / 10000 = 0.3; DN 0 is missing, though no tag says so."""
    numbers = np.array([[4000, 0], [1000, 1300]], dtype="uint16")
    geobox = GEOBOX[:2, :2]
    write_tif(tmp_path / "B04.tif", numbers, geobox)
    item = stac_item("S2A_x", "2023-05-03T10:30:00Z", geobox, {"B04": {"href": "B04.tif"}})
    item["properties"]["s2:processing_baseline"] = "05.09"
    source = stac(write_items(tmp_path / "items.json", item), bands={"red": "B04"})
    (one,) = source.search(Grid(geobox), *DAYS)
    np.testing.assert_allclose(source.read(one, ["red"], geobox)["red"], [[0.3, np.nan], [0, 0.03]], atol=1e-15)
    assert one.properties["processing_baseline"] == "05.09"
    assert one.properties["radiometry"] == {"red": [0.0001, pytest.approx(-0.1), 0.0]}


REAL = "S2A_29RKH_20200219_0_L2A"
THINNED = GeoBox((1098, 1098), Affine(100, 0, 199_980, 0, -100, 2_800_020), "EPSG:32629")
"""The pixels of the test data's B04 and B08; the item says 10 m."""


@pytest.mark.parametrize(
    ("change", "offset"),
    [
        ({}, 0.0),  # the real item: declares an offset of 0
        ({"offset": -0.1}, -0.1),
        ({"offset": -0.1, "earthsearch:boa_offset_applied": True}, 0.0),
        ({"offset": None, "s2:processing_baseline": "05.09"}, -0.1),
        ({"offset": None}, 0.0),  # baseline 02.14
    ],
)
def test_real_pixels_of_each_case(shared: Path, tmp_path: Path, change: dict[str, Any], offset: float) -> None:
    """Rasterio reads the numbers; what they mean is one multiplication and one sum."""
    folder = shared / "data" / "cog" / REAL
    item = json.loads((folder / f"{REAL}.json").read_text())
    for key, name in (("red", "B04"), ("nir", "B08"), ("nir08", "B8A"), ("scl", "SCL")):
        item["assets"][key]["href"] = str(folder / f"{name}.tif")
        if "offset" in change and key != "scl":
            item["assets"][key]["raster:bands"][0]["offset"] = change["offset"]
    item["properties"] |= {name: value for name, value in change.items() if ":" in name}
    bands = {"red": "red", "nir": "nir", "nir08": "nir08", "scl": "scl"}
    source = stac(write_items(tmp_path / "items.json", item), bands=bands, collection="sentinel-2-l2a")
    window = THINNED[500:520, 600:640]
    (one,) = source.search(Grid(window), dt.date(2020, 2, 19), dt.date(2020, 2, 19))
    values = source.read(one, tuple(bands), window)
    for name, file in (("red", "B04"), ("nir", "B08")):
        with rasterio.open(folder / f"{file}.tif") as dataset:
            numbers = dataset.read(1, window=((500, 520), (600, 640))).astype(float)
        assert (numbers > 0).all()
        np.testing.assert_allclose(values[name], numbers * 0.0001 + offset, rtol=0, atol=1e-15)
    with rasterio.open(folder / "SCL.tif") as dataset:  # pixels of 200 m: each covers two by two
        classes = dataset.read(1, window=((250, 260), (300, 320))).astype(float).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(values["scl"], np.where(classes == 0, np.nan, classes))
    with rasterio.open(folder / "B8A.tif") as dataset:
        block = dataset.read(1, window=((250, 260), (300, 320))) * 0.0001 + offset
    # between the centres of its pixels: at a quarter of the way, by hand for one pixel in the middle
    upper, lower = block[4, 9] * 0.75 + block[4, 10] * 0.25, block[5, 9] * 0.75 + block[5, 10] * 0.25
    assert values["nir08"][9, 19] == pytest.approx(upper * 0.75 + lower * 0.25, abs=1e-12)


def test_shifted_classes_are_never_mixed(tmp_path: Path) -> None:
    source = stac(write_items(tmp_path / "items.json", make_scene(tmp_path, 3, ".")))
    (one,) = source.search(Grid(GEOBOX), *DAYS)
    values = source.read(one, ["scl"], GEOBOX)["scl"]
    with rasterio.open(tmp_path / "S2A_03_SCL.tif") as dataset:
        classes = dataset.read(1).astype(float)
    rows = (np.arange(300) * 10 + 5 + 10) // 20  # centres of 10 m pixels, on a grid that begins 10 m earlier
    np.testing.assert_array_equal(values, np.where(classes == 0, np.nan, classes)[np.ix_(rows, rows)])


def test_two_zones_in_one_box(tmp_path: Path) -> None:
    """Two tiles of one pass, each in its own zone; the value is a slope in longitude and latitude."""

    def numbers(geobox: GeoBox) -> np.ndarray:
        x, y = geobox.transform @ np.meshgrid(np.arange(geobox.shape.x) + 0.5, np.arange(geobox.shape.y) + 0.5)
        lon, lat = Transformer.from_crs(geobox.crs.epsg, 4326, always_xy=True).transform(x, y)
        return np.rint((lon - 5.9) * 20_000 + (lat - 49.4) * 30_000 + 2000).astype("uint16")

    zones = {
        "31": GeoBox((900, 900), Affine(10, 0, 710_000, 0, -10, 5_486_000), "EPSG:32631"),
        "32": GeoBox((900, 900), Affine(10, 0, 279_000, 0, -10, 5_487_000), "EPSG:32632"),
    }
    items = []
    for zone, geobox in zones.items():
        write_tif(tmp_path / f"{zone}.tif", numbers(geobox), geobox)
        asset = {"B04": {"href": f"{zone}.tif"}}
        item = stac_item(f"S2A_{zone}", "2023-05-03T10:30:00Z", geobox, asset, s2__processing_baseline="02.14")
        items.append(item)
    source = stac(write_items(tmp_path / "items.json", *items), bands={"red": "B04"})
    target = GeoBox((300, 300), Affine(10, 0, 714_000, 0, -10, 5_484_000), "EPSG:32631")
    found = source.search(Grid(target), *DAYS)
    assert [one.id for one in found] == ["S2A_31", "S2A_32"]
    expected = numbers(target) * 0.0001
    own, other = (source.read(one, ["red"], target)["red"] for one in found)
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-12)
    seen = np.isfinite(other)
    assert seen.mean() > 0.5
    np.testing.assert_allclose(other[seen], expected[seen], rtol=0, atol=2e-4)  # two roundings to whole numbers
    part = source.read(found[1], ["red"], target[37:211, 90:200])["red"]
    np.testing.assert_array_equal(part, other[37:211, 90:200])


# --- what is found ----------------------------------------------------------------------------------------------------


def test_a_reprocessed_scene_counts_once_and_changes_its_version(tmp_path: Path) -> None:
    old = make_scene(tmp_path, 3, ".")
    new = {**make_scene(tmp_path, 3, ".", s2__processing_baseline="05.10"), "collection": "sentinel-2-c1-l2a"}
    grid = Grid(GEOBOX)
    (first,) = stac(write_items(tmp_path / "a.json", old)).search(grid, *DAYS)
    (second,) = stac(write_items(tmp_path / "b.json", old, new)).search(grid, *DAYS)
    assert second.properties["collection"] == "sentinel-2-c1-l2a"
    assert first.id == second.id
    assert first.version != second.version


def test_versions_follow_files_words_and_numbers(tmp_path: Path) -> None:
    def version(item: Any, **options: Any) -> str:
        (one,) = stac(write_items(tmp_path / "items.json", item), **options).search(Grid(GEOBOX), *DAYS)
        return one.version

    item = make_scene(tmp_path, 3, ".")
    first = version(item)
    assert version(item) == first
    item["properties"]["updated"] = "2024-01-01T00:00:00Z"
    updated = version(item)
    given = version(item, bands={**BANDS, "red": {"asset": "B04", "offset": 0.0}})
    make_scene(tmp_path, 3, ".")  # other pixels under the same names
    replaced = version(item)
    assert len({first, updated, given, replaced}) == 4


def test_etags_are_asked_for_where_nothing_is_said(api: ImageServer, tmp_path: Path) -> None:
    item = make_scene(api.folder, 25, api.url)
    silent = {**item, "properties": {**item["properties"], "created": None, "s2:processing_baseline": None}}
    silent["id"] = "S2A_MSIL2A_20230525T103000_N0509_R037_T31UDQ_20230525T180000"
    versions = []
    for one, options, heads in ((item, {}, 0), (silent, {}, 3), (item, {"etags": True}, 3), (silent, {}, 3)):
        before = len(api.requests("S2A_25"))
        source = stac(write_items(tmp_path / "items.json", one), **options)
        versions += [found.version for found in source.search(Grid(GEOBOX), *DAYS)]
        asked = api.requests("S2A_25")[before:]
        assert [request.method for request in asked] == ["HEAD"] * heads
    assert versions[1] == versions[3]
    make_scene(api.folder, 25, api.url)
    (changed,) = stac(write_items(tmp_path / "items.json", silent)).search(Grid(GEOBOX), *DAYS)
    assert changed.version != versions[1]


def test_only_what_touches_the_box_is_found(tmp_path: Path) -> None:
    items = [make_scene(tmp_path, 3, ".")]
    source = stac(write_items(tmp_path / "items.json", *items))
    beside = GeoBox((50, 50), Affine(10, 0, 503_100, 0, -10, 5_490_000), "EPSG:32631")
    assert source.search(Grid(beside), *DAYS) == []
    (one,) = source.search(Grid(GEOBOX), *DAYS)
    assert one.footprint == (499_990, 5_486_910, 503_090, 5_490_010)  # around 10 m and 20 m pixels


def test_a_search_is_made_once_and_not_pickled(api: ImageServer) -> None:
    source = stac(api.api, collection="sentinel-2-l2a")
    before = len(api.requests("/search"))
    found = source.search(Grid(GEOBOX), *DAYS)
    assert source.search(Grid(GEOBOX), *DAYS) == found
    assert len(api.requests("/search")) == before + 1
    assert len(pickle.dumps(source)) < 2000
    assert pickle.loads(pickle.dumps(source)).search(Grid(GEOBOX), *DAYS) == found
    assert len(api.requests("/search")) == before + 2


def test_clouds_are_left_out_though_the_server_knows_no_query(api: ImageServer) -> None:
    def days(**options: Any) -> list[int]:
        source = stac(api.api, **{"collection": "sentinel-2-l2a", **options})
        return [one.time.day for one in source.search(Grid(GEOBOX), *DAYS)]

    assert days() == [3, 8, 13, 18]
    assert days(max_cloud_cover=20) == [3, 8, 18]
    assert days(query={"eo:cloud_cover": {"gt": 5, "lt": 20}}) == [3]
    assert days(collection="sentinel-2-l1c") == []


def test_a_server_that_knows_queries_is_asked(tmp_path: Path) -> None:
    with ImageServer(tmp_path) as server:
        root = {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "x",
            "conformsTo": ["https://api.stacspec.org/v1.0.0/item-search#query"],
            "links": [{"rel": "search", "href": f"{server.url}/found.json", "method": "POST"}],
        }
        (tmp_path / "root.json").write_text(json.dumps(root))
        write_items(tmp_path / "found.json", make_scene(tmp_path, 3, server.url, eo__cloud_cover=7))
        source = stac(f"{server.url}/root.json", collection=["a", "sentinel-2-l2a"], max_cloud_cover=50)
        assert len(source.search(Grid(GEOBOX), *DAYS)) == 1
        (request,) = server.requests("found.json")
    asked = json.loads(request.body)
    assert asked["query"] == {"eo:cloud_cover": {"lte": 50.0}}
    assert asked["collections"] == ["a", "sentinel-2-l2a"]
    assert asked["datetime"] == "2023-05-01T00:00:00Z/2023-06-01T00:00:00Z"


# --- static catalogues ------------------------------------------------------------------------------------------------


def write_catalog(folder: Path) -> Path:
    """A catalogue with a collection in a folder below, whose items and files lie below that."""
    data = folder / "s2" / "data"
    links = []
    for day in (3, 8):
        item = make_scene(data, day, "../data")
        (data / f"item{day}.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./data/item{day}.json"})
    links += [{"rel": "root", "href": "../catalog.json"}, {"rel": "parent", "href": "../catalog.json"}]
    collection = {"type": "Collection", "id": "sentinel-2-l2a", "stac_version": "1.0.0", "links": links}
    (folder / "s2" / "collection.json").write_text(json.dumps(collection))
    root = {"type": "Catalog", "id": "root", "stac_version": "1.0.0", "links": [
        {"rel": "child", "href": "s2/collection.json"}, {"rel": "self", "href": "https://elsewhere/catalog.json"},
    ]}  # fmt: skip
    (folder / "catalog.json").write_text(json.dumps(root))
    return folder / "catalog.json"


def check_catalog(url: str, **options: Any) -> None:
    """Two scenes are found, and one is read."""
    source = stac(url, **options)
    found = source.search(Grid(GEOBOX), *DAYS)
    assert [one.time.day for one in found] == [3, 8]
    assert np.isfinite(source.read(found[1], ["red"], GEOBOX)["red"]).all()


def test_a_catalogue_in_a_folder(tmp_path: Path) -> None:
    path = write_catalog(tmp_path)
    check_catalog(str(path))
    check_catalog(f"file://{path}")
    check_catalog(str(tmp_path / "s2" / "collection.json"), collection="sentinel-2-l2a")
    assert stac(str(path), collection="another").search(Grid(GEOBOX), *DAYS) == []
    (one,) = stac(str(tmp_path / "s2" / "data" / "item3.json")).search(Grid(GEOBOX), *DAYS)
    assert one.id == "S2A_03"


def test_a_catalogue_over_http(tmp_path: Path) -> None:
    write_catalog(tmp_path)
    with ImageServer(tmp_path) as server:
        check_catalog(f"{server.url}/catalog.json")


@pytest.mark.s3
def test_a_catalogue_on_s3(s3_url: str, tmp_path: Path) -> None:
    write_catalog(tmp_path)
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    for path in tmp_path.rglob("*.*"):
        boto3.Session().client("s3").upload_file(str(path), bucket, f"{prefix}/{path.relative_to(tmp_path)}")
    check_catalog(f"{s3_url}/catalog.json")
    with pytest.raises(SourceError, match=r"There is nothing at s3://.*other\.json\. Check `url`"):
        stac(f"{s3_url}/other.json").search(Grid(GEOBOX), *DAYS)


def test_a_static_catalogue_is_read_once(tmp_path: Path) -> None:
    write_catalog(tmp_path)
    with ImageServer(tmp_path) as server:
        source = stac(f"{server.url}/catalog.json")
        for day in range(1, 11):
            found = source.search(Grid(GEOBOX), dt.date(2023, 5, day), dt.date(2023, 5, day))
            assert len(found) == (day in (3, 8))
        assert len(server.served) == 4  # catalogue, collection, two items
