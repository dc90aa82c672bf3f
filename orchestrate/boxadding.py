"""Registering boxes from a file or from options alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import GeofieldError, NotFoundError
from orchestrate.boxlist import box_ids

if TYPE_CHECKING:
    from geofield import Box, Store


def add_boxes(
    store: Store,
    file: Path | None,
    options: Mapping[str, Any],
    max_pixels: int | None = None,
    *,
    replace: bool = False,
) -> dict[str, Any]:
    """Register the boxes of a file, or the one that the options describe.

    Parameters
    ----------
    options
        Names as on the command line; None: nothing said.
    replace
        A box that is there already is to be as described now.

    Returns
    -------
    `boxes` that are in the store now, `rejected` ones with reasons, `notices`.

    Raises
    ------
    GeofieldError
        The only box cannot be added; of several, those that can are, and the others are in `rejected`.
    """
    said = {name: value for name, value in options.items() if value is not None}
    tile = said.pop("tile", None)
    before = set(box_ids(store))
    boxes, rejected, notices = _read(file, said, store.defaults if tile is None else _with_tile(store.defaults, tile))
    alone = len(boxes) + len(rejected) == 1
    added = []
    for box in boxes:
        try:
            register = store.change_box if replace and box.id in before else store.add_box
            registered = register(box) if max_pixels is None else register(box, max_pixels)
        except GeofieldError as error:
            if alone or error.action != "fix":
                raise
            rejected.append({"file": _name(file), "box": box.id, "rule": error.kind, "reason": str(error)})
            continue
        notices += [{"file": _name(file), "box": box.id, "what": text} for text in geofield.advice_on(box.source)]
        added.append(describe(registered) | {"is_new": box.id not in before})
    return {"boxes": added, "rejected": rejected, "notices": notices}


def _read(
    file: Path | None, said: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[list[Box], list[dict[str, Any]], list[dict[str, Any]]]:
    if file is None:
        return [geofield.box_from({}, said, defaults)], [], []
    if not file.is_file():
        raise NotFoundError(f"There is no file {file}.")
    read = geofield.read_boxes(file, file.name, said, defaults)
    rejected = [
        {"file": file.name, "box": one.field_id, "rule": one.rule, "reason": one.reason} for one in read.rejected
    ]
    notices = [{"file": file.name, "box": one.field_id, "what": one.what} for one in read.notices]
    return list(read.boxes), rejected, notices


def _with_tile(defaults: Mapping[str, Any], tile: int) -> dict[str, Any]:
    """The side of a tile has no option in the library: it comes with the defaults, so that a file still goes first."""
    grid = defaults.get("grid") or {}
    return {**defaults, "grid": {**({"native": True} if grid == "native" else grid), "tile": tile}}


def _name(file: Path | None) -> str:
    return "the options" if file is None else file.name


def describe(box: Box) -> dict[str, Any]:
    """A registered box in a few words."""
    grid = box.resolved
    rows, columns = grid.shape
    high, wide = grid.tiles_shape
    resolution = grid.geobox.resolution
    return {
        "id": box.id,
        "start": box.start.isoformat(),
        "crs": grid.crs.to_string(),
        "rows": rows,
        "columns": columns,
        "resolution": f"{abs(resolution.x):g}"
        if abs(resolution.x) == abs(resolution.y)
        else f"{abs(resolution.x):g} x {abs(resolution.y):g}",
        "tiles": high * wide,
        "variables": list(box.variables),
        "source": str(box.source.get("type")),
    }
