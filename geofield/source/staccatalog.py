"""Reading catalogues: searching an API, or following the links of a static one, on any kind of address."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import fsspec
import requests
from pystac.utils import make_absolute_href
from pystac_client import ItemSearch
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from geofield.errors import AccessError, SourceError, SourceUnavailableError
from geofield.source.access import Access, is_remote
from geofield.source.footprints import Bounds
from geofield.source.gdal import endpoint_url
from geofield.source.listing import translated
from geofield.source.patience import BUSY, next_wait, seconds_asked
from geofield.source.stacitem import Json, assets_of

WAITS_S = (0.5, 1.0, 2.0, 4.0)
"""Between tries, as GDAL waits when it reads pixels."""
_TIMEOUT_S = (10.0, 60.0)
_PAGE = 100
_MOST_ITEMS = 20_000
_FILES_AT_ONCE = 8
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_QUERY = "item-search#query"


class CatalogIO(StacApiIO):
    """Reads JSON from HTTP, S3 and folders. Busy servers and cut connections are tried again."""

    def __init__(self, access: Access) -> None:
        super().__init__(timeout=_TIMEOUT_S, max_retries=None)
        self._access = access
        self._said = threading.local()
        self.session.hooks["response"].append(self._note)

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The text of an answer.

        Raises
        ------
        SourceUnavailableError
            The server was busy or cut off, again and again.
        AccessError, SourceError
            It refused, or there is no such address.
        """
        own = {**(headers or {}), **self._access.headers(href)}
        for planned in (*WAITS_S, None):
            self._said.wait = None
            try:
                return str(super().request(href, method, own, parameters))
            except APIError as error:
                failure = _failure(error, href)
                wait = next_wait(planned, self._said.wait)
                if wait is None or not isinstance(failure, SourceUnavailableError):
                    raise failure from error
            pause(wait)
        raise AssertionError

    def _note(self, answer: requests.Response, *_: object, **__: object) -> None:
        """Keep what a busy server asks for: the error that comes of its answer does not say."""
        self._said.wait = seconds_asked(answer.headers.get("Retry-After")) if answer.status_code in BUSY else None

    def document(self, href: str) -> Json:
        """A JSON object; its own addresses stay as they are."""
        try:
            found = json.loads(self._text(href))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise SourceError(f"{href} holds no JSON: {error}. Check `url`.") from error
        if not isinstance(found, dict):
            raise SourceError(f"{href} holds a JSON {type(found).__name__}, not a STAC object. Check `url`.")
        return found

    def _text(self, href: str) -> str:
        if href.startswith(("http://", "https://")):
            return self.request(href)
        with translated(href, "url"):
            if not href.startswith("s3://"):
                with open(href, encoding="utf-8") as file:
                    return file.read()
            system = s3_system(self._access)
            return str(system.cat_file(href).decode("utf-8"))


def s3_system(access: Access) -> Any:
    """The file system of the source's own server, credentials those of the environment or the profile."""
    return fsspec.filesystem(
        "s3",
        anon=access.anonymous,
        endpoint_url=access.endpoint or endpoint_url(),
        profile=access.profile,
        requester_pays=access.requester_pays,
        use_listings_cache=False,
    )


def pause(seconds: float) -> None:
    """Wait before the next try; a name of its own, so that tests need not wait."""
    time.sleep(seconds)


