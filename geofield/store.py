"""A location: a directory or an S3 prefix, with its plain objects, Icechunk repositories and Delta tables.

With `s3` below it this is all that knows S3. Credentials come from the environment or the usual AWS files, on every
process by itself: a location carries none, so it can travel in a pickle or a Dask graph.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from geofield.errors import ConfigurationError
from geofield.filesystem import ALLOW_OPTION, check_filesystem, check_writable, directory_lock
from geofield.objects import Directory, ObjectInfo, Objects, Standing
from geofield.probe import SWAPS, probe_directory, probe_s3
from geofield.s3 import S3Prefix

if TYPE_CHECKING:
    import icechunk

_ALLOWED = frozenset({"endpoint_url", "region", "anonymous", ALLOW_OPTION})
_SECRET = ("key", "secret", "token", "password")


@dataclass(frozen=True)
class Location:
    """Where a store lies: `path` or `s3://bucket/prefix`.

    Parameters
    ----------
    url
        A directory, or `s3://bucket/prefix`.
    options
        `endpoint_url`, `region`, `anonymous` (default: the AWS variables), `allow_network_filesystem`. No credentials.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Location:
        """A location from what a user typed; a relative path becomes absolute."""
        text = os.fspath(url)
        options = dict(options or {})
        for name in options:
            if name not in _ALLOWED:
                reason = (
                    "Credentials are taken from the environment or the AWS files only, so that they never travel with "
                    "a task."
                    if any(part in name.lower() for part in _SECRET)
                    else f"Known options: {', '.join(sorted(_ALLOWED))}."
                )
                raise ConfigurationError(f"Storage option {name!r} is not taken. {reason}")
        if "://" not in text:
            return cls(str(_absolute(Path(text).expanduser())), options)
        parts = urlsplit(text)
        if parts.scheme == "file":
            return cls(str(_absolute(Path(parts.path))), options)
        if parts.scheme != "s3" or not parts.netloc:
            raise ConfigurationError(f"{text!r} is no store: give a directory or s3://bucket/prefix.")
        return cls(f"s3://{parts.netloc}/{parts.path.strip('/')}".rstrip("/"), options)

    @property
    def is_s3(self) -> bool:
        """True for an S3 prefix, False for a directory."""
        return self.url.startswith("s3://")

    # --- plain objects ---------------------------------------------------------------------------------------------

    def read(self, key: str) -> bytes:
        """The bytes of an object; `NotFoundError` when there is none."""
        return self._objects.read(key)

    def write(self, key: str, data: bytes) -> None:
        """Put an object, all or nothing, replacing what was there."""
        self._objects.write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Put an object unless one is there; True when this call put it."""
        return self._objects.create(key, data)

    def look(self, key: str) -> Standing:
        """What stands at a key, and the tag by which `replace` knows it again."""
        return self._objects.look(key)

    def replace(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Put an object where what stands has this tag (None: nothing); the new tag, None when something else stands.

        One step on S3. On a directory hold a lock.
        """
        return self._objects.replace(key, data, tag)

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders right below the folder `prefix` that hold something, sorted."""
        return self._objects.folders(prefix.strip("/"))

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object whose key begins with the folder `prefix`, sorted by key."""
        return self._objects.list(prefix.strip("/"))

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""
        self._objects.delete(key)

    def exists(self, key: str) -> bool:
        """True when there is an object at `key`."""
        return any(info.key == key for info in self._objects.list(key))

    def move(self, source: str, target: str) -> None:
        """Copy, then remove: at every moment the bytes are at one of both keys at least."""
        self.write(target, self.read(source))
        self.delete(source)

    def probe(self, swaps: int = SWAPS) -> None:
        """Check the guarantee that every commit relies on: `UnsafeStoreError` names the missing one.

        Parameters
        ----------
        swaps
            By each of the writers that meet on S3; more of them find a server that fails less often.
        """
        objects = self._objects
        if isinstance(objects, S3Prefix):
            probe_s3(objects, swaps)
        elif isinstance(objects, Directory):
            check_filesystem(Path(self.url), allowed=bool(self.options.get(ALLOW_OPTION)))
            probe_directory(objects)

    def check_writable(self, *keys: str) -> None:
        """`AccessError` where this user may not make files below one of these folders. S3 says so when it is asked."""
        if not self.is_s3:
            for key in keys:
                check_writable(Path(self.url) / key)

    # --- cubes and tables ------------------------------------------------------------------------------------------

    def icechunk_storage(self, key: str) -> icechunk.Storage:
        """The Icechunk storage of a repository below this location."""
        import icechunk

        if not self.is_s3:
            return icechunk.local_filesystem_storage(str(Path(self.url) / key))
        bucket, prefix = _bucket_and_prefix(self.url)
        endpoint = self._endpoint
        return icechunk.s3_storage(
            bucket=bucket,
            prefix=f"{prefix}/{key}".strip("/"),
            region=self._region,
            endpoint_url=endpoint,
            allow_http=bool(endpoint and endpoint.startswith("http://")),
            force_path_style=endpoint is not None,
            # static keys would travel in every pickled session; each process looks them up by itself instead
            from_env=None if self.options.get("anonymous") else True,
            anonymous=self.options.get("anonymous") or None,
        )

    def table_uri(self, key: str) -> str:
        """The URI of a Delta table below this location."""
        return f"{self.url}/{key}"

    def table_options(self) -> dict[str, str]:
        """`storage_options` for deltalake; no credentials in it."""
        if not self.is_s3:
            return {}
        options = {"AWS_REGION": self._region}
        endpoint = self._endpoint
        if endpoint:
            options["AWS_ENDPOINT_URL"] = endpoint
            options["AWS_ALLOW_HTTP"] = str(endpoint.startswith("http://")).lower()
        if self.options.get("anonymous"):
            options["AWS_SKIP_SIGNATURE"] = "true"
        return options

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the operating system's lock `name`: a directory has no compare-and-swap of its own.

        The system releases it when the process dies. On S3 nothing is held: conditional writes decide.
        """
        if self.is_s3:
            yield
            return
        with directory_lock(Path(self.url), name, allowed=bool(self.options.get(ALLOW_OPTION))):
            yield

    @property
    def _endpoint(self) -> str | None:
        asked = self.options.get("endpoint_url")
        found = asked or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
        if found and not re.match(r"https?://[^/]", found):
            raise ConfigurationError(
                f"The endpoint {found!r} is no address of a server: it begins with http:// or https:// (endpoint_url, "
                "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL)."
            )
        return found

    @property
    def _region(self) -> str:
        asked = self.options.get("region")
        return asked or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    @property
    def _objects(self) -> Objects:
        if not self.is_s3:
            return Directory(Path(self.url))
        return S3Prefix(
            *_bucket_and_prefix(self.url), self._endpoint, self._region, bool(self.options.get("anonymous"))
        )


def _absolute(path: Path) -> Path:
    """The path from the root on, without `..`; links that no `..` goes back over stay as they were typed."""
    parts = path.absolute().parts
    if ".." not in parts:
        return Path(*parts)
    end = len(parts) - parts[::-1].index("..")
    return Path(*parts[:end]).resolve().joinpath(*parts[end:])


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, prefix
