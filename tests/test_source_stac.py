"""The STAC source: catalogues of every kind, pixels with the right numbers, failures, secrets. All on loopback."""

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
    AccessError,
    MissingBandError,
    SourceError,
    SourceUnavailableError,
    UnreadableFileError,
)
from geofield.grid import Grid
from geofield.source import Source, gdal, open_source, signing, staccatalog
from geofield.source.access import Access
from geofield.source.stac import StacSource
from geofield.testing.source import SourceContract
from tests.support.imageserver import Fault, ImageServer, stac_api
from tests.support.scenes import stac_item, write_tif

GEOBOX = GeoBox((300, 300), Affine(10, 0, 500_000, 0, -10, 5_490_000), "EPSG:32631")
COARSE = GeoBox((155, 155), Affine(20, 0, 499_990, 0, -20, 5_490_010), "EPSG:32631")
"""20 m pixels whose grid is half a pixel off."""
DAYS = dt.date(2023, 5, 1), dt.date(2023, 5, 31)
RANDOM = np.random.default_rng(7)
BANDS = {"red": "B04", "nir": "B08", "scl": "SCL"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Back-off without the waiting; how long would have been waited."""
    waits: list[float] = []
    monkeypatch.setattr(staccatalog, "pause", waits.append)
    monkeypatch.setattr("geofield.source.stacversion.pause", waits.append)
    monkeypatch.setitem(gdal.OPTIONS, "GDAL_HTTP_RETRY_DELAY", 0.01)
    return waits


def make_scene(folder: Path, day: int, where: str, **properties: Any) -> dict[str, Any]:
    """Three files of a day of May 2023, and their item; `where` begins the files' addresses."""
    name = f"S2A_{day:02}"
    for band in ("B04", "B08"):
        numbers = RANDOM.integers(1000, 6000, GEOBOX.shape).astype("uint16")
        write_tif(folder / f"{name}_{band}.tif", numbers, GEOBOX, 128, nodata=0)
    classes = RANDOM.integers(0, 12, COARSE.shape).astype("uint8")
    write_tif(folder / f"{name}_SCL.tif", classes, COARSE, 64, nodata=0)
    grid = {"proj:shape": list(COARSE.shape), "proj:transform": list(COARSE.transform)[:6]}
    assets = {band: {"href": f"{where}/{name}_{band}.tif"} for band in ("B04", "B08", "SCL")}
    assets["SCL"] |= grid  # type: ignore[arg-type]
    said = {"s2__processing_baseline": "05.09", "created": f"2023-05-{day:02}T20:00:00Z", **properties}
    return stac_item(name, f"2023-05-{day:02}T10:30:00Z", GEOBOX, assets, **said)


def write_items(path: Path, *items: Any) -> str:
    """An ItemCollection; its path."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(path)


def stac(url: str, **options: Any) -> Source:
    """A source of three bands."""
    return open_source({"type": "stac", "url": url, "bands": BANDS, **options})


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


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageServer]:
    """A STAC API over four scenes, one of them cloudy, and the server of their files."""
    folder = tmp_path_factory.mktemp("api")
    covers = {3: 10, 8: 20, 13: 95, 18: 0}
    items = [make_scene(folder, day, "{server}", eo__cloud_cover=cover) for day, cover in covers.items()]
    with stac_api(folder, items) as server:
        yield server


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
        boto3.client("s3").upload_file(str(path), bucket, f"{prefix}/{path.relative_to(tmp_path)}")
    check_catalog(f"{s3_url}/catalog.json")
    with pytest.raises(SourceError, match=r"There is nothing at s3://.*other\.json\. Check `url`"):
        stac(f"{s3_url}/other.json").search(Grid(GEOBOX), *DAYS)


# --- traffic ----------------------------------------------------------------------------------------------------------


def touched_bytes(path: Path, window: GeoBox, block: int = 256) -> int:
    """Compressed bytes of the blocks that a window of GEOBOX's lattice touches."""
    column, row = (round(one) for one in ~GEOBOX.transform @ (window.transform.c, window.transform.f))
    rows = range(row // block, (row + window.shape.y - 1) // block + 1)
    columns = range(column // block, (column + window.shape.x - 1) // block + 1)
    with rasterio.open(path) as dataset:
        return sum(int(dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1)) for y in rows for x in columns)


@pytest.mark.parametrize(
    "where", [(0, 0, 512, 512), (300, 700, 900, 1400), (1024, 1024, 1536, 1536), (0, 0, 200, 2048)]
)
def test_little_more_is_fetched_than_the_blocks_that_are_needed(tmp_path: Path, where: tuple[int, ...]) -> None:
    """Noise, which does not compress, in blocks of 256: 115 kB each."""
    geobox = GeoBox((2048, 2048), GEOBOX.transform, GEOBOX.crs)
    path = tmp_path / "B04.tif"
    write_tif(path, RANDOM.integers(1, 10_000, geobox.shape).astype("uint16"), geobox)
    with ImageServer(tmp_path) as server:
        item = stac_item("S2A_x", "2023-05-03T10:30:00Z", geobox, {"B04": {"href": f"{server.url}/B04.tif"}},
                         s2__processing_baseline="05.09", created="2023")  # fmt: skip
        source = stac(write_items(tmp_path / "items.json", item), bands={"red": "B04"})
        y0, x0, y1, x1 = where
        window = geobox[y0:y1, x0:x1]
        (one,) = source.search(Grid(window), *DAYS)
        assert server.served == []  # searching opens no file
        values = source.read(one, ["red"], window)["red"]
        fetched = sum(request.bytes for request in server.served)
    assert np.isfinite(values).all()
    needed = touched_bytes(path, window)
    assert needed <= fetched <= 1.3 * needed


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    with ImageServer(tmp_path) as server:
        item = make_scene(tmp_path, 3, server.url)
        source = stac(write_items(tmp_path / "items.json", item))
        (one,) = source.search(Grid(GEOBOX), *DAYS)
        before = source.read(one, ["red"], GEOBOX)["red"]
        make_scene(tmp_path, 3, server.url)
        assert (source.read(one, ["red"], GEOBOX)["red"] != before).mean() > 0.99


def test_a_static_catalogue_is_read_once(tmp_path: Path) -> None:
    write_catalog(tmp_path)
    with ImageServer(tmp_path) as server:
        source = stac(f"{server.url}/catalog.json")
        for day in range(1, 11):
            found = source.search(Grid(GEOBOX), dt.date(2023, 5, day), dt.date(2023, 5, day))
            assert len(found) == (day in (3, 8))
        assert len(server.served) == 4  # catalogue, collection, two items


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_catalogue_is_asked_again(api: ImageServer, no_waiting: list[float], status: int) -> None:
    with api.failing(Fault("/search", status=status, times=2)):
        assert len(stac(api.api).search(Grid(GEOBOX), *DAYS)) == 4
    assert no_waiting == [0.5, 1.0]
    with (
        api.failing(Fault("/search", status=status)),
        pytest.raises(
            SourceUnavailableError,
            match=rf"127\.0\.0\.1:\d+ answered {status} when asked for .*/search.*Try again later",
        ),
    ):
        stac(api.api).search(Grid(GEOBOX), *DAYS)
    assert no_waiting[2:] == [0.5, 1.0, 2.0, 4.0]


def test_a_cut_answer_is_asked_for_again(api: ImageServer, no_waiting: list[float]) -> None:
    with api.failing(Fault("/search", cut=500, times=1)):
        assert len(stac(api.api).search(Grid(GEOBOX), *DAYS)) == 4
    assert no_waiting == [0.5]
    with api.failing(Fault("/search", cut=500)), pytest.raises(SourceUnavailableError, match=r"did not answer"):
        stac(api.api).search(Grid(GEOBOX), *DAYS)


def test_no_server_is_unavailable() -> None:
    with pytest.raises(SourceUnavailableError, match=r"127\.0\.0\.1:9 did not answer"):
        stac("http://127.0.0.1:9/v1").search(Grid(GEOBOX), *DAYS)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [(401, AccessError, "refused"), (403, AccessError, "Give the source `auth`"), (404, SourceError, "Check `url`")],
)
def test_a_refusal_is_no_reason_to_retry(
    api: ImageServer, no_waiting: list[float], status: int, error: type[Exception], message: str
) -> None:
    with api.failing(Fault(status=status)), pytest.raises(error, match=message):
        stac(api.api).search(Grid(GEOBOX), *DAYS)
    assert no_waiting == []


@pytest.mark.parametrize("fault", [Fault("_B04", status=429, times=1), Fault("_B04", status=503, times=2)])
def test_a_busy_server_of_files_is_asked_again(api: ImageServer, fault: Fault) -> None:
    source = stac(api.api)
    one = source.search(Grid(GEOBOX), *DAYS)[0]
    expected = source.read(one, ["red", "nir"], GEOBOX)
    with api.failing(fault):
        values = source.read(one, ["red", "nir"], GEOBOX)
    np.testing.assert_array_equal(values["red"], expected["red"])


@pytest.mark.parametrize("fault", [Fault("_B04", status=503), Fault("_B04", status=429)])
def test_a_server_of_files_that_stays_busy_is_unavailable(api: ImageServer, fault: Fault) -> None:
    source = stac(api.api)
    one = source.search(Grid(GEOBOX), *DAYS)[0]
    with api.failing(fault), pytest.raises(SourceUnavailableError, match=r"S2A_03_B04\.tif could not be read"):
        source.read(one, ["red", "nir"], GEOBOX)


def test_a_file_that_is_gone_or_refused_is_told(api: ImageServer) -> None:
    source = stac(api.api)
    one = source.search(Grid(GEOBOX), *DAYS)[0]
    with api.failing(Fault("_B04", status=404)), pytest.raises(UnreadableFileError, match=r"is not there \(any more\)"):
        source.read(one, ["red"], GEOBOX)
    with api.failing(Fault("_B04", status=403)), pytest.raises(AccessError, match=r"was refused"):
        source.read(one, ["red"], GEOBOX)


@pytest.mark.parametrize(
    ("text", "message"),
    [("<html>", "holds no JSON"), ("[]", "not a STAC object"), ('{"type": "Dog"}', "type 'Dog', which is not STAC")],
)
def test_what_is_no_catalogue_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        stac(str(tmp_path / "x.json")).search(Grid(GEOBOX), *DAYS)


def test_missing_catalogues_assets_and_bands_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"There is nothing at .*none\.json\. Check `url`"):
        stac(str(tmp_path / "none.json")).search(Grid(GEOBOX), *DAYS)
    source = stac(write_items(tmp_path / "items.json", make_scene(tmp_path, 3, ".")), bands={"red": "B04", "b": "B99"})
    (one,) = source.search(Grid(GEOBOX), *DAYS)
    with pytest.raises(MissingBandError, match=r"S2A_03 has no asset for band 'b'; it has red\. Name the asset under"):
        source.read(one, ["b"], GEOBOX)
    with pytest.raises(MissingBandError, match=r"no band 'blue'; it offers red, b"):
        source.read(one, ["blue"], GEOBOX)


