"""A dry run says what catalogues offer: items, cloud cover, bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import geofield
from orchestrate import cli
from orchestrate.summary import planned
from tests.support.imageserver import ImageServer
from tests.support.stacs import DAYS, GEOBOX, make_scene, write_items

VARIABLES = {"ndvi": {"index": "NDVI", "mask": {"scl": [3, 8, 9]}}}
MONTH = GEOBOX.boundingbox
COVERS = {3: 10, 8: 20, 13: 90}


def make_store(tmp_path: Path, url: str) -> geofield.Store:
    """A store with a box over a catalogue: 200 x 300 of the scenes' 300 x 300 pixels, and another source."""
    store = geofield.create_store(str(tmp_path / "store"))
    bbox = [MONTH.left, MONTH.bottom, MONTH.left + 2000, MONTH.top]
    values = {"crs": "EPSG:32631", "grid": {"crs": "EPSG:32631"}, "start": DAYS[0], "variables": VARIABLES}
    store.add_box(geofield.box_from({"id": "b", "bbox": bbox, "source": {"type": "stac", "url": url}, **values}))
    store.add_box(geofield.box_from({"id": "c", "bbox": bbox, "source": {"type": "simulated"}, **values}))
    return store


def test_items_cloud_cover_and_bytes_are_told_and_no_file_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ImageServer(tmp_path) as server:
        scenes = [make_scene(tmp_path, day, server.url, eo__cloud_cover=cover) for day, cover in COVERS.items()]
        store = make_store(tmp_path, f"{server.url}/items.json")
        write_items(tmp_path / "items.json", *scenes)
        found = planned(store, DAYS[1], search=True)
        assert set(found["imagery"]) == {"b"}
        assert found["imagery"]["b"] == {
            "items": 3, "days": 3, "cloud_cover": (10, 40, 90),
            "source_bytes": 3 * 200 * 300 * 3 * 2,  # scenes, pixels, bands, bytes
        }  # fmt: skip
        step = next(one for one in found["steps"] if one["box"] == "b")
        assert step["source_bytes"] == found["imagery"]["b"]["source_bytes"]
        assert [one.path for one in server.served] == ["/files/items.json"]
        assert planned(store, DAYS[1])["imagery"] == {}
        words = ["plan", store.url, "--until", str(DAYS[1])]
        assert cli.main([*words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["imagery"]["b"]["items"] == 3
        assert cli.main(words) == 0
        shown = capsys.readouterr().out
        assert "Imagery on offer" in shown
        assert "40 %" in shown
        before = len(server.served)
        assert cli.main([*words, "--no-search"]) == 0
        assert "Imagery on offer" not in capsys.readouterr().out
        assert len(server.served) == before


def test_a_catalogue_that_is_down_is_told_and_the_plan_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path, str(tmp_path / "gone.json"))
    found = planned(store, DAYS[1], search=True)
    assert "There is nothing at" in found["imagery"]["b"]["error"]
    assert {one["box"] for one in found["steps"]} == {"b", "c"}
    assert cli.main(["plan", store.url, "--until", str(DAYS[1])]) == 0
    assert "box b: its catalogue could not be asked. There is nothing at" in capsys.readouterr().out.replace("\n", " ")
