"""What changes when the pixels of an item may have changed: checksums, the catalogue's own word, or files' ETags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from geofield.errors import AccessError, SourceUnavailableError, UnreadableFileError
from geofield.source.access import Access
from geofield.source.listing import stamp_of, translated
from geofield.source.patience import BUSY, next_wait, seconds_asked
from geofield.source.signing import signed
from geofield.source.staccatalog import WAITS_S, pause, s3_system
from geofield.source.stacitem import Json, properties_of

_CHANGES = ("updated",)
_ORIGINS = (
    "s2:processing_baseline",
    "processing:version",
    "created",
    "s2:generation_time",
    "s2:product_uri",
    "processing:datetime",
    "version",
)
_TIMEOUT_S = (10.0, 60.0)
_FILES_AT_ONCE = 8


def said_stamp(item: Json, assets: Mapping[str, Json]) -> str | None:
    """What the item itself says about the state of its pixels; None when it says nothing.

    `file:checksum` of every band's asset; else `updated`; else baseline, `created` and what else tells one delivery
    from another.

    Parameters
    ----------
    assets
        Band -> asset.
    """
    sums = {name: asset.get("file:checksum") for name, asset in assets.items()}
    if sums and all(isinstance(one, str) and one for one in sums.values()):
        return f"checksum:{sorted(sums.items())}"
    properties = properties_of(item)
    for keys in (_CHANGES, _ORIGINS):
        said = {key: str(properties[key]) for key in keys if properties.get(key)}
        if said:
            return f"said:{sorted(said.items())}"
    return None


def file_stamps(hrefs: Mapping[str, str], access: Access) -> dict[str, str]:
    """Band -> what the file's own server says: its ETag, or else length and time of change."""
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        return dict(zip(hrefs, pool.map(lambda href: _file_stamp(href, access), hrefs.values()), strict=True))


def _file_stamp(href: str, access: Access) -> str:
    if href.startswith(("http://", "https://")):
        return _http_stamp(href, access)
    with translated(href, "url"):
        info: Mapping[str, Any] = s3_system(access).info(href) if href.startswith("s3://") else {}
        return stamp_of(href, info)


def _http_stamp(href: str, access: Access) -> str:
    for planned in (*WAITS_S, None):
        wait = planned
        try:
            answer = requests.head(
                signed(href) if access.sign else href,
                headers=access.headers(href),
                timeout=_TIMEOUT_S,
                allow_redirects=True,
            )
        except requests.RequestException as error:
            if wait is None:
                said = type(error).__name__  # its text may hold a signed address
                raise SourceUnavailableError(f"{href} did not answer: {said}. Try again later.") from error
        else:
            if answer.ok:
                etag = answer.headers.get("ETag", "").removeprefix("W/").strip('"')
                return etag or "-".join(answer.headers.get(key, "") for key in ("Content-Length", "Last-Modified"))
            if answer.status_code in (401, 403):
                raise AccessError(f"Asking for {href} was refused ({answer.status_code}). Check the credentials.")
            if answer.status_code in (404, 410):
                raise UnreadableFileError(f"{href} is not there (any more), though its item is. Search again later.")
            asked = seconds_asked(answer.headers.get("Retry-After")) if answer.status_code in BUSY else None
            wait = next_wait(planned, asked)
            if wait is None:
                raise SourceUnavailableError(f"{href} answered {answer.status_code}. Try again later.")
        pause(wait)
    raise AssertionError


def is_local(href: str) -> bool:
    """Whether an address is a path that exists on this machine: its stamp costs nothing."""
    return "://" not in href and os.path.exists(href)
