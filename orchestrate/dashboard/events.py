"""What a run tells the scheduler of the cluster that works for it. Costs a message; lost messages harm nothing."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any

TOPIC = "geofield"
_LOG = logging.getLogger(__name__)


def begin(run: str, what: str, total: int, unit: str) -> None:
    """A piece of work of a box begins: `what` is the box and what is done there."""
    tell({"event": "begin", "run": run, "what": what, "total": total, "unit": unit})


def over(run: str, what: str) -> None:
    """It is over, done or not."""
    tell({"event": "end", "run": run, "what": what})


def counts(run: str, box: str, receipt: Any) -> None:
    """How far a box is: the counts of its part of the receipt."""
    tell(
        {
            "event": "counts",
            "run": run,
            "box": box,
            "days": receipt.days_appended + receipt.days_amended,
            "rows": receipt.rows_written,
            "source_bytes": receipt.source_bytes,
            "late_fields": receipt.late.fields + receipt.mended.fields,
            "late_field_days": receipt.late.field_days + receipt.mended.field_days,
        }
    )


def tell(message: dict[str, Any]) -> None:
    """Send a message to the scheduler of the client in use; nothing where there is none."""
    if "distributed" not in sys.modules:
        return
    from distributed import default_client

    with contextlib.suppress(ValueError, OSError):  # no client, or its scheduler has gone: the run will say so
        default_client().log_event(TOPIC, message)


def install(client: Any) -> bool:
    """Put the page on the dashboard of a client's scheduler; whether it is there.

    A scheduler without orchestrate, or without Bokeh, has no such page; nothing else depends on it.
    """
    from orchestrate.dashboard.plugin import serve

    try:
        return bool(client.run_on_scheduler(serve))
    except Exception as error:  # whatever another machine's installation makes of it
        _LOG.debug("the dashboard has no page of geofield: %s", error)
        return False
