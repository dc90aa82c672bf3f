"""The planner on a model of a store: whatever arrives when, and wherever work is cut, it ends in one state.

The model keeps what planning goes by and nothing else: which days a cube holds and from which version of each scene,
which rows there are and what they were made from. Steps do to it what the runner does to a store.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from orchestrate.plan import plan
from orchestrate.work import (
    Append,
    BoxExtent,
    BoxProgress,
    Correct,
    CubeDays,
    FieldDays,
    FillLate,
    Gap,
    Reduce,
    Remove,
    Step,
)

FIRST = dt.date(2025, 4, 1)
BOX = BoxExtent("b", FIRST, pixels=100, tiles=1)
SCENES = range(1, 13)


def d(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number - 1)


@dataclass
class World:
    """What is true outside: field -> (version, planting, harvest), and day -> version of its scene (0: none yet)."""

    fields: dict[str, tuple[int, int, int | None]] = field(default_factory=dict)
    scenes: dict[int, int] = field(default_factory=dict)


@dataclass
class Model:
    """What a store holds.

    Attributes
    ----------
    cube
        One digest a day: what it and all days before it were made from.
    rows
        (field, day) -> (version of the field, digest of the day).
    """

    world: World = field(default_factory=World)
    cube: list[tuple[int, ...]] = field(default_factory=list)
    rows: dict[tuple[str, int], tuple[int, tuple[int, ...]]] = field(default_factory=dict)

    def digests(self, until: int) -> list[tuple[int, ...]]:
        """What the days are made from, as the world is now."""
        scenes = [self.world.scenes.get(number, 0) for number in range(1, until + 1)]
        return [tuple(scenes[: number + 1]) for number in range(until)]

    def wanted(self) -> dict[tuple[str, int], tuple[int, tuple[int, ...]]]:
        """The rows that the cube's days call for."""
        return {
            (name, number): (version, self.cube[number - 1])
            for name, (version, planted, harvested) in self.world.fields.items()
            for number in range(max(1, planted), min(len(self.cube), harvested or 99) + 1)
        }

    # --- what the planner is given ---------------------------------------------------------------------------------

    def steps(self, until: int) -> list[Step]:
        fields = [
            FieldDays(name, max(FIRST, d(planted)), None if harvested is None else d(harvested))
            for name, (_, planted, harvested) in self.world.fields.items()
        ]
        held = CubeDays(FIRST, d(len(self.cube)), len(self.cube)) if self.cube else CubeDays()
        return plan({"b": BOX}, {"b": held}, {"b": fields}, {"b": self.progress()}, d(until))

    def progress(self) -> BoxProgress:
        wanted = self.wanted()
        gaps = []
        for name, (version, _, _) in self.world.fields.items():
            days = sorted(day for (one, day), row in wanted.items() if one == name and self.rows.get((one, day)) != row)
            surplus = sum(
                1
                for (one, day), row in self.rows.items()
                if one == name and ((one, day) not in wanted or row[0] != version)
            )
            if days or surplus:
                ends = (d(days[0]), d(days[-1])) if days else (None, None)
                gaps.append(Gap(name, len(days), *ends, surplus))
        strays: dict[str, int] = {}
        for name, _ in self.rows:
            if name not in self.world.fields:
                strays[name] = strays.get(name, 0) + 1
        now = self.digests(len(self.cube))
        changed = tuple(d(number) for number, digest in enumerate(self.cube, 1) if now[number - 1] != digest)
        return BoxProgress(tuple(gaps), strays, changed)

    # --- what steps do, each in parts between which a process may die ------------------------------------------------

    def do(self, step: Step, known: World, left: list[int]) -> None:
        if isinstance(step, Append):
            for number in range(len(self.cube) + 1, (step.end - FIRST).days + 2):
                self.commit(left, lambda number=number: self.cube.append(self.digests(number)[-1]))  # type: ignore[misc]
                self.write(left, known, set(known.fields), {number})
        elif isinstance(step, Correct):
            amended = self.digests(len(self.cube))
            self.commit(left, lambda: self.cube.__setitem__(slice(None), amended))
            self.write(left, known, set(known.fields), set(SCENES))
        elif isinstance(step, FillLate):
            self.write(left, known, set(step.fields), set(SCENES), whole=True)
        elif isinstance(step, Reduce):
            days = {number for number in SCENES if step.start <= d(number) <= step.end}
            self.write(left, known, set(step.fields), days)
        elif isinstance(step, Remove):
            gone = set(step.fields)
            self.commit(left, lambda: [self.rows.pop(key) for key in list(self.rows) if key[0] in gone])

    def write(self, left: list[int], known: World, names: set[str], days: set[int], whole: bool = False) -> None:
        def put() -> None:
            if whole:
                for key in [key for key in self.rows if key[0] in names]:
                    del self.rows[key]
            for (name, day), row in self.wanted().items():
                if name in names and day in days and name in known.fields:
                    self.rows[name, day] = row

        self.commit(left, put)

    def commit(self, left: list[int], change: object) -> None:
        """One change that is there as a whole or not at all; the process dies before it when nothing is `left`."""
        if left[0] == 0:
            raise Died
        left[0] -= 1
        change()  # type: ignore[operator]


