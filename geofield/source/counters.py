"""How often pixels were read, and how many bytes: counted where the reading happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class ReadCounter:
    """Reads of pixels; several threads may add to it.

    Attributes
    ----------
    reads
        One for each acquisition and window that was read, however many bands.
    bytes
        Size of the windows that were read, decoded, in the type they are stored in. What went over the wire is not
        known (GDAL reads whole compressed blocks and keeps some), so this is no measure of traffic.
    """

    reads: int = 0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, nbytes: int) -> None:
        """Count one read."""
        with self._lock:
            self.reads += 1
            self.bytes += nbytes


TOTAL = ReadCounter()
"""Everything this process has read."""

_active: ContextVar[tuple[ReadCounter, ...]] = ContextVar("geofield_read_counters", default=())


def count_read(nbytes: int) -> None:
    """Count one read in `TOTAL` and in every `counting()` around the caller."""
    TOTAL.add(nbytes)
    for counter in _active.get():
        counter.add(nbytes)


@contextmanager
def counting() -> Iterator[ReadCounter]:
    """Count the reads made inside, by this thread or coroutine; may be nested, and other threads are not seen."""
    counter = ReadCounter()
    token = _active.set((*_active.get(), counter))
    try:
        yield counter
    finally:
        _active.reset(token)
