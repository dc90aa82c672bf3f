"""A clock that tests move, receipts made by hand, and a place on loopback that takes notifications."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class FakeClock:
    """Time passes only where somebody waits."""

    def __init__(self, now: str) -> None:
        self.time = dt.datetime.fromisoformat(now)
        self.waits: list[float] = []
        self.is_interrupted = False

    def now(self) -> dt.datetime:
        return self.time

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        if not self.is_interrupted:
            self.time += dt.timedelta(seconds=seconds)

    def interrupt(self) -> None:
        self.is_interrupted = True


def a_box(**changes: Any) -> dict[str, Any]:
    """What a receipt says of a box that got one day."""
    late = {"fields": 0, "field_days": 0, "source_reads": 0, "box_tasks": 0, "cube_bytes_read": 0}
    value = {
        "days_appended": 1, "days_amended": 0, "days_present": 9, "source_reads": 6, "source_bytes": 1000,
        "cube_objects_written": 4, "cube_bytes_read": 0, "rows_written": 3, "rows_removed": 0, "late": late,
        "seconds": {"append": 2.5, "late": 0.0}, "first_day_appended": "2026-11-20", "last_day": "2026-11-20",
    }  # fmt: skip
    return value | changes


def a_receipt(run: str = "20261121T060000Z-0000aaaa", **changes: Any) -> dict[str, Any]:
    """A run of ten seconds with one box `b`."""
    value = {
        "run_id": run, "version": "0", "started": "2026-11-21T06:00:00.000+00:00",
        "finished": "2026-11-21T06:00:10.000+00:00", "until": "2026-11-20", "cluster": "threads",
        "boxes": {"b": a_box()}, "retries": 0, "errors": [], "rejected": [], "notices": [],
        "inbox": {"files_accepted": 0, "files_rejected": 0, "rows_accepted": 0, "rows_rejected": 0},
    }  # fmt: skip
    return value | changes


def an_error(
    kind: str = "source_unavailable", box: str | None = "b", date: str | None = "2026-11-20"
) -> dict[str, Any]:
    return {"box": box, "date": date, "kind": kind, "message": f"what happened: {kind}"}


class Webhook:
    """What arrived, and the status that is answered."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        self.port = 0

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/hook-0123456789abcdef"


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A receiver of JSON on a free port of loopback."""
    held = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if held.status == 200:
                held.got.append(json.loads(body))
            self.send_response(held.status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Webhook]:
    with webhook() as held:
        yield held