class Died(Exception):  # noqa: N818 - it is no error
    """The process is gone."""


def run(model: Model, until: int, dies_at: int = -1) -> None:
    """As the runner: steps in order; it looks once more afterwards."""
    left = [dies_at]
    try:
        for _ in range(2):
            for step in model.steps(until):
                model.do(step, model.world, left)
    except Died:
        return


EVENTS = st.one_of(
    st.tuples(st.just("field"), st.sampled_from("ABC"), st.integers(-1, 10), st.none() | st.integers(4, 12)),
    st.tuples(st.just("gone"), st.sampled_from("ABC")),
    st.tuples(st.just("scene"), st.integers(1, 12)),
    st.tuples(st.just("run"), st.integers(0, 12), st.integers(-1, 12)),
)


def happen(model: Model, event: tuple[object, ...], version: int) -> None:
    kind, *what = event
    if kind == "field":
        name, planted, harvested = what
        model.world.fields[name] = (version, planted, harvested)  # type: ignore[index, assignment]
    elif kind == "gone":
        model.world.fields.pop(what[0], None)  # type: ignore[call-overload]
    elif kind == "scene":
        model.world.scenes[what[0]] = version  # type: ignore[index]
    else:
        run(model, *what)  # type: ignore[arg-type]


@given(st.lists(EVENTS, max_size=25))
def test_any_history_ends_as_an_undisturbed_run(events: list[tuple[object, ...]]) -> None:
    model = Model()
    for version, event in enumerate(events, 1):
        happen(model, event, version)
    last = max([12, len(model.cube)])
    run(model, last)
    other = Model(model.world)
    run(other, last)
    assert model.cube == other.cube
    assert model.rows == other.rows == other.wanted()


@given(st.lists(EVENTS, max_size=25))
def test_a_run_leaves_nothing_to_do(events: list[tuple[object, ...]]) -> None:
    model = Model()
    for version, event in enumerate(events, 1):
        happen(model, event, version)
    run(model, 12)
    assert model.steps(12) == []
    assert model.steps(5) == []


@given(st.lists(EVENTS, max_size=20), st.integers(0, 30))
def test_dying_anywhere_and_running_again_changes_nothing(events: list[tuple[object, ...]], point: int) -> None:
    cut, whole = Model(), Model()
    for version, event in enumerate(events, 1):
        happen(cut, event, version)
        happen(whole, event, version)
    run(cut, 12, point)
    run(cut, 12)
    run(whole, 12)
    assert (cut.cube, cut.rows) == (whole.cube, whole.rows)


@given(st.permutations([("field", name, 1 + 3 * number, None) for number, name in enumerate("ABC")]))
def test_order_of_arrival_does_not_matter(events: list[tuple[object, ...]]) -> None:
    model = Model()
    for number, event in enumerate(events):
        happen(model, event, 7)
        run(model, 3 * number)
    run(model, 12)
    whole = Model(model.world)
    run(whole, 12)
    assert model.rows == whole.rows
    assert len(model.rows) == 12 + 9 + 6


@given(st.lists(EVENTS, max_size=25), st.integers(0, 12))
def test_steps_are_bounded_and_name_what_is_there(events: list[tuple[object, ...]], until: int) -> None:
    """Late work first, nothing appended twice or with a gap, no field twice among what is filled."""
    model = Model()
    for version, event in enumerate(events, 1):
        happen(model, event, version)
    steps = model.steps(until)
    appends = [step for step in steps if isinstance(step, Append)]
    assert appends == steps[len(steps) - len(appends) :]
    assert len(appends) == (1 if until > len(model.cube) else 0)
    assert all((step.start, step.end) == (d(len(model.cube) + 1), d(until)) for step in appends)
    filled = [name for step in steps if isinstance(step, FillLate | Reduce) for name in step.fields]
    assert len(filled) == len(set(filled))
    assert set(filled) <= set(model.world.fields)
