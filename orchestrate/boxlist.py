"""The boxes of a store, also when some of them cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geofield.errors import CorruptStoreError

if TYPE_CHECKING:
    from geofield import Box, Store


def box_ids(store: Store) -> list[str]:
    """Ids of the boxes, also of those that cannot be read."""
    keys = (info.key for info in store.location.list("boxes"))
    return sorted(key.removeprefix("boxes/").removesuffix(".json") for key in keys if key.endswith(".json"))


def readable_boxes(store: Store) -> dict[str, Box]:
    """The boxes, without those that cannot be read: these are reported where they are worked on."""
    boxes = {}
    for box_id in box_ids(store):
        try:
            boxes[box_id] = store.box(box_id)
        except (CorruptStoreError, ValueError):
            continue
    return boxes
