"""An S3 server in a process of its own, and what work costs on it.

In the process of the contenders it would hold up whoever computes in Python, since both need the interpreter.
`python -m benchmarks.server` is the server's side: a line of JSON for each line that it is told.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cost:
    """Requests by operation, bytes of bodies, seconds; `beside` are the bytes both ways of all that is no shard."""

    operations: Counter[str]
    up: int
    down: int
    beside: int
    seconds: float

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.operations.values())


class Server:
    """The server, with a clock and a delay before each answer."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.environment: dict[str, str] = self._ask("environment")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def create_bucket(self) -> str:
        """Its name."""
        return str(self._ask("bucket"))

    @property
    def delay(self) -> float:
        """Seconds before each answer."""
        return float(self._ask("delayed"))

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._ask(f"delay {seconds}")

    def measure(self, work: Callable[[], object]) -> Cost:
        """Do it once."""
        self._ask("count")
        begin = time.perf_counter()
        work()
        seconds = time.perf_counter() - begin
        found = self._ask("counted")
        return Cost(Counter(found["operations"]), found["up"], found["down"], found["beside"], seconds)

    def _ask(self, line: str) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{line}\n")
        stdin.flush()
        return json.loads(stdout.readline())


# --- the server's side -----------------------------------------------------------------------------------------------


def _is_shard(key: str, size: int) -> bool:
    """Objects of pixels are large here; digests and items may have small objects of their own."""
    return any(place in key for place in ("/chunks/", "/c/")) and size > 8192


def _counted(requests: Sequence[Any]) -> dict[str, Any]:
    return {
        "operations": Counter(one.operation for one in requests),
        "up": sum(one.bytes_in for one in requests),
        "down": sum(one.bytes_out for one in requests),
        "beside": sum(
            one.bytes_in + one.bytes_out for one in requests if not _is_shard(one.key, one.bytes_in + one.bytes_out)
        ),
    }


def _serve() -> None:
    """Until there are no more lines."""
    from tests.support.s3server import S3Server

    delay = 0.0
    with (
        S3Server() as server,
        server.interfering(lambda method, key: time.sleep(delay)),
        contextlib.ExitStack() as stack,
    ):
        counts = None
        for line in sys.stdin:
            said, _, value = line.strip().partition(" ")
            answer: Any = None
            if said == "environment":
                answer = server.environment
            elif said == "bucket":
                answer = server.create_bucket()
            elif said == "delay":
                delay = float(value)
            elif said == "delayed":
                answer = delay
            elif said == "count":
                counts = stack.enter_context(server.counting())
            elif said == "counted" and counts is not None:
                answer = _counted(counts.requests)
                stack.close()
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
