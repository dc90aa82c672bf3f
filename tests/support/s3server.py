"""An S3 server on loopback whose conditional writes are atomic and whose requests are counted.

moto answers the requests; one lock around it closes the gap between its check of a condition and its write. As a
script, `python -m tests.support.s3server --port 0` prints `url <URL>` and serves until it is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from tests.support.journal import Journal

REGION = "us-east-1"
ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")


@dataclass(frozen=True)
class Request:
    """One request, as the server saw it.

    `operation` is the method, with listings told apart from reads of objects: `LIST` is a `GET` of a bucket.
    `key` has no bucket and no leading slash; for a listing it is the prefix asked for.
    """

    method: str
    operation: str
    bucket: str
    key: str
    query: str
    status: int
    bytes_in: int
    bytes_out: int
    condition: str | None = None

    @property
    def is_write(self) -> bool:
        """True when an object may have changed."""
        return self.method in {"PUT", "POST", "DELETE"}


@dataclass
class Counts:
    """The requests seen in a while; safe to read while the server works."""

    requests: list[Request] = field(default_factory=list)

    def add(self, request: Request) -> None:
        """Record a request that has been answered."""
        self.requests.append(request)

    @property
    def total(self) -> int:
        """Number of requests."""
        return len(self.requests)

    @property
    def methods(self) -> Counter[str]:
        """Requests by HTTP method."""
        return Counter(request.method for request in list(self.requests))

    @property
    def operations(self) -> Counter[str]:
        """Requests by operation: the methods, with `LIST` apart from `GET`."""
        return Counter(request.operation for request in list(self.requests))

    @property
    def bytes_in(self) -> int:
        """Bytes of request bodies, towards the server."""
        return sum(request.bytes_in for request in list(self.requests))

    @property
    def bytes_out(self) -> int:
        """Bytes of answers, from the server."""
        return sum(request.bytes_out for request in list(self.requests))

    @property
    def log(self) -> list[tuple[str, str]]:
        """(method, key) of each request, in the order in which they were answered."""
        return [(request.method, request.key) for request in list(self.requests)]

    def keys(self, *operations: str, prefix: str = "") -> list[str]:
        """Keys that the named operations (all of them without a name) touched, in order, below `prefix`."""
        return [
            request.key
            for request in list(self.requests)
            if (not operations or request.operation in operations) and request.key.startswith(prefix)
        ]


#: Sees a request before it is carried out, outside the lock, so it may block; a returned status is answered instead.
Interference = Callable[[str, str], int | None]


class S3Server:
    """moto's S3 in a threaded server of this process, on a free loopback port unless one is given.

    States: made, started (`start` or `with`), stopped. What was stored is gone when it stops, unless there is a
    journal: the next server with the same one begins with what this one had answered.
    """

    def __init__(self, port: int = 0, journal: Path | None = None) -> None:
        self.conditional_writes = True
        self._port = port
        self._app = create_backend_app("s3")
        self._journal = None if journal is None else Journal(journal, partial(_call, self._app))
        self._serving = threading.Lock()
        self._recording = threading.Lock()
        self._counts: list[Counts] = []
        self._interferences: list[Interference] = []
        self._observers: list[Callable[[str, str], object]] = []
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self) -> S3Server:
        """Listen, and return at once."""
        self._server = make_server("127.0.0.1", self._port, self._answer, threaded=True, request_handler=_Handler)
        # connections still open when the session ends must not hold up the process
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._server.block_on_close = False  # type: ignore[attr-defined]
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="s3server", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None

    def __enter__(self) -> S3Server:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # --- where it is -----------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which AWS tools, Icechunk, deltalake and GDAL find this server."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            # GDAL's own names for the same things
            "AWS_S3_ENDPOINT": f"127.0.0.1:{self._port}",
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }

    def client(self) -> Any:
        """A boto3 client of this server that never tries again."""
        return boto3.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=40, s3={"addressing_style": "path"}),
        )

    def create_bucket(self, name: str | None = None) -> str:
        """Make a bucket, with a name nobody else has unless one is given; returns the name."""
        name = name or f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    # --- what tests do to it ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count the requests answered while the block runs. Blocks may nest and overlap."""
        counts = Counts()
        with self._recording:
            self._counts.append(counts)
        try:
            yield counts
        finally:
            with self._recording:
                # by identity: two lists of the same requests are equal
                self._counts = [other for other in self._counts if other is not counts]

    @contextlib.contextmanager
    def interfering(self, interference: Interference) -> Iterator[None]:
        """Call `interference(method, key)` before each request while the block runs.

        It runs outside the lock, so it may wait for another request. A status it returns is answered at once and the
        request is not carried out; None lets it pass.
        """
        self._interferences.append(interference)
        try:
            yield
        finally:
            self._interferences.remove(interference)

    @contextlib.contextmanager
    def observing(self, observer: Callable[[str, str], object]) -> Iterator[None]:
        """Call `observer(method, key)` after each request was carried out and before it is answered.

        It runs in the thread that called the interferences, and not after a refusal.
        """
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)

    @contextlib.contextmanager
    def ignoring_conditions(self) -> Iterator[None]:
        """Behave like a server that takes `If-None-Match` and `If-Match` on a write and does not look at them."""
        self.conditional_writes = False
        try:
            yield
        finally:
            self.conditional_writes = True

    # --- one request -----------------------------------------------------------------------------------------------

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = _read_body(environ)
        method = environ["REQUEST_METHOD"]
        bucket, _, key = environ["PATH_INFO"].encode("latin-1").decode().lstrip("/").partition("/")
        condition = next((name for name in CONDITIONS if name in environ), None)
        if not self.conditional_writes and method in {"PUT", "POST", "DELETE"}:
            for name in CONDITIONS:
                environ.pop(name, None)
        for interference in list(self._interferences):
            refusal = interference(method, key)
            if refusal is not None:
                status, headers, content = _refusal(refusal)
                break
        else:
            with self._serving:
                status, headers, content = _call(self._app, environ)
                if self._journal is not None:
                    self._journal.note(environ, body, status)
            for observer in list(self._observers):
                observer(method, key)
        start_response(status, headers)
        self._record(
            Request(
                method=method,
                operation="LIST" if method == "GET" and not key else method,
                bucket=bucket,
                key=key or _prefix(environ.get("QUERY_STRING", "")),
                query=environ.get("QUERY_STRING", ""),
                status=int(status.split()[0]),
                bytes_in=len(body),
                bytes_out=len(content),
                condition=condition and condition.removeprefix("HTTP_").replace("_", "-").title(),
            )
        )
        return [content]

    def _record(self, request: Request) -> None:
        with self._recording:
            for counts in self._counts:
                counts.add(request)


