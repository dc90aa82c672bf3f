"""A server of S3 that others wrote: versitygw over a folder, in a process of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

VERSION = "v1.8.0"
ACCESS_KEY, SECRET_KEY = "gateway-access-key", "gateway-secret-key"


class Gateway:
    """Serves a folder on loopback from `with` to its end.

    Parameters
    ----------
    folder
        Empty, on a file system with extended attributes.
    sidecar
        ETags lie in files of their own: then a read may meet those of another write.
    """

    def __init__(self, program: str, folder: Path, *, sidecar: bool = False) -> None:
        self.program, self.folder = program, folder
        self.options = ["--sidecar", str(folder / "sidecar")] if sidecar else []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @staticmethod
    def program_or_none() -> str | None:
        """Where versitygw is installed; None when it is not."""
        return shutil.which("versitygw") or shutil.which(str(Path.home() / "go/bin/versitygw"))

    @property
    def environment(self) -> dict[str, str]:
        """By which AWS tools find it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> Gateway:
        for name in ("objects", "sidecar"):
            (self.folder / name).mkdir()
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self.program, "--port", f"127.0.0.1:{self.port}", "--quiet", "posix", *self.options,
                 str(self.folder / "objects")],
                env={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY, "HOME": str(self.folder)},
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if time.monotonic() > end or self._process.poll() is not None:
                    self.__exit__()
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
