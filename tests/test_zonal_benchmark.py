"""The benchmark runs, and measures what it says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "zonal.py"


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(SCRIPT))["main"](["--size", "512", "--fields", "10", "--rounds", "1"])
    printed = capsys.readouterr().out
    assert re.search(r"^10 fields, [4-6],\d{3} pixels, \d+ segments, grid 512 x 512$", printed, re.MULTILINE)
    for name in ("five moments", "moments, median, two quantiles"):
        assert re.search(rf"^{name}: exactextract \d+\.\d ms$", printed, re.MULTILINE)
    assert len(re.findall(r"further day, .*\(1/\d+\.\d\)$", printed, re.MULTILINE)) == 6