# --- whom to trust ----------------------------------------------------------------------------------------------------


def test_a_catalogue_elsewhere_opens_no_file_of_this_machine(tmp_path: Path) -> None:
    with ImageServer(tmp_path) as server:
        item = make_scene(tmp_path, 3, str(tmp_path))
        item["assets"]["B04"]["href"] = f"file://{tmp_path}/S2A_03_B04.tif"
        item["assets"]["B08"]["href"] = f"/vsizip/{tmp_path}/x.zip"
        write_items(tmp_path / "items.json", item)
        source = stac(f"{server.url}/items.json")
        (one,) = source.search(Grid(GEOBOX), *DAYS)
        with pytest.raises(SourceError, match=r"S2A_03_B04\.tif cannot be read: files are reached by https"):
            source.read(one, ["red"], GEOBOX)
        catalog = {"type": "Catalog", "links": [{"rel": "item", "href": f"file://{tmp_path}/secret.json"}]}
        (tmp_path / "catalog.json").write_text(json.dumps(catalog))
        with pytest.raises(SourceError, match=r"a file of this machine: that is not followed"):
            stac(f"{server.url}/catalog.json").search(Grid(GEOBOX), *DAYS)


def test_only_rasters_that_name_no_other_files_are_opened(tmp_path: Path) -> None:
    item = make_scene(tmp_path, 3, ".")
    with rasterio.open(tmp_path / "S2A_03_B04.tif") as dataset:
        xml = (
            f'<VRTDataset rasterXSize="300" rasterYSize="300"><SRS>{dataset.crs.to_wkt()}</SRS><VRTRasterBand band="1" '
            f'dataType="UInt16"><SimpleSource><SourceFilename>{dataset.name}</SourceFilename><SourceBand>1</SourceBand>'
            "</SimpleSource></VRTRasterBand></VRTDataset>"
        )
    (tmp_path / "S2A_03_B04.tif").rename(tmp_path / "moved.tif")
    (tmp_path / "S2A_03_B04.tif").write_text(xml.replace("S2A_03_B04", "moved"))
    source = stac(write_items(tmp_path / "items.json", item))
    (one,) = source.search(Grid(GEOBOX), *DAYS)
    with pytest.raises(UnreadableFileError, match=r"S2A_03_B04\.tif cannot be read as a raster"):
        source.read(one, ["red"], GEOBOX)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "https://host/v1?token=abc"}, r"host/v1 carries .* a signed query"),
        ({"url": "https://me:secret@host/v1"}, r"https://host/v1 carries a user name"),
        ({"token": "s3cr3t"}, r"token is no key of it \(value not shown\)"),
        ({"auth": {"token": "s3cr3t"}}, r"auth\.token is no key of it \(value not shown\)"),
        ({"auth": {"variable": "s3cr3t.s3cr3t"}}, r"auth\.variable \(value not shown\)"),
        ({"endpoint": "https://key:s3cr3t@host"}, r"https://host carries a user name"),
    ],
)
def test_a_source_holds_no_secret(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        stac(**{"url": "https://host/v1", **options})
    assert "s3cr3t" not in str(caught.value)


def test_a_token_goes_to_its_host_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: ImageServer) -> None:
    """`localhost` is the catalogue's host; its files lie on 127.0.0.1."""
    items = [make_scene(tmp_path, 3, "{server}")]
    with ImageServer(tmp_path) as server:
        near = server.url.replace("127.0.0.1", "localhost")
        write_items(tmp_path / "items.json", *json.loads(json.dumps(items).replace("{server}", server.url)))
        spec = {"auth": {"variable": "MY_TOKEN"}, "etags": True}
        with pytest.raises(AccessError, match=r"variable MY_TOKEN does not hold one"):
            stac(f"{near}/items.json", **spec).search(Grid(GEOBOX), *DAYS)
        monkeypatch.setenv("MY_TOKEN", "abc")
        source = stac(f"{near}/items.json", **spec)
        assert b"abc" not in pickle.dumps(source)
        (one,) = source.search(Grid(GEOBOX), *DAYS)
        source.read(one, ["red"], GEOBOX)
        assert {request.headers.get("Authorization") for request in server.requests("items")} == {"Bearer abc"}
        assert {request.headers.get("Authorization") for request in server.requests(".tif")} == {None}
        both = stac(f"{near}/items.json", auth={"variable": "MY_TOKEN", "hosts": ["localhost", "127.0.0.1"]})
        server.served.clear()
        both.read(one, ["red"], GEOBOX)
        assert {request.headers.get("Authorization") for request in server.requests(".tif")} == {"Bearer abc"}


