"""Gathering what exists: boxes, the days of their cubes, their fields, and which rows are missing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import GeofieldError
from orchestrate.boxlist import box_ids, readable_boxes
from orchestrate.hints import NO_TABLE, Note
from orchestrate.placing import Placed, fields_digest, place_all
from orchestrate.plan import last_day
from orchestrate.work import BoxExtent, BoxProgress, CubeDays, FieldDays, Gap

if TYPE_CHECKING:
    import numpy as np

    from geofield import Box, Cube, Results, Store
    from geofield.pipeline import BoxFields

_FAR = 500  # snapshots between a look and now, at most


@dataclass(frozen=True)
class BoxState:
    """Everything about one box that planning asks for, and the fields as the pipeline takes them.

    Attributes
    ----------
    cube_of, results
        What was looked at, and what work goes on with: the rows table tells whether others wrote meanwhile.
    snapshot
        Of the cube when it was looked at.
    catalogue, looked
        What the source offered, before anything else was looked at, for these days (first and last).
    """

    box: BoxExtent
    cube: CubeDays
    fields: tuple[FieldDays, ...]
    progress: BoxProgress
    ready: BoxFields
    cube_of: Cube
    results: Results
    snapshot: str
    catalogue: str | None = None
    looked: tuple[dt.date, dt.date] | None = None

    @property
    def rows_wanted(self) -> int:
        """Rows that the cube's days call for."""
        return rows_of(self.fields, self.cube)

    @property
    def rows_missing(self) -> int:
        """Of those, how many are missing or not current."""
        return sum(gap.days for gap in self.progress.gaps)


def rows_of(fields: Sequence[FieldDays], cube: CubeDays) -> int:
    """Rows that the days of a cube call for."""
    if cube.first is None or cube.last is None:
        return 0
    return sum(one.days_between(cube.first, cube.last) for one in fields)


@dataclass(frozen=True)
class Existing:
    """What a store holds.

    Attributes
    ----------
    states
        By box id.
    failures
        Box id -> why it cannot be read.
    """

    states: dict[str, BoxState] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    @property
    def boxes(self) -> dict[str, BoxExtent]:
        """As `plan` takes them."""
        return {name: state.box for name, state in self.states.items()}

    @property
    def cubes(self) -> dict[str, CubeDays]:
        """As `plan` takes them."""
        return {name: state.cube for name, state in self.states.items()}

    @property
    def fields(self) -> dict[str, tuple[FieldDays, ...]]:
        """As `plan` takes them."""
        return {name: state.fields for name, state in self.states.items()}

    @property
    def progress(self) -> dict[str, BoxProgress]:
        """As `plan` takes them."""
        return {name: state.progress for name, state in self.states.items()}


def gather(store: Store, look_back: int = 0) -> Existing:
    """Look at every box; one that cannot be read is a failure of its own. See `gather_box`."""
    existing = Existing()
    placed = place_all(store, readable_boxes(store))
    for box_id in box_ids(store):
        try:
            existing.states[box_id] = gather_box(store, box_id, look_back, placed)
        except (GeofieldError, ValueError, OSError, LookupError) as error:
            existing.failures[box_id] = error
    return existing


def gather_box(store: Store, box_id: str, look_back: int, placed: Placed, until: dt.date | None = None) -> BoxState:
    """Look at one box.

    Parameters
    ----------
    look_back
        How many of the cube's last days are compared with what the source offers now.
    placed
        The fields of the store.
    until
        The last day of a run: what the source offers for the days before it is noted.
    """
    box = store.box(box_id)
    held = extent(store, box)
    looked, catalogue = _offered(box, held, look_back, until)
    of_box = store.cube(box_id)
    head = of_box.head()
    ready = store.box_fields(box_id, placed=placed.of(box_id))
    cube = CubeDays(head.first, head.last, int(head.acquired.sum()))
    results = store.results(box_id)
    progress = replace(
        _progress(store, of_box, results, ready, cube),
        changed=_changed(store, ready, of_box, cube, look_back),
        is_pending=store.pending_change(box_id) is not None,
    )
    return BoxState(
        held, cube, tuple(_field_days(ready)), progress, ready, of_box, results, head.snapshot, catalogue, looked
    )


def _offered(
    box: Box, held: BoxExtent, look_back: int, until: dt.date | None
) -> tuple[tuple[dt.date, dt.date] | None, str | None]:
    if until is None or look_back < 1 or last_day(held, until) < box.start:
        return None, None
    from geofield.pipeline import catalogue_digest

    end = last_day(held, until)
    looked = max(box.start, end - dt.timedelta(days=look_back - 1)), end
    try:
        return looked, catalogue_digest(box, geofield.open_source(box.source), *looked)
    except GeofieldError:
        return None, None


