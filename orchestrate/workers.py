"""Loaded by every worker process of a local cluster."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the one that started the cluster: it closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
