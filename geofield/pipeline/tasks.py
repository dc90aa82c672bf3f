"""What Dask's tasks are called: on its dashboard they are grouped and coloured by kind, and each says what it is at."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from dask.base import annotate
from dask.delayed import Delayed, delayed


def task_key(kind: str, box_id: str, day: dt.date | None, place: str, attempt: str) -> str:
    """Such as `append-(tomaj 2016-04-01 tile 3,2) 20260401T052114Z-9f3c5a1e-b70d21`.

    Dask takes for the kind of a task what stands before the first part that is no word, so it begins with a bracket.

    Parameters
    ----------
    day
        None for what belongs to several days.
    attempt
        From `unique`.
    """
    what = " ".join(str(part) for part in (box_id, day, place) if part)
    return f"{kind}-({what}) {attempt}"


def bound(function: Callable[..., Any], *given: Any, **options: Any) -> Delayed:
    """A task that has its first arguments and its options; what it is then called with may be other tasks.

    Dask looks for tasks in everything that a task is called with, down to each field of each dataclass. Of boxes and
    grids that takes longer than all else of a graph, and finds nothing.
    """
    task: Delayed = delayed(partial(function, *given, **options), pure=False, traverse=False)
    return task


def unique(name: str) -> str:
    """A name for one call of Dask: a cluster that still knows a task of that key would not compute it again."""
    return f"{name}-{secrets.token_hex(3)}"


def annotated(kind: str, box_id: str, run: str) -> AbstractContextManager[None]:
    """What is built meanwhile carries annotations, for plugins of Dask's scheduler and its logs."""
    annotations: AbstractContextManager[None] = annotate(geofield={"kind": kind, "box": box_id, "run": run})
    return annotations
