"""Whom a STAC source trusts, and who gets its secrets."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import geofield
from geofield.errors import (
    AccessError,
    SourceError,
    SourceUnavailableError,
    UnreadableFileError,
)
from geofield.grid import Grid
from geofield.source import gdal, open_source, signing
from geofield.source.access import Access
from geofield.source.stac import StacSource
from orchestrate.boxadding import add_boxes
from tests.support.imageserver import Fault, ImageServer
from tests.support.stacs import (
    DAYS,
    GEOBOX,
    make_scene,
    stac,
    without_waiting,
    write_items,
)


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[list[float]]:
    with without_waiting() as waits:
        yield waits


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


def test_a_token_goes_to_its_host_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_collection_with_wrong_flags_is_warned_of(tmp_path: Path) -> None:
    url = "https://earth-search.aws.element84.com/v1"

    def added(collection: str) -> list[str]:
        store = geofield.create_store(str(tmp_path / collection))
        options = {"id": "b", "bbox": [3.0, 49.5, 3.01, 49.51], "start": "2025-04-01"}
        source = {"source": {"type": "stac", "url": url, "collection": collection}}
        found = add_boxes(store, None, {**options, **source, "variables": {"ndvi": {"index": "NDVI"}}})
        return [one["what"] for one in found["notices"]]

    (text,) = added("sentinel-2-l2a")
    assert "Use sentinel-2-c1-l2a" in text
    assert added("sentinel-2-c1-l2a") == []


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
