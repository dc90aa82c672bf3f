"""The same as a run, again and again, for one store or several, until it is stopped."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from geofield.errors import GeofieldError
from orchestrate.accounting import account, receipt_of_failure
from orchestrate.config import parse_until
from orchestrate.notify import Notifier, check_urls
from orchestrate.receipt import recent_receipts
from orchestrate.settingsfile import YESTERDAY
from orchestrate.tenants import Source, Tenant

if TYPE_CHECKING:
    from geofield import Store
    from orchestrate.metrics import Metrics
    from orchestrate.progress import Progress

LOOK_S = 30.0
"""The settings file is looked at this often, at least."""

_LOG = logging.getLogger(__name__)


class Clock(Protocol):
    """The time, and waiting."""

    def now(self) -> dt.datetime:
        """The time, aware."""

    def wait(self, seconds: float) -> None:
        """Come back after so many seconds, or earlier when `interrupt` is called."""

    def interrupt(self) -> None:
        """End a wait, also one to come."""


class SystemClock:
    """The clock of this machine."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def now(self) -> dt.datetime:
        """UTC."""
        return dt.datetime.now(dt.UTC)

    def wait(self, seconds: float) -> None:
        """Wait."""
        self._over.wait(seconds)

    def interrupt(self) -> None:
        """End it."""
        self._over.set()


Run = Callable[[Tenant, "Store", dt.date], dict[str, Any]]
"""What runs a store up to a day and returns the receipt."""


def run_tenant(progress: Progress) -> Run:
    """Runs that tell `progress` what they do."""

    def run_once(tenant: Tenant, store: Store, until: dt.date) -> dict[str, Any]:
        from orchestrate.run import run

        return run(store, until, settings=tenant.run, progress=progress)

    return run_once


@dataclass
class _Watched:
    """A tenant and when it is due next."""

    tenant: Tenant
    notifier: Notifier
    due: dt.datetime


