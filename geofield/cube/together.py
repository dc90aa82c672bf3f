"""Waiting for a store in many places at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

Found = TypeVar("Found")

_THREADS = 32


@cache
def _pool() -> ThreadPoolExecutor:
    """One for the process: a day of a box would start and end thirty threads, which takes longer than what they do."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="geofield-store")


# threads do not pass on to a forked process
os.register_at_fork(after_in_child=_pool.cache_clear)


def together(work: Mapping[str, Callable[[], Found]]) -> dict[str, Found]:
    """Do things that mostly wait for the store at the same time; their results by name.

    What is done must not call this itself: all threads might wait for one that is not there.
    """
    if not work:
        return {}
    first, *others = work
    waiting = {name: _pool().submit(work[name]) for name in others}
    try:
        found = {first: work[first]()}
    finally:
        wait(waiting.values())
    return found | {name: one.result() for name, one in waiting.items()}
