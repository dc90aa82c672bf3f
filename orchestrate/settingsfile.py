"""The form of a settings file: which stores are kept up to date, when, how, and who is told."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from geofield.errors import ConfigurationError
from orchestrate.config import PREFIX, Settings, day_of_rule, parse_workers
from orchestrate.masking import mask, register
from orchestrate.notify import KINDS
from orchestrate.schedule import HOURLY, Schedule, parse_every

if TYPE_CHECKING:
    import yaml

NAME = "settings.yaml"
YESTERDAY = "yesterday"

LARGEST = 1_000_000  # bytes
_MOST_VALUES = 20_000  # aliases of YAML make a short text an endless one
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STRICT = ConfigDict(frozen=True, extra="forbid")


class NotifySettings(BaseModel):
    """Who is told of what."""

    model_config = _STRICT

    urls: tuple[SecretStr, ...] = Field((), description="addresses as apprise takes them, such as ${SLACK_URL}")
    events: tuple[str, ...] = Field(KINDS, description="of what: " + ", ".join(KINDS))
    stale_days: int = Field(3, ge=1, description="a box whose last day is older than this is stale")

    @field_validator("events")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if one not in KINDS:
                raise ValueError(f"{one!r} is none of {', '.join(KINDS)}")
        return value


class Shared(BaseModel):
    """What may be said for all tenants, and for one."""

    model_config = _STRICT

    schedule: str | None = Field(None, description="cron expression: when it runs")
    every: str | None = Field(None, description="instead: an interval such as 1h")
    timezone: str | None = Field(None, description="of the cron expression; default UTC")
    until: str | None = Field(None, description="last day: yesterday (default of watch), today, today-3, or a day")
    cluster: str | None = None
    workers: int | tuple[int, int] | None = None
    look_back: int | None = None
    boxes_at_once: int | None = None
    retries: int | None = None
    retry_wait_s: float | None = None
    again_after: str | None = Field(None, description="a run with failures is followed by another one after this")
    notify: NotifySettings | None = None

    @field_validator("workers", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        return parse_workers(value) if isinstance(value, str) else value

    @field_validator("until")
    @classmethod
    def _rule(cls, value: str | None) -> str | None:
        if value is not None:
            day_of_rule(value, dt.date(2024, 1, 31))
        return value

    @field_validator("every", "again_after")
    @classmethod
    def _interval(cls, value: str | None) -> str | None:
        if value is not None:
            parse_every(value)
        return value

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None:
            Schedule(cron=value)
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str | None) -> str | None:
        if value is not None:
            Schedule(every=HOURLY, zone=value)
        return value

    @field_validator("cluster", "look_back", "boxes_at_once", "retries", "retry_wait_s")
    @classmethod
    def _of_a_run(cls, value: Any, info: Any) -> Any:
        if value is not None:
            (one,) = errors_of_run({info.field_name: value}) or (None,)
            if one is not None:
                raise ValueError(one)
        return value

    @model_validator(mode="after")
    def _one_schedule(self) -> Shared:
        if self.schedule is not None and self.every is not None:
            raise ValueError("schedule and every are both given; give one of them")
        return self


class TenantSettings(Shared):
    """One store, and what differs for it."""

    store: str = Field(description="directory or s3://bucket/prefix; what is relative lies beside the settings file")
    endpoint_url: str | None = Field(None, description="S3 server of this store")
    region: str | None = None


class FileSettings(Shared):
    """The whole file."""

    tenants: dict[str, TenantSettings] = Field(default_factory=dict)

    @field_validator("tenants")
    @classmethod
    def _names(cls, value: dict[str, TenantSettings]) -> dict[str, TenantSettings]:
        for name in value:
            if _TENANT.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no name of a tenant: 1 to 64 letters, digits, dots, dashes")
        return value


# --- reading ---------------------------------------------------------------------------------------------------------


def parse_settings(text: str, name: str, environment: Mapping[str, str], *, is_of_store: bool = False) -> FileSettings:
    """The settings that a text holds, with its references to the environment resolved.

    Raises
    ------
    ConfigurationError
        Names the key. No value that may be secret is in the message.
    """
    raw = _mapping(text, name)
    if is_of_store:
        _check_of_store(raw, name)
    values = _resolved(raw, environment, (), name, [0])
    for one in _urls(values):
        register(one)
    try:
        return FileSettings.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(fault_of(one) for one in error.errors(include_url=False))
        raise ConfigurationError(f"{name}: {faults}.") from error


def _loader() -> type[yaml.SafeLoader]:
    """YAML's safe loader with the words of YAML 1.2: `1:4` is no number of base 60, `on` and `yes` are no booleans."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in found if tag.rpartition(":")[2] not in ("bool", "int", "float")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for name, form, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
        ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ):
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(f"^(?:{form})$"), list(first))
    return Loader


