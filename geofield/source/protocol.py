"""What every source offers: acquisitions by day, and their pixels on any grid."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geofield.grid import Grid


@dataclass(frozen=True)
class Acquisition:
    """One scene.

    Parameters
    ----------
    id
        Stable, unique in its source.
    version
        Changes whenever the pixels may have changed: an ETag, a checksum, or size and time of change.
    time
        UTC, aware.
    footprint
        (xmin, ymin, xmax, ymax) in the CRS of the grid that was searched; None: the whole box.
    assets
        Band -> where its pixels are. Never holds a credential.
    properties
        What else the source knows, e.g. the processing baseline; JSON values only. `missing_bands` names bands of the
        source that this acquisition does not have.
    """

    id: str
    version: str
    time: dt.datetime
    footprint: tuple[float, float, float, float] | None
    assets: Mapping[str, str]
    properties: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """Where pixels come from. Picklable, without credentials: they are looked up where the reading happens."""

    def bands(self) -> tuple[str, ...]:
        """Every band that can be read."""
        ...

    def quality_bands(self) -> tuple[str, ...]:
        """The bands of classes, which are never interpolated."""
        ...

    def native_geobox(self) -> GeoBox | None:
        """The source's own grid; None when it has none, or more than one."""
        ...

    def search(self, grid: Grid, start: dt.date, end: dt.date) -> list[Acquisition]:
        """The acquisitions of the UTC days `start` to `end`, both included, by (time, id). Reads no pixel.

        Raises
        ------
        SourceUnavailableError
            The source did not answer.
        """
        ...

    def read(self, acquisition: Acquisition, bands: Sequence[str], geobox: GeoBox) -> dict[str, NDArray[np.float64]]:
        """Physical values on the pixels of `geobox`: band -> (y, x) float64, NaN where missing.

        Values of a pixel do not depend on how a grid is cut into windows.

        Raises
        ------
        MissingBandError
            The acquisition has no such band.
        SourceUnavailableError
            The source did not answer.
        """
        ...
