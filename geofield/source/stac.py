"""Imagery of STAC catalogues: Sentinel-2 and others, of an API or a static catalogue, with the right numbers."""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geofield.errors import (
    AccessError,
    CrsError,
    GridError,
    MissingBandError,
    SourceError,
    SourceUnavailableError,
)
from geofield.grid import Grid, crs_text
from geofield.source.access import is_remote
from geofield.source.counters import count_read
from geofield.source.footprints import Bounds, projected
from geofield.source.patience import next_wait, wait_of_files
from geofield.source.protocol import Acquisition
from geofield.source.raster import RasterBand, read_bands
from geofield.source.searches import shared
from geofield.source.settings import parse_settings
from geofield.source.signing import forget_tokens
from geofield.source.stacbands import asset_key
from geofield.source.staccatalog import Catalog, pause
from geofield.source.stacitem import LONLAT, Json, assets_of, extent_of, lonlat_bounds, properties_of, time_of
from geofield.source.stacquery import is_wanted
from geofield.source.stacradiometry import Radiometry, baseline_of, is_sentinel2, radiometry_of
from geofield.source.stacscenes import one_of_each_scene
from geofield.source.stacsettings import BandAsset, StacSettings
from geofield.source.stacversion import file_stamps, is_local, said_stamp

_MOST_SEARCHES = 64
_TOLD = ("eo:cloud_cover", "view:off_nadir", "view:incidence_angle")
"""Of a scene, kept with the day: what scenes of one day may be put in order by."""


@dataclass
class _Kept:
    """What a source keeps of its catalogue while it lives."""

    found: dict[tuple[Bounds, str, dt.date, dt.date], list[Acquisition]] = field(default_factory=dict)
    catalogs: list[Catalog] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def within(self, place: tuple[Bounds, str], start: dt.date, end: dt.date) -> list[Acquisition] | None:
        """What a search for these days or more has found; None: there was none."""
        with self.lock:
            for (bounds, crs, first, last), every in self.found.items():
                if (bounds, crs) == place and first <= start and end <= last:
                    return [one for one in every if start <= one.time.date() <= end]
        return None

    def keep(self, period: tuple[Bounds, str, dt.date, dt.date], found: list[Acquisition]) -> None:
        """Keep what was found; what was found first goes when there is too much."""
        with self.lock:
            while len(self.found) >= _MOST_SEARCHES:
                del self.found[next(iter(self.found))]
            self.found[period] = found