class Catalog:
    """A catalogue that was opened: an API that is searched, or a static one, which is read as a whole, once.

    Raises
    ------
    SourceUnavailableError, AccessError, SourceError
        Here and in `find`: no answer, a refusal, or nothing that is STAC.
    """

    def __init__(self, url: str, access: Access) -> None:
        self._url = url
        self._io = CatalogIO(access)
        self._root = self._io.document(url)
        self._searches = [
            link for link in _links(self._root) if link.get("rel") == "search" and isinstance(link.get("href"), str)
        ]
        self._items: list[Json] | None = None
        self._crawling = threading.Lock()

    def find(
        self,
        collections: Sequence[str],
        bbox: Bounds,
        days: tuple[dt.date, dt.date],
        query: Mapping[str, Mapping[str, Any]],
    ) -> list[Json]:
        """Items that may be wanted, with absolute addresses: of an API those that it finds, else all there are.

        Parameters
        ----------
        bbox
            Longitude and latitude.
        days
            First and last, UTC.
        """
        if self._searches:
            return self._search(collections, bbox, days, query)
        with self._crawling:  # once, for whoever shares this
            if self._items is None:
                self._items = list(_crawl(self._io, self._url, self._root))
            return self._items

    def _search(
        self,
        collections: Sequence[str],
        bbox: Bounds,
        days: tuple[dt.date, dt.date],
        query: Mapping[str, Mapping[str, Any]],
    ) -> list[Json]:
        url = self._url
        search = ItemSearch(
            url=_followed(self._searches[0]["href"], url),
            method="POST" if any(link.get("method") == "POST" for link in self._searches) else "GET",
            stac_io=self._io,
            collections=list(collections) or None,
            bbox=list(bbox),
            datetime=f"{days[0]}T00:00:00Z/{days[1] + dt.timedelta(days=1)}T00:00:00Z",
            query={name: dict(one) for name, one in query.items()} if query and _can_query(self._root) else None,
            limit=_PAGE,
            max_items=_MOST_ITEMS,
        )
        try:
            found = [with_addresses(item, url) for item in search.items_as_dicts()]
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise SourceError(f"{url} answered a search with something that is no list of items: {error!r}.") from error
        if len(found) >= _MOST_ITEMS:
            raise SourceError(f"{url} found {_MOST_ITEMS:,} items for {days[0]} to {days[1]}. Name `collection`.")
        return found


def with_addresses(item: Json, base: str) -> Json:
    """The item with absolute addresses of its assets; `base` is where it was read, when it does not say itself."""
    own = next((link.get("href") for link in _links(item) if link.get("rel") == "self"), None)
    start = own if isinstance(own, str) and "://" in own and "://" in base else base
    assets = {
        key: {**asset, "href": make_absolute_href(asset["href"], start)} for key, asset in assets_of(item).items()
    }
    return {**item, "assets": assets}


def _crawl(io: CatalogIO, href: str, document: Json) -> Iterator[Json]:
    """Every item below a document, by breadth; each address once."""
    seen = {href}
    level = [(href, document)]
    while level:
        below: list[str] = []
        for base, one in level:
            kind = one.get("type")
            if kind == "Feature":
                yield with_addresses(one, base)
            elif kind == "FeatureCollection" or isinstance(one.get("features"), list):
                yield from (with_addresses(item, base) for item in one.get("features", ()) if isinstance(item, Mapping))
            elif kind in ("Catalog", "Collection") or "stac_version" in one:
                for link in _links(one):
                    if link.get("rel") in ("child", "item", "items") and isinstance(link.get("href"), str):
                        target = _followed(link["href"], base)
                        if target not in seen:
                            seen.add(target)
                            below.append(target)
            else:
                raise SourceError(f"{base} is a JSON document of type {kind!r}, which is not STAC. Check `url`.")
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            level = list(zip(below, pool.map(io.document, below), strict=True))


def _followed(href: str, base: str) -> str:
    target = str(make_absolute_href(href, base))
    if is_remote(base) and not is_remote(target):
        raise SourceError(f"{base} links to {target}, a file of this machine: that is not followed.")
    return target


def _links(document: Json) -> list[Json]:
    links = document.get("links")
    return [link for link in links if isinstance(link, Mapping)] if isinstance(links, list) else []


def _can_query(root: Json) -> bool:
    return any(str(one).endswith(_QUERY) for one in root.get("conformsTo") or ())


def _failure(error: APIError, href: str) -> Exception:
    status = getattr(error, "status_code", None)
    said = " ".join(str(error).split())[:300]
    host = urlsplit(href).netloc
    if status in (401, 403):
        return AccessError(f"{host} refused {href} ({status}): {said}. Give the source `auth`, or check its token.")
    if status is None or status in _BUSY:
        reason = "did not answer" if status is None else f"answered {status}"
        return SourceUnavailableError(f"{host} {reason} when asked for {href}: {said}. Try again later.")
    return SourceError(
        f"{host} answered {status} when asked for {href}: {said}. Check `url`, `collection` and `query`."
    )
