"""The inbox of a store: files of boxes and fields are put there, read, and moved away with the reasons.

A file is moved only after what it held is safe; reading one twice changes nothing. So a crash at any moment costs no
more than reading it again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import geofield
from geofield.errors import ConfigurationError, GeofieldError, NotFoundError
from orchestrate.boxlist import readable_boxes
from orchestrate.inboxfiles import (
    KINDS,
    LEFT_BEHIND,
    OPTIONS,
    SHAPEFILE,
    TRIES,
    WHY,
    Kind,
    Waiting,
    content_of,
    fitting,
    now,
    numbered,
    options_of,
    waiting,
)
from orchestrate.work import InboxCounts, fault

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
    """The options first, then the file: who finds the file finds its options."""
    name = fitting(name)
    for number in range(1, TRIES):
        key = f"inbox/{kind}/{numbered(name, number)}"
        sidecar = key + OPTIONS
        text = json.dumps({"options": dict(options), "submitted": now().isoformat()}, ensure_ascii=False, indent=1)
        if not store.location.create(sidecar, text.encode()) and options_of(store, sidecar) != options:
            continue
        if store.location.create(key, data):
            return Submitted(str(path), key, True)
        if store.location.read(key) == data:
            return Submitted(str(path), key, False)
    raise ConfigurationError(f"The inbox holds {TRIES - 1} files of the name {name!r}; run `geofield run` first.")


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass
class _Outcome:
    """What came of one file."""

    accepted: int = 0
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
    answer) leaves the file where it is.
    """
    report = InboxReport() if report is None else report
    for one in waiting(store)[:limit]:
        try:
            outcome = _take(store, run, one)
            _move(store, run, one, outcome)
        except GeofieldError as error:
            report.errors.append({**fault(None, None, error), "file": one.key})
            continue
        report.counts.files_accepted += not outcome.is_refused
        report.counts.files_rejected += outcome.is_refused
        report.counts.rows_accepted += outcome.accepted
        report.counts.rows_rejected += len(outcome.rejected)
        report.rejected += outcome.rejected
        report.notices += outcome.notices
    _sweep(store)
    return report


def _take(store: Store, run: Run, one: Waiting) -> _Outcome:
    """What a file holds is safe when this returns. Only what may succeed later is raised."""
    try:
        options = options_of(store, one.key + OPTIONS)
        data = store.location.read(one.key)
        return (_take_boxes if one.kind == "boxes" else _take_fields)(store, run, one, data, options)
    except GeofieldError as error:
        if error.action == "retry":
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


def _take_boxes(store: Store, run: Run, one: Waiting, data: bytes, options: Mapping[str, Any]) -> _Outcome:
    read = geofield.read_boxes(data, one.name, box_options(options), store.defaults)
    outcome = _Outcome(0, [_refused(one, item) for item in read.rejected], [_told(one, item) for item in read.notices])
    for box in read.boxes:
        try:
            store.add_box(box)
            outcome.accepted += 1
        except GeofieldError as error:
            if error.action == "retry":
                raise
            # which row it came from is not known any more; the box is named in the reason
            outcome.rejected.append(Refused(one.name, None, box.id, error.kind, str(error)))
    return outcome


def _take_fields(store: Store, run: Run, one: Waiting, data: bytes, options: Mapping[str, Any]) -> _Outcome:
    read = geofield.read_fields(data, one.name, field_options(options))
    placed = store.place(read.table, readable_boxes(store))
    taken = placed.table.drop(columns="boxes", errors="ignore")
    if len(taken):
        store.registry.accept(taken, PurePosixPath(_target(one, "accepted")).name, run.metadata("accept", []))
    rejected = [_refused(one, item) for item in (*read.rejected, *placed.rejected)]
    return _Outcome(len(taken), rejected, [_told(one, item) for item in (*read.notices, *placed.notices)])


def _refused(one: Waiting, item: Any) -> Refused:
    return Refused(one.name, item.row, item.field_id, item.rule, item.reason)


def _told(one: Waiting, item: Any) -> Told:
    return Told(one.name, item.row, item.field_id, item.what)


# --- moving away -----------------------------------------------------------------------------------------------------


def _target(one: Waiting, folder: str) -> str:
    """Where a file goes: named after its arrival, so that a rerun after a crash goes to the same place."""
    arrived = one.arrived.astimezone(dt.UTC)
    return f"inbox/{folder}/{arrived:%Y%m%dT%H%M%SZ}-{fitting(one.name)}"


def _move(store: Store, run: Run, one: Waiting, outcome: _Outcome) -> None:
    """Reasons, options and copy first, then away with the original: at every moment all of it is somewhere."""
    location = store.location
    data = location.read(one.key)
    target = _free(store, _target(one, "rejected" if outcome.is_refused else "accepted"), data)
    if outcome.rejected or outcome.notices:
        why = {
            "file": one.name,
            "as": one.kind,
            "run": run.id,
            "accepted": outcome.accepted,
            "rejected": [asdict(item) for item in outcome.rejected],
            "notices": [asdict(item) for item in outcome.notices],
        }
        location.write(target + WHY, json.dumps(why, indent=1, ensure_ascii=False).encode())
    with contextlib.suppress(NotFoundError):
        location.write(target + OPTIONS, location.read(one.key + OPTIONS))
    location.write(target, data)
    location.delete(one.key)
    location.delete(one.key + OPTIONS)


def _free(store: Store, target: str, data: bytes) -> str:
    folder, _, name = target.rpartition("/")
    for number in range(1, TRIES):
        key = f"{folder}/{numbered(name, number)}"
        try:
            if store.location.read(key) == data:
                return key
        except NotFoundError:
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
