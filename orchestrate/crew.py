"""A few threads that work through a list; when one of them is told to stop, all finish what they have in hand."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

_GLANCE_S = 0.5  # a wait without end would keep Ctrl-C from the main thread on some systems


Later = Callable[[str], bool]
"""Says whether an item waits until all others were begun; asked once for each."""


class Crew:
    """Threads that take items from one queue.

    Each thread sees the context variables of the one that made the crew: Dask's client is one of them.

    Parameters
    ----------
    size
        How many items are worked on at once.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.stopping = threading.Event()
        self._raised: list[BaseException] = []
        self._ended = threading.Semaphore(0)
        self._count = 0

    def work(self, items: Iterable[str], do: Callable[[str], None], later: Later | None = None) -> None:
        """Call `do` for each item.

        What `do` raises, or Ctrl-C in the thread that waits here, ends it: no further item is begun, those in hand
        are finished, then it is raised again. A second Ctrl-C waits for nothing.
        """
        queue = _Queue(items, later)
        threads = [
            threading.Thread(
                target=contextvars.copy_context().run, args=(self._take, queue, do), name=f"box-{number}", daemon=True
            )
            for number in range(min(self.size, len(queue)))
        ]
        for thread in threads:
            thread.start()
        try:
            self._wait_for(threads)
        except KeyboardInterrupt:
            self.stopping.set()
            self._wait_for(threads)
            raise
        if self._raised:
            raise self._raised[0]

    def wait(self, seconds: float) -> None:
        """Sleep, but not on when the crew is to stop."""
        self.stopping.wait(seconds)

    def _wait_for(self, threads: Sequence[threading.Thread]) -> None:
        # Not Thread.join: interrupted by Ctrl-C, Python 3.11 takes the thread for ended and never waits for it again.
        while self._count < len(threads):
            if self._ended.acquire(timeout=_GLANCE_S):
                self._count += 1

    def _take(self, queue: _Queue, do: Callable[[str], None]) -> None:
        try:
            while not self.stopping.is_set():
                item = queue.next()
                if item is None:
                    return
                do(item)
        except BaseException as error:  # raised again by the thread that waits
            self._raised.append(error)
            self.stopping.set()
        finally:
            self._ended.release()


class _Queue:
    def __init__(self, items: Iterable[str], later: Later | None) -> None:
        self._items, self._put_off = deque(items), deque[str]()
        self._later = later
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def next(self) -> str | None:
        while True:
            with self._lock:
                if not self._items:
                    return self._put_off.popleft() if self._put_off else None
                item = self._items.popleft()
            if self._later is None or not self._later(item):
                return item
            with self._lock:
                self._put_off.append(item)
