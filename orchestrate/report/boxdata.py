"""A box as the page draws it: polygons in units of its map, and series as arrays."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrate.report.values import BoxData, VariableData
from orchestrate.state import BoxState

if TYPE_CHECKING:
    import geopandas as gpd

    from geofield import Store

_STATUS = {"observed": 1, "all_masked": 2, "no_acquisition": 3}
_QUICKLOOK = 400  # pixels on its longer side
_PROPERTIES, _TEXT = 20, 200


def box_data(
    store: Store, state: BoxState, shapes: gpd.GeoDataFrame, versions: Mapping[str, int], days: int, is_drawn: bool
) -> BoxData:
    """A box and the last days of its fields.

    Parameters
    ----------
    shapes
        The fields of the store, longitude and latitude, by id.
    versions
        Field id -> how many versions it has had.
    is_drawn
        Whether to read the pixels of the latest estimate.
    """
    box = store.box(state.box.id)
    geobox = box.resolved.geobox
    ids = list(state.ready.columns.ids)
    last = state.cube.last or box.start
    first = max(state.cube.first or box.start, last - dt.timedelta(days=days - 1))
    rows = store.rows(box=box.id, start=first, end=last) if state.cube.last is not None else pd.DataFrame()
    rows = rows[rows["field_id"].isin(ids)] if len(rows) else rows
    count = (last - first).days + 1
    place = (
        pd.Index(ids).get_indexer(pd.Index(rows["field_id"])) if len(rows) else np.empty(0, dtype=np.intp),
        (pd.to_datetime(rows["date"]) - pd.Timestamp(first)).dt.days.to_numpy() if len(rows) else np.empty(0, int),
    )
    status = np.zeros((len(ids), count), dtype=np.uint8)
    if len(rows):
        status[place] = rows["status"].map(_STATUS).fillna(0).to_numpy(np.uint8)

    def spread(column: str) -> npt.NDArray[np.float64]:
        values = np.full((len(ids), count), np.nan)
        if column in rows.columns:
            values[place] = rows[column].to_numpy(float, na_value=np.nan)
        return values

    variables = []
    for name, variable in box.variables.items():
        has_state = variable.state is not None
        variables.append(
            VariableData(
                name,
                spread(f"{name}_mean"),
                spread(f"{name}_filled_mean") if has_state else None,
                spread(f"{name}_sigma_mean") if has_state else None,
                _quicklook(store, box.id, f"{name}_filled" if has_state else name) if is_drawn and len(rows) else None,
                variable.valid_range,
            )
        )
    described = _fields(shapes.reindex(ids), state, geobox, versions)
    height, width = geobox.shape
    resolution = f"{geobox.crs}, pixels of {abs(geobox.resolution.x):g} x {abs(geobox.resolution.y):g}"
    return BoxData(box.id, width, height, resolution, first.isoformat(), described, status, variables)


def _quicklook(store: Store, box_id: str, name: str) -> npt.NDArray[np.float64]:
    variable = name.removesuffix("_filled")
    layer = store.cube(box_id).open(variables=[variable])[name].isel(time=-1).to_numpy()
    step = -(-max(layer.shape) // _QUICKLOOK)
    coarse: npt.NDArray[np.float64] = layer[::step, ::step]
    return coarse


def _fields(
    shapes: gpd.GeoDataFrame, state: BoxState, geobox: Any, versions: Mapping[str, int]
) -> list[dict[str, Any]]:
    transform = ~geobox.transform
    placed = shapes.geometry.to_crs(geobox.crs.to_wkt()).affine_transform(
        [transform.a, transform.b, transform.d, transform.e, transform.c, transform.f]
    )
    placed = placed.simplify(max(geobox.shape) / 4000)
    covered = state.ready.columns.covered
    described = []
    for place, (name, one) in enumerate(shapes.iterrows()):
        described.append(
            {
                "id": str(name),
                "rings": _rings(placed.iloc[place]),
                "planted": _text(one.get("planting_date")),
                "harvest": _text(one.get("harvest_date")),
                "crop": _text(one.get("crop")),
                "covered": round(float(covered[place]), 4),
                "version": _text(one.get("version")),
                "versions": int(versions.get(str(name), 1)),
                "file": _text(one.get("file")),
                "properties": _properties(one.get("properties")),
            }
        )
    return described


def _rings(shape: Any) -> list[list[list[float]]]:
    """Polygons of rings of x, y, x, y, ...; the first ring of each is the outer one."""
    if shape is None or shape.is_empty:
        return []
    polygons = shape.geoms if hasattr(shape, "geoms") else [shape]
    return [
        [np.round(np.asarray(ring.coords)[:, :2], 2).ravel().tolist() for ring in (one.exterior, *one.interiors)]
        for one in polygons
        if one.geom_type == "Polygon"
    ]


def _properties(value: Any) -> dict[str, str]:
    """What else came with a field: anybody's text, cut where it is long."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name)[:_TEXT]: str(one)[:_TEXT] for name, one in list(found.items())[:_PROPERTIES]}


def _text(value: Any) -> str | None:
    return None if value is None or value != value else str(value)
