"""What a plan holds, from hand-made inputs: no store, no clock."""

from __future__ import annotations

import copy
import datetime as dt

import pytest

from geofield.errors import ConfigurationError, CorruptStoreError, StoreUnavailableError
from orchestrate import plan
from orchestrate.config import parse_until, parse_workers, settings
from orchestrate.receipt import rates
from orchestrate.work import (
    Append,
    BoxExtent,
    BoxProgress,
    CubeDays,
    FieldDays,
    FillLate,
    Gap,
    Rates,
    Reduce,
    Remove,
    fault,
    may_succeed_later,
    step_to_dict,
)


def d(number: int) -> dt.date:
    return dt.date(2025, 4, number)


BOX = BoxExtent("b", d(1), pixels=1000, tiles=4, bands=3, layers=4)
FULL = CubeDays(d(1), d(10), acquired=5)


def test_empty_cube_is_appended_from_its_start() -> None:
    steps = plan({"b": BOX}, {}, {"b": [FieldDays("A", d(3)), FieldDays("B", d(1), d(2))]}, {}, d(5))
    # 5 days x 4 tiles; A has rows on 3, 4, 5, B on 1, 2; every day may have imagery: 5 x 1000 x 3 bands x 2 bytes
    expected = Append("b", d(1), d(5), days=5, tasks=20, field_days=5, source_bytes=30_000, cube_bytes=40_000)
    assert steps == [expected]


def test_append_goes_on_where_the_cube_ends() -> None:
    (step,) = plan({"b": BOX}, {"b": FULL}, {"b": []}, {}, d(14))
    # imagery came on half of the days so far: 2 of the 4 days are expected to be read
    assert step == Append("b", d(11), d(14), days=4, tasks=16, field_days=0, source_bytes=12_000, cube_bytes=16_000)


def test_nothing_is_missing() -> None:
    assert plan({"b": BOX}, {"b": FULL}, {"b": [FieldDays("A", d(1))]}, {"b": BoxProgress()}, d(10)) == []
    assert plan({"b": BOX}, {"b": FULL}, {}, {}, d(9)) == []
    assert plan({"b": BOX}, {}, {}, {}, dt.date(2025, 3, 31)) == []
    assert plan({}, {}, {}, {}, d(9)) == []


@pytest.mark.parametrize(("settle", "end"), [(0, 14), (3, 11), (4, None), (30, None)])
def test_days_that_may_still_be_filling_wait(settle: int, end: int | None) -> None:
    held = BoxExtent("b", d(1), settle_days=settle)
    steps = plan({"b": held}, {"b": FULL}, {}, {}, d(14))
    assert [step.end for step in steps if isinstance(step, Append)] == ([] if end is None else [d(end)])


def test_late_field_is_filled_from_the_cube_before_days_are_appended() -> None:
    fields = [FieldDays("L", d(4)), FieldDays("A", d(1))]
    progress = BoxProgress((Gap("L", 7, d(4), d(10)),))
    steps = plan({"b": BOX}, {"b": FULL}, {"b": fields}, {"b": progress}, d(11))
    assert steps[0] == FillLate("b", ("L",), field_days=7)
    assert isinstance(steps[1], Append)
    assert steps[1].field_days == 2  # A and L on day 11


def test_rows_that_a_crash_left_out_are_written_for_their_days_only() -> None:
    fields = [FieldDays("A", d(1)), FieldDays("B", d(1)), FieldDays("C", d(1), d(9)), FieldDays("D", d(1))]
    gaps = (Gap("B", 2, d(9), d(10)), Gap("A", 2, d(9), d(10)), Gap("C", 1, d(9), d(9)))
    steps = plan({"b": BOX}, {"b": FULL}, {"b": fields}, {"b": BoxProgress(gaps)}, d(10))
    assert steps == [Reduce("b", d(9), d(9), ("C",), 1), Reduce("b", d(9), d(10), ("A", "B"), 4)]


def test_surplus_rows_make_the_field_be_rewritten_whole() -> None:
    fields = [FieldDays("A", d(6))]  # planted later than was said before: rows of 1 to 5 have to go
    progress = BoxProgress((Gap("A", 2, d(6), d(7), surplus=5),))
    assert plan({"b": BOX}, {"b": FULL}, {"b": fields}, {"b": progress}, d(10)) == [FillLate("b", ("A",), 5)]


def test_rows_of_fields_without_any_day_or_that_left_the_box_are_removed() -> None:
    fields = [FieldDays("A", d(20))]
    progress = BoxProgress((Gap("A", 0, None, None, surplus=4),), {"gone": 10})
    assert plan({"b": BOX}, {"b": FULL}, {"b": fields}, {"b": progress}, d(10)) == [Remove("b", ("A", "gone"), 14)]


