"""Every current field with the boxes that it belongs to: placed once for all boxes, not once for each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from geofield import Box, Store


@dataclass(frozen=True)
class Placed:
    """The fields of a store at one version of its table.

    Attributes
    ----------
    version
        Of the table.
    table
        Current fields that belong to a box, sorted by id.
    """

    version: int
    table: pd.DataFrame

    @cached_property
    def _numbers(self) -> dict[str, npt.NDArray[np.int64]]:
        """Box id -> positions in `table`."""
        import numpy as np

        if not len(self.table):
            return {}
        lists = self.table["boxes"].to_numpy(object)
        counts = np.fromiter((len(names) for names in lists), dtype=np.int64, count=len(lists))
        rows = np.repeat(np.arange(len(lists)), counts)
        names = np.array([name for found in lists for name in found], dtype=object)
        order = np.argsort(names.astype(str), kind="stable")
        names, rows = names[order], rows[order]
        starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
        return dict(zip(names[starts].tolist(), np.split(rows, starts[1:]), strict=True))

    @cached_property
    def _keys(self) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
        return self.table["field_id"].to_numpy(object), self.table["version"].to_numpy(object)

    def of(self, box_id: str) -> pd.DataFrame:
        """The fields of a box."""
        return self.table.iloc[self._numbers.get(box_id, [])].reset_index(drop=True)

    def digest(self, box_id: str) -> str:
        """One short text that changes when the fields of a box do, or a version of one of them."""
        ids, versions = self._keys
        numbers: Any = self._numbers.get(box_id, [])
        return fields_digest(ids[numbers].tolist(), versions[numbers].tolist())


def fields_digest(ids: list[str], versions: list[str]) -> str:
    """See `Placed.digest`; the fields are sorted by id, and ids hold no control characters."""
    text = "\n".join(f"{name}\t{version}" for name, version in zip(ids, versions, strict=True))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def place_all(store: Store, boxes: Mapping[str, Box]) -> Placed:
    """Place the current fields in boxes; those that name an unknown or unreadable box are left out."""
    from geofield import place_fields

    version, table = store.registry.placeable()
    return Placed(version, place_fields(table, boxes, explain=False).table)
