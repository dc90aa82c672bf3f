"""Reading a cube: what it says of its days, and a lazy xarray.Dataset for people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from odc.geo.xr import xr_coords
from xarray.backends import BackendArray
from xarray.core import indexing

from geofield.cube.arrays import Arrays
from geofield.cube.cube import Cube, Head, as_date, read_head, read_schema, to_day
from geofield.cube.failures import answering
from geofield.cube.schema import ArraySpec, Schema
from geofield.errors import CorruptStoreError, InputError, NotFoundError


@answering("read the digests of a cube")
def read_digests(arrays: Arrays, steps: slice = slice(None)) -> npt.NDArray[np.uint64]:
    """(time, tile_y, tile_x) at some steps; a negative start counts from the end."""
    array = arrays["digest"]
    return np.asarray(array[slice(*steps.indices(array.shape[0]))], dtype=np.uint64)


@answering("read the acquisitions of a cube")
def read_items(arrays: Arrays, steps: slice = slice(None)) -> list[str]:
    """JSON of each day's acquisitions at some steps."""
    array = arrays["items"]
    return [str(item) for item in np.asarray(array[slice(*steps.indices(array.shape[0]))])]


# --- the view for people ---------------------------------------------------------------------------------------------


@answering("open a cube")
def open_view(
    cube: Cube,
    variables: Sequence[str] | None,
    start: dt.date | str | None,
    end: dt.date | str | None,
    as_of: str | dt.datetime | None,
    chunks: Mapping[str, int] | str | None,
) -> xr.Dataset:
    """See `Cube.open`."""
    snapshot, arrays = cube.opened(as_of)
    schema = read_schema(arrays)
    head = read_head(arrays, snapshot)
    names = _chosen(schema, variables, cube.box_id)
    days = _range(head, start, end)
    dataset = _coordinates(schema, head, days)
    for name in names:
        for suffix, array in _variable_arrays(arrays, schema, head, days, name).items():
            lazy = xr.Variable(("time", "y", "x"), indexing.LazilyIndexedArray(array))
            lazy.attrs = {"grid_mapping": "spatial_ref", "units": "day" if suffix == "_age" else "1"}
            dataset[f"{name}{suffix}"] = lazy
    dataset.attrs = {"geofield_box": cube.box_id, "geofield_snapshot": head.snapshot, "Conventions": "CF-1.11"}
    if chunks is None:
        return dataset
    if chunks == "tiles":
        return dataset.chunk({"time": 1, "y": schema.grid.tile, "x": schema.grid.tile})
    if isinstance(chunks, str):
        raise InputError(f"chunks={chunks!r} is not known: give None, 'tiles' or a mapping of dimensions to lengths.")
    return dataset.chunk(dict(chunks))


def _chosen(schema: Schema, variables: Sequence[str] | None, box_id: str) -> tuple[str, ...]:
    known = schema.variables
    if variables is None:
        return known
    for name in variables:
        if name not in known:
            raise NotFoundError(f"Box {box_id!r} has no variable {name!r}; it has {', '.join(known)}.")
    return tuple(variables)


def _range(head: Head, start: dt.date | str | None, end: dt.date | str | None) -> slice:
    if not len(head.days):
        return slice(0, 0)
    first, last = int(head.days[0]), int(head.days[-1])
    low = first if start is None else to_day(as_date(start))
    high = last if end is None else to_day(as_date(end))
    return slice(max(low - first, 0), max(min(high, last) - first + 1, 0))


def _coordinates(schema: Schema, head: Head, days: slice) -> xr.Dataset:
    spatial = xr_coords(schema.grid.geobox, dims=("y", "x"))
    time = head.days[days].astype("datetime64[D]").astype("datetime64[ns]")
    return xr.Dataset(coords={**spatial, "time": ("time", time), "acquired": ("time", head.acquired[days])})


def _variable_arrays(arrays: Arrays, schema: Schema, head: Head, days: slice, name: str) -> dict[str, BackendArray]:
    roles = schema.of(name)
    own = np.arange(len(head.days))[days]
    result: dict[str, BackendArray] = {"": _DayArray(arrays[name], roles["observation"], own)}
    if "filled" not in roles:
        return result
    carried = head.carried_steps()[days]
    # before the first acquisition nothing is stored: the day's own step reads as missing
    steps = np.where(carried < 0, own, carried)
    gaps = own - steps
    filled, sigma0, age = (roles[role] for role in ("filled", "sigma0", "age"))
    ages = _DayArray(arrays[age.name], age, steps, gaps)
    result["_filled"] = _DayArray(arrays[filled.name], filled, steps)
    result["_sigma"] = _SigmaArray(_DayArray(arrays[sigma0.name], sigma0, steps), ages, schema.drift[name])
    result["_age"] = ages
    return result


@dataclass
class _DayArray(BackendArray):
    """Decoded values of one stored array; step `steps[t]` is what holds on day t, `gaps[t]` days are added to it."""

    array: zarr.Array[Any]
    spec: ArraySpec
    steps: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.int64] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.steps), *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self.read)

    @answering("read pixels of a cube")
    def read(self, key: tuple[Any, ...]) -> npt.NDArray[np.float64]:
        """Values for an outer key (a slice, an integer or an array for each dimension)."""
        wanted = np.atleast_1d(self.steps[key[0]])
        stored, inverse = np.unique(wanted, return_inverse=True)
        space = tuple(np.atleast_1d(part) if isinstance(part, (int, np.integer)) else part for part in key[1:])
        raw = self._stored((stored, *space)) if len(stored) else np.empty((0, 0, 0), self.array.dtype)
        values = self.spec.encoding.decode(raw)[inverse]
        if self.gaps is not None:
            values = values + np.atleast_1d(self.gaps[key[0]])[:, None, None]
        drop = tuple(0 if isinstance(part, (int, np.integer)) else slice(None) for part in key)
        result: npt.NDArray[np.float64] = values[drop]
        return result

    def _stored(self, place: tuple[Any, ...]) -> npt.NDArray[Any]:
        try:
            return np.asarray(self.array.oindex[place])
        except icechunk.IcechunkError:
            raise
        except (ValueError, RuntimeError) as error:  # of zarr's codecs
            told = f"A shard of {self.spec.name!r} in the cube is broken: {str(error).rstrip('.')}."
            raise CorruptStoreError(f"{told} `geofield verify --deep` tells which.") from error


@dataclass
class _SigmaArray(BackendArray):
    """sqrt(s0^2 + q age): never stored, since steps of 1e-4 would stop it from growing."""

    sigma0: _DayArray
    age: _DayArray
    q: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.age.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[np.float64]:
        sigma0, age = self.sigma0.read(key), self.age.read(key)
        result: npt.NDArray[np.float64] = np.sqrt(sigma0 * sigma0 + self.q * age)
        return result
