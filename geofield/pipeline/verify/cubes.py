"""The cube of a box against its own rules: days, arrays, items, digests, history."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from geofield.boxes import Box
from geofield.cube.arrays import Arrays
from geofield.cube.cube import Cube, Head, read_schema, to_date, to_day
from geofield.cube.schema import Schema
from geofield.cube.view import read_digests, read_items
from geofield.errors import CorruptStoreError
from geofield.grid import Grid
from geofield.pipeline.layers import cube_schema
from geofield.pipeline.verify.findings import UNREADABLE, Finding, day_list, listed, unreadable
from geofield.recipe.digest import recipe_digest, tile_digest

_MOST_ITEMS = 8  # a digest is looked for among the subsets of a day's items: 2^8 hashes at most

_RESTORE = "Nothing may be appended to it as it is: go back to a snapshot of `geofield history` that is whole."
_CORRECT = "Let the days be made again: correct_days from the first of them on amends what differs."

Items = list[Mapping[str, Any]]


@dataclass(frozen=True)
class CubeParts:
    """What is stored of the days of a cube whose arrays fit together.

    Attributes
    ----------
    digests
        (time, tile_y, tile_x) uint64.
    items
        By step; None where the text is not what it should be.
    """

    arrays: Arrays
    schema: Schema
    head: Head
    digests: npt.NDArray[np.uint64]
    items: list[Items | None]


def check_cube(box: Box, cube: Cube, pending: Box | None) -> tuple[list[Finding], CubeParts | None]:
    """Findings, and what further checks may rely on; None when they cannot rely on anything.

    Parameters
    ----------
    pending
        The box as it is to be, while a change is under way.
    """
    try:
        head_snapshot = cube.tip()
        arrays = cube.arrays(head_snapshot)
        schema = read_schema(arrays)
    except UNREADABLE as error:
        return [unreadable(box.id, "cube", "The cube", error)], None
    history = list(_check_history(box.id, cube))
    misfits = [*_check_schema(box, schema, pending), *_check_lengths(box.id, arrays, schema)]
    if misfits:
        return [*history, *misfits], None
    try:
        days = np.asarray(arrays["time"][:], dtype=np.int64)
        acquired = np.asarray(arrays["acquired"][:], dtype=np.bool_)
        digests, texts = read_digests(arrays), read_items(arrays)
    except UNREADABLE as error:
        return [*history, unreadable(box.id, "cube", "What the cube says of its days", error)], None
    broken = list(_check_days(box, days))
    if broken:
        return [*history, *broken], None
    parts = CubeParts(arrays, schema, Head(head_snapshot, days, acquired), digests, [_parsed(text) for text in texts])
    return [*history, *_check_items(box, parts), *_check_digests(box, parts)], parts


def _check_history(box_id: str, cube: Cube) -> Iterator[Finding]:
    """Every snapshot of the past is there: what a reader holds open, and what `as_of` asks for (I2)."""
    repository = cube.repository
    try:
        lines = [repository.ancestry(branch=cube.branch)]
        lines += [repository.ancestry(tag=tag) for tag in sorted(repository.list_tags())]
        for line in lines:
            for _ in line:
                pass
    except UNREADABLE as error:
        yield unreadable(box_id, "I2", "The history of the cube", error)


def _check_schema(box: Box, schema: Schema, pending: Box | None) -> Iterator[Finding]:
    if schema == cube_schema(box, box.resolved):
        return
    if pending is not None and schema == cube_schema(pending, pending.resolved):
        yield Finding(
            box.id, "I7", "unfinished", "The cube of the changed box is in place, its description is the old one.",
            "The next run completes it.",
        )  # fmt: skip
        return
    own, asked = {spec.name for spec in schema.arrays}, {spec.name for spec in cube_schema(box, box.resolved).arrays}
    what = (
        f"it holds {listed(sorted(own))} where the box asks for {listed(sorted(asked))}"
        if own != asked
        else "another grid"
        if schema.grid != box.resolved
        else "another recipe"
    )
    yield Finding(
        box.id, "box", "broken", f"boxes/{box.id}.json does not describe the cube that is there: {what}.",
        "Bring the file back as it was; to change a box, use `geofield add-box --replace`.",
    )  # fmt: skip


def _check_lengths(box_id: str, arrays: Arrays, schema: Schema) -> Iterator[Finding]:
    """The same set of days for every array (I1)."""
    lengths: dict[str, int] = {}
    for name in ("time", "acquired", "digest", "items", *(spec.name for spec in schema.arrays)):
        try:
            lengths[name] = int(arrays[name].shape[0])
        except CorruptStoreError as error:
            yield Finding(box_id, "I1", "broken", str(error), _RESTORE)
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        yield Finding(box_id, "I1", "broken", f"The arrays of the cube do not hold the same days: {told}.", _RESTORE)


def _check_days(box: Box, days: npt.NDArray[np.int64]) -> Iterator[Finding]:
    """Consecutive from the box's start (I1, I5)."""
    if not len(days):
        return
    if days[0] != to_day(box.start):
        found = f"The cube begins on {to_date(days[0])}, the box on {box.start}."
        yield Finding(box.id, "I1", "broken", found, _RESTORE)
    jumps = np.flatnonzero(np.diff(days) != 1)
    if len(jumps):
        found = f"The days of the cube are not consecutive: gaps or doubles after {day_list(days[jumps].tolist())}."
        yield Finding(box.id, "I1", "broken", found, _RESTORE)


