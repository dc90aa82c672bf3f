"""Checks of what is stored: how far the boxes are, and whether everything that must hold does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from orchestrate import parts
from orchestrate.dagster.assets import STORED
from orchestrate.dagster.resources import StoreResource

if TYPE_CHECKING:
    from geofield.pipeline import Finding

STALE_DAYS = 3
_LISTED = 100


@dg.asset_check(asset=STORED.key, description=f"No box is more than {STALE_DAYS} days behind what is due.")
def is_fresh(store: StoreResource) -> dg.AssetCheckResult:
    """How many days each box is behind; those that cannot be read are behind too."""
    boxes = parts.box_days(store.open())
    stale = [one for one in boxes if one.error is not None or len(one.missing) > STALE_DAYS]
    shown = stale[:_LISTED]
    table = [
        dg.TableRecord({"box": one.id, "last_day": str(one.last or "none"), "behind": len(one.missing),
                        "error": one.error or ""}) for one in shown
    ]  # fmt: skip
    return dg.AssetCheckResult(
        passed=not stale,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "boxes": len(boxes),
            "stale": len(stale),
            "most_behind": max((len(one.missing) for one in boxes), default=0),
            "stale_boxes": dg.MetadataValue.table(table, schema=_STALE),
        },
        description=f"{len(stale)} of {len(boxes)} boxes are more than {STALE_DAYS} days behind, or cannot be read.",
    )


_STALE = dg.TableSchema(
    [dg.TableColumn("box"), dg.TableColumn("last_day"), dg.TableColumn("behind", "int"), dg.TableColumn("error")]
)

_ROWS = ("I6", "I9", "rows")


@dg.multi_asset_check(
    name="verify",
    specs=[
        dg.AssetCheckSpec("invariants", asset=STORED.key, description="Days are complete, consecutive, from their "
                          "sources; nothing is left behind."),
        dg.AssetCheckSpec("agreement", asset=STORED.key, description="Rows that came with their day equal those "
                          "computed as for a late field, bit for bit: a few fields of every box are computed again."),
    ],
)  # fmt: skip
def verify(store: StoreResource) -> Iterator[dg.AssetCheckResult]:
    """Everything that `geofield verify` looks at."""
    from geofield import pipeline

    findings = [one for one in pipeline.verify(store.open().location) if one.is_open]
    yield _result("invariants", [one for one in findings if one.invariant not in _ROWS])
    yield _result("agreement", [one for one in findings if one.invariant in _ROWS])


def _result(name: str, findings: Sequence[Finding]) -> dg.AssetCheckResult:
    """What is unfinished is completed by the next run: a warning."""
    is_broken = any(one.severity == "broken" for one in findings)
    return dg.AssetCheckResult(
        asset_key=STORED.key,
        check_name=name,
        passed=not findings,
        severity=dg.AssetCheckSeverity.ERROR if is_broken else dg.AssetCheckSeverity.WARN,
        metadata={"findings": len(findings), "found": dg.MetadataValue.md(_listed(findings)),
                  "checked": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")},
    )  # fmt: skip


def _listed(findings: Iterable[Finding]) -> str:
    lines = [
        f"- {one.invariant}, {one.severity}{f', box {one.box}' if one.box else ''}: {one.found} {one.advice}"
        for one in findings
    ]
    return "\n".join(lines[:_LISTED]) or "nothing"
