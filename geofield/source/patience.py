"""How long a busy server asks to be left alone: the header Retry-After."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

import requests

from geofield.source.access import Access
from geofield.source.signing import signed

LONGEST_S = 60.0
"""A server that asks for more is unavailable: the task is tried elsewhere, or by the next run."""
BUSY = {429, 503}
_TIMEOUT_S = (10.0, 60.0)


def seconds_asked(header: str | None, now: dt.datetime | None = None) -> float | None:
    """The wait that a Retry-After names, in seconds from now; None when it names none."""
    if header is None:
        return None
    text = header.strip()
    if text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = until if until.tzinfo else until.replace(tzinfo=dt.UTC)
    return max(0.0, (aware - (now or dt.datetime.now(dt.UTC))).total_seconds())


def next_wait(planned: float | None, asked: float | None) -> float | None:
    """How long to wait before the next try; None: do not try again.

    Parameters
    ----------
    planned
        What one would wait anyway; None: it was the last try.
    asked
        What the server asks for.
    """
    if planned is None or (asked is not None and asked > LONGEST_S):
        return None
    return max(planned, asked or 0.0)


def wait_of_files(hrefs: Iterable[str], access: Access) -> float | None:
    """The longest wait that busy servers of some files ask for; None where none does.

    GDAL tries again by its own clock and does not hand on what a server says, so it is asked for here.
    """
    found = [wait for href in hrefs if (wait := _wait_of(href, access)) is not None]
    return max(found, default=None)


def _wait_of(href: str, access: Access) -> float | None:
    if not href.startswith(("http://", "https://")):
        return None
    try:
        address = signed(href) if access.sign else href
        answer = requests.head(address, headers=access.headers(href), timeout=_TIMEOUT_S, allow_redirects=True)
    except requests.RequestException:
        return None
    return seconds_asked(answer.headers.get("Retry-After")) if answer.status_code in BUSY else None
