"""The field versions of a store: readable, and what they say they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np
import pandas as pd
import shapely

from geofield.errors import CrsError
from geofield.fields.versions import field_versions
from geofield.grid import parse_crs
from geofield.pipeline.verify.findings import UNREADABLE, Finding, listed, unreadable
from geofield.registry import FieldRegistry

_ADVICE = "Something other than geofield wrote them. Submit these fields again; the table keeps the earlier versions."


def check_fields(registry: FieldRegistry, boxes: Callable[[], Collection[str]]) -> Iterator[Finding]:
    """Every version of every field.

    Parameters
    ----------
    boxes
        Lists the ids of the boxes of the store; asked after the fields are read, whose boxes come before them.
    """
    try:
        table = registry.versions()
    except UNREADABLE as error:
        yield unreadable(None, "fields", "The table of fields", error)
        return
    if table.empty:
        return
    shapes = np.array([_shape(wkb) for wkb in table["geometry"]], dtype=object)
    polygons = np.isin(shapely.get_type_id(shapes), (3, 6)) & ~shapely.is_empty(shapes)
    known = np.array([_is_crs(name) for name in table["crs"]], dtype=np.bool_)
    yield from _told(table, ~polygons, "no polygon")
    yield from _told(table, ~known, "a CRS that is unknown")
    yield from _told(
        table, _misnamed(table, shapes, polygons & known), "a version that is not the digest of what it holds"
    )
    yield from _told(table, _repeated(table), "the same version twice in a row")
    named = table["box"].notna() & ~table["box"].isin(list(boxes()))
    latest = ~table.duplicated("field_id", keep="last") & ~table["withdrawn"].astype(bool)
    yield from _told(table, (named & latest).to_numpy(), "a box that the store does not have")


def _told(table: pd.DataFrame, which: np.ndarray, what: str) -> Iterator[Finding]:
    if which.any():
        names = sorted(set(table["field_id"][which]))
        yield Finding(None, "fields", "broken", f"Fields with {what}: {listed(names)}.", _ADVICE)


def _shape(wkb: object) -> object:
    """None for what is no geometry."""
    try:
        return shapely.from_wkb(wkb)
    except (shapely.errors.ShapelyError, TypeError):
        return None


def _is_crs(name: object) -> bool:
    try:
        parse_crs(str(name))
    except CrsError:
        return False
    return True


def _misnamed(table: pd.DataFrame, shapes: np.ndarray, sound: np.ndarray) -> np.ndarray:
    wrong = np.zeros(len(table), dtype=np.bool_)
    places = np.flatnonzero(sound)
    dates = {
        name: np.array([None if pd.isna(value) else value for value in table[name]], dtype=object)
        for name in ("planting_date", "harvest_date")
    }
    versions = field_versions(
        shapes[places],
        table["crs"].to_numpy(object)[places],
        dates["planting_date"][places],
        dates["harvest_date"][places],
    )
    wrong[places] = versions != table["version"].to_numpy(object)[places]
    return wrong


def _repeated(table: pd.DataFrame) -> np.ndarray:
    """The same content accepted again right after itself: two writers that did not see each other."""
    columns = ["version", "box", "withdrawn"]
    text = table[columns].astype(object).where(table[columns].notna(), "").astype(str).agg("\n".join, axis=1)
    return np.asarray(text == text.groupby(table["field_id"]).shift(), dtype=np.bool_)
