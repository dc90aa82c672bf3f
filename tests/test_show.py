"""What people see on a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from orchestrate.show import table

HEADINGS = ("box", "start", "last day", "days", "acquisitions", "fields", "done", "late", "rows", "to write")
ROW = ("a-rather-long-id-of-a-box", "2025-04-01", "2025-04-30", 30, 15, 1234567, 4321, 17, 129631, 503)
WHOLE = ("2025-04-01", "2025-04-30", "1,234,567", "4,321", "129,631", "503")


def printed(shown: Any, width: int) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width, highlight=False, markup=False).print(shown)
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 160])
def test_no_value_is_cut_whatever_the_width(width: int) -> None:
    lines = printed(table(HEADINGS, [ROW, ("b", *ROW[1:])], "Boxes"), width)
    assert max(len(line) for line in lines) <= width
    text = "\n".join(lines)
    assert all(text.count(value) == 2 for value in WHOLE)
    assert ROW[0] in text or ROW[0] in "".join(line.split()[0] for line in lines if line.strip())  # folded


def test_a_table_becomes_a_list_where_there_is_no_room() -> None:
    assert printed(table(HEADINGS[:4], [ROW[:4]]), 30) == [
        "box a-rather-long-id-of-a-box",
        "  start     2025-04-01",
        "  last day  2025-04-30",
        "  days      30",
    ]


def test_a_table_takes_the_room_there_is() -> None:
    lines = printed(table(("box", "reason"), [("b", "this and that")]), 60)
    assert [line.rstrip() for line in lines if line.strip()][::2] == [" box   reason", " b     this and that"]
