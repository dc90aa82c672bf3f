"""What STAC items say: scale, offset, nodata, bands, grids, scenes, conditions. Pure functions, no file is opened."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spyndex

from geofield.errors import SourceError
from geofield.source.stacbands import asset_key, offered_bands, sentinel2_band
from geofield.source.stacitem import assets_of, band_fields, extent_of, lonlat_bounds, time_of
from geofield.source.stacquery import is_wanted, meets
from geofield.source.stacradiometry import Radiometry, baseline_of, is_sentinel2, radiometry_of
from geofield.source.stacscenes import one_of_each_scene
from geofield.source.stacversion import said_stamp

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
JP2 = "image/jp2"
NOTHING = Radiometry()


def item(asset: Mapping[str, Any], key: str = "red", identity: str = "S2A_29RKH_20230219_0_L2A", **said: Any) -> Any:
    """An item of one asset; `__` in names of properties stands for a colon."""
    properties = {
        "datetime": "2023-02-19T11:34:25Z",
        "platform": "sentinel-2a",
        "constellation": "sentinel-2",
        **{name.replace("__", ":"): value for name, value in said.items()},
    }
    return {
        "id": identity,
        "properties": properties,
        "assets": {key: {"href": "https://host/B04", "type": COG, **asset}},
    }


def of(one: Any, quality: bool = False, given: Radiometry = NOTHING) -> Radiometry:
    """The radiometry of an item's only asset."""
    ((key, asset),) = assets_of(one).items()
    return radiometry_of(one, key, asset, 1, quality, given)


