"""What was done, noted so that the next plan need not look at rows and cubes again: `progress/` of a store.

Nothing here is a truth. A note says "when the store stands so, this box is complete up to that day"; it is believed
only while all that it names is what stands, and whoever is about to change a box leaves a mark there first:

- `progress/<box>.json`: the note of a box;
- `progress/.work/<box>/<run>.json`: that a run is at work in a box. While there is one, notes are compared with the
  cube and the rows table. Its run removes it; one of a dead run goes when no attempt of it can live any more;
- `progress/.index.json.gz`: all notes in one object, with the ETag of the object that each was read from.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import CorruptStoreError, GeofieldError, NotFoundError
from orchestrate.work import BoxExtent, CubeDays

if TYPE_CHECKING:
    from geofield import ObjectInfo, Store

FOLDER = "progress"
WORK = f"{FOLDER}/.work"
INDEX = f"{FOLDER}/.index.json.gz"
FORMAT = 3
NO_TABLE = -1
BUSY_FOR = dt.timedelta(minutes=15)
"""A mark that is older keeps no other run from taking the box first: a box is seldom at work for longer."""
DEAD_AFTER = dt.timedelta(hours=24)
"""Attempts of dead runs are swept after as long; a mark that is older belongs to nobody."""

_LONGEST_SETTLED = 366
# what reading and taking apart JSON raises that anybody may have written: nested deeply, infinite, of other types
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Note:
    """A box is complete up to a day, if the store stands as it says.

    Attributes
    ----------
    definition
        ETag of the box's description.
    snapshot, rows
        Of the cube; version of the rows table (-1: there is none).
    fields
        Digest of the box's fields and their versions.
    cube
        Its days: complete up to the last.
    catalogue
        What the source offered for `looked` (first and last day), None when it was not asked.
    checked
        When cube and rows table were last seen to stand so.
    looked_at
        When the source was asked.
    totals
        Its fields, and their rows up to the last day.
    """

    definition: str
    snapshot: str
    rows: int
    fields: str
    extent: BoxExtent
    cube: CubeDays
    checked: dt.datetime
    catalogue: str | None = None
    looked: tuple[dt.date, dt.date] | None = None
    looked_at: dt.datetime | None = None
    totals: tuple[int, int] = (0, 0)
    program: str = geofield.__version__

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        one = self.extent
        return {
            "format": FORMAT,
            "program": self.program,
            "definition": self.definition,
            "snapshot": self.snapshot,
            "rows": self.rows,
            "fields": self.fields,
            "extent": [one.start.isoformat(), one.settle_days, one.pixels, one.tiles, one.bands, one.layers],
            "days": [_text(self.cube.first), _text(self.cube.last), self.cube.acquired],
            "checked": self.checked.isoformat(),
            "catalogue": self.catalogue,
            "looked": None if self.looked is None else [day.isoformat() for day in self.looked],
            "looked_at": _text(self.looked_at),
            "totals": list(self.totals),
        }


def note_from(box_id: str, value: Any) -> Note | None:
    """A note as it was stored; None for anything else, a note of another version of the program included."""
    try:
        if value["format"] != FORMAT or value["program"] != geofield.__version__:
            return None
        start, *rest = value["extent"]
        settle_days, pixels, tiles, bands, layers = (None if one is None else int(one) for one in rest)
        if settle_days is not None and not 0 <= settle_days <= _LONGEST_SETTLED:
            return None
        first, last, acquired = value["days"]
        looked = value["looked"]
        fields, rows = value["totals"]
        return Note(
            definition=str(value["definition"]),
            snapshot=str(value["snapshot"]),
            rows=int(value["rows"]),
            fields=str(value["fields"]),
            extent=BoxExtent(box_id, _day(start), settle_days or 0, pixels or 0, tiles or 1, bands, layers or 1),
            cube=CubeDays(None if first is None else _day(first), None if last is None else _day(last), int(acquired)),
            checked=_time(value["checked"]),
            catalogue=None if value["catalogue"] is None else str(value["catalogue"]),
            looked=None if looked is None else (_day(looked[0]), _day(looked[1])),
            looked_at=None if value["looked_at"] is None else _time(value["looked_at"]),
            totals=(int(fields), int(rows)),
        )
    except _DAMAGE:
        return None


def note_of(hint: Any, box_id: str) -> Note | None:
    """The note in what `progress/<box>.json` holds; None for one of another box."""
    if not isinstance(hint, Mapping) or hint.get("box") != box_id:
        return None
    return note_from(box_id, hint.get("note"))


def description_of(hint: Mapping[str, Any]) -> str:
    """The box as the run saw it that wrote the hint, as JSON; empty when it does not say. Its ETag is in the note."""
    said = hint.get("description")
    return said if isinstance(said, str) else ""


def read_hint(store: Store, box_id: str) -> dict[str, Any]:
    """What `progress/<box>.json` holds; nothing when it cannot be read."""
    try:
        value = json.loads(store.location.read(f"{FOLDER}/{box_id}.json"))
    except (GeofieldError, OSError, *_DAMAGE):
        return {}
    return value if isinstance(value, dict) else {}


# --- what one LIST tells ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """A run is, or was, at work in a box; `seen`: when it last said so."""

    box: str
    run: str
    seen: dt.datetime
    key: str


@dataclass(frozen=True)
class Listing:
    """What stands below `progress`.

    Attributes
    ----------
    hints
        Box id -> ETag.
    marks
        Box id -> who is at work there.
    """

    hints: dict[str, str] = field(default_factory=dict)
    marks: dict[str, list[Mark]] = field(default_factory=dict)


def list_progress(store: Store) -> Listing:
    """One LIST."""
    listing = Listing()
    for info in store.location.list(FOLDER):
        name = info.key.removeprefix(f"{FOLDER}/")
        if name.startswith(".work/"):
            mark = _mark(info)
            if mark is not None:
                listing.marks.setdefault(mark.box, []).append(mark)
        elif "/" not in name and name.endswith(".json"):
            listing.hints[name.removesuffix(".json")] = info.etag
    return listing


def marks_of(store: Store, box_id: str) -> list[Mark]:
    """Who is at work in a box."""
    found = (_mark(info) for info in store.location.list(f"{WORK}/{box_id}/"))
    return [one for one in found if one is not None]


def _mark(info: ObjectInfo) -> Mark | None:
    parts = info.key.removeprefix(f"{WORK}/").split("/")
    if len(parts) != 2:
        return None
    return Mark(parts[0], parts[1].removesuffix(".json"), info.modified, info.key)


def is_busy(marks: list[Mark], own: str, now: dt.datetime) -> bool:
    """Whether another run said lately that it is at work there."""
    return any(one.run != own and now - one.seen < BUSY_FOR for one in marks)


def put_mark(store: Store, box_id: str, run_id: str, since: dt.datetime) -> None:
    """Say that a run is at work in a box, or that it still is."""
    said = {"box": box_id, "run": run_id, "since": since.isoformat(timespec="seconds")}
    store.location.write(f"{WORK}/{box_id}/{run_id}.json", json.dumps(said).encode())


def drop_marks(store: Store, box_id: str, run_id: str, now: dt.datetime) -> None:
    """Remove the mark of a run, and those of dead ones."""
    for mark in marks_of(store, box_id):
        if mark.run == run_id or now - mark.seen > DEAD_AFTER:
            store.location.delete(mark.key)


# --- what stands -----------------------------------------------------------------------------------------------------


def stands(store: Store, box_id: str, note: Note) -> bool:
    """Whether cube and rows table of a box are those of a note: a GET and a LIST."""
    try:
        return _tip(store, box_id) == note.snapshot and rows_version(store, box_id) == note.rows
    except (GeofieldError, ValueError, OSError):
        return False


def _tip(store: Store, box_id: str) -> str:
    # Icechunk's reference file, read directly: to open the repository first takes three requests more
    try:
        value = json.loads(store.location.read(f"cubes/{box_id}/refs/branch.main/ref.json"))
        return str(value["snapshot"])
    except (NotFoundError, KeyError, TypeError):
        return store.cube(box_id).tip()


def rows_version(store: Store, box_id: str) -> int:
    """The version of the rows table, -1 while there is none; `CorruptStoreError` when its log cannot be told."""
    names = [info.key.rpartition("/")[2] for info in store.location.list(f"rows/{box_id}/_delta_log/")]
    commits = [int(name[:20]) for name in names if name.endswith(".json") and len(name) == 25 and name[:20].isdigit()]
    if names and not commits:
        raise CorruptStoreError(f"The log of rows/{box_id} holds no commit.")
    return max(commits, default=-1)


# --- all notes in one object -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A note with the ETag of the object that it was read from, and the box's description."""

    etag: str
    note: Note
    box: str


