"""Files in the inbox of a store: their names, their options, what waits there."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from geofield.errors import ConfigurationError, GeofieldError, NotFoundError

if TYPE_CHECKING:
    from geofield import ObjectInfo, Store

Kind = Literal["boxes", "fields"]

OPTIONS = ".options.json"
WHY = ".why.json"
KINDS: tuple[Kind, ...] = ("boxes", "fields")  # boxes first: fields of the same inbox may lie in them
_NAME_BYTES = 190  # file systems take 255; a time, a number and an ending are added
SHAPEFILE = (".shp", ".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx")
LEFT_BEHIND = dt.timedelta(days=1)
TRIES = 1000


@dataclass(frozen=True)
class Waiting:
    """A file in the inbox, as it was when the inbox was looked through."""

    kind: Kind
    name: str
    info: ObjectInfo
    arrived: dt.datetime

    @property
    def key(self) -> str:
        """Where it lies."""
        return self.info.key


@dataclass(frozen=True)
class Content:
    """What was read of a file: its bytes, and those of the options beside it (None: there are none)."""

    data: bytes
    sidecar: bytes | None


def content_of(path: Path) -> tuple[str, bytes]:
    """Name in the inbox, and bytes."""
    try:
        if path.suffix.lower() == ".shp":
            return f"{path.stem}.zip", _zipped(path)
        return path.name, path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}.") from error


def _zipped(shape: Path) -> bytes:
    """A shapefile as one zip, the same bytes for the same content."""
    parts = sorted(
        part for part in shape.parent.iterdir() if part.stem == shape.stem and part.suffix.lower() in SHAPEFILE
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in parts:
            archive.writestr(zipfile.ZipInfo(part.name), part.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def numbered(name: str, number: int) -> str:
    """The n-th name for files of one name; the first is the name itself."""
    if number == 1:
        return name
    stem, dot, suffix = name.partition(".")
    return f"{stem}~{number}{dot}{suffix}"


def fitting(name: str) -> str:
    """The name; one that is too long for a file system is cut, and stays apart from others cut alike."""
    if len(name.encode()) <= _NAME_BYTES:
        return name
    suffix = PurePosixPath(name).suffix[:20]
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    stem = name.encode()[: _NAME_BYTES - len(suffix.encode()) - 9].decode(errors="ignore")
    return f"{stem}~{digest}{suffix}"


def now() -> dt.datetime:
    """The time, UTC."""
    return dt.datetime.now(dt.UTC)


def waiting(store: Store) -> list[Waiting]:
    """The files that wait, boxes first, then in the order in which they arrived."""
    return [one for kind in KINDS for one in sorted(_waiting(store, kind), key=lambda one: (one.arrived, one.key))]


def _waiting(store: Store, kind: Kind) -> Iterator[Waiting]:
    infos = store.location.list(f"inbox/{kind}")
    keys = {info.key for info in infos}
    for info in infos:
        name = info.key.removeprefix(f"inbox/{kind}/")
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not name or hidden or name.endswith(("/", OPTIONS)):
            continue
        sidecar = None
        if info.key + OPTIONS in keys:
            with contextlib.suppress(GeofieldError):  # told where the file is read
                sidecar = read_if_there(store, info.key + OPTIONS)
        shown = name.replace("/", "_").encode(errors="replace").decode()  # a directory takes names that are no text
        yield Waiting(kind, shown, info, submitted_in(sidecar) or info.modified)


def read_if_there(store: Store, key: str) -> bytes | None:
    """The bytes of an object, None when there is none."""
    try:
        return store.location.read(key)
    except NotFoundError:
        return None


def content(store: Store, one: Waiting) -> Content | None:
    """A waiting file; None when it is gone.

    The file comes first: options that are read after it are its own as long as `is_there` holds.
    """
    data = read_if_there(store, one.key)
    return None if data is None else Content(data, read_if_there(store, one.key + OPTIONS))


def is_there(store: Store, one: Waiting) -> bool:
    """Whether what lies in a file's place was not written since the inbox was looked through."""
    return any(_version(info) == _version(one.info) for info in store.location.list(one.key))


def _version(info: ObjectInfo) -> tuple[str, str, int, dt.datetime]:
    # S3 tells the fraction of a second in some answers and not in others
    return info.key, info.etag, info.size, info.modified.replace(microsecond=0)


def submitted_in(sidecar: bytes | None) -> dt.datetime | None:
    """When a file was submitted: to the microsecond, where S3 tells the second only. None when that is not told."""
    try:
        told = dt.datetime.fromisoformat(json.loads(sidecar or b"")["submitted"])
        return (told if told.tzinfo else told.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def options_in(sidecar: bytes | None, key: str) -> dict[str, Any]:
    """The options kept beside a file; none where there are none. `key`: where they lie."""
    if sidecar is None:
        return {}
    try:
        value = json.loads(sidecar)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{key} is not JSON: {error}") from error
    options = value.get("options", {}) if isinstance(value, dict) else None
    if not isinstance(options, dict):
        raise ConfigurationError(f'{key} has to hold {{"options": {{...}}}}.')
    return options
