"""The commands that watch and look back: watch, config, runs; and what a single run shares with them."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geofield.errors import ConfigurationError
from orchestrate.clicommon import AS_JSON, STORE, Command, open_store, print_json

if TYPE_CHECKING:
    from geofield import Store
    from orchestrate.metrics import Metrics
    from orchestrate.tenants import Source, Tenant

_CONFIG = click.option("--config", metavar="FILE", type=click.Path(path_type=Path), envvar="GEOFIELD_CONFIG",
                       help="Settings of one or several stores; default settings.yaml in the store.")  # fmt: skip
_UNTIL = click.option("--until", metavar="DATE", help="Last day: yesterday (default), today, today-3.")
_CLUSTER = click.option("--cluster", metavar="threads|local|kube|tcp://..", help="Where the work runs.")
_WORKERS = click.option("--workers", metavar="N|MIN:MAX", help="How many.")


def log_options(command: Command) -> Command:
    """`--log-format` and `--log-level`."""
    command = click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
                           help="What is logged; default info, or GEOFIELD_LOG_LEVEL.")(command)  # fmt: skip
    return click.option("--log-format", type=click.Choice(["human", "json"]),
                        help="Of what is logged on stderr; default human, or GEOFIELD_LOG.")(command)  # fmt: skip


def metrics_options(command: Command) -> Command:
    """`--metrics-file` and `--push-gateway`."""
    command = click.option("--push-gateway", metavar="URL", envvar="GEOFIELD_PUSH_GATEWAY",
                           help="Push metrics there when the run is over.")(command)  # fmt: skip
    return click.option("--metrics-file", metavar="PATH", type=click.Path(path_type=Path),
                        envvar="GEOFIELD_METRICS_FILE",
                        help="Write metrics for the node exporter when the run is over.")(command)  # fmt: skip


@click.command()
@STORE
@_CONFIG
@click.option("--every", metavar="INTERVAL", help="From start to start, e.g. 30m or 1h; default 1h.")
@_UNTIL
@_CLUSTER
@_WORKERS
@click.option("--metrics", metavar="HOST:PORT", envvar="GEOFIELD_METRICS", help="Serve metrics for Prometheus there.")
@metrics_options
@click.option("--once", is_flag=True, help="Run every store once, now, and leave.")
@log_options
def watch(
    store: str | None, config: Path | None, metrics: str | None, metrics_file: Path | None, push_gateway: str | None,
    once: bool, log_format: str | None, log_level: str | None, **said: Any,
) -> int:  # fmt: skip
    """Run again and again, until stopped.

    SIGTERM or Ctrl-C: the commit in hand is finished, the receipt is written, and the exit status is 0.
    """
    from orchestrate import logs
    from orchestrate.progress import Logged
    from orchestrate.watch import Watch, run_tenant

    logs.configure(log_format, log_level, is_stamped=True)
    counted = _metrics(metrics_file)
    watching = Watch(_source(store, config), run_tenant(Logged()), os.environ, said, metrics=counted)
    watching.start()
    adopt_loggers()
    with contextlib.ExitStack() as stack:
        if metrics is not None:
            from orchestrate.metrics import served

            stack.enter_context(served(counted, metrics))
        stack.enter_context(_stopped_by_signals(watching.stop))
        if once:
            failed = watching.run_all()
        else:
            watching.run_until_stopped()
            failed = 0
        _hand_out(counted, metrics_file, push_gateway, "watch")
    return 1 if failed else 0


@click.group()
def config() -> None:
    """Look at settings."""


@config.command("show")
@STORE
@_CONFIG
@AS_JSON
def config_show(store: str | None, config: Path | None, as_json: bool) -> int:
    """Show what holds for each store, put together from file and environment, secrets masked; or what is wrong."""
    from orchestrate.notify import check_urls
    from orchestrate.tenants import shown

    source = _source(store, config)
    tenants = source.tenants(source.text(), {}, os.environ)
    for one in tenants:
        check_urls([url.get_secret_value() for url in one.notify.urls])
    value = {"tenants": {one.name: shown(one) for one in tenants}}
    if as_json:
        print_json(value)
    else:
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
    return 0


@click.command()
@STORE
@click.option("--box", metavar="ID", help="Of this box only.")
@click.option("--failed", is_flag=True, help="Only what failed.")
@click.option("--since", metavar="DATE", help="Runs started on this day (UTC) or later; default 30 days ago.")
@AS_JSON
def runs(store: str | None, box: str | None, failed: bool, since: str | None, as_json: bool) -> int:
    """Show past runs: attempts by box and day, successful or not, kinds of errors, durations."""
    from orchestrate.audit import DAYS_BACK, attempts, by_day, receipts_since
    from orchestrate.show import show_runs

    today = dt.datetime.now(dt.UTC).date()
    start = today - dt.timedelta(days=DAYS_BACK) if since is None else _day(since)
    # a clock that runs ahead of this one may have written a receipt of tomorrow
    opened = open_store(store)
    found = list(attempts(receipts_since(opened, start, today + dt.timedelta(days=1)), box))
    if box is not None and not found:  # of a box that was removed there may be some
        opened.box(box)
    days = by_day(found)
    if failed:
        found = [one for one in found if one["outcome"] in ("failed", "unfinished")]
        days = [one for one in days if one["failed"]]
    if as_json:
        print_json({"since": start.isoformat(), "attempts": found, "days": days})
    else:
        show_runs(start.isoformat(), found, days)
    return 0


COMMANDS = (watch, config, runs)


# --- a single run ----------------------------------------------------------------------------------------------------


def tenant_of(url: str, said: Mapping[str, Any]) -> Tenant:
    """What holds for a run of one store: its settings.yaml, if there is one, the environment, what was said."""
    from orchestrate.tenants import StoreFile

    source = StoreFile(url)
    (tenant,) = source.tenants(source.text(), said, os.environ)
    return tenant


def follow_up(
    tenant: Tenant, store: Store, receipt: Mapping[str, Any], metrics_file: Path | None, push_gateway: str | None
) -> None:
    """Log, count and tell what a single run did."""
    from orchestrate.accounting import account
    from orchestrate.notify import Notifier, check_urls

    urls = [one.get_secret_value() for one in tenant.notify.urls]
    try:
        check_urls(urls)
    except ConfigurationError as error:
        _warn(str(error))
        urls = []
    notifier = Notifier(store.url, urls, tenant.notify.events, tenant.notify.stale_days) if urls else None
    counted = _metrics(metrics_file) if metrics_file or push_gateway else None
    account(store.url, receipt, store, dt.datetime.now(dt.UTC), counted, notifier)
    if counted is not None:
        _hand_out(counted, metrics_file, push_gateway, store.url)


# --- what they share -------------------------------------------------------------------------------------------------


def _source(store: str | None, config: Path | None) -> Source:
    from orchestrate.tenants import ConfigFile, StoreFile

    if config is not None:
        return ConfigFile(config)
    if not store:
        raise ConfigurationError("Which store? Give STORE or --config FILE, or set GEOFIELD_STORE.")
    return StoreFile(store)


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"--since {text!r} is not a day; write YYYY-MM-DD.") from error


def _metrics(file: Path | None) -> Metrics:
    from prometheus_client import disable_created_metrics

    from orchestrate.metrics import Metrics

    disable_created_metrics()  # type: ignore[no-untyped-call]
    counted = Metrics()
    if file is not None:
        counted.read_file(file)
    return counted


def _hand_out(counted: Metrics, file: Path | None, gateway: str | None, name: str) -> None:
    """What cannot be handed out is told; the run is done all the same."""
    try:
        if file is not None:
            counted.write_file(file)
        if gateway is not None:
            counted.push(gateway, name)
    except ConfigurationError as error:
        _warn(str(error))


def _warn(text: str) -> None:
    import logging

    logging.getLogger(__name__).warning(text)


def adopt_loggers() -> None:
    """Dask's scheduler and workers of this process log as everything else does, when lines are JSON."""
    from orchestrate import logs

    if logs.is_json():
        import distributed  # noqa: F401 - its loggers get their handlers when it is imported

        logs.adopt("distributed")


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `stop` as long as the context lasts."""

    def handle(number: int, frame: object) -> None:
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
