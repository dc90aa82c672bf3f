"""Watching: when what runs, what a failure keeps from running (nothing), and how it stops."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import geofield
from geofield import Store
from geofield.errors import ConfigurationError, SourceUnavailableError
from orchestrate import cli
from orchestrate.metrics import Metrics
from orchestrate.progress import Silent
from orchestrate.tenants import ConfigFile, StoreFile, Tenant
from orchestrate.watch import Watch, run_tenant
from tests.support.smallstore import box, make_store
from tests.support.watching import FakeClock, Webhook, a_receipt, an_error, receiver

__all__ = ["receiver"]

START = "2026-11-21T04:00:00+00:00"


class Runs:
    """Notes what is run instead of running it."""

    def __init__(self, clock: FakeClock, takes: float = 60.0) -> None:
        self.clock, self.takes = clock, takes
        self.done: list[tuple[str, str, str]] = []
        self.fails: dict[str, Exception] = {}
        self.errors: dict[str, list[dict[str, Any]]] = {}
        self.then: Callable[[], None] = lambda: None

    def __call__(self, tenant: Tenant, store: Store, until: dt.date) -> dict[str, Any]:
        self.done.append((tenant.name, f"{self.clock.time:%dT%H:%M}", until.isoformat()))
        started = self.clock.time
        self.clock.time += dt.timedelta(seconds=self.takes)
        self.then()
        if tenant.name in self.fails:
            raise self.fails[tenant.name]
        receipt = a_receipt(started=started.isoformat(), errors=self.errors.get(tenant.name, []))
        store.location.write(f"runs/{started:%Y/%m}/{started:%Y%m%dT%H%M%SZ}.json", json.dumps(receipt).encode())
        return receipt

    def names(self) -> list[str]:
        return [name for name, *_ in self.done]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def runs(clock: FakeClock) -> Runs:
    return Runs(clock)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("north", "south"):
        geofield.create_store(tmp_path / name)
    return tmp_path


def watch(folder: Path, text: str, runs: Runs, metrics: Metrics | None = None, **environment: str) -> Watch:
    path = folder / "watch.yaml"
    path.write_text(text)
    made = Watch(ConfigFile(path), runs, environment, clock=runs.clock, metrics=metrics)
    made.start()
    return made


def pass_time(one: Watch, clock: FakeClock, until: str) -> None:
    while clock.time < dt.datetime.fromisoformat(until):
        one.step()


# --- when ------------------------------------------------------------------------------------------------------------


def test_an_interval_counts_from_start_to_start(folder: Path, runs: Runs, clock: FakeClock) -> None:
    one = watch(folder, "every: 1h\ntenants: {n: {store: north}}", runs)
    pass_time(one, clock, "2026-11-21T06:30:00+00:00")
    assert [when for _, when, _ in runs.done] == ["21T04:00", "21T05:00", "21T06:00"]
    assert {until for *_, until in runs.done} == {"2026-11-20"}  # yesterday
    runs.takes = 2 * 3600.0
    pass_time(one, clock, "2026-11-21T11:30:00+00:00")
    assert [when for _, when, _ in runs.done[3:]] == ["21T07:00", "21T09:00", "21T11:00"]


def test_schedules_of_several_stores(folder: Path, runs: Runs, clock: FakeClock) -> None:
    text = """
      schedule: 30 6 * * *
      tenants:
        berlin: {store: north, timezone: Europe/Berlin, until: today}
        utc: {store: south}
    """
    one = watch(folder, text, runs)
    pass_time(one, clock, "2026-11-22T12:00:00+00:00")
    assert runs.done == [
        ("berlin", "21T05:30", "2026-11-21"), ("utc", "21T06:30", "2026-11-20"),
        ("berlin", "22T05:30", "2026-11-22"), ("utc", "22T06:30", "2026-11-21"),
    ]  # fmt: skip


def test_daylight_saving(folder: Path) -> None:
    clock = FakeClock("2026-10-24T00:00:00+00:00")
    runs = Runs(clock)
    one = watch(folder, "schedule: 30 2 * * *\ntimezone: Europe/Berlin\ntenants: {n: {store: north}}", runs)
    pass_time(one, clock, "2026-10-26T12:00:00+00:00")
    assert [when for _, when, _ in runs.done] == ["24T00:30", "25T00:30", "26T01:30"]


def test_what_was_missed_is_made_up_for_once(folder: Path, runs: Runs, clock: FakeClock) -> None:
    text = "schedule: 0 3 * * *\ntenants: {n: {store: north}, s: {store: south}}"
    ran = clock.time - dt.timedelta(days=3)  # nothing has run in the north since; in the south since three o'clock
    for name, moment in (("north", ran), ("south", clock.time - dt.timedelta(minutes=59))):
        receipt = a_receipt(started=moment.isoformat())
        geofield.open_store(folder / name).location.write("runs/2026/11/x.json", json.dumps(receipt).encode())
    one = watch(folder, text, runs)
    pass_time(one, clock, "2026-11-22T03:30:00+00:00")
    assert [(name, when) for name, when, _ in runs.done] == [("n", "21T04:00"), ("n", "22T03:00"), ("s", "22T03:01")]


def test_a_schedule_waits_where_nothing_ever_ran(folder: Path, runs: Runs, clock: FakeClock) -> None:
    one = watch(folder, "schedule: 0 5 * * *\ntenants: {n: {store: north}}", runs)
    one.step()
    assert runs.done == []
    assert clock.waits == [30.0]


def test_a_failed_run_may_be_followed_sooner(folder: Path, runs: Runs, clock: FakeClock) -> None:
    text = "schedule: 0 5 * * *\nagain_after: 15m\ntenants: {n: {store: north}}"
    one = watch(folder, text, runs)
    runs.errors["n"] = [an_error()]
    pass_time(one, clock, "2026-11-21T05:10:00+00:00")
    runs.errors.clear()
    pass_time(one, clock, "2026-11-21T09:00:00+00:00")
    assert [when for _, when, _ in runs.done] == ["21T05:00", "21T05:16"]


# --- failures --------------------------------------------------------------------------------------------------------


def test_one_that_fails_never_stops_the_others(
    folder: Path, runs: Runs, clock: FakeClock, receiver: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
      every: 1h
      notify: {urls: ["${HOOK}"], events: [failed]}
      tenants: {gone: {store: nowhere}, broken: {store: north}, good: {store: south}}
    """
    metrics = Metrics(clock.now)
    runs.fails["broken"] = RuntimeError("nobody foresaw this")
    one = watch(folder, text, runs, metrics, HOOK=receiver.url)
    pass_time(one, clock, "2026-11-21T05:30:00+00:00")
    assert runs.names() == ["broken", "good", "broken", "good"]
    assert "nobody foresaw this" in caplog.text
    errors = {(sample.labels["tenant"], sample.labels["kind"]): sample.value
              for family in metrics.registry.collect() for sample in family.samples
              if sample.name == "geofield_errors_total"}  # fmt: skip
    assert errors == {("gone", "not_found"): 2, ("broken", "unexpected"): 2}
    # each of them is told once, also that of the store which cannot remember it
    assert [one["title"] for one in receiver.got] == ["geofield, gone: run failed", "geofield, broken: run failed"]


