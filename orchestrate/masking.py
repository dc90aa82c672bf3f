"""Secrets are kept out of everything that is written: logs, receipts, notifications, what settings are shown as.

What counts as one: the values of environment variables that are named like one, the values that a settings file took
from the environment or was given as an address of a notification, and what has the form of one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

MASK = "***"
_SHORTEST = 6  # "true" or "1234" in a variable that is named like a secret would take ordinary words out of every text

_NAMED = re.compile(
    r"SECRET|TOKEN|PASSW(OR)?D|PASSPHRASE|CREDENTIAL|WEBHOOK|(API|ACCESS|PRIVATE|SUBSCRIPTION|ACCOUNT|SAS|SIGNING)_?KEY"
)
_PLACES = re.compile(r"_(FILE|PATH|DIR|FULL_URI|RELATIVE_URI|EXPIRATION)$")  # they say where a secret is kept

_FORMS = (
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), MASK),
    (re.compile(r"(?<=://)[^/\s@:]*:[^/\s@]+(?=@)"), MASK),
    (
        re.compile(
            r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token)|sig|signature|[a-z_-]*token|[a-z_-]*password|"
            r"[a-z_-]*secret(?:[_-]?access[_-]?key)?|api[_-]?key|subscription-key)=[^&\s'\"<>,;]+"
        ),
        rf"\1={MASK}",
    ),
    (re.compile(r"(?i)\b(Bearer|Basic)\s+[A-Za-z0-9._~+/-]{8,}=*"), rf"\1 {MASK}"),
)

_registered: set[str] = set()


def register(value: str) -> None:
    """Keep a value out of whatever this process writes from now on; of an address also its parts that may be secret."""
    if "://" not in value:
        found = [value]
    else:
        parts = urlsplit(value)
        # the address of a webhook is its own password: host and path of it are left out as well
        found = [value, parts.password or "", *(part for part in parts.path.split("/") if len(part) >= 12)]
        if parts.query:
            found.append(parts.query)
    _registered.update(part for one in found for part in (one, unquote(one)) if len(part) >= _SHORTEST)


def secrets(environment: Mapping[str, str] | None = None) -> set[str]:
    """Values that are never written."""
    environment = os.environ if environment is None else environment
    named = {
        value
        for name, value in environment.items()
        if len(value) >= _SHORTEST and _NAMED.search(name.upper()) and not _PLACES.search(name.upper())
    }
    return named | _registered


def mask(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text with `***` in place of every secret."""
    return _masked(text, _longest_first(secrets(environment)))


def mask_all(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """A JSON value with `mask` applied to every text in it, keys included."""
    return _walk(value, _longest_first(secrets(environment)))


def _longest_first(values: set[str]) -> list[str]:
    return sorted(values, key=len, reverse=True)


def _walk(value: Any, values: list[str]) -> Any:
    if isinstance(value, str):
        return _masked(value, values)
    if isinstance(value, dict):
        return {_walk(name, values): _walk(item, values) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(item, values) for item in value]
    return value


def _masked(text: str, values: list[str]) -> str:
    for value in values:
        if value in text:
            text = text.replace(value, MASK)
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text