def _parsed(text: str) -> Items | None:
    """The items of a day; None for what is not a list of items with id, version and time."""
    try:
        items = json.loads(text or "[]")
        for item in items:
            if not (isinstance(item["id"], str) and isinstance(item["version"], str)):
                return None
            dt.datetime.fromisoformat(item["time"])
            if not all(isinstance(count, int) for count in item["valid_pixels"].values()):
                return None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return list(items)


def _check_items(box: Box, parts: CubeParts) -> Iterator[Finding]:
    days = parts.head.days.tolist()
    damaged = [day for day, items in zip(days, parts.items, strict=True) if items is None]
    if damaged:
        found = f"What is kept of the acquisitions cannot be read: {day_list(damaged)}."
        yield Finding(box.id, "I1", "broken", found, _CORRECT)
    disagreeing, doubled, strange = [], [], []
    for day, acquired, items in zip(days, parts.head.acquired.tolist(), parts.items, strict=True):
        if items is None:
            continue
        if acquired != bool(items):
            disagreeing.append(day)
        if len({item["id"] for item in items}) < len(items):
            doubled.append(day)
        if any(abs(_day_of(item) - day) > (box.day == "solar") for item in items):
            strange.append(day)
    for found_days, said in (
        (disagreeing, "`acquired` and the list of acquisitions disagree"),
        (doubled, "an acquisition counts twice"),
        (strange, "an acquisition is of another day"),
    ):
        if found_days:
            yield Finding(box.id, "I1", "broken", f"On some days {said}: {day_list(found_days)}.", _CORRECT)


def _day_of(item: Mapping[str, Any]) -> int:
    return to_day(dt.datetime.fromisoformat(item["time"]).astimezone(dt.UTC).date())


def _check_digests(box: Box, parts: CubeParts) -> Iterator[Finding]:
    """Each day was made from what the cube says, on top of the day before it (I5)."""
    zero = (parts.digests == 0).any(axis=(1, 2))
    if zero.any():
        found = f"Some tiles have no digest: {day_list(parts.head.days[zero].tolist())}."
        yield Finding(box.id, "I5", "broken", found, _CORRECT)
    wrong, unknown = _unexplained(box, parts)
    wrong = [step for step in wrong if not zero[step]]
    if wrong:
        found = (
            "The digests of some days do not follow from their acquisitions and the day before: "
            f"{day_list(parts.head.days[wrong].tolist())}."
        )
        yield Finding(box.id, "I5", "broken", found, _CORRECT)
    if unknown:
        yield Finding(
            box.id, "I5", "note",
            f"More than {_MOST_ITEMS} acquisitions, and the cube does not keep which tile each touches, so the digests "
            f"of these days were not recomputed: {day_list(parts.head.days[unknown].tolist())}.",
            "Nothing has to be done.",
        )  # fmt: skip


def _unexplained(box: Box, parts: CubeParts) -> tuple[list[int], list[int]]:
    """Steps whose digests no choice of the day's items gives; steps with too many items to try.

    Footprints are not stored: which items touch a tile is found by trying.
    """
    grid = box.resolved
    recipe = recipe_digest(box, grid)
    stateful = any(variable.state for variable in box.variables.values())
    wrong: list[int] = []
    unknown: list[int] = []
    for step, items in enumerate(parts.items):
        if items is None:
            continue
        pairs = [(item["id"], item["version"]) for item in items]
        earlier = parts.digests[step - 1] if stateful and step else np.zeros(_tiles(grid), dtype=np.uint64)
        acquired = bool(parts.head.acquired[step])
        together = np.stack([earlier.ravel(), parts.digests[step].ravel()], axis=1)
        for before, digest in np.unique(together, axis=0).tolist():
            chained = before if stateful and step else None
            if not any(tile_digest(recipe, acquired, some, chained) == digest for some in _choices(pairs)):
                (unknown if len(pairs) > _MOST_ITEMS else wrong).append(step)
                break
    return wrong, unknown


def _tiles(grid: Grid) -> tuple[int, int]:
    rows, columns = grid.tiles_shape
    return rows, columns


def _choices(items: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    """Subsets, the likely ones first: all, none, then the others."""
    yield items
    if not items:
        return
    yield ()
    if len(items) <= _MOST_ITEMS:
        for size in range(len(items) - 1, 0, -1):
            yield from combinations(items, size)
