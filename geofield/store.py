"""A location: a directory or an S3 prefix, with its plain objects, Icechunk repositories and Delta tables.

This is the only module that knows S3. Credentials come from the environment or the usual AWS files, on every process
by itself: a location carries none, so it can travel in a pickle or a Dask graph.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from geofield.errors import (
    AccessError,
    ConfigurationError,
    GeofieldError,
    NotFoundError,
    StoreUnavailableError,
    UnsafeStoreError,
    unanswered,
)
from geofield.filesystem import ALLOW_OPTION, check_filesystem, directory_lock

if TYPE_CHECKING:
    import icechunk

_ALLOWED = frozenset({"endpoint_url", "region", "anonymous", ALLOW_OPTION})
_PROBES = 3
_SECRET = ("key", "secret", "token", "password")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a location: its key below the location, size in bytes, and when it was last written (UTC).

    Attributes
    ----------
    etag
        Another one whenever the object was written again: S3's own, or what a directory's rename changes.
    """

    key: str
    size: int
    modified: dt.datetime
    etag: str = ""


class _Objects(Protocol):
    def read(self, key: str) -> bytes: ...
    def write(self, key: str, data: bytes) -> None: ...
    def create(self, key: str, data: bytes) -> bool: ...
    def list(self, prefix: str) -> list[ObjectInfo]: ...
    def delete(self, key: str) -> None: ...
    def probe(self) -> None: ...


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
            return cls(str(Path(text).expanduser().absolute()), options)
        parts = urlsplit(text)
        if parts.scheme == "file":
            return cls(str(Path(parts.path)), options)
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

    def probe(self) -> None:
        """Check the guarantee that every commit relies on: `UnsafeStoreError` names the missing one."""
        if not self.is_s3:
            check_filesystem(Path(self.url), allowed=bool(self.options.get(ALLOW_OPTION)))
        self._objects.probe()

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
        return asked or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None

    @property
    def _region(self) -> str:
        asked = self.options.get("region")
        return asked or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    @property
    def _objects(self) -> _Objects:
        if not self.is_s3:
            return _Directory(Path(self.url))
        return _S3Prefix(
            *_bucket_and_prefix(self.url), self._endpoint, self._region, bool(self.options.get("anonymous"))
        )


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, prefix


