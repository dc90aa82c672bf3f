"""Sweeping dead attempts and collecting garbage, while others are at work."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import pytest
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from geofield.cube.attempt import Attempt, NewDay, load_fork
from geofield.cube.cube import Cube, to_day
from geofield.cube.upkeep import branches, collect, dead_attempts, sweep
from geofield.errors import ConfigurationError, LostRaceError, TransientError
from geofield.pipeline import Run, append_day, append_days, correct_days
from tests.test_pipeline import DAY1, DAY2, DAY3, FIRST, SCENES, SMALL, THIRD, A, B, Work, make_box, scene

HOUR = dt.timedelta(hours=1)
NOW = dt.timedelta(0)


@pytest.fixture
def work(store_url: str) -> Work:
    made = Work(store_url, make_box(SMALL))
    append_day(DAY1, SCENES, made.fields(A=A), made.cube, made.results)
    return made


def abandoned(work: Work, name: str) -> Attempt:
    """An attempt whose writer died after it had written a shard and committed it."""
    attempt = Attempt(work.cube, name, work.cube.tip())
    step = len(work.cube.head().days)
    attempt.grow([NewDay(to_day(DAY1) + step, True, np.ones((1, 1), np.uint64))])
    fork = load_fork(attempt.fork())
    zarr.open_group(fork.store, mode="r+")["ndvi"][step] = 7  # type: ignore[index]
    attempt.write([fork], ["[]"], "append", {})
    return attempt


def test_only_attempts_of_long_ago_are_swept(work: Work) -> None:
    abandoned(work, "20200101T000000Z-dead-2025-04-02-0")
    work.cube.repository.create_branch("mine", work.cube.tip())
    assert sweep(work.cube) == []  # its last commit is of just now
    assert [one.name for one in branches(work.cube)] == ["attempt-20200101T000000Z-dead-2025-04-02-0"]
    assert sweep(work.cube, NOW) == ["attempt-20200101T000000Z-dead-2025-04-02-0"]
    assert sweep(work.cube, NOW) == []
    assert set(work.cube.repository.list_branches()) == {"main", "mine"}
    assert len(work.cube.head().days) == 1


def test_an_attempt_that_has_committed_nothing_is_as_old_as_its_run(work: Work) -> None:
    repository = work.cube.repository
    early, late = Run("20250401T000000Z-11111111"), Run()
    for run in (early, late):
        repository.create_branch(f"attempt-{run.id}-correct-0", work.cube.tip())
    repository.create_branch("attempt-20251399T000000Z-x", work.cube.tip())  # no time: as old as its snapshot
    age = dt.datetime.now(dt.UTC) - repository.lookup_snapshot(work.cube.tip()).written_at
    assert dead_attempts(work.cube, age + HOUR) == []
    ages = {one.name: one.active for one in branches(work.cube)}
    written = repository.lookup_snapshot(work.cube.tip()).written_at
    assert ages[f"attempt-{early.id}-correct-0"] == written
    assert ages["attempt-20251399T000000Z-x"] == written
    assert ages[f"attempt-{late.id}-correct-0"] >= written.replace(microsecond=0)


def test_a_negative_age_is_refused(work: Work) -> None:
    with pytest.raises(ConfigurationError, match="An age is positive"):
        sweep(work.cube, -HOUR)


def sweeping(monkeypatch: pytest.MonkeyPatch, cube: Cube, step: str, when: str, times: int) -> list[str]:
    """Sweep everything away before or after a step of an attempt, the first `times` times; what was swept."""
    swept: list[str] = []
    original: Callable[..., Any] = getattr(Attempt, step)
    left = [times]

    def interfered(self: Attempt, *args: Any, **more: Any) -> Any:
        doing = left[0] > 0
        left[0] -= 1
        if doing and when == "before":
            swept.extend(sweep(Cube(cube.location, cube.box_id), NOW))
        result = original(self, *args, **more)
        if doing and when == "after":
            swept.extend(sweep(Cube(cube.location, cube.box_id), NOW))
        return result

    monkeypatch.setattr(Attempt, step, interfered)
    return swept


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["grow", "fork", "_merged", "write", "_check_alive"])
def test_an_append_that_loses_its_branch_starts_over(
    work: Work, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    swept = sweeping(monkeypatch, work.cube, step, when, times=1)
    append_days(DAY2, DAY3, SCENES, work.fields(A=A), work.cube, work.results)
    monkeypatch.undo()
    assert len(swept) == (0 if (step, when) == ("grow", "before") else 1)
    assert work.cube.head().days.tolist() == [to_day(day) for day in (DAY1, DAY2, DAY3)]
    assert work.cube.open()["ndvi"][2, 0].values == pytest.approx(THIRD[0])
    assert len(work.rows()) == 3
    assert list(work.cube.repository.list_branches()) == ["main"]


@pytest.mark.parametrize("step", ["fork", "_merged", "write", "_check_alive"])
def test_an_append_that_always_loses_its_branch_says_so_and_changes_nothing(
    work: Work, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    tip, rows = work.cube.tip(), work.rows()
    sweeping(monkeypatch, work.cube, step, "before", times=99)
    with pytest.raises(TransientError) as caught:
        append_day(DAY2, SCENES, work.fields(A=A), work.cube, work.results)
    assert caught.value.action == "retry"
    monkeypatch.undo()
    assert work.cube.tip() == tip
    pd.testing.assert_frame_equal(work.rows(), rows)
    assert append_day(DAY2, SCENES, work.fields(A=A), work.cube, work.results).days_appended == 1


@pytest.mark.parametrize("step", ["begin", "fork", "_merged", "amend", "_check_alive"])
def test_a_correction_that_loses_its_branch_starts_over(work: Work, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    late = type(SCENES)(SMALL, [scene(DAY1, version="2", ndvi=FIRST / 2)])
    swept = sweeping(monkeypatch, work.cube, step, "before" if step != "begin" else "after", times=1)
    report = correct_days(DAY1, late, work.fields(A=A), work.cube, work.results)
    monkeypatch.undo()
    assert len(swept) == 1
    assert (report.days_amended, report.rows_written) == (1, 1)
    assert work.cube.open()["ndvi"][0].values == pytest.approx(FIRST / 2)
    assert list(work.cube.repository.list_branches()) == ["main"]


def test_a_branch_that_is_gone_is_not_published(work: Work) -> None:
    attempt = abandoned(work, "x")
    snapshot = work.cube.repository.lookup_branch(attempt.branch)
    sweep(work.cube, NOW)
    with pytest.raises(LostRaceError, match="swept away"):
        attempt.publish(snapshot)
    assert len(work.cube.head().days) == 1


# --- garbage ---------------------------------------------------------------------------------------------------------


def test_garbage_goes_and_everything_published_stays(work: Work) -> None:
    append_days(DAY2, DAY3, SCENES, work.fields(A=A, B=B), work.cube, work.results)
    history = [one.id for one in work.cube.repository.ancestry(branch="main")]
    before = work.objects()
    abandoned(work, "dead")
    waste = set(work.objects()) - set(before)
    assert any("/chunks/" in key for key in waste) or any("/manifests/" in key for key in waste)
    assert collect(work.cube).objects == 0  # younger than the bound
    freed = collect(work.cube, NOW)
    assert freed.branches == ("attempt-dead",)
    assert freed.objects > 0
    assert freed.bytes > 0
    after = work.objects()
    published = {key: data for key, data in before.items() if "/attempt-" not in key}
    assert {key: after.get(key) for key in published} == published
    assert [one.id for one in Cube(work.location, "b").repository.ancestry(branch="main")] == history
    fresh = Cube(work.location, "b")
    assert fresh.open()["ndvi"][0].values == pytest.approx(FIRST)
    (first,) = (one.id for one in fresh.repository.ancestry(branch="main") if one.message == "append 2025-04-01")
    assert len(fresh.open(as_of=first)["time"]) == 1
    assert collect(work.cube, NOW).objects == 0


@pytest.mark.parametrize("step", ["fork", "_merged", "write", "_check_alive"])
def test_an_attempt_survives_a_collection_with_the_default_bound(
    work: Work, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    original: Callable[..., Any] = getattr(Attempt, step)
    calls: list[int] = []

    def collected(self: Attempt, *args: Any) -> Any:
        calls.append(collect(Cube(work.location, "b")).objects)
        result = original(self, *args)
        calls.append(collect(Cube(work.location, "b")).objects)
        return result

    monkeypatch.setattr(Attempt, step, collected)
    report = append_days(DAY2, DAY3, SCENES, work.fields(A=A), work.cube, work.results)
    monkeypatch.undo()
    assert calls == [0, 0]
    assert report.days_appended == 2
    fresh = Cube(work.location, "b").open()
    assert fresh["ndvi"][2, 0].values == pytest.approx(THIRD[0])
    assert fresh["ndvi_filled"][2, 1, 1].values == pytest.approx(FIRST[1, 1])


def wait_for_the_next_second(work: Work) -> None:
    """S3 tells the age of an object in whole seconds, and Icechunk 2 spares what may be younger than it was asked."""
    newest = max(info.modified for info in work.location.list("cubes/b"))
    while dt.datetime.now(dt.UTC) < newest + dt.timedelta(seconds=1):
        time.sleep(0.05)


def test_an_attempt_whose_shards_were_collected_cannot_publish_them(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound was too small for it: it starts over and the days are right."""
    # shards as large as these lie in objects of their own
    wide = GeoBox((100, 100), Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")
    image = np.random.default_rng(5).uniform(0, 0.9, wide.shape)
    work, source = Work(store_url, make_box(wide)), type(SCENES)(wide, [scene(DAY1, ndvi=image)])
    original = Attempt.write
    freed: list[int] = []

    def collected(self: Attempt, forks: Any, *args: Any) -> str:
        snapshot = original(self, forks, *args)
        if not freed:
            wait_for_the_next_second(work)
            freed.append(collect(Cube(work.location, "b"), NOW).objects)
        return snapshot

    monkeypatch.setattr(Attempt, "write", collected)
    append_day(DAY1, source, work.fields(), work.cube, work.results)
    monkeypatch.undo()
    assert freed[0] > 0
    assert Cube(work.location, "b").open()["ndvi"][0].values == pytest.approx(image, abs=1e-4)


def test_the_past_of_a_changed_box_is_no_garbage(work: Work) -> None:
    tip = work.cube.tip()
    root = [one.id for one in work.cube.repository.ancestry(branch="main")][-1]
    work.cube.repository.create_tag("until-20250401T000000.000000-x", tip)
    work.cube.repository.reset_branch("main", root)
    collect(work.cube, NOW)
    fresh = Cube(work.location, "b")
    assert fresh.open(as_of=tip)["ndvi"][0].values == pytest.approx(FIRST)
    with pytest.raises(icechunk.IcechunkError):
        fresh.repository.lookup_branch("attempt-x")
