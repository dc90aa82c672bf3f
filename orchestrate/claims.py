"""Which boxes a run is at work in, said where other runs see it, for as long as it is.

Nothing is locked: a claim keeps another run from taking a box before all others, and says that notes of it have to be
compared with what stands. What two runs do in one box at the same time is right all the same, done twice.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

from geofield.errors import GeofieldError
from orchestrate import hints

if TYPE_CHECKING:
    from geofield import Store

RENEWED_EVERY_S = hints.BUSY_FOR.total_seconds() / 3
"""A claim that is older than `hints.BUSY_FOR` counts for nothing: a dead run must not hold up another one."""


class Claims:
    """The claims of one run; a context, in which they are renewed.

    Parameters
    ----------
    say
        Told what could not be noted.
    """

    def __init__(self, store: Store, run_id: str, say: Callable[[str], None]) -> None:
        self._store, self._run_id, self._say = store, run_id, say
        self._held: dict[str, dt.datetime] = {}
        self._lock = threading.Lock()
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._renew, name="claims", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()

    def is_foreign(self, box_id: str) -> bool:
        """Whether another run says that it is at work in a box now: one LIST. False when that cannot be told."""
        try:
            return hints.is_busy(hints.marks_of(self._store, box_id), self._run_id, dt.datetime.now(dt.UTC))
        except GeofieldError:
            return False

    def put(self, box_id: str) -> None:
        """Claim a box; should the process die, the claim stays, and no note is believed unseen."""
        now = dt.datetime.now(dt.UTC)
        hints.put_mark(self._store, box_id, self._run_id, now)
        with self._lock:
            self._held[box_id] = now

    @contextlib.contextmanager
    def held(self, box_id: str, is_noted: Callable[[], bool]) -> Iterator[None]:
        """Give a claimed box back afterwards, without a note unless a new one was written."""
        try:
            yield
        except Exception:
            self._give_back(box_id, is_noted())
            raise
        self._give_back(box_id, is_noted())

    def _give_back(self, box_id: str, is_noted: bool) -> None:
        with self._lock:
            self._held.pop(box_id, None)
        try:
            if not is_noted:
                self._store.location.delete(f"{hints.FOLDER}/{box_id}.json")
            hints.drop_marks(self._store, box_id, self._run_id, dt.datetime.now(dt.UTC))
        except GeofieldError as error:
            self._say(f"box {box_id}: that it is done was not noted, which harms nothing: {error}")

    def _renew(self) -> None:
        while not self._is_over.wait(RENEWED_EVERY_S):
            with self._lock:
                held = dict(self._held)
            for box_id, since in held.items():
                with contextlib.suppress(GeofieldError):
                    hints.put_mark(self._store, box_id, self._run_id, since)
            with self._lock:
                gone = [box_id for box_id in held if box_id not in self._held]
            for box_id in gone:  # given back meanwhile: it must not be claimed anew
                with contextlib.suppress(GeofieldError):
                    hints.drop_marks(self._store, box_id, self._run_id, dt.datetime.now(dt.UTC))
