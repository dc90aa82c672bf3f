"""Metrics: what is counted, how it is handed out, and that rules and board ask for what there is."""

from __future__ import annotations

import datetime as dt
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from geofield.errors import ConfigurationError
from orchestrate import cli
from orchestrate.metrics import NAMES, Metrics, served
from tests.support.smallstore import feature, make_store, write_fields
from tests.support.watching import FakeClock, a_box, a_receipt, an_error

DOCS = Path(__file__).parent.parent / "docs"


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock("2026-11-21T12:00:00+00:00")


@pytest.fixture
def metrics(clock: FakeClock) -> Metrics:
    return Metrics(clock.now)


def test_what_a_run_did(metrics: Metrics) -> None:
    late = {"fields": 2, "field_days": 40}
    inbox = {"rows_accepted": 5, "rows_rejected": 1}
    metrics.add("north", a_receipt(boxes={"b": a_box(late=late, rows_written=43)}, inbox=inbox, retries=2))
    metrics.add("north", a_receipt())
    b = {"tenant": "north", "box": "b"}
    assert value(metrics, "geofield_days_appended_total", **b) == 2
    assert value(metrics, "geofield_field_days_total", **b) == 46
    assert value(metrics, "geofield_late_fields_total", **b) == 2
    assert value(metrics, "geofield_late_field_days_total", **b) == 40
    assert value(metrics, "geofield_source_bytes_total", **b) == 2000
    assert value(metrics, "geofield_work_seconds_total", **b, work="append") == 5.0
    assert value(metrics, "geofield_runs_total", tenant="north", outcome="done") == 2
    assert value(metrics, "geofield_run_seconds_total", tenant="north") == 20
    assert value(metrics, "geofield_inbox_rows_total", tenant="north", outcome="rejected") == 1
    assert value(metrics, "geofield_retries_total", tenant="north") == 2


def test_failures_by_kind_and_the_last_success(metrics: Metrics) -> None:
    metrics.add("north", a_receipt())
    good = value(metrics, "geofield_last_success_timestamp_seconds", tenant="north")
    assert good == dt.datetime(2026, 11, 21, 6, 0, 10, tzinfo=dt.UTC).timestamp()
    later = "2026-11-21T07:00:00.000+00:00"
    metrics.add("north", a_receipt(finished=later, errors=[an_error(), an_error(), an_error("access", None)]))
    assert value(metrics, "geofield_errors_total", tenant="north", kind="source_unavailable") == 2
    assert value(metrics, "geofield_errors_total", tenant="north", kind="access") == 1
    assert value(metrics, "geofield_last_run_errors", tenant="north") == 3
    assert value(metrics, "geofield_runs_total", tenant="north", outcome="failed") == 1
    assert value(metrics, "geofield_last_success_timestamp_seconds", tenant="north") == good


def test_a_lag_grows_while_nothing_runs(metrics: Metrics, clock: FakeClock) -> None:
    metrics.add("north", a_receipt())
    assert value(metrics, "geofield_box_lag_days", tenant="north", box="b") == 1
    clock.wait(3 * 86400)
    assert value(metrics, "geofield_box_lag_days", tenant="north", box="b") == 4
    midnight = dt.datetime(2026, 11, 20, tzinfo=dt.UTC).timestamp()
    assert value(metrics, "geofield_box_last_day_timestamp_seconds", tenant="north", box="b") == midnight


def test_a_box_that_was_removed_has_no_lag(metrics: Metrics) -> None:
    metrics.add("north", a_receipt(boxes={"b": a_box(), "c": a_box()}))
    metrics.add("south", a_receipt(boxes={"c": a_box()}))
    metrics.add("north", a_receipt(boxes={}, errors=[an_error("store_unavailable", None)]))
    assert value(metrics, "geofield_box_lag_days", tenant="north", box="c") == 1
    metrics.add("north", a_receipt())
    assert value(metrics, "geofield_box_lag_days", tenant="north", box="c") is None
    assert value(metrics, "geofield_box_last_day_timestamp_seconds", tenant="north", box="c") is None
    assert value(metrics, "geofield_box_lag_days", tenant="south", box="c") == 1


def test_a_box_that_could_not_be_read_keeps_its_lag(metrics: Metrics) -> None:
    metrics.add("north", a_receipt())
    metrics.add("north", a_receipt(boxes={"b": a_box(last_day=None)}, errors=[an_error()]))
    assert value(metrics, "geofield_box_lag_days", tenant="north", box="b") == 1


# --- handing out -----------------------------------------------------------------------------------------------------


