"""The fields of a box as one GeoParquet 1.1 file."""

from __future__ import annotations

import io

import geopandas
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from geofield.errors import CrsError

# fiboa's names where it has them: `id`, `geometry`, `bbox`, and `collection` for what the ids are unique in. Its
# `determination_datetime` is when a boundary was drawn, not when anything was planted, and stays out.
_COLUMNS = {
    "id": pa.string(),
    "collection": pa.string(),
    "version": pa.string(),
    "planting_date": pa.date32(),
    "harvest_date": pa.date32(),
    "crop": pa.string(),
    "covered": pa.float64(),
    "properties": pa.string(),
}


FIELD_COLUMNS = pa.schema([*_COLUMNS.items(), ("geometry", pa.binary())])
"""Columns of the file, besides the bounding box of each row."""


def geoparquet_bytes(fields: geopandas.GeoDataFrame) -> bytes:
    """A GeoParquet file: WKB in longitude and latitude, a bounding box per row, sorted by id.

    Parameters
    ----------
    fields
        In EPSG:4326, with the columns `id`, `collection` (the box), `version`, `planting_date`, `harvest_date`,
        `crop`, `covered` (share of the field's area inside the box) and `properties` (JSON: what else its file said).
    """
    if fields.crs is None or fields.crs.to_epsg() != 4326:
        raise CrsError(f"Fields are published in EPSG:4326; these are in {fields.crs}.")
    ordered = fields.sort_values("id", kind="stable").reset_index(drop=True)
    # typed by name: a column without any value would otherwise have no type
    columns = {name: _typed(ordered[name], kind) for name, kind in _COLUMNS.items()}
    frame = geopandas.GeoDataFrame(columns, geometry=ordered.geometry.values, crs=fields.crs)
    file = io.BytesIO()
    frame.to_parquet(file, index=False, geometry_encoding="WKB", schema_version="1.1.0", write_covering_bbox=True)
    table = pq.read_table(file)
    # what pandas notes of its own types would make readers get those instead of the ordinary ones
    plain = table.replace_schema_metadata({b"geo": table.schema.metadata[b"geo"]})
    target = io.BytesIO()
    pq.write_table(plain, target, compression="zstd")
    return target.getvalue()


def _typed(values: pd.Series, kind: pa.DataType) -> pd.Series:
    plain = values.astype(object).where(values.notna(), None)
    return pd.Series(pd.array(pa.array(plain.tolist(), type=kind), dtype=pd.ArrowDtype(kind)), index=values.index)
