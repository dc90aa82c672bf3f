"""The files below a folder or an `s3://` prefix, and a stamp of each that changes when the file does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from geofield.errors import AccessError, SourceError, SourceUnavailableError
from geofield.source.gdal import endpoint_url

_CREDENTIAL_ERRORS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError")


def absolute_root(root: str) -> str:
    """`s3://bucket/prefix` or an absolute path, without a slash at its end; `SourceError` for anything else."""
    parts = urlsplit(root)
    if "://" not in root:
        return str(Path(root).expanduser().absolute())
    if parts.scheme == "file":
        return str(Path(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        return root.rstrip("/")
    raise SourceError(f"{root!r} is no root of files: give a folder or s3://bucket/prefix.")


def list_files(root: str, depth: int, anonymous: bool = False) -> dict[str, Mapping[str, Any]]:
    """Path below the root -> what the file system says of it; folders deeper than `depth` are left out.

    Raises
    ------
    SourceError
        There is no such folder or bucket.
    SourceUnavailableError, AccessError
        The server did not answer, or refused.
    """
    system = _file_system(root, anonymous)
    base = system._strip_protocol(root).rstrip("/")
    with translated(root):
        if not root.startswith("s3://"):
            found = system.find(base, maxdepth=depth, detail=True)
            is_there = os.path.isdir(base)
        elif depth == 1:
            # one level: what lies deeper is not listed
            found = {info["name"]: info for info in system.ls(base, detail=True) if info["type"] == "file"}
            is_there = True
        else:
            # one flat listing; level by level would be a request for each folder
            found = system.find(base, detail=True)
            is_there = bool(found)  # S3 has no empty folders
    if not is_there:
        raise SourceError(f"There is nothing at {root}. Check `root`.")
    # S3 says a prefix ends where its name ends: keys such as "prefix-2/x" are not below "prefix"
    below = {path[len(base) + 1 :]: info for path, info in found.items() if path.startswith(base + "/")}
    return {path: info for path, info in below.items() if path and path.count("/") < depth}


def stamp_of(href: str, info: Mapping[str, Any]) -> str:
    """What changes when a file does: an object's ETag, a local file's size and time of change."""
    if href.startswith("s3://"):
        return str(info["ETag"]).strip('"')
    status = os.stat(href)  # the listing has the time as a float, which drops nanoseconds
    return f"{status.st_size}-{status.st_mtime_ns}"


def _file_system(url: str, anonymous: bool) -> Any:
    if not url.startswith("s3://"):
        return fsspec.filesystem("file")
    # Listings are never cached: files come while a process lives. Credentials are the environment's; so is the
    # endpoint, said here because file systems are cached by what they are given.
    return fsspec.filesystem("s3", anon=anonymous, endpoint_url=endpoint_url(), use_listings_cache=False)


@contextmanager
def translated(what: str, key: str = "root") -> Iterator[None]:
    """Failures of file systems inside the block in geofield's words; `key` is the setting that names the place."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(f"There is nothing at {what}. Check `{key}`.") from error
    except PermissionError as error:
        raise AccessError(f"Reading {what} was refused: {error}. Check the credentials and the policy.") from error
    except _failures(what) as error:
        if type(error).__name__ in _CREDENTIAL_ERRORS:
            raise AccessError(f"Reading {what} needs credentials: {error}") from error
        raise SourceUnavailableError(f"{what} did not answer: {error}. Try again later.") from error


def _failures(url: str) -> tuple[type[Exception], ...]:
    if not url.startswith("s3://"):
        return (OSError,)
    from botocore.exceptions import BotoCoreError  # folders do without it

    return (OSError, BotoCoreError)