def test_a_token_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "abc")
    source = stac("https://host/v1", auth={"variable": "MY_TOKEN", "scheme": ""})
    assert isinstance(source, StacSource)
    access = source.settings.access
    assert access.headers("https://host/x.tif") == {"Authorization": "abc"}
    assert access.headers("http://host/x.tif") == {}
    assert access.headers("https://other/x.tif") == {}


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "sign", "endpoint"),
    [
        ("https://earth-search.aws.element84.com/v1", {}, None, None),
        ("https://planetarycomputer.microsoft.com/api/stac/v1", {}, "planetary-computer", None),
        ("https://stac.dataspace.copernicus.eu/v1", {}, None, "https://eodata.dataspace.copernicus.eu"),
        ("https://stac.dataspace.copernicus.eu/v1", {"endpoint": "https://mine"}, None, "https://mine"),
        ("https://planetarycomputer.microsoft.com/api/stac/v1", {"preset": "generic"}, None, None),
        ("https://mirror/v1", {"preset": "planetary-computer"}, "planetary-computer", None),
    ],
)
def test_presets_are_guessed_from_the_host(url: str, options: Any, sign: str | None, endpoint: str | None) -> None:
    source = open_source({"type": "stac", "url": url, "collection": "sentinel-2-l2a", **options})
    assert isinstance(source, StacSource)
    access = source.settings.access
    assert (access.sign, access.endpoint) == (sign, endpoint)
    assert {"red", "nir", "scl"} <= set(source.bands())
    assert source.quality_bands() == ("scl",)


