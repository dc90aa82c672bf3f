"""Sources for tests, and the contract that any source can be run through."""

from __future__ import annotations

import datetime as dt
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geofield.errors import GridError, MissingBandError
from geofield.grid import Grid, Window, bounds_of
from geofield.source import Source, register_source
from geofield.source.counters import count_read, counting
from geofield.source.protocol import Acquisition

POSITION_STEP = 1000
"""Rows and columns that a value of `PositionSource` can tell apart."""


@dataclass(frozen=True)
class PositionSource:
    """A source whose pixel value tells its day, row and column: (days since `epoch`) x 10^6 + row x 10^3 + column.

    Bands: `position`, and the quality band `quality`, 1 (bad) where (row + column + day) is a multiple of `bad_every`,
    else 0. Rows and columns count from the upper left corner of `geobox`; outside of it pixels are missing.

    Attributes
    ----------
    geobox
        At most 1000 x 1000 pixels.
    epoch
        Day 0.
    every
        An acquisition at noon of every so many days from `epoch` on.
    revisions
        Day -> text appended to the version of its acquisition; the pixels stay.
    """

    geobox: GeoBox
    epoch: dt.date = dt.date(2025, 4, 1)
    every: int = 1
    bad_every: int = 7
    revisions: Mapping[dt.date, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if max(self.geobox.shape) > POSITION_STEP:
            raise GridError(f"A PositionSource has at most {POSITION_STEP} rows and columns; got {self.geobox.shape}.")

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> PositionSource:
        """`{type: position, grid: Grid.to_dict(), epoch: DATE, every: N, bad_every: N}`; all but `grid` optional."""
        options = {key: spec[key] for key in ("every", "bad_every") if key in spec}
        if "epoch" in spec:
            options["epoch"] = dt.date.fromisoformat(str(spec["epoch"]))
        return cls(Grid.from_dict(spec["grid"]).geobox, **options)

    def bands(self) -> tuple[str, ...]:
        """Position and quality."""
        return ("position", "quality")

    def quality_bands(self) -> tuple[str, ...]:
        """Quality."""
        return ("quality",)

    def native_geobox(self) -> GeoBox | None:
        """The grid on which rows and columns are counted."""
        return self.geobox

    def search(self, grid: Grid, start: dt.date, end: dt.date) -> list[Acquisition]:
        """One acquisition at noon, every `every` days."""
        numbers = range(max((start - self.epoch).days, 0), (end - self.epoch).days + 1)
        return [self._acquisition(number) for number in numbers if number % self.every == 0]

    def read(self, acquisition: Acquisition, bands: Sequence[str], geobox: GeoBox) -> dict[str, NDArray[np.float64]]:
        """See the class; `GridError` when the asked grid has other pixels than the source."""
        rows, columns = _pixels_of(geobox, self.geobox)
        inside = _inside(rows, self.geobox.shape.y)[:, None] & _inside(columns, self.geobox.shape.x)[None, :]
        day = (acquisition.time.date() - self.epoch).days
        row, column = rows[:, None].astype(np.float64), columns[None, :].astype(np.float64)
        made = {
            "position": (day * POSITION_STEP + row) * POSITION_STEP + column,
            "quality": ((row + column + day) % self.bad_every == 0).astype(np.float64),
        }
        count_read(8 * len(bands) * inside.size)
        return {band: np.where(inside, _band(made, band, acquisition), np.nan) for band in bands}

    @staticmethod
    def decode(values: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """(days since the epoch, row, column) of values of the band `position`."""
        numbers = np.asarray(values).astype(np.int64)
        step = POSITION_STEP
        return numbers // (step * step), numbers // step % step, numbers % step

    def _acquisition(self, number: int) -> Acquisition:
        day = self.epoch + dt.timedelta(days=number)
        return Acquisition(
            id=f"position-{day:%Y%m%d}",
            version="1" + self.revisions.get(day, ""),
            time=dt.datetime.combine(day, dt.time(12), dt.UTC),
            footprint=bounds_of(self.geobox),
            assets={band: f"position:{day:%Y%m%d}/{band}" for band in self.bands()},
        )


@dataclass(frozen=True)
class Scene:
    """One acquisition of an `ArraySource`: band -> (y, x) values on the source's grid, NaN where missing."""

    time: dt.datetime
    values: Mapping[str, NDArray[np.float64]]
    version: str = "1"
    id: str = ""
    """Default: made from the time."""
    footprint: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class ArraySource:
    """A source over arrays given by hand, all on one grid."""

    geobox: GeoBox
    scenes: Sequence[Scene]
    quality: tuple[str, ...] = ()

    def bands(self) -> tuple[str, ...]:
        """Every band of any scene, in order of appearance."""
        return tuple(dict.fromkeys(band for scene in self.scenes for band in scene.values))

    def quality_bands(self) -> tuple[str, ...]:
        """As given."""
        return self.quality

    def native_geobox(self) -> GeoBox | None:
        """The grid of the arrays."""
        return self.geobox

    def search(self, grid: Grid, start: dt.date, end: dt.date) -> list[Acquisition]:
        """The scenes of the days."""
        found = [
            Acquisition(
                _scene_id(scene), scene.version, scene.time, scene.footprint, dict.fromkeys(scene.values, "array:")
            )
            for scene in self.scenes
            if start <= scene.time.date() <= end
        ]
        return sorted(found, key=lambda one: (one.time, one.id))

    def read(self, acquisition: Acquisition, bands: Sequence[str], geobox: GeoBox) -> dict[str, NDArray[np.float64]]:
        """The arrays' pixels, NaN outside of their grid."""
        rows, columns = _pixels_of(geobox, self.geobox)
        (scene,) = (one for one in self.scenes if _scene_id(one) == acquisition.id)
        (y, own_y), (x, own_x) = _overlap(rows, self.geobox.shape.y), _overlap(columns, self.geobox.shape.x)
        result = {}
        for band in bands:
            result[band] = np.full(geobox.shape, np.nan)
            result[band][y, x] = _band(scene.values, band, acquisition)[own_y, own_x]
        count_read(8 * len(bands) * math.prod(geobox.shape))
        return result


class SourceContract:
    """What every source keeps to. Subclass it in a test module and give the first three methods.

    The suite reads small windows only; let `grid` have a few hundred pixels a side, and `days` hold at least two
    acquisitions.
    """

    def source(self) -> Source:
        """The source; built anew for each test."""
        raise NotImplementedError

    def grid(self) -> Grid:
        """A grid on which the source has pixels."""
        raise NotImplementedError

    def days(self) -> tuple[dt.date, dt.date]:
        """First and last day of a period with at least two acquisitions, on different days."""
        raise NotImplementedError

    def test_is_a_source(self) -> None:
        """It has every method of the protocol, and its quality bands are bands."""
        source = self.source()
        assert isinstance(source, Source)
        assert source.bands()
        assert set(source.quality_bands()) <= set(source.bands())

    def test_search_is_sorted_unique_and_repeatable(self) -> None:
        """Acquisitions come by (time, id), with unique ids, in UTC, and the same each time."""
        source, grid = self.source(), self.grid()
        found = source.search(grid, *self.days())
        assert len(found) >= 2
        assert found == sorted(found, key=lambda one: (one.time, one.id))
        assert len({one.id for one in found}) == len(found)
        assert all(one.time.utcoffset() == dt.timedelta(0) for one in found)
        assert all(one.version for one in found)
        assert source.search(grid, *self.days()) == found
        assert self.source().search(grid, *self.days()) == found

    def test_search_holds_both_days(self) -> None:
        """A period of one day finds exactly what a longer one finds on that day."""
        source, grid = self.source(), self.grid()
        found = source.search(grid, *self.days())
        for day in {one.time.date() for one in (found[0], found[-1])}:
            assert source.search(grid, day, day) == [one for one in found if one.time.date() == day]

    def test_search_reads_no_pixel(self) -> None:
        """Searching counts no read."""
        source, grid = self.source(), self.grid()
        with counting() as counter:
            source.search(grid, *self.days())
        assert (counter.reads, counter.bytes) == (0, 0)

    def test_read_gives_float64_on_the_asked_grid(self) -> None:
        """Bands come as asked for, (y, x) float64; some pixel has a value; the read is counted."""
        source, grid = self.source(), self.grid()
        with counting() as counter:
            values = source.read(self._first(), source.bands(), grid.geobox)
        assert set(values) == set(source.bands())
        assert {value.shape for value in values.values()} == {grid.shape}
        assert {value.dtype for value in values.values()} == {np.dtype(np.float64)}
        assert any(np.isfinite(value).any() for value in values.values())
        assert counter.reads == 1
        assert counter.bytes > 0

    def test_windows_hold_the_same_pixels(self) -> None:
        """However a grid is cut, a pixel has the same bits."""
        source, grid = self.source(), self.grid()
        first = self._first()
        whole = source.read(first, source.bands(), grid.geobox)
        rows, columns = grid.shape
        random = np.random.default_rng(0)
        for _ in range(8):
            y0, y1 = sorted(random.choice(rows + 1, 2, replace=False).tolist())
            x0, x1 = sorted(random.choice(columns + 1, 2, replace=False).tolist())
            window = Window(y0, x0, y1, x1)
            part = source.read(first, source.bands(), grid.window_geobox(window))
            for band, value in part.items():
                np.testing.assert_array_equal(value, whole[band][window.slices], err_msg=f"{band} {window}")

    def test_bands_do_not_depend_on_each_other(self) -> None:
        """A band read alone equals the band read with others."""
        source, grid = self.source(), self.grid()
        first = self._first()
        together = source.read(first, source.bands(), grid.geobox)
        for band in source.bands():
            np.testing.assert_array_equal(source.read(first, [band], grid.geobox)[band], together[band])

    def test_unknown_band_is_refused(self) -> None:
        """A band that is not there is an error that names it, never zeros."""
        message = "nothing was raised"
        try:
            self.source().read(self._first(), ["no-such-band"], self.grid().geobox)
        except MissingBandError as error:
            message = str(error)
        assert "no-such-band" in message

    def test_travels_pickled(self) -> None:
        """A copy that went through pickle finds and reads the same."""
        source, grid = self.source(), self.grid()
        copy = pickle.loads(pickle.dumps(source))
        first = self._first()
        band = source.bands()[0]
        assert copy.search(grid, *self.days()) == source.search(grid, *self.days())
        np.testing.assert_array_equal(
            copy.read(first, [band], grid.geobox)[band], source.read(first, [band], grid.geobox)[band]
        )

    def _first(self) -> Acquisition:
        return self.source().search(self.grid(), *self.days())[0]


register_source("position", "geofield.testing.source:PositionSource.from_spec")


def _scene_id(scene: Scene) -> str:
    return scene.id or f"scene-{scene.time:%Y%m%dT%H%M%S}"


def _band(made: Mapping[str, NDArray[np.float64]], band: str, acquisition: Acquisition) -> NDArray[np.float64]:
    if band not in made:
        raise MissingBandError(f"{acquisition.id} has no band {band!r}; it has {', '.join(made)}.")
    return made[band]


def _pixels_of(asked: GeoBox, own: GeoBox) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the asked pixels on the source's grid, which they have to lie on."""
    a, b = asked.transform, own.transform
    if (a.a, a.e) != (b.a, b.e) or asked.crs != own.crs:
        raise GridError(f"The asked grid {asked} has other pixels than the test source's {own}.")
    return (
        round((a.f - b.f) / b.e) + np.arange(asked.shape.y, dtype=np.int64),
        round((a.c - b.c) / b.a) + np.arange(asked.shape.x, dtype=np.int64),
    )


def _overlap(index: NDArray[np.int64], size: int) -> tuple[slice, slice]:
    """Which of consecutive pixels lie on a grid of that size, and which of the grid's they are."""
    first = int(index[0])
    start, end = max(first, 0), max(min(first + len(index), size), 0)
    return slice(max(start - first, 0), max(end - first, 0)), slice(start, max(end, start))


def _inside(index: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (index >= 0) & (index < size)
    return inside
