"""Tables on a terminal of any width: no value is cut, whatever the room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

_EDGES, _BETWEEN = 2, 3  # characters that rich puts around a table, and between two columns of it
_FOLDED = 8  # no column of text and no heading is folded into narrower pieces


@dataclass(frozen=True)
class Column:
    """A column of texts.

    Attributes
    ----------
    is_text
        To the left, and folded where there is little room; numbers are whole and to the right.
    is_whole
        Never folded: dates, ids of runs.
    """

    heading: str
    cells: tuple[str, ...]
    is_text: bool = False
    is_whole: bool = False

    @property
    def widest(self) -> int:
        """Width at which nothing is folded."""
        return max(_width(self.heading), self._widest_cell)

    @property
    def narrowest(self) -> int:
        """Width at which everything can still be read: a long text is folded, a number is not."""
        heading = max((_width(word) for word in self.heading.split()), default=1)
        least = min(self._widest_cell, _FOLDED) if self.is_text and not self.is_whole else self._widest_cell
        return max(1, least, min(heading, _FOLDED))

    @property
    def _widest_cell(self) -> int:
        return max((_width(cell) for cell in self.cells), default=0)


@dataclass(frozen=True)
class FittedTable:
    """A table where there is room for one; else a list of its rows, one value a line."""

    columns: Sequence[Column]
    title: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        widths = _widths(self.columns, options.max_width)
        if widths is None:
            yield from self._listed()
        else:
            yield self._table(widths)

    def _table(self, widths: Sequence[int]) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        made = Table(box=box.SIMPLE_HEAD, title=self.title, title_justify="left", title_style="bold", pad_edge=False)
        for column, width in zip(self.columns, widths, strict=True):
            made.add_column(column.heading, justify="left" if column.is_text else "right", overflow="fold", width=width)
        for row in zip(*(column.cells for column in self.columns), strict=True):
            made.add_row(*(Text(value) for value in row))
        return made

    def _listed(self) -> Iterator[RenderableType]:
        from rich.text import Text

        first, *others = self.columns
        wide = max((_width(column.heading) for column in others), default=0)
        if self.title is not None:
            yield Text(self.title, style="bold", overflow="fold")
        for row, name in enumerate(first.cells):
            yield Text(f"{first.heading} {name}", overflow="fold")
            for column in others:
                yield Text(f"  {column.heading:<{wide}}  {column.cells[row]}", overflow="fold")


def _widths(columns: Sequence[Column], room: int) -> list[int] | None:
    """A width for each column; None where there is no room for them beside one another."""
    free = room - _EDGES - _BETWEEN * (len(columns) - 1)
    widest = [column.widest for column in columns]
    if sum(widest) <= free:
        return widest
    widths = [column.narrowest for column in columns]
    if sum(widths) > free:
        return None
    for _ in range(free - sum(widths)):  # what is left goes to the narrowest of those that want more
        wanting = [at for at, width in enumerate(widths) if width < widest[at]]
        widths[min(wanting, key=widths.__getitem__)] += 1
    return widths


def _width(text: str) -> int:
    from rich.cells import cell_len

    return max((cell_len(line) for line in text.splitlines()), default=0)
