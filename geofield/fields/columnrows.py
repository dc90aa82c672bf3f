"""Rows from formats that hold columns: GeoParquet, and what GDAL reads (GeoPackage, FlatGeobuf, Shapefile)."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from pyogrio.errors import CRSError as OgrCrsError
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

from geofield.errors import CrsError, FieldFileError
from geofield.fields.crsnames import LONLAT, field_crs, from_projjson
from geofield.fields.names import NAMES, REFUSED, pick, roles_of
from geofield.fields.options import FieldOptions
from geofield.fields.rawrows import MENDED, RawRows, empty_cells, filled
from geofield.fields.report import Objects, Report, objects

Refuse = Callable[[str], FieldFileError]
_OGR_ERRORS = (
    DataSourceError,
    DataLayerError,
    FeatureError,
    GeometryError,
    OgrCrsError,
    RuntimeError,
    pa.ArrowException,
)


def read_parquet(source: bytes | Path, options: FieldOptions, refuse: Refuse) -> RawRows:
    """Rows of a GeoParquet file."""
    try:
        file = pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source)
        metadata = file.metadata
        unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        if unpacked > options.max_bytes:
            raise refuse(f"it unpacks to {unpacked:,} bytes, more than the limit of {options.max_bytes:,}")
        geo, column = _geo_metadata((metadata.metadata or {}).get(b"geo"), refuse)
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise refuse(f"the Parquet file cannot be read: {error}") from error
    name = geo["primary_column"]
    if name not in table.column_names:
        raise refuse(f"the geometry column {name!r} that the metadata names is not there")
    crs, declared = _parquet_crs(column, options, refuse)
    wkb = table.column(name) if column.get("encoding") == "WKB" else _native_wkb(source, name, refuse)
    drop = [name, *_covering(column)]
    return _build(table.drop_columns([key for key in drop if key in table.column_names]), wkb, crs, declared, options)


def read_ogr(path: Path, options: FieldOptions, refuse: Refuse) -> RawRows:
    """Rows of the one layer of a file that GDAL reads."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        raw = _read_ogr(path, options, refuse)
    for warning in said:
        raw.report.note(None, "gdal", f"while reading: {str(warning.message).replace(str(path), path.name)}")
    return raw


def _read_ogr(path: Path, options: FieldOptions, refuse: Refuse) -> RawRows:
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        if len(layers) != 1:
            found = f"{len(layers)} layers ({', '.join(layers)})" if layers else "no layer with geometries"
            raise refuse(f"the file holds {found}; expected one layer of polygons")
        meta, table = pyogrio.read_arrow(path, layer=layers[0])
    except _OGR_ERRORS as error:
        raise refuse(f"the file cannot be read: {error}") from error
    column = meta["geometry_name"] or "wkb_geometry"
    if meta["crs"] is None and options.crs is None:
        hint = (
            "the shapefile has no .prj: the CRS is unknown"
            if path.suffix.lower() == ".shp"
            else "the file names no CRS"
        )
        raise refuse(f"{hint}. Name it with --crs")
    crs = _file_crs(options.crs if meta["crs"] is None else meta["crs"], refuse)
    return _build(table.drop_columns([column]), table.column(column), crs, meta["crs"] is not None, options)


def read_ogr_bytes(data: bytes, suffix: str, options: FieldOptions, refuse: Refuse) -> RawRows:
    """The same for bytes; GDAL goes by the suffix."""
    with tempfile.TemporaryDirectory(prefix="geofield-") as folder:
        path = Path(folder) / f"fields{suffix}"
        path.write_bytes(data)
        return read_ogr(path, options, refuse)


def _geo_metadata(text: bytes | None, refuse: Refuse) -> tuple[dict[str, Any], dict[str, Any]]:
    if text is None:
        raise refuse('the file is Parquet but not GeoParquet: it has no "geo" metadata')
    try:
        geo = json.loads(text)
        return geo, dict(geo["columns"][geo["primary_column"]])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise refuse('the "geo" metadata of the Parquet file is broken') from error


