"""What a STAC source asks for once, how long it waits when told to, and addresses that expire."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import geofield
from geofield.errors import AccessError, SourceUnavailableError
from geofield.grid import Grid
from geofield.source.patience import next_wait, seconds_asked
from tests.support.imageserver import Fault, ImageServer
from tests.support.stacs import DAYS, GEOBOX, make_scene, month_on_api, stac, without_waiting, write_items

EVERYTHING = (Grid(GEOBOX), *DAYS)


@pytest.fixture(autouse=True)
def waits() -> Iterator[list[float]]:
    with without_waiting() as waited:
        yield waited


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageServer]:
    with month_on_api(tmp_path_factory.mktemp("api")) as server:
        yield server


# --- once a run -------------------------------------------------------------------------------------------------------


def test_a_run_asks_an_api_once_for_the_same_days(api: ImageServer) -> None:
    before = len(api.requests("/search"))
    with geofield.searches_kept():
        every = stac(api.api).search(*EVERYTHING)
        assert [one.time.day for one in every] == [3, 8, 13, 18]
        part = stac(api.api).search(Grid(GEOBOX), dt.date(2023, 5, 4), dt.date(2023, 5, 13))
        assert part == every[1:3]
        assert len(api.requests("/search")) == before + 1
        stac(api.api).search(Grid(GEOBOX), dt.date(2023, 5, 4), dt.date(2023, 6, 1))  # a day more: asked anew
        stac(api.api, max_cloud_cover=5).search(*EVERYTHING)  # other settings: another question
        stac(api.api).search(Grid(GEOBOX[:100, :100]), *DAYS)  # another place
        assert len(api.requests("/search")) == before + 4
    stac(api.api).search(*EVERYTHING)  # the next run sees what is new
    assert len(api.requests("/search")) == before + 5


def test_boxes_of_a_run_read_a_static_catalogue_once(tmp_path: Path) -> None:
    with ImageServer(tmp_path) as server:
        write_items(tmp_path / "items.json", make_scene(tmp_path, 3, server.url))
        found: list[int] = []

        def look(cover: int) -> None:
            found.append(len(stac(f"{server.url}/items.json", max_cloud_cover=cover).search(*EVERYTHING)))

        with geofield.searches_kept():
            threads = [threading.Thread(target=look, args=(cover,)) for cover in range(90, 98)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(server.requests("items.json")) == 1
        assert found == [0] * 8  # its item does not say its cloud cover


# --- Retry-After ------------------------------------------------------------------------------------------------------


def test_the_header_is_read_in_both_forms() -> None:
    now = dt.datetime(2025, 4, 1, 12, 0, tzinfo=dt.UTC)
    assert seconds_asked("7", now) == 7
    assert seconds_asked("Tue, 01 Apr 2025 12:00:30 GMT", now) == 30
    assert seconds_asked("Tue, 01 Apr 2025 11:00:00 GMT", now) == 0
    assert seconds_asked("soon", now) is None
    assert seconds_asked(None, now) is None
    assert [next_wait(0.5, None), next_wait(0.5, 7), next_wait(8, 7), next_wait(0.5, 61), next_wait(None, 7)] == [
        0.5, 7, 8, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("status", [429, 503])
def test_a_catalogue_is_left_alone_as_long_as_it_asks(api: ImageServer, waits: list[float], status: int) -> None:
    with api.failing(Fault("/search", status=status, times=2, retry_after="9")):
        assert len(stac(api.api).search(*EVERYTHING)) == 4
    assert waits == [9.0, 9.0]
    with api.failing(Fault("/search", status=500, times=1, retry_after="9")):
        stac(api.api).search(*EVERYTHING)
    assert waits[2:] == [0.5]


def test_a_catalogue_that_asks_for_too_much_is_left_to_the_next_run(api: ImageServer, waits: list[float]) -> None:
    with (
        api.failing(Fault("/search", status=429, retry_after="3600")),
        pytest.raises(SourceUnavailableError, match="answered 429"),
    ):
        stac(api.api).search(*EVERYTHING)
    assert waits == []


def test_etags_are_asked_for_as_late_as_the_server_wants(tmp_path: Path, waits: list[float]) -> None:
    with ImageServer(tmp_path) as server:
        url = write_items(tmp_path / "items.json", make_scene(tmp_path, 3, server.url))
        with server.failing(Fault("_B04", status=503, times=1, retry_after="4")):
            stac(url, etags=True).search(*EVERYTHING)
    assert waits == [4.0]


def test_files_are_tried_once_more_when_their_server_says_when(tmp_path: Path, waits: list[float]) -> None:
    """GDAL's own tries (five answers for the length, five for the bytes) have failed by then."""
    with ImageServer(tmp_path) as server:
        source = stac(write_items(tmp_path / "items.json", make_scene(tmp_path, 3, server.url)))
        (one,) = source.search(*EVERYTHING)
        expected = source.read(one, ["red"], GEOBOX)["red"]
        faults = server.requests("_B04")
        with server.failing(Fault("_B04", status=429, retry_after="5")), pytest.raises(SourceUnavailableError):
            source.read(one, ["red"], GEOBOX)
        assert waits == [5.0]
        tries = (len(server.requests("_B04")) - len(faults)) // 2 + 1  # of one call of GDAL, and the question
        with server.failing(Fault("_B04", status=429, times=tries, retry_after="5")):
            np.testing.assert_array_equal(source.read(one, ["red"], GEOBOX)["red"], expected)
        assert waits == [5.0, 5.0]


def test_a_connection_that_is_cut_is_tried_again(tmp_path: Path) -> None:
    with ImageServer(tmp_path) as server:
        source = stac(write_items(tmp_path / "items.json", make_scene(tmp_path, 3, server.url)))
        (one,) = source.search(*EVERYTHING)
        expected = source.read(one, ["red"], GEOBOX)["red"]
        with server.failing(Fault("_B04", cut=1000)), pytest.raises(SourceUnavailableError, match="Try again later"):
            source.read(one, ["red"], GEOBOX)
        np.testing.assert_array_equal(source.read(one, ["red"], GEOBOX)["red"], expected)


# --- addresses that expire --------------------------------------------------------------------------------------------


def test_signed_addresses_of_a_catalogue_are_asked_for_anew(tmp_path: Path) -> None:
    """Its items hold addresses with a signature; the server takes the newest one only."""
    with ImageServer(tmp_path, upstream=None) as server:
        item = make_scene(tmp_path, 3, server.url)

        def sign(number: int) -> None:
            for asset in item["assets"].values():
                asset["href"] = f"{asset['href'].partition('?')[0]}?sig={number}"
            write_items(tmp_path / "items.json", item)

        sign(1)
        source = stac(f"{server.url}/items.json")
        (one,) = source.search(*EVERYTHING)
        expected = source.read(one, ["red", "nir"], GEOBOX)
        sign(2)
        with server.failing(Fault("?sig=1", status=403)):
            values = source.read(one, ["red", "nir"], GEOBOX)
            np.testing.assert_array_equal(values["nir"], expected["nir"])
        assert server.requests("_B08.tif?sig=2")
        with server.failing(Fault("?sig=", status=403)), pytest.raises(AccessError, match="was refused"):
            source.read(one, ["red"], GEOBOX)
        versions = [found.version for found in stac(f"{server.url}/items.json").search(*EVERYTHING)]
        assert versions == [one.version]  # a new signature is no new scene
