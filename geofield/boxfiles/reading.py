"""From a file of boxes to boxes that are taken and rows that are refused, each judged by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geofield.boxes import Box
from geofield.boxfiles.making import BoxOptions, given_id, make_box, option_values
from geofield.boxfiles.rows import Row, read_rows
from geofield.errors import BoxError, CrsError
from geofield.fields.jsontext import TextError
from geofield.fields.names import shown
from geofield.fields.report import Notice, Rejection, reason_of

MAX_BYTES = 64 * 1024**2
"""Limit of a file of boxes: a box takes a few hundred bytes."""


@dataclass(frozen=True)
class BoxesRead:
    """What a file of boxes held."""

    boxes: list[Box]
    """Accepted, without a grid: that is resolved when they are added to a store."""
    rejected: list[Rejection]
    """`field_id` is the id of the box."""
    notices: list[Notice]
    rows: int


def read_boxes(
    data: bytes | Path,
    name: str,
    options: BoxOptions | Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> BoxesRead:
    """Read a file of boxes: the file first, then the options, then the store's defaults.

    Parameters
    ----------
    data
        The file's content, or where it lies: then relative paths of its sources start from its folder.
    name
        What the file is called, for messages, and for the id of a box that has none.
    options, defaults
        See `box_from`.

    Raises
    ------
    BoxError
        Nothing of the file can be read. A bad row never raises: it is in `rejected`.
    ConfigurationError
        There is no such option.
    """
    option_values(options)  # an unknown option is the caller's mistake, not the file's
    try:
        rows = read_rows(_content(data, name), name)
    except (TextError, CrsError) as error:
        raise BoxError(f"{name}: {error}") from error
    folder = data.parent.resolve() if isinstance(data, Path) else None
    reader = _Reader(rows, name, options, defaults, folder)
    return reader.read()


def _content(data: bytes | Path, name: str) -> bytes:
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    if size > MAX_BYTES:
        raise BoxError(f"{name}: it has {size:,} bytes, more than the limit of {MAX_BYTES:,} for a file of boxes")
    return data if isinstance(data, bytes) else data.read_bytes()


@dataclass
class _Reader:
    """One call of `read_boxes`."""

    rows: list[Row]
    name: str
    options: BoxOptions | Mapping[str, Any] | None
    defaults: Mapping[str, Any] | None
    folder: Path | None

    def __post_init__(self) -> None:
        self.rejected: list[Rejection] = []
        self.notices: list[Notice] = []
        self.made: dict[int, Box] = {}

    def read(self) -> BoxesRead:
        """Every row judged."""
        for number, row in enumerate(self.rows):
            self._row(number, row)
        self._duplicates()
        if not self.rows:
            self.notices.append(Notice(None, None, "the file holds no boxes: there was nothing to do"))
        taken = set(self.made)
        notices = [notice for notice in self.notices if notice.row is None or notice.row in taken | self.left_out]
        order = sorted(self.rejected, key=lambda rejection: rejection.row or 0)
        return BoxesRead([self.made[number] for number in sorted(taken)], order, notices, len(self.rows))

    def _row(self, number: int, row: Row) -> None:
        box_id = None
        try:
            box_id = given_id(row.values)
            if row.problem is not None:
                raise BoxError(row.problem)
            if box_id is None and len(self.rows) > 1:
                raise BoxError("no id: a file of several boxes has to name each (`id` or `box_id`)")
            box, notes = make_box(row.values, self.options, self.defaults, self.name, self.folder)
        except BoxError as error:
            self._refuse(number, box_id, "bad_box", str(error))
            return
        if row.ignored:
            notes.append(f"not used: {shown(', '.join(row.ignored), 200)}")
        self.made[number] = box
        self.notices.extend(Notice(number, box.id, note) for note in notes + row.notes)

    def _refuse(self, number: int, box_id: str | None, rule: str, reason: str) -> None:
        told = reason_of(number, box_id, reason.rstrip("."), self.rows[number].place).replace(", field ", ", box ", 1)
        self.rejected.append(Rejection(number, box_id, rule, f"{self.name}: {told}"))

    def _duplicates(self) -> None:
        """Of equal boxes the first is taken, of boxes with one id and different content none."""
        self.left_out: set[int] = set()
        groups: dict[str, list[int]] = defaultdict(list)
        for number, box in self.made.items():
            groups[box.id].append(number)
        for box_id, numbers in groups.items():
            boxes = [self.made[number] for number in numbers]
            if all(box == boxes[0] for box in boxes):
                for number in numbers[1:]:
                    self.notices.append(Notice(number, box_id, f"left out: identical to row {numbers[0]}"))
                    self.left_out.add(number)
                    del self.made[number]
                continue
            differ = [
                key for key in Box.model_fields if any(getattr(box, key) != getattr(boxes[0], key) for box in boxes)
            ]
            words = " and ".join("bounds" if key == "bbox" else key for key in differ)
            times = "twice" if len(numbers) == 2 else f"{len(numbers)} times"
            listed = ", ".join(map(str, numbers))
            for number in numbers:
                reason = f"box id {box_id} is given {times} (rows {listed}) with different {words}"
                self._refuse(number, box_id, "id_given_twice", reason)
                del self.made[number]
