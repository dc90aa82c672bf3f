"""Random histories of small stores: fields and scenes that come late or change, crashes, repetitions, two runners.

However a store came about, it ends with the rows and the view of one where everything was there from the beginning.
`GEOFIELD_SOAK=N` runs N x 500 of them.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import geofield
from geofield import Store
from geofield.cube.attempt import Attempt
from geofield.registry import FieldRegistry
from geofield.results.rows import Results
from orchestrate import run
from orchestrate.config import Settings
from orchestrate.inbox import submit
from orchestrate.threads import Threads
from tests.support.smallstore import box, day, feature, make_store, write_fields
from tests.support.soak import rounds

OLDEST = 400
"""Days: so late may a field or a scene come."""
SETTINGS = Settings(retry_wait_s=0, look_back=OLDEST + 60, boxes_at_once=2)
STEPS = {
    "grow": (Attempt, "grow"),
    "begin": (Attempt, "begin"),
    "write": (Attempt, "write"),
    "amend": (Attempt, "amend"),
    "publish": (Attempt, "publish"),
    "rows": (Results, "commit"),
    "remove": (Results, "remove"),
    "accept": (FieldRegistry, "accept"),
}


class Killed(BaseException):
    """The process dies here."""


@dataclass
class History:
    """One store and the facts of its world as they are known so far.

    Attributes
    ----------
    fields
        Id -> (x, y, side, planting day, harvest day) as last submitted.
    withheld
        Days whose scene has not come yet, by box.
    last
        The last day that a run was asked for.
    """

    store: Store
    folder: Path
    chance: random.Random
    boxes: list[str]
    revisit: int = 2
    fields: dict[str, tuple[int, int, int, int, int | None]] = field(default_factory=dict)
    withheld: dict[str, list[int]] = field(default_factory=dict)
    reprocessed: dict[str, dict[int, int]] = field(default_factory=dict)
    last: int = 1
    files: int = 0
    log: list[str] = field(default_factory=list)

    def submit(self, names: list[str]) -> None:
        path = write_fields(self.folder / f"f{self.files}.geojson", *(self._feature(name) for name in names))
        self.files += 1
        submit(self.store, [path])

    def _feature(self, name: str) -> dict[str, Any]:
        x, y, side, planted, harvested = self.fields[name]
        said = {} if harvested is None else {"harvest_date": day(harvested).isoformat()}
        return feature(name, x, y, side, planting_date=day(planted).isoformat(), **said)

    def source(self, name: str) -> dict[str, Any]:
        return {
            "type": "simulated",
            "seed": 5 + self.boxes.index(name),
            "revisit": self.revisit,
            "phase": 0,
            "withhold": [str(day(one)) for one in self.withheld.get(name, [])],
            "reprocessed": {str(day(one)): count for one, count in self.reprocessed.get(name, {}).items()},
        }

    def change_source(self, name: str) -> None:
        self.store.change_box(self.store.box(name).model_copy(update={"source": self.source(name)}))

    # --- what may happen -------------------------------------------------------------------------------------------

    def new_field(self) -> None:
        name = f"F{len(self.fields)}"
        planted = self.chance.randint(-2, self.last + 3)
        harvested = self.chance.choice([None, None, planted + self.chance.randint(0, 6)])
        if harvested is not None and harvested < 1:
            harvested = None
        self.fields[name] = (*self._place(), planted, harvested)
        self.submit([name])

    def moved_field(self) -> None:
        if self.fields:
            name = self.chance.choice(sorted(self.fields))
            self.fields[name] = (*self._place(), *self.fields[name][3:])
            self.submit([name])

    def earlier_planting(self) -> None:
        if self.fields:
            name = self.chance.choice(sorted(self.fields))
            x, y, side, planted, harvested = self.fields[name]
            earlier = self.chance.randint(1, self.chance.choice([4, OLDEST]))
            self.fields[name] = (x, y, side, planted - earlier, harvested)
            self.submit([name])

    def submitted_again(self) -> None:
        if self.fields:
            self.submit(sorted(self.fields))

    def late_scene(self) -> None:
        for name, days in self.withheld.items():
            if days:
                days.pop(self.chance.randrange(len(days)))
                self.change_source(name)
                return

    def reprocessed_scene(self) -> None:
        name = self.chance.choice(self.boxes)
        counts = self.reprocessed.setdefault(name, {})
        one = self.chance.randint(1, self.last)
        counts[one] = counts.get(one, 0) + 1
        self.change_source(name)

    def more_days(self) -> None:
        self.last += self.chance.randint(1, 3)
        self.run()

    def run(self) -> None:
        receipt = run(self.store, day(self.last), settings=SETTINGS)
        assert receipt["errors"] == [], receipt["errors"]

    def crash(self) -> None:
        self.last += self.chance.randint(0, 2)
        with dying(self.chance.randint(0, 7), self.chance.random() < 0.5):
            try:
                run(self.store, day(self.last), settings=SETTINGS)
            except Killed as death:
                self.log.append(f"  died at {death}")

    def two_runners(self) -> None:
        self.last += self.chance.randint(0, 2)
        both = threading.Barrier(2)
        faults: list[Any] = []

        def go() -> None:
            store = geofield.open_store(self.store.url)
            both.wait()
            try:
                faults.extend(run(store, day(self.last), settings=SETTINGS, client=_HERE)["errors"])
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=go) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []

    def lost_notes(self) -> None:
        for info in self.store.location.list("progress"):
            if self.chance.random() < 0.5:
                self.store.location.delete(info.key)

    def _place(self) -> tuple[int, int, int]:
        side = self.chance.choice([40, 95, 210])
        return self.chance.randint(-30, 380), self.chance.randint(-30, 380), side


# no cluster and no pool of its own: dask's threads
_HERE = Threads(2)

EVENTS = [
    "new_field", "new_field", "new_field", "new_field", "moved_field", "earlier_planting", "submitted_again",
    "late_scene", "late_scene", "reprocessed_scene", "more_days", "more_days", "run", "crash", "crash", "crash",
    "two_runners", "lost_notes",
]  # fmt: skip


@contextmanager
def dying(call: int, after: bool) -> Iterator[None]:
    """The process dies before or after the n-th of its steps, whichever they are; every thread of it."""
    lock = threading.Lock()
    left = [call]
    dead = threading.Event()

    def mortal(step: str, real: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            with lock:
                is_last = left[0] == 0
                left[0] -= 1
            if dead.is_set() or (is_last and not after):
                dead.set()
                raise Killed(f"before {step}")
            value = real(*args, **named)
            if is_last:
                dead.set()
                raise Killed(f"after {step}")
            return value

        return call

    with pytest.MonkeyPatch.context() as patch:
        for step, (owner, name) in STEPS.items():
            patch.setattr(owner, name, mortal(step, getattr(owner, name)))
        yield


def play(folder: Path, seed: int) -> History:
    """A store with a history."""
    chance = random.Random(seed)
    names = ["a", "b"][: chance.choice([1, 1, 2])]
    age = chance.choice([0, chance.randint(0, 60), chance.randint(0, 60), chance.randint(0, OLDEST)])
    revisit = 2 if age < 30 else 10  # what is long ago is mostly days without a scene, so that it costs little
    days = range(1, 1 + max(11, age), revisit if age >= 30 else 1)
    withheld = {name: sorted(chance.sample(days, chance.randint(0, 3))) for name in names}
    history = History(None, folder, chance, names, revisit, withheld=withheld, last=age + 1)  # type: ignore[arg-type]
    history.store = make_store(str(folder / "store"), *(box(name, source=history.source(name)) for name in names))
    if age and chance.random() < 0.7:
        history.run()  # what is submitted from now on is late
    for _ in range(chance.randint(4, 9)):
        event = chance.choice(EVENTS)
        history.log.append(event)
        getattr(history, event)()
    history.run()
    return history


def undisturbed(history: History, folder: Path) -> Store:
    """A store where all that is known now was known from the beginning, and one run did it all."""
    folder.mkdir()
    boxes = [box(name, source=history.source(name)) for name in history.boxes]
    store = make_store(str(folder / "store"), *boxes)
    if history.fields:
        path = write_fields(folder / "all.geojson", *(history._feature(name) for name in sorted(history.fields)))
        submit(store, [path])
    receipt = run(store, day(history.last), settings=SETTINGS)
    assert receipt["errors"] == []
    return store


def assert_same(one: Store, other: Store, names: list[str]) -> None:
    for name in names:
        rows, others = (
            store.rows(box=name).sort_values(["field_id", "date"]).reset_index(drop=True) for store in (one, other)
        )
        pd.testing.assert_frame_equal(rows, others, check_exact=True, check_dtype=len(rows) > 0)
        view, other_view = (store.cube(name).open() for store in (one, other))
        assert list(view.data_vars) == list(other_view.data_vars)
        assert np.array_equal(view["acquired"].values, other_view["acquired"].values)
        for variable in view.data_vars:
            assert view[variable].values.tobytes() == other_view[variable].values.tobytes(), (name, variable)


def check(seed: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    history = None
    try:
        history = play(folder, seed)
        assert_same(history.store, undisturbed(history, folder / "undisturbed"), history.boxes)
    except BaseException as error:
        error.add_note(f"history {seed}: {[] if history is None else history.log}")
        raise


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(rounds(20, 500)))
def test_history_ends_as_if_nothing_had_happened(tmp_path: Path, seed: int) -> None:
    check(seed, tmp_path / "h")
