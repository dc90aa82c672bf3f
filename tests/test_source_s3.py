"""The files source on S3: found, read with the environment's endpoint and credentials, and what failures mean."""

from __future__ import annotations

import datetime as dt
import io
import pickle
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import boto3  # type: ignore[import-untyped]
import numpy as np
import pytest
import rasterio
import s3fs
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.errors import AccessError, SourceError, SourceUnavailableError, UnreadableFileError
from geofield.grid import Grid
from geofield.source import Source, counting, gdal, open_source
from geofield.source.access import Access
from geofield.source.raster import RasterBand, read_band

if TYPE_CHECKING:
    from tests.support.s3server import S3Server

GEOBOX = GeoBox((300, 300), Affine(10, 0, 500_000, 0, -10, 5_490_000), "EPSG:32631")
RANDOM = np.random.default_rng(0).random((300, 300)).astype("float32")
ALWAYS = dt.date(1970, 1, 1), dt.date(2100, 1, 1)


@pytest.fixture(autouse=True)
def _standard_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL's own variables stay unset: `AWS_ENDPOINT_URL` has to be enough."""
    for name in ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING"):
        monkeypatch.delenv(name, raising=False)


def tif(values: np.ndarray) -> bytes:
    """A GeoTIFF."""
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=300, width=300, count=1, dtype="float32", crs="EPSG:32631",
            transform=GEOBOX.transform, tiled=True, blockxsize=128, blockysize=128,
        ) as dataset:  # fmt: skip
            dataset.write(values, 1)
        return bytes(memory.read())


def put(url: str, data: bytes) -> str:
    """Put an object; its address."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    boto3.Session().client("s3").upload_fileobj(io.BytesIO(data), bucket, key)
    return url


def files(root: str, pattern: str = "v_{time}.tif", **options: object) -> Source:
    """A source of one band."""
    return open_source({"type": "files", "root": root, "bands": {"v": pattern}, **options})


@pytest.mark.s3
def test_values_are_those_of_the_objects(s3_url: str) -> None:
    for day, factor in ((1, 1), (6, 2)):
        put(f"{s3_url}/v_202504{day:02}T103000Z.tif", tif(RANDOM * factor))
    source = pickle.loads(pickle.dumps(files(s3_url)))
    assert source.native_geobox() == GEOBOX
    found = source.search(Grid(GEOBOX), *ALWAYS)
    assert [one.id for one in found] == ["20250401T103000", "20250406T103000"]
    assert found[0].assets == {"v": f"{s3_url}/v_20250401T103000Z.tif"}
    with counting() as counter:
        values = source.read(found[1], ["v"], GEOBOX[100:200, 50:150])["v"]
    np.testing.assert_array_equal(values, (RANDOM * 2)[100:200, 50:150].astype("float64"))
    assert (counter.reads, counter.bytes) == (1, 40_000)


@pytest.mark.s3
def test_sub_folders_are_found_with_one_listing(s3: S3Server, s3_url: str) -> None:
    for day in (1, 6, 11):
        put(f"{s3_url}/202504{day:02}/B04.tif", tif(RANDOM))
    put(f"{s3_url}-other/20250416/B04.tif", tif(RANDOM))
    source = files(s3_url, "{time}/B04.tif")
    source.search(Grid(GEOBOX), *ALWAYS)
    with s3.counting() as counts:
        found = source.search(Grid(GEOBOX), *ALWAYS)
    assert [one.time.day for one in found] == [1, 6, 11]
    # headers are known; what is left is the listing
    assert counts.operations == {"LIST": 1}


@pytest.mark.s3
def test_an_object_that_is_replaced_has_a_new_version_and_new_pixels(s3_url: str) -> None:
    source = files(s3_url)
    seen = []
    for factor in (1, 2):
        put(f"{s3_url}/v_20250401.tif", tif(RANDOM * factor))
        (one,) = source.search(Grid(GEOBOX), *ALWAYS)
        assert source.search(Grid(GEOBOX), *ALWAYS) == [one]
        seen.append((one.version, source.read(one, ["v"], GEOBOX)["v"]))
    assert seen[0][0] != seen[1][0]
    np.testing.assert_array_equal(seen[1][1], 2 * seen[0][1])


@pytest.mark.s3
def test_threads_read_at_the_same_time(s3_url: str) -> None:
    put(f"{s3_url}/v_20250401.tif", tif(RANDOM))
    source = files(s3_url)
    (one,) = source.search(Grid(GEOBOX), *ALWAYS)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda y: source.read(one, ["v"], GEOBOX[y : y + 30])["v"], range(0, 300, 30)))
    np.testing.assert_array_equal(np.concatenate(parts), RANDOM.astype("float64"))


@pytest.mark.s3
def test_missing_and_broken_objects_are_named(s3_url: str) -> None:
    with pytest.raises(UnreadableFileError, match=r"tile-503\.tif is not there \(any more\)"):
        read_band(RasterBand(f"{s3_url}/tile-503.tif"), GEOBOX)
    broken = put(f"{s3_url}/tile-403.tif", b"no raster at all" * 100)
    with pytest.raises(UnreadableFileError, match=r"tile-403\.tif cannot be read as a raster"):
        read_band(RasterBand(broken), GEOBOX)


@pytest.mark.s3
def test_missing_prefix_and_bucket_are_told(s3_url: str) -> None:
    for pattern in ("v_{time}.tif", "{time}/v.tif"):
        with pytest.raises(SourceError, match=f"There is nothing at {s3_url}"):
            files(s3_url, pattern).search(Grid(GEOBOX), *ALWAYS)
        with pytest.raises(SourceError, match="There is nothing at s3://no-such-bucket-here/x"):
            files("s3://no-such-bucket-here/x", pattern).search(Grid(GEOBOX), *ALWAYS)


@pytest.mark.s3
def test_missing_credentials_are_told_and_open_objects_need_none(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    href = put(f"{s3_url}/v_20250401.tif", tif(RANDOM))
    bucket, _, key = href.removeprefix("s3://").partition("/")
    boto3.Session().client("s3").put_object_acl(Bucket=bucket, Key=key, ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(AccessError, match=r"no credentials for S3.*`anonymous: true`"):
        read_band(RasterBand(href), GEOBOX)
    np.testing.assert_array_equal(read_band(RasterBand(href, access=Access(anonymous=True)), GEOBOX)[0], RANDOM)


def test_endpoint_is_put_into_gdals_words() -> None:
    assert gdal.endpoint_options({}) == {}
    minio = {"AWS_S3_ENDPOINT": "minio:9000", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
    assert gdal.endpoint_options({"AWS_ENDPOINT_URL": "http://minio:9000"}) == minio
    both = {"AWS_ENDPOINT_URL": "http://minio:9000", "AWS_ENDPOINT_URL_S3": "https://s3.example/base/"}
    assert gdal.endpoint_options(both)["AWS_S3_ENDPOINT"] == "s3.example/base"
    assert gdal.endpoint_options(both)["AWS_HTTPS"] == "YES"


def test_options_hold_no_credentials() -> None:
    assert not [name for name in gdal.OPTIONS if "KEY" in name or "SECRET" in name or "TOKEN" in name]


class _Failing(ThreadingHTTPServer):
    """Answers every request with an error; the first `good` ones, and those from `until` on, with bytes of a file."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.data, self.status, self.good, self.until, self.seen = data, 503, 0, 1_000_000, 0
        self.payers: set[str | None] = set()


