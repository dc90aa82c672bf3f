"""The types of sources there are, by the name that a box file gives them."""

from __future__ import annotations

import difflib

from geofield.errors import SourceError

OPENERS = {
    "simulated": "geofield.source.simulated:SimulatedSource.from_spec",
    "files": "geofield.source.files:FilesSource.from_spec",
    "stac": "geofield.source.stac:StacSource.from_spec",
    "stack": "geofield.source.stack:StackSource.from_spec",
}
"""Type -> `package.module:name` of what takes the mapping and returns a Source."""


def opener_of(kind: object) -> str:
    """What opens a type of source; `SourceError` names the types there are for one that is none."""
    if isinstance(kind, str) and kind in OPENERS:
        return OPENERS[kind]
    near = difflib.get_close_matches(str(kind), OPENERS, 1)
    meant = f" {near[0]!r} is near." if near else ""
    raise SourceError(f"{kind!r} is no type of source.{meant} Give `type` as one of {', '.join(sorted(OPENERS))}.")
