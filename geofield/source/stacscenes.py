"""The same scene delivered twice, reprocessed or under two collections, counts once: the newest baseline. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence

from geofield.source.stacitem import Json, properties_of, time_of
from geofield.source.stacradiometry import baseline_of, is_sentinel2

_PRODUCT = re.compile(r"(S2[A-D])_MSI(L[12][AC])_(\d{8}T\d{6})_(?:N\d{4}_)?R\d{3}_T(\d{2}[A-Z]{3})_")
_PRODUCT_KEYS = ("s2:product_uri", "sentinel:product_id")
_STRIP = re.compile(r"_S(\d{8}T\d{6})_")
_SAME_STRIP = dt.timedelta(seconds=5)
"""The start of a strip moves by little when it is processed anew; the next strip of a pass begins much later."""
_CLOCK = "%Y%m%dT%H%M%S"


def one_of_each_scene(items: Iterable[Json], collections: Sequence[str]) -> list[Json]:
    """Of the items of one scene the best: newest baseline, then changed last, then the collection named first.

    A Sentinel-2 scene is what one satellite saw of one tile in one pass. Where two strips of the pass meet within a
    tile, a catalogue has two items, which are two scenes. Other scenes are the same by platform, time and grid cell,
    and without these by their id.
    """
    scenes: dict[tuple[str, ...], list[Json]] = {}
    for item in sorted(items, key=lambda one: _rank(one, collections), reverse=True):
        others = scenes.setdefault(_scene(item), [])
        if not any(_is_same_strip(item, other) for other in others):
            others.append(item)
    return [item for others in scenes.values() for item in others]


def _scene(item: Json) -> tuple[str, ...]:
    properties = properties_of(item)
    for text in (*(properties.get(key) for key in _PRODUCT_KEYS), item.get("id")):
        if found := _PRODUCT.match(str(text)):
            return found.groups()
    platform, cell = properties.get("platform"), properties.get("grid:code")
    if platform and cell:
        return str(platform).lower(), str(cell), time_of(item).isoformat()
    return ("id", str(item.get("id")))


def _is_same_strip(one: Json, other: Json) -> bool:
    starts = [_strip_start(one), _strip_start(other)]
    if starts[0] is None or starts[1] is None:
        return True
    return abs(starts[0] - starts[1]) <= _SAME_STRIP


def _strip_start(item: Json) -> dt.datetime | None:
    found = _STRIP.search(str(properties_of(item).get("s2:datastrip_id", "")))
    try:
        return dt.datetime.strptime(found[1], _CLOCK).replace(tzinfo=dt.UTC) if found else None
    except ValueError:
        return None


def _rank(item: Json, collections: Sequence[str]) -> tuple[object, ...]:
    properties = properties_of(item)
    baseline = (baseline_of(item) if is_sentinel2(item) else None) or (-1, -1)
    changed = next((time for key in _CHANGED_KEYS if (time := _time(properties.get(key))) is not None), 0.0)
    collection = str(item.get("collection"))
    place = collections.index(collection) if collection in collections else len(collections)
    return baseline, changed, -place, str(item.get("id"))


def _time(value: object) -> float | None:
    try:
        time = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp()


_CHANGED_KEYS = ("s2:generation_time", "processing:datetime", "updated", "created")
