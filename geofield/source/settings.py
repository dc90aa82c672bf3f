"""The settings of a source as they stand in a box file, checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from geofield.errors import SourceError


class Settings(BaseModel):
    """Base of every source's settings: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    type: str


class BandPlace(BaseModel):
    """Base of where a band is. `scale`, `offset` and `nodata` stand in for what the imagery itself says."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None

    @property
    def overrides(self) -> dict[str, float]:
        """What does not come from the imagery."""
        given = {"scale": self.scale, "offset": self.offset, "nodata": self.nodata}
        return {name: value for name, value in given.items() if value is not None}


def with_index(key: str, value: Any) -> Any:
    """The text `name#2` as {key: name, index: 2}; anything else as it is."""
    if not isinstance(value, str):
        return value
    name, mark, index = value.rpartition("#")
    return {key: name, "index": int(index)} if mark and index.isdecimal() else {key: value}


def check_quality(quality: Collection[str] | None, bands: Collection[str]) -> None:
    """`ValueError` when a band of classes is none of the bands."""
    if unknown := sorted(set(quality or ()) - set(bands)):
        raise ValueError(f"quality names {unknown[0]!r}, which is none of the bands {', '.join(bands)}")


_SECRET = re.compile("key|secret|token|password|credential", re.IGNORECASE)

Chosen = TypeVar("Chosen", bound=Settings)


def parse_settings(model: type[Chosen], spec: Mapping[str, Any]) -> Chosen:
    """The settings; `SourceError` names each wrong key, its value, and the keys there are."""
    try:
        return model.model_validate(dict(spec))
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        faults = "; ".join(_fault(one) for one in error.errors(include_url=False))
        # not `from error`: what pydantic says repeats every value, and one may be a secret
        raise SourceError(f"Source of type {spec.get('type')!r}: {faults}. Its keys are {known}.") from None


def check_no_credentials(url: str) -> str:
    """The URL as it is; `SourceError` when it carries a user, a password or a signed query.

    A source is stored with its box and travels to every worker, so it is no place for a secret.
    """
    parts = urlsplit(url)
    if "://" in url and ("@" in parts.netloc or parts.query):
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise SourceError(
            f"The address {where} carries a user name, a password or a signed query. Leave them out: credentials are "
            "taken from the environment of the process that reads (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...)."
        )
    return url


def _fault(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the mapping"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "extra_forbidden":
        value = "value not shown" if _SECRET.search(key) else f"value {error['input']!r}"
        return f"{key} is no key of it ({value})"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, SourceError):  # says itself what was given, as far as that may be said
        return f"{key}: {str(cause).rstrip('.')}"
    if key.startswith("auth"):  # a token that was written where the name of its variable belongs
        return f"{key} (value not shown): {error['msg']}"
    return f"{key} = {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"
