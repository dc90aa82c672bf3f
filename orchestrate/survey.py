"""Which boxes need nothing: told by a few LISTs and the notes of earlier runs, without a cube or a row."""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import GeofieldError
from orchestrate import hints
from orchestrate.hints import Entry, Index, Note
from orchestrate.placing import Placed, fields_digest, place_all
from orchestrate.plan import last_day
from orchestrate.work import BoxExtent, BoxProgress, CubeDays, FieldDays, Gap

if TYPE_CHECKING:
    from geofield import Box, Store

CHECKED_EACH_RUN = 200
"""Boxes whose cube and rows table are looked at although their notes are young and nobody left a mark: those looked at
longest ago. Up to so many boxes every run sees what others than runs have written; beyond, within `TRUSTED_FOR`."""
CHECKED_EACH_PLAN = 8
"""The same for a plan, which changes nothing and is to cost a handful of requests."""
TRUSTED_FOR = dt.timedelta(hours=24)
_DAY = dt.timedelta(days=1)


class Survey:
    """A store as a few LISTs and one object show it.

    Parameters
    ----------
    until
        Last day of the run or plan.
    look_back
        Days that are compared with what the sources offer.
    look_every
        How long such a comparison holds.
    run_id
        The run that asks: its own marks do not count. Empty for a plan.
    only
        Boxes that are asked for; fields are placed in these alone. None: in all.
    """

    def __init__(
        self,
        store: Store,
        until: dt.date,
        look_back: int = 0,
        look_every: dt.timedelta = dt.timedelta(0),
        run_id: str = "",
        only: Collection[str] | None = None,
    ) -> None:
        self.store, self.until, self.look_back, self.look_every, self.run_id = (
            store, until, look_back, look_every, run_id,
        )  # fmt: skip
        self._only = only
        self.now = dt.datetime.now(dt.UTC)
        self.listing = hints.list_progress(store)  # before what it is compared with: a note that is newer is read again
        self.definitions = _etags(store, "boxes")
        self.changes = _etags(store, "changes")
        self.index = hints.read_index(store)
        self.found: dict[str, Entry] = {}
        self._texts: dict[str, str] = {}
        self._read: dict[str, Entry | None] = {}
        self._quiet: dict[str, Note | None] = {}
        self._placing = threading.Lock()

    @property
    def box_ids(self) -> list[str]:
        """Every box, also those that cannot be read."""
        return sorted(self.definitions)

    # --- what a box needs ------------------------------------------------------------------------------------------

    def quiet(self, box_id: str) -> Note | None:
        """The note of a box that needs nothing; None for a box that has to be looked at. Found out once."""
        if box_id not in self._quiet:
            self._quiet[box_id] = self._find_quiet(box_id)
        return self._quiet[box_id]

    def _find_quiet(self, box_id: str) -> Note | None:
        entry = self._entry(box_id)
        if entry is None or not self._is_enough(box_id, entry.note) or entry.note.fields != self.fields_of(box_id):
            return None
        note = entry.note
        if self._is_to_be_checked(box_id, note):
            if not hints.stands(self.store, box_id, note):
                return None
            note = replace(note, checked=self.now)
        looked = self._looked(note, entry)
        if looked is None:
            return None
        self.found[box_id] = replace(entry, note=looked)
        return looked

    def noted(self, box_id: str) -> tuple[BoxExtent, CubeDays, tuple[FieldDays, ...], BoxProgress] | None:
        """What a plan needs to know of a box that lacks days or got new fields and is else as its note says.

        None where only the store itself can tell.
        """
        entry = self._entry(box_id)
        if entry is None or entry.note.definition != self.definitions[box_id] or box_id in self.changes:
            return None
        note = entry.note
        done = _fields(hints.read_hint(self.store, box_id), note)
        if done is None or not hints.stands(self.store, box_id, note) or self._looked(note, entry) is None:
            return None
        table = self.placed.of(box_id)
        now = dict(zip(table["field_id"], table["version"], strict=True)) if len(table) else {}
        if any(now.get(name) != version for name, version in done.items()):
            return None
        fields = tuple(
            FieldDays(name, note.extent.start if _none(first) else max(first, note.extent.start), _date(last))
            for name, first, last in zip(table["field_id"], table["planting_date"], table["harvest_date"], strict=True)
        )
        gaps = [_gap(one, note.cube) for one in fields if one.id not in done]
        return note.extent, note.cube, fields, BoxProgress(tuple(gap for gap in gaps if gap is not None))

    def _entry(self, box_id: str) -> Entry | None:
        etag = self.listing.hints.get(box_id)
        if etag is None:
            return None
        known = self.index.entries.get(box_id)
        if known is not None and etag and known.etag == etag:
            return known
        if box_id not in self._read:
            # looked at again even if it is young: who wrote it is not known from here
            hint = hints.read_hint(self.store, box_id)
            note = hints.note_of(hint, box_id)
            found = None if note is None else Entry(etag, replace(note, checked=_LONG_AGO), hints.description_of(hint))
            self._read[box_id] = found
        return self._read[box_id]

    def _is_enough(self, box_id: str, note: Note) -> bool:
        if note.definition != self.definitions.get(box_id) or box_id in self.changes:
            return False
        needed = last_day(note.extent, self.until)
        return needed < note.extent.start or (note.cube.last is not None and note.cube.last >= needed)

    def _is_to_be_checked(self, box_id: str, note: Note) -> bool:
        foreign = any(mark.run != self.run_id for mark in self.listing.marks.get(box_id, ()))
        return foreign or box_id in self._oldest or not dt.timedelta(0) <= self.now - note.checked < TRUSTED_FOR

    @cached_property
    def _oldest(self) -> frozenset[str]:
        ordered = sorted(self.index.entries, key=lambda name: (self.index.entries[name].note.checked, name))
        return frozenset(ordered[: CHECKED_EACH_RUN if self.run_id else CHECKED_EACH_PLAN])

    def _looked(self, note: Note, entry: Entry) -> Note | None:
        """The note when the source offers what it offered; None when it offers something else, or is not known to."""
        first, last = note.extent.start, note.cube.last
        if self.look_back < 1 or last is None:
            return note
        first = max(first, last - (self.look_back - 1) * _DAY)
        if note.catalogue is None or note.looked is None or note.looked_at is None:
            return None
        if note.looked[0] > first or note.looked[1] < last:
            return None
        if dt.timedelta(0) <= self.now - note.looked_at < self.look_every:
            return note
        from geofield.pipeline import catalogue_digest

        try:
            box = self._box(note.extent.id, entry)
            offered = catalogue_digest(box, geofield.open_source(box.source), *note.looked)
        except GeofieldError:  # what needs the source will say what is wrong with it
            return None
        return replace(note, looked_at=self.now) if offered == note.catalogue else None

    def _box(self, box_id: str, entry: Entry) -> Box:
        return geofield.Box.model_validate_json(entry.box) if entry.box else self.store.box(box_id)

    # --- fields ----------------------------------------------------------------------------------------------------

    def fields_of(self, box_id: str) -> str:
        """Digest of a box's fields now."""
        if self._is_placed:
            return self.index.placed.get(box_id, fields_digest([], []))
        return self.placed.digest(box_id)

    @cached_property
    def _is_placed(self) -> bool:
        return self.index.definitions == self._all_definitions and self.index.registry == self._registry

    @cached_property
    def _registry(self) -> int:
        return self.store.registry.table.open().version

    @cached_property
    def _all_definitions(self) -> str:
        return hashlib.blake2b(repr(sorted(self.definitions.items())).encode(), digest_size=12).hexdigest()

    @property
    def placed(self) -> Placed:
        """The fields of all boxes; read and placed when first asked for."""
        with self._placing:
            return self._placed

    @cached_property
    def _placed(self) -> Placed:
        return place_all(self.store, self._readable_boxes())

    def _readable_boxes(self) -> dict[str, Box]:
        boxes = {}
        for box_id, etag in self.definitions.items():
            if self._only is not None and box_id not in self._only:
                continue
            entry = self._entry(box_id)
            try:
                if entry is not None and entry.box and entry.note.definition == etag:
                    boxes[box_id] = geofield.Box.model_validate_json(entry.box)
                else:
                    boxes[box_id] = self.store.box(box_id)
                    self._texts[box_id] = boxes[box_id].model_dump_json()
            except (GeofieldError, ValueError):  # told where it is worked on
                continue
        return boxes

    # --- afterwards ------------------------------------------------------------------------------------------------

    def write_index(self, written: Mapping[str, Note], boxes: Mapping[str, str]) -> None:
        """Bring all notes together in one object, for the next survey.

        Parameters
        ----------
        written
            Notes of this run by box.
        boxes
            Descriptions of boxes, as JSON.
        """
        listing = hints.list_progress(self.store)
        entries: dict[str, Entry] = {}
        for box_id, etag in listing.hints.items():
            entry = self.found.get(box_id) or self.index.entries.get(box_id)
            text = boxes.get(box_id) or self._texts.get(box_id) or (entry.box if entry is not None else "")
            if entry is None or entry.etag != etag or not etag:
                # read after the LIST: what is paired with this ETag is what it names, or younger
                note = hints.note_of(hints.read_hint(self.store, box_id), box_id)
                if note is None:
                    continue
                is_own = box_id in written and replace(written[box_id], checked=note.checked) == note
                entry = Entry(etag, note if is_own else replace(note, checked=_LONG_AGO), text)
            if entry.note.definition == self.definitions.get(box_id):
                entries[box_id] = replace(entry, box=text)
        placed = self.index.placed if self._is_placed else {name: self.placed.digest(name) for name in self.box_ids}
        registry = self._registry if self._is_placed else self.placed.version
        new = Index(registry, self._all_definitions, dict(placed), entries)
        if new != self.index:
            hints.write_index(self.store, new)


_LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _etags(store: Store, folder: str) -> dict[str, str]:
    return {
        info.key.removeprefix(f"{folder}/").removesuffix(".json"): info.etag
        for info in store.location.list(folder)
        if info.key.endswith(".json")
    }


def _fields(hint: Mapping[str, Any], note: Note) -> dict[str, str] | None:
    """Field id -> version of a hint, if they are those of its note."""
    try:
        done = {str(name): str(one["version"]) for name, one in hint["fields"].items()}
    except (KeyError, TypeError, AttributeError):
        return None
    ids: Sequence[str] = sorted(done)
    return done if fields_digest(list(ids), [done[name] for name in ids]) == note.fields else None


def _gap(one: FieldDays, cube: CubeDays) -> Gap | None:
    if cube.first is None or cube.last is None:
        return None
    days = one.days_between(cube.first, cube.last)
    if not days:
        return None
    return Gap(one.id, days, max(one.first, cube.first), min(cube.last, one.last or cube.last))


def _none(value: Any) -> bool:
    return value is None or value != value


def _date(value: Any) -> dt.date | None:
    return value if isinstance(value, dt.date) and value == value else None
