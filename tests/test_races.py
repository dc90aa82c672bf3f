"""Eight processes at once on one box: one wins each swap, nothing is lost or mixed, and readers never notice."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import Child
from tests.support.racers import race_to_append, race_to_correct, race_to_fill, read_on
from tests.support.soak import rounds
from tests.support.workload import (
    CORRECTED,
    EVERYBODY,
    SCENES,
    State,
    Work,
    check_cube,
    correct,
    extend,
    fields_of,
    in_this_thread,
    state,
    undisturbed,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# Four want the same days and two want fewer or more of them; two correct; one fills a late field.
WRITERS: list[tuple[Any, ...]] = [
    (race_to_append, 4, 6, CORRECTED),
    (race_to_append, 4, 6, CORRECTED),
    (race_to_append, 4, 4, CORRECTED),
    (race_to_append, 4, 8, CORRECTED),
    (race_to_append, 4, 8, CORRECTED),
    (race_to_correct, CORRECTED),
    (race_to_correct, CORRECTED),
    (race_to_fill,),
]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> State:
    """The box as it is when nobody races: right from the start, every field there on time."""
    return undisturbed(str(tmp_path_factory.mktemp("fresh") / "store"), 8, CORRECTED)


def race(url: str) -> tuple[int, int]:
    """One round; how many days were appended in all, and how often the readers read."""
    with in_this_thread():
        extend(Work(url).create(), 1, 3, SCENES)
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(Child(read_on, url)).go() for _ in range(2)]
        for reader in readers:
            assert reader.tell() == "reading"
        writers = [stack.enter_context(Child(task, url, *arguments)) for task, *arguments in WRITERS]
        for writer in writers:
            writer.go()
        appended = sum(writer.result() for writer, (task, *_) in zip(writers, WRITERS, strict=True) if appends(task))
        for writer, (task, *_) in zip(writers, WRITERS, strict=True):
            if not appends(task):
                writer.result()
        for reader in readers:
            reader.send("enough")
        reads = sum(reader.result() for reader in readers)
    return appended, reads


def appends(task: Any) -> bool:
    return task is race_to_append


def published_days(work: Work) -> list[str]:
    """First and last day of every append in the line of `main`."""
    commits = work.cube.repository.ancestry(branch="main")
    return [one.metadata["days"] for one in commits if one.metadata.get("kind") == "append"]


def test_eight_writers_and_two_readers(store_url: str, expected: State) -> None:
    number, reads = rounds(2, 30), 0
    for lap in range(number):
        url = f"{store_url}/{lap}"
        Path(url).mkdir(parents=True) if "://" not in url else None
        appended, read = race(url)
        reads += read
        work = Work(url)
        assert appended == 5
        assert set(check_cube(work.cube)) == set(range(1, 9))
        spans = sorted(published_days(work))
        for (_, last), (first, _) in itertools.pairwise(spans):
            assert first > last, f"days were published twice: {spans}"
        with in_this_thread():
            correct(work, CORRECTED, fields_of(**EVERYBODY))
        assert state(url) == expected
        assert list(work.cube.repository.list_branches()) == ["main"]
    print(f"races: {number} rounds of {len(WRITERS)} writers, {reads} reads of two readers meanwhile")
    assert reads >= 2 * number


def create(url: str) -> None:
    Work(url).create()


@pytest.mark.s3
def test_a_box_made_by_eight_at_once_is_made_once(s3_url: str) -> None:
    for lap in range(rounds(2, 20)):
        url = f"{s3_url}/{lap}"
        with contextlib.ExitStack() as stack:
            makers = [stack.enter_context(Child(create, url)) for _ in range(8)]
            for maker in makers:
                maker.go()
            for maker in makers:
                maker.result()
        with in_this_thread():
            extend(Work(url), 1, 1, SCENES)
        assert check_cube(Work(url).cube) == {1: 1}