@dataclass(frozen=True)
class StacSource:
    """A source of STAC items; see `StacSettings`.

    What was searched for is kept while the source lives, and not pickled with it; inside of `searches_kept`, which is
    a run, sources of the same settings share it.
    """

    settings: StacSettings
    _kept: _Kept = field(default_factory=_Kept, repr=False, compare=False)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> StacSource:
        """From the `source` mapping of a box."""
        settings = parse_settings(StacSettings, spec)
        return cls(settings, shared(("stac", settings.model_dump_json()), _Kept))

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _kept=_Kept())

    def bands(self) -> tuple[str, ...]:
        """As the box names them, or the names that the collections' bands have in common."""
        return self.settings.band_names

    def quality_bands(self) -> tuple[str, ...]:
        """As the box names them, or by their usual names (scl, qa_pixel)."""
        return self.settings.quality_names

    def native_geobox(self) -> GeoBox | None:
        """None: items lie on many grids."""
        return None

    def search(self, grid: Grid, start: dt.date, end: dt.date) -> list[Acquisition]:
        """One acquisition for each scene with pixels on the grid; a scene delivered twice counts once.

        Raises
        ------
        SourceError
            The catalogue is none, or an item does not say what its numbers mean.
        """
        bbox = projected(grid.bounds, crs_text(grid.crs), LONLAT)
        place = (grid.bounds, crs_text(grid.crs))
        known = self._kept.within(place, start, end)
        if known is not None:
            return known
        found = [self._acquisition(item, grid) for item in self._items(bbox, start, end)]
        own = _with_own_ids([one for one in found if _is_on(one.footprint, grid.bounds)])
        ordered = sorted(own, key=lambda one: (one.time, one.id))
        self._kept.keep((*place, start, end), ordered)
        return list(ordered)

    def read(self, acquisition: Acquisition, bands: Sequence[str], geobox: GeoBox) -> dict[str, NDArray[np.float64]]:
        """Number x scale + offset, as the item says; on other grids the value at each pixel's centre."""
        wanted = {band: self._raster_band(acquisition, band) for band in bands}
        try:
            result, nbytes = read_bands(wanted, geobox)
        except AccessError:
            renewed = self._renewed(acquisition, bands, geobox)
            if renewed is None:
                raise
            result, nbytes = read_bands(renewed, geobox)  # a second refusal is an answer
        except SourceUnavailableError:
            wait = next_wait(0.0, wait_of_files([band.href for band in wanted.values()], self.settings.access))
            if not wait:
                raise
            pause(wait)
            result, nbytes = read_bands(wanted, geobox)
        if nbytes:
            count_read(nbytes)
        return result

    def _renewed(self, acquisition: Acquisition, bands: Sequence[str], geobox: GeoBox) -> dict[str, RasterBand] | None:
        """The files by addresses that are signed anew; None where they were not signed, or the scene is another."""
        if self.settings.access.sign:
            forget_tokens()
            return {band: self._raster_band(acquisition, band) for band in bands}
        if not any(urlsplit(acquisition.assets[band]).query for band in bands):
            return None
        day = acquisition.time.date()
        fresh = StacSource(self.settings).search(Grid(geobox), day, day)  # the catalogue signs them
        same = [one for one in fresh if (one.id, one.version) == (acquisition.id, acquisition.version)]
        return {band: self._raster_band(same[0], band) for band in bands} if same else None

    def _catalog(self) -> Catalog:
        settings, kept = self.settings, self._kept.catalogs
        if not kept:
            key = ("catalog", settings.url, repr(settings.access))
            with shared((*key, "opening"), threading.Lock):
                opened = shared((*key, "opened"), list[Catalog])
                if not opened:
                    opened.append(Catalog(settings.url, settings.access))
            kept.append(opened[0])
        return kept[0]

    def _items(self, bbox: Bounds, start: dt.date, end: dt.date) -> list[Json]:
        settings = self.settings
        days, conditions = (start, end), settings.conditions
        found = self._catalog().find(settings.collection, bbox, days, conditions)
        wanted = [item for item in found if is_wanted(item, settings.collection, bbox, days, conditions)]
        return one_of_each_scene(wanted, settings.collection)

    def _acquisition(self, item: Json, grid: Grid) -> Acquisition:
        settings = self.settings
        assets: dict[str, Json] = {}
        numbers: dict[str, Radiometry] = {}
        keys: dict[str, str] = {}
        for name in settings.band_names:
            given = (settings.bands or {}).get(name)
            key = asset_key(item, name) if given is None else given.asset
            asset = assets_of(item).get(key) if key is not None else None
            if key is None or asset is None:
                continue
            band = given or BandAsset.model_validate({"asset": key})
            is_quality = name in settings.quality_names
            keys[name], assets[name] = key, asset
            numbers[name] = radiometry_of(item, key, asset, band.index, is_quality, band.radiometry)
        hrefs = {name: _local(str(asset["href"])) for name, asset in assets.items()}
        properties = {
            "collection": item.get("collection"),
            "processing_baseline": _baseline_text(item),
            **{key: properties_of(item).get(key) for key in _TOLD},
            "missing_bands": [name for name in settings.band_names if name not in hrefs] or None,
            "radiometry": {name: [one.scale, one.offset, _json(one.nodata)] for name, one in numbers.items()},
        }
        return Acquisition(
            id=str(item.get("id")),
            version=self._version(item, assets, hrefs, keys, numbers),
            time=time_of(item),
            footprint=_footprint(item, assets, grid),
            assets=hrefs,
            properties={key: value for key, value in properties.items() if value is not None},
        )

    def _version(
        self,
        item: Json,
        assets: Mapping[str, Json],
        hrefs: Mapping[str, str],
        keys: Mapping[str, str],
        numbers: Mapping[str, Radiometry],
    ) -> str:
        """Over the state of the files, and over what makes other values of the same files."""
        said = said_stamp(item, assets)
        asked = {name: href for name, href in hrefs.items() if said is None or self.settings.etags or is_local(href)}
        stamps = file_stamps(asked, self.settings.access)
        parts = [
            (name, keys[name], self._index(name), name in self.settings.quality_names, numbers[name], stamps.get(name))
            for name in sorted(keys)
        ]
        return hashlib.blake2b(repr((said, parts)).encode(), digest_size=12).hexdigest()

    def _index(self, name: str) -> int:
        given = (self.settings.bands or {}).get(name)
        return 1 if given is None else given.index

    def _raster_band(self, acquisition: Acquisition, name: str) -> RasterBand:
        if name not in self.settings.band_names:
            raise MissingBandError(f"The source has no band {name!r}; it offers {', '.join(self.settings.band_names)}.")
        href = acquisition.assets.get(name)
        if href is None:
            raise MissingBandError(
                f"Acquisition {acquisition.id} has no asset for band {name!r}; it has {', '.join(acquisition.assets)}. "
                "Name the asset under `bands`, as in `bands: {red: B04}`, or leave the item out by a `query`."
            )
        self._check_address(href)
        scale, offset, nodata = acquisition.properties["radiometry"][name]
        return RasterBand(
            href,
            self._index(name),
            scale,
            offset,
            None if nodata is None else float(nodata),
            nearest=self._is_nearest(name),
            access=self.settings.access,
        )

    def _is_nearest(self, name: str) -> bool | None:
        if name in self.settings.quality_names:
            return True
        # bands that the box names, and does not call quality, may be classes all the same: their type decides
        return None if self.settings.bands is not None and self.settings.quality is None else False

    def _check_address(self, href: str) -> None:
        is_path = "://" not in href and not href.startswith("/vsi")
        if is_remote(href) or (is_path and not is_remote(self.settings.url)):
            return
        raise SourceError(
            f"{href} cannot be read: files are reached by https:// or s3://, and by their path where the catalogue is "
            "on this machine too."
        )