def test_s3_options_are_put_into_gdals_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("[profile imagery]\naws_access_key_id = one\naws_secret_access_key = two\nregion = eu\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    access = Access(requester_pays=True, endpoint="https://eodata.example", profile="imagery")
    options = gdal._environment("s3://b/x.tif", access)
    assert options.options["AWS_REQUEST_PAYER"] == "requester"
    assert options.options["AWS_S3_ENDPOINT"] == "eodata.example"
    assert options.session.get_credential_options()["AWS_ACCESS_KEY_ID"] == "one"
    with pytest.raises(AccessError, match="no profile 'nobody'"):
        gdal._environment("s3://b/x.tif", Access(profile="nobody")).session.get_credential_options()


BLOB = "https://account.blob.core.windows.net/container/B04.tif"


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageServer]:
    """A server of tokens; the file `account/container` is the next one."""
    (tmp_path / "account").mkdir()
    with ImageServer(tmp_path) as server:
        signing.forget_tokens()  # imports the package, past its warnings
        from planetary_computer.settings import Settings  # type: ignore[import-untyped]

        monkeypatch.setattr(Settings.get(), "sas_url", server.url)
        yield server
        signing.forget_tokens()


def grant(server: ImageServer, token: str, seconds: float) -> None:
    """The next token, and how long it holds."""
    expiry = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    text = json.dumps({"token": token, "msft:expiry": expiry.isoformat()})
    (server.folder / "account" / "container").write_text(text)


