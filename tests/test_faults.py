"""Work through a server that fails: errors, slow-downs, cut bodies, lost requests and lost answers, all by a seed."""

from __future__ import annotations

import gc
import pickle
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import icechunk
import numpy as np
import pytest
import s3fs

from geofield.cube import cube as cube_module
from geofield.cube import upkeep
from geofield.cube.attempt import Attempt, NewDay, writer_of
from geofield.cube.cube import Cube, to_day
from geofield.errors import GeofieldError, StoreUnavailableError
from geofield.store import Location
from tests.support.faultproxy import KINDS, FaultProxy, Plan
from tests.support.s3server import S3Server
from tests.support.soak import rounds
from tests.support.workload import (
    CORRECTED,
    LATE,
    MOVED,
    SCENES,
    State,
    Work,
    correct,
    day,
    extend,
    fill,
    in_this_thread,
    rebuild,
    state,
)

pytestmark = [
    pytest.mark.s3,
    pytest.mark.timeout(7200),
    # s3fs makes a client anew after a fault and leaves the session of the old one open
    pytest.mark.filterwarnings("ignore:Unclosed client session:ResourceWarning"),
]

# What a box goes through: each step may be done again, and a store that was not disturbed ends in the same state.
STEPS: list[Callable[[Work], Any]] = [
    lambda work: work.location.probe(),
    lambda work: work.create(),
    lambda work: extend(work, 1, 2, SCENES),
    lambda work: extend(work, 3, 4, SCENES),
    lambda work: fill(work, LATE),
    lambda work: correct(work, CORRECTED),
    lambda work: fill(work, MOVED),
    rebuild,
    lambda work: work.results.remove(list(LATE), {}),
]


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What s3fs leaves open goes here, and not in a test that comes after."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> State:
    url = str(tmp_path_factory.mktemp("undisturbed") / "store")
    with in_this_thread():
        for step in STEPS:
            step(Work(url))
    return state(url)


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3.url) as proxy:
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library tries again by itself: every fault comes out of it."""
    configuration, options = cube_module._configuration, Location.table_options

    def once() -> icechunk.RepositoryConfig:
        config = configuration()
        config.storage = icechunk.StorageSettings(
            retries=icechunk.StorageRetriesSettings(max_tries=1, initial_backoff_ms=1, max_backoff_ms=2)
        )
        return config

    monkeypatch.setattr(cube_module, "_configuration", once)
    monkeypatch.setattr(Location, "table_options", lambda self: {**options(self), "max_retries": "0"})
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()


def persist(step: Callable[[Work], Any], url: str, endpoint: str, errors: Counter[str]) -> None:
    """Do it as a run does: again what may succeed later. Anything else that comes out fails the test."""
    for _ in range(200):
        work = Work(url, {"endpoint_url": endpoint})
        try:
            step(work)
        except GeofieldError as error:
            errors[type(error).__name__] += 1
            if error.action != "retry":
                raise
            continue
        return
    raise AssertionError("200 times in vain")


def go_through(url: str, proxy: FaultProxy, plan: Plan) -> Counter[str]:
    errors: Counter[str] = Counter()
    with in_this_thread(), proxy.failing(plan):
        for step in STEPS:
            persist(step, url, proxy.url, errors)
    return errors


def go_through_all(seeds: range, proxy: FaultProxy, bucket: str, expected: State, share: float, longest: int) -> None:
    errors: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for seed in seeds:
        url = f"s3://{bucket}/{uuid.uuid4().hex[:8]}"
        plan = Plan(seed, share, longest)
        errors += go_through(url, proxy, plan)
        given += plan.given
        assert state(url) == expected, f"seed {seed}"
    print(f"{given.total()} faults {dict(given)}, {errors.total()} errors came out: {dict(errors)}")
    assert set(given) == set(KINDS)


@pytest.mark.usefixtures("impatient")
def test_a_fault_comes_out_as_an_error_to_try_again(proxy: FaultProxy, bucket: str, undisturbed: State) -> None:
    go_through_all(range(1), proxy, bucket, undisturbed, 0.03, 1)


def test_a_snapshot_that_cannot_be_read_is_no_missing_cube(s3: S3Server, s3_url: str) -> None:
    """Icechunk says that there is no such node. What is there must not be taken for lost, nor for empty."""

    def failing(method: str, key: str) -> int | None:
        return 404 if method == "GET" and "/snapshots/" in key else None  # nobody tries again after this one

    def fresh() -> Cube:
        return Work(s3_url).cube

    with in_this_thread():
        extend(Work(s3_url).create(), 1, 2, SCENES)
    tip = fresh().tip()
    readers: list[Callable[[], Any]] = [
        lambda: fresh().head(),
        lambda: fresh().open(),
        lambda: fresh().head(tip),
        lambda: Attempt(fresh(), tip).grow([NewDay(to_day(day(3)), False, np.ones((1, 2), np.uint64))]),
        lambda: upkeep._shut_out(fresh()),
    ]
    for read in readers:
        with s3.interfering(failing), pytest.raises(GeofieldError) as caught:
            read()
        assert caught.value.action == "retry", caught.value
    attempt = Attempt(fresh(), tip)
    attempt.begin()
    sent = pickle.loads(pickle.dumps(attempt.fork()))
    with s3.interfering(failing), pytest.raises(StoreUnavailableError):
        _ = writer_of(sent).arrays
    assert fresh().tip() == tip


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_every_fault_comes_out_as_an_error_to_try_again(proxy: FaultProxy, bucket: str, undisturbed: State) -> None:
    go_through_all(range(1, rounds(3, 21)), proxy, bucket, undisturbed, 0.03, 1)


@pytest.mark.slow
def test_the_libraries_own_retries_end_in_the_same_store(proxy: FaultProxy, bucket: str, undisturbed: State) -> None:
    go_through_all(range(1000, 1000 + rounds(1, 8)), proxy, bucket, undisturbed, 0.08, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "delay"])
def test_one_fault_at_any_request(proxy: FaultProxy, bucket: str, undisturbed: State, kind: str) -> None:
    """The same fault at the first request, at the second, and so on: nothing depends on where it strikes."""
    url = f"s3://{bucket}/{uuid.uuid4().hex[:8]}"
    errors: Counter[str] = Counter()
    struck = 0
    with in_this_thread():
        for step in STEPS:
            done = False
            at = 1
            while not done:
                plan = OneFault(kind, at)
                with proxy.failing(plan):
                    persist(step, url, proxy.url, errors)
                done = not plan.has_struck or at > rounds(1, 1000)
                struck += plan.has_struck
                at += 1
    print(f"one fault each time ({kind}): {struck} requests struck, {errors.total()} errors {dict(errors)}")
    assert state(url) == undisturbed
    assert struck > 10


class OneFault(Plan):
    """One fault, at the n-th request."""

    def __init__(self, kind: str, at: int) -> None:
        super().__init__(0, 0)
        self.kind, self.at = kind, at
        self.has_struck = False

    def next(self) -> str:
        self.at -= 1
        if self.at:
            return ""
        self.has_struck = True
        return self.kind
