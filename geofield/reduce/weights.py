"""Weights kept in the store: computed once for a polygon on a grid, reused by every day, variable, statistic and run.

A cache that can be lost: what is missing, broken or made by other versions of the libraries is computed again, and the
bits are the same with and without it. A pack is never changed and is named after its content, so writers need not know
of one another.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

import geopandas as gpd
import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely
from odc.geo.geobox import GeoBox

from geofield.errors import GeofieldError, NotFoundError
from geofield.grid import BLOCK, crs_of, crs_text
from geofield.reduce.coverage import Coverage, PixelWeights, coverage_of, pixel_weights
from geofield.store import Location

FORMAT = 1
MOST_PACKS = 8
"""More than this become one."""
FEW = 200
"""So many fields are computed faster than packs are read."""

Ints = npt.NDArray[np.int64]
_DIGITS = 32


@dataclass(frozen=True)
class WeightStore:
    """The weights of the fields of one box on one grid.

    Parameters
    ----------
    location, box_id
        Where they lie: `weights/<box>/<digest>/` below the location. The digest is of the grid, and of the versions of
        what computes: another GEOS, PROJ or exactextract may give other last digits.
    """

    location: Location
    box_id: str

    def coverage(self, fields: gpd.GeoDataFrame, keys: Sequence[str], geobox: GeoBox) -> Coverage:
        """`coverage(fields, geobox)`, as far as possible from what is kept; what had to be computed is kept.

        Parameters
        ----------
        keys
            `polygon_keys` of the fields.
        """
        ids = np.asarray(fields.index)
        if len(fields) <= FEW:
            return coverage_of(geobox, ids, pixel_weights(fields, geobox, ids))
        folder = f"weights/{self.box_id}/{grid_digest(geobox)}"
        packs = list(self._packs(folder, geobox))
        known: dict[str, tuple[int, int]] = {}
        for number, pack in enumerate(packs):
            known |= {key: (number, place) for place, key in enumerate(pack.keys)}
        unknown = np.array([key not in known for key in keys], dtype=np.bool_)
        if unknown.any():
            missing = np.flatnonzero(unknown)
            new = _Pack("", [keys[i] for i in missing.tolist()], _computed(fields.iloc[missing], geobox))
            known |= {key: (len(packs), place) for place, key in enumerate(new.keys)}
            packs.append(new)
        weights = _picked([pack.weights for pack in packs], [known[key] for key in keys])
        if unknown.any():
            self._keep(folder, packs, keys, weights)
        return coverage_of(geobox, ids, weights)

    def _packs(self, folder: str, geobox: GeoBox) -> Iterator[_Pack]:
        for info in self.location.list(folder):
            with contextlib.suppress(NotFoundError):  # made one with others since it was listed
                pack = _unpacked(info.key, self.location.read(info.key), geobox)
                if pack is not None:
                    yield pack
                    continue
                with contextlib.suppress(GeofieldError):
                    self.location.delete(info.key)

    def _keep(self, folder: str, packs: Sequence[_Pack], keys: Sequence[str], weights: PixelWeights) -> None:
        """Write the last pack; where there are too many, one with all that is in use, and remove the others."""
        with contextlib.suppress(GeofieldError):  # a reader without the right to write goes without
            many = len(packs) > MOST_PACKS
            data = _packed(keys, weights) if many else _packed(packs[-1].keys, packs[-1].weights)
            name = f"{folder}/{_content_digest(data)}.parquet"
            self.location.write(name, data)
            for pack in packs[:-1] if many else ():
                if pack.name != name:
                    self.location.delete(pack.name)


def polygon_keys(geometry: Iterable[bytes], crs: Iterable[str]) -> list[str]:
    """32 hexadecimal digits over each polygon (WKB) and its CRS: what its weights on a grid depend on."""
    return [
        blake2b(f"{name}\n".encode() + bytes(wkb), digest_size=_DIGITS // 2).hexdigest()
        for wkb, name in zip(geometry, crs, strict=True)
    ]


def grid_digest(geobox: GeoBox) -> str:
    """16 hexadecimal digits over the pixels of a grid and the versions of what computes weights."""
    parts = {
        "format": FORMAT,
        "crs": crs_text(crs_of(geobox)),
        "transform": [float(number) for number in tuple(geobox.transform)[:6]],
        "shape": [geobox.shape.y, geobox.shape.x],
        "made by": [version("exactextract"), shapely.geos_version_string, pyproj.proj_version_str],
    }
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, eq=False)
class _Pack:
    name: str
    keys: list[str]
    weights: PixelWeights


_SCHEMAS = [
    pa.schema(
        [("key", pa.string()), ("covered", pa.float64()), ("cells", pa.list_(cell)), ("weight", pa.list_(weight))]
    )
    for cell in (pa.int32(), pa.int64())
    for weight in (pa.float32(), pa.float64())
]


def _computed(fields: gpd.GeoDataFrame, geobox: GeoBox) -> PixelWeights:
    """New weights, their pixels in the order of a coverage, so that they need not be sorted again."""
    cover = coverage_of(geobox, np.arange(len(fields)), pixel_weights(fields, geobox))
    wide = np.int64(geobox.shape.x)
    kind = np.int32 if geobox.shape.y * geobox.shape.x < 2**31 else np.int64
    counts = np.diff(cover.segment_start[cover.start])
    return PixelWeights(cover.covered, counts, (cover.row * wide + cover.col).astype(kind), cover.weight)


def _packed(keys: Sequence[str], weights: PixelWeights) -> bytes:
    narrow = weights.weight.astype(np.float32)
    weight = narrow if np.array_equal(narrow, weights.weight) else weights.weight
    offsets = pa.array(np.concatenate([[0], np.cumsum(weights.counts)]).astype(np.int32))
    table = pa.table(
        {
            "key": pa.array(list(keys), pa.string()),
            "covered": weights.covered,
            "cells": pa.ListArray.from_arrays(offsets, pa.array(weights.cells)),
            "weight": pa.ListArray.from_arrays(offsets, pa.array(weight)),
        }
    )
    sink = io.BytesIO()
    # neighbouring pixels have neighbouring numbers, and most weights are 1
    packing = {"cells.list.element": "DELTA_BINARY_PACKED"}
    pq.write_table(table, sink, compression="zstd", column_encoding=packing, use_dictionary=["weight.list.element"])
    return sink.getvalue()


def _unpacked(name: str, data: bytes, geobox: GeoBox) -> _Pack | None:
    """What an object holds; None unless it is a pack of this grid in every respect."""
    if name.rpartition("/")[2] != f"{_content_digest(data)}.parquet":
        return None
    try:
        table = pq.read_table(io.BytesIO(data)).combine_chunks()
        table.validate(full=True)
    except (pa.ArrowException, OSError):
        return None
    if not any(table.schema.equals(schema) for schema in _SCHEMAS) or any(
        column.null_count for column in table.columns
    ):
        return None
    if not table.num_rows:
        return None
    key, covered, cells, weight = (column.chunk(0) for column in table.columns)
    found = cells.flatten(), weight.flatten()
    if any(values.null_count for values in found):
        return None
    counts, same = (np.asarray(column.value_lengths()).astype(np.int64) for column in (cells, weight))
    weights = PixelWeights(np.asarray(covered), counts, np.asarray(found[0]), np.asarray(found[1]).astype(np.float64))
    if not np.array_equal(counts, same) or not _is_sound(weights, geobox):
        return None
    return _Pack(name, key.to_pylist(), weights)


def _is_sound(weights: PixelWeights, geobox: GeoBox) -> bool:
    """Whether shares are shares, and the pixels of each field lie on the grid, in order, each once."""
    if len(weights.covered) and not (weights.covered.min() >= 0 and weights.covered.max() <= 1):
        return False
    return bool(_are_ordered(weights.cells, weights.weight, weights.counts, geobox.shape.y, geobox.shape.x, BLOCK))


@numba.njit(cache=True, nogil=True)
def _are_ordered(cells: Any, weight: Any, counts: Any, rows: int, columns: int, block: int) -> bool:
    """One pass over all pixels; NaN is no share."""
    across = -(-columns // block)
    pixel = 0
    for count in counts:
        last = np.int64(-1)
        for _ in range(count):
            cell = np.int64(cells[pixel])
            if not (0 < weight[pixel] <= 1) or cell < 0 or cell >= rows * columns:
                return False
            row, col = cell // columns, cell % columns
            place = ((row // block * across + col // block) * block + row % block) * block + col % block
            if place <= last:
                return False
            last = place
            pixel += 1
    return pixel == len(cells)


def _picked(parts: Sequence[PixelWeights], places: Sequence[tuple[int, int]]) -> PixelWeights:
    """The weights of (part, field) in the order asked for."""
    if len(parts) == 1 and [place for _, place in places] == list(range(len(parts[0].counts))):
        return parts[0]
    counts = np.concatenate([part.counts for part in parts])
    firsts = np.concatenate([[0], np.cumsum([len(part.counts) for part in parts])])
    chosen = np.array([firsts[part] + place for part, place in places], dtype=np.int64)
    start = np.concatenate([[0], np.cumsum(counts)])
    lengths = counts[chosen]
    begins = np.cumsum(lengths) - lengths
    pixels = np.arange(int(lengths.sum())) + np.repeat(start[chosen] - begins, lengths)
    joined: dict[str, npt.NDArray[Any]] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("covered", "cells", "weight")
    }
    return PixelWeights(joined["covered"][chosen], lengths, joined["cells"][pixels], joined["weight"][pixels])


def _content_digest(data: bytes) -> str:
    return blake2b(data, digest_size=_DIGITS // 2).hexdigest()
