"""Collecting garbage, while others are at work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.cube import upkeep
from geofield.cube.attempt import Attempt, NewDay, writer_of
from geofield.cube.cube import Cube, swap, to_day
from geofield.cube.upkeep import Freed, branches, collect, garbage, remove_branches
from geofield.errors import ConfigurationError, LostRaceError
from geofield.pipeline import append_day, append_days, correct_days
from tests.test_pipeline import DAY1, DAY2, DAY3, FIRST, SCENES, SMALL, THIRD, A, B, Work, make_box, scene

NOW = dt.timedelta(0)
APPENDING = ["grow", "begin", "fork", "_merged", "write", "publish"]


@pytest.fixture(autouse=True)
def an_hour_later() -> Iterator[None]:
    """Collections look at a clock that is ahead: what was just written is older than no time at all, on any server."""
    before = upkeep._before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "_before", lambda age: before(age) + dt.timedelta(hours=1))
        yield


@pytest.fixture
def work(store_url: str) -> Work:
    made = Work(store_url, make_box(SMALL))
    append_day(DAY1, SCENES, made.fields(A=A), made.cube, made.results)
    return made


def abandoned(work: Work) -> tuple[Attempt, str]:
    """An attempt that was written and never published; its snapshot."""
    attempt = Attempt(work.cube, work.cube.tip())
    step = len(work.cube.head().days)
    attempt.grow([NewDay(to_day(DAY1) + step, True, np.ones((1, 1), np.uint64))])
    writer = writer_of(attempt.fork())
    zarr.open_group(writer.session.store, mode="r+")["ndvi"][step] = 7  # type: ignore[index]
    return attempt, attempt.write([writer], ["[]"], "append", {})


def kinds(cube: Cube) -> list[str | None]:
    """What the commits of the present say they are, the newest first."""
    return [one.metadata.get("kind") for one in cube.repository.ancestry(branch="main")]


def test_garbage_goes_and_everything_published_stays(work: Work) -> None:
    append_days(DAY2, DAY3, SCENES, work.fields(A=A, B=B), work.cube, work.results)
    history = [one.id for one in work.cube.repository.ancestry(branch="main")]
    before, rows = work.objects(), work.rows()
    abandoned(work)
    waste = set(work.objects()) - set(before)
    assert any("/chunks/" in key for key in waste) or any("/manifests/" in key for key in waste)
    assert garbage(work.cube) == collect(work.cube) == Freed()  # younger than the bound
    found = garbage(work.cube, NOW)
    assert set(work.objects()) == waste | set(before)
    assert found.objects > 0
    assert found.bytes > 0
    assert collect(work.cube, NOW) == found
    after = work.objects()
    present = "cubes/b/refs/branch.main/ref.json"
    assert {key: after.get(key) for key in before if key != present} == {
        key: data for key, data in before.items() if key != present
    }
    fresh = Cube(work.location, "b")
    assert [one.id for one in fresh.repository.ancestry(branch="main")][1:] == history
    assert kinds(fresh)[:2] == ["collect", "append"]
    assert fresh.open()["ndvi"][0].values == pytest.approx(FIRST)
    pd.testing.assert_frame_equal(work.rows(), rows)
    (first,) = (one.id for one in fresh.repository.ancestry(branch="main") if one.message == "append 2025-04-01")
    assert len(fresh.open(as_of=first)["time"]) == 1
    tip = fresh.tip()
    assert collect(work.cube, NOW) == Freed()
    assert fresh.tip() == tip  # nothing to remove: nobody is disturbed


def test_a_negative_age_is_refused(work: Work) -> None:
    with pytest.raises(ConfigurationError, match="An age is positive"):
        collect(work.cube, -dt.timedelta(hours=1))


def test_branches_are_listed_and_removed(work: Work) -> None:
    work.cube.repository.create_branch("rebuild-x", work.cube.tip())
    work.cube.repository.create_branch("mine", work.cube.tip())
    (found,) = branches(work.cube, "rebuild-")
    assert (found.name, found.snapshot) == ("rebuild-x", work.cube.tip())
    assert dt.datetime.now(dt.UTC) - found.active < dt.timedelta(minutes=10)
    assert remove_branches(work.cube, ["rebuild-x", "gone"]) == ["rebuild-x"]
    assert set(work.cube.repository.list_branches()) == {"main", "mine"}


# --- while others are at work ----------------------------------------------------------------------------------------


def collecting(
    monkeypatch: pytest.MonkeyPatch, work: Work, step: str, when: str, times: int, keep: dt.timedelta
) -> list[Freed]:
    """Collect before or after a step of an attempt, the first `times` times; what was freed."""
    freed: list[Freed] = []
    original: Callable[..., Any] = getattr(Attempt, step)
    left = [times]

    def now() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Attempt, step, original)
            abandoned(work)
        freed.append(collect(Cube(work.location, "b"), keep))

    def interfered(self: Attempt, *args: Any, **more: Any) -> Any:
        doing = left[0] > 0
        left[0] -= 1
        if doing and when == "before":
            now()
        result = original(self, *args, **more)
        if doing and when == "after":
            now()
        return result

    monkeypatch.setattr(Attempt, step, interfered)
    return freed


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", APPENDING)
def test_an_append_that_was_collected_starts_over(
    work: Work, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    freed = collecting(monkeypatch, work, step, when, 1, NOW)
    append_days(DAY2, DAY3, SCENES, work.fields(A=A), work.cube, work.results)
    monkeypatch.undo()
    assert [one.objects > 0 for one in freed] == [True]
    fresh = Cube(work.location, "b")
    assert fresh.head().days.tolist() == [to_day(day) for day in (DAY1, DAY2, DAY3)]
    assert fresh.open()["ndvi"][2, 0].values == pytest.approx(THIRD[0])
    assert fresh.open()["ndvi_filled"][2, 1, 1].values == pytest.approx(FIRST[1, 1])
    assert len(work.rows()) == 3
    assert kinds(fresh).count("append") == 2
    assert kinds(fresh).count("collect") == 1
    assert list(fresh.repository.list_branches()) == ["main"]


@pytest.mark.parametrize("step", ["fork", "_merged", "write", "publish"])
def test_an_append_that_is_always_collected_says_so_and_changes_nothing(
    work: Work, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    rows = work.rows()
    collecting(monkeypatch, work, step, "before", 99, NOW)
    with pytest.raises(LostRaceError) as caught:
        append_day(DAY2, SCENES, work.fields(A=A), work.cube, work.results)
    assert caught.value.action == "retry"
    monkeypatch.undo()
    fresh = Cube(work.location, "b")
    assert fresh.head().days.tolist() == [to_day(DAY1)]
    pd.testing.assert_frame_equal(work.rows(), rows)
    assert append_day(DAY2, SCENES, work.fields(A=A), fresh, work.results).days_appended == 1


@pytest.mark.parametrize("step", ["begin", "fork", "_merged", "amend", "publish"])
def test_a_correction_that_was_collected_starts_over(work: Work, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    late = type(SCENES)(SMALL, [scene(DAY1, version="2", ndvi=FIRST / 2)])
    freed = collecting(monkeypatch, work, step, "before", 1, NOW)
    report = correct_days(DAY1, late, work.fields(A=A), work.cube, work.results)
    monkeypatch.undo()
    assert len(freed) == 1
    assert (report.days_amended, report.rows_written) == (1, 1)
    assert Cube(work.location, "b").open()["ndvi"][0].values == pytest.approx(FIRST / 2)


@pytest.mark.parametrize("step", ["fork", "_merged", "write", "publish"])
def test_an_attempt_survives_a_collection_with_the_default_bound(
    work: Work, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    freed = collecting(monkeypatch, work, step, "before", 1, upkeep.DEAD_AFTER)
    report = append_days(DAY2, DAY3, SCENES, work.fields(A=A), work.cube, work.results)
    monkeypatch.undo()
    assert freed == [Freed()]
    assert report.days_appended == 2
    fresh = Cube(work.location, "b")
    assert "collect" not in kinds(fresh)
    assert fresh.open()["ndvi"][2, 0].values == pytest.approx(THIRD[0])


# shards as large as these lie in objects of their own
WIDE = GeoBox((100, 100), Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")


def test_a_collectors_clock_that_is_ahead_loses_nothing(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append begins after the branches were moved; to the collector, its objects are older than the bound."""
    image = np.random.default_rng(5).uniform(0, 0.9, WIDE.shape)
    work, source = Work(store_url, make_box(WIDE)), type(SCENES)(WIDE, [scene(DAY1, ndvi=image)])
    abandoned(work)
    collected, swapped = upkeep._collected, swap
    ahead = upkeep.DEAD_AFTER + dt.timedelta(hours=1)
    monkeypatch.setattr(upkeep, "_before", lambda age: dt.datetime.now(dt.UTC) + ahead - age)

    def late(cube: Cube, snapshot: str, expected: str) -> None:
        collected(work.cube, bounds[0], dry_run=False)
        swapped(cube, snapshot, expected)

    bounds: list[dt.datetime] = []

    def overtaken(cube: Cube, before: dt.datetime, *, dry_run: bool) -> Freed:
        if not dry_run:
            bounds.append(before)
            append_day(DAY1, source, work.fields(), Cube(work.location, "b"), work.results)
        return Freed() if bounds else collected(cube, before, dry_run=True)

    monkeypatch.setattr("geofield.cube.attempt.swap", late)
    monkeypatch.setattr(upkeep, "_collected", overtaken)
    collect(work.cube)
    assert len(bounds) == 1
    assert Cube(work.location, "b").open()["ndvi"][0].values == pytest.approx(image, abs=1e-4)


