"""A run under which a worker, the scheduler, the runner and the S3 server are killed in turn.

Every one of them is a process of its own and dies of SIGKILL in the middle of a run; it is started again at once, as
whatever watches over it would, and so is the run. The store ends as one that nothing disturbed. The S3 server is that
of the tests with a journal on disk: a killed one comes back with every change that it had answered.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import geofield
from orchestrate import run
from orchestrate.inbox import submit
from tests.support.s3server import S3Server
from tests.support.smallstore import box, day, feature, make_store, write_fields
from tests.test_histories import assert_same

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "site"
PATIENCE_S = 120
DAYS = 24
"""Days that are missing when something is killed: three windows of an append in each box."""

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Site:
    """An S3 server, a scheduler and two workers, each a process; runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"s3": free_port(), "scheduler": free_port()}
        self.journal = folder / "journal"
        own = S3Server(self.ports["s3"])
        self.environment = {
            **os.environ,
            **own.environment,
            "PYTHONPATH": str(ROOT),
            "GEOFIELD_RETRIES": "2",
            "GEOFIELD_RETRY_WAIT_S": "0.2",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
        }
        self.alive: dict[str, subprocess.Popen[str]] = {}
        self.logs = 0

    def start(self, *names: str) -> None:
        """Start what is named, and wait until it listens."""
        for name in names:
            self.alive[name] = self.spawn(*self._commands(name))
            if name in self.ports:
                self._wait(partial(self._listens, self.ports[name]), f"{name} to listen")

    def spawn(self, *command: str) -> subprocess.Popen[str]:
        self.logs += 1
        with (self.folder / f"{self.logs:03}.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, *command], env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=log,
                text=True,
            )  # fmt: skip

    def _commands(self, name: str) -> list[str]:
        scheduler = f"tcp://127.0.0.1:{self.ports['scheduler']}"
        if name == "s3":
            return ["-m", "tests.support.s3server", "--port", str(self.ports["s3"]), "--journal", str(self.journal)]
        if name == "scheduler":
            port = str(self.ports["scheduler"])
            return ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
        return ["-m", "distributed.cli.dask_worker", scheduler, "--no-nanny", "--nthreads", "1", "--no-dashboard",
                "--local-directory", str(self.folder)]  # fmt: skip

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        process = self.alive.pop(name)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == -signal.SIGKILL

    def begin_run(self, url: str, last: int) -> subprocess.Popen[str]:
        """A run as somebody would start it."""
        scheduler = f"tcp://127.0.0.1:{self.ports['scheduler']}"
        return self.spawn(
            "-m", "orchestrate.cli", "run", url, "--until", str(day(last)), "--cluster", scheduler, "--json"
        )

    def wait_for_writes(self, since: int, running: subprocess.Popen[str]) -> None:
        """Until the server has been told to change something anew, so that the run is in the middle of its work."""
        self._wait(lambda: self.journal.stat().st_size > since, "a write")
        assert running.poll() is None, "the run was over before anything could be killed"

    def stop(self) -> None:
        for process in self.alive.values():
            process.kill()
            process.communicate()

    @staticmethod
    def _listens(port: int) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    def _wait(self, is_true: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < end, f"waited in vain for {what}"
            time.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with ExitStack() as stack:
        site = Site(tmp_path)
        stack.callback(site.stop)
        site.start("s3")
        for name, value in S3Server(site.ports["s3"]).environment.items():
            monkeypatch.setenv(name, value)
        S3Server(site.ports["s3"]).create_bucket(BUCKET)
        site.start("scheduler", "worker-0", "worker-1")
        yield site


def fill(store: geofield.Store, folder: Path) -> None:
    shapes = [feature(f"F{n}", 30 * n, 25 * n, 90, planting_date=str(day(1 + 2 * n))) for n in range(8)]
    submit(store, [write_fields(folder / "f.geojson", *shapes)])


def finish(site: Site, running: subprocess.Popen[str]) -> tuple[int, Any]:
    text, _ = running.communicate(timeout=PATIENCE_S)
    return running.returncode, json.loads(text) if text.strip() else None


def test_worker_scheduler_runner_and_server_are_killed_in_turn(site: Site) -> None:
    names = ["a", "b"]
    boxes = [
        box(name, source={"type": "simulated", "seed": n, "revisit": 2, "phase": 0}) for n, name in enumerate(names)
    ]
    undisturbed = make_store(str(site.folder / "undisturbed"), *boxes)
    fill(undisturbed, site.folder)
    assert run(undisturbed, day(DAYS * 4))["errors"] == []

    store = make_store(f"s3://{BUCKET}/store", *boxes)
    fill(store, site.folder)
    told = []
    for number, victim in enumerate(["worker-0", "scheduler", "runner", "s3"], 1):
        size = site.journal.stat().st_size
        running = site.begin_run(store.url, DAYS * number)
        site.wait_for_writes(size + 20_000, running)
        if victim == "runner":
            running.kill()
        else:
            site.kill(victim)
            site.start(victim)
        if victim == "scheduler":  # its workers give up when they see that it is gone; others take their places
            for name in ("worker-0", "worker-1"):
                site.alive.pop(name).communicate(timeout=PATIENCE_S)
                site.start(name)
        status, receipt = finish(site, running)
        told.append((victim, status, [] if receipt is None else [one["kind"] for one in receipt["errors"]]))
        status, receipt = finish(site, site.begin_run(store.url, DAYS * number))  # at once
        assert (status, receipt["errors"]) == (0, []), (told, receipt["errors"])
    print(told)
    assert told[2][1] == -signal.SIGKILL
    assert_same(geofield.open_store(store.url), undisturbed, names)
    quiet, receipt = finish(site, site.begin_run(store.url, DAYS * 4))
    assert quiet == 0
    assert all(one["days_appended"] == one["rows_written"] == 0 for one in receipt["boxes"].values())