def test_tokens_are_kept_and_renewed(tokens: ImageServer) -> None:
    grant(tokens, "sig=1", 50)
    assert signing.signed(BLOB) == f"{BLOB}?sig=1"
    grant(tokens, "sig=2", 3600)
    assert signing.signed(BLOB) == f"{BLOB}?sig=2"  # the first has less than a minute left
    grant(tokens, "sig=3", 3600)
    assert signing.signed(BLOB) == f"{BLOB}?sig=2"
    signing.forget_tokens()
    assert signing.signed(BLOB) == f"{BLOB}?sig=3"
    assert signing.signed("https://elsewhere/B04.tif") == "https://elsewhere/B04.tif"
    assert len(tokens.served) == 3


def test_no_token_is_told(tokens: ImageServer) -> None:
    with tokens.failing(Fault(status=403)), pytest.raises(AccessError, match=r"gave no token for https://account"):
        signing.signed(BLOB)
    with tokens.failing(Fault(status=404)), pytest.raises(SourceUnavailableError, match=r"gave no token"):
        signing.signed(BLOB)


def test_a_token_that_was_refused_is_renewed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[str] = []
    answers: list[Any] = [AccessError("expired"), ({"red": np.ones(GEOBOX.shape)}, 8)]

    def answer(*_: object) -> Any:
        one = answers.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr("geofield.source.stac.read_bands", answer)
    monkeypatch.setattr("geofield.source.stac.forget_tokens", lambda: forgotten.append("all"))
    url = write_items(tmp_path / "items.json", make_scene(tmp_path, 3, "https://account.blob.core.windows.net/c"))
    source = stac(url, preset="planetary-computer")
    (one,) = source.search(Grid(GEOBOX), *DAYS)
    assert source.read(one, ["red"], GEOBOX)["red"].all()
    assert forgotten == ["all"]
    answers[:] = [AccessError("no"), AccessError("no, never")]
    with pytest.raises(AccessError, match="never"):
        source.read(one, ["red"], GEOBOX)