def test_what_was_collected_cannot_be_published(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer slept for longer than the bound, woke up between writing and publishing, and its objects are gone."""
    image = np.random.default_rng(5).uniform(0, 0.9, WIDE.shape)
    work, source = Work(store_url, make_box(WIDE)), type(SCENES)(WIDE, [scene(DAY1, ndvi=image)])
    lost: list[str] = []

    def overtaken(cube: Cube, snapshot: str, expected: str) -> None:
        if not lost:
            assert collect(Cube(work.location, "b"), NOW).objects > 0
            lost.append(snapshot)
            with pytest.raises(LostRaceError):
                swap(cube, snapshot, expected)
            raise LostRaceError("Another writer published first.")
        swap(cube, snapshot, expected)

    monkeypatch.setattr("geofield.cube.attempt.swap", overtaken)
    append_day(DAY1, source, work.fields(), work.cube, work.results)
    assert len(lost) == 1
    assert Cube(work.location, "b").open()["ndvi"][0].values == pytest.approx(image, abs=1e-4)


def test_nobody_publishes_beside_a_collection_either(work: Work) -> None:
    """A cube that is being built on another branch."""
    beside = Cube(work.location, "b", "rebuild-x")
    work.cube.repository.create_branch("rebuild-x", work.cube.tip())
    work.cube.repository.create_branch("rebuild-x-empty", list(work.cube.repository.ancestry(branch="main"))[-1].id)
    slow = Attempt(beside, beside.tip())
    slow.grow([NewDay(to_day(DAY2), True, np.ones((1, 1), np.uint64))])
    snapshot = slow.write([], ["[]"], "append", {})
    assert collect(work.cube, NOW).objects > 0
    with pytest.raises(LostRaceError):
        slow.publish(snapshot)
    assert len(Cube(work.location, "b", "rebuild-x").head().days) == 1


def test_a_publication_that_comes_first_is_as_good_as_the_collections_own(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, snapshot = abandoned(work)
    before = {one.id for one in work.cube.repository.ancestry(branch="main")}

    def raced(cube: Cube, mine: str, expected: str) -> None:
        monkeypatch.undo()
        other = Work(work.location.url, make_box(SMALL))
        append_day(DAY2, SCENES, other.fields(A=A), other.cube, other.results)
        swap(cube, mine, expected)

    monkeypatch.setattr(upkeep, "swap", raced)
    assert collect(work.cube, NOW).objects > 0
    fresh = Cube(work.location, "b")
    assert kinds(fresh)[0] == "append"
    assert fresh.head().days.tolist() == [to_day(DAY1), to_day(DAY2)]
    assert fresh.open()["ndvi_filled"][1, 1, 1].values == pytest.approx(FIRST[1, 1])
    assert before < {one.id for one in fresh.repository.ancestry(branch="main")}
    with pytest.raises(LostRaceError):
        slow.publish(snapshot)


# --- what is no garbage ----------------------------------------------------------------------------------------------


def test_the_past_of_a_changed_box_is_no_garbage(work: Work) -> None:
    tip = work.cube.tip()
    root = [one.id for one in work.cube.repository.ancestry(branch="main")][-1]
    work.cube.repository.create_tag("until-20250401T000000.000000-x", tip)
    work.cube.repository.reset_branch("main", root)
    collect(work.cube, NOW)
    fresh = Cube(work.location, "b")
    assert fresh.open(as_of=tip)["ndvi"][0].values == pytest.approx(FIRST)
