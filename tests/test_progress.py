"""What a run tells while it is at work: how far, how fast, how long still."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrate import progress
from orchestrate.progress import Bars, Lines, pace


@pytest.mark.parametrize(
    ("done", "total", "seconds", "told"),
    [
        (0, 10, 60, ""),
        (5, 10, 0.1, ""),
        (20, 100, 10, ", 2 days/s, 40 s left"),
        (1, 11, 30, ", 2 days/min, 5 min left"),
        (10, 10, 4, ", 2.5 days/s"),
    ],
)
def test_pace(done: int, total: int, seconds: float, told: str) -> None:
    assert pace(done, total, "days", seconds) == told


def test_lines_tell_rate_and_time_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    lines = Lines()
    lines.begin("north: days", 40, "days")
    now[0] += 10
    lines.advance(8)
    lines.boxes(3, 9)
    lines.boxes(4, 9)  # too soon after
    now[0] += 10
    lines.advance(32)
    lines.end()
    assert capsys.readouterr().err.splitlines() == [
        "north: days: 8 of 40 days, 48 days/min, 40 s left",
        "3 of 9 boxes, 18 boxes/min, 20 s left",
        "north: days: 40 of 40 days, 2 days/s",
    ]


def test_bars_tell_boxes_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich import console

    screen = io.StringIO()
    real = console.Console

    def terminal(**said: Any) -> Any:
        return real(file=screen, force_terminal=True, width=200)

    monkeypatch.setattr(console, "Console", terminal)
    monkeypatch.setattr(progress, "_TELLING_S", 0.0)
    with Bars() as bars:
        bars.begin("north: days", 4, "days")
        bars.advance(4)
        bars.boxes(1, 2)
        bars.end()
    shown = screen.getvalue()
    assert "4/4" in shown
    assert "days/s" in shown
    assert "1/2" in shown
