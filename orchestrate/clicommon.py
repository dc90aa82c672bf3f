"""What commands share: arguments and options, the store they name, one JSON document on stdout."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geofield.errors import ConfigurationError

if TYPE_CHECKING:
    from geofield import Store

Command = TypeVar("Command", bound=Callable[..., Any])
"""A function that becomes a command: the options below are its decorators."""

DONE, FAILED, WRONG = 0, 1, 2
"""Exit status: done; something failed; the call or its configuration is wrong."""

STORE = click.argument("store", envvar="GEOFIELD_STORE", required=False)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
CLUSTER = click.option("--cluster", metavar="threads|local|kube|tcp://..", help="Where the work runs; default threads.")
WORKERS = click.option("--workers", metavar="N|MIN:MAX", help="How many; default one for each CPU.")


def open_store(url: str | None) -> Store:
    """The store that a command names; `ConfigurationError` when it names none."""
    import geofield

    return geofield.open_store(named(url))


def named(url: str | None) -> str:
    """What was given for STORE; `ConfigurationError` when nothing was."""
    if not url:
        raise ConfigurationError("No store: give STORE, a directory or s3://bucket/prefix, or set GEOFIELD_STORE.")
    return url


def store_and_files(words: Sequence[str]) -> tuple[str | None, list[Path]]:
    """STORE and files; STORE may be left out where GEOFIELD_STORE says it."""
    default = os.environ.get("GEOFIELD_STORE")
    if not words:
        return default, []
    first = words[0]
    if default and not first.startswith("s3://") and not (Path(first) / "geofield.json").is_file():
        return default, [Path(word) for word in words]
    return first, [Path(word) for word in words[1:]]


def print_json(value: Any) -> None:
    """One document on stdout; dates as YYYY-MM-DD, times as ISO 8601."""
    import json

    click.echo(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, default=_plain))


def _plain(value: object) -> str:
    import datetime as dt

    if isinstance(value, dt.date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON")


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Libraries' warnings are for developers; people get sentences."""
    import warnings

    with warnings.catch_warnings():
        if not os.environ.get("GEOFIELD_DEBUG"):
            warnings.simplefilter("ignore")
        yield
