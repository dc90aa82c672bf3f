"""NetCDF files and Zarr stores as stacks of images: their times, their pixels, and what changes when they do."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from typing import Any

import fsspec
import numpy as np
import odc.geo.xr  # noqa: F401  # the accessor .odc
import xarray as xr
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geofield.errors import (
    ConfigurationError,
    CrsError,
    GeofieldError,
    GridError,
    MissingBandError,
    SourceError,
    UnreadableFileError,
)
from geofield.grid import Window, check_north_up, crs_text, parse_crs
from geofield.source.gdal import endpoint_url
from geofield.source.listing import stamp_of, translated
from geofield.source.raster import Floats, read_inside, to_physical
from geofield.source.resample import Cut

_ZARR_ROOTS = ("zarr.json", ".zgroup", ".zmetadata")
_CHUNK = re.compile(r"(?:c/)?(\d+)(?:[./]\d+){2}$")
_FILLS = ("_FillValue", "missing_value")
_TO_MICROSECONDS = np.dtype("datetime64[us]")


@dataclass(frozen=True)
class StackFile:
    """One NetCDF file or Zarr store.

    Attributes
    ----------
    stamp
        Of the file; of a Zarr store nothing, since its chunks have stamps of their own.
    """

    href: str
    is_zarr: bool
    stamp: str


@dataclass(frozen=True)
class Look:
    """What is looked for in a file.

    Attributes
    ----------
    names
        Of variables.
    time
        The dimension and coordinate of times.
    acquired
        A variable over time that is true where imagery came; None: at every time.
    """

    names: tuple[str, ...]
    time: str
    acquired: str | None = None
    anonymous: bool = False


@dataclass(frozen=True)
class Step:
    """One image: where it is and what changes when it may have."""

    file: StackFile
    time: dt.datetime
    stamp: str


def find_files(url: str, anonymous: bool) -> list[StackFile]:
    """The Zarr store or NetCDF file at an address, or the NetCDF files that an address with `*` names.

    Raises
    ------
    SourceError
        There is none.
    """
    with translated(url, "url"):
        system = _system(url, anonymous)
        path = system._strip_protocol(url).rstrip("/")
        if "*" in path:
            found = sorted(system.glob(path) if url.startswith("s3://") else glob(path))
        elif any(system.exists(f"{path}/{name}") for name in _ZARR_ROOTS):
            return [StackFile(url, True, "")]
        else:
            found = [path] if system.isfile(path) else []
        if not found:
            raise SourceError(f"There is neither a Zarr store nor a NetCDF file at {url}. Check `url`.")
        hrefs = [f"s3://{one}" if url.startswith("s3://") else one for one in found]
        infos = [system.info(one) if url.startswith("s3://") else {} for one in found]
        return [StackFile(href, False, stamp_of(href, info)) for href, info in zip(hrefs, infos, strict=True)]


@contextmanager
def opened(file: StackFile, anonymous: bool) -> Iterator[xr.Dataset]:
    """The dataset, numbers as stored, nothing read yet; failures inside the block are translated."""
    is_far = file.href.startswith("s3://")
    try:
        with translated(file.href, "url") if is_far else nullcontext(), _dataset(file, anonymous) as dataset:
            yield dataset
    except (ValueError, KeyError, OSError, zarr.errors.BaseZarrError) as error:
        if isinstance(error, GeofieldError):
            raise
        raise UnreadableFileError(f"{file.href} cannot be read: {error}. Replace the file.") from error


def _dataset(file: StackFile, anonymous: bool) -> Any:
    plain: dict[str, Any] = {"mask_and_scale": False, "decode_timedelta": False, "chunks": None, "cache": False}
    if file.is_zarr:
        options = _s3_options(anonymous) if file.href.startswith("s3://") else None
        plain |= {"engine": "zarr", "storage_options": options}
        try:
            return xr.open_dataset(file.href, consolidated=True, **plain)
        except (ValueError, KeyError):  # it has none; left to itself xarray warns of that
            return xr.open_dataset(file.href, consolidated=False, **plain)
    try:
        import h5netcdf  # type: ignore[import-untyped]  # noqa: F401  # an extra
    except ImportError as error:
        raise ConfigurationError(f"{file.href} is read with h5netcdf. Install geofield[netcdf].") from error
    if not file.href.startswith("s3://"):
        return xr.open_dataset(file.href, engine="h5netcdf", **plain)
    return xr.open_dataset(_system(file.href, anonymous).open(file.href), engine="h5netcdf", **plain)


def _system(url: str, anonymous: bool) -> Any:
    return fsspec.filesystem("s3", **_s3_options(anonymous)) if url.startswith("s3://") else fsspec.filesystem("file")


def _s3_options(anonymous: bool) -> dict[str, Any]:
    return {"anon": anonymous, "endpoint_url": endpoint_url(), "use_listings_cache": False}


# --- images ----------------------------------------------------------------------------------------------------------


def variable_of(dataset: xr.Dataset, name: str, time: str, href: str) -> xr.DataArray:
    """A variable over (time, row, column).

    Raises
    ------
    MissingBandError
        There is no such variable, or it has other dimensions.
    """
    if name not in dataset.data_vars:
        there = ", ".join(sorted(map(str, dataset.data_vars)))
        raise MissingBandError(f"{href} has no variable {name!r}; it has {there}.")
    found = dataset[name]
    if found.ndim != 3 or found.dims[0] != time:
        raise MissingBandError(
            f"{name!r} of {href} has the dimensions {', '.join(map(str, found.dims))}; a stack has {time}, rows and "
            "columns in this order. Name its `time`, or transpose it."
        )
    return found


def image_variables(dataset: xr.Dataset, time: str) -> list[str]:
    """The variables over (time, row, column), sorted: a Zarr store may list them in any order."""
    return sorted(str(name) for name, one in dataset.data_vars.items() if one.ndim == 3 and one.dims[0] == time)


def geobox_of_stack(variable: xr.DataArray, crs: str | None, href: str) -> tuple[GeoBox, bool]:
    """The grid of a variable, rows to the south, and whether its rows run north.

    Raises
    ------
    CrsError, GridError
        No CRS is said, or the coordinates are no grid.
    """
    said = variable.odc.assign_crs(crs) if crs is not None else variable
    own, geobox = said.odc.crs, said.odc.geobox
    if own is None:
        raise CrsError(f"{href} does not say its CRS. Give it: `crs: EPSG:...`.")
    if not isinstance(geobox, GeoBox) or not all(_is_even(variable, str(axis)) for axis in variable.dims[1:]):
        raise GridError(f"The coordinates of {href} are no regular grid: their steps differ. Bring it to one first.")
    is_flipped = geobox.transform.e > 0
    upright = geobox.flipy() if is_flipped else geobox
    plain = GeoBox(upright.shape, upright.transform, crs_text(parse_crs(own.to_wkt())))
    check_north_up(plain)
    return plain, is_flipped


def _is_even(variable: xr.DataArray, axis: str) -> bool:
    """Whether the coordinates of an axis have one step, to a hundredth of it; one that has none is placed otherwise."""
    if axis not in variable.coords or variable.sizes[axis] < 2:
        return True
    steps = np.diff(variable[axis].values.astype(np.float64))
    return bool(np.abs(steps - steps.mean()).max() <= 0.01 * abs(steps.mean()))


@lru_cache(maxsize=10_000)
def steps_of(file: StackFile, look: Look) -> tuple[Step, ...]:
    """The images of a NetCDF file, which is opened once while it stays as it is."""
    return tuple(_steps(file, look))


def steps_of_zarr(file: StackFile, look: Look) -> tuple[Step, ...]:
    """The images of a Zarr store, whose stamps are those of the chunks that they lie in."""
    return tuple(_steps(file, look))


def _steps(file: StackFile, look: Look) -> Iterator[Step]:
    with opened(file, look.anonymous) as dataset:
        times = times_of(dataset, look.time, file.href)
        came = _came(dataset, look, len(times), file.href)
        if file.is_zarr:
            for name in look.names:
                variable_of(dataset, name, look.time, file.href)
        stamps = _chunk_stamps(file, look, dataset) if file.is_zarr else [file.stamp] * len(times)
        yield from (Step(file, *one) for one, is_there in zip(zip(times, stamps, strict=True), came, strict=True)
                    if is_there)  # fmt: skip


def _came(dataset: xr.Dataset, look: Look, steps: int, href: str) -> list[bool]:
    if look.acquired is None:
        return [True] * steps
    if look.acquired not in dataset.variables or dataset[look.acquired].dims != (look.time,):
        raise MissingBandError(f"{href} has no variable {look.acquired!r} over {look.time} alone (`acquired`).")
    return [bool(one) for one in dataset[look.acquired].values]


def times_of(dataset: xr.Dataset, time: str, href: str) -> list[dt.datetime]:
    """UTC."""
    if time not in dataset.variables or not np.issubdtype(dataset[time].dtype, np.datetime64):
        raise SourceError(f"{href} has no times in {time!r}. Name the coordinate that has them: `time: ...`.")
    values = dataset[time].values.astype(_TO_MICROSECONDS)
    if np.isnat(values).any():
        raise SourceError(f"A time of {href} is missing. Mend the file.")
    return [one.replace(tzinfo=dt.UTC) for one in values.tolist()]


def _chunk_stamps(file: StackFile, look: Look, dataset: xr.Dataset) -> list[str]:
    """A stamp for each time: over the stamps of the objects that hold its chunks (or shards)."""
    digests = [hashlib.blake2b(digest_size=12) for _ in range(dataset[look.names[0]].shape[0])]
    system = _system(file.href, look.anonymous)
    base = system._strip_protocol(file.href).rstrip("/")
    for name in look.names:
        length = int((dataset[name].encoding.get("shards") or dataset[name].encoding["chunks"])[0])
        objects = system.find(f"{base}/{name}", detail=True)
        for path in sorted(objects):
            if found := _CHUNK.search(path.removeprefix(f"{base}/{name}/")):
                stamp = stamp_of(f"s3://{path}" if file.href.startswith("s3://") else path, objects[path])
                first = int(found[1]) * length
                for one in digests[first : first + length]:
                    one.update(f"{name}/{found[0]} {stamp}\n".encode())
    return [one.hexdigest() for one in digests]


class StackPixels:
    """One image of a variable.

    Parameters
    ----------
    given
        `scale`, `offset` and `nodata` where the box says them; else CF's attributes.
    """

    def __init__(
        self, variable: xr.DataArray, step: int, is_flipped: bool, given: Mapping[str, float], nearest: bool | None
    ) -> None:
        attributes = variable.attrs
        self._variable, self._step, self._is_flipped = variable, step, is_flipped
        self._scale = float(given.get("scale", attributes.get("scale_factor", 1.0)))
        self._offset = float(given.get("offset", attributes.get("add_offset", 0.0)))
        self._is_unsigned = str(attributes.get("_Unsigned", "")).lower() == "true"
        self._fills = _fills(variable, given.get("nodata"))
        is_plain = variable.dtype.kind in "iu" and self._scale == 1 and self._offset == 0
        self.nearest = is_plain if nearest is None else nearest
        self.shape: tuple[int, int] = (int(variable.shape[1]), int(variable.shape[2]))
        self.nbytes = 0

    def read(self, cut: Cut) -> Floats:
        """The values of a cut, NaN where missing."""
        return read_inside(cut, self.shape, self._read_into)

    def _read_into(self, out: Floats, inside: Window) -> None:
        rows = slice(inside.y0, inside.y1)
        if self._is_flipped:
            rows = slice(self.shape[0] - inside.y1, self.shape[0] - inside.y0)
        raw: NDArray[Any] = self._variable[self._step, rows, inside.x0 : inside.x1].values
        if self._is_flipped:
            raw = raw[::-1]
        self.nbytes += raw.nbytes
        numbers = raw.view(f"u{raw.dtype.itemsize}") if self._is_unsigned and raw.dtype.kind == "i" else raw
        to_physical(out, numbers, self._scale, self._offset, None)
        for fill in self._fills:
            np.copyto(out, np.nan, where=raw == fill)


def _fills(variable: xr.DataArray, given: float | None) -> list[Any]:
    """The numbers that mean missing, in the variable's own type; CF allows two attributes, and several numbers."""
    said = [variable.attrs.get(name, variable.encoding.get(name)) for name in _FILLS] if given is None else [given]
    found: list[Any] = []
    for values in said:
        for value in () if values is None else np.atleast_1d(values).tolist():
            with np.errstate(over="ignore", invalid="ignore"):
                fill = np.asarray(value).astype(variable.dtype)[()]
            if variable.dtype.kind == "f" or fill == value:  # else no number of this type is it
                found.append(fill)
    return found