class _Handler(MotoRequestHandler):
    """Silent, and without Nagle's delay on small answers (40 ms each with delayed acknowledgements)."""

    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing: the counts tell what was asked."""


Headers = list[tuple[str, str]]


def _read_body(environ: WSGIEnvironment) -> bytes:
    """Take the whole body off the socket before the lock, so that a slow sender stops nobody else."""
    length = environ.get("CONTENT_LENGTH")
    if environ.get("wsgi.input_terminated"):
        body = environ["wsgi.input"].read()
    else:
        body = environ["wsgi.input"].read(int(length)) if length else b""
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input_terminated"] = True
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return bytes(body)


def _call(app: Any, environ: WSGIEnvironment) -> tuple[str, Headers, bytes]:
    """Run a WSGI application to the end of its answer."""
    answer: list[tuple[str, Headers]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
        answer.append((status, headers))
        return written.append

    parts = app(environ, start_response)
    try:
        written.extend(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return (*answer[-1], b"".join(written))


def _refusal(status: int) -> tuple[str, Headers, bytes]:
    code = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 503: "SlowDown"}.get(
        status, "InternalError"
    )
    content = f"<Error><Code>{code}</Code><Message>refused by the test</Message></Error>".encode()
    return f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))], content


def _prefix(query: str) -> str:
    return parse_qs(query).get("prefix", [""])[0]


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--journal", type=Path, help="a file: what was stored comes back with the next server")
    parser.add_argument("--bucket", action="append", default=[], help="a bucket to make; may be given again")
    arguments = parser.parse_args()
    with S3Server(arguments.port, arguments.journal) as server:
        for bucket in arguments.bucket:
            server.create_bucket(bucket)
        print(f"url {server.url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
