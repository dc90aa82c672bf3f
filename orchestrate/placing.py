"""Every current field with the boxes that it belongs to: placed once for all boxes, not once for each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    from geofield import Box, Store


AT_ONCE = 100_000
"""Fields placed at a time: as objects of Python they take ten times the memory that they take in a table."""


@dataclass(frozen=True)
class Placed:
    """The fields of a store at one version of its table.

    Attributes
    ----------
    version
        Of the table.
    table
        Current fields, sorted by id.
    numbers
        Box id -> positions in `table` of the fields that belong to it, ascending.
    """

    version: int
    table: pa.Table
    numbers: Mapping[str, npt.NDArray[np.int64]]

    def of(self, box_id: str) -> pd.DataFrame:
        """The fields of a box."""
        found: pd.DataFrame = self.table.take(self._of(box_id)).to_pandas()
        return found

    def digest(self, box_id: str) -> str:
        """One short text that changes when the fields of a box do, or a version of one of them."""
        own = self._keys.take(self._of(box_id))
        return fields_digest(own["field_id"].to_pylist(), own["version"].to_pylist())

    def _of(self, box_id: str) -> pa.Array:
        import pyarrow as pa

        return pa.array(self.numbers.get(box_id, ()), type=pa.int64())

    @cached_property
    def _keys(self) -> pa.Table:
        # in one piece, since to take from many takes the longer the more there are
        return self.table.select(["field_id", "version"]).combine_chunks()


def fields_digest(ids: list[str], versions: list[str]) -> str:
    """See `Placed.digest`; the fields are sorted by id, and ids hold no control characters."""
    text = "\n".join(f"{name}\t{version}" for name, version in zip(ids, versions, strict=True))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def place_all(store: Store, boxes: Mapping[str, Box]) -> Placed:
    """Place the current fields in boxes; those that name an unknown or unreadable box are left out."""
    version, table = store.registry.placeable()
    return Placed(version, table, _positions(table, boxes))


def _positions(table: pa.Table, boxes: Mapping[str, Box]) -> dict[str, npt.NDArray[np.int64]]:
    import numpy as np

    from geofield import BoxIndex, place_fields

    rows, owners = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    names, index = sorted(boxes), BoxIndex(boxes)
    number = {name: at for at, name in enumerate(names)}
    for first in range(0, len(table), AT_ONCE):
        part = table.slice(first, AT_ONCE).to_pandas()
        part["row"] = np.arange(first, first + len(part))  # where a field stands, instead of its row in a file
        placed = place_fields(part, index, explain=False).table
        lists = placed["boxes"].tolist()
        counts = np.fromiter((len(found) for found in lists), dtype=np.int64, count=len(lists))
        rows.append(np.repeat(placed["row"].to_numpy(np.int64), counts))
        owners.append(np.fromiter((number[name] for found in lists for name in found), dtype=np.int64))
    row, owner = np.concatenate(rows), np.concatenate(owners)
    order = np.lexsort((row, owner))
    row, owner = row[order], owner[order]
    bounds = np.searchsorted(owner, np.arange(len(names) + 1))
    return {name: row[low:high] for name, low, high in zip(names, bounds[:-1], bounds[1:], strict=True) if low < high}
