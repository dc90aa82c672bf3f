"""Waiting for a store in many places at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Found = TypeVar("Found")


def together(work: Mapping[str, Callable[[], Found]]) -> dict[str, Found]:
    """Do things that mostly wait for the store at the same time; their results by name."""
    if len(work) < 2:
        return {name: one() for name, one in work.items()}
    with ThreadPoolExecutor(len(work)) as pool:
        waiting = {name: pool.submit(one) for name, one in work.items()}
        return {name: one.result() for name, one in waiting.items()}
