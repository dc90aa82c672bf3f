"""Where pixels come from: one protocol, and what implements it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from geofield.source.counters import ReadCounter, count_read, counting
from geofield.source.protocol import Acquisition, Source
from geofield.sourcetypes import OPENERS, opener_of

__all__ = [
    "Acquisition",
    "ReadCounter",
    "Source",
    "advice_on",
    "count_read",
    "counting",
    "open_source",
    "register_source",
]


def open_source(spec: Mapping[str, Any]) -> Source:
    """A source from the `source` mapping of a box; `type` picks the kind. Reads nothing yet.

    Raises
    ------
    SourceError
        An unknown type, or a key or value that it does not take.
    """
    module, _, path = opener_of(spec.get("type")).partition(":")
    opener: Any = importlib.import_module(module)
    for name in path.split("."):
        opener = getattr(opener, name)
    source: Source = opener(spec)
    return source


def advice_on(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """What is known to go wrong with a source that is otherwise all right, in words; reads nothing."""
    settings = getattr(open_source(spec), "settings", None)
    found: tuple[str, ...] = getattr(settings, "advice", ())
    return found


def register_source(kind: str, opener: str) -> None:
    """Make a type of source known to `open_source` in this process.

    Parameters
    ----------
    kind
        The `type` in a box file.
    opener
        `package.module:name` of what takes the mapping and returns a Source; imported when first needed. Named by
        code, never by a box file, which must not choose what is run.
    """
    OPENERS[kind] = opener
