"""The settings of a run: what the caller says, then the environment, then defaults. No secrets are kept here."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from geofield.errors import ConfigurationError

Workers = int | tuple[int, int] | None

PREFIX = "GEOFIELD_"
FAR_AHEAD = dt.timedelta(days=1)  # east of Greenwich it is tomorrow already


class Settings(BaseModel):
    """Settings of a run. Each may come from the environment: `store` from `GEOFIELD_STORE`, and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str | None = Field(None, description="directory or s3://bucket/prefix")
    until: dt.date | None = Field(None, description="last day, included; default today (UTC)")
    cluster: str = Field("threads", description="threads, local, kube, or the address of a scheduler")
    workers: int | tuple[int, int] | None = Field(None, description="a number, or (least, most)")
    max_pixels: int | None = Field(None, gt=0, description="largest box that add-box takes, pixels a day")
    look_back: int = Field(30, ge=0, le=4000, description="days that are compared with what the source offers now")
    look_every_h: float = Field(0.0, ge=0, description="how long a comparison with what the source offers holds")
    boxes_at_once: int = Field(4, ge=1, le=64, description="boxes that are worked on at the same time")
    retries: int = Field(3, ge=0, le=20, description="how often what may succeed later is tried again")
    retry_wait_s: float = Field(1.0, ge=0, description="wait before the first retry; doubled each time")
    debug: bool = Field(False, description="tracebacks of what nobody foresaw")

    @field_validator("workers", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        return parse_workers(value) if isinstance(value, str) else value

    @field_validator("until", mode="before")
    @classmethod
    def _rule(cls, value: Any) -> Any:
        return day_of_rule(value, dt.datetime.now(dt.UTC).date()) if isinstance(value, str) else value


def settings(environment: Mapping[str, str] | None = None, **said: Any) -> Settings:
    """The settings that hold.

    Parameters
    ----------
    environment
        Default: that of the process.
    said
        What the caller says; None stands for nothing said.

    Raises
    ------
    ConfigurationError
        A setting is wrong; it is named.
    """
    environment = os.environ if environment is None else environment
    values = {
        name: environment[PREFIX + name.upper()]
        for name in Settings.model_fields
        if environment.get(PREFIX + name.upper())
    }
    values |= {name: value for name, value in said.items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_fault(one) for one in error.errors(include_url=False))
        raise ConfigurationError(f"A setting is wrong: {faults}.") from error


def _fault(one: Any) -> str:
    cause = one.get("ctx", {}).get("error")
    if isinstance(cause, ConfigurationError):  # says itself what was given
        return str(cause).rstrip(".")
    return f"{'.'.join(str(part) for part in one['loc'])} = {one['input']!r}: {one['msg']}"


def parse_workers(text: str) -> int | tuple[int, int]:
    """`4` or `0:20` as a number or (least, most)."""
    parts = text.strip().split(":")
    if len(parts) > 2 or not all(part.strip().isdigit() for part in parts):
        raise ConfigurationError(f"--workers is a number or MIN:MAX, such as 4 or 0:20; got {text!r}.")
    numbers = [int(part) for part in parts]
    if numbers[-1] < 1 or numbers[0] > numbers[-1]:
        raise ConfigurationError(f"--workers has to be at least 1, and MIN at most MAX; got {text!r}.")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def parse_until(value: dt.date | str | None, today: dt.date | None = None) -> dt.date:
    """The last day of a run; default today (UTC).

    Raises
    ------
    ConfigurationError
        It is no day, or in the future: its days would be stored as days without imagery.
    """
    today = today or dt.datetime.now(dt.UTC).date()
    if value is None:
        return today
    if isinstance(value, dt.datetime):
        value = value.date()
    if isinstance(value, str):
        value = day_of_rule(value, today)
    if value > today + FAR_AHEAD:
        raise ConfigurationError(
            f"--until {value} is in the future (today is {today}, UTC). Days to come would be stored as days without "
            "imagery; give a day that is over."
        )
    return value


def day_of_rule(text: str, today: dt.date) -> dt.date:
    """`2026-11-20`, `today`, `yesterday` or `today-3` as a day."""
    words = re.fullmatch(r"today(?:-(\d{1,4}))?|yesterday", text.strip())
    if words is not None:
        return today - dt.timedelta(days=1 if words[0] == "yesterday" else int(words[1] or 0))
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"--until {text!r} is not a day; write YYYY-MM-DD, today, yesterday or today-3."
        ) from error
