"""Commands run by a user who may not write: root is held to the bits of files like anybody else."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

_DROP, _CAPABILITIES = 24, (1, 2)  # PR_CAPBSET_DROP; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
_SCRIPT = """
import contextlib, io, json, sys
from orchestrate.cli import main
told = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    told.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def read_only(folder: Path) -> None:
    """Take the right to write from everything below a folder."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)


def commands(*words: Sequence[str]) -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of each, run one after another in a process of their own.

    What threads of libraries put on stderr past Python is an error.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(words)], capture_output=True, text=True, preexec_fn=_drop, check=True
    )  # fmt: skip
    assert done.stderr == ""
    told: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return [(status, out, err) for status, out, err in told]


def _drop() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for number in _CAPABILITIES if os.geteuid() == 0 else ():
        libc.prctl(_DROP, number, 0, 0, 0)


def skip_where_bits_do_not_count(folder: Path) -> None:
    """Skip the test where whoever runs it can write everywhere and cannot be kept from it."""
    place = folder / "closed"
    place.mkdir(mode=0o555)
    script = "import sys; open(sys.argv[1], 'w')"
    tried = subprocess.run(
        [sys.executable, "-c", script, str(place / "x")], capture_output=True, preexec_fn=_drop, check=False
    )
    if not tried.returncode:
        pytest.skip("this user can write to any file, and may not give that up")
