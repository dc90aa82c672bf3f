"""Zip archives from strangers: looked through before anything is unpacked, into a folder of their own."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from geofield.errors import FieldFileError

MAX_ENTRIES = 1000
SHAPEFILE_PARTS = (".shp", ".shx", ".dbf")
DATA = (".shp", ".gpkg", ".fgb", ".geojson", ".json", ".jsonl", ".ndjson", ".geojsonl", ".csv", ".tsv", ".parquet")
_CHUNK = 1 << 20
_SYMLINK = 0o120000
_BLANK = b" \t\r\n\0"

Refuse = Callable[[str], FieldFileError]


def unpack(source: bytes | Path, folder: Path, max_bytes: int, refuse: Refuse) -> Path:
    """Unpack an archive into `folder` and return the one file of data in it.

    Raises
    ------
    FieldFileError
        A path leads out of the archive, it holds links or secrets, unpacks to more than `max_bytes`, is damaged, blank,
        an incomplete shapefile, or holds no file or several files of data.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            entries = _checked(archive.infolist(), max_bytes, refuse)
            left = max_bytes
            for entry in entries:
                left -= _copy(archive, entry, folder / PurePosixPath(entry.filename).name, left, refuse)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, FieldFileError):
            raise
        raise refuse(f"the zip archive is damaged: {error}") from error
    return _main_file(folder, refuse)


def _checked(entries: list[zipfile.ZipInfo], max_bytes: int, refuse: Refuse) -> list[zipfile.ZipInfo]:
    if len(entries) > MAX_ENTRIES:
        raise refuse(f"the archive holds {len(entries)} entries, more than {MAX_ENTRIES}")
    for entry in entries:
        path = entry.filename.replace("\\", "/")
        if path.startswith("/") or ".." in path.split("/") or ":" in path.split("/")[0]:
            raise refuse(f"the archive holds a path outside of itself: {entry.filename!r}")
        if (entry.external_attr >> 16) & 0o170000 == _SYMLINK:
            raise refuse(f"the archive holds a link: {entry.filename!r}")
        if entry.flag_bits & 1:
            raise refuse(f"the archive is encrypted: {entry.filename!r}")
    files = [entry for entry in entries if not entry.is_dir() and not _litter(entry.filename)]
    declared = sum(entry.file_size for entry in files)
    if declared > max_bytes:
        raise refuse(f"the archive unpacks to {declared:,} bytes, more than the limit of {max_bytes:,}")
    names = [PurePosixPath(entry.filename).name.lower() for entry in files]
    if len(set(names)) < len(names):
        raise refuse("the archive holds two files of one name in different folders: send one set of fields at a time")
    return files


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int, refuse: Refuse) -> int:
    """Bytes written; what the archive says about its sizes is not believed."""
    size, blank = 0, True
    with archive.open(entry) as packed, target.open("wb") as file:
        while chunk := packed.read(_CHUNK):
            size += len(chunk)
            if size > left:
                raise refuse("the archive unpacks to more bytes than it says, and more than the limit")
            blank = blank and not chunk.strip(_BLANK)
            file.write(chunk)
    if blank and target.suffix.lower() in DATA:
        what = "empty" if size == 0 else "empty but for blanks"
        raise refuse(f"the file {entry.filename!r} in the archive is {what}")
    return size


def _litter(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts[0] == "__MACOSX" or path.name in (".DS_Store", "Thumbs.db")


def _main_file(folder: Path, refuse: Refuse) -> Path:
    files = sorted(folder.iterdir())
    suffixes = {file.suffix.lower() for file in files}
    data = [file for file in files if file.suffix.lower() in DATA]
    if not data:
        if suffixes & {".shx", ".dbf", ".prj"}:
            raise refuse("the shapefile is not complete: .shp is missing")
        named = ", ".join(file.name for file in files) or "nothing"
        raise refuse(f"the archive holds no file of fields that can be read, but {named}")
    if len(data) > 1:
        raise refuse(f"the archive holds several files ({', '.join(file.name for file in data)}): send them one by one")
    if data[0].suffix.lower() == ".shp":
        check_shapefile(data[0], refuse)
    return data[0]


def check_shapefile(path: Path, refuse: Refuse) -> None:
    """`FieldFileError` when parts of a shapefile are missing beside its .shp."""
    beside = {file.suffix.lower() for file in path.parent.iterdir() if file.stem == path.stem}
    missing = [part for part in SHAPEFILE_PARTS if part not in beside]
    if missing:
        raise refuse(
            f"the shapefile is not complete: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
