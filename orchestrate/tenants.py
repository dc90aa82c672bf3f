"""What holds for each store that is kept up to date, put together from everything that says something.

What is said on the command line goes before the environment (`GEOFIELD_*`), that before what a tenant of the settings
file says, that before what the file says for all. The file is given with --config, or lies in a store as
`settings.yaml`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from geofield.errors import ConfigurationError, NotFoundError
from orchestrate.config import PREFIX, Settings
from orchestrate.masking import MASK, mask_all, register
from orchestrate.schedule import HOURLY, Schedule, parse_every
from orchestrate.settingsfile import (
    LARGEST,
    NAME,
    YESTERDAY,
    FileSettings,
    NotifySettings,
    Shared,
    TenantSettings,
    errors_of_run,
    fault_of,
    parse_settings,
)

if TYPE_CHECKING:
    from geofield import Store


NO_ONE = NotifySettings.model_validate({})


@dataclass(frozen=True)
class Tenant:
    """One store with everything that holds for it.

    Attributes
    ----------
    until
        Rule for the last day; None: nobody said.
    again_after
        A run with failures is followed by another one after this; None: as scheduled.
    """

    name: str
    store: str
    schedule: Schedule
    run: Settings
    storage: Mapping[str, str] = field(default_factory=dict)
    until: str | None = None
    again_after: dt.timedelta | None = None
    notify: NotifySettings = NO_ONE

    def open(self) -> Store:
        """The store."""
        import geofield

        return geofield.open_store(self.store, dict(self.storage) or None)


# --- where a file comes from -----------------------------------------------------------------------------------------


class Source(Protocol):
    """Where settings are read from, again and again."""

    def text(self) -> str | None:
        """What stands there now; None when there are no settings and none are needed."""

    def tenants(self, text: str | None, said: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[Tenant, ...]:
        """What it means; `ConfigurationError` names the key that is wrong."""


@dataclass(frozen=True)
class ConfigFile:
    """A file that whoever starts the process names. It may refer to any variable of the environment."""

    path: Path

    def text(self) -> str:
        """Its text; `ConfigurationError` when it cannot be read."""
        try:
            if self.path.stat().st_size > LARGEST:
                raise ConfigurationError(f"{self.path} has more than {LARGEST:,} bytes; that is no settings file.")
            return self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{self.path} cannot be read: {error}") from error

    def tenants(self, text: str | None, said: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[Tenant, ...]:
        """Its tenants, in its order."""
        held = parse_settings(text or "", str(self.path), environment)
        if not held.tenants:
            raise ConfigurationError(f"{self.path}: tenants: there is none; name a store for each.")
        folder = self.path.absolute().parent
        return tuple(
            _tenant(name, _beside(one.store, folder), held, one, said, environment)
            for name, one in held.tenants.items()
        )


@dataclass(frozen=True)
class StoreFile:
    """A store, with or without `settings.yaml` in it.

    Whoever may write into the store may write that file. So it refers to no variables but `GEOFIELD_*`, its addresses
    of notifications are such references, and it names no other store: it could else have this process send its
    credentials somewhere.
    """

    store: str

    def text(self) -> str | None:
        """Its text; None when there is no such file."""
        import geofield

        try:
            data = geofield.open_store(self.store).location.read(NAME)
        except NotFoundError as error:
            if NAME not in str(error):
                raise
            return None
        if len(data) > LARGEST:
            raise ConfigurationError(f"{NAME} in the store has more than {LARGEST:,} bytes; that is no settings file.")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{NAME} in the store is not UTF-8: {error}") from error

    def tenants(self, text: str | None, said: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[Tenant, ...]:
        """The store itself; a file in a store has no `tenants`."""
        allowed = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
        held = parse_settings(text or "", f"{NAME} in the store", allowed, is_of_store=True)
        return (_tenant(self.store, self.store, held, None, said, environment),)


# --- what holds for a tenant -----------------------------------------------------------------------------------------

_RUN = ("cluster", "workers", "look_back", "boxes_at_once", "retries", "retry_wait_s")
_WHEN = ("schedule", "every")


def _tenant(
    name: str,
    store: str,
    file: FileSettings,
    own: TenantSettings | None,
    said: Mapping[str, Any],
    environment: Mapping[str, str],
) -> Tenant:
    layers = [_said(file), {} if own is None else _said(own), _of_environment(environment), _of_call(said)]
    values: dict[str, Any] = {}
    for layer in layers:
        if any(layer.get(key) for key in _WHEN):  # a schedule takes the place of an interval, and the other way round
            values = {key: value for key, value in values.items() if key not in _WHEN}
        values |= layer
    faults = errors_of_run({key: values[key] for key in _RUN if key in values})
    if faults:
        raise ConfigurationError(f"tenant {name}: {'; '.join(faults)}.")
    return Tenant(
        name=name,
        store=store,
        schedule=_schedule(values),
        run=Settings.model_validate(
            {key: values[key] for key in _RUN if key in values} | {"debug": bool(environment.get(PREFIX + "DEBUG"))}
        ),
        storage={} if own is None else _without_none({"endpoint_url": own.endpoint_url, "region": own.region}),
        until=values.get("until"),
        again_after=parse_every(values["again_after"]) if values.get("again_after") else None,
        notify=values.get("notify") or NO_ONE,
    )


def _schedule(values: Mapping[str, Any]) -> Schedule:
    zone = values.get("timezone") or "UTC"
    if values.get("schedule"):
        return Schedule(cron=values["schedule"], zone=zone)
    return Schedule(every=parse_every(values["every"]) if values.get("every") else HOURLY, zone=zone)


def _said(part: Shared) -> dict[str, Any]:
    return _without_none({name: getattr(part, name) for name in Shared.model_fields})


def _of_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    names = [name for name in Shared.model_fields if name != "notify"]
    values: dict[str, Any] = {
        name: environment[PREFIX + name.upper()] for name in names if environment.get(PREFIX + name.upper())
    }
    if environment.get(PREFIX + "NOTIFY_URLS"):
        values["notify"] = {"urls": environment[PREFIX + "NOTIFY_URLS"].split()}
        for one in values["notify"]["urls"]:
            register(one)
    try:
        return _said(Shared.model_validate(values))
    except ValidationError as error:
        faults = "; ".join(PREFIX + fault_of(one).replace(str(one["loc"][0]), str(one["loc"][0]).upper(), 1)
                           if one["loc"] else fault_of(one) for one in error.errors(include_url=False))  # fmt: skip
        raise ConfigurationError(f"The environment: {faults}.") from error


def _of_call(said: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _said(Shared.model_validate(_without_none(said)))
    except ValidationError as error:
        faults = "; ".join(f"--{fault_of(one)}" for one in error.errors(include_url=False))
        raise ConfigurationError(f"The call: {faults}.") from error


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _beside(store: str, folder: Path) -> str:
    return store if "://" in store else str((folder / Path(store).expanduser()).resolve())


# --- reading it back -------------------------------------------------------------------------------------------------


def shown(tenant: Tenant) -> dict[str, Any]:
    """What holds for a tenant, for a person to check: addresses without what is secret in them."""
    run = tenant.run.model_dump(mode="json")
    value = {
        "store": tenant.store,
        **tenant.storage,
        "schedule": str(tenant.schedule),
        "until": tenant.until or YESTERDAY,
        **{name: run[name] for name in _RUN},
        "again_after": None if tenant.again_after is None else f"{tenant.again_after.total_seconds():g} s",
        "notify": {
            "urls": [f"{one.get_secret_value().partition('://')[0][:12]}://{MASK}" for one in tenant.notify.urls],
            "events": list(tenant.notify.events),
            "stale_days": tenant.notify.stale_days,
        },
    }
    masked: dict[str, Any] = mask_all(value)
    return masked
