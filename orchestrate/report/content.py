"""What the page tells, gathered from a store. Nothing is changed."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import GeofieldError
from orchestrate.inboxfiles import WHY
from orchestrate.masking import mask_all
from orchestrate.receipt import recent_receipts
from orchestrate.report.boxdata import box_data
from orchestrate.report.values import BoxData, Report
from orchestrate.state import BoxState, Existing, gather
from orchestrate.work import fault

if TYPE_CHECKING:
    from geofield import Store

DAYS = 366
FIELD_DAYS = 4_000_000
"""Most field-days of series in a page; a store with more fields shows fewer days of each."""
_RUNS, _RUNS_LOOKED_AT = 20, 200
_WHY_FILES, _REFUSED, _LATE = 50, 500, 1000
_QUICKLOOK_PIXELS, _QUICKLOOK_BOXES = 30_000_000, 20


def report_of(store: Store, days: int = DAYS, *, imagery: bool = True, now: dt.datetime | None = None) -> Report:
    """Everything that the page shows.

    Parameters
    ----------
    days
        Of each series, the last ones. Fewer where all fields together would have more than 4 million field-days.
    imagery
        Put the latest estimate of each box under its map, coarsened; read for up to 20 boxes of up to 30 million
        pixels.
    now
        When the page is made.
    """
    made = now or dt.datetime.now(dt.UTC)
    existing = gather(store)
    fields = sum(len(state.fields) for state in existing.states.values())
    shown = max(1, min(days, FIELD_DAYS // max(fields, 1)))
    receipts = recent_receipts(store, _RUNS_LOOKED_AT)
    boxes: list[BoxData] = []
    failures = dict(existing.failures)
    shapes = store.fields()
    counts = store.registry.versions().groupby("field_id").size()
    versions = {str(name): int(count) for name, count in counts.items()}
    for number, (box_id, state) in enumerate(sorted(existing.states.items())):
        is_drawn = imagery and number < _QUICKLOOK_BOXES and state.box.pixels <= _QUICKLOOK_PIXELS
        for with_pixels in (True, False) if is_drawn else (False,):  # what has no picture still has series
            try:
                boxes.append(box_data(store, state, shapes, versions, shown, with_pixels))
            except (GeofieldError, ValueError, OSError, LookupError) as error:
                failures.setdefault(box_id, error)
            else:
                break
    meta = {
        "store": store.url,
        "made": made.isoformat(timespec="seconds"),
        "version": geofield.__version__,
        "days": shown,
        "boxes": [_box(existing.states[one.id], one, made.date()) for one in boxes],
        "late": _late(existing, store, receipts, versions),
        "refused": refused(store),
        "runs": [_run(receipt) for receipt in receipts[:_RUNS]],
        "errors": [fault(box_id, None, error) for box_id, error in failures.items()],
    }
    return Report(mask_all(meta), boxes)


def _box(state: BoxState, data: BoxData, today: dt.date) -> dict[str, Any]:
    due = today - dt.timedelta(days=state.box.settle_days)
    last = state.cube.last
    late = len(state.progress.gaps)
    return {
        "id": state.box.id,
        "start": state.box.start.isoformat(),
        "last_day": None if last is None else last.isoformat(),
        "lag": max(0, (due - last).days) if last is not None else max(0, (due - state.box.start).days + 1),
        "settle_days": state.box.settle_days,
        "days": state.cube.days,
        "acquisitions": state.cube.acquired,
        "fields": len(state.fields),
        "late": late,
        "rows": state.rows_wanted - state.rows_missing,
        "rows_missing": state.rows_missing,
        "variables": [one.name for one in data.variables],
    }


# --- late fields -----------------------------------------------------------------------------------------------------


def _late(
    existing: Existing, store: Store, receipts: Sequence[Mapping[str, Any]], versions: Mapping[str, int]
) -> dict[str, Any]:
    """Fields whose rows are not all there, and fields that came after their first day had been appended."""
    accepted = store.registry.current().set_index("field_id")["accepted"].to_dict()
    rows: list[dict[str, Any]] = []
    for box_id, state in sorted(existing.states.items()):
        gaps = {gap.field_id: gap for gap in state.progress.gaps}
        appended = _appended(receipts, box_id)
        for one in state.fields:
            came = accepted.get(one.id)
            told: dict[str, Any] = {"box": box_id, "field": one.id, "came": None if came is None else came.isoformat()}
            told["first_day"] = one.first.isoformat()
            if (gap := gaps.get(one.id)) is not None:
                rows.append({**told, "waits": True, "reason": _why_waiting(gap)})
                continue
            when = next((when for first, last, when in appended if first <= told["first_day"] <= last), None)
            if when is not None and came is not None and came > when:
                what = "Changed" if versions.get(one.id, 1) > 1 else "Came"
                reason = f"{what} after its first day was appended ({when:%Y-%m-%d %H:%M} UTC); filled from the cube."
                rows.append({**told, "waits": False, "reason": reason})
    rows.sort(key=lambda row: (not row["waits"], row["box"], row["field"]))
    return {"rows": rows[:_LATE], "total": len(rows), "waiting": sum(row["waits"] for row in rows)}


def _why_waiting(gap: Any) -> str:
    if gap.days:
        return (
            f"{gap.days} days between {gap.first} and {gap.last} are missing or not current: the next run fills them."
        )
    return f"{gap.surplus} rows too many: the next run removes them."


def _appended(receipts: Sequence[Mapping[str, Any]], box_id: str) -> list[tuple[str, str, dt.datetime]]:
    """(first day, last day, when) of what known runs appended to a box."""
    found = []
    for receipt in receipts:
        one = (receipt.get("boxes") or {}).get(box_id) or {}
        first, last, when = one.get("first_day_appended"), one.get("last_day"), receipt.get("finished")
        if isinstance(first, str) and isinstance(last, str) and isinstance(when, str):
            found.append((first, last, dt.datetime.fromisoformat(when)))
    return found


# --- what was refused, what was run ----------------------------------------------------------------------------------


def refused(store: Store) -> dict[str, Any]:
    """The last refused rows with their reasons, from what lies beside the files."""
    infos = [info for folder in ("rejected", "accepted") for info in store.location.list(f"inbox/{folder}")]
    notes = sorted((info for info in infos if info.key.endswith(WHY)), key=lambda info: info.modified, reverse=True)
    rows: list[dict[str, Any]] = []
    for info in notes[:_WHY_FILES]:
        try:
            why = json.loads(store.location.read(info.key))
            for one in why["rejected"]:
                row = {name: one.get(name) for name in ("row", "field_id", "rule", "reason")}
                rows.append({"file": why.get("file"), "when": info.modified.isoformat(timespec="seconds"), **row})
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return {"rows": rows[:_REFUSED], "total": len(rows), "files": len(notes)}


def _run(receipt: Mapping[str, Any]) -> dict[str, Any]:
    boxes = [one for one in (receipt.get("boxes") or {}).values() if isinstance(one, dict)]

    def total(name: str) -> int:
        return sum(int(one.get(name) or 0) for one in boxes)

    return {
        **{name: receipt.get(name) for name in ("run_id", "started", "finished", "until", "cluster", "retries")},
        "days": total("days_appended"),
        "amended": total("days_amended"),
        "rows": total("rows_written"),
        "source_reads": total("source_reads"),
        "source_bytes": total("source_bytes"),
        "late": sum(int((one.get("late") or {}).get("fields") or 0) for one in boxes),
        "errors": receipt.get("errors") or [],
        "receipt": dict(receipt),
    }
