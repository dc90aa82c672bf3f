"""Plain objects in S3: conditional writes, listings that are never cached, and what S3 says as our errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from geofield.errors import (
    AccessError,
    ConfigurationError,
    GeofieldError,
    NotFoundError,
    unanswered,
)
from geofield.objects import ObjectInfo, Standing

T = TypeVar("T")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NAME_RULE = "A bucket's name is 3 to 63 characters: a to z, 0 to 9, . and -, at both ends a letter or a digit."


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

    def path(self, key: str) -> str:
        """Bucket and whole key."""
        if ".." in key.split("/") or key.startswith("/"):
            raise ConfigurationError(f"{key!r} is no key: it leaves the store.")
        return "/".join(part for part in (self.bucket, self.prefix, key) if part)

    def run(self, work: Callable[[Requests], Coroutine[Any, Any, T]]) -> T:
        """Do what may ask many things at once, and wait for its end."""
        import fsspec.asyn

        fs = self._fs  # of this thread; the loop runs in another
        done: T = fsspec.asyn.sync(fs.loop, work, Requests(self, fs))
        return done

    def read(self, key: str) -> bytes:
        """The bytes of an object, in one request; `NotFoundError` when there is none."""
        try:
            return self.run(lambda s3: s3.get(key))[0]
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no object {key!r} in s3://{self.bucket}/{self.prefix}.") from error

    def write(self, key: str, data: bytes) -> None:
        """Put an object, whole or not at all, over whatever is there."""
        with _s3_errors(self.bucket, f"write {key}"):
            self._fs.pipe_file(self.path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        """Put an object where there is none (If-None-Match); False when there is one."""
        return self.put_if(key, data, IfNoneMatch="*") is not None

    def put_if(self, key: str, data: bytes, **condition: str) -> str | None:
        """ETag of what was put, None when the condition (`IfMatch`, `IfNoneMatch`) did not hold."""
        return self.run(lambda s3: s3.put(key, data, **condition))

    def look(self, key: str) -> Standing:
        """What stands at a key, in one request."""
        try:
            return Standing(*self.run(lambda s3: s3.get(key)))
        except FileNotFoundError:
            return Standing(None, None)

    def replace(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Put an object where what stands has this tag; the new tag, None when something else stands there."""
        try:
            return self.put_if(key, data, IfNoneMatch="*") if tag is None else self.put_if(key, data, IfMatch=tag)
        except FileNotFoundError:  # removed since
            return None

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders right below a prefix, sorted; no object in them is listed."""
        try:
            with _s3_errors(self.bucket, f"list {prefix}"):
                found = self._fs.ls(self.path(prefix), detail=True)
        except FileNotFoundError:
            return []
        return sorted(info["name"].rsplit("/", 1)[1] for info in found if info["type"] == "directory")

    def list(self, prefix: str) -> list[ObjectInfo]:
        """What lies below a prefix, by key."""
        base = self.path("")
        with _s3_errors(self.bucket, f"list {prefix}"):
            found = self._fs.find(self.path(prefix), detail=True)
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
        bucket, _, name = self.path(key).partition("/")
        with _s3_errors(self.bucket, f"delete {key}"):
            self._fs.call_s3("delete_object", Bucket=bucket, Key=name)


class Requests:
    """What is asked of a bucket, each in one request, by whoever shares a loop with others."""

    def __init__(self, prefix: S3Prefix, fs: Any) -> None:
        self._prefix, self._fs = prefix, fs

    def _place(self, key: str) -> dict[str, str]:
        bucket, _, name = self._prefix.path(key).partition("/")
        return {"Bucket": bucket, "Key": name}

    async def get(self, key: str) -> tuple[bytes, str]:
        """Content and ETag; `FileNotFoundError` when there is none."""
        with _s3_errors(self._prefix.bucket, f"read {key}"):
            # one GET; `cat_file` would send a HEAD before it
            answer = await self._fs._call_s3("get_object", **self._place(key))
            async with answer["Body"] as body:
                return bytes(await body.read()), str(answer["ETag"])

    async def put(self, key: str, data: bytes, **condition: str) -> str | None:
        """ETag of what was put, None when the condition (`IfMatch`, `IfNoneMatch`) did not hold."""
        try:
            answer = await self._fs._call_s3("put_object", **self._place(key), Body=data, **condition)
        except _s3_faults() as error:
            if _s3_code(error) in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}:
                return None
            raise _translated(error, self._prefix.bucket, f"write {key}") from error
        return str(answer["ETag"])


def is_torn(error: Exception) -> bool:
    """Whether a read failed because content and checksum did not belong together."""
    from botocore.exceptions import FlexibleChecksumError

    return isinstance(error.__cause__, FlexibleChecksumError)


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
        advice = "Make it, or check name and endpoint." if _NAME.fullmatch(bucket) else _NAME_RULE
        return ConfigurationError(f"There is no bucket {bucket!r} (S3 could not {doing}: {told}). {advice}")
    if isinstance(error, FileNotFoundError):
        return error
    if isinstance(error, PermissionError):
        return AccessError(f"S3 refused to {doing}: {told}. Check the credentials and the bucket's policy.")
    return unanswered(f"S3 did not {doing}", error)


def _s3_faults() -> tuple[type[Exception], ...]:
    """What comes out of s3fs: its own OSErrors, and those of the libraries below it that it lets through."""
    import aiohttp
    from botocore.exceptions import BotoCoreError
    from botocore.parsers import ResponseParserError

    return OSError, aiohttp.ClientError, BotoCoreError, ResponseParserError


@contextlib.contextmanager
def _s3_errors(bucket: str, doing: str) -> Iterator[None]:
    try:
        yield
    except _s3_faults() as error:
        raise _translated(error, bucket, doing) from error
