"""Who is doing this, for commits and receipts."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def _new_id() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Run:
    """One run: its id goes into every commit that it makes."""

    id: str = field(default_factory=_new_id)

    def metadata(self, kind: str, days: Sequence[dt.date]) -> dict[str, Any]:
        """What a commit says of itself: run, kind of work, days, versions of code and libraries."""
        return {
            "run": self.id,
            "kind": kind,
            "days": [str(days[0]), str(days[-1])] if days else [],
            **{name: package_version(name) for name in ("geofield", "icechunk", "zarr", "numpy")},
        }


@cache  # reading it takes a millisecond, and every commit says it of four packages
def package_version(name: str) -> str:
    """The installed version of a distribution, `unknown` when it runs from a bare checkout."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
