"""Imagery that somebody has already, brought into a cube: the days that the cube does not hold yet, a few at a time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import GridError, MissingDaysError, NotFoundError
from orchestrate.receipt import BoxReceipt, Receipt, write_receipt
from orchestrate.steps import DAYS_AT_ONCE, days_between, spans
from orchestrate.work import fault

if TYPE_CHECKING:
    from geofield import Box, Imagery, Store

_DAY = dt.timedelta(days=1)


def import_imagery(
    store: Store,
    imagery: Imagery,
    box_id: str,
    said: Mapping[str, Any] | None = None,
    until: dt.date | None = None,
    *,
    label: str = "threads",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Append the days of some imagery to the cube of a box.

    A box that is not there is made: its pixels are those of the imagery, its source is the imagery, so that later
    files are appended by ordinary runs. A box that is there keeps its source; the days that came from elsewhere are
    not compared with it.

    Days that the cube holds are left alone, so that a call that was cut is completed by the same call, and another
    one does nothing.

    Parameters
    ----------
    said
        Of a new box, in the keys of a box file: `variables`, `bbox`, `crs`, `grid`, ...; the imagery says the rest.
    until
        The last day; default that of the imagery.
    label
        Where the work runs, for the receipt.
    progress
        Told how many days are done, of how many.

    Returns
    -------
    The receipt, as stored under `runs/`, with `is_new_box`.

    Raises
    ------
    MissingDaysError
        The cube's next day is before the imagery's first: those days would be taken for days without imagery.
    GridError
        The imagery and the box have no area in common.
    """
    from geofield.pipeline import append_days

    box, is_new = _box(store, imagery, box_id, said or {})
    is_own = dict(box.source) == dict(imagery.spec)
    cube, results, fields = store.cube(box_id), store.results(box_id), store.box_fields(box_id)
    head = cube.head()
    start = box.start if head.last is None else head.last + _DAY
    end = min(imagery.last, until) if until is not None else imagery.last
    _check(box, imagery, start, end)
    run = geofield.Run()
    receipt = Receipt(run.id, geofield.__version__, _now(), end.isoformat(), label)
    mine = receipt.boxes[box_id] = BoxReceipt()
    days = days_between(start, end)
    mine.days_present = 0 if head.last is None else (head.last - box.start).days + 1
    mine.last_day = None if head.last is None else head.last.isoformat()
    first = start
    try:
        for first, last in spans(start, end, DAYS_AT_ONCE):
            if not is_own:
                store.note_imported(box_id, last)  # before: a day that is there and not noted might be amended
            report = append_days(first, last, imagery.source, fields, cube, results, run)
            mine.add_append(report)
            mine.note_days(first, last, report.days_appended)
            mine.pixel_days += report.days_appended * box.resolved.shape[0] * box.resolved.shape[1]
            if progress is not None:
                progress(days_between(start, last), days)
    except BaseException as error:
        receipt.errors.append(fault(box_id, first, error))
        raise
    finally:
        receipt.finished = _now()
        if days:
            write_receipt(store, receipt)
    return {**receipt.to_dict(), "is_new_box": is_new}


def _box(store: Store, imagery: Imagery, box_id: str, said: Mapping[str, Any]) -> tuple[Box, bool]:
    try:
        return store.box(box_id), False
    except NotFoundError:
        pass
    bounds, crs = imagery.geobox.boundingbox, imagery.geobox.crs
    assert crs is not None
    own: dict[str, Any] = {
        "id": box_id,
        "bbox": [bounds.left, bounds.bottom, bounds.right, bounds.top],
        "crs": crs.to_wkt() if crs.epsg is None else f"EPSG:{crs.epsg}",
        "start": imagery.first,
        "grid": "native",
        "source": dict(imagery.spec),
        "variables": _variables(imagery),
    }
    given = {name: value for name, value in said.items() if value is not None}
    if "bbox" in given:
        own["crs"] = "EPSG:4326"
    return store.add_box(geofield.box_from({**own, **given}, None, store.defaults)), True


def _variables(imagery: Imagery) -> dict[str, Any]:
    """Each band that holds measurements, as it is."""
    quality: Sequence[str] = imagery.spec.get("quality") or ()
    return {name: {"band": name} for name in imagery.spec["bands"] if name not in quality}


def _check(box: Box, imagery: Imagery, start: dt.date, end: dt.date) -> None:
    if start < imagery.first <= end:
        raise MissingDaysError(
            f"The next day of box {box.id} is {start}, and the imagery begins on {imagery.first}: the days between "
            f"would be kept as days without imagery. Run until {imagery.first - _DAY} first, or let the box start "
            "later."
        )
    if not imagery.touches(box.resolved):
        raise GridError(f"Box {box.id} and the imagery have no area in common.")


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