def test_over_http(metrics: Metrics) -> None:
    metrics.add("north", a_receipt())
    with (
        served(metrics, "127.0.0.1:0") as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
    ):
        text = answer.read().decode()
    assert 'geofield_days_appended_total{box="b",tenant="north"} 1.0' in text
    with pytest.raises(ConfigurationError, match="HOST:PORT"), served(metrics, "9464x"):
        pass
    with (
        served(metrics, "127.0.0.1:0") as port,
        pytest.raises(ConfigurationError, match="cannot be listened on"),
        served(metrics, f"127.0.0.1:{port}"),
    ):
        pass


def test_counters_in_a_file_go_on_from_run_to_run(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "geofield.prom"
    for tenant in ("north", "south", "north"):
        one = Metrics(clock.now)
        one.read_file(path)
        one.add(tenant, a_receipt())
        one.write_file(path)
    failed = Metrics(clock.now)
    failed.read_file(path)
    failed.add("north", a_receipt(finished="2026-11-21T09:00:00+00:00", errors=[an_error()]))
    failed.write_file(path)
    last = Metrics(clock.now)
    last.read_file(path)
    assert value(last, "geofield_days_appended_total", tenant="north", box="b") == 3
    assert value(last, "geofield_days_appended_total", tenant="south", box="b") == 1
    assert value(last, "geofield_box_lag_days", tenant="south", box="b") == 1
    good = dt.datetime(2026, 11, 21, 6, 0, 10, tzinfo=dt.UTC).timestamp()
    assert value(last, "geofield_last_success_timestamp_seconds", tenant="north") == good
    assert [one.name for one in tmp_path.iterdir()] == ["geofield.prom"]
    with pytest.raises(ConfigurationError, match="cannot be written"):
        last.write_file(tmp_path / "no" / "geofield.prom")


@pytest.mark.parametrize("text", ["", "not metrics {{{", 'geofield_runs_total{other="x"} 3\n', "\x00"])
def test_a_file_of_something_else_is_passed_over(tmp_path: Path, metrics: Metrics, text: str) -> None:
    (tmp_path / "x.prom").write_text(text)
    metrics.read_file(tmp_path / "x.prom")
    assert b'outcome="' not in metrics.text()


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    got: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            got.append((self.command, self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            return None

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_single_run_hands_out_its_metrics(tmp_path: Path, gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    url, got = gateway
    store = make_store(str(tmp_path / "s"))
    assert cli.main(["submit", store.url, str(write_fields(tmp_path / "f.geojson", feature("A", 0, 0)))]) == 0
    path = tmp_path / "geofield.prom"
    words = ["run", store.url, "--until", "2025-04-03", "--metrics-file", str(path), "--push-gateway", url]
    assert cli.main(words) == 0
    sample = f'geofield_field_days_total{{box="b",tenant="{store.url}"}} 3.0'
    assert sample in path.read_text()
    assert "_created" not in path.read_text()
    ((method, place, body),) = got
    assert (method, place.startswith("/metrics/job/geofield/tenant")) == ("PUT", True)
    assert sample in body.decode()
    assert cli.main(["run", store.url, "--until", "2025-04-04", "--metrics-file", str(path)]) == 0
    assert sample.replace("3.0", "4.0") in path.read_text()
    # what cannot be handed out is told, and the run is done all the same
    assert cli.main(["run", store.url, "--until", "2025-04-04", "--push-gateway", "http://127.0.0.1:1"]) == 0
    assert "push gateway did not take the metrics" in capsys.readouterr().err


# --- docs ------------------------------------------------------------------------------------------------------------


def test_every_metric_is_described_and_nothing_else() -> None:
    text = (DOCS / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(geofield_\w+)` \|", text, re.M)) == set(NAMES)


def asked(expression: str) -> set[str]:
    promql_parser.parse(expression)  # raises for what is no PromQL
    return set(re.findall(r"geofield_\w+", expression))


def test_alert_rules_ask_for_what_there_is() -> None:
    (group,) = yaml.safe_load((DOCS / "monitoring" / "alerts.yaml").read_text())["groups"]
    rules = group["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules) == 7
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert asked(rule["expr"])
        assert asked(rule["expr"]) <= set(NAMES)
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "0s"))
        assert rule["annotations"]["summary"]


def test_board_asks_for_what_there_is() -> None:
    board = json.loads((DOCS / "monitoring" / "grafana.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(expressions) >= 12
    for expression in expressions:
        assert asked(expression.replace("$tenant", "x").replace("$box", "x")) <= set(NAMES)
    for variable in board["templating"]["list"][1:]:
        assert set(re.findall(r"geofield_\w+", variable["query"])) <= set(NAMES)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