def test_what_follows_a_run_stops_nothing(folder: Path, runs: Runs, clock: FakeClock) -> None:
    runs.errors["n"] = [{"box": 3}]  # a receipt that nobody could account for
    one = watch(folder, "every: 1h\ntenants: {n: {store: north}}", runs, Metrics(clock.now))
    pass_time(one, clock, "2026-11-21T05:30:00+00:00")
    assert len(runs.done) == 2


# --- settings that change --------------------------------------------------------------------------------------------


def test_changes_are_picked_up(folder: Path, runs: Runs, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    metrics = Metrics(clock.now)
    one = watch(folder, "every: 1h\ntenants: {n: {store: north}}", runs, metrics)
    path = folder / "watch.yaml"

    def valid() -> float | None:
        return metrics.registry.get_sample_value("geofield_settings_valid")

    one.step()
    path.write_text("every: 1h\nuntil: today\ntenants: {n: {store: north}, s: {store: south, every: 30m}}")
    one.step()
    one.step()
    assert runs.done[1:] == [("s", "21T04:01", "2026-11-21")]  # the new one at once; the old one when it is due
    path.write_text("every: 1h\ntenants: {n: {store: north, retires: 1}}")
    pass_time(one, clock, "2026-11-21T04:40:00+00:00")
    assert runs.names() == ["n", "s", "s"]  # by the last good settings
    assert caplog.text.count("the settings are broken, and the last good ones stay in use") == 1
    assert "tenants.n.retires: there is no such setting" in caplog.text
    assert valid() == 0
    path.unlink()
    pass_time(one, clock, "2026-11-21T05:10:00+00:00")
    assert runs.names() == ["n", "s", "s", "n", "s"]
    assert valid() == 0
    path.write_text("every: 1h\ntenants: {s: {store: south}}")
    pass_time(one, clock, "2026-11-21T07:00:00+00:00")
    assert set(runs.names()[5:]) == {"s"}
    assert valid() == 1


def test_settings_that_were_mended_to_what_they_were(folder: Path, runs: Runs, clock: FakeClock) -> None:
    metrics = Metrics(clock.now)
    text = "every: 1h\ntenants: {n: {store: north}}"
    one = watch(folder, text, runs, metrics)
    for written, valid in ((text, 1), ("a: [", 0), (text, 1)):
        (folder / "watch.yaml").write_text(written)
        one.refresh()
        assert metrics.registry.get_sample_value("geofield_settings_valid") == valid


def test_settings_that_are_broken_at_the_start(folder: Path, runs: Runs) -> None:
    with pytest.raises(ConfigurationError, match="there is no such setting"):
        watch(folder, "tenents: {}", runs)
    with pytest.raises(ConfigurationError, match=r"notify\.urls\.0: apprise knows no address such as nosuch"):
        watch(folder, "notify: {urls: ['nosuch://abcdefgh']}\ntenants: {n: {store: north}}", runs)


def test_settings_in_the_store(folder: Path, runs: Runs, clock: FakeClock) -> None:
    store = geofield.open_store(folder / "north")
    one = Watch(StoreFile(store.url), runs, {}, {"every": "2h"}, clock=clock)
    one.start()
    one.step()
    store.location.write("settings.yaml", b"every: 5m\nuntil: today\n")  # the command line goes before it
    pass_time(one, clock, "2026-11-21T07:00:00+00:00")
    assert [(when, until) for _, when, until in runs.done] == [("21T04:00", "2026-11-20"), ("21T06:00", "2026-11-21")]


# --- stopping --------------------------------------------------------------------------------------------------------


def test_stopped_while_it_waits(folder: Path, runs: Runs, clock: FakeClock) -> None:
    one = watch(folder, "every: 1h\ntenants: {n: {store: north}, s: {store: south}}", runs)
    one.step()
    one.stop()
    assert clock.is_interrupted
    one.run_until_stopped()
    assert runs.names() == ["n", "s"]


def test_stopped_while_it_runs(folder: Path, runs: Runs, clock: FakeClock) -> None:
    one = watch(folder, "every: 1h\ntenants: {n: {store: north}, s: {store: south}}", runs)
    runs.then = one.stop
    one.run_until_stopped()
    assert runs.names() == ["n"]
    assert clock.waits == []


def test_ctrl_c_of_somebody_else_is_no_stop(folder: Path, runs: Runs) -> None:
    def pressed() -> None:
        raise KeyboardInterrupt

    one = watch(folder, "every: 1h\ntenants: {n: {store: north}}", runs)
    runs.then = pressed
    with pytest.raises(KeyboardInterrupt):
        one.run_until_stopped()


def test_the_commit_in_hand_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty days, in windows of eight; stopped in the middle of the first one."""
    import geofield.pipeline

    store = make_store(str(tmp_path / "s"))
    clock = FakeClock("2025-04-21T00:00:00+00:00")
    one = Watch(StoreFile(store.url), run_tenant(Silent()), {}, clock=clock)
    one.start()
    real = geofield.pipeline.append_days

    def append_days(*args: Any, **more: Any) -> Any:
        one.is_stopping = True
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **more)

    monkeypatch.setattr(geofield.pipeline, "append_days", append_days)
    before = signal.signal(signal.SIGTERM, lambda *_: one.stop())
    try:
        one.run_until_stopped()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert store.cube("b").head().last == dt.date(2025, 4, 8)
    (receipt,) = [json.loads(store.location.read(info.key)) for info in store.location.list("runs")]
    assert [error["kind"] for error in receipt["errors"]] == ["interrupted"]
    assert receipt["boxes"]["b"]["days_appended"] == 8


def test_a_process_that_is_told_to_stop(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "s"), box(start=dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)))
    words = ["watch", store.url, "--every", "1h", "--log-format", "json", "--metrics", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrate.cli", *words], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "GEOFIELD_LOG": "human"},
    )  # fmt: skip
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(json.loads(line))
        if "run over" in told[-1]["message"]:
            process.send_signal(signal.SIGTERM)
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert told[-1]["message"].startswith("stopped")
    assert told[-2]["days_appended"] == 2
    # two days ago and yesterday
    assert store.cube("b").head().last == dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


# --- the command -----------------------------------------------------------------------------------------------------


def test_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(str(folder / "full"), box(start=dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)))
    path = folder / "watch.yaml"
    path.write_text("tenants: {full: {store: full}, empty: {store: north}}")
    prom = folder / "x.prom"
    assert cli.main(["watch", "--config", str(path), "--once", "--metrics-file", str(prom)]) == 0
    assert "full: run over: days appended 2" in capsys.readouterr().err
    assert 'geofield_days_appended_total{box="b",tenant="full"} 2.0' in prom.read_text()
    path.write_text("tenants: {gone: {store: nowhere}, full: {store: full}}")
    assert cli.main(["watch", "--config", str(path), "--once"]) == 1
    said = capsys.readouterr().err
    assert "error: gone: not_found" in said
    assert "full: run over: nothing to do" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Which store? Give STORE or --config FILE"),
        (("{store}", "--every", "soon"), "An interval is written"),
        (("{store}", "--metrics", "x"), "HOST:PORT"),
        (("{store}", "--until", "someday"), "is not a day"),
        (("--config", "{store}/none.yaml"), "cannot be read"),
        (("{store}x",), "There is no store"),
    ],
)
def test_wrong_calls(folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
    assert cli.main(["watch", *(word.format(store=folder / "north") for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_metrics_while_it_watches(folder: Path, runs: Runs, clock: FakeClock) -> None:
    from orchestrate.metrics import served

    metrics = Metrics(clock.now)
    runs.fails["n"] = SourceUnavailableError("away")
    one = watch(folder, "every: 1h\ntenants: {n: {store: north}}", runs, metrics)
    one.step()
    with (
        served(metrics, "127.0.0.1:0") as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
    ):
        assert 'geofield_errors_total{kind="source_unavailable",tenant="n"} 1.0' in answer.read().decode()
