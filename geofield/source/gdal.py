"""How GDAL is set up for reading, and what its failures mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import rasterio
import requests
from rasterio.errors import RasterioError
from rasterio.session import DummySession

from geofield.errors import AccessError, SourceUnavailableError, UnreadableFileError
from geofield.source.access import PLAIN, Access, is_remote
from geofield.source.credentials import S3Session
from geofield.source.signing import signed

OPTIONS: dict[str, Any] = {
    # Opening a file would list its folder, which may hold years of files, to look for side files.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Side files (.aux.xml) are neither read nor written: what a pixel means is said in the file itself, or in the box.
    "GDAL_PAM_ENABLED": "NO",
    # The header of a COG fits into the first request, so that opening costs one.
    "GDAL_INGESTED_BYTES_AT_OPEN": 32_768,
    # Ranges that touch are asked for in one request: the tiles of a window mostly lie side by side.
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    # A file's bytes are kept while it is open (header, index, and blocks that two strips share), per file.
    "VSI_CACHE": True,
    "VSI_CACHE_SIZE": 16 * 1024 * 1024,
    # ... and forgotten when it is closed: a reprocessed scene may come under the same name.
    "CPL_VSIL_CURL_NON_CACHED": "/vsis3/:/vsicurl/",
    # Length by HEAD: without it GDAL asks for the whole file, twice, and breaks off (seen with GDAL 3.10).
    "CPL_VSIL_CURL_USE_HEAD": "YES",
    # Decoded blocks; the default is 5 % of the machine for every worker process on it.
    "GDAL_CACHEMAX": 128 * 1024 * 1024,
    # Servers that are busy say so (429, 5xx); waits double: 0.5, 1, 2, 4 seconds.
    "GDAL_HTTP_MAX_RETRY": 4,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    # A server that does not answer is an error in time for the task to be tried elsewhere.
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
}
"""No credentials: see `geofield.source.credentials`."""

_DENIED = re.compile(
    r"AccessDenied|Access Denied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidCredentials"
    r"|AWS_SECRET_ACCESS_KEY|response code: 40[13]",
    re.IGNORECASE,
)
_MISSING = re.compile(r"(key|bucket) does not exist|does not exist in the file system|No such file|response code: 404")
_BROKEN = re.compile(r"not recognized as being in a supported file format|Decod|IReadBlock failed|TIFF", re.IGNORECASE)
_NO_RASTER = re.compile(r"not recognized as being in a supported file format", re.IGNORECASE)
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ")  # TIFF, BigTIFF, JPEG 2000
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_TIMEOUT_S = (10.0, 60.0)
_SHORT_READ = re.compile(r"Read error .*got \d+ bytes", re.IGNORECASE)
"""A file that is cut off; over a network just as well an answer that did not come, which GDAL does not tell apart."""


def endpoint_url(environ: Mapping[str, str] = os.environ) -> str | None:
    """The S3 server that the environment names, None for Amazon's."""
    return environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None


def endpoint_options(environ: Mapping[str, str] = os.environ, given: str | None = None) -> dict[str, Any]:
    """GDAL's words for the source's `endpoint`, or for `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`.

    Looked up where the reading happens. GDAL itself knows `AWS_S3_ENDPOINT` only. Buckets of such servers rarely have
    a host name of their own.
    """
    url = given or endpoint_url(environ)
    if url is None:
        return {}
    parts = urlsplit(url if "://" in url else f"https://{url}")
    return {
        "AWS_S3_ENDPOINT": parts.netloc + parts.path.rstrip("/"),
        "AWS_HTTPS": "YES" if parts.scheme == "https" else "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }


def gdal_path(href: str) -> str:
    """What GDAL calls a path, or an address of S3 or HTTP."""
    if href.startswith("s3://"):
        return f"/vsis3/{href.removeprefix('s3://')}"
    return f"/vsicurl/{href}" if href.startswith(("http://", "https://")) else href


@contextmanager
def open_raster(href: str, access: Access = PLAIN) -> Iterator[rasterio.DatasetReader]:
    """A raster, with every failure of GDAL inside the block translated.

    Parameters
    ----------
    href
        A path, or an address of S3 or HTTP.

    Raises
    ------
    SourceUnavailableError
        The server did not answer, or was too busy.
    AccessError
        It refused.
    UnreadableFileError
        The file is not there, or cannot be decoded.
    """
    path = gdal_path(signed(href) if access.sign else href)
    try:
        with _environment(href, access), rasterio.open(path, sharing=False, driver=_driver(href, access)) as dataset:
            yield dataset
    except RasterioError as error:
        failure = _translated(error, href, path)
        if isinstance(failure, UnreadableFileError) and _NO_RASTER.search(_messages(error)) and _is_cut(href, access):
            raise SourceUnavailableError(f"{href} could not be read: its server broke off. Try again later.") from error
        raise failure from error


def _environment(href: str, access: Access) -> rasterio.Env:
    if not href.startswith("s3://"):
        headers = "".join(f"{name}: {value}\r\n" for name, value in access.headers(href).items())
        return rasterio.Env(session=DummySession(), **OPTIONS, **({"GDAL_HTTP_HEADERS": headers} if headers else {}))
    options = {**OPTIONS, **endpoint_options(given=access.endpoint)}
    if access.anonymous:
        return rasterio.Env(session=DummySession(), AWS_NO_SIGN_REQUEST="YES", **options)
    if access.requester_pays:
        options["AWS_REQUEST_PAYER"] = "requester"
    return rasterio.Env(session=S3Session(access.profile), **options)


def _is_cut(href: str, access: Access) -> bool:
    """Whether a file over HTTP that GDAL takes for no raster is one, or its server does not answer any more.

    Where an answer does not come, GDAL goes on with an empty file.
    """
    if not href.startswith(("http://", "https://")):
        return False
    try:
        address = signed(href) if access.sign else href
        headers = {**access.headers(href), "Range": "bytes=0-11"}
        answer = requests.get(address, headers=headers, timeout=_TIMEOUT_S, stream=True)
        with answer:
            return answer.status_code in _BUSY or next(answer.iter_content(12), b"").startswith(_MAGIC)
    except requests.RequestException:
        return True


def _driver(href: str, access: Access) -> str | None:
    """Rasterio takes one driver: that of the name, where not all are admitted."""
    if not access.only_plain_rasters:
        return None
    return "JP2OpenJPEG" if href.lower().endswith((".jp2", ".j2k")) else "GTiff"


def _translated(error: RasterioError, href: str, path: str) -> Exception:
    # a name such as tile-403.tif must not be taken for an answer of the server, and a signed address is a secret
    said = _messages(error)
    for text in (path, path.removeprefix("/vsicurl/"), gdal_path(href), href, os.path.basename(href)):
        said = said.replace(text, "the file")
    if _MISSING.search(said):
        return UnreadableFileError(f"{href} is not there (any more): {said}. Search again, or bring the file back.")
    if is_remote(href) and _DENIED.search(said):
        return AccessError(f"Reading {href} was refused: {said}. Check the credentials and the server's policy.")
    if is_remote(href) and (_SHORT_READ.search(said) or not _BROKEN.search(said)):
        return SourceUnavailableError(f"{href} could not be read: {said}. Try again later.")
    return UnreadableFileError(f"{href} cannot be read as a raster: {said}. Replace the file.")


def _messages(error: BaseException) -> str:
    """What was said, from the outermost error to its causes, each once."""
    said: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        if (text := str(cause).strip().rstrip(".")) and text not in said:
            said.append(text)
        cause = cause.__cause__ or cause.__context__
    return "; ".join(said)