def _mapping(text: str, name: str) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.load(text, _loader())  # noqa: S506 - a SafeLoader with fewer words
    except yaml.YAMLError as error:
        # its own words show the line, with whatever is written there
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise ConfigurationError(f"{name} is not YAML{where}: {getattr(error, 'problem', None) or 'broken'}.") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name} has to be a mapping, key: value, line by line.")
    return value


def fault_of(error: Any) -> str:
    """One fault that pydantic found, by its key; what may be secret is left out."""
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    said = error["input"]
    is_plain = isinstance(said, str | int | float) and "urls" not in error["loc"]
    value = f" = {mask(repr(said))}" if is_plain and error["type"] != "extra_forbidden" else ""
    reason = "there is no such setting" if error["type"] == "extra_forbidden" else error["msg"]
    return f"{key}{value}: {mask(reason.removeprefix('Value error, ').rstrip('.'))}"


def _check_of_store(raw: Mapping[str, Any], name: str) -> None:
    if "tenants" in raw:
        raise ConfigurationError(f"{name}: tenants: settings in a store are for that store; give a file with --config.")
    for number, one in enumerate(_urls(raw)):
        if _REFERENCE.fullmatch(one) is None:
            raise ConfigurationError(
                f"{name}: notify.urls.{number}: in a store an address is a reference such as "
                f"${{{PREFIX}SLACK_URL}}: whoever reads the store would read it too."
            )


def _urls(raw: Mapping[str, Any]) -> Iterator[str]:
    """The texts in the places of addresses, wherever the file is right so far."""
    tenants = raw.get("tenants")
    for part in (raw, *(tenants.values() if isinstance(tenants, dict) else ())):
        notify = part.get("notify") if isinstance(part, dict) else None
        urls = notify.get("urls") if isinstance(notify, dict) else None
        yield from (one for one in (urls if isinstance(urls, list) else [urls]) if isinstance(one, str))


def _resolved(value: Any, environment: Mapping[str, str], key: tuple[str, ...], name: str, count: list[int]) -> Any:
    count[0] += 1
    if count[0] > _MOST_VALUES:
        raise ConfigurationError(f"{name} holds more than {_MOST_VALUES:,} values; that is no settings file.")
    if isinstance(value, dict):
        return {str(one): _resolved(item, environment, (*key, str(one)), name, count) for one, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, environment, (*key, str(n)), name, count) for n, item in enumerate(value)]
    if isinstance(value, dt.date):  # YAML makes one of `until: 2026-11-20`
        return value.isoformat()
    if not isinstance(value, str):
        return value

    def look_up(found: re.Match[str]) -> str:
        if not environment.get(found[1]):
            where = ".".join(key)
            only = f" Here only variables that begin with {PREFIX} are seen." if name.startswith(NAME) else ""
            raise ConfigurationError(f"{name}: {where}: the environment has no variable {found[1]}.{only}")
        return environment[found[1]]

    return _REFERENCE.sub(look_up, value)


def errors_of_run(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings of a run."""
    from orchestrate.cluster import check_kind

    try:
        check_kind(Settings.model_validate(values).cluster)
    except ValidationError as error:
        return [fault_of(one) if len(values) > 1 else one["msg"] for one in error.errors(include_url=False)]
    except ConfigurationError as error:
        return [str(error)]
    return []
