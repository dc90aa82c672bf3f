"""What was refused, mended or left out of a file, gathered while its rows are judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geofield.errors import FieldFileError

Objects = npt.NDArray[np.object_]

SINGLE_NOTICES = 20
"""A notice that holds for more rows than this is told once, with the number of rows."""


@dataclass(frozen=True)
class Rejection:
    """Why a row is not taken."""

    row: int | None
    """Counted from 0; None: the file as a whole."""
    field_id: str | None
    """None where there is none."""
    rule: str
    """Short, stable name of the rule."""
    reason: str
    """In words: the row, what was found, the rule, and the option that would help."""


@dataclass(frozen=True)
class Notice:
    """What was mended or left out of a row that is taken, or of a file."""

    row: int | None
    """Counted from 0; None: the file, or many rows."""
    field_id: str | None
    what: str


class Report:
    """Collects refusals and notices of the rows of one file.

    A row may break several rules; all of them stand in its one rejection, the first names it.
    """

    def __init__(self, rows: int, lines: Sequence[int] | None = None) -> None:
        self.refused = np.zeros(rows, dtype=bool)
        self._lines = lines
        self._problems: dict[int, list[tuple[str, str]]] = defaultdict(list)
        self._notices: dict[str, list[tuple[int | None, str]]] = defaultdict(list)

    def refuse(self, row: int, rule: str, reason: str) -> None:
        """A row breaks a rule."""
        self.refused[row] = True
        self._problems[row].append((rule, reason))

    def note(self, row: int | None, kind: str, what: str) -> None:
        """Something of a row (None: of the file) was mended or left out; notices of one kind are told together."""
        self._notices[kind].append((row, what))

    def finish(self, ids: Objects) -> tuple[list[Rejection], list[Notice]]:
        """All of it, in the order of rows; `ids` holds text, or None where a row has no usable id."""
        rejected = [self._rejection(row, ids[row]) for row in sorted(self._problems)]
        notices = [notice for group in self._notices.values() for notice in self._told(group, ids)]
        return rejected, sorted(notices, key=lambda notice: -1 if notice.row is None else notice.row)

    def _rejection(self, row: int, field_id: str | None) -> Rejection:
        problems = self._problems[row]
        reason = "; also ".join(dict.fromkeys(reason for _, reason in problems))
        return Rejection(row, field_id, problems[0][0], reason_of(row, field_id, reason, self._line(row)))

    def _line(self, row: int) -> str:
        return "" if self._lines is None else f" (line {self._lines[row]})"

    def _told(self, group: list[tuple[int | None, str]], ids: Objects) -> list[Notice]:
        kept = [(row, what) for row, what in group if row is None or not self.refused[row]]
        if len(kept) > SINGLE_NOTICES:
            row, what = kept[0]
            return [Notice(None, None, f"{len(kept)} rows, the first of them row {row}: {what}")]
        return [Notice(row, None if row is None else ids[row], what) for row, what in kept]


def reason_of(row: int, field_id: str | None, reason: str, line: str = "") -> str:
    """A reason that begins with the row and the field it is about."""
    named = "" if field_id is None else f", field {field_id!r}"
    return f"row {row}{line}{named}: {reason}"


def naming_file(name: str) -> Callable[[str], FieldFileError]:
    """Makes the error that refuses the whole file `name`."""
    return lambda reason: FieldFileError(f"{name}: {reason}")


def objects(values: Sequence[object]) -> Objects:
    """A one-dimensional array of Python objects, whatever they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
