"""What a store lacks, in steps: what `plan` shows, and what a cluster is sized by."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

from geofield.errors import GeofieldError
from orchestrate.plan import first_due, plan
from orchestrate.receipt import rates, recent_receipts
from orchestrate.state import gather_box
from orchestrate.survey import Survey
from orchestrate.work import BoxExtent, Step


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes
    ----------
    failures
        Box id -> why it cannot be read.
    later
        Boxes of which no day is due yet -> the earliest last day of a run that appends one.
    """

    steps: list[Step] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)
    later: dict[str, dt.date] = field(default_factory=dict)


def forecast(survey: Survey, box_ids: Sequence[str] | None = None) -> Forecast:
    """The steps of a run, and which boxes cannot be read. Boxes that need nothing are not looked at.

    Parameters
    ----------
    survey
        Of the store: its last day and how far it looks back hold here too.
    box_ids
        Default: all.
    """
    store, until, look_back = survey.store, survey.until, survey.look_back
    known = rates(recent_receipts(store))
    found = Forecast()
    for box_id in survey.box_ids if box_ids is None else box_ids:
        try:
            if (note := survey.quiet(box_id)) is not None:
                _note_start(found, note.extent, until)
                continue
            noted = survey.noted(box_id)
            if noted is None:
                state = gather_box(store, box_id, look_back, survey.placed)
                noted = state.box, state.cube, state.fields, state.progress
        except (GeofieldError, ValueError, OSError, LookupError) as error:
            found.failures[box_id] = error
            continue
        box, cube, fields, progress = noted
        _note_start(found, box, until)
        found.steps.extend(plan({box_id: box}, {box_id: cube}, {box_id: fields}, {box_id: progress}, until, known))
    return found


def _note_start(found: Forecast, box: BoxExtent, until: dt.date) -> None:
    if (due := first_due(box)) > until:
        found.later[box.id] = due
