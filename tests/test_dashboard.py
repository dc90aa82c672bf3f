"""geofield's page of Dask's dashboard: what the scheduler counts, and what a browser shows while a run goes on."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from orchestrate import cluster
from orchestrate.dashboard import events
from orchestrate.dashboard.plugin import Work
from orchestrate.inbox import submit
from orchestrate.progress import Silent
from orchestrate.run import run
from tests.support.browser import launched, page_of
from tests.support.smallstore import START, box, feature, make_store, write_fields


def heard(work: Work, **message: Any) -> None:
    work.log_event(events.TOPIC, {"run": "r1", **message})


COUNTS = {"days": 3, "rows": 30, "source_bytes": 2_000_000, "late_fields": 0, "late_field_days": 0}


def test_what_a_run_tells_is_added_up_by_box() -> None:
    work = Work()
    heard(work, event="begin", what="b: days", total=10, unit="days")
    heard(work, event="counts", box="b", **COUNTS)
    heard(work, event="begin", what="c: late fields", total=7, unit="fields")
    assert (work.boxes["b"].days, work.boxes["b"].days_total, work.boxes["b"].doing) == (3, 10, "days")
    assert work.boxes["c"].late_in_work == 7
    heard(work, event="end", what="c: late fields")
    assert (work.boxes["c"].late_in_work, work.boxes["c"].doing) == (0, "")
    work.log_event(events.TOPIC, {"event": "begin", "run": "r2", "what": "d: days", "total": 1, "unit": "days"})
    assert set(work.boxes) == {"d"}, "another run begins anew"


@pytest.mark.parametrize(
    "message",
    ["text", {}, {"run": "r1"}, {"run": "r1", "event": "counts", "box": "b"},
     {"run": "r1", "event": "begin", "what": "b: days", "total": "x", "unit": "days"}],
)  # fmt: skip
def test_messages_of_another_version_harm_nothing(message: Any) -> None:
    work = Work()
    work.log_event(events.TOPIC, message)
    work.log_event("another topic", {"run": "r1", "event": "begin", "what": "b: days", "total": 1, "unit": "days"})
    assert all(one.days_total == 0 for one in work.boxes.values())


def test_rates_are_those_of_the_last_minute() -> None:
    work = Work()
    for second in range(0, 201, 10):
        work.boxes.setdefault("b", work._box("b")).days = second // 10  # a day every 10 s
        work.boxes["b"].source_bytes = 1000 * second
        work.sample(at=1e9 + second)
    days, size, _ = work.rates()
    assert (days, size) == (pytest.approx(0.1), pytest.approx(1000))
    assert Work().rates() == (0, 0, 0)


class Tasks:
    """As much of a scheduler as the plugin asks."""

    def __init__(self, **annotations: Any) -> None:
        self.tasks = {key: type("Task", (), {"annotations": value}) for key, value in annotations.items()}


@pytest.mark.parametrize("annotation", [None, {}, {"geofield": {"box": "b", "kind": "append"}}])
def test_a_task_is_counted_by_its_annotation_or_its_name(annotation: Any) -> None:
    key = "append-(b 2025-04-01 tile 0,0) run-1"
    work = Work()
    work._scheduler = Tasks(**{key: annotation})
    for start, finish in (("released", "waiting"), ("waiting", "processing")):
        work.transition(key, start, finish)
    assert work.boxes["b"].tasks == {"waiting": 0, "processing": 1}
    work.transition(key, "processing", "memory")
    assert (work.boxes["b"].tasks["processing"], work.boxes["b"].done, work.kinds) == (0, 1, {"append": 1})
    work.transition(key, "memory", "released")
    work.transition(key, "released", "forgotten")
    assert not work._tasks, "what is done is forgotten"
    work.transition("sum-1234", "released", "waiting")
    assert set(work.boxes) == {"b"}, "a task of somebody else"


def test_many_boxes_do_not_fill_the_scheduler() -> None:
    work = Work()
    for number in range(2100):
        heard(work, event="begin", what=f"b{number}: days", total=1, unit="days")
    assert len(work.boxes) == 2000


def test_nothing_is_told_where_nobody_listens() -> None:
    events.begin("r", "b: days", 1, "days")  # no client: no error


@pytest.mark.docs
@pytest.mark.timeout(280)
def test_the_page_follows_a_run(tmp_path: Path) -> None:
    """A cluster in this process; a browser opens the page before the run, and sees it happen without a reload."""
    store = make_store(str(tmp_path / "store"), box(), box("c", bbox=[500500, 5490000, 500900, 5490400]))
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))], "fields", {})
    said: list[str] = []

    class Told(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    with launched() as browser, cluster.connect("local", 1) as client:
        assert events.install(client)
        assert events.install(client), "a second time changes nothing"
        url = client.dashboard_link.replace("/status", "/geofield")
        with page_of(browser, url) as page:
            page.wait_for_function("document.body.shadowRoot || document.querySelector('.bk-Column, [data-root-id]')")
            wait_for(page, "no run yet")
            done: dict[str, Any] = {}
            work = threading.Thread(
                target=lambda: done.update(run(store, START + dt.timedelta(days=11), client, progress=Told()))
            )
            work.start()
            wait_for(page, "of 24")
            work.join(120)
            assert not done["errors"]
            wait_for(page, "24 of 24")
            wait_for(page, done["run_id"])
            late = write_fields(tmp_path / "late.geojson", feature("L", 100, 100))
            submit(store, [late], "fields", {})
            second = run(store, START + dt.timedelta(days=11), client)
            assert not second["errors"]
            wait_for(page, second["run_id"])
        found = client.run_on_scheduler(told)
    assert said[0] == f"dashboard: {url}"
    assert found["late"] == 1
    assert found["tasks_left"] == 0


def told(dask_scheduler: Any) -> dict[str, int]:
    work = dask_scheduler.plugins["geofield"]
    left = sum(count for one in work.boxes.values() for count in one.tasks.values())
    return {"late": work.boxes["b"].late_fields, "tasks_left": left}


TEXT = """(wanted) => {
  // Bokeh draws into shadow roots
  const texts = (node) => [...node.childNodes].map((one) => one.nodeType === 3 ? one.textContent : one.nodeType === 1 && one.tagName !== 'STYLE'
    ? texts(one.shadowRoot || one) + (one.shadowRoot ? texts({childNodes: one.childNodes}) : '') : '').join(' ');
  return texts(document.body).includes(wanted);
}"""  # noqa: E501


def wait_for(page: Any, text: str) -> None:
    page.wait_for_function(TEXT, arg=text, timeout=60_000)


def test_a_scheduler_without_a_dashboard_does_without_the_page() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(
            n_workers=0,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
        ) as one,
        Client(one) as client,
        cluster.active(client) as page,
    ):
        assert page is None