def _parquet_crs(column: dict[str, Any], options: FieldOptions, refuse: Refuse) -> tuple[str, bool]:
    """The CRS and whether the file names it: left out is longitude and latitude by the format, null is unknown."""
    if "crs" not in column:
        return _file_crs(options.crs, refuse), False
    if column["crs"] is not None:
        try:
            return from_projjson(column["crs"]), True
        except CrsError as error:
            raise refuse(str(error)) from error
    if options.crs is None:
        raise refuse("the file says that its CRS is unknown (crs: null). Name it with --crs")
    return _file_crs(options.crs, refuse), False


def _file_crs(text: str | None, refuse: Refuse) -> str:
    try:
        return field_crs(text or LONLAT)
    except CrsError as error:
        raise refuse(str(error)) from error


def _covering(column: dict[str, Any]) -> list[str]:
    """The column of bounds that GeoParquet 1.1 keeps beside each geometry: it follows from it."""
    try:
        return [column["covering"]["bbox"]["xmin"][0]]
    except (LookupError, TypeError):
        return []


def _native_wkb(source: bytes | Path, name: str, refuse: Refuse) -> pa.ChunkedArray:
    """Geometries in GeoArrow's own encodings, which GeoPandas reads."""
    try:
        frame = geopandas.read_parquet(pa.BufferReader(source) if isinstance(source, bytes) else source)
    except (ValueError, TypeError, LookupError, OSError, pa.ArrowException) as error:
        raise refuse(f"the geometry column cannot be read: {error}") from error
    return pa.chunked_array([pa.array(shapely.to_wkb(np.asarray(frame[name])), pa.binary())])


def _build(table: pa.Table, wkb: pa.ChunkedArray, crs: str, declared: bool, options: FieldOptions) -> RawRows:
    rows = table.num_rows
    report = Report(rows)
    columns = tuple(table.column_names)
    roles = roles_of(columns, options.id_column)
    used = {name for names in roles.values() for name in names}
    cells = empty_cells(rows)
    for role, names in roles.items():
        cells[role] = _cells(table, role, names, report)
    unused = [name for name in columns if name not in used]
    others = [_values(table.column(name)) for name in unused]

    def rest(row: int) -> dict[str, Any]:
        return {name: values[row] for name, values in zip(unused, others, strict=True)}

    return RawRows(_geometry(wkb, report), filled(rows, crs), declared, cells, rest, columns, report)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python values, every digit kept; a NaN in a column of numbers is how some writers say null."""
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(column.type):
        return [None if value != value else value for value in values]
    return values


def _cells(table: pa.Table, role: str, names: tuple[str, ...], report: Report) -> Objects:
    columns = {name: _values(table.column(name)) for name in names}
    cells = objects(columns[names[0]])
    if len(names) > 1:
        for row in range(len(cells)):
            try:
                pick({name: values[row] for name, values in columns.items()}, names)
            except ValueError as error:
                cells[row] = REFUSED
                report.refuse(row, f"ambiguous_{role}", f"two spellings of {NAMES[role]} disagree: {error}")
    return cells


def _geometry(wkb: pa.ChunkedArray, report: Report) -> Objects:
    raw = objects(wkb.to_pylist())
    geometry: Objects = shapely.from_wkb(raw, on_invalid="ignore")
    given = np.array([value is not None for value in raw], dtype=bool)
    for row in np.flatnonzero(shapely.is_missing(geometry)):
        if not given[row]:
            report.refuse(int(row), "no_geometry", "no geometry")
            continue
        geometry[row] = shapely.from_wkb(raw[row], on_invalid="fix")
        if geometry[row] is None:
            report.refuse(int(row), "bad_geometry", "the geometry cannot be read: it is no well-known binary (WKB)")
        else:
            report.note(int(row), "ring_closed", MENDED["ring_closed"])
    return geometry
