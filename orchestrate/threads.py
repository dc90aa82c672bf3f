"""The threads of this process, as the place where Dask works."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Threads:
    """No cluster: the threads of this process."""

    workers: int


class _Pool(ThreadPoolExecutor):
    """A pool that is left behind, as None, where Dask's configuration is sent to a worker's process."""

    @property
    def size(self) -> int:
        return self._max_workers

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


class _Pools:
    """The pools in use; the newest is the one of Dask's configuration.

    That configuration is the process's, while runs in several threads come and go in any order: so what the first of
    them found is put back by the last, and no pool is closed while another run may still be handing it tasks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: list[_Pool] = []
        self._left: list[_Pool] = []
        self._settings: Any = None

    def enter(self, number: int) -> _Pool:
        with self._lock:
            pool = _Pool(number, thread_name_prefix="tile")
            self._used.append(pool)
            settings = _configured(pool)
            self._settings = self._settings or settings
            return pool

    def leave(self, pool: _Pool) -> None:
        with self._lock:
            self._used.remove(pool)
            self._left.append(pool)
            if self._used:
                _configured(self._used[-1])
                return
            closing, self._left = self._left, []
            settings, self._settings = self._settings, None
            settings.__exit__(None, None, None)
        for one in closing:
            one.shutdown()


def _configured(pool: _Pool) -> Any:
    """Dask's configuration is changed by this; leaving the context that is returned puts it back."""
    import dask

    return dask.config.set(scheduler="threads", num_workers=pool.size, pool=pool)


_POOLS = _Pools()


@contextlib.contextmanager
def threads(number: int) -> Iterator[Threads]:
    """Have Dask work in so many threads for as long as the context lasts.

    One pool for all threads that ask for work: without it each would get threads of its own from Dask.
    """
    pool = _POOLS.enter(number)
    try:
        yield Threads(number)
    finally:
        _POOLS.leave(pool)
