"""A source whose scenes are arrays that a test wrote down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from geofield.grid import Grid
from geofield.source.counters import count_read
from geofield.source.protocol import Acquisition

Pixels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """One acquisition: band -> (y, x) over the whole grid."""

    time: dt.datetime
    bands: Mapping[str, Pixels]
    version: str = "1"
    id: str = ""
    footprint: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class ArraySource:
    """Scenes on one grid."""

    geobox: GeoBox
    scenes: Sequence[Scene]

    def bands(self) -> tuple[str, ...]:
        return tuple(self.scenes[0].bands)

    def quality_bands(self) -> tuple[str, ...]:
        return ()

    def native_geobox(self) -> GeoBox:
        return self.geobox

    def search(self, grid: Grid, start: dt.date, end: dt.date) -> list[Acquisition]:
        return [
            Acquisition(scene.id or f"scene-{scene.time:%Y%m%dT%H}", scene.version, scene.time, scene.footprint, {})
            for scene in self.scenes
            if start <= scene.time.date() <= end
        ]

    def read(self, acquisition: Acquisition, bands: Sequence[str], geobox: GeoBox) -> dict[str, Pixels]:
        (scene,) = (one for one in self.scenes if (one.id or f"scene-{one.time:%Y%m%dT%H}") == acquisition.id)
        a, b = self.geobox.transform, geobox.transform
        x, y = round((b.c - a.c) / a.a), round((b.f - a.f) / a.e)
        rows, columns = geobox.shape.y, geobox.shape.x
        found = {band: scene.bands[band][y : y + rows, x : x + columns].astype(np.float64) for band in bands}
        count_read(sum(array.nbytes for array in found.values()))
        return found
