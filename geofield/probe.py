"""Whether a place keeps what every commit relies on: of two writers, one wins, and who reads sees one of them whole."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from geofield.errors import AccessError, GeofieldError, StoreUnavailableError, UnsafeStoreError
from geofield.objects import Directory, permitted
from geofield.s3 import Requests, S3Prefix, is_torn

SWAPS = 5
"""Swaps of each writer in one look: enough for servers that fail at all, and over in the time of a few requests."""

_TRIES = 3
_WRITERS, _READERS = 2, 4


def probe_directory(directory: Directory) -> None:
    """One file created, once only; `UnsafeStoreError` where it cannot be."""
    key = f".probe-{uuid.uuid4().hex}"
    try:
        with permitted("made", directory.root):
            directory.root.mkdir(parents=True, exist_ok=True)
        try:
            once, twice = directory.create(key, b"1"), directory.create(key, b"2")
        finally:
            directory.delete(key)
    except AccessError:
        raise
    except OSError as error:
        raise UnsafeStoreError(
            f"Cannot write in {directory.root} as a store has to: {error}. Give a directory on a local disk that this "
            "user may write and that has hard links."
        ) from error
    if not once or twice:
        raise UnsafeStoreError(f"{directory.root} lets two writers create the same file; a store cannot be kept there.")


def probe_s3(prefix: S3Prefix, swaps: int = SWAPS) -> None:
    """Conditions one after another, then writers and readers of one object at the same moment.

    The second is evidence, no proof: a server may pass that lets two writers win once in a thousand times.

    Raises
    ------
    UnsafeStoreError
        Names the guarantee that is missing.
    """
    refused = ""
    for _ in range(_TRIES):
        refused = _probe_conditions(prefix)
        if not refused:
            break
    else:
        raise _unsafe(prefix, f"does not honour {refused}: a write whose condition holds is refused")
    _probe_contention(prefix, swaps)


def _unsafe(prefix: S3Prefix, said: str) -> UnsafeStoreError:
    return UnsafeStoreError(
        f"The S3 server of bucket {prefix.bucket!r} {said}, and days would be lost. "
        "Use a server with conditional writes (AWS S3, a recent MinIO, Ceph or Garage), or a directory."
    )


def _probe_conditions(prefix: S3Prefix) -> str:
    """Create-only twice, then a compare-and-swap on a stale ETag.

    Returns
    -------
    The condition whose good write was refused, empty when all is well. A refusal may be the answer to a write that was
    sent again because the first answer was lost.
    """
    with _key(prefix) as key:
        first = prefix.put_if(key, b"1", IfNoneMatch="*")
        if prefix.put_if(key, b"2", IfNoneMatch="*") is not None:
            raise _unsafe(prefix, "does not honour If-None-Match: two writers could create the same key")
        if first is None:
            return "If-None-Match"
        second = prefix.put_if(key, b"3", IfMatch=first)
        if prefix.put_if(key, b"4", IfMatch=first) is not None:
            raise _unsafe(prefix, "does not honour If-Match: two writers could replace the same object")
        return "" if second is not None else "If-Match"


def _probe_contention(prefix: S3Prefix, swaps: int) -> None:
    """Some writers swap one object, each what it has just read, while others read it."""
    with _key(prefix) as key:
        prefix.put_if(key, b"begun", IfNoneMatch="*")
        seen = prefix.run(lambda s3: _contend(s3, key, swaps))
    if seen.is_replaced_twice:
        raise _unsafe(prefix, "does not keep If-Match when two writers come at once: both replace the same object")
    if seen.is_mixed:
        raise _unsafe(
            prefix, "answers a read that meets a write with the content of one write and the ETag of another: "
            "who replaces what it has read may replace something else",
        )  # fmt: skip


@contextlib.contextmanager
def _key(prefix: S3Prefix) -> Iterator[str]:
    """Of an object that is gone at the end."""
    key = f".probe-{uuid.uuid4().hex}"
    try:
        yield key
    finally:
        with contextlib.suppress(StoreUnavailableError):
            prefix.delete(key)


@dataclass
class _Sightings:
    """What all of them saw. No two writes have the same content, so each content has one ETag and the other way round.

    An answer that never came says nothing: whatever was written then is seen by those who read.
    """

    etags: defaultdict[bytes, set[str]] = field(default_factory=lambda: defaultdict(set))
    contents: defaultdict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    replaced: Counter[str] = field(default_factory=Counter)
    is_torn: bool = False

    def add(self, content: bytes, etag: str) -> None:
        """Somebody read or wrote these together."""
        self.etags[content].add(etag)
        self.contents[etag].add(content)

    @property
    def is_replaced_twice(self) -> bool:
        """Two writers were told that they had replaced the same content."""
        return any(count > 1 for count in self.replaced.values())

    @property
    def is_mixed(self) -> bool:
        """Content and ETag, or content and checksum, came from different writes."""
        several = max(map(len, self.etags.values())) > 1 or max(map(len, self.contents.values())) > 1
        return self.is_torn or several


async def _contend(s3: Requests, key: str, swaps: int) -> _Sightings:
    seen = _Sightings()

    async def read() -> str | None:
        try:
            content, etag = await s3.get(key)
        except (GeofieldError, FileNotFoundError) as error:
            seen.is_torn |= is_torn(error)
            return None
        seen.add(content, etag)
        return etag

    async def write(writer: int) -> None:
        for number in range(swaps):
            before, content = await read(), f"{writer}-{number}".encode()
            if before is None:
                continue
            with contextlib.suppress(GeofieldError):
                after = await s3.put(key, content, IfMatch=before)
                if after is not None:
                    seen.replaced[before] += 1
                    seen.add(content, after)

    async def watch(writing: asyncio.Future[list[None]]) -> None:
        while not writing.done():
            await read()

    writing = asyncio.gather(*(write(writer) for writer in range(_WRITERS)))
    await asyncio.gather(writing, *(watch(writing) for _ in range(_READERS)))
    return seen
