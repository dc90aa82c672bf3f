"""Errors as Dagster takes them: some are tried again, some wait for their days, the others tell what has to be done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from geofield.errors import GeofieldError, MissingDaysError, SkipError
from orchestrate.config import Settings
from orchestrate.work import fault, may_succeed_later

EARLY = "geofield/early"
"""Tag of a run that was refused because its day's turn has not come."""
WAITING, ASKED, DONE = "waiting", "asked", "done"

_LONGEST_WAIT_S = 3600.0


def _actions(root: type[GeofieldError]) -> Iterator[tuple[str, str]]:
    yield root.kind, root.action
    for child in root.__subclasses__():
        yield from _actions(child)


ACTIONS = dict(_actions(GeofieldError)) | {"cluster": "retry", "interrupted": "retry", "unexpected": "stop"}
"""Kind of an error in a receipt -> what to do next."""


@contextlib.contextmanager
def told(context: Any, settings: Settings) -> Iterator[None]:
    """Turns what a call raises into what Dagster does next.

    `retry`: the step is tried again, `GEOFIELD_RETRIES` times, after minutes that double. A day whose turn has not
    come: the run fails with the reason, is tagged, and the sensor `early_days` asks for it again when its turn has
    come. Anything else fails at once: another try would end in the same way.
    """
    try:
        yield
    except (dg.Failure, dg.RetryRequested):
        raise
    except Exception as error:
        one = fault(*_where(context), error)
        if may_succeed_later(error):
            raise _retry(context, settings) from _failure([one])
        if isinstance(error, MissingDaysError) or type(error) is SkipError:
            context.instance.add_run_tags(context.run.run_id, {EARLY: WAITING})
        raise _failure([one]) from error


def check(context: Any, settings: Settings, receipt: Mapping[str, Any]) -> None:
    """Raise what the errors of a receipt call for; see `told`."""
    errors = receipt["errors"]
    if not errors:
        return
    if all(ACTIONS.get(one["kind"], "stop") == "retry" for one in errors):
        raise _retry(context, settings) from _failure(errors)
    raise _failure(errors)


def _retry(context: Any, settings: Settings) -> dg.RetryRequested:
    # the call has made its own quick tries by now: a minute first, with the settings as they come
    wait = min(_LONGEST_WAIT_S, 60 * settings.retry_wait_s * 2**context.retry_number)
    return dg.RetryRequested(max_retries=settings.retries, seconds_to_wait=wait)


def _failure(errors: list[dict[str, Any]]) -> dg.Failure:
    lines = [f"{one['kind']}: {one['message']}" for one in errors]
    return dg.Failure("\n".join(lines), metadata={"errors": dg.MetadataValue.json(errors)}, allow_retries=False)


def _where(context: Any) -> tuple[str | None, Any]:
    from orchestrate.dagster.partitions import box_and_day

    return box_and_day(context.partition_key) if context.has_partition_key else (None, None)
