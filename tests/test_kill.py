"""SIGKILL before and after every single write: the store reads as before or after, and a rerun completes it."""

from __future__ import annotations

import datetime as dt
import shutil
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import pytest

from geofield.cube.upkeep import Freed, collect, garbage
from geofield.store import Location
from tests.support.children import Child, Watch, can_watch
from tests.support.soak import some
from tests.support.workload import OPERATIONS, State, Work, in_this_thread, operate, state

if TYPE_CHECKING:
    from tests.support.s3server import S3Server

WRITES = {"PUT", "POST", "DELETE"}
FEW, SOME = 4, 8
"""Kill points of one operation that the tests of every change try, and `make soak`; with GEOFIELD_SOAK it tries all."""

pytestmark = pytest.mark.timeout(7200)


class Case:
    """An operation, what it finds, and what it makes when nothing disturbs it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.operation = OPERATIONS[name]
        self.template = folder / "template"
        after = folder / "after"
        work = Work(str(self.template))
        work.location.probe()
        with in_this_thread():
            self.operation.prepare(work)
            shutil.copytree(self.template, after)
            self.before = state(str(self.template))
            self.operation.run(Work(str(after)))
        self.after = state(str(after))
        assert (self.after == self.before) == (name == "compact")  # which moves what stands there, and changes nothing

    def check(self, url: str) -> bool:
        """After a kill; whether the cube had been published."""
        found = state(url)
        wanted = [(self.before.cube, self.before.rows), (self.after.cube, self.before.rows)]
        assert (found.cube, found.rows) in [*wanted, (self.after.cube, self.after.rows)] or self._is_new(found)
        with in_this_thread():
            self.operation.run(Work(url))
        assert state(url) == self.after
        _check_nothing_is_held(url)
        assert state(url) == self.after
        return found.cube == self.after.cube

    def _is_new(self, found: State) -> bool:
        """A box that is being made: no cube, or one without a day."""
        return self.before.cube is None and found.rows == self.before.rows


def _check_nothing_is_held(url: str) -> None:
    work = Work(url)
    if not work.location.is_s3:
        for path in Path(url, ".locks").glob("*.lock"):
            with filelock.FileLock(path, timeout=0):
                pass
    assert list(work.cube.repository.list_branches()) == ["main"]
    if work.location.is_s3:  # it tells whole seconds, and what was written in the second of the bound may stay
        time.sleep(1.01 - time.time() % 1)
    collect(work.cube, dt.timedelta(0))
    assert garbage(work.cube, dt.timedelta(0)) == Freed()


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)


# --- on S3 -----------------------------------------------------------------------------------------------------------


class Killer:
    """Kills a child at its n-th write request, before it is carried out or before it is answered."""

    def __init__(self, child: Child | None, kill_at: int, moment: str) -> None:
        self.child = child
        self.kill_at = kill_at
        self.moment = moment
        self.seen: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._marked = threading.local()

    def before(self, method: str, key: str) -> int | None:
        """Count; refuse what a dead process asks for."""
        self._marked.now = False
        if method not in WRITES:
            return None
        with self._lock:
            self.seen.append((method, key))
            is_it = len(self.seen) == self.kill_at
        if is_it and self.moment == "before":
            self._kill()
            return 503
        self._marked.now = is_it
        return None

    def after(self, method: str, key: str) -> None:
        """The request has been carried out; its answer will not arrive."""
        if self._marked.now:
            self._kill()

    def _kill(self) -> None:
        assert self.child is not None
        self.child.kill()


class Template:
    """The objects of a store, to be put under other prefixes."""

    def __init__(self, folder: Path) -> None:
        self.objects = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.relative_to(folder).parts[0] != ".locks"
        }

    def put(self, url: str) -> str:
        """At a location where nothing is."""
        location = Location.parse(url)
        for key, data in self.objects.items():
            location.write(key, data)
        return url


def kill_on_s3(case: Case, s3: S3Server, bucket: str, number: int) -> None:
    template = Template(case.template)

    def run(kill_at: int, moment: str) -> tuple[Killer, bool, str]:
        url = template.put(f"s3://{bucket}/{uuid.uuid4().hex[:8]}")
        with child_of(case.name, url) as child:
            killer = Killer(child, kill_at, moment)
            with s3.interfering(killer.before), s3.observing(killer.after):
                child.go()
                was_killed = child.was_killed()
        return killer, was_killed, url

    undisturbed, _, url = run(0, "before")
    assert state(url) == case.after
    points = [(kill_at, moment) for kill_at in range(1, len(undisturbed.seen) + 1) for moment in ("before", "after")]
    published = killed = 0
    for kill_at, moment in some(points, number):
        _, was_killed, url = run(kill_at, moment)
        killed += was_killed
        published += case.check(url)
    print(f"{case.name} on S3: {len(points)} kill points, {killed} killed, {published} of them after the swap")
    assert (
        killed >= min(number, len(points)) - 1
    )  # what is sent at once may come in another order, or in one write less


@pytest.mark.s3
@pytest.mark.parametrize("case", ["append"], indirect=True)
def test_killed_at_some_writes_on_s3(case: Case, s3: S3Server, bucket: str) -> None:
    kill_on_s3(case, s3, bucket, FEW)


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.parametrize("case", OPERATIONS, indirect=True)
def test_killed_at_any_write_on_s3(case: Case, s3: S3Server, bucket: str) -> None:
    kill_on_s3(case, s3, bucket, SOME)


def child_of(name: str, url: str, is_watched: bool = False) -> Child:
    return Child(operate, name, url, is_watched=is_watched)


# --- on a directory --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watching() -> None:
    if not can_watch():
        pytest.skip("needs seccomp's user notification: Linux 5.7 or newer on x86-64 or ARM, not inside a sandbox")


def kill_in_a_directory(case: Case, folder: Path, number: int) -> None:
    def run(kill_at: int) -> tuple[Watch, bool, str]:
        root = folder / f"killed-{kill_at}"
        shutil.copytree(case.template, root)
        with child_of(case.name, str(root), is_watched=True) as child:
            watch = Watch(root, kill_at)
            watch.follow(child.go())
            was_killed = child.was_killed()
        return watch, was_killed, str(root)

    undisturbed, _, url = run(0)
    assert state(url) == case.after
    # before each change; after the last one is the state that was just compared
    points = list(range(1, len(undisturbed.seen) + 1))
    published = killed = 0
    for kill_at in some(points, number):
        _, was_killed, url = run(kill_at)
        killed += was_killed
        published += case.check(url)
        shutil.rmtree(url)
    print(f"{case.name} in a directory: {len(points)} kill points, {killed} killed, {published} of them after the swap")
    assert killed >= min(number, len(points)) - 1


@pytest.mark.usefixtures("watching")
@pytest.mark.parametrize("case", ["append"], indirect=True)
def test_killed_at_some_changes_in_a_directory(case: Case, tmp_path: Path) -> None:
    kill_in_a_directory(case, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.usefixtures("watching")
@pytest.mark.parametrize("case", OPERATIONS, indirect=True)
def test_killed_at_any_change_in_a_directory(case: Case, tmp_path: Path) -> None:
    kill_in_a_directory(case, tmp_path, SOME)
