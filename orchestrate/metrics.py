"""Metrics for Prometheus: of `watch` over HTTP, of a single run as a file for the node exporter or to a push gateway.

Every metric is described in docs/metrics.md; tests compare the two.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily

from geofield.errors import ConfigurationError
from orchestrate.masking import mask

JOB = "geofield"
_PUSH_S = 10

_COUNTERS = {
    "geofield_runs": ("Runs, by how they ended: done, failed, interrupted.", ("tenant", "outcome")),
    "geofield_run_seconds": ("Time taken by runs.", ("tenant",)),
    "geofield_retries": ("What was tried again.", ("tenant",)),
    "geofield_errors": ("Failures in receipts, by kind.", ("tenant", "kind")),
    "geofield_inbox_rows": ("Fields and boxes read from the inbox: accepted, rejected.", ("tenant", "outcome")),
    "geofield_days_appended": ("Days appended to cubes.", ("tenant", "box")),
    "geofield_days_amended": ("Days of cubes that were corrected.", ("tenant", "box")),
    "geofield_field_days": ("Rows written: one for each field and day.", ("tenant", "box")),
    "geofield_late_fields": ("Fields filled from the stored cube because they came late.", ("tenant", "box")),
    "geofield_late_field_days": ("Rows of late fields.", ("tenant", "box")),
    "geofield_source_reads": ("Reads of imagery.", ("tenant", "box")),
    "geofield_source_bytes": ("Bytes of imagery read.", ("tenant", "box")),
    "geofield_cube_read_bytes": ("Bytes read from stored cubes.", ("tenant", "box")),
    "geofield_work_seconds": ("Time taken, by work: append, late, correct, rebuild.", ("tenant", "box", "work")),
}
_GAUGES = {
    "geofield_last_run_timestamp_seconds": ("When the last run ended.", ("tenant",)),
    "geofield_last_success_timestamp_seconds": ("When the last run without a failure ended.", ("tenant",)),
    "geofield_last_run_duration_seconds": ("Time that the last run took.", ("tenant",)),
    "geofield_last_run_errors": ("Failures of the last run.", ("tenant",)),
    "geofield_box_last_day_timestamp_seconds": ("Begin (UTC) of the last day that a cube holds.", ("tenant", "box")),
    "geofield_settings_valid": ("1 when the settings file is in use as it stands, 0 when it is broken.", ()),
}
LAG = "geofield_box_lag_days"
_LAG_HELP = "Days between the last day that a cube holds and today (UTC)."

NAMES = (*(f"{name}_total" for name in _COUNTERS), *_GAUGES, LAG)
"""Every metric, as it is scraped."""


class Metrics:
    """The metrics of this process, in a registry of their own.

    Parameters
    ----------
    now
        The clock: a lag grows also while nothing runs.
    """

    def __init__(self, now: Callable[[], dt.datetime] | None = None) -> None:
        self._now = now or (lambda: dt.datetime.now(dt.UTC))
        self.registry = CollectorRegistry()
        self._counters = {name: Counter(name, said, names, registry=self.registry)
                          for name, (said, names) in _COUNTERS.items()}  # fmt: skip
        self._gauges = {name: Gauge(name, said, names, registry=self.registry)
                        for name, (said, names) in _GAUGES.items()}  # fmt: skip
        self._last_days: dict[tuple[str, str], dt.date] = {}
        self._lock = threading.Lock()
        self._gauges["geofield_settings_valid"].set(1)
        self.registry.register(_Lag(self))

    def lags(self) -> list[tuple[str, str, int]]:
        """(tenant, box, days) of every box."""
        today = self._now().astimezone(dt.UTC).date()
        with self._lock:
            return [(tenant, box, (today - last).days) for (tenant, box), last in sorted(self._last_days.items())]

    def settings_valid(self, is_valid: bool) -> None:
        """Say whether the settings file is in use as it stands."""
        self._gauges["geofield_settings_valid"].set(int(is_valid))

    # --- taking over a receipt -------------------------------------------------------------------------------------

    def add(self, tenant: str, receipt: Mapping[str, Any]) -> None:
        """Count a run."""
        tenant = mask(tenant)
        errors = receipt.get("errors") or []
        kinds = [str(one.get("kind")) for one in errors]
        outcome = "interrupted" if "interrupted" in kinds else "failed" if kinds else "done"
        self._counters["geofield_runs"].labels(tenant, outcome).inc()
        for kind in kinds:
            self._counters["geofield_errors"].labels(tenant, kind).inc()
        self._counters["geofield_retries"].labels(tenant).inc(receipt.get("retries") or 0)
        for end in ("accepted", "rejected"):
            rows = (receipt.get("inbox") or {}).get(f"rows_{end}", 0)
            self._counters["geofield_inbox_rows"].labels(tenant, end).inc(rows)
        self._add_times(tenant, receipt, outcome, len(kinds))
        boxes = receipt.get("boxes") or {}
        for box, one in boxes.items():
            self._add_box(tenant, str(box), one)
        if not kinds:
            self._forget_all_but(tenant, boxes)

    def _add_times(self, tenant: str, receipt: Mapping[str, Any], outcome: str, errors: int) -> None:
        began, ended = (_time(receipt.get(name)) for name in ("started", "finished"))
        ended = ended if ended is not None else self._now().timestamp()
        seconds = max(0.0, ended - began) if began is not None else 0.0
        self._counters["geofield_run_seconds"].labels(tenant).inc(seconds)
        self._gauges["geofield_last_run_duration_seconds"].labels(tenant).set(seconds)
        self._gauges["geofield_last_run_timestamp_seconds"].labels(tenant).set(ended)
        self._gauges["geofield_last_run_errors"].labels(tenant).set(errors)
        if outcome == "done":
            self._gauges["geofield_last_success_timestamp_seconds"].labels(tenant).set(ended)

    def _add_box(self, tenant: str, box: str, one: Mapping[str, Any]) -> None:
        late = one.get("late") or {}
        counts = {
            "geofield_days_appended": one.get("days_appended"),
            "geofield_days_amended": one.get("days_amended"),
            "geofield_field_days": one.get("rows_written"),
            "geofield_late_fields": late.get("fields"),
            "geofield_late_field_days": late.get("field_days"),
            "geofield_source_reads": one.get("source_reads"),
            "geofield_source_bytes": one.get("source_bytes"),
            "geofield_cube_read_bytes": one.get("cube_bytes_read"),
        }
        for name, number in counts.items():
            self._counters[name].labels(tenant, box).inc(number or 0)
        for work, seconds in (one.get("seconds") or {}).items():
            self._counters["geofield_work_seconds"].labels(tenant, box, work).inc(seconds)
        if one.get("last_day"):
            self._set_last_day(tenant, box, dt.date.fromisoformat(one["last_day"]))

    def _set_last_day(self, tenant: str, box: str, day: dt.date) -> None:
        with self._lock:
            self._last_days[tenant, box] = day
        midnight = dt.datetime.combine(day, dt.time(), dt.UTC)
        self._gauges["geofield_box_last_day_timestamp_seconds"].labels(tenant, box).set(midnight.timestamp())

    def _forget_all_but(self, tenant: str, boxes: Iterable[str]) -> None:
        """A box that was removed has no lag; a run without a failure has seen every box that there is."""
        kept = {str(box) for box in boxes}
        gauge = self._gauges["geofield_box_last_day_timestamp_seconds"]
        with self._lock:
            gone = [key for key in self._last_days if key[0] == tenant and key[1] not in kept]
            for key in gone:
                del self._last_days[key]
        for key in gone:
            gauge.remove(*key)

    # --- handing them out ------------------------------------------------------------------------------------------

    def text(self) -> bytes:
        """All of them in the format of Prometheus."""
        return generate_latest(self.registry)

    def restore(self, text: str) -> None:
        """Go on from what an earlier process wrote, so that counters of single runs keep growing."""
        from prometheus_client.parser import text_string_to_metric_families

        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                counter = self._counters.get(sample.name.removesuffix("_total"))
                names = _COUNTERS.get(sample.name.removesuffix("_total"), _GAUGES.get(sample.name, ("", ())))[1]
                if set(names) != set(sample.labels):
                    continue
                values = [sample.labels[name] for name in names]
                if counter is not None and sample.name.endswith("_total"):
                    counter.labels(*values).inc(max(0.0, sample.value))
                elif sample.name == "geofield_box_last_day_timestamp_seconds":
                    self._set_last_day(values[0], values[1], dt.datetime.fromtimestamp(sample.value, dt.UTC).date())
                elif sample.name in _GAUGES and names:
                    self._gauges[sample.name].labels(*values).set(sample.value)

    def write_file(self, path: Path) -> None:
        """Write the file that the node exporter's textfile collector reads: all of it at once, or nothing."""
        # no .prom at its end: the collector passes it over
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
        try:
            temporary.write_bytes(self.text())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise ConfigurationError(f"--metrics-file {path} cannot be written: {error.strerror or error}.") from error

    def read_file(self, path: Path) -> None:
        """`restore` from a file; one that is not there or is none of ours is passed over."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            self.restore(path.read_text(encoding="utf-8"))

    def push(self, gateway: str, tenant: str) -> None:
        """Replace what a push gateway has of this tenant."""
        from prometheus_client import push_to_gateway

        try:
            push_to_gateway(
                gateway, job=JOB, registry=self.registry, grouping_key={"tenant": mask(tenant)}, timeout=_PUSH_S
            )
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"The push gateway did not take the metrics: {mask(str(error))}.") from error


class _Lag:
    """Computed when it is asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(LAG, _LAG_HELP, labels=("tenant", "box"))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(LAG, _LAG_HELP, labels=("tenant", "box"))
        for tenant, box, days in self._metrics.lags():
            family.add_metric((tenant, box), days)
        yield family


def _time(text: Any) -> float | None:
    return dt.datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None


@contextlib.contextmanager
def served(metrics: Metrics, address: str) -> Iterator[int]:
    """Serve the metrics at HOST:PORT as long as the context lasts; the port, also where 0 asked for a free one.

    Raises
    ------
    ConfigurationError
        It is no HOST:PORT, or cannot be listened on.
    """
    from prometheus_client import start_http_server

    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"--metrics is HOST:PORT, such as 127.0.0.1:9464; got {address!r}.")
    try:
        server, thread = start_http_server(int(port), host.strip("[]") or "127.0.0.1", metrics.registry)
    except OSError as error:
        raise ConfigurationError(f"--metrics {address} cannot be listened on: {error.strerror or error}.") from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
