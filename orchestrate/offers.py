"""What catalogues offer for the days that a run would append: a dry run's look at the imagery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import GeofieldError
from orchestrate.work import Append, Step

if TYPE_CHECKING:
    from geofield import Store

_AT_ONCE = 8


def offers(store: Store, steps: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """Box id -> items, days, cloud cover and bytes of its days to come, or the `error` of its catalogue.

    Of boxes whose source is a STAC catalogue: others tell nothing that the estimates do not say.
    """
    from geofield.pipeline import offer

    def look(step: Append) -> dict[str, Any] | None:
        try:
            box = store.box(step.box)
            if box.source.get("type") != "stac":
                return None
            return asdict(offer(box, geofield.open_source(box.source), step.start, step.end))
        except GeofieldError as error:
            return {"error": str(error)}

    appends = [step for step in steps if isinstance(step, Append)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {step.box: found for step, found in zip(appends, pool.map(look, appends), strict=True) if found}


def with_bytes(step: Step, imagery: Mapping[str, Mapping[str, Any]]) -> Step:
    """A step with the bytes that its catalogue tells, which are closer than an estimate from the days so far."""
    known = imagery.get(step.box, {}).get("source_bytes")
    return replace(step, source_bytes=known) if isinstance(step, Append) and known is not None else step
