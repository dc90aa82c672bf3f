"""A box that changes its mind: a new cube beside the old one, swapped in when complete."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import pytest

from geofield.boxes import Box
from geofield.cube.cube import Cube
from geofield.errors import LostRaceError
from geofield.pipeline import (
    BoxFields,
    append_days,
    box_fields,
    correct_days,
    fill_late_fields,
    missing_rows,
    rebuild_cube,
    refresh_rows,
)
from geofield.results.rows import Results
from geofield.testing.source import ArraySource
from tests.test_pipeline import DAY1, DAY2, DAY3, FIRST, SMALL, THIRD, A, B, Work, field_table, make_box, scene

SOURCE = ArraySource(SMALL, [scene(DAY1, ndvi=FIRST, wet=FIRST / 2), scene(DAY3, ndvi=THIRD, wet=THIRD / 2)])
CHANGES: dict[str, dict[str, Any]] = {
    "noise": {"ndvi": {"band": "ndvi", "valid_range": [-1, 1], "state": "kalman", "q": 1e-3}},
    "range": {"ndvi": {"band": "ndvi", "valid_range": [0.2, 1], "state": "kalman"}},
    "precision": {"ndvi": {"band": "ndvi", "valid_range": [-1, 1], "state": "kalman", "precision": 1e-6}},
    "no state": {"ndvi": {"band": "ndvi", "valid_range": [-1, 1]}},
    "another variable": {
        "ndvi": {"band": "ndvi", "valid_range": [-1, 1], "state": "kalman"},
        "wet": {"band": "wet", "valid_range": [-1, 1], "stats": ["mean"]},
    },
    "a tile": {},
}


def changed_box(box: Box, change: str) -> Box:
    if change == "a tile":
        assert box.pixels is not None
        return box.model_copy(update={"pixels": box.pixels | {"tile": 512}})
    return Box.model_validate(box.model_dump() | {"variables": CHANGES[change]})


def ready(box: Box) -> BoxFields:
    return box_fields(box, field_table(A=A, B=B))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_box_equals_one_that_was_so_from_the_start(store_url: str, tmp_path: Path, change: str) -> None:
    work = Work(store_url, make_box(SMALL))
    new = changed_box(work.box, change)
    fresh = Work(str(tmp_path / "fresh"), new)
    append_days(DAY1, DAY3, SOURCE, ready(work.box), work.cube, work.results)
    old_view, old_rows, tip = work.cube.open().load(), work.rows(), work.cube.tip()
    before = dt.datetime.now(dt.UTC)

    report = rebuild_cube(new, SOURCE, work.cube, work.results)
    assert report.days_appended == 3
    refresh_rows(ready(new), work.cube, work.results)
    append_days(DAY1, DAY3, SOURCE, ready(new), fresh.cube, fresh.results)
    rows = work.rows()[list(fresh.rows().columns)]
    pd.testing.assert_frame_equal(rows, fresh.rows(), check_exact=True)
    one, other = work.cube.open(), fresh.cube.open()
    assert set(one.data_vars) == set(other.data_vars)
    for name in other.data_vars:
        assert np.array_equal(one[name].values, other[name].values, equal_nan=True), name
    assert list(work.cube.repository.list_branches()) == ["main"]

    for past in (tip, before):
        then = Cube(work.location, "b").open(as_of=past).load()
        assert then.drop_attrs().identical(old_view.drop_attrs())
    if change != "a tile":
        assert len(work.results.read(as_of=1)) == len(old_rows)
    assert rebuild_cube(new, SOURCE, work.cube, work.results).days_appended == 0


def test_a_rebuild_that_was_cut_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(str(tmp_path / "store"), make_box(SMALL))
    append_days(DAY1, DAY3, SOURCE, ready(work.box), work.cube, work.results)
    new, old = changed_box(work.box, "noise"), work.cube.open().load()
    monkeypatch.setattr("geofield.pipeline.append.WINDOW", 1)
    from geofield.cube.attempt import Attempt

    publish, published = Attempt.publish, []

    def cut(self: Attempt, snapshot: str) -> None:
        if len(published) == 2:
            raise KeyboardInterrupt
        published.append(snapshot)
        publish(self, snapshot)

    with monkeypatch.context() as patch:
        patch.setattr(Attempt, "publish", cut)
        with pytest.raises(KeyboardInterrupt):
            rebuild_cube(new, SOURCE, work.cube, work.results)
    assert work.cube.open().load().drop_attrs().identical(old.drop_attrs())  # readers see the old one
    assert rebuild_cube(new, SOURCE, Cube(work.location, "b"), work.results).days_appended == 1


def test_days_that_come_meanwhile_are_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(str(tmp_path / "store"), make_box(SMALL))
    append_days(DAY1, DAY2, SOURCE, ready(work.box), work.cube, work.results)
    adopt, raced = Cube.adopt, []

    def overtaken(self: Cube, other: Cube, expected: str, now: dt.datetime) -> None:
        if not raced:
            raced.append(expected)
            append_days(DAY3, DAY3, SOURCE, ready(work.box), Cube(work.location, "b"), work.results)
        adopt(self, other, expected, now)

    monkeypatch.setattr(Cube, "adopt", overtaken)
    new = changed_box(work.box, "noise")
    rebuild_cube(new, SOURCE, work.cube, work.results)
    assert work.cube.head().last == DAY3
    assert missing_rows(ready(new), work.cube, work.results)["days"].tolist() == [3, 3]


class Catalogue:
    """A source that is asked anew by its copies alone, as one that keeps what it found."""

    def __init__(self, offered: dict[str, ArraySource]) -> None:
        self.offered, self.source = offered, offered["now"]

    def __getstate__(self) -> dict[str, Any]:
        return {"offered": self.offered}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.offered, self.source = state["offered"], state["offered"]["now"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


@pytest.mark.parametrize("is_cut", [False, True], ids=["meanwhile", "while it lay cut"])
def test_a_scene_that_is_amended_meanwhile_is_in_the_new_cube_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cut: bool
) -> None:
    work = Work(str(tmp_path / "store"), make_box(SMALL))
    append_days(DAY1, DAY3, SOURCE, ready(work.box), work.cube, work.results)
    amended = ArraySource(SMALL, [scene(DAY1, version="2", ndvi=THIRD), scene(DAY2, ndvi=FIRST), *SOURCE.scenes[1:]])
    adopt, offered = Cube.adopt, {"now": SOURCE}

    def overtaken(self: Cube, other: Cube, expected: str, now: dt.datetime) -> None:
        if offered["now"] is SOURCE:
            offered["now"] = amended
            correct_days(DAY1, amended, ready(work.box), Cube(work.location, "b"), work.results)
            if is_cut:
                raise KeyboardInterrupt
        adopt(self, other, expected, now)

    monkeypatch.setattr(Cube, "adopt", overtaken)
    new = changed_box(work.box, "noise")
    if is_cut:
        with pytest.raises(KeyboardInterrupt):
            rebuild_cube(new, SOURCE, work.cube, work.results)
    rebuild_cube(new, Catalogue(offered), work.cube, work.results)  # type: ignore[arg-type]
    fresh = Work(str(tmp_path / "fresh"), new)
    append_days(DAY1, DAY3, amended, ready(new), fresh.cube, fresh.results)
    for name, values in fresh.cube.open().data_vars.items():
        assert np.array_equal(work.cube.open()[name].values, values.values, equal_nan=True), name


def test_who_loses_to_another_rebuild_builds_nothing_again(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(store_url, make_box(SMALL))
    append_days(DAY1, DAY3, SOURCE, ready(work.box), work.cube, work.results)
    new, adopt, tips = changed_box(work.box, "noise"), Cube.adopt, []

    def overtaken(self: Cube, *args: Any) -> None:
        monkeypatch.setattr(Cube, "adopt", adopt)
        rebuild_cube(new, SOURCE, Cube(work.location, "b"), Results(work.location, "b"))
        tips.append(Cube(work.location, "b").tip())
        adopt(self, *args)

    monkeypatch.setattr(Cube, "adopt", overtaken)
    assert rebuild_cube(new, SOURCE, work.cube, work.results).days_appended == 3
    assert tips == [work.cube.tip()]
    assert list(work.cube.repository.list_branches()) == ["main"]
    assert len(list(work.cube.repository.list_tags())) == 1


def test_a_writer_with_the_old_box_is_told(tmp_path: Path) -> None:
    work = Work(str(tmp_path / "store"), make_box(SMALL))
    append_days(DAY1, DAY2, SOURCE, ready(work.box), work.cube, work.results)
    rebuild_cube(changed_box(work.box, "another variable"), SOURCE, work.cube, work.results)
    with pytest.raises(LostRaceError, match="was changed meanwhile"):
        append_days(DAY3, DAY3, SOURCE, ready(work.box), Cube(work.location, "b"), Results(work.location, "b"))


def test_a_cube_that_was_opened_before_the_change_is_told_too(tmp_path: Path) -> None:
    """Its schema was read when it held the old arrays: the new ones have the same names, and another noise."""
    work = Work(str(tmp_path / "store"), make_box(SMALL))
    old, results = Cube(work.location, "b"), Results(work.location, "b")
    append_days(DAY1, DAY2, SOURCE, ready(work.box), old, results)
    rebuild_cube(changed_box(work.box, "noise"), SOURCE, work.cube, work.results)
    tip = work.cube.tip()
    for act in (
        lambda: append_days(DAY3, DAY3, SOURCE, ready(work.box), old, results),
        lambda: correct_days(DAY1, SOURCE, ready(work.box), old, results),
        lambda: fill_late_fields(ready(work.box), old, results),
    ):
        with pytest.raises(LostRaceError, match="was changed meanwhile"):
            act()
    assert work.cube.tip() == tip


@pytest.mark.parametrize(("removal", "left_to_do"), [(1, 3), (2, 0)], ids=["half made", "swapped in"])
def test_what_a_cut_left_beside_goes_with_the_next_call(
    store_url: str, monkeypatch: pytest.MonkeyPatch, removal: int, left_to_do: int
) -> None:
    """It dies before it removes the branch that is half made, or after the swap before it removes the other."""
    work = Work(store_url, make_box(SMALL))
    new = changed_box(work.box, "noise")
    append_days(DAY1, DAY3, SOURCE, ready(work.box), work.cube, work.results)
    removed: list[str] = []
    remove = icechunk.Repository.delete_branch

    def mortal(repository: icechunk.Repository, branch: str) -> None:
        removed.append(branch)
        if len(removed) == removal:
            raise KeyboardInterrupt
        remove(repository, branch)

    with monkeypatch.context() as patch:
        patch.setattr(icechunk.Repository, "delete_branch", mortal)
        with pytest.raises(KeyboardInterrupt):
            rebuild_cube(new, SOURCE, work.cube, work.results)
    again = Work(store_url, work.box)
    assert set(again.cube.repository.list_branches()) > {"main"}
    assert rebuild_cube(new, SOURCE, again.cube, again.results).days_appended == left_to_do
    assert list(again.cube.repository.list_branches()) == ["main"]


@pytest.mark.parametrize("ending", ["lost", "killed", "killed, then changed"])
def test_a_swap_that_did_not_happen_leaves_the_past_as_it_was(
    store_url: str, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    work = Work(store_url, make_box(SMALL))
    append_days(DAY1, DAY1, SOURCE, ready(work.box), work.cube, work.results)
    new, adopt, times = changed_box(work.box, "noise"), Cube.adopt, [dt.datetime.now(dt.UTC)]

    def next_day(day: dt.date) -> None:
        append_days(day, day, SOURCE, ready(work.box), Cube(work.location, "b"), work.results)
        times.append(dt.datetime.now(dt.UTC))

    def overtaken(self: Cube, other: Cube, expected: str, now: dt.datetime) -> None:
        monkeypatch.setattr(Cube, "adopt", adopt)
        next_day(DAY2)
        adopt(self, other, expected, dt.datetime.now(dt.UTC))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    if ending == "lost":
        monkeypatch.setattr(Cube, "adopt", overtaken)
        rebuild_cube(new, SOURCE, work.cube, work.results)
        assert len(list(work.cube.repository.list_tags())) == 1
    else:
        with monkeypatch.context() as patch:
            patch.setattr("geofield.cube.cube.swap", killed)
            other = work.cube.beside("rebuild-x", work.cube.schema)
            with pytest.raises(KeyboardInterrupt):
                # its clock is fast, so that the past that it names lies ahead
                work.cube.adopt(other, work.cube.tip(), dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
        next_day(DAY2)
    if ending == "killed, then changed":
        rebuild_cube(new, SOURCE, Cube(work.location, "b"), work.results)
    assert [len(Cube(work.location, "b").head(time).days) for time in times] == [1, 2]
