"""What follows a run: its receipt is logged, counted, and people are told. None of it makes a run fail."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrate.logs import of_run
from orchestrate.work import fault

if TYPE_CHECKING:
    from geofield import Store
    from orchestrate.metrics import Metrics
    from orchestrate.notify import Notifier

_LOG = logging.getLogger(__name__)


def account(
    tenant: str,
    receipt: Mapping[str, Any],
    store: Store | None,
    now: dt.datetime,
    metrics: Metrics | None = None,
    notifier: Notifier | None = None,
) -> None:
    """Log, count and tell what a receipt says.

    Parameters
    ----------
    tenant
        What the store is called.
    store
        Where it is remembered what people were told; None where it cannot be opened.
    """
    with of_run(str(receipt.get("run_id") or "")):
        _log(tenant, receipt)
        if metrics is not None:
            metrics.add(tenant, receipt)
        if notifier is not None:
            notifier.tell(receipt, store, now)


def receipt_of_failure(error: BaseException, began: dt.datetime, now: dt.datetime) -> dict[str, Any]:
    """What stands for the receipt of a run that could not even begin."""
    return {
        "run_id": "",
        "started": began.isoformat(timespec="milliseconds"),
        "finished": now.isoformat(timespec="milliseconds"),
        "boxes": {},
        "errors": [fault(None, None, error)],
    }


def _log(tenant: str, receipt: Mapping[str, Any]) -> None:
    for error in receipt.get("errors") or []:
        where = " ".join(str(part) for part in (error.get("box"), error.get("date")) if part)
        _LOG.error(
            "%s: %s: %s",
            f"{tenant}, {where}" if where else tenant,
            error.get("kind"),
            error.get("message"),
            extra={"tenant": tenant, "box": error.get("box"), "date": error.get("date"), "kind": error.get("kind")},
        )
    boxes = list((receipt.get("boxes") or {}).values())
    inbox = receipt.get("inbox") or {}
    counts = {
        "days_appended": sum(one.get("days_appended", 0) for one in boxes),
        "days_amended": sum(one.get("days_amended", 0) for one in boxes),
        "rows_written": sum(one.get("rows_written", 0) for one in boxes),
        "rows_removed": sum(one.get("rows_removed", 0) for one in boxes),
        "late_fields": sum((one.get("late") or {}).get("fields", 0) for one in boxes),
        "rows_rejected": inbox.get("rows_rejected", 0),
        "retries": receipt.get("retries") or 0,
        "errors": len(receipt.get("errors") or []),
    }
    told = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in counts.items() if number)
    _LOG.info("%s: run over: %s", tenant, told or "nothing to do", extra={"tenant": tenant, **counts})
