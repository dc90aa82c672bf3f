"""The benchmark runs, and measures what it says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "zonal.py"


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(SCRIPT))["main"](["--size", "512", "--fields", "10", "--rounds", "1", "--slow-rounds", "0"])
    printed = capsys.readouterr().out
    assert re.search(r"^10 fields of [4-6],\d{3} pixels in \d+ blocks; 512 x 512 float32$", printed, re.MULTILINE)
    share = r"(1/\d+\.\d|\d+\.\d\d)"  # whichever is faster on a busy machine
    for name in ("five moments", "moments, median, two quantiles"):
        assert re.search(rf"^  exactextract, {name} +\d+\.\d +\d+\.\d +1\.00, 1\.00$", printed, re.MULTILINE)
        assert re.search(rf"^  further day, {name} +\d+\.\d +\d+\.\d +{share}, {share}$", printed, re.MULTILINE)
    assert re.search(r"^  kernel alone, of the floor: wall \d+\.\d+, CPU \d+\.\d+$", printed, re.MULTILINE)
