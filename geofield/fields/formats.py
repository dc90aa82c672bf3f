"""Which format a file has, told by its content, and the reader for it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from geofield.errors import CrsError, FieldFileError
from geofield.fields.archives import check_shapefile, unpack
from geofield.fields.columnrows import read_ogr, read_ogr_bytes, read_parquet
from geofield.fields.csvrows import read_csv
from geofield.fields.jsonrows import LINES, read_json
from geofield.fields.jsontext import TextError, check_text, decode
from geofield.fields.options import FieldOptions
from geofield.fields.rawrows import RawRows
from geofield.fields.report import naming_file

ACCEPTED = (
    "GeoJSON, JSON with a `fields` list, JSON lines, CSV with WKT, GeoParquet, GeoPackage, FlatGeobuf, zipped Shapefile"
)
_HEAD = 512
_SHP = b"\x00\x00\x27\x0a"
_DATABASE = b"SQLite format 3\x00"
_FLATGEOBUF = b"fgb"
_BINARY = {
    ".gpkg": "GeoPackage", ".fgb": "FlatGeobuf", ".parquet": "GeoParquet", ".geoparquet": "GeoParquet",
    ".shp": "Shapefile", ".zip": "zip archive",
}  # fmt: skip
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def read_rows(data: bytes | Path, name: str, options: FieldOptions) -> RawRows:
    """The rows of a file, not judged yet.

    Raises
    ------
    FieldFileError
        Nothing of the file can be read; the message begins with its name.
    """
    refuse = naming_file(name)
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    if size > options.max_bytes:
        raise refuse(f"it has {size:,} bytes, more than the limit of {options.max_bytes:,}")
    head = data[:_HEAD] if isinstance(data, bytes) else _head(data)
    try:
        return _read(data, head, name, options)
    except (TextError, CrsError) as error:
        raise refuse(str(error)) from error


def _read(data: bytes | Path, head: bytes, name: str, options: FieldOptions) -> RawRows:
    refuse = naming_file(name)
    if head.startswith(_ZIP):
        with tempfile.TemporaryDirectory(prefix="geofield-") as folder:
            inner = unpack(data, Path(folder), options.max_bytes, refuse)
            inner_head = _head(inner)
            if inner_head.startswith(_ZIP):
                raise refuse("the archive holds another archive: unpack it first")
            return _read(inner, inner_head, f"{name}/{inner.name}", options)
    if head.startswith(b"PAR1"):
        return read_parquet(data, options, refuse)
    if head.startswith(_DATABASE) or (head[:3] == head[4:7] == _FLATGEOBUF):
        suffix = ".gpkg" if head.startswith(_DATABASE) else ".fgb"
        if isinstance(data, Path) and data.suffix.lower() == suffix:
            return read_ogr(data, options, refuse)
        return read_ogr_bytes(_bytes(data), suffix, options, refuse)
    if head.startswith(_SHP):
        if not isinstance(data, Path):
            raise refuse("a shapefile is several files (.shp, .shx, .dbf, .prj): send them in one zip archive")
        check_shapefile(data, refuse)
        return read_ogr(data, options, refuse)
    return _text(_bytes(data), name, options)


def _text(data: bytes, name: str, options: FieldOptions) -> RawRows:
    refuse = naming_file(name)
    if data.startswith(b"\x1f\x8b"):
        raise refuse("the file is packed with gzip: unpack it first, or send a zip archive")
    if name.lower().endswith(LINES):
        return read_json(data, name, options)
    try:
        text = decode(data)
    except TextError as error:
        format_ = next((known for suffix, known in _BINARY.items() if name.lower().endswith(suffix)), None)
        if format_ is None:
            raise
        raise refuse(f"the file is damaged, or no {format_} at all: it begins with {data[:8]!r}") from error
    check_text(text)
    start = text.lstrip()[:_HEAD]
    if start.startswith(("{", "[")):
        return read_json(data, name, options)
    if start.startswith("<"):
        raise refuse(f"the file is XML, which is not read. Formats that are: {ACCEPTED}")
    if name.lower().endswith((".json", ".geojson")) or not _is_text(start):
        raise refuse(f"the file is not JSON: it begins with {start[:30]!r}. Formats that are read: {ACCEPTED}")
    return read_csv(data, options)


def _is_text(text: str) -> bool:
    return all(char.isprintable() or char in "\t\r\n" for char in text)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except IsADirectoryError as error:
        raise FieldFileError(f"{path} is a folder; give the files in it.") from error


def _bytes(data: bytes | Path) -> bytes:
    return data if isinstance(data, bytes) else data.read_bytes()
