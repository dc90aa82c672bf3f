"""Any order of appends, corrections, late and moved fields, crashes and races, against a model that is a dictionary.

The model knows which version of which scene every published day was made from, and which fields were filled. What the
store must hold follows from it: the pixels by arithmetic, the rows by a fresh store that nothing disturbs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from geofield.cube.attempt import Attempt
from geofield.errors import GeofieldError, MissingDaysError
from geofield.pipeline import BoxFields, append_days, correct_days, fill_late_fields, refresh_rows
from geofield.results.rows import Results
from geofield.table import Table
from tests.support.soak import SOAK, rounds
from tests.support.workload import (
    START,
    State,
    Work,
    check_cube,
    check_rows,
    day,
    extend,
    fields_of,
    image,
    in_this_thread,
    source,
    state,
)

pytestmark = pytest.mark.timeout(14400)

LAST = 8
STEPS: list[tuple[Any, str]] = [
    (Attempt, "grow"),
    (Attempt, "begin"),
    (Attempt, "write"),
    (Attempt, "amend"),
    (Attempt, "publish"),
    (Results, "commit"),
    (Table, "commit"),
]
PLACES = {
    "left": [shapely.box(500015, 5489805, 500105, 5489895), shapely.box(500215, 5489805, 500305, 5489895)],
    "both": [shapely.box(502505, 5489800, 502615, 5489900), shapely.box(502455, 5489780, 502655, 5489890)],
    "right": [shapely.box(502705, 5489805, 502795, 5489995), shapely.box(502805, 5489805, 502895, 5489995)],
}
numbers = st.integers(1, LAST)


class Killed(BaseException):
    """The process dies here."""


@contextmanager
def at_step(number: int, after: bool, action: Callable[[], None]) -> Iterator[None]:
    """Do something the first time that any work comes to a step."""
    owner, name = STEPS[number]
    call = getattr(owner, name)
    done: list[bool] = []

    def disturbed(*values: Any, **named: Any) -> Any:
        if not after and not done:
            done.append(True)
            action()
        result = call(*values, **named)
        if after and not done:
            done.append(True)
            action()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, disturbed)
        yield


def die() -> None:
    raise Killed


class BoxMachine(RuleBasedStateMachine):
    """One box. `catalog` is what the source offers, `published` what each day of the cube was made from."""

    @initialize(catalog=st.dictionaries(numbers, st.just(1), min_size=3), first=st.integers(0, 4))
    def make(self, catalog: dict[int, int], first: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="geofield-stateful-")
        self.url = str(Path(self.folder.name) / "store")
        with in_this_thread():
            Work(self.url).create()
        self.catalog = catalog
        self.published: dict[int, int] = {}
        self.fields: dict[str, int] = {"left": 0}
        self.past: list[tuple[str, dict[int, int]]] = []
        self.held: list[tuple[Any, np.ndarray[Any, Any]]] = []
        if first:
            self.append(first)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    # --- what is done ------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> BoxFields:
        return fields_of(**{name: PLACES[name][place] for name, place in sorted(self.fields.items())})

    def _append(self, last: int) -> None:
        first = len(self.published) + 1
        work = Work(self.url)
        append_days(day(min(first, last)), day(last), source(self.catalog), self.ready, work.cube, work.results)

    def _correct(self) -> None:
        work = Work(self.url)
        correct_days(START, source(self.catalog), self.ready, work.cube, work.results)

    def _appended(self, last: int) -> None:
        for number in range(len(self.published) + 1, last + 1):
            self.published[number] = self.catalog.get(number, 0)

    def _corrected(self) -> None:
        self.published = {number: self.catalog.get(number, 0) for number in self.published}

    @rule(last=numbers)
    def append_up_to(self, last: int) -> None:
        self.append(last)

    def append(self, last: int) -> None:
        with in_this_thread():
            self._append(last)
        self._appended(last)

    @rule(gap=st.integers(2, 3))
    def append_after_a_gap(self, gap: int) -> None:
        work, number = Work(self.url), len(self.published) + gap
        with in_this_thread(), pytest.raises(MissingDaysError, match="Missing"):
            append_days(day(number), day(number), source(self.catalog), self.ready, work.cube, work.results)

    @rule(number=numbers, version=st.integers(1, 3))
    def a_scene_comes_or_changes(self, number: int, version: int) -> None:
        self.catalog = {**self.catalog, number: version}

    @precondition(lambda self: len(self.catalog) > 1)
    @rule(data=st.data())
    def a_scene_is_withdrawn(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.catalog)))
        self.catalog = {number: version for number, version in self.catalog.items() if number != gone}

    @rule()
    def correct(self) -> None:
        with in_this_thread():
            self._correct()
        self._corrected()

    @rule(name=st.sampled_from(sorted(PLACES)), place=st.integers(0, 1), is_filled=st.booleans())
    def a_field_comes_or_moves(self, name: str, place: int, is_filled: bool) -> None:
        """Filled at once, or left to what comes next."""
        self.fields = {**self.fields, name: place}
        work = Work(self.url)
        with in_this_thread():
            if is_filled:
                fill_late_fields(fields_of(**{name: PLACES[name][place]}), work.cube, work.results)

    @rule(
        step=st.integers(0, len(STEPS) - 1),
        after=st.booleans(),
        last=numbers,
        what=st.sampled_from(["append", "correct"]),
    )
    def crash(self, step: int, after: bool, last: int, what: str) -> None:
        try:
            with in_this_thread(), at_step(step, after, die):
                self._append(last) if what == "append" else self._correct()
        except Killed:
            pass
        # it may have been published or not, and nothing else
        before = dict(self.published)
        self._appended(last) if what == "append" else self._corrected()
        if check_cube(Work(self.url).cube) == before:
            self.published = before

    @rule(
        step=st.integers(0, len(STEPS) - 1), after=st.booleans(), last=numbers, other=numbers,
        what=st.sampled_from(["append", "correct"]), others=st.sampled_from(["append", "correct"]),
    )  # fmt: skip
    def race(self, step: int, after: bool, last: int, other: int, what: str, others: str) -> None:
        """Another writer does all of its work while this one stands at a step."""

        def overtake() -> None:
            self._append(other) if others == "append" else self._correct()

        with in_this_thread(), at_step(step, after, overtake):
            try:
                self._append(last) if what == "append" else self._correct()
            except GeofieldError as error:
                if error.action != "retry":
                    raise
                self._append(last) if what == "append" else self._correct()
        found = check_cube(Work(self.url).cube)
        before = dict(self.published)
        if what == "append":
            self._appended(last)
        if others == "append" and len(found) > len(self.published):
            self._appended(other)
        if "correct" in (what, others) and found != self.published:
            self._corrected()
        assert list(found)[: len(before)] == list(before)

    @rule()
    def the_next_run(self) -> None:
        """What the planner asks for, and then everything is as if nothing had ever gone wrong."""
        work = Work(self.url)
        with in_this_thread():
            self._correct()
            refresh_rows(self.ready, work.cube, work.results)
        self._corrected()
        found = state(self.url)
        assert found == undisturbed(self.published, self.fields)

    # --- what is read ------------------------------------------------------------------------------------------------

    @rule()
    def remember(self) -> None:
        self.past.append((Work(self.url).cube.tip(), dict(self.published)))
        if self.published:
            view = Work(self.url).cube.open()
            self.held.append((view, view["ndvi"].values))

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        snapshot, published = data.draw(st.sampled_from(self.past))
        view = Work(self.url).cube.open(as_of=snapshot)
        assert view.sizes["time"] == len(published)
        for number, version in published.items():
            assert_pixels(view["ndvi"][number - 1].values, number, version)

    @invariant()
    def the_cube_is_the_models(self) -> None:
        if not hasattr(self, "url"):
            return
        assert check_cube(Work(self.url).cube) == self.published

    @invariant()
    def rows_are_unique_and_of_published_days(self) -> None:
        if not hasattr(self, "url"):
            return
        rows = Work(self.url).results.read()
        check_rows(rows)
        assert not len(rows) or rows["date"].max() <= day(len(self.published))

    @invariant()
    def what_is_held_open_stays(self) -> None:
        for view, before in getattr(self, "held", [])[-2:]:
            assert np.array_equal(view["ndvi"].values, before, equal_nan=True)


def assert_pixels(found: np.ndarray[Any, Any], number: int, version: int) -> None:
    expected = image(number, version) if version else np.full(found.shape, np.nan)
    assert np.allclose(found, expected, rtol=0, atol=1e-9, equal_nan=True)


_known: dict[tuple[Any, ...], State] = {}


def undisturbed(published: dict[int, int], fields: dict[str, int]) -> State:
    """A fresh store where every scene and every field was there from the beginning."""
    key = (tuple(sorted(published.items())), tuple(sorted(fields.items())))
    if key not in _known:
        with tempfile.TemporaryDirectory(prefix="geofield-fresh-") as folder, in_this_thread():
            work = Work(f"{folder}/store").create()
            ready = fields_of(**{name: PLACES[name][place] for name, place in sorted(fields.items())})
            scenes = {number: version for number, version in published.items() if version}
            if published:
                # a source without any scene has no bands; one of another year does no harm
                extend(work, 1, len(published), scenes or {15: 1}, ready)
            _known[key] = state(f"{folder}/store")
    return _known[key]


class Long(BoxMachine):
    """The same, for longer."""


# shrinking a history of seconds takes minutes: only for a person who looks for the cause
PHASES = tuple(Phase) if SOAK else (Phase.explicit, Phase.generate)
TestBox = BoxMachine.TestCase
TestBox.settings = settings(max_examples=3, stateful_step_count=15, phases=PHASES)
TestLong = pytest.mark.slow(Long.TestCase)
TestLong.settings = settings(max_examples=rounds(20, 200), stateful_step_count=25, phases=PHASES)