def _changed(store: Store, ready: BoxFields, of_box: Cube, cube: CubeDays, look_back: int) -> tuple[dt.date, ...]:
    if cube.last is None or look_back < 1:
        return ()
    from geofield.pipeline import changed_days

    box_id = ready.box.id
    start = cube.last - dt.timedelta(days=look_back - 1)
    if ready.box.imported is not None:  # those days came from elsewhere; the source may know nothing of them
        start = max(start, ready.box.imported + dt.timedelta(days=1))
    try:
        return tuple(changed_days(start, store.source(box_id), ready, of_box))
    except GeofieldError:  # a source that is down keeps no late field waiting; what needs it will say what is wrong
        return ()


def extent(store: Store, box: Box) -> BoxExtent:
    """What planning has to know of a box."""
    grid = box.resolved
    rows, columns = grid.tiles_shape
    states = sum(1 for variable in box.variables.values() if variable.state)
    return BoxExtent(
        box.id,
        box.start,
        box.settle_days,
        pixels=grid.shape[0] * grid.shape[1],
        tiles=rows * columns,
        bands=_bands(store, box),
        layers=len(box.variables) + 3 * states,
    )


def _bands(store: Store, box: Box) -> int | None:
    try:
        return len(geofield.needed_bands(box.variables, store.source(box.id).bands()))
    except GeofieldError:  # the run will say what is wrong with it; an estimate need not
        return None


def _progress(store: Store, of_box: Cube, results: Results, ready: BoxFields, cube: CubeDays) -> BoxProgress:
    if cube.last is None:
        return BoxProgress()
    from geofield.pipeline import missing_rows

    present = results.read(columns=["field_id"])["field_id"].value_counts()
    strays = present[~present.index.isin(ready.columns.ids)]
    store.registry.check_not_lost(list(strays.index), f"rows/{ready.box.id}")
    missing = missing_rows(ready, of_box, results)
    gaps = [
        Gap(
            str(one["field_id"]), int(one["days"]), _optional(one["first"]), _optional(one["last"]), int(one["surplus"])
        )
        for one in missing.to_dict("records")
    ]
    return BoxProgress(tuple(gaps), {str(name): int(rows) for name, rows in strays.items()})


def _field_days(ready: BoxFields) -> Iterator[FieldDays]:
    for field_id, first, last in zip(ready.columns.ids, ready.first, ready.last, strict=True):
        start = _date(first)
        assert start is not None
        yield FieldDays(field_id, start, _date(last))


def _date(value: np.datetime64) -> dt.date | None:
    day: dt.date | None = value.astype("datetime64[D]").item()
    return day


def _optional(value: Any) -> dt.date | None:
    return value if isinstance(value, dt.date) else None


def note_after(state: BoxState, last: dt.date, definition: str, run_id: str) -> Note | None:
    """The note of a box that was looked at and brought up to date; None when others may have written meanwhile.

    Between the look and now nobody but this run may have published or committed: what others did, the look has not
    seen.
    """
    head = state.cube_of.head()
    seen = state.results.seen
    if seen is None and state.cube.last is None:  # nothing was read, since there was nothing; nothing was written
        seen = NO_TABLE
    expected = last if last >= state.box.start else None
    if seen is None or not state.results.is_alone or head.last != expected or not _is_own(state, head.snapshot, run_id):
        return None
    if state.results.left_out:  # what they lack is for the next run to see
        return None
    now = dt.datetime.now(dt.UTC)
    cube = CubeDays(head.first, head.last, int(head.acquired.sum()))
    return Note(
        definition=definition,
        snapshot=head.snapshot,
        rows=seen,
        fields=fields_digest(list(state.ready.columns.ids), list(state.ready.columns.versions)),
        extent=state.box,
        cube=cube,
        checked=now,
        catalogue=state.catalogue,
        looked=state.looked,
        looked_at=None if state.catalogue is None else now,
        totals=(len(state.fields), rows_of(state.fields, cube)),
    )


def _is_own(state: BoxState, tip: str, run_id: str) -> bool:
    """Whether everything published since the look was published by this run."""
    if tip == state.snapshot:
        return True
    for number, one in enumerate(state.cube_of.repository.ancestry(snapshot_id=tip)):
        if one.id == state.snapshot:
            return True
        if number >= _FAR or (one.metadata or {}).get("run", run_id) != run_id:
            return False
    return False