def _local(href: str) -> str:
    return url2pathname(urlsplit(href).path) if href.startswith("file://") else href


def _footprint(item: Json, assets: Mapping[str, Json], grid: Grid) -> Bounds | None:
    """Bounds of the scene's own grids, or of its outline, in the CRS of the grid; None when neither can be told."""
    bounds = lonlat_bounds(item)
    outline = None if bounds is None else (bounds, LONLAT)
    for known in (extent_of(item, assets.values()), outline):
        if known is not None:
            try:
                return projected(*known, crs_text(grid.crs))
            except (CrsError, GridError):
                continue
    return None


def _is_on(footprint: Bounds | None, bounds: Bounds) -> bool:
    if footprint is None:
        return True
    return (
        footprint[0] < bounds[2] and footprint[2] > bounds[0] and footprint[1] < bounds[3] and footprint[3] > bounds[1]
    )


def _with_own_ids(found: list[Acquisition]) -> list[Acquisition]:
    """Where two collections have different scenes under one id, the collection becomes part of it."""
    count: dict[str, int] = {}
    for one in found:
        count[one.id] = count.get(one.id, 0) + 1
    return [
        one if count[one.id] == 1 else replace(one, id=f"{one.properties.get('collection')}/{one.id}") for one in found
    ]


def _baseline_text(item: Json) -> str | None:
    baseline = baseline_of(item) if is_sentinel2(item) else None
    return None if baseline is None else f"{baseline[0]:02}.{baseline[1]:02}"


def _json(nodata: float | None) -> float | str | None:
    return nodata if nodata is None or np.isfinite(nodata) else str(nodata)
