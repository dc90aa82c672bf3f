"""Plain objects in S3: conditional writes, listings that are never cached, and what S3 says as our errors."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from geofield.errors import (
    AccessError,
    ConfigurationError,
    GeofieldError,
    NotFoundError,
    StoreUnavailableError,
    UnsafeStoreError,
    unanswered,
)
from geofield.objects import ObjectInfo

_PROBES = 3


@dataclass(frozen=True, slots=True)
class S3Prefix:
    """Objects below a prefix of a bucket. Credentials are those of the process."""

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
        """The bytes of an object, in one request; `NotFoundError` when there is none."""
        bucket, _, name = self._path(key).partition("/")
        try:
            with _s3_errors(self.bucket, f"read {key}"):
                # one GET; `cat_file` would send a HEAD before it
                answer = self._fs.call_s3("get_object", Bucket=bucket, Key=name)
                return bytes(_body(self._fs, answer))
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no object {key!r} in s3://{self.bucket}/{self.prefix}.") from error

    def write(self, key: str, data: bytes) -> None:
        """Put an object, whole or not at all, over whatever is there."""
        with _s3_errors(self.bucket, f"write {key}"):
            self._fs.pipe_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        """Put an object where there is none (If-None-Match); False when there is one."""
        return self._conditional(key, data, IfNoneMatch="*") is not None

    def _conditional(self, key: str, data: bytes, **condition: str) -> str | None:
        """ETag of what was put, None when the condition did not hold."""
        bucket, _, name = self._path(key).partition("/")
        try:
            answer = self._fs.call_s3("put_object", Bucket=bucket, Key=name, Body=data, **condition)
        except _s3_faults() as error:
            if _s3_code(error) in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}:
                return None
            raise _translated(error, self.bucket, f"write {key}") from error
        return str(answer["ETag"])

    def list(self, prefix: str) -> list[ObjectInfo]:
        """What lies below a prefix, by key."""
        base = self._path("")
        with _s3_errors(self.bucket, f"list {prefix}"):
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
        """Remove an object; nothing happens when there is none."""
        bucket, _, name = self._path(key).partition("/")
        with _s3_errors(self.bucket, f"delete {key}"):
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


def _translated(error: Exception, bucket: str, doing: str) -> Exception:
    if isinstance(error, GeofieldError):
        return error
    code, told = _s3_code(error), str(error).rstrip(".")
    if code in {"NoSuchBucket", "InvalidBucketName"}:
        return ConfigurationError(
            f"There is no bucket {bucket!r} (S3 could not {doing}: {told}). Make it, or check name and endpoint."
        )
    if isinstance(error, FileNotFoundError):
        return error
    if isinstance(error, PermissionError):
        return AccessError(f"S3 refused to {doing}: {told}. Check the credentials and the bucket's policy.")
    return unanswered(f"S3 did not {doing}", error)


def _s3_faults() -> tuple[type[Exception], ...]:
    """What comes out of s3fs: its own OSErrors, and those of the libraries below it that it lets through."""
    import aiohttp
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
    from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

    return OSError, aiohttp.ClientError, BotoCoreError, ResponseParserError


@contextlib.contextmanager
def _s3_errors(bucket: str, doing: str) -> Iterator[None]:
    try:
        yield
    except _s3_faults() as error:
        raise _translated(error, bucket, doing) from error
