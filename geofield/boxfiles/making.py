"""A box from what its file says, what the caller says, and what the store's defaults say, in this order."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from geofield.boxes import ID_RULE, Box
from geofield.boxfiles.bounds import Bounds, bounds_from
from geofield.boxfiles.wording import faults
from geofield.errors import BoxError, ConfigurationError, SourceError
from geofield.fields.dates import read_day
from geofield.fields.names import shown
from geofield.sourcetypes import OPENERS, opener_of

ID_KEYS = ("id", "box_id", "boxId", "BOX_ID", "box-id", "bbox_id", "bboxId", "bbox-id", "object-id", "object_id")
SETTINGS = ("bbox", "crs", "start", "grid", "source", "variables", "settle_days", "day", "merge")
"""Keys of a box file beside its id."""
_ADDRESSES = ("root", "url")
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]+")

DEFAULT_VARIABLES: Mapping[str, Any] = {
    "ndvi": {
        "index": "NDVI",
        "mask": {"scl": [0, 1, 3, 8, 9, 10, 11]},
        "valid_range": [-1, 1],
        "state": "kalman",
    }
}
"""Of sources with Sentinel-2's bands, when nobody says: SCL no data, defective, cloud shadow, clouds, cirrus, snow."""
_SENTINEL = ("simulated", "stac")


@dataclass(frozen=True)
class BoxOptions:
    """What the caller says about boxes that their file does not; None: nothing."""

    id: str | None = None
    bbox: tuple[float, ...] | None = None
    bbox_crs: str | None = None
    """CRS of the bounds."""
    resolution: float | tuple[float, float] | None = None
    """Pixel size in units of the grid's CRS."""
    grid_crs: str | None = None
    """CRS of the grid, `utm`, or `native` for the source's own grid."""
    start: dt.date | str | None = None
    source: Mapping[str, Any] | str | None = None
    variables: Mapping[str, Any] | None = None
    settle_days: int | None = None
    day: str | None = None


@dataclass(frozen=True)
class _Said:
    """Settings of one origin, in the keys of a box file, with the folder that its relative paths start from."""

    values: Mapping[str, Any]
    folder: Path | None


def box_from(
    values: Mapping[str, Any],
    options: BoxOptions | Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    name: str = "box",
    folder: Path | None = None,
) -> Box:
    """A box without a grid.

    Parameters
    ----------
    values
        What the file says, in the keys of a box file.
    options
        What the caller says: `BoxOptions`, or a mapping with its names (`crs` is `bbox_crs`).
    defaults
        What the store says, in the keys of a box file.
    name
        The file's name: the id comes from it when nobody gives one.
    folder
        What relative paths of the source in `values` start from; None: they are refused.

    Raises
    ------
    BoxError
        Something is wrong, or missing: the message names the option that would give it.
    """
    return make_box(values, options, defaults, name, folder)[0]


def make_box(
    values: Mapping[str, Any],
    options: BoxOptions | Mapping[str, Any] | None,
    defaults: Mapping[str, Any] | None,
    name: str,
    folder: Path | None,
) -> tuple[Box, list[str]]:
    """`box_from`, and what was mended or taken from elsewhere."""
    asked = option_values(options)
    said = (_Said(values, folder), _Said(asked, Path.cwd()), _Said(defaults or {}, None))
    notes: list[str] = []
    settings = _settings(values, asked, said, name, notes)
    try:
        box = Box.model_validate({key: value for key, value in settings.items() if value is not None})
    except ValidationError as error:
        raise BoxError("; ".join(faults(error))) from error
    return box, notes


def _settings(
    values: Mapping[str, Any], asked: Mapping[str, Any], said: tuple[_Said, ...], name: str, notes: list[str]
) -> dict[str, Any]:
    """Everything a box is made from; `BoxError` tells all that is missing or wrong at once."""
    makers: dict[str, Callable[[], Any]] = {
        "id": lambda: _id(values, asked, name, notes),
        "bbox": lambda: _bounds(values, asked, notes),
        "crs": lambda: _first(said, "crs"),
        "start": lambda: _start(said, notes),
        "grid": lambda: _grid(said),
        "source": lambda: _source(said),
        "variables": lambda: _variables(said),
        "settle_days": lambda: _first(said, "settle_days"),
        "day": lambda: _first(said, "day"),
        "merge": lambda: _first(said, "merge"),
    }
    settings, problems = {}, []
    for key, make in makers.items():
        try:
            settings[key] = make()
        except BoxError as error:
            problems.append(str(error))
    if problems:
        raise BoxError("; ".join(problems))
    return settings


