"""A small box that tests of crashes, races and faults work on, and what a reader of it must see.

Every pixel tells the day and the version of the scene that it came from, so that nothing mixed goes unseen: stored as
an integer it is (random * 256 + day * 16 + version), with days and versions below 16.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import dask
import numpy as np
import pandas as pd
import shapely
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geofield.boxes import Box
from geofield.cube.attempt import Attempt, NewDay
from geofield.cube.cube import Cube, to_date, to_day
from geofield.cube.view import read_digests
from geofield.errors import GeofieldError, NotFoundError
from geofield.grid import Grid
from geofield.pipeline import (
    BoxFields,
    append_days,
    box_fields,
    correct_days,
    fill_late_fields,
    rebuild_cube,
    refresh_rows,
)
from geofield.pipeline.compact import compact
from geofield.pipeline.layers import cube_schema
from geofield.results.rows import Results
from geofield.store import Location
from geofield.testing.source import ArraySource, Scene

START = dt.date(2025, 4, 1)
# two tiles; large enough that Icechunk writes the shards as objects of their own
GEOBOX = GeoBox((24, 300), Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")
BOX_ID = "b"
FIELDS: dict[str, Any] = {
    "left": shapely.box(500015, 5489805, 500105, 5489895),
    "both": shapely.box(502505, 5489800, 502615, 5489900),
}
LATE = {"late": shapely.box(502705, 5489805, 502795, 5489995)}
EVERYBODY = {**FIELDS, **LATE}
MOVED = {"left": shapely.box(500215, 5489805, 500305, 5489895)}


def day(number: int) -> dt.date:
    """The n-th day of the box, counted from 1."""
    return START + dt.timedelta(days=number - 1)


@cache
def image(number: int, version: int = 1) -> NDArray[np.float64]:
    """(y, x) pixels of day `number` in a version of its scene; a tenth of them missing."""
    random = np.random.default_rng([number, version])
    stored = random.integers(0, 39, GEOBOX.shape) * 256 + number * 16 + version
    return np.where(random.uniform(size=GEOBOX.shape) < 0.1, np.nan, stored * 1e-4)


def origins(values: NDArray[np.float64]) -> set[tuple[int, int]]:
    """(day, version) of every scene that pixels came from."""
    stored = np.rint(values[np.isfinite(values)] * 1e4).astype(np.int64)
    return {(int(code) // 16, int(code) % 16) for code in np.unique(stored % 256)}


def source(scenes: Mapping[int, int]) -> ArraySource:
    """A source with a scene for some days: number -> version."""
    return ArraySource(
        GEOBOX,
        [
            Scene(
                dt.datetime.combine(day(number), dt.time(10), dt.UTC),
                {"ndvi": image(number, version)},
                str(version),
                f"scene-{number}",
            )
            for number, version in sorted(scenes.items())
        ],
    )


def make_box(**variable: Any) -> Box:
    """The box; `variable` changes its only variable."""
    return Box.model_validate(
        {
            "id": BOX_ID,
            "bbox": GEOBOX.boundingbox.bbox,
            "crs": "EPSG:32631",
            "start": START,
            "source": {"type": "array"},
            "variables": {"ndvi": {"band": "ndvi", "valid_range": [-1, 1], "state": "kalman", **variable}},
            "pixels": Grid(GEOBOX, 256).to_dict(),
        }
    )


@cache
def fields_of(**shapes: Any) -> BoxFields:
    """Fields of the box from its start on."""
    return ready_fields(make_box(), **shapes)


def ready_fields(box: Box, **shapes: Any) -> BoxFields:
    """Fields of any form of the box."""
    rows = [
        {
            "field_id": name,
            "version": hashlib.blake2b(shape.wkb, digest_size=6).hexdigest(),
            "geometry": shape.wkb,
            "crs": "EPSG:32631",
            "planting_date": START,
            "harvest_date": None,
        }
        for name, shape in shapes.items()
    ]
    return box_fields(box, pd.DataFrame(rows))


class Work:
    """The cube and the rows of the box in a store; holds nothing open."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.location = Location.parse(url, options)
        self.cube = Cube(self.location, BOX_ID)
        self.results = Results(self.location, BOX_ID)

    def create(self) -> Work:
        """Make the empty cube."""
        self.cube.create(cube_schema(make_box(), make_box().resolved))
        return self