class Watch:
    """Runs tenants when they are due, one after the other. What fails in one of them never keeps another from its run.

    Parameters
    ----------
    source
        Where the settings are; they are read again before every wait.
    run
        Runs one tenant.
    said
        What the command line says; it goes before the file.
    """

    def __init__(
        self,
        source: Source,
        run: Run,
        environment: Mapping[str, str],
        said: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._source, self._run, self._environment, self._said = source, run, environment, dict(said or {})
        self._clock = clock or SystemClock()
        self._metrics = metrics
        self._watched: dict[str, _Watched] = {}
        self._text: str | None = None
        self._complaint: str | None = None
        self.is_stopping = False
        self.is_running = False

    # --- from outside ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Leave as soon as what is in hand is done. May be called by a signal's handler."""
        self.is_stopping = True
        self._clock.interrupt()
        if self.is_running:
            # a run finishes the commits in hand, writes its receipt, and raises this again
            raise KeyboardInterrupt

    def start(self) -> None:
        """Read the settings for the first time; `GeofieldError` when they are wrong: there is nothing to go on with."""
        self._text = self._source.text()
        self._take(self._source.tenants(self._text, self._said, self._environment))

    def run_all(self) -> int:
        """Run every tenant once, now; how many failed."""
        return sum(not self._run_one(one) for one in list(self._watched.values()) if not self.is_stopping)

    def run_until_stopped(self) -> None:
        """Watch."""
        for name, one in self._watched.items():
            _LOG.info("%s: %s, next at %s", name, one.tenant.schedule, _shown(one.due), extra={"tenant": name})
        try:
            while not self.is_stopping:
                self.step()
        except KeyboardInterrupt:
            if not self.is_stopping:
                raise
        _LOG.info("stopped: what was published stays, and the next run goes on from there")

    def step(self) -> None:
        """Run what is due, look at the settings, wait for what comes next."""
        for one in sorted(self._watched.values(), key=lambda one: one.due):
            if one.due <= self._clock.now() and not self.is_stopping:
                self._run_one(one)
        self.refresh()
        if self._watched and not self.is_stopping:
            until_due = (min(one.due for one in self._watched.values()) - self._clock.now()).total_seconds()
            if until_due > 0:
                self._clock.wait(min(until_due, LOOK_S))

    # --- a tenant --------------------------------------------------------------------------------------------------

    def _run_one(self, one: _Watched) -> bool:
        """Whether it went well."""
        tenant, began = one.tenant, self._clock.now()
        store: Store | None = None
        try:
            store = tenant.open()
            until = parse_until(tenant.until or YESTERDAY, began.astimezone(dt.UTC).date())
            _LOG.info("%s: run until %s", tenant.name, until, extra={"tenant": tenant.name, "until": until.isoformat()})
            self.is_running = True
            if self.is_stopping:  # asked for between the last look and the line before
                return True
            receipt = self._run(tenant, store, until)
        except KeyboardInterrupt:
            if not self.is_stopping:
                raise
            self.is_running = False
            return True
        except Exception as error:  # it is told and counted; the other tenants, and the next time, go on
            self.is_running = False
            _LOG.debug("%s: what nobody foresaw", tenant.name, exc_info=True)
            receipt = receipt_of_failure(error, began, self._clock.now())
        finally:
            self.is_running = False
        self._after(one, receipt, store, began)
        return not receipt["errors"]

    def _after(self, one: _Watched, receipt: Mapping[str, Any], store: Store | None, began: dt.datetime) -> None:
        now = self._clock.now()
        one.due = one.tenant.schedule.after(began)
        if one.tenant.schedule.every is None:  # what came due while it ran is done
            one.due = one.tenant.schedule.after(now)
        if receipt["errors"] and one.tenant.again_after is not None:
            one.due = min(one.due, now + one.tenant.again_after)
        try:
            account(one.tenant.name, receipt, store, now, self._metrics, one.notifier)
        except Exception as error:
            _LOG.warning("%s: the run was not accounted for: %s: %s", one.tenant.name, type(error).__name__, error)

    # --- settings --------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take over changed settings; broken ones are told of, once, and the last good ones stay in use."""
        try:
            text = self._source.text()
            if text == self._text and self._complaint is None:
                return
            tenants = self._source.tenants(text, self._said, self._environment)
            if text != self._text:
                self._take(tenants)
                self._text = text
                _LOG.info("the settings changed; the new ones are in use")
            self._complaint = None
        except (GeofieldError, OSError) as error:
            if str(error) != self._complaint:
                _LOG.error("the settings are broken, and the last good ones stay in use: %s", error)
            self._complaint = str(error)
        if self._metrics is not None:
            self._metrics.settings_valid(self._complaint is None)

    def _take(self, tenants: tuple[Tenant, ...]) -> None:
        notifiers = {one.name: _notifier(one) for one in tenants}
        watched = {}
        for tenant in tenants:
            old = self._watched.get(tenant.name)
            if old is not None and old.tenant == tenant:
                watched[tenant.name] = old
            else:
                is_same_time = old is not None and old.tenant.schedule == tenant.schedule
                due = old.due if old is not None and is_same_time else self._first_due(tenant)
                watched[tenant.name] = _Watched(tenant, notifiers[tenant.name], due)
        self._watched = watched

    def _first_due(self, tenant: Tenant) -> dt.datetime:
        """At once for an interval. By a schedule: the first time after the last run, be it past."""
        now = self._clock.now()
        if tenant.schedule.every is not None:
            return now
        try:
            (last, *_) = recent_receipts(tenant.open(), 1, now) or [{}]
            started = dt.datetime.fromisoformat(last["started"])
        except (GeofieldError, OSError, ValueError, KeyError, TypeError):
            return tenant.schedule.after(now)
        return tenant.schedule.after(min(started, now))


def _notifier(tenant: Tenant) -> Notifier:
    urls = [one.get_secret_value() for one in tenant.notify.urls]
    check_urls(urls)
    return Notifier(tenant.name, urls, tenant.notify.events, tenant.notify.stale_days)


def _shown(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
