"""Addresses of the Planetary Computer, signed by the process that reads, with tokens that are renewed in time."""

from __future__ import annotations

import threading
import warnings
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import requests

from geofield.errors import AccessError, ConfigurationError, SourceUnavailableError

_lock = threading.Lock()
_TRIES = 4


def signed(href: str) -> str:
    """The address with a token of its container; addresses outside of Azure's storage, or signed already, as they are.

    A token is asked for once, kept by the process, and asked for anew when it has less than a minute left.

    Raises
    ------
    ConfigurationError
        The package planetary-computer is not installed.
    SourceUnavailableError, AccessError
        No token was given.
    """
    sas = _sas()
    try:
        parts = urlsplit(href)
        if not (parts.hostname or "").endswith(sas.BLOB_STORAGE_DOMAIN) or parts.query:
            return href
        account, container = sas.parse_blob_url(parts)
        with _lock:  # one request for the threads that read side by side
            # not by way of its `sign`, whose ten tries take minutes in which the task could be tried elsewhere
            token = sas.get_token(account, container, retry_total=_TRIES, retry_backoff_factor=0.5)
        return str(token.sign(href).href)
    except requests.HTTPError as error:
        status = None if error.response is None else error.response.status_code
        if status in (401, 403):
            raise AccessError(f"The Planetary Computer gave no token for {href}: {error}.") from error
        raise SourceUnavailableError(f"The Planetary Computer gave no token for {href}: {error}.") from error
    except (requests.RequestException, ValueError) as error:
        raise SourceUnavailableError(
            f"The Planetary Computer gave no token for {href}: {error}. Try again later."
        ) from error


def forget_tokens() -> None:
    """Ask for new tokens: the server refused one that should have held."""
    with _lock:
        _sas().TOKEN_CACHE.clear()


@cache
def _sas() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package is written for an older pydantic, and says so at length
        try:
            from planetary_computer import sas  # type: ignore[import-untyped]  # an extra
        except ImportError as error:
            raise ConfigurationError(
                "The Planetary Computer's files need signed addresses. Install geofield[planetary-computer]."
            ) from error
    return sas
