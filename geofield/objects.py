"""Plain objects by key, and how a directory keeps them."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from geofield.errors import FORBIDDING, ConfigurationError, NotFoundError, forbidden


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a location: its key below the location, size in bytes, and when it was put there (UTC).

    Attributes
    ----------
    etag
        Another one whenever the object was written again: S3's own, or what a directory's rename changes.
    """

    key: str
    size: int
    modified: dt.datetime
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What stood at a key: both None where there was nothing.

    Attributes
    ----------
    tag
        Another one whenever the object was written again.
    """

    data: bytes | None
    tag: str | None


class Objects(Protocol):
    """What a location asks of the place where it lies; its own methods of these names ask this."""

    def read(self, key: str) -> bytes:
        """The bytes of an object; `NotFoundError` when there is none."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Put an object, whole or not at all, over whatever is there."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Put an object where there is none; False when there is one."""
        ...

    def look(self, key: str) -> Standing:
        """What stands at a key."""
        ...

    def replace(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Put an object where what stands has this tag; the new tag, None when something else stands there."""
        ...

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders right below a prefix, sorted."""
        ...

    def list(self, prefix: str) -> list[ObjectInfo]:
        """What lies below a prefix, by key."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Directory:
    """Objects as files below a root."""

    root: Path

    def _path(self, key: str) -> Path:
        if ".." in Path(key).parts or Path(key).is_absolute():
            raise ConfigurationError(f"{key!r} is no key: it leaves the store.")
        return self.root / key

    def read(self, key: str) -> bytes:
        """The bytes of an object; `NotFoundError` when there is none."""
        path = self._path(key)
        try:
            with permitted("read", path):
                return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFoundError(f"There is no object {key!r} in {self.root}.") from error

    def _temporary(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
        temporary.write_bytes(data)
        return temporary

    def write(self, key: str, data: bytes) -> None:
        """Put an object, whole or not at all, over whatever is there."""
        path = self._path(key)
        with permitted("written", path):
            self._temporary(path, data).replace(path)

    def create(self, key: str, data: bytes) -> bool:
        """Put a file where there is none, by a hard link: the one atomic create of a whole file."""
        path = self._path(key)
        with permitted("written", path):
            temporary = self._temporary(path, data)
        try:
            os.link(temporary, path)  # fails when the target exists
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def look(self, key: str) -> Standing:
        """What stands at a key."""
        tag = self._tag(key)
        return Standing(None, None) if tag is None else Standing(self.read(key), tag)

    def replace(self, key: str, data: bytes, tag: str | None) -> str | None:
        """As on S3, but in two steps: whoever calls this holds a lock that others who write this object hold too."""
        if self._tag(key) != tag:
            return None
        self.write(key, data)
        return self._tag(key)

    def _tag(self, key: str) -> str | None:
        try:
            return _tag_of(self._path(key).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders right below a prefix, sorted; of those that hold a file somewhere."""
        try:
            names = sorted(entry.name for entry in os.scandir(self._path(prefix)) if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in names if any(files for _, _, files in os.walk(self._path(f"{prefix}/{name}")))]

    def list(self, prefix: str) -> list[ObjectInfo]:
        """What lies below a prefix, by key."""
        path = self._path(prefix)
        if path.is_file():
            files = [path]
        else:
            with permitted("listed", path):
                files = [Path(folder) / name for folder, _, names in os.walk(path, onerror=_told) for name in names]
        found = []
        for file in files:
            if file.name.startswith(".") and file.name.endswith(".tmp"):
                continue
            with contextlib.suppress(FileNotFoundError):  # removed since the directory was read
                stat = file.stat()
                # not when it was written, which whoever copies or moves a file may keep from where it was before
                modified = dt.datetime.fromtimestamp(stat.st_ctime, dt.UTC)
                key = file.relative_to(self.root).as_posix()
                found.append(ObjectInfo(key, stat.st_size, modified, _tag_of(stat)))
        return sorted(found, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""
        path = self._path(key)
        with permitted("removed", path):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def permitted(done: str, path: Path) -> Iterator[None]:
    """What the system keeps from this user, as `AccessError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FORBIDDING:
            raise
        raise forbidden(f"{path} cannot be {done}: {error.strerror}") from error


def _told(error: OSError) -> None:
    if error.errno in FORBIDDING:  # else it was removed meanwhile, or never was
        raise error


def _tag_of(stat: os.stat_result) -> str:
    return f"{stat.st_mtime_ns:x}-{stat.st_size:x}-{stat.st_ino:x}"