@dataclass(frozen=True)
class Index:
    """Every note.

    Attributes
    ----------
    registry
        Version of the fields table for which `placed` holds.
    definitions
        The boxes for which it holds: a digest of their ids and ETags.
    placed
        Box id -> digest of its fields.
    """

    registry: int = -2
    definitions: str = ""
    placed: dict[str, str] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)


def read_index(store: Store) -> Index:
    """The index; an empty one when there is none that can be read."""
    try:
        value = json.loads(gzip.decompress(store.location.read(INDEX)))
        if value["format"] != FORMAT:
            return Index()
        entries = {}
        for box_id, (etag, note, box) in value["entries"].items():
            found = note_from(box_id, note)
            if found is not None:
                entries[box_id] = Entry(str(etag), found, str(box))
        placed = {str(name): str(digest) for name, digest in value["placed"].items()}
        return Index(int(value["registry"]), str(value["definitions"]), placed, entries)
    except (GeofieldError, OSError, EOFError, zlib.error, *_DAMAGE):
        return Index()


def write_index(store: Store, index: Index) -> None:
    """Replace the index."""
    value = {
        "format": FORMAT,
        "registry": index.registry,
        "definitions": index.definitions,
        "placed": index.placed,
        "entries": {name: [one.etag, one.note.to_dict(), one.box] for name, one in sorted(index.entries.items())},
    }
    store.location.write(INDEX, gzip.compress(json.dumps(value, ensure_ascii=False).encode(), 1, mtime=0))


def _text(value: dt.date | None) -> str | None:
    return None if value is None else value.isoformat()


def _day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


def _time(text: str) -> dt.datetime:
    value = dt.datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError(f"{text!r} says no time zone")
    return value