@dataclass(frozen=True, slots=True)
class _Directory:
    root: Path

    def _path(self, key: str) -> Path:
        path = (self.root / key).absolute()
        if ".." in path.parts or not path.is_relative_to(self.root):
            raise ConfigurationError(f"{key!r} is no key: it leaves the store.")
        return path

    def read(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFoundError(f"There is no object {key!r} in {self.root}.") from error

    def _temporary(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
        temporary.write_bytes(data)
        return temporary

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        self._temporary(path, data).replace(path)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        temporary = self._temporary(path, data)
        try:
            os.link(temporary, path)  # fails when the target exists: the one atomic create of a whole file
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def list(self, prefix: str) -> list[ObjectInfo]:
        path = self._path(prefix)
        if path.is_file():
            files = [path]
        else:
            files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
        found = []
        for file in files:
            if file.name.startswith(".") and file.name.endswith(".tmp"):
                continue
            with contextlib.suppress(FileNotFoundError):  # removed since the directory was read
                stat = file.stat()
                modified = dt.datetime.fromtimestamp(stat.st_mtime, dt.UTC)
                etag = f"{stat.st_mtime_ns:x}-{stat.st_size:x}-{stat.st_ino:x}"
                found.append(ObjectInfo(file.relative_to(self.root).as_posix(), stat.st_size, modified, etag))
        return sorted(found, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def probe(self) -> None:
        """A directory: one file created, once only."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            key = f".probe-{uuid.uuid4().hex}"
            try:
                once, twice = self.create(key, b"1"), self.create(key, b"2")
            finally:
                self.delete(key)
        except OSError as error:
            raise UnsafeStoreError(
                f"Cannot write in {self.root} as a store has to: {error}. Give a directory on a local disk that this "
                "user may write and that has hard links."
            ) from error
        if not once or twice:
            raise UnsafeStoreError(f"{self.root} lets two writers create the same file; a store cannot be kept there.")


@dataclass(frozen=True, slots=True)
class _S3Prefix:
    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    anonymous: bool

    @property
    def _fs(self) -> Any:
        import s3fs

        # Listings are never cached: another process may have written since. Instances are, per process and thread.
        return s3fs.S3FileSystem(
            anon=self.anonymous,
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": self.region},
            use_listings_cache=False,
        )

    def _path(self, key: str) -> str:
        if ".." in key.split("/") or key.startswith("/"):
            raise ConfigurationError(f"{key!r} is no key: it leaves the store.")
        return "/".join(part for part in (self.bucket, self.prefix, key) if part)

    def read(self, key: str) -> bytes:
        bucket, _, name = self._path(key).partition("/")
        try:
            with _s3_errors(f"read {key}"):
                # one GET; `cat_file` would send a HEAD before it
                answer = self._fs.call_s3("get_object", Bucket=bucket, Key=name)
                return bytes(_body(self._fs, answer))
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no object {key!r} in s3://{self.bucket}/{self.prefix}.") from error

    def write(self, key: str, data: bytes) -> None:
        with _s3_errors(f"write {key}"):
            self._fs.pipe_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        return self._conditional(key, data, IfNoneMatch="*") is not None

    def _conditional(self, key: str, data: bytes, **condition: str) -> str | None:
        """ETag of what was put, None when the condition did not hold."""
        bucket, _, name = self._path(key).partition("/")
        try:
            answer = self._fs.call_s3("put_object", Bucket=bucket, Key=name, Body=data, **condition)
        except _s3_faults() as error:
            if _s3_code(error) in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}:
                return None
            raise _translated(error, f"write {key}") from error
        return str(answer["ETag"])

    def list(self, prefix: str) -> list[ObjectInfo]:
        base = self._path("")
        with _s3_errors(f"list {prefix}"):
            found = self._fs.find(self._path(prefix), detail=True)
        infos = [
            ObjectInfo(
                path.removeprefix(base).lstrip("/"),
                int(info["size"]),
                info["LastModified"],
                str(info.get("ETag", "")).strip('"'),
            )
            for path, info in found.items()
        ]
        return sorted((info for info in infos if info.key), key=lambda info: info.key)

    def delete(self, key: str) -> None:
        bucket, _, name = self._path(key).partition("/")
        with _s3_errors(f"delete {key}"):
            self._fs.call_s3("delete_object", Bucket=bucket, Key=name)

    def probe(self) -> None:
        """An S3 server: create-only twice, then a compare-and-swap on a stale ETag."""
        refused = ""
        for _ in range(_PROBES):
            refused = self._probe_once()
            if not refused:
                return
        raise UnsafeStoreError(_refusal(self.bucket, refused, "a write whose condition holds is refused"))

    def _probe_once(self) -> str:
        """The condition whose good write was refused, empty when all is well.

        A refusal may be the answer to a write that was sent again because the first answer was lost.
        """
        key = f".probe-{uuid.uuid4().hex}"
        try:
            first = self._conditional(key, b"1", IfNoneMatch="*")
            if self._conditional(key, b"2", IfNoneMatch="*") is not None:
                raise UnsafeStoreError(_refusal(self.bucket, "If-None-Match", "two writers could create the same key"))
            if first is None:
                return "If-None-Match"
            second = self._conditional(key, b"3", IfMatch=first)
            if self._conditional(key, b"4", IfMatch=first) is not None:
                raise UnsafeStoreError(_refusal(self.bucket, "If-Match", "two writers could replace the same object"))
            return "" if second is not None else "If-Match"
        finally:
            with contextlib.suppress(StoreUnavailableError):
                self.delete(key)


def _body(fs: Any, answer: Any) -> Any:
    import fsspec.asyn

    async def collect() -> bytes:
        async with answer["Body"] as body:
            return bytes(await body.read())

    return fsspec.asyn.sync(fs.loop, collect)


def _refusal(bucket: str, condition: str, consequence: str) -> str:
    return (
        f"The S3 server of bucket {bucket!r} does not honour {condition}: {consequence}, and days would be lost. "
        "Use a server with conditional writes (AWS S3, a recent MinIO, Ceph or Garage), or a directory."
    )


def _s3_code(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        cause = cause.__cause__
    return ""


def _translated(error: Exception, doing: str) -> Exception:
    if isinstance(error, FileNotFoundError | GeofieldError):
        return error
    if isinstance(error, PermissionError):
        return AccessError(f"S3 refused to {doing}: {error}. Check the credentials and the bucket's policy.")
    return unanswered(f"S3 did not {doing}", error)


def _s3_faults() -> tuple[type[Exception], ...]:
    """What comes out of s3fs: its own OSErrors, and those of the libraries below it that it lets through."""
    import aiohttp
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
    from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

    return OSError, aiohttp.ClientError, BotoCoreError, ResponseParserError


@contextlib.contextmanager
def _s3_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except _s3_faults() as error:
        raise _translated(error, doing) from error
