"""When something is due: a cron expression in a time zone, or every so often. Nothing here looks at a clock."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

from geofield.errors import ConfigurationError

HOURLY = dt.timedelta(hours=1)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LEAST = dt.timedelta(seconds=1)


@dataclass(frozen=True)
class Schedule:
    """A cron expression in a time zone, or an interval. Checked when it is made.

    Attributes
    ----------
    cron
        Five fields: minute, hour, day of the month, month, day of the week.
    every
        Time from the start of one run to the start of the next; a run that takes longer is followed at once.
    zone
        IANA name of the time zone that `cron` is meant in. What falls into the hour that is left out in spring is due
        when that hour would have begun; what falls into the hour that comes twice in autumn is due once. Expressions
        that name every hour go on by the hour.

    Raises
    ------
    ConfigurationError
        Not an expression, not a time zone, neither or both.
    """

    cron: str | None = None
    every: dt.timedelta | None = None
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if (self.cron is None) == (self.every is None):
            raise ConfigurationError("A schedule is a cron expression, or an interval (every); give one of them.")
        if self.every is not None and self.every < _LEAST:
            raise ConfigurationError(f"An interval is at least one second; got {self.every.total_seconds():g} s.")
        zone = _zone(self.zone)
        if self.cron is not None:
            self._next(dt.datetime(2024, 1, 1, tzinfo=zone))

    def after(self, moment: dt.datetime) -> dt.datetime:
        """The first time after `moment` that it is due (UTC)."""
        if self.every is not None:
            return moment.astimezone(dt.UTC) + self.every
        return self._next(moment.astimezone(_zone(self.zone))).astimezone(dt.UTC)

    def _next(self, local: dt.datetime) -> dt.datetime:
        from cronsim import CronSim, CronSimError

        try:
            return next(CronSim(self.cron or "", local))
        except (CronSimError, StopIteration) as error:
            reason = str(error).rstrip(".") or "no such day ever comes"
            raise ConfigurationError(
                f"{self.cron!r} is no cron expression: {reason}. It has five fields: minute, hour, day of the month, "
                "month, day of the week; 30 6 * * * is half past six every day."
            ) from error

    def __str__(self) -> str:
        if self.every is not None:
            return f"every {self.every.total_seconds():g} s"
        return f"{self.cron} {self.zone}"


def parse_every(text: str) -> dt.timedelta:
    """`90s`, `30m`, `1h`, `1d` or several of them, such as `1h30m`."""
    parts = re.findall(r"(\d+)([smhd])", text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise ConfigurationError(f"An interval is written 30m, 1h, 1d or 1h30m; got {text!r}.")
    try:
        return sum((dt.timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), dt.timedelta())
    except OverflowError as error:
        raise ConfigurationError(f"An interval of {text!r} never ends.") from error


def _zone(name: str) -> dt.tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"There is no time zone {name!r}; zones have names such as UTC or Europe/Ljubljana."
        ) from error
