"""Files in the inbox of a store: their names, their options, what waits there."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from geofield.errors import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from geofield import Store

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
    """A file in the inbox."""

    kind: Kind
    key: str
    name: str
    size: int
    arrived: dt.datetime


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
        arrived = _submitted(store, info.key + OPTIONS) if info.key + OPTIONS in keys else None
        yield Waiting(kind, info.key, name.replace("/", "_"), info.size, arrived or info.modified)


def _submitted(store: Store, sidecar: str) -> dt.datetime | None:
    """When a file was submitted: to the microsecond, where S3 tells the second only."""
    try:
        return dt.datetime.fromisoformat(json.loads(store.location.read(sidecar))["submitted"])
    except (ValueError, KeyError, TypeError):
        return None


def options_of(store: Store, sidecar: str) -> dict[str, Any]:
    """The options kept beside a file; none where there are none."""
    try:
        value = json.loads(store.location.read(sidecar))
    except NotFoundError:
        return {}
    except ValueError as error:
        raise ConfigurationError(f"{sidecar} is not JSON: {error}") from error
    options = value.get("options", {}) if isinstance(value, dict) else None
    if not isinstance(options, dict):
        raise ConfigurationError(f'{sidecar} has to hold {{"options": {{...}}}}.')
    return options
