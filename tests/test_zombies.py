"""Processes that were stopped in the middle, overtaken, cleared away, and went on; tasks that ran twice or late."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from geofield.cube.upkeep import collect
from geofield.errors import GeofieldError
from geofield.pipeline import append
from geofield.pipeline import correct as correct_module
from geofield.store import Location
from tests.support.children import Child
from tests.support.racers import race_to_append, race_to_correct, race_to_fill, stop_at
from tests.support.soak import some
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

pytestmark = pytest.mark.timeout(3600)

LATER = {**CORRECTED, 2: 3, 4: 2}

ROWS = ("rows", "look", "commit")
PUBLISHING = ("publish", "swap")
# what the stopped process does -> the steps at which it stops
WORK: dict[str, tuple[Callable[..., Any], tuple[Any, ...], tuple[str, ...]]] = {
    "append": (race_to_append, (4, 6, SCENES), ("grow", "write", *PUBLISHING, *ROWS)),
    "correct": (race_to_correct, (CORRECTED,), ("begin", "amend", *PUBLISHING, *ROWS)),
    "fill": (race_to_fill, (), ROWS),
}
POINTS = [
    (name, step, moment) for name, (_, _, steps) in WORK.items() for step in steps for moment in ("before", "after")
]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> State:
    return undisturbed(str(tmp_path_factory.mktemp("fresh") / "store"), 7, LATER)


def mend(url: str) -> None:
    """What the next run does."""
    correct(Work(url), LATER, fields_of(**EVERYBODY))


def clear(url: str) -> None:
    """Everything that is not published goes at once, what the stopped process wrote too."""
    work = Work(url)
    collect(work.cube, dt.timedelta(0))
    work.results.table.free(dt.timedelta(0))


@pytest.mark.slow
@pytest.mark.parametrize("point", some(POINTS, 9), ids="-".join)
def test_a_process_that_slept_while_two_others_worked(
    store_url: str, point: tuple[str, str, str], expected: State
) -> None:
    check_zombie(store_url, point, expected)


def test_a_process_that_slept_before_it_published(store_url: str, expected: State) -> None:
    check_zombie(store_url, ("append", "publish", "before"), expected)


def check_zombie(store_url: str, point: tuple[str, str, str], expected: State) -> None:
    name, step, moment = point
    task, arguments, _ = WORK[name]
    Location.parse(store_url).probe()
    with in_this_thread():
        extend(Work(store_url).create(), 1, 3, SCENES)
    with Child(stop_at, step, moment, task, store_url, *arguments) as zombie:
        assert zombie.go().tell() == "stopping"
        zombie.wait_until_stopped()
        # two others in turn: one takes the same days and corrects them, one corrects again and goes on
        race_to_append(store_url, 4, 5, SCENES)
        race_to_correct(store_url, CORRECTED)
        race_to_correct(store_url, LATER)
        race_to_append(store_url, 6, 7, LATER)
        clear(store_url)
        before = check_cube(Work(store_url).cube)
        published = state(store_url).cube
        zombie.continue_()
        zombie.result()
    after = check_cube(Work(store_url).cube)
    if name != "correct":  # a correction that wakes up corrects: its catalogue is the one that it was given
        assert (after, state(store_url).cube) == (before, published)
    with in_this_thread():
        mend(store_url)
    assert state(store_url) == expected
    left = [branch for branch in Work(store_url).cube.repository.list_branches() if branch != "main"]
    assert left == []


class Twice:
    """A task that runs twice with the same arguments, and all of them once more when everything is over."""

    def __init__(self, task: Callable[..., Any], is_elsewhere: bool, kept: int) -> None:
        self.task, self.is_elsewhere, self.kept = task, is_elsewhere, kept
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.__name__ = task.__name__

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        call = (arguments, options)
        # as it comes to another process, each time anew, or as threads share it
        sent = [pickle.loads(pickle.dumps(call)) if self.is_elsewhere else call for _ in range(3)]
        self.calls.append(sent[2])
        results = [self.task(*given, **said) for given, said in sent[:2]]
        return pickle.loads(pickle.dumps(results[self.kept])) if self.is_elsewhere else results[self.kept]

    def late(self) -> int:
        """Run them all again; how many."""
        for arguments, options in self.calls:
            try:
                self.task(*arguments, **options)
            except GeofieldError:
                continue
            except ValueError as error:  # the attempt's session has been committed: it takes no more writes
                if "read-only" not in str(error):
                    raise
        return len(self.calls)


@pytest.mark.parametrize("kept", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["first", "second"])
@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["threads", "processes"])
def test_tasks_that_run_twice_or_late_change_nothing(
    store_url: str, is_elsewhere: bool, kept: int, expected: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    Location.parse(store_url).probe()
    appending = Twice(append.run_tile_day, is_elsewhere, kept)
    correcting = Twice(correct_module.correct_tile_day, is_elsewhere, kept)
    monkeypatch.setattr(append, "run_tile_day", appending)
    monkeypatch.setattr(correct_module, "correct_tile_day", correcting)
    with in_this_thread():
        extend(Work(store_url).create(), 1, 3, SCENES, fields_of(**EVERYBODY))
        appending.late()
        race_to_correct(store_url, CORRECTED)
        extend(Work(store_url), 4, 7, CORRECTED, fields_of(**EVERYBODY))
        assert appending.late() > 6
        race_to_correct(store_url, LATER)
        assert correcting.late() > 4
        mend(store_url)
    assert state(store_url) == expected
