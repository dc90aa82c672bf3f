"""Loaded by every process of a cluster that a run starts, and what runs ask of them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

from geofield.errors import ConfigurationError

EXPECTED = "GEOFIELD_EXPECTED_VERSIONS"
"""Variable: what the runner has, package -> version, as JSON."""


def dask_setup(server: Any) -> None:
    """Called by Dask in a scheduler, nanny or worker that starts.

    Ctrl-C, which a terminal sends to every process, is left to the one that started the cluster: it closes it.

    A pod whose packages are others than the runner's ends here, which Kubernetes tells as CrashLoopBackOff and the run
    with the reason: a worker may come hours after the run began, on a node that has another image under the same name.
    """
    if type(server).__name__ == "Worker":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return
    try:
        check_versions(os.environ.get(EXPECTED) or "{}")
    except ConfigurationError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - the pod's log
        os._exit(1)  # Dask logs what a preload raises, and goes on


def check_versions(expected: str) -> None:
    """Compare what is installed here with what the runner has, as JSON."""
    wanted: dict[str, str] = json.loads(expected)
    faults = differences(wanted, versions(tuple(wanted)))
    if faults:
        raise ConfigurationError(
            f"This pod has other packages than the runner: {'; '.join(faults)}. Rows have to come from one version."
        )


def differences(runner: Mapping[str, str], pod: Mapping[str, str]) -> list[str]:
    """Packages of which two places have different versions, each with both."""
    return [
        f"{name} {version_} in the runner, {pod.get(name, 'none')} in the pod"
        for name, version_ in sorted(runner.items())
        if version_ != pod.get(name)
    ]


def versions(names: Sequence[str]) -> dict[str, str]:
    """Package -> version as installed in this process; `python` is one of them, and `none` what is missing."""
    found = {"python": ".".join(python_version().split(".")[:2])}
    for name in names:
        if name != "python":
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "none"
    return found


def knock(dask_scheduler: Any) -> None:
    """Let the scheduler count its idle time from now on."""
    dask_scheduler.idle_since = None