DECLARED = {"raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]}
NO_OFFSET = {"raster:bands": [{"scale": 0.0001, "nodata": 0}]}
ON_ASSET = {"bands": [{"name": "B04", "eo:common_name": "red"}], "raster:scale": 0.0001, "raster:offset": -0.1}
ON_BAND = {"bands": [{"name": "B04", "raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0}]}


@pytest.mark.parametrize(
    ("one", "offset"),
    [
        pytest.param(item(DECLARED, s2__processing_baseline="05.09", earthsearch__boa_offset_applied=True), 0.0,
                     id="applied and declared: not again"),
        pytest.param(item(DECLARED, s2__processing_baseline="05.09", earthsearch__boa_offset_applied=False), -0.1,
                     id="declared, flagged as not applied"),
        pytest.param(item(DECLARED, s2__processing_baseline="05.09"), -0.1, id="declared"),
        pytest.param(item({"raster:bands": [{"scale": 0.0001, "offset": 0}]}, s2__processing_baseline="02.14",
                          earthsearch__boa_offset_applied=False), 0.0, id="declared as none"),
        pytest.param(item({**DECLARED, "type": JP2}, "red-jp2", earthsearch__boa_offset_applied=True), -0.1,
                     id="applied to the GeoTIFF, not to the original"),
        pytest.param(item(ON_ASSET, "B04_10m", processing__version="05.11"), -0.1, id="STAC 1.1, on the asset"),
        pytest.param(item(ON_BAND, "B04_10m", processing__version="05.11"), -0.1, id="STAC 1.1, on the band"),
        pytest.param(item(NO_OFFSET, s2__processing_baseline="05.09"), -0.1, id="scale alone, new baseline"),
        pytest.param(item(NO_OFFSET, s2__processing_baseline="05.09", earthsearch__boa_offset_applied=True), 0.0,
                     id="scale alone, applied"),
        pytest.param(item({}, "B04", s2__processing_baseline="04.00"), -0.1, id="nothing said, first with an offset"),
        pytest.param(item({}, "B04", s2__processing_baseline="03.01"), 0.0, id="nothing said, last without"),
        pytest.param(item({}, "B04", s2__processing_baseline="02.12"), 0.0, id="nothing said, old"),
        pytest.param(item({}, "B04_10m", processing__version="05.10"), -0.1, id="nothing said, processing:version"),
        pytest.param(item({}, "B04", "S2A_MSIL2A_20230219T112111_N0509_R037_T29RKH_20230219T180000"), -0.1,
                     id="nothing said but in the name"),
        pytest.param(item({}, "B04", s2__product_uri="S2A_MSIL2A_20200219T112111_N0214_R037_T29RKH_20200219T1.SAFE"),
                     0.0, id="nothing said but in the product's name"),
    ],
)  # fmt: skip
def test_each_way_of_stating_the_offset(one: Any, offset: float) -> None:
    found = of(one)
    assert found.scale == 0.0001
    assert found.offset == pytest.approx(offset, abs=1e-15)
    assert found.nodata in (0.0, None)


@pytest.mark.parametrize(
    ("applied", "red", "nir"),
    [(False, 1300, 4000), (True, 300, 3000)],
    ids=["in the numbers", "taken out of the numbers"],
)
def test_the_index_with_the_wrong_offset_would_be_plausible(applied: bool, red: int, nir: int) -> None:
    """Reflectances 0.03 and 0.30: NDVI is 0.27 / 0.33 = 0.818; with 1000 DN too many it would be 0.509."""
    one = item(DECLARED, s2__processing_baseline="05.09", earthsearch__boa_offset_applied=applied)
    found = of(one)
    assert found.scale is not None
    assert found.offset is not None
    values = {"R": red * found.scale + found.offset, "N": nir * found.scale + found.offset}
    assert spyndex.computeIndex("NDVI", params=values) == pytest.approx(0.818, abs=5e-4)
    ignored = {"R": 1300 * found.scale, "N": 4000 * found.scale}
    assert spyndex.computeIndex("NDVI", params=ignored) == pytest.approx(0.509, abs=5e-4)


def test_a_product_without_offset_and_baseline_is_refused_and_can_be_helped() -> None:
    one = item({}, "B04", "S2A_of_unknown_making")
    with pytest.raises(SourceError, match=r"S2A_of_unknown_making .*neither the offset .* nor its processing baseline"):
        of(one)
    assert of(one, given=Radiometry(offset=-0.1)) == Radiometry(0.0001, -0.1, 0.0)


def test_what_the_box_says_wins() -> None:
    one = item(DECLARED, s2__processing_baseline="05.09")
    assert of(one, given=Radiometry(0.5, 2.0, 7.0)) == Radiometry(0.5, 2.0, 7.0)
    # the offset of the baseline is in numbers: with another scale it is another one
    assert of(item({}, "B04", s2__processing_baseline="05.09"), given=Radiometry(scale=0.001)).offset == -1.0


def test_classes_bits_and_other_products_know_no_offset() -> None:
    assert of(item({}, "SCL", s2__processing_baseline="05.09"), quality=True) == Radiometry(1.0, 0.0, 0.0)
    for key in ("AOT", "WVP", "visual"):
        assert of(item({}, key, s2__processing_baseline="05.09")) == NOTHING
    harmonised = item({"raster:bands": [{"scale": 0.0001}]}, "B04", "HLS.S30.T29RKH.2023050T112111.v2.0")
    assert not is_sentinel2(harmonised)
    assert of(harmonised) == Radiometry(0.0001, 0.0, None)
    landsat = {"raster:bands": [{"scale": 2.75e-05, "offset": -0.2, "nodata": 0}]}
    one = item(landsat, "red", "LC08_L2SP_001062_20220101_02_T1", platform="landsat-8", constellation="landsat")
    assert of(one) == Radiometry(2.75e-05, -0.2, 0.0)


def test_numbers_that_are_none_are_refused() -> None:
    for bad in ("a lot", True, [1], float("inf")):
        with pytest.raises(SourceError, match=r"as scale, which is no number"):
            of(item({"raster:bands": [{"scale": bad}]}, s2__processing_baseline="05.09"))
    assert np.isnan(of(item({"raster:bands": [{"nodata": "nan"}]}, "lst", platform="x", constellation="x")).nodata or 0)


@pytest.mark.parametrize(
    ("text", "baseline"),
    [
        ("05.09", (5, 9)),
        ("N0511", (5, 11)),
        (5.1, (5, 10)),
        (4.0, (4, 0)),
        ("4.00", (4, 0)),
        ("v1", None),
        (None, None),
    ],
)
def test_baselines_are_read_as_they_are_written(text: object, baseline: tuple[int, int] | None) -> None:
    assert baseline_of({"id": "x", "properties": {"s2:processing_baseline": text}}) == baseline


# --- real items -----------------------------------------------------------------------------------------------------

EARTH_OLD = "earthsearch_v1_S2A_29RKH_20200219_bl0214_boaFalse.json"
EARTH_NEW = "earthsearch_v1_S2A_32TPS_20230602_bl0509_boaTrue.json"
PC = "pc_S2B_T06VVN_20190629_bl0212.json"
PC_RASTER = "pc_S2B_T06VVN_20190629_bl0212_rasterext.json"
PC_MANY = "pc_site2_35MNM_2020junjul_13items.geojson"


def real(shared: Path, name: str) -> list[Any]:
    """The items of a file."""
    found = json.loads((shared / "data" / "stac" / name).read_text())
    return list(found.get("features", [found]))


@pytest.mark.parametrize(
    ("name", "count", "epsg", "corner", "keys"),
    [
        (EARTH_OLD, 1, 32629, (199980, 2800020), ("red", "nir", "rededge1", "nir08", "scl")),
        (EARTH_NEW, 1, 32632, (600000, 5200020), ("red", "nir", "rededge1", "nir08", "scl")),
        (PC, 1, 32606, (399960, 6800040), ("B04", "B08", "B05", "B8A", "SCL")),
        (PC_RASTER, 1, 32606, (399960, 6800040), ("B04", "B08", "B05", "B8A", "SCL")),
        (PC_MANY, 13, 32735, (499980, 9200020), ("B04", "B08", "B05", "B8A", "SCL")),
    ],
)
def test_real_items_give_scale_offset_mask_and_grid(
    shared: Path, name: str, count: int, epsg: int, corner: tuple[int, int], keys: tuple[str, ...]
) -> None:
    """Baselines 02.12 and 02.14 have no offset; 05.09 of Earth Search declares one that its pixels hold already."""
    items = real(shared, name)
    assert len(items) == count
    for one in items:
        found = [asset_key(one, band) for band in ("red", "nir", "rededge071", "nir08", "scl")]
        assert tuple(found) == keys
        for band in offered_bands(("sentinel-2-l2a",)):
            key = asset_key(one, band)
            assert key is not None
            expected = Radiometry(1.0, 0.0, 0.0) if band == "scl" else Radiometry(0.0001, 0.0, 0.0)
            assert radiometry_of(one, key, one["assets"][key], 1, band == "scl", NOTHING) == expected
        size = 109_800  # metres: 10980 pixels of 10 m, 5490 of 20 m, 1830 of 60 m
        assets = [one["assets"][key] for key in keys]
        bounds = (corner[0], corner[1] - size, corner[0] + size, corner[1])
        assert extent_of(one, assets) == (bounds, f"EPSG:{epsg}")


def test_the_flag_of_a_real_item_decides(shared: Path) -> None:
    """The same item without its flag, and without its declaration, means other reflectances."""
    (one,) = real(shared, EARTH_NEW)
    flagged = radiometry_of(one, "red", one["assets"]["red"], 1, False, NOTHING)
    del one["properties"]["earthsearch:boa_offset_applied"]
    declared = radiometry_of(one, "red", one["assets"]["red"], 1, False, NOTHING)
    del one["assets"]["red"]["raster:bands"][0]["offset"]
    silent = radiometry_of(one, "red", one["assets"]["red"], 1, False, NOTHING)
    one["properties"]["s2:processing_baseline"] = "03.01"
    old = radiometry_of(one, "red", one["assets"]["red"], 1, False, NOTHING)
    assert [x.offset for x in (flagged, declared, silent, old)] == pytest.approx([0, -0.1, -0.1, 0], abs=1e-15)
    jp2 = radiometry_of(one, "red-jp2", one["assets"]["red-jp2"], 1, False, NOTHING)
    assert jp2.offset == -0.1


def test_real_items_are_one_scene_each(shared: Path) -> None:
    many = real(shared, PC_MANY)
    assert len(one_of_each_scene(many + deepcopy(many), ())) == 13
    both = real(shared, PC) + real(shared, PC_RASTER)
    assert len(one_of_each_scene(both, ())) == 1


# --- bands ----------------------------------------------------------------------------------------------------------


def eo(common: str, *more: str, **asset: Any) -> dict[str, Any]:
    """An asset with bands of these common names."""
    bands = [{"name": name, "common_name": name} for name in (common, *more)]
    return {"href": "https://host/x", "eo:bands": bands, **asset}


def test_assets_are_found_by_key_then_by_common_name() -> None:
    one = {"assets": {"a": eo("red", gsd=20), "b": eo("red", gsd=10), "c": eo("red", type=JP2, gsd=5)}}
    assert asset_key(one, "red") == "b"
    rest = {"assets": {"c": one["assets"]["c"], "visual": eo("red", "green", "blue")}}
    assert asset_key(rest, "red") == "c"
    assert asset_key({"assets": {"t": eo("red", roles=["thumbnail"])}}, "red") is None
    assert asset_key({"assets": {"B8A": eo("rededge")}}, "rededge071") is None
    assert asset_key({"assets": {"B8A": eo("rededge")}}, "nir08") == "B8A"
    new = {"assets": {"x": {"href": "h", "bands": [{"name": "B04", "eo:common_name": "red"}]}}}
    assert asset_key(new, "red") == "x"


@pytest.mark.parametrize(
    ("name", "key"),
    [("red", "B04_10m"), ("nir", "B08_10m"), ("nir08", "B8A_20m"), ("swir16", "B11_20m"), ("coastal", "B01_60m"),
     ("nir09", "B09_60m"), ("rededge078", "B07_20m"), ("scl", "SCL_20m"), ("cirrus", None)],
)  # fmt: skip
def test_the_copernicus_data_space_has_each_band_once(name: str, key: str | None) -> None:
    """Its items hold a band at several resolutions: the finest that was measured is taken."""
    names = ("B01_20m", "B01_60m", "B04_10m", "B04_20m", "B04_60m", "B07_20m", "B07_60m", "B08_10m", "B8A_20m",
             "B8A_60m", "B09_60m", "B11_20m", "B11_60m", "SCL_20m", "SCL_60m", "TCI_10m")  # fmt: skip
    assert asset_key({"assets": {one: {"href": "s3://eodata/x.jp2"} for one in names}}, name) == key


def test_reflectance_is_told_from_the_rest() -> None:
    nothing = band_fields({}, {})
    assert [sentinel2_band(key, nothing) for key in ("B04", "b8a", "B04_10m", "red", "rededge1", "red-jp2")] == [
        "B04", "B8A", "B04", "B04", "B05", "B04",
    ]  # fmt: skip
    assert [sentinel2_band(key, nothing) for key in ("SCL", "AOT_10m", "WVP", "visual", "B13", "TCI")] == [None] * 6
    assert sentinel2_band("visual", band_fields({}, eo("red", "green", "blue"))) is None


def test_bands_are_offered_by_what_is_searched() -> None:
    assert "scl" in offered_bands(("sentinel-2-l2a", "sentinel-2-c1-l2a"))
    assert "nir" not in offered_bands(("landsat-c2-l2",))  # so that NDVI takes nir08
    assert {"red", "nir", "scl", "qa_pixel"} <= set(offered_bands(("something",)))


# --- scenes, stamps, conditions -------------------------------------------------------------------------------------


def scene(identity: str, collection: str = "a", tile: str = "29RKH", strip: str = "", **said: Any) -> Any:
    """An item of a Sentinel-2 product."""
    baseline = str(said.get("s2__processing_baseline", "02.14")).replace(".", "")
    uri = f"S2A_MSIL2A_20200219T112111_N{baseline}_R037_T{tile}_20200219T123947.SAFE"
    one = item({}, identity=identity, s2__product_uri=uri, **said)
    if strip:
        one["properties"]["s2:datastrip_id"] = f"S2A_OPER_MSI_L2A_DS_MPS__20200219T123947_S{strip}_N02.14"
    return {**one, "collection": collection}


def ids(items: list[Any], *collections: str) -> list[str]:
    """Of the scenes that are left."""
    return sorted(one["id"] for one in one_of_each_scene(items, collections))


def test_the_newest_baseline_of_a_scene_counts() -> None:
    old, new = scene("old"), scene("new", "b", s2__processing_baseline="05.00")
    assert ids([old, new], "a", "b") == ids([new, old], "a", "b") == ["new"]
    # 05.10 is newer than 05.09, as 5.1 read as a number is not
    nine, ten = (scene(name, s2__processing_baseline=name) for name in ("05.09", "05.10"))
    assert ids([ten, nine]) == ["05.10"]


def test_equal_baselines_are_told_apart_by_change_then_collection() -> None:
    first, second = scene("first", "a", updated="2020-03-01T00:00:00Z"), scene("second", "b", updated="2020-03-02")
    assert ids([first, second], "a", "b") == ["second"]
    assert ids([scene("first", "a"), scene("second", "b")], "b", "a") == ["second"]
    assert ids([scene("first", "a"), scene("second", "b")], "a", "b") == ["first"]


def test_other_tiles_levels_and_strips_are_other_scenes() -> None:
    assert ids([scene("one"), scene("two", tile="29RKJ")]) == ["one", "two"]
    one, two = scene("one", strip="20200219T113105"), scene("two", strip="20200219T112430")
    assert ids([one, two]) == ["one", "two"]
    again = scene("again", strip="20200219T113106", s2__processing_baseline="05.00")
    assert ids([one, two, again]) == ["again", "two"]


def test_scenes_of_other_missions() -> None:
    def other(identity: str, **said: Any) -> Any:
        return item({}, identity=identity, platform="landsat-8", constellation="landsat", **said)

    cell = {"grid__code": "WRS2-001062"}
    assert ids([other("x", **cell, updated="2023-01-01"), other("y", **cell, updated="2023-01-02")]) == ["y"]
    assert ids([other("x"), other("y")]) == ["x", "y"]
    assert ids([other("x"), other("x")]) == ["x"]


def test_stamps_follow_what_the_item_says() -> None:
    def stamp(asset: Mapping[str, Any] | None = None, **said: Any) -> str | None:
        return said_stamp(item({}, **said), {"red": asset or {}})

    assert stamp() is None
    assert stamp({"file:checksum": "1220aa"}, updated="1") == stamp({"file:checksum": "1220aa"}, updated="2")
    assert stamp({"file:checksum": "1220aa"}) != stamp({"file:checksum": "1220bb"})
    assert stamp(updated="1", created="1") == stamp(updated="1", created="2") != stamp(updated="2", created="2")
    assert stamp(created="1", s2__processing_baseline="04.00") != stamp(created="1", s2__processing_baseline="05.00")
    assert stamp(created="1") != stamp(created="2")


@pytest.mark.parametrize(
    ("query", "is_met"),
    [
        ({}, True),
        ({"eo:cloud_cover": {"lt": 80}}, True),
        ({"eo:cloud_cover": {"lt": 20}}, False),
        ({"eo:cloud_cover": {"gte": 20, "lte": 20}}, True),
        ({"eo:cloud_cover": {"gt": "many"}}, False),
        ({"platform": {"in": ["sentinel-2a", "x"]}}, True),
        ({"platform": {"neq": "sentinel-2a"}}, False),
        ({"id": {"startsWith": "S2A"}}, True),
        ({"not:there": {"neq": 1}}, False),
    ],
)
def test_conditions_hold_whatever_the_server_decides(query: Any, is_met: bool) -> None:
    assert meets(item({}, eo__cloud_cover=20), query) is is_met


def test_items_are_wanted_by_collection_day_and_outline() -> None:
    triangle = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [0, 10], [0, 0]]]}
    one = {**item({}), "collection": "a", "geometry": triangle, "bbox": [0, 0, 10, 10]}
    day = dt.date(2023, 2, 19)
    assert is_wanted(one, ("a",), (1, 1, 2, 2), (day, day), {})
    assert not is_wanted(one, ("b",), (1, 1, 2, 2), (day, day), {})
    assert not is_wanted(one, ("a",), (8, 8, 9, 9), (day, day), {})  # within the bounds, outside of the outline
    assert is_wanted({**one, "geometry": None}, (), (8, 8, 9, 9), (day, day), {})
    assert is_wanted({**one, "geometry": {"type": "Heart"}}, (), (8, 8, 9, 9), (day, day), {})
    before = day - dt.timedelta(days=1)
    assert not is_wanted(one, (), (1, 1, 2, 2), (before, before), {})


def test_times_and_bounds_are_read_as_they_come() -> None:
    west = {"id": "x", "properties": {"datetime": "2020-01-01T23:30:00-02:00"}}
    assert time_of(west) == dt.datetime(2020, 1, 2, 1, 30, tzinfo=dt.UTC)
    interval = {"id": "x", "properties": {"datetime": None, "start_datetime": "2020-01-01T00:00:00Z"}}
    assert time_of(interval) == dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    with pytest.raises(SourceError, match=r"item/x was acquired at 'soon', which is no time"):
        time_of({"id": "x", "properties": {"datetime": "soon"}})
    assert lonlat_bounds({"bbox": [1, 2, 0, 3, 4, 9]}) == (1, 2, 3, 4)
    assert lonlat_bounds({"bbox": [179, 2, -179, 4]}) is None
    assert lonlat_bounds({"bbox": "everywhere"}) is None
    assert extent_of({}, [{"href": "x"}]) is None
    nine = {"proj:code": "EPSG:32631", "proj:shape": [2, 3], "proj:transform": [10, 0, 100, 0, -10, 200, 0, 0, 1]}
    assert extent_of({}, [nine]) == ((100, 180, 130, 200), "EPSG:32631")
    assert extent_of({"properties": {"proj:epsg": 99999999}}, [{**nine, "proj:code": None}]) is None
