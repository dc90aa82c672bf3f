"""A proxy on loopback in front of an S3 server that answers wrongly, late, half or not at all, by a seeded plan."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KINDS = ("500", "503", "cut", "refused", "lost", "delay")
"""Answered with an error, twice; a body cut in the middle; dropped before it is forwarded; carried out and the answer
lost; late."""

_CODES = {"500": (500, "InternalError"), "503": (503, "SlowDown")}
_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length"))


@dataclass
class Plan:
    """Which requests go wrong, and how.

    Attributes
    ----------
    share
        Of the requests, how many begin a spell of faults.
    longest
        A spell lasts from one request to so many: what a client that tries again meets.
    kinds
        Which faults there are.
    """

    seed: int
    share: float
    longest: int = 1
    kinds: tuple[str, ...] = KINDS
    given: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._left = 0
        self._lock = threading.Lock()

    def next(self) -> str:
        """What becomes of the next request; an empty text: nothing."""
        with self._lock:
            if not self._left and self._random.random() < self.share:
                self._left = self._random.randint(1, self.longest)
            if not self._left:
                return ""
            self._left -= 1
            kind = self._random.choice(self.kinds)
            self.given[kind] += 1
            return kind


class FaultProxy:
    """Forwards to an S3 server; misbehaves while `failing` says so.

    Parameters
    ----------
    backend
        URL of the server.
    """

    def __init__(self, backend: str) -> None:
        parts = urlsplit(backend)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.plan: Plan | None = None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def failing(self, plan: Plan) -> Iterator[Plan]:
        """Go by a plan while the block runs."""
        self.plan = plan
        try:
            yield plan
        finally:
            self.plan = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    proxy: FaultProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._backend = http.client.HTTPConnection(self.server.proxy.host, self.server.proxy.port, timeout=60)

    def finish(self) -> None:
        self._backend.close()
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the plan counts."""

    def _answer(self) -> None:
        body = self._body()
        plan = self.server.proxy.plan
        fault = plan.next() if plan is not None else ""
        if fault == "refused":
            return self._drop()
        if fault in _CODES:
            status, code = _CODES[fault]
            content = f"<Error><Code>{code}</Code><Message>fault</Message></Error>".encode()
            return self._send(status, [("Content-Type", "application/xml")], content, len(content))
        status, headers, content, length = self._forward(body)
        if fault == "lost":
            return self._drop()
        if fault == "delay":
            time.sleep(0.2)
        if fault == "cut":
            self._send(status, headers, content[: len(content) // 2], length)
            return self._drop()
        return self._send(status, headers, content, length)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes, int]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP | {"expect"}}
        headers["Content-Length"] = str(len(body))
        self._backend.request(self.command, self.path, body, headers)
        answer = self._backend.getresponse()
        content = answer.read()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        # the answer to a HEAD tells the length of what it does not hold
        return answer.status, kept, content, int(answer.getheader("Content-Length") or len(content))

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes, length: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