class _Answer(BaseHTTPRequestHandler):
    server: _Failing

    def do_GET(self) -> None:
        server = self.server
        server.seen += 1
        server.payers.add(self.headers.get("x-amz-request-payer"))
        if server.good < server.seen < server.until:
            code = "AccessDenied" if server.status == 403 else "Sorry"
            self._send(server.status, f"<Error><Code>{code}</Code></Error>".encode())
            return
        first, last = map(int, re.findall(r"\d+", self.headers["Range"]))
        part = server.data[first : last + 1]
        self._send(206, part, f"bytes {first}-{first + len(part) - 1}/{len(server.data)}")

    def _send(self, status: int, body: bytes, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Failing]:
    """A server that fails, as the endpoint of S3; GDAL tries again once, soon."""
    with _Failing(tif(RANDOM)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setitem(gdal.OPTIONS, "GDAL_HTTP_MAX_RETRY", 1)
        monkeypatch.setitem(gdal.OPTIONS, "GDAL_HTTP_RETRY_DELAY", 0.01)
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_unavailable(failing: _Failing, status: int) -> None:
    failing.status = status
    with pytest.raises(SourceUnavailableError, match=r"s3://b/v\.tif could not be read: .*Try again later"):
        read_band(RasterBand("s3://b/v.tif"), GEOBOX)


def test_a_server_that_breaks_off_is_unavailable(failing: _Failing) -> None:
    failing.good = 1  # the header comes, the pixels do not
    with pytest.raises(SourceUnavailableError, match=r"s3://b/v\.tif could not be read: .*Try again later"):
        read_band(RasterBand("s3://b/v.tif"), GEOBOX)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_recovers_is_asked_again(failing: _Failing, status: int) -> None:
    failing.status, failing.good, failing.until = status, 1, 3  # the second request fails once
    np.testing.assert_array_equal(read_band(RasterBand("s3://b/v.tif"), GEOBOX)[0], RANDOM)
    assert failing.seen >= 3


@pytest.mark.parametrize(("pays", "said"), [(True, {"requester"}), (False, {None})])
def test_every_request_says_who_pays(failing: _Failing, pays: bool, said: set[str | None]) -> None:
    failing.good = 1_000_000
    values, _ = read_band(RasterBand("s3://b/v.tif", access=Access(requester_pays=pays)), GEOBOX)
    np.testing.assert_array_equal(values, RANDOM)
    assert failing.payers == said


def test_a_server_that_refuses_is_no_reason_to_retry(failing: _Failing) -> None:
    failing.status = 403
    with pytest.raises(AccessError, match=r"Reading s3://b/v\.tif was refused"):
        read_band(RasterBand("s3://b/v.tif"), GEOBOX)


def test_no_server_is_unavailable(failing: _Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(SourceUnavailableError, match=r"s3://b/v\.tif could not be read"):
        read_band(RasterBand("s3://b/v.tif"), GEOBOX)
    with pytest.raises(SourceUnavailableError, match=r"s3://b did not answer"):
        files("s3://b").search(Grid(GEOBOX), *ALWAYS)
