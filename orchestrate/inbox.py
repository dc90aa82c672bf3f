"""The inbox of a store: files of boxes and fields are put there, read, and moved away with the reasons.

A file is moved only after what it held is safe; reading one twice changes nothing. So a crash at any moment costs no
more than reading it again, and several runs may read at once. Only what was read is removed: what was put in its place
meanwhile waits for the next run. What is put there in the moment between the last look and the removal is not noticed,
since S3 has no removal with a condition that all servers keep; so a new file gets a name of its own (`submit` sees to
that).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import AccessError, ConfigurationError, GeofieldError, NotFoundError
from orchestrate.boxlist import readable_boxes
from orchestrate.inboxfiles import (
    KINDS,
    LEFT_BEHIND,
    OPTIONS,
    SHAPEFILE,
    TRIES,
    WHY,
    Content,
    Kind,
    Waiting,
    content,
    content_of,
    fitting,
    is_there,
    now,
    numbered,
    options_in,
    read_if_there,
    submitted_in,
    waiting,
)
from orchestrate.work import InboxCounts, fault, may_succeed_later

if TYPE_CHECKING:
    from geofield import Run, Store


@dataclass(frozen=True)
class Submitted:
    """What became of one file.

    Attributes
    ----------
    is_new
        False: the same content with the same options waits there already.
    """

    path: str
    key: str
    is_new: bool


@dataclass(frozen=True)
class Refused:
    """A row, or a whole file (`row` is None), that was not taken."""

    file: str
    row: int | None
    field_id: str | None
    rule: str
    reason: str


@dataclass(frozen=True)
class Told:
    """What was mended or left out of a file that was taken."""

    file: str
    row: int | None
    field_id: str | None
    what: str


@dataclass
class InboxReport:
    """What reading an inbox came to. `errors` are files that could not be read now; they wait in the inbox."""

    counts: InboxCounts = field(default_factory=InboxCounts)
    rejected: list[Refused] = field(default_factory=list)
    notices: list[Told] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)


# --- putting files there ---------------------------------------------------------------------------------------------


def submit(
    store: Store, paths: Sequence[Path], as_: Kind = "fields", options: Mapping[str, Any] | None = None
) -> list[Submitted]:
    """Copy files into the inbox.

    Parameters
    ----------
    paths
        Files. A `.shp` takes its siblings along, as one zip.
    options
        What the files do not say; kept beside each.

    Returns
    -------
    What became of each. A name that is taken by other content gets a number; the same content with the same options
    is left as it is.

    Raises
    ------
    NotFoundError, ConfigurationError
        A path is no file, before anything is copied.
    """
    said = {name: _plain(value) for name, value in (options or {}).items() if value is not None}
    if as_ == "fields":
        field_options(said)
    else:
        box_options(said)
    chosen = _without_siblings([Path(path) for path in paths])
    for path in chosen:
        _check_path(path)
    return [_put(store, as_, path, *content_of(path), said) for path in chosen]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else value


def _without_siblings(paths: Sequence[Path]) -> list[Path]:
    """The paths without the parts of a shapefile whose `.shp` is among them."""
    shapes = {path.with_suffix("") for path in paths if path.suffix.lower() == ".shp"}
    return [
        path
        for path in paths
        if path.suffix.lower() == ".shp" or path.suffix.lower() not in SHAPEFILE or path.with_suffix("") not in shapes
    ]


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; submit takes files.")
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.")
    if path.name.startswith("."):
        raise ConfigurationError(f"{path.name} is a hidden file, which the inbox passes over; rename it.")
    if path.name.endswith((OPTIONS, WHY)):
        raise ConfigurationError(f"{path.name} ends like a file of the inbox's own ({OPTIONS}, {WHY}); rename it.")


def _put(store: Store, kind: Kind, path: Path, name: str, data: bytes, options: Mapping[str, Any]) -> Submitted:
    """The options first, then the file: who finds the file finds its options.

    Options that are there already are never taken over: whoever moves the file they belonged to may be about to remove
    them.
    """
    name = fitting(name)
    for number in range(1, TRIES):
        key = f"inbox/{kind}/{numbered(name, number)}"
        sidecar = key + OPTIONS
        text = json.dumps({"options": dict(options), "submitted": now().isoformat()}, ensure_ascii=False, indent=1)
        is_own = store.location.create(sidecar, text.encode())
        if is_own and store.location.create(key, data):
            return Submitted(str(path), key, True)
        if read_if_there(store, key) == data:
            if is_own or options_in(read_if_there(store, sidecar), sidecar) == options:
                return Submitted(str(path), key, False)
        elif is_own:  # the file was put there without options
            store.location.delete(sidecar)
    raise ConfigurationError(f"The inbox holds {TRIES - 1} files of the name {name!r}; run `geofield run` first.")


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass
class _Outcome:
    """What came of one file. `new`: how many of the accepted were not known before."""

    accepted: int = 0
    new: int = 0
    rejected: list[Refused] = field(default_factory=list)
    notices: list[Told] = field(default_factory=list)

    @property
    def is_refused(self) -> bool:
        """Nothing of the file was taken, and not because it holds nothing."""
        return not self.accepted and bool(self.rejected)


def read_inbox(store: Store, run: Run, report: InboxReport | None = None, limit: int | None = None) -> InboxReport:
    """Take what waits in the inbox into the store.

    Parameters
    ----------
    report
        Added to, when the inbox is read again because a file could not be read the first time.
    limit
        So many files at most; None: all.

    Notes
    -----
    Boxes come first, then fields in the order of their arrival. A bad row never stops a good one, and a bad file never
    the next; each gets its reasons written beside it. What may succeed later (a store or a source that does not
    answer) leaves the file where it is, and the files of fields that came after it too: they would be overwritten by
    what is older.
    """
    report = InboxReport() if report is None else report
    for one in waiting(store)[:limit]:
        try:
            outcome = _receive(store, run, one)
        except Exception as error:  # whatever it is, it must stop neither the next file nor the boxes
            report.errors.append({**fault(None, None, error), "file": one.key})
            if one.kind == "fields" and may_succeed_later(error):
                break  # a later file must not come before it
            continue
        if outcome is None:
            continue
        report.counts.files_accepted += not outcome.is_refused
        report.counts.files_rejected += outcome.is_refused
        report.counts.rows_accepted += outcome.accepted
        report.counts.rows_rejected += len(outcome.rejected)
        report.rejected += outcome.rejected
        report.notices += outcome.notices
    with contextlib.suppress(GeofieldError):  # the next run does it
        _sweep(store)
    return report


def _receive(store: Store, run: Run, one: Waiting) -> _Outcome | None:
    """What came of a file, which was moved away; None when another run has taken it, or another file lies there."""
    found = content(store, one)
    if found is None:
        return None
    outcome = _take(store, run, one, found)
    if not outcome.new and not is_there(store, one):
        return None
    _move(store, run, one, found, outcome)
    return outcome


def _take(store: Store, run: Run, one: Waiting, found: Content) -> _Outcome:
    """What a file holds is safe when this returns. What is no fault of the file is raised, and it waits."""
    try:
        options = options_in(found.sidecar, one.key + OPTIONS)
        return (_take_boxes if one.kind == "boxes" else _take_fields)(store, run, one, found, options)
    except GeofieldError as error:
        if error.action in ("retry", "stop") or isinstance(error, AccessError):
            raise
        return _Outcome(rejected=[Refused(one.name, None, None, error.kind, str(error))])
    except Exception as error:  # a file is untrusted, and one that trips a library must not stop the others
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"reading it failed in a way that was not foreseen: {type(error).__name__}: {error} ({place.name})"
        return _Outcome(rejected=[Refused(one.name, None, None, "unexpected", reason)])


def field_options(options: Mapping[str, Any]) -> geofield.FieldOptions:
    """`FieldOptions` from JSON: a date is text there."""
    known = ("crs", "id_column", "ids", "planting_date", "box")
    if unknown := set(options) - set(known):
        raise ConfigurationError(f"Not an option of a field file: {', '.join(sorted(unknown))}; there are {known}.")
    values = dict(options)
    date = values.get("planting_date")
    if isinstance(date, str) and date != "box-start":
        try:
            values["planting_date"] = dt.date.fromisoformat(date)
        except ValueError as error:
            raise ConfigurationError(f"--planting-date is a day, YYYY-MM-DD, or `box-start`; got {date!r}.") from error
    return geofield.FieldOptions(**values)


def box_options(options: Mapping[str, Any]) -> geofield.BoxOptions:
    """`BoxOptions` from JSON: `crs` is that of the bounds."""
    values = {"bbox_crs" if name == "crs" else name: value for name, value in options.items()}
    known = geofield.BoxOptions.__dataclass_fields__
    if unknown := set(values) - set(known):
        raise ConfigurationError(
            f"Not an option of a box file: {', '.join(sorted(unknown))}; there are {', '.join(known)}."
        )
    return geofield.BoxOptions(**values)


def _take_boxes(store: Store, run: Run, one: Waiting, found: Content, options: Mapping[str, Any]) -> _Outcome:
    read = geofield.read_boxes(found.data, one.name, box_options(options), store.defaults)
    rejected, notices = [_refused(one, item) for item in read.rejected], [_told(one, item) for item in read.notices]
    outcome = _Outcome(rejected=rejected, notices=notices)
    for box in read.boxes if is_there(store, one) else ():  # what another run has taken may be removed by now
        try:
            store.add_box(box)
            outcome.accepted += 1
            outcome.new += 1
        except GeofieldError as error:
            if error.action == "retry":
                raise
            # which row it came from is not known any more; the box is named in the reason
            outcome.rejected.append(Refused(one.name, None, box.id, error.kind, str(error)))
    return outcome


def _take_fields(store: Store, run: Run, one: Waiting, found: Content, options: Mapping[str, Any]) -> _Outcome:
    read = geofield.read_fields(found.data, one.name, field_options(options))
    placed = store.place(read.table, readable_boxes(store))
    taken = placed.table.drop(columns="boxes", errors="ignore")
    file = PurePosixPath(_target(one, found, "accepted")).name
    is_due = partial(is_there, store, one)
    new = store.registry.accept(taken, file, run.metadata("accept", []), is_due) if len(taken) else 0
    rejected = [_refused(one, item) for item in (*read.rejected, *placed.rejected)]
    return _Outcome(len(taken), new, rejected, [_told(one, item) for item in (*read.notices, *placed.notices)])


def _refused(one: Waiting, item: Any) -> Refused:
    return Refused(one.name, item.row, item.field_id, item.rule, item.reason)


def _told(one: Waiting, item: Any) -> Told:
    return Told(one.name, item.row, item.field_id, item.what)


# --- moving away -----------------------------------------------------------------------------------------------------


def _target(one: Waiting, found: Content, folder: str) -> str:
    """Where a file goes: named after its arrival, so that a rerun after a crash goes to the same place.

    The name also tells the registry what was accepted from a file already, so that it says the microsecond.
    """
    arrived = submitted_in(found.sidecar) or one.info.modified
    return f"inbox/{folder}/{arrived:%Y%m%dT%H%M%S.%fZ}-{fitting(one.name)}"


def _move(store: Store, run: Run, one: Waiting, found: Content, outcome: _Outcome) -> None:
    """Reasons, options and copy first, then away with the original: at every moment all of it is somewhere."""
    location = store.location
    target = _free(store, _target(one, found, "rejected" if outcome.is_refused else "accepted"), found.data)
    if outcome.rejected or outcome.notices:
        why = {
            "file": one.name,
            "as": one.kind,
            "run": run.id,
            "accepted": outcome.accepted,
            "rejected": [asdict(item) for item in outcome.rejected],
            "notices": [asdict(item) for item in outcome.notices],
        }
        location.write(target + WHY, json.dumps(why, indent=1, ensure_ascii=False).encode(errors="replace"))
    if found.sidecar is not None:
        location.write(target + OPTIONS, found.sidecar)
    location.write(target, found.data)
    if is_there(store, one):
        location.delete(one.key)
        if found.sidecar is not None and read_if_there(store, one.key + OPTIONS) == found.sidecar:
            location.delete(one.key + OPTIONS)


def _free(store: Store, target: str, data: bytes) -> str:
    folder, _, name = target.rpartition("/")
    for number in range(1, TRIES):
        key = f"{folder}/{numbered(name, number)}"
        if read_if_there(store, key) in (None, data):
            return key
    raise ConfigurationError(f"{target} and {TRIES - 2} numbers after it are taken.")


def _sweep(store: Store) -> None:
    """Remove options whose file never came, or was moved by a run that died in between."""
    for kind in KINDS:
        infos = store.location.list(f"inbox/{kind}")
        keys = {info.key for info in infos}
        for info in infos:
            alone = info.key.endswith(OPTIONS) and info.key.removesuffix(OPTIONS) not in keys
            if alone and now() - info.modified > LEFT_BEHIND:
                store.location.delete(info.key)
