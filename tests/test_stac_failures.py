"""What a STAC source asks of servers, and what it makes of their failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox

from geofield.errors import (
    AccessError,
    MissingBandError,
    SourceError,
    SourceUnavailableError,
    UnreadableFileError,
)
from geofield.grid import Grid
from tests.support.imageserver import Fault, ImageServer
from tests.support.scenes import stac_item, write_tif
from tests.support.stacs import (
    DAYS,
    GEOBOX,
    RANDOM,
    make_scene,
    month_on_api,
    stac,
    without_waiting,
    write_items,
)


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[list[float]]:
    with without_waiting() as waits:
        yield waits


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageServer]:
    with month_on_api(tmp_path_factory.mktemp("api")) as server:
        yield server


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


@pytest.mark.parametrize("answered", range(6))
def test_a_server_that_goes_off_at_any_request_is_unavailable(tmp_path: Path, answered: int) -> None:
    """Not a broken file: where the header does not come, GDAL finds no raster in what it has."""
    with ImageServer(tmp_path) as server:
        source = stac(write_items(tmp_path / "items.json", make_scene(tmp_path, 3, server.url)))
        (one,) = source.search(Grid(GEOBOX), *DAYS)
        source.read(one, ["red"], GEOBOX)
        needed = len(server.requests("_B04"))
        with server.failing(Fault("_B04", after=answered)):
            if answered < needed:
                with pytest.raises(SourceUnavailableError, match="Try again later"):
                    source.read(one, ["red"], GEOBOX)
            else:
                source.read(one, ["red"], GEOBOX)
        (tmp_path / "S2A_03_B04.tif").write_bytes(b"no raster at all" * 1000)
        with pytest.raises(UnreadableFileError, match="cannot be read as a raster"):
            source.read(one, ["red"], GEOBOX)


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
