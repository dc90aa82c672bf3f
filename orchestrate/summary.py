"""What `plan` and `status` tell of a store, as JSON has it. Nothing is changed."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import GeofieldError
from orchestrate.forecast import forecast
from orchestrate.inboxfiles import KINDS, WHY, waiting
from orchestrate.offers import offers, with_bytes
from orchestrate.receipt import recent_receipts
from orchestrate.state import BoxState, gather_box
from orchestrate.survey import Survey
from orchestrate.work import Append, FillLate, Reduce, fault, step_to_dict

if TYPE_CHECKING:
    from geofield import Store
    from orchestrate.hints import Note

_FILES = 10
_ANY_DAY = dt.date(1970, 1, 1)  # of a box that stands as noted no further day is asked


def planned(store: Store, until: dt.date, look_back: int = 0, search: bool = False) -> dict[str, Any]:
    """What a run until a day would do, with `look_back` days compared with what the sources offer now.

    Parameters
    ----------
    search
        Ask STAC catalogues for the scenes of the days that are to be appended.
    """
    with geofield.searches_kept():
        found = forecast(Survey(store, until, look_back))
        imagery = offers(store, found.steps) if search else {}
    steps = [with_bytes(step, imagery) for step in found.steps]
    appends = [step for step in steps if isinstance(step, Append)]
    fills = [step for step in steps if isinstance(step, FillLate | Reduce)]
    known = [step.seconds for step in steps if step.seconds is not None]
    return {
        "until": until.isoformat(),
        "steps": [step_to_dict(step) for step in steps],
        "totals": {
            "days": sum(step.days for step in appends),
            "tasks": sum(step.tasks for step in appends),
            "source_bytes": sum(step.source_bytes or 0 for step in appends),
            "cube_bytes": sum(step.cube_bytes for step in appends),
            "field_days": sum(step.field_days for step in (*appends, *fills)),
            "late_fields": sum(len(step.fields) for step in fills),
            "late_field_days": sum(step.field_days for step in fills),
            "seconds": sum(known) if len(known) == len(steps) else None,
        },
        "imagery": imagery,
        "inbox": _inbox(store),
        "begins_later": {box_id: due.isoformat() for box_id, due in found.later.items()},
        "errors": [fault(box_id, None, error) for box_id, error in found.failures.items()],
    }


def summarise(store: Store) -> dict[str, Any]:
    """What a store holds, what is late, what was refused, what failed."""
    survey = Survey(store, _ANY_DAY)
    boxes: dict[str, Any] = {}
    failures: dict[str, Exception] = {}
    for box_id in survey.box_ids:
        try:
            note = survey.quiet(box_id)
            boxes[box_id] = _box(gather_box(store, box_id, 0, survey.placed)) if note is None else _noted(note)
        except (GeofieldError, ValueError, OSError, LookupError) as error:
            failures[box_id] = error
    return {
        "store": store.url,
        "boxes": boxes,
        "inbox": _inbox(store),
        "rejected": _rejected(store),
        "runs": [_run(receipt) for receipt in recent_receipts(store)],
        "errors": [fault(box_id, None, error) for box_id, error in failures.items()],
    }


def _inbox(store: Store) -> dict[str, int]:
    files = waiting(store)
    return {kind: sum(1 for one in files if one.kind == kind) for kind in KINDS}


def _box(state: BoxState) -> dict[str, Any]:
    late = len(state.progress.gaps)
    return {
        "start": state.box.start.isoformat(),
        "last_day": None if state.cube.last is None else state.cube.last.isoformat(),
        "days": state.cube.days,
        "acquisitions": state.cube.acquired,
        "fields": len(state.fields),
        "fields_done": len(state.fields) - late if state.cube.last is not None else 0,
        "fields_late": late,
        "rows": state.rows_wanted - state.rows_missing,
        "rows_missing": state.rows_missing,
    }


def _noted(note: Note) -> dict[str, Any]:
    """A box that stands as its note says: nothing is late there."""
    fields, rows = note.totals
    return {
        "start": note.extent.start.isoformat(),
        "last_day": None if note.cube.last is None else note.cube.last.isoformat(),
        "days": note.cube.days,
        "acquisitions": note.cube.acquired,
        "fields": fields,
        "fields_done": fields if note.cube.last is not None else 0,
        "fields_late": 0,
        "rows": rows,
        "rows_missing": 0,
    }


def _rejected(store: Store) -> list[dict[str, Any]]:
    """The last files with refused rows, from the reasons written beside them."""
    infos = [info for folder in ("rejected", "accepted") for info in store.location.list(f"inbox/{folder}")]
    names = sorted((info for info in infos if info.key.endswith(WHY)), key=lambda info: info.modified, reverse=True)
    found: list[dict[str, Any]] = []
    for info in names:
        try:
            why = json.loads(store.location.read(info.key))
            refused = why["rejected"]
        except (ValueError, KeyError, TypeError):
            continue
        if refused:
            found.append(
                {
                    "file": why.get("file"),
                    "key": info.key.removesuffix(WHY),
                    "accepted": why.get("accepted"),
                    "rejected": len(refused),
                    "reason": refused[0].get("reason"),
                }
            )
        if len(found) == _FILES:
            break
    return found


def _run(receipt: dict[str, Any]) -> dict[str, Any]:
    boxes = (receipt.get("boxes") or {}).values()
    return {
        **{name: receipt.get(name) for name in ("run_id", "started", "finished", "until", "cluster", "retries")},
        "days_appended": sum(box.get("days_appended", 0) for box in boxes),
        "late_fields": sum((box.get("late") or {}).get("fields", 0) for box in boxes),
        "rows_written": sum(box.get("rows_written", 0) for box in boxes),
        "rows_removed": sum(box.get("rows_removed", 0) for box in boxes),
        "errors": receipt.get("errors") or [],
    }