def option_values(options: BoxOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    """What the caller says, in the keys of a box file."""
    given = dataclasses.asdict(options) if isinstance(options, BoxOptions) else dict(options or {})
    if "crs" in given:
        given["bbox_crs"] = given.pop("crs")
    known = [field.name for field in dataclasses.fields(BoxOptions)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigurationError(f"{', '.join(unknown)} is no option of a box; there are {', '.join(known)}.")
    grid = {"resolution": given.pop("resolution", None), "crs": given.pop("grid_crs", None)}
    given["crs"] = given.pop("bbox_crs", None)
    given["grid"] = {key: value for key, value in grid.items() if value is not None} or None
    return {key: value for key, value in given.items() if value is not None}


def given_id(values: Mapping[str, Any]) -> str | None:
    """The id that a row gives, under any spelling; whole numbers become text."""
    given = {key: values[key] for key in ID_KEYS if values.get(key) is not None}
    texts = {_id_text(value) for value in given.values()}
    if len(texts) > 1:
        raise BoxError(f"the id is given in several ways that differ: {shown(given)}")
    return texts.pop() if texts else None


def _id_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BoxError(f"the id is {shown(value)}: it has to be text or a whole number")
    if isinstance(value, float):
        if not value.is_integer():
            raise BoxError(f"the id is {value}: it has to be text or a whole number")
        value = int(value)
    return str(value)


def _id(values: Mapping[str, Any], asked: Mapping[str, Any], name: str, notes: list[str]) -> str:
    found = given_id(values) or given_id({"id": asked.get("id")})
    if found is not None:
        return found
    stem = PurePath(name).name.partition(".")[0] if not PurePath(name).name.startswith(".") else ""
    made = _ILLEGAL.sub("-", stem).strip("-.")[:64]
    if not made:
        raise BoxError(f"no id, and none can be made from the file's name {name!r}: give --id ({ID_RULE})")
    notes.append(f"the id {made!r} is taken from the file's name")
    return made


def _bounds(values: Mapping[str, Any], asked: Mapping[str, Any], notes: list[str]) -> Bounds:
    found, mended = bounds_from(values)
    if found is None:
        found, mended = bounds_from(asked)
    if found is None:
        raise BoxError("no bounds: give `bbox` in the file, or --bbox XMIN YMIN XMAX YMAX")
    notes.extend(mended)
    return found


def _first(said: tuple[_Said, ...], key: str) -> Any:
    return next((one.values[key] for one in said if one.values.get(key) is not None), None)


def _start(said: tuple[_Said, ...], notes: list[str]) -> dt.date:
    value = _first(said, "start")
    if value is None:
        raise BoxError("no start, the first day of its cube: give `start` in the file, or --start DATE")
    if not isinstance(value, (str, dt.date)):
        raise BoxError(f"start is {shown(value)}: write YYYY-MM-DD as text")
    read = read_day(value, "start", dt.datetime.now(dt.UTC).date())
    if read.day is None:
        raise BoxError(read.reason or f"start {value} is no day")
    if read.note is not None:
        notes.append(read.note)
    return read.day


def _grid(said: tuple[_Said, ...]) -> dict[str, Any] | None:
    """Key by key: a file may name the CRS and the caller the resolution."""
    merged: dict[str, Any] = {}
    for one in said:
        grid = one.values.get("grid")
        if grid is None:
            continue
        if grid == "native":
            grid = {"native": True}
        if not isinstance(grid, Mapping):
            raise BoxError(f"grid is {shown(grid)}: write {{crs: .., resolution: ..}}, or `native`")
        if grid.get("crs") == "native":
            grid = {**{key: value for key, value in grid.items() if key != "crs"}, "native": True}
        if merged.get("native") and {"crs", "resolution"} & set(grid):
            grid = {key: value for key, value in grid.items() if key not in ("crs", "resolution")}
        merged = {**grid, **merged}
    if merged.get("native"):
        merged = {key: value for key, value in merged.items() if key in ("native", "tile")}
    return merged or None


def _source(said: tuple[_Said, ...]) -> dict[str, Any]:
    one = next((one for one in said if one.values.get("source") is not None), None)
    if one is None:
        raise BoxError("no source of imagery: give `source` in the file, or --source")
    source = one.values["source"]
    if isinstance(source, str):
        source = {"type": source}
    if not isinstance(source, Mapping) or not isinstance(source.get("type"), str):
        raise BoxError(f"source is {shown(source)}: it needs a `type`, e.g. {{type: simulated}}")
    try:
        opener_of(source["type"])
    except SourceError as error:
        raise BoxError(f"source: {str(error).rstrip('.')}") from error
    return {key: _resolved(key, value, one.folder) if key in _ADDRESSES else value for key, value in source.items()}


def _resolved(key: str, value: Any, folder: Path | None) -> Any:
    """A relative path, absolute; addresses and absolute paths as they are."""
    if not isinstance(value, str) or "://" in value or PurePath(value).is_absolute():
        return value
    if folder is None:
        raise BoxError(
            f"source.{key} {value!r} is relative, and it is not known to which folder: give an absolute path"
        )
    return str((folder / value).resolve())


def _variables(said: tuple[_Said, ...]) -> Any:
    variables = _first(said, "variables")
    if variables is None:
        source = _first(said, "source")
        kind = source.get("type") if isinstance(source, Mapping) else source
        if kind in OPENERS and kind not in _SENTINEL:
            raise BoxError(f"no variables: a source of type {kind!r} needs `variables` in the file, or --variables")
        return DEFAULT_VARIABLES
    if not isinstance(variables, Mapping):
        raise BoxError(f"variables is {shown(variables)}: write a mapping from names to what they are made of")
    return variables