def test_boxes_come_in_order_and_do_not_mix() -> None:
    boxes = {"c": BoxExtent("c", d(2)), "a": BoxExtent("a", d(3))}
    steps = plan(boxes, {}, {"a": [FieldDays("A", d(1))]}, {}, d(3))
    assert [(step.box, step.days, step.field_days) for step in steps if isinstance(step, Append)] == [
        ("a", 1, 1),
        ("c", 2, 0),
    ]


def test_plan_changes_nothing_of_what_it_is_given() -> None:
    given = (
        {"b": BOX},
        {"b": FULL},
        {"b": [FieldDays("A", d(1))]},
        {"b": BoxProgress((Gap("A", 10, d(1), d(10)),), {"x": 1})},
    )
    before = copy.deepcopy(given)
    one, two = plan(*given, d(20)), plan(*given, d(20))
    assert given == before
    assert one == two


def test_times_follow_from_past_receipts() -> None:
    receipts = [
        {"boxes": {"b": {"pixel_days": 1000, "seconds": {"append": 2.0, "late": 1.0}, "late": {"field_days": 5}}}},
        {"boxes": {"b": {"pixel_days": 3000, "seconds": {"append": 2.0, "late": 0.0}, "late": {"field_days": 0}}}},
        {"boxes": {}},
    ]
    known = rates(receipts)
    assert known == Rates(per_pixel_day=0.001, per_field_day=0.2)
    progress = {"b": BoxProgress((Gap("L", 10, d(1), d(10)),))}
    late, append = plan({"b": BOX}, {"b": FULL}, {"b": [FieldDays("L", d(1))]}, progress, d(12), known)
    assert late.seconds == pytest.approx(2.0)  # 10 field-days
    assert append.seconds == pytest.approx(2.0)  # 2 days of 1000 pixels
    assert rates([]) == Rates(None, None)


def test_unknown_bands_leave_the_bytes_open() -> None:
    (step,) = plan({"b": BoxExtent("b", d(1), bands=None)}, {}, {}, {}, d(2))
    assert isinstance(step, Append)
    assert step.source_bytes is None


def test_steps_are_json() -> None:
    assert step_to_dict(Reduce("b", d(1), d(2), ("A",), 2)) == {
        "action": "reduce", "box": "b", "start": "2025-04-01", "end": "2025-04-02", "fields": ["A"], "field_days": 2,
        "seconds": None,
    }  # fmt: skip


def test_errors_keep_their_kind_and_say_whether_another_try_helps() -> None:
    assert fault("b", d(1), StoreUnavailableError("no answer")) == {
        "box": "b", "date": "2025-04-01", "kind": "store_unavailable", "message": "no answer",
    }  # fmt: skip
    assert fault(None, None, KeyError("x")) == {
        "box": None, "date": None, "kind": "unexpected", "message": "KeyError: 'x'",
    }  # fmt: skip
    killed = type("KilledWorker", (Exception,), {"__module__": "distributed.scheduler"})("tile")
    assert fault(None, None, killed)["kind"] == "cluster"
    assert [may_succeed_later(e) for e in (StoreUnavailableError(""), killed, CorruptStoreError(""), KeyError())] == [
        True, True, False, False,
    ]  # fmt: skip


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "workers"), [("4", 4), (" 2 ", 2), ("0:20", (0, 20)), ("3:3", (3, 3))])
def test_workers(text: str, workers: object) -> None:
    assert parse_workers(text) == workers


@pytest.mark.parametrize("text", ["", "0", "0:0", "5:2", "1:2:3", "many", "-1", "2.5"])
def test_workers_that_make_no_sense(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--workers"):
        parse_workers(text)


def test_caller_goes_before_the_environment() -> None:
    environment = {"GEOFIELD_STORE": "/data", "GEOFIELD_WORKERS": "0:4", "GEOFIELD_DEBUG": "1", "HOME": "/root"}
    held = settings(environment, workers=2, cluster=None)
    assert (held.store, held.workers, held.cluster, held.debug) == ("/data", 2, "threads", True)
    assert settings(environment).workers == (0, 4)


def test_wrong_setting_is_named() -> None:
    with pytest.raises(ConfigurationError, match="retries = 'often'"):
        settings({"GEOFIELD_RETRIES": "often"})


def test_until() -> None:
    today = d(10)
    assert parse_until(None, today) == today
    assert parse_until("2025-04-02", today) == d(2)
    assert parse_until(d(11), today) == d(11)  # it is tomorrow already in the east
    with pytest.raises(ConfigurationError, match="2025-04-12 is in the future"):
        parse_until("2025-04-12", today)
    with pytest.raises(ConfigurationError, match=r"'12\.4\.2025' is not a day"):
        parse_until("12.4.2025", today)
