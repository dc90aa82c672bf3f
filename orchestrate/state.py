"""Gathering what exists: boxes, the days of their cubes, their fields, and which rows are missing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import GeofieldError
from orchestrate.boxlist import box_ids
from orchestrate.work import BoxExtent, BoxProgress, CubeDays, FieldDays, Gap

if TYPE_CHECKING:
    import numpy as np

    from geofield import Box, Store
    from geofield.pipeline import BoxFields


@dataclass(frozen=True)
class BoxState:
    """Everything about one box that planning asks for, and the fields as the pipeline takes them.

    Attributes
    ----------
    days_done
        Rows that are there and current.
    """

    box: BoxExtent
    cube: CubeDays
    fields: tuple[FieldDays, ...]
    progress: BoxProgress
    ready: BoxFields

    @property
    def rows_wanted(self) -> int:
        """Rows that the cube's days call for."""
        if self.cube.first is None or self.cube.last is None:
            return 0
        return sum(one.days_between(self.cube.first, self.cube.last) for one in self.fields)

    @property
    def rows_missing(self) -> int:
        """Of those, how many are missing or not current."""
        return sum(gap.days for gap in self.progress.gaps)


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
    for box_id in box_ids(store):
        try:
            existing.states[box_id] = gather_box(store, box_id, look_back)
        except (GeofieldError, ValueError, OSError, LookupError) as error:
            existing.failures[box_id] = error
    return existing


def gather_box(store: Store, box_id: str, look_back: int = 0) -> BoxState:
    """Look at one box.

    Parameters
    ----------
    look_back
        How many of the cube's last days are compared with what the source offers now.
    """
    box = store.box(box_id)
    head = store.cube(box_id).head()
    ready = store.box_fields(box_id)
    cube = CubeDays(head.first, head.last, int(head.acquired.sum()))
    progress = replace(
        _progress(store, box_id, ready, cube),
        changed=_changed(store, ready, cube, look_back),
        is_pending=store.pending_change(box_id) is not None,
    )
    return BoxState(extent(store, box), cube, tuple(_field_days(ready)), progress, ready)


def _changed(store: Store, ready: BoxFields, cube: CubeDays, look_back: int) -> tuple[dt.date, ...]:
    if cube.last is None or look_back < 1:
        return ()
    from geofield.pipeline import changed_days

    box_id = ready.box.id
    start = cube.last - dt.timedelta(days=look_back - 1)
    try:
        return tuple(changed_days(start, store.source(box_id), ready, store.cube(box_id)))
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


def _progress(store: Store, box_id: str, ready: BoxFields, cube: CubeDays) -> BoxProgress:
    if cube.last is None:
        return BoxProgress()
    from geofield.pipeline import missing_rows

    results = store.results(box_id)
    present = results.read(columns=["field_id"])["field_id"].value_counts()
    strays = present[~present.index.isin(ready.columns.ids)]
    missing = missing_rows(ready, store.cube(box_id), results)
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
