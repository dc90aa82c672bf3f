"""What a store lacks, in steps: what `plan` shows, and what a cluster is sized by."""

from __future__ import annotations

from collections.abc import Sequence

from geofield.errors import GeofieldError
from orchestrate.plan import plan
from orchestrate.receipt import rates, recent_receipts
from orchestrate.state import gather_box
from orchestrate.survey import Survey
from orchestrate.work import Step


def forecast(survey: Survey, box_ids: Sequence[str] | None = None) -> tuple[list[Step], dict[str, Exception]]:
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
    steps: list[Step] = []
    failures: dict[str, Exception] = {}
    for box_id in survey.box_ids if box_ids is None else box_ids:
        try:
            if survey.quiet(box_id) is not None:
                continue
            noted = survey.noted(box_id)
            if noted is None:
                state = gather_box(store, box_id, look_back, survey.placed)
                noted = state.box, state.cube, state.fields, state.progress
        except (GeofieldError, ValueError, OSError, LookupError) as error:
            failures[box_id] = error
            continue
        box, cube, fields, progress = noted
        steps += plan({box_id: box}, {box_id: cube}, {box_id: fields}, {box_id: progress}, until, known)
    return steps, failures
