"""Waiting for a store in many places at once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping
from functools import cache
from typing import Any, TypeVar

Found = TypeVar("Found")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for the process, in a thread of its own: whoever waits may be in a running loop, as in a notebook."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="geofield-store", daemon=True).start()
    return loop


# threads do not pass on to a forked process
os.register_at_fork(after_in_child=_loop.cache_clear)


def together(work: Mapping[str, Coroutine[Any, Any, Found]]) -> dict[str, Found]:
    """Do things that mostly wait for the store at the same time; their results by name.

    The first error comes when nothing is at work any more.
    """
    waiting = asyncio.run_coroutine_threadsafe(_all(work), _loop())
    try:
        return waiting.result()
    finally:
        waiting.cancel()  # what is still at work, when this thread was interrupted


async def _all(work: Mapping[str, Coroutine[Any, Any, Found]]) -> dict[str, Found]:
    found = await asyncio.gather(*work.values(), return_exceptions=True)
    results: dict[str, Found] = {}
    for name, one in zip(work, found, strict=True):
        if isinstance(one, BaseException):
            raise one
        results[name] = one
    return results
