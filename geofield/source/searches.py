"""What sources keep of their catalogues for as long as a run lasts, so that each thing is asked once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

Kept = TypeVar("Kept")

_lock = threading.Lock()
_scopes: list[dict[Hashable, Any]] = []


@contextlib.contextmanager
def searches_kept() -> Iterator[None]:
    """Inside the block, sources of this process that are opened with the same settings share what they found.

    What a catalogue says afterwards is seen by the next block, and by sources that are opened outside of one.
    """
    own: dict[Hashable, Any] = {}
    with _lock:
        _scopes.append(own)
    try:
        yield
    finally:
        with _lock:
            _scopes.remove(own)


def shared(key: Hashable, make: Callable[[], Kept]) -> Kept:
    """What is kept under a key in the innermost block; made now when there is none, or no block."""
    with _lock:
        if not _scopes:
            return make()
        scope = _scopes[-1]
        if key not in scope:
            scope[key] = make()
        found: Kept = scope[key]
        return found
