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
from geofield.reduce.coverage import Coverage, compute_runs, coverage_of
from geofield.reduce.runs import Ints, Runs, join
from geofield.store import Location

FORMAT = 2
MOST_PACKS = 8
"""More than this become one."""
FEW = 200
"""So many fields are computed faster than packs are read."""

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
            return coverage_of(geobox, ids, *compute_runs(fields, geobox, ids))
        folder = f"weights/{self.box_id}/{grid_digest(geobox)}"
        packs = list(self._packs(folder, geobox))
        known: dict[str, tuple[int, int]] = {}
        for number, pack in enumerate(packs):
            known |= {key: (number, place) for place, key in enumerate(pack.keys)}
        unknown = np.array([key not in known for key in keys], dtype=np.bool_)
        if unknown.any():
            missing = np.flatnonzero(unknown)
            new = _Pack("", [keys[i] for i in missing.tolist()], *compute_runs(fields.iloc[missing], geobox))
            known |= {key: (len(packs), place) for place, key in enumerate(new.keys)}
            packs.append(new)
        used = _picked(packs, keys, [known[key] for key in keys])
        if unknown.any():
            self._keep(folder, packs, used)
        return coverage_of(geobox, ids, used.covered, used.runs)

    def _packs(self, folder: str, geobox: GeoBox) -> Iterator[_Pack]:
        for info in self.location.list(folder):
            with contextlib.suppress(NotFoundError):  # made one with others since it was listed
                pack = _unpacked(info.key, self.location.read(info.key), geobox)
                if pack is not None:
                    yield pack
                    continue
                with contextlib.suppress(GeofieldError):
                    self.location.delete(info.key)

    def _keep(self, folder: str, packs: Sequence[_Pack], used: _Pack) -> None:
        """Write the last pack; where there are too many, one with all that is in use, and remove the others."""
        with contextlib.suppress(GeofieldError):  # a reader without the right to write goes without
            many = len(packs) > MOST_PACKS
            data = _packed(used if many else packs[-1])
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
    covered: npt.NDArray[np.float64]
    runs: Runs


_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("covered", pa.float64()),
        *((name, pa.list_(pa.int32())) for name in ("row", "col", "length")),
        ("whole", pa.list_(pa.bool_())),
        ("weight", pa.list_(pa.float32())),
    ]
)


def _packed(pack: _Pack) -> bytes:
    runs = pack.runs
    first = np.concatenate([[0], np.cumsum(runs.counts)])
    kept = np.concatenate([[0], np.cumsum(np.where(runs.whole, 0, runs.length))])
    lists = {name: (first, getattr(runs, name)) for name in ("row", "col", "length", "whole")}
    lists["weight"] = (kept[first], runs.weight)
    columns: dict[str, Any] = {"key": pa.array(pack.keys, pa.string()), "covered": pack.covered}
    for name, (offsets, values) in lists.items():
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))
    sink = io.BytesIO()
    # neighbouring runs have neighbouring numbers, and most weights are 1
    packing = {f"{name}.list.element": "DELTA_BINARY_PACKED" for name in ("row", "col", "length")}
    pq.write_table(
        pa.table(columns, schema=_SCHEMA), sink, compression="zstd", column_encoding=packing,
        use_dictionary=["weight.list.element"],
    )  # fmt: skip
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
    if not table.schema.equals(_SCHEMA) or any(column.null_count for column in table.columns):
        return None
    if not table.num_rows:
        return None
    key, covered, *lists = (column.chunk(0) for column in table.columns)
    found = [column.flatten() for column in lists]
    if any(values.null_count for values in found):
        return None
    *counts, kept = (np.asarray(column.value_lengths()).astype(np.int64) for column in lists)
    if any(not np.array_equal(counts[0], other) for other in counts[1:]):
        return None
    row, col, length, whole, weight = (values.to_numpy(zero_copy_only=False) for values in found)
    pack = _Pack(name, key.to_pylist(), np.asarray(covered), Runs(counts[0], row, col, length, whole, weight))
    return pack if _is_sound(pack, kept, geobox) else None


def _is_sound(pack: _Pack, kept: Ints, geobox: GeoBox) -> bool:
    """Whether shares are shares, and the runs of each field lie on the grid, each in a block, in order, each once."""
    if len(pack.covered) and not (pack.covered.min() >= 0 and pack.covered.max() <= 1):
        return False
    runs = pack.runs
    if not (((runs.weight > 0) & (runs.weight <= 1)).all() and kept.sum() == len(runs.weight)):
        return False
    rows, columns = geobox.shape.y, geobox.shape.x
    return bool(_are_ordered(runs.counts, runs.row, runs.col, runs.length, runs.whole, kept, rows, columns, BLOCK))


@numba.njit(cache=True, nogil=True)
def _are_ordered(
    counts: Any, row: Any, col: Any, length: Any, whole: Any, kept: Any, rows: int, columns: int, block: int
) -> bool:
    """One pass over all runs."""
    across = -(-columns // block)
    run = 0
    for field in range(len(counts)):
        last, weights = np.int64(-1), np.int64(0)
        for _ in range(counts[field]):
            y, x, many = np.int64(row[run]), np.int64(col[run]), np.int64(length[run])
            if not (0 <= y < rows and 0 <= x < columns and 0 < many <= min(block - x % block, columns - x)):
                return False
            place = ((y // block * across + x // block) * block + y % block) * block + x % block
            if place <= last:
                return False
            last = place + many - 1
            weights += np.int64(0) if whole[run] else many
            run += 1
        if weights != kept[field]:
            return False
    return run == len(row)


def _picked(packs: Sequence[_Pack], keys: Sequence[str], places: Sequence[tuple[int, int]]) -> _Pack:
    """The weights of (pack, field) in the order asked for."""
    firsts = np.concatenate([[0], np.cumsum([len(pack.keys) for pack in packs])])
    chosen = np.array([firsts[pack] + place for pack, place in places], dtype=np.int64)
    covered = np.concatenate([pack.covered for pack in packs])[chosen]
    return _Pack("", list(keys), covered, join([pack.runs for pack in packs]).take(chosen))


def _content_digest(data: bytes) -> str:
    return blake2b(data, digest_size=_DIGITS // 2).hexdigest()
