"""What a late field asks of S3, counted: the index of each shard, the inner chunks it touches, no other day."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from typing import TYPE_CHECKING

import dask
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.cube.cube import Cube
from geofield.pipeline import BoxFields, append_days, fill_late_fields
from geofield.pipeline import stored as stored_values
from geofield.testing.source import ArraySource
from tests.test_pipeline import DAY1, Work, make_box, scene

if TYPE_CHECKING:
    from tests.support.s3server import Request, S3Server

DAYS, REVISIT = 12, 4
GEOBOX = GeoBox((1024, 1024), Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")
ARRAYS = 4  # the observation, and three of its state
ACQUIRED = 3

pytestmark = pytest.mark.s3


def square(row: float, col: float, side: float = 40) -> shapely.Polygon:
    return shapely.box(500000 + 10 * col, 5490000 - 10 * (row + side), 500000 + 10 * (col + side), 5490000 - 10 * row)


@pytest.fixture(scope="module")
def work(s3: S3Server) -> Work:
    """Twelve days, imagery on three; tiles of 512, so that a shard has four inner chunks."""
    rng = np.random.default_rng(4)
    days = [DAY1 + dt.timedelta(days=number) for number in range(0, DAYS, REVISIT)]
    images = [rng.uniform(-0.2, 0.9, GEOBOX.shape) for _ in days]
    for image in images:  # so that no shard is all the same, and small enough to lie in a manifest
        image[rng.uniform(size=GEOBOX.shape) < 0.4] = np.nan
    source = ArraySource(GEOBOX, [scene(day, ndvi=image) for day, image in zip(days, images, strict=True)])
    made = Work(f"s3://{s3.create_bucket()}/late", make_box(GEOBOX, 512))
    append_days(DAY1, DAY1 + dt.timedelta(days=DAYS - 1), source, made.fields(), made.cube, made.results)
    return made


def fill(s3: S3Server, work: Work, fields: BoxFields) -> list[Request]:
    """The requests for shards of a fill by a process that knows nothing of the cube yet."""
    with s3.counting() as counts:
        report = fill_late_fields(fields, Cube(work.location, "b"), work.results)
    assert (report.source_reads, report.box_tasks) == (0, 0)
    asked = [one for one in counts.requests if one.operation == "GET" and "/cubes/b/chunks/" in f"/{one.key}"]
    large = {info.key for info in work.location.list("cubes/b/chunks") if info.size > 4000}
    shards = [one for one in asked if one.key.removeprefix("late/") in large]
    assert (len(shards), sum(one.bytes_out for one in shards)) == (report.cube_requests, report.cube_bytes_read)
    return shards


def test_a_field_in_one_inner_chunk_costs_two_requests_for_each_shard(s3: S3Server, work: Work) -> None:
    shards = fill(s3, work, work.fields(one=square(300, 300)))
    assert len(shards) <= 2 * ARRAYS * ACQUIRED
    assert set(Counter(one.key for one in shards).values()) <= {1, 2}
    # the largest thing that may be read: one inner chunk of random numbers as they are, and an index of 68 bytes
    assert max(one.bytes_out for one in shards) <= 256 * 256 * 2 + 64


def test_at_most_twice_the_bytes_of_the_chunks_it_touches(s3: S3Server, work: Work) -> None:
    shards = fill(s3, work, work.fields(four=square(236, 236)))
    whole = {one.key: one.bytes_out for one in shards}
    assert len(shards) == len(whole) <= ARRAYS * ACQUIRED  # all four chunks of a shard: one request for it all
    sizes = {info.key: info.size for info in work.location.list("cubes/b/chunks")}
    assert all(sizes[key.removeprefix("late/")] == size for key, size in whole.items())


def test_neighbours_share_their_reads(s3: S3Server, work: Work) -> None:
    one = fill(s3, work, work.fields(a=square(300, 300)))
    many = fill(
        s3, work, work.fields(**{f"n{i}": square(260 + 20 * (i // 10), 260 + 20 * (i % 10), 15) for i in range(100)})
    )
    assert len(many) == len(one)
    assert sum(request.bytes_out for request in many) == sum(request.bytes_out for request in one)


def test_requests_are_many_at_once(s3: S3Server, work: Work) -> None:
    keys = {info.key for info in work.location.list("cubes/b/chunks") if info.size > 4000}
    waiting = threading.Barrier(ARRAYS * ACQUIRED, timeout=60)
    first: set[str] = set()
    guard = threading.Lock()

    def wait(method: str, key: str) -> None:
        with guard:
            new = key.removeprefix("late/") in keys and key not in first
            first.add(key)
        if new:
            waiting.wait()  # nobody is answered before so many have asked

    with s3.interfering(wait):
        fill(s3, work, work.fields(one=square(300, 300)))
    assert not waiting.broken
    assert len(keys & {key.removeprefix("late/") for key in first}) == ARRAYS * ACQUIRED


def test_rows_do_not_depend_on_what_is_read_together(s3: S3Server, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {
        "small": square(300, 300),
        "wide": square(100, 200, 800),
        "corner": square(500, 500),
        "tiny": square(7, 7, 0.5),
    }
    fields = work.fields(**shapes)

    def rows() -> pd.DataFrame:
        work.results.remove(list(shapes), {})
        fill_late_fields(fields, work.cube, work.results)
        found = work.rows()
        return found[found["field_id"].isin(list(shapes))].reset_index(drop=True)

    reference = rows()
    assert len(reference) == 4 * DAYS
    for steps, days in ((1, 1), (2_000, 5_000), (700_000, 1_000_000)):
        monkeypatch.setattr(stored_values, "PIXEL_STEPS", steps)
        monkeypatch.setattr(stored_values, "PIXEL_DAYS", days)
        with dask.config.set(scheduler="threads", num_workers=2):
            pd.testing.assert_frame_equal(rows(), reference, check_exact=True)
