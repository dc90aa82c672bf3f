"""What an S3 server was asked to change, kept on disk so that a killed one comes back with all that it had answered.

A change is noted after it was made and before it is answered, under the server's lock. A server that dies in between
has not made it: nobody was told. The system keeps what a killed process has written, so no write is forced to the disk.
Uploads in parts are noted when they are complete, as one write; unfinished ones die with the server. After a return
every object's time of change is that of the return.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Answer = tuple[str, Any, bytes]
_CHANGES = frozenset(("PUT", "POST", "DELETE"))
_KEPT = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SCRIPT_NAME", "CONTENT_TYPE", "SERVER_NAME", "SERVER_PORT",
         "SERVER_PROTOCOL", "REMOTE_ADDR", "REQUEST_URI", "RAW_URI", "wsgi.url_scheme")  # fmt: skip


class Journal:
    """Requests in one file, in the order in which they were carried out."""

    def __init__(self, path: Path, call: Callable[[dict[str, Any]], Answer]) -> None:
        self._call = call
        for request, body in _read(path):
            call(_environ(request, body))
        self._file = path.open("ab", buffering=0)

    def note(self, environ: dict[str, Any], body: bytes, status: str) -> None:
        """Keep a request that changed something."""
        if environ["REQUEST_METHOD"] not in _CHANGES or not status.startswith("2"):
            return
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        request = {
            name: value for name, value in environ.items() if name in _KEPT or name.startswith("HTTP_")
        }  # of text, all of them
        if "uploads" in query:
            return
        if "uploadId" in query:
            if environ["REQUEST_METHOD"] != "POST":
                return
            # the whole object, as if it had come in one piece: the id of an upload means nothing to another process
            plain = {name: value for name, value in request.items() if name not in ("QUERY_STRING", "CONTENT_TYPE")}
            body = self._call(_environ({**plain, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}, b""))[2]
            request = {**plain, "REQUEST_METHOD": "PUT", "QUERY_STRING": ""}
        self._file.write(pickle.dumps((request, body)))


def _read(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except (EOFError, pickle.UnpicklingError):  # the last one was cut: it was never answered
                return


def _environ(request: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {
        **request,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
