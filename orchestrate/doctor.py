"""Whether this machine and a store are fit for work: versions, credentials, the store's promises, time, disk."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from geofield.errors import GeofieldError
from orchestrate.masking import mask

State = Literal["ok", "warning", "wrong"]

PACKAGES = ("icechunk", "zarr", "deltalake", "dask", "distributed", "numpy", "xarray", "rasterio", "exactextract")
EXTRAS = {"matplotlib": "plots", "dask-kubernetes": "kube", "dagster": "dagster", "lonboard": "notebook"}
_LITTLE_DISK = 2e9
_CLOCK_S = 300
_ANSWER_S = 60
_SWAPS = 20
_CREDENTIALS = {
    "AWS": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN",
            "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    "endpoint": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "Planetary Computer": ("PC_SDK_SUBSCRIPTION_KEY",),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    advice
        What to do, where something is not as it should be.
    """

    what: str
    state: State
    said: str
    advice: str = ""


def examine(store: str | None = None, cluster: str | None = None) -> Iterator[Finding]:
    """Look at everything; what fails is a finding, never an error.

    Parameters
    ----------
    store
        A directory or `s3://bucket/prefix`. What is probed there is removed again.
    cluster
        As `--cluster` takes it; default: none is looked for.
    """
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("versions", _versions), ("credentials", _credentials), ("time", _time), ("disk", lambda: _disk(store)),
    ]  # fmt: skip
    if store is not None:
        checks.append(("store", lambda: _store(store)))
    if cluster is not None:
        checks.append(("cluster", lambda: _cluster(cluster)))
    for what, check in checks:
        try:
            yield from check()
        except GeofieldError as error:
            yield Finding(what, "wrong", mask(str(error)))
        except Exception as error:  # a doctor who faints helps nobody
            yield Finding(what, "wrong", mask(f"{type(error).__name__}: {error}"), "Set GEOFIELD_DEBUG=1 for more.")


def _versions() -> Iterator[Finding]:
    import geofield

    yield Finding("Python", "ok", ".".join(str(part) for part in sys.version_info[:3]))
    yield Finding("geofield", "ok", geofield.__version__)
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "wrong", "not installed", "Install geofield again: pip install geofield.")
    for name, extra in EXTRAS.items():
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "ok", f"not installed; comes with pip install 'geofield[{extra}]'")


def _credentials() -> Iterator[Finding]:
    for kind, names in _CREDENTIALS.items():
        there = [name for name in names if os.environ.get(name)]
        yield Finding(f"credentials: {kind}", "ok", f"{', '.join(there)} set" if there else "none in the environment")
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
    yield Finding("credentials: file", "ok", f"{file} is {'there' if file.is_file() else 'not there'}")
    key, secret = (bool(os.environ.get(name)) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if key != secret:
        lacking = "AWS_SECRET_ACCESS_KEY" if key else "AWS_ACCESS_KEY_ID"
        yield Finding("credentials: pair", "wrong", f"{lacking} is not set, its counterpart is", f"Set {lacking} too.")


def _time() -> Iterator[Finding]:
    now = dt.datetime.now(dt.UTC)
    local = now.astimezone()
    said = f"{now:%Y-%m-%d %H:%M} UTC; here it is {local:%Y-%m-%d %H:%M} ({local.tzname()})"
    if local.date() != now.date():
        said += "; the date differs: days are those of UTC"
    yield Finding("time", "ok", said)
    try:
        ZoneInfo("Europe/Ljubljana")
    except Exception:  # ZoneInfoNotFoundError, or a broken database
        yield Finding("time zones", "wrong", "no time zone database", "Install it: pip install tzdata.")
    else:
        yield Finding("time zones", "ok", "the database is there")


def _disk(store: str | None) -> Iterator[Finding]:
    places = {"disk for temporary files": Path(tempfile.gettempdir())}
    if store is not None and "://" not in store:
        places["disk of the store"] = _existing(Path(store))
    for what, place in places.items():
        free = shutil.disk_usage(place).free
        said = f"{free / 1e9:,.1f} GB free at {place}"
        if free < _LITTLE_DISK:
            yield Finding(what, "warning", said, "Days of a large box take gigabytes: free some, or use another place.")
        else:
            yield Finding(what, "ok", said)


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() or path == path.parent else _existing(path.parent)


def _store(url: str) -> Iterator[Finding]:
    import geofield
    from geofield.errors import NotFoundError

    try:
        opened = geofield.open_store(url)
    except NotFoundError as error:
        yield Finding("store", "warning", mask(str(error)), "Without it the store's server cannot be tried.")
        return
    boxes = len([info for info in opened.location.list("boxes") if info.key.endswith(".json")])
    yield Finding("store", "ok", f"{mask(opened.url)} opens; boxes: {boxes}")
    opened.location.probe(swaps=_SWAPS)
    yield Finding("conditional writes", "ok", "kept: of two writers one wins, and who reads meanwhile sees one whole")
    yield from _clock(opened.location)


def _clock(location: object) -> Iterator[Finding]:
    """The clock of the store beside ours: what is left behind by dead runs is told by its age."""
    key = f"inbox/.doctor-{os.getpid()}"
    write, delete, listed = (getattr(location, name) for name in ("write", "delete", "list"))
    write(key, b"")
    try:
        (info,) = [info for info in listed("inbox") if info.key == key]
    finally:
        delete(key)
    apart = abs((info.modified - dt.datetime.now(dt.UTC)).total_seconds())
    if apart > _CLOCK_S:
        yield Finding("clock", "warning", f"{apart:,.0f} s apart from the store's", "Set this machine's clock (NTP).")
    else:
        yield Finding("clock", "ok", f"as the store's, within {max(1, round(apart))} s")


def _cluster(kind: str) -> Iterator[Finding]:
    from orchestrate import cluster as clusters
    from orchestrate.threads import Threads

    with clusters.connect(kind, None if "://" in kind else 1) as client:
        if isinstance(client, Threads):
            yield Finding("cluster", "ok", f"{client.workers} threads of this process")
            return
        number = len(client.scheduler_info()["workers"])
        state: State = "ok" if number else "warning"
        yield Finding("cluster", state, f"{clusters.label(client)} answers; workers: {number}",
                      "" if number else "Nothing is computed until one joins.")  # fmt: skip
        if number:
            yield Finding(
                "cluster: work", "ok" if client.submit(sum, [1, 2]).result(60) == 3 else "wrong", "a task came back"
            )
