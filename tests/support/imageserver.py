"""A server of files on loopback that knows ranges, counts bytes, and fails as it is told.

Files are below `/files`; everything else is passed on to a STAC API, so that its answers can fail too.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FILES = "/files"


@dataclass(frozen=True)
class Served:
    """One answer that was given."""

    method: str
    path: str
    status: int
    bytes: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass
class Fault:
    """What goes wrong: `status` is answered instead, or the connection is cut after `cut` bytes of the body.

    Of the requests whose path holds `where`, `after` are answered, then `times` fail, then all is well. Without status
    and cut there is no answer at all, as from a server that has lost its power.
    """

    where: str = ""
    status: int | None = None
    cut: int | None = None
    after: int = 0
    times: int = 1_000_000
    retry_after: str | None = None

    @property
    def is_dead(self) -> bool:
        """No answer at all."""
        return self.status is None and self.cut is None

    def meets(self, path: str) -> bool:
        """Whether this request fails; counts it."""
        if self.where not in path or self.times < 1:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True


@dataclass
class ImageServer:
    """Files of a folder over HTTP. Use it as a context."""

    folder: Path
    upstream: str | None = None
    served: list[Served] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __enter__(self) -> ImageServer:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Of the folder."""
        return f"{self.api}{FILES}"

    @property
    def api(self) -> str:
        """Of the STAC API behind it."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def requests(self, where: str = "") -> list[Served]:
        """The answers so far whose path holds `where`."""
        return [one for one in list(self.served) if where in one.path]

    @contextlib.contextmanager
    def failing(self, *faults: Fault) -> Iterator[None]:
        """Fail so inside the block."""
        self.faults[:] = faults
        try:
            yield
        finally:
            self.faults.clear()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: ImageServer


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self, with_body: bool = True) -> None:
        owner = self.server.owner
        received = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = next((one for one in owner.faults if one.meets(self.path)), None)
        if fault is not None and fault.is_dead:
            self._hang_up()
            return
        if fault is not None and fault.status is not None:
            status, headers, body = fault.status, {"Content-Type": "text/plain"}, b"sorry"
            if fault.retry_after is not None:
                headers["Retry-After"] = fault.retry_after
        elif owner.upstream and not self.path.startswith(FILES):
            status, headers, body = self._passed_on(owner.upstream, received)
        else:
            status, headers, body = self._file(owner.folder)
        sent = body if with_body else b""
        if fault is not None and fault.cut is not None:
            sent = sent[: fault.cut]
        owner.served.append(Served(self.command, self.path, status, len(sent), dict(self.headers), received))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # whoever asked has gone
            self.wfile.write(sent)
        if len(sent) < len(body) and with_body:
            self.wfile.flush()
            self._hang_up()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _file(self, folder: Path) -> tuple[int, dict[str, str], bytes]:
        path = folder / self.path.removeprefix(FILES).lstrip("/").partition("?")[0]
        if not path.is_file():
            return 404, {}, b"no such file"
        data = path.read_bytes()
        headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return 200, headers, data
        first = int(asked[1])
        part = data[first : int(asked[2]) + 1 if asked[2] else None]
        return 206, {**headers, "Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"}, part

    def _passed_on(self, upstream: str, received: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(upstream)
        kind = {"Content-Type": self.headers["Content-Type"]} if "Content-Type" in self.headers else {}
        connection.request(self.command, self.path, received, kind)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {"Content-Type": answer.getheader("Content-Type", "")}, body

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def stac_api(folder: Path, items: list[dict[str, Any]]) -> Iterator[ImageServer]:
    """A STAC API (rustac, which keeps items in memory) over some items, behind an `ImageServer` of a folder.

    Addresses of assets in `items` may begin with `{server}`, the URL of the folder.
    """
    with ImageServer(folder) as server:
        text = json.dumps({"type": "FeatureCollection", "features": items}).replace("{server}", server.url)
        path = folder / "items-of-the-api.json"
        path.write_text(text)
        port = _free_port()
        server.upstream = f"127.0.0.1:{port}"
        command = [str(Path(sysconfig.get_path("scripts")) / "rustac"), "serve", "--create-collections"]
        process = subprocess.Popen(
            [*command, "--addr", server.api, "--bind", server.upstream, str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            _wait_until(lambda: _listens(port), process)
            yield server
        finally:
            process.terminate()
            process.communicate()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    clock = threading.Event()
    for _ in range(1000):
        if process.poll() is not None:
            assert process.stdout is not None
            raise RuntimeError(f"the STAC API did not start: {process.stdout.read()}")
        if ready():
            return
        clock.wait(0.02)
    raise TimeoutError("the STAC API did not start")
