"""What an append, a correction and opening cost on S3, counted: requests and objects, never seconds."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.cube.attempt import Attempt, Fork
from geofield.cube.cube import Cube
from geofield.pipeline import append_day, append_days, correct_days
from geofield.testing.source import ArraySource, Scene
from tests.support.s3server import SECRET_KEY, Counts, S3Server
from tests.test_pipeline import DAY1, Work, make_box, scene

WIDE = GeoBox((512, 512), Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")  # four tiles
IMAGES = [np.random.default_rng(seed).uniform(0, 0.9, WIDE.shape) for seed in (1, 2)]
LAST_TILE = (502570.0, 5484890.0, 505110.0, 5487430.0)


def day(number: int) -> dt.date:
    """The n-th day, counted from 1."""
    return DAY1 + dt.timedelta(days=number - 1)


def source(*numbers: int) -> ArraySource:
    """An image on some days."""
    return ArraySource(WIDE, [scene(day(number), ndvi=IMAGES[number % 2]) for number in numbers])


NOTHING = ArraySource(WIDE, [scene(dt.date(2000, 1, 1), ndvi=IMAGES[0])])


class Counted(Work):
    """A box of four tiles on S3 whose work is counted; each time the cube is opened anew."""

    def __init__(self, url: str, server: S3Server) -> None:
        super().__init__(url, make_box(WIDE, 256))
        self.server = server
        self.ready = self.fields()

    def count(self, work: Callable[[Cube], object]) -> Counts:
        """What some work asks of the server."""
        cube = Cube(self.location, "b")
        with dask.config.set(scheduler="synchronous"), self.server.counting() as counts:
            work(cube)
        return counts

    def append(self, number: int, images: ArraySource) -> Counts:
        """One day."""
        return self.count(lambda cube: append_day(day(number), images, self.ready, cube, self.results))

    def shards(self, counts: Counts) -> int:
        """Objects of pixels that were written: each holds more than a thousand numbers."""
        return sum("/chunks/" in one.key and one.method == "PUT" and one.bytes_in > 2000 for one in counts.requests)


@pytest.fixture
def work(s3: S3Server, s3_url: str) -> Counted:
    return Counted(s3_url, s3)


def lengthen(work: Counted, until: int) -> None:
    """Many days in one attempt; imagery every third day, shards so small that the manifests hold them."""
    head = work.cube.head()
    first = len(head.days) + 1
    corner = (500000.0, 5489950.0, 500050.0, 5490000.0)
    tiny = np.full(WIDE.shape, np.nan)
    tiny[:5, :5] = 0.5
    scenes = [
        Scene(one.time, one.values, one.version, one.id, corner)
        for one in (scene(day(number), ndvi=tiny) for number in range(first, until + 1) if number % 3 == 0)
    ]
    quick = ArraySource(WIDE, scenes or NOTHING.scenes)
    with dask.config.set(scheduler="synchronous"):
        append_days(day(first), day(until), quick, work.ready, work.cube, work.results)


@pytest.mark.s3
def test_a_day_costs_the_same_however_long_the_history_is(work: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geofield.pipeline.append.WINDOW", 64)
    lengthen(work, 3)
    early = [work.append(4, source(4)), work.append(5, source(5)), work.append(6, NOTHING)]
    lengthen(work, 197)
    late = [work.append(198, source(198)), work.append(199, source(199)), work.append(200, NOTHING)]
    # the second day of each reads the state of the first from four shards of `filled` and four of `sigma0`
    (_, with_first, without_first), (_, with_late, without_late) = early, late
    assert abs(with_late.total - with_first.total) <= 0.1 * with_first.total
    assert abs(without_late.total - without_first.total) <= 0.1 * without_first.total
    assert with_first.total <= 54
    assert without_first.total <= 20
    assert without_late.bytes_in + without_late.bytes_out <= 3 * (without_first.bytes_in + without_first.bytes_out)
    assert [work.shards(counts) for counts in (with_first, with_late)] == [8, 8]
    assert [work.shards(counts) for counts in (without_first, without_late)] == [0, 0]
    # no listing, and of the heads one at the opening and one that Icechunk sends after a snapshot
    assert set(with_late.operations) == {"GET", "PUT", "HEAD"}
    assert with_late.operations["HEAD"] <= 3

    opened = work.count(lambda cube: cube.open())
    assert opened.total <= 20
    assert set(opened.methods) <= {"GET", "HEAD"}
    assert not [one for one in opened.requests if "/chunks/" in one.key]


@pytest.mark.s3
def test_a_correction_writes_the_tile_that_changed(work: Counted) -> None:
    cloudy = scene(day(3), ndvi=np.where(IMAGES[1] > 0.45, np.nan, IMAGES[1]))
    images = ArraySource(WIDE, [*source(1, 2).scenes, cloudy])
    whole = [work.append(number, images) for number in (1, 2, 3)][-1]
    assert work.shards(whole) == 16  # four tiles, four arrays
    late = scene(day(3), hour=12, ndvi=IMAGES[0])
    images = ArraySource(WIDE, [*images.scenes, Scene(late.time, late.values, "1", "late", LAST_TILE)])
    counts = work.count(lambda cube: correct_days(day(3), images, work.ready, cube, work.results))
    assert work.shards(counts) == 2  # observation and estimate; error and age are the same everywhere: a few bytes
    assert counts.bytes_in < 0.3 * whole.bytes_in
    assert counts.total < whole.total


@pytest.mark.s3
def test_what_travels_to_another_process_is_a_fork_without_credentials(
    work: Counted, s3_url: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = source(1, 2, 4)
    for number in range(1, 5):
        work.append(number, images)
    sent: list[bytes] = []
    fork = Attempt.fork

    def travelled(self: Attempt) -> Any:
        sent.append(pickle.loads(pickle.dumps(fork(self))))
        return sent[-1]

    other = Counted(f"{s3_url}/other", s3)
    monkeypatch.setattr(Attempt, "fork", travelled)
    append_days(day(1), day(4), images, other.ready, other.cube, other.results)
    assert [type(one) for one in sent] == [bytes]
    assert SECRET_KEY.encode() not in sent[0]
    assert not isinstance(sent[0], Fork)
    for name, array in work.cube.open().data_vars.items():
        assert np.array_equal(array.values, other.cube.open()[name].values, equal_nan=True), name


@pytest.mark.s3
def test_no_moment_of_the_past_holds_a_day_without_its_pixels(work: Counted) -> None:
    for number in (1, 2):
        work.append(number, source(1, 2))
    history = list(work.cube.repository.ancestry(branch="main"))
    lengths = []
    for one in history[:-1]:  # the root of a repository holds nothing
        group = zarr.open_group(work.cube.session(one.id).store, mode="r")
        stored = np.asarray(group["ndvi"])
        lengths.append(len(stored))
        assert all((image != group["ndvi"].attrs["_FillValue"]).any() for image in stored)
    assert lengths == [2, 1, 0]