# --- what is done to a store -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """One kind of work, safe to be done again.

    Attributes
    ----------
    prepare
        Makes what the work finds.
    run
        The work, and after it what every run of the planner does: the rows that are missing or not current.
    """

    prepare: Callable[[Work], None]
    run: Callable[[Work], None]


SCENES = {1: 1, 2: 1, 4: 1, 5: 1, 7: 1, 8: 1}
CORRECTED = {**SCENES, 1: 2, 3: 1}


def extend(work: Work, first: int, last: int, scenes: Mapping[int, int], fields: BoxFields | None = None) -> None:
    """Append days and mend their rows."""
    fields = fields or fields_of(**FIELDS)
    append_days(day(first), day(last), source(scenes), fields, work.cube, work.results)
    refresh_rows(fields, work.cube, work.results)


def correct(work: Work, scenes: Mapping[int, int], fields: BoxFields | None = None) -> None:
    """Bring every day up to date and mend the rows: what the next run does."""
    fields = fields or fields_of(**FIELDS)
    correct_days(START, source(scenes), fields, work.cube, work.results)
    refresh_rows(fields, work.cube, work.results)


def fill(work: Work, shapes: Mapping[str, Any]) -> None:
    """Fill fields from the stored cube."""
    fill_late_fields(fields_of(**shapes), work.cube, work.results)


def rebuild(work: Work) -> None:
    """Give the box another noise, and mend the rows."""
    box = make_box(q=1e-3)
    rebuild_cube(box, source(SCENES), work.cube, work.results)
    refresh_rows(ready_fields(box, **FIELDS), work.cube, work.results)


def compact_rows(work: Work) -> None:
    """Bring the files of the rows together, and free at once what nothing needs, in the cube too."""
    compact(work.location, [BOX_ID], day(100), keep=dt.timedelta(0), older_than=dt.timedelta(0))


def _three_days(work: Work) -> None:
    extend(work.create(), 1, 3, SCENES)


def _four_days_of_one_file_each(work: Work) -> None:
    work.create()
    for number in range(1, 5):
        extend(work, number, number, SCENES)
    # what an attempt that died leaves
    attempt = Attempt(work.cube, work.cube.tip())
    attempt.grow([NewDay(to_day(day(5)), False, read_digests(work.cube.arrays(), slice(-1, None))[0])])
    attempt.write([], ["[]"], "never published", {})


OPERATIONS = {
    "create": Operation(lambda work: None, lambda work: extend(work.create(), 1, 1, SCENES)),
    "append": Operation(_three_days, lambda work: extend(work, 4, 6, SCENES)),
    "correct": Operation(_three_days, lambda work: correct(work, CORRECTED)),
    "late": Operation(_three_days, lambda work: fill(work, LATE)),
    "moved": Operation(_three_days, lambda work: fill(work, MOVED)),
    "rebuild": Operation(_three_days, rebuild),
    "compact": Operation(_four_days_of_one_file_each, compact_rows),
}


# --- what a reader sees ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """What stands in a store: digests of the cube's arrays by name, and of the rows; None where there is nothing."""

    cube: dict[str, str] | None
    rows: str | None


def state(url: str) -> State:
    """Read everything, checking what holds at any moment."""
    work = Work(url)
    check_rows(rows := work.results.read())
    shown = rows.to_json(double_precision=15, date_format="iso") if len(rows) else ""  # an empty table is none
    return State(_cube_state(work.cube), _digest(shown.encode()))


def undisturbed(url: str, last: int, scenes: Mapping[int, int]) -> State:
    """The box as it is when nobody disturbs: right from the start, every field there on time."""
    with in_this_thread():
        extend(Work(url).create(), 1, last, scenes, fields_of(**EVERYBODY))
    return state(url)


def _cube_state(cube: Cube) -> dict[str, str] | None:
    try:
        check_cube(cube)
        group = cube.group()
        view = cube.open()
    except NotFoundError:
        return None
    stored = {name: np.asarray(array[...]) for name, array in group.arrays()}
    shown = {f"view {name}": array.values for name, array in view.data_vars.items()}
    return {
        name: _digest(
            f"{array.shape}".encode(), array.tobytes() if array.dtype.kind in "biuf" else repr(array.tolist()).encode()
        )
        for name, array in {**stored, **shown}.items()
    }


def _digest(*parts: bytes) -> str:
    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()


def check_cube(cube: Cube) -> dict[int, int]:
    """The version of each day's scene (0: none), after checking that days are consecutive, whole and unmixed."""
    session = cube.session()
    group = zarr.open_group(session.store, mode="r")
    days, acquired = np.asarray(group["time"]), np.asarray(group["acquired"])
    assert [to_date(one) for one in days] == [day(number + 1) for number in range(len(days))]
    assert {array.shape[0] for name, array in group.arrays() if name not in ("y", "x", "spatial_ref")} == {len(days)}
    values, fill = np.asarray(group["ndvi"]), group["ndvi"].attrs["_FillValue"]
    found = {}
    for number, (came, pixels) in enumerate(zip(acquired, values, strict=True), 1):
        seen = origins(np.where(pixels == fill, np.nan, pixels * 1e-4))
        assert len(seen) == int(came), f"day {number} holds pixels of {seen}, acquired: {came}"
        found[number] = 0
        for origin, version in seen:
            assert origin == number
            expected = image(number, version)
            assert np.array_equal(np.where(pixels == fill, np.nan, pixels), np.rint(expected * 1e4), equal_nan=True)
            found[number] = version
    return found


def check_rows(rows: pd.DataFrame) -> None:
    """One row per field and day, and one version of a field."""
    assert not rows.duplicated(["field_id", "date"]).any()
    assert (rows.groupby("field_id")["field_version"].nunique() <= 1).all()


@contextlib.contextmanager
def in_this_thread() -> Iterator[None]:
    """Dask tasks run one after the other."""
    with dask.config.set(scheduler="synchronous"):
        yield


def operate(name: str, url: str) -> None:
    """Do one kind of work; for children."""
    with in_this_thread():
        OPERATIONS[name].run(Work(url))


def persistently(work: Callable[[], Any], tries: int = 50) -> Any:
    """As a run does it: again what may succeed later. Anything else comes out."""
    for _ in range(tries):
        try:
            return work()
        except GeofieldError as error:
            if error.action != "retry":
                raise
    raise AssertionError(f"{tries} times in vain")
