"""Logs: standard logging to stderr, sentences for people or one JSON object a line; without secrets, with the run's id.

Modules log with `logging.getLogger(__name__)`; what is worth counting or searching by goes into `extra={"box": ...}`.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping

from geofield.errors import ConfigurationError
from orchestrate.masking import mask, mask_all

FORMATS = ("human", "json")
LEVELS = ("debug", "info", "warning", "error")
FORMAT_VARIABLE, LEVEL_VARIABLE = "GEOFIELD_LOG", "GEOFIELD_LOG_LEVEL"

_OURS = ("orchestrate", "geofield")
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "run", "taskName"}

_run: contextvars.ContextVar[str | None] = contextvars.ContextVar("run", default=None)
_active: list[str] = []


@contextlib.contextmanager
def of_run(run_id: str) -> Iterator[None]:
    """Every line that is logged in this context belongs to a run.

    Also those of threads that the run starts, as long as no other run is at work in this process.
    """
    token = _run.set(run_id)
    _active.append(run_id)
    try:
        yield
    finally:
        _active.remove(run_id)
        _run.reset(token)


def current_run() -> str | None:
    """The id of the run at work, if it is known which."""
    return _run.get() or (_active[0] if len(set(_active)) == 1 else None)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what stderr is at the moment: progress bars and tests put another one in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> object:
        return sys.stderr


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, run, message, what was given as `extra`, error."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        value = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "run": current_run(),
            "message": record.getMessage(),
            **{name: item for name, item in vars(record).items() if name not in _PLAIN},
        }
        if record.exc_info and record.exc_info[0] is not None:
            value["error"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(mask_all(value), ensure_ascii=False, default=lambda item: mask(str(item)))


class Sentences(logging.Formatter):
    """What a person reads: the message; with `is_stamped` after the time and the run."""

    def __init__(self, is_stamped: bool) -> None:
        super().__init__()
        self.is_stamped = is_stamped

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if self.is_stamped:
            text = " ".join(part for part in (_utc(record.created)[:19] + "Z", current_run(), text) if part)
        if record.exc_info and record.exc_info[0] is not None and os.environ.get("GEOFIELD_DEBUG"):
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return mask(text)


def configure(
    format_: str | None = None,
    level: str | None = None,
    *,
    is_stamped: bool = False,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Send what is logged to stderr. May be called again; the last call holds.

    Parameters
    ----------
    format_, level
        Default: `GEOFIELD_LOG` and `GEOFIELD_LOG_LEVEL`, then `human` and `info`. Other libraries are heard from
        `warning` on.
    is_stamped
        Lines for people begin with the time and the run.

    Raises
    ------
    ConfigurationError
        No such format or level.
    """
    environment = os.environ if environment is None else environment
    chosen = _one_of(format_ or environment.get(FORMAT_VARIABLE) or "human", FORMATS, f"--log-format/{FORMAT_VARIABLE}")
    least = _one_of(level or environment.get(LEVEL_VARIABLE) or "info", LEVELS, f"--log-level/{LEVEL_VARIABLE}")
    handler = _Handler()
    handler.setFormatter(JsonLines() if chosen == "json" else Sentences(is_stamped))
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    for name in _OURS:
        logging.getLogger(name).setLevel(least.upper())


def is_json() -> bool:
    """Whether JSON lines are written."""
    return any(
        isinstance(one, _Handler) and isinstance(one.formatter, JsonLines) for one in logging.getLogger().handlers
    )


def adopt(name: str) -> None:
    """Have the loggers of a library that writes to stderr by itself write as all others do."""
    for logger_name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger_name.partition(".")[0] == name:
            logger.handlers.clear()
            logger.propagate = True


def _one_of(value: str, known: tuple[str, ...], name: str) -> str:
    if value.lower() not in known:
        raise ConfigurationError(f"{name} is {', '.join(known[:-1])} or {known[-1]}; got {value!r}.")
    return value.lower()


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03d}Z"
