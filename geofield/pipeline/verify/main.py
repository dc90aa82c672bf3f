"""Every check of a store, and the repair of what a crash left."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from geofield.boxes import Box, check_box_id
from geofield.cube.cube import Cube, half_of
from geofield.cube.upkeep import DEAD_AFTER, branches, collect, garbage, remove_branches
from geofield.errors import BoxError, NotFoundError, StoreUnavailableError, UnsafeStoreError
from geofield.filesystem import ALLOW_OPTION, check_filesystem, temporary_files
from geofield.pipeline.layers import cube_schema
from geofield.pipeline.rebuild import PREFIX as REBUILD
from geofield.pipeline.rebuild import branch_of
from geofield.pipeline.run import Run
from geofield.pipeline.verify.cubes import check_cube
from geofield.pipeline.verify.findings import UNREADABLE, Finding, listed, unreadable
from geofield.pipeline.verify.pixels import check_shards, check_states
from geofield.pipeline.verify.published import check_copy, check_field_copy, check_image, check_receipts
from geofield.pipeline.verify.registry import check_fields
from geofield.pipeline.verify.rows import RowsState, check_rows, mend_rows
from geofield.registry import FieldRegistry
from geofield.results.rows import Results
from geofield.store import Location

_LOOKS = 4
_CLEAR = "Nobody sees it. `geofield verify --repair` removes it."


def verify(
    location: Location, *, repair: bool = False, deep: bool = False, older_than: dt.timedelta = DEAD_AFTER
) -> list[Finding]:
    """Check what is stored against every invariant that can be seen in it.

    Parameters
    ----------
    location
        Of a store.
    repair
        Complete what a crash left: rows are written from the cube where they are missing, not current, doubled or too
        many; rebuilds that nobody asks for go, what attempts that died or lost left in the cubes, and temporary files.
        What is published and right is never touched, and what a crash cannot have done is only told.
    deep
        Every shard is read and every number computed again, where otherwise a few are; images and receipts are read.
    older_than
        So long must nothing have happened to an attempt, a file or an object before it counts as left behind.

    Returns
    -------
    Nothing where all is well. While a run is at work, rows that it is about to write are told as unfinished.

    Notes
    -----
    Digests are recomputed from the acquisitions that the cube lists. Footprints are not stored, so a digest counts as
    explained when some choice of the day's acquisitions gives it. Whether the source would say the same today is for
    `changed_days`, and whether the server still honours conditions (I8) for `Location.probe`: nothing stored shows it.
    Of the published copies it is checked that the state they name is there, not their pixels. Kept weights are checked
    whenever they are read: a pack that is not what its name says is computed again.
    """
    # folders before descriptions: a box is described before it has any
    folders = _folders(location)
    boxes, findings = _read_boxes(location)
    findings += _check_folders(location, folders)
    registry = FieldRegistry(location)
    findings += _check_place(location)
    findings += check_fields(registry, lambda: _box_ids(location))
    for box in boxes.values():
        findings += _Checking(location, box, registry, deep, older_than).check(repair=repair)
    if deep:
        findings += check_receipts(location)
    return findings + list(_check_temporary(location, older_than, repair=repair))


def _box_ids(location: Location) -> list[str]:
    keys = [info.key.removeprefix("boxes/") for info in location.list("boxes")]
    return [key.removesuffix(".json") for key in keys if key.endswith(".json")]


def _read_boxes(location: Location) -> tuple[dict[str, Box], list[Finding]]:
    boxes, findings = {}, []
    for name in _box_ids(location):
        try:
            box = _read_box(location, name)
        except UNREADABLE as error:
            findings.append(unreadable(name, "box", f"boxes/{name}.json", error))
        else:
            if box is not None:
                boxes[name] = box
    return boxes, findings


def _read_box(location: Location, name: str) -> Box | None:
    """None for a box that is not there (any more)."""
    data = location.look(f"boxes/{name}.json").data
    if data is None:
        return None
    box = Box.model_validate_json(data)
    if box.id != check_box_id(name):
        raise BoxError(f"it describes box {box.id!r}")
    _ = box.resolved
    return box


def _folders(location: Location) -> dict[str, list[str]]:
    """Names of boxes, with the folders that hold something of them."""
    found: dict[str, list[str]] = {}
    for folder in ("cubes", "rows"):
        for name in location.folders(folder):
            if not name.startswith("."):  # a cube that is being made, or that was cut
                found.setdefault(name, []).append(f"{folder}/{name}")
    return found


def _check_folders(location: Location, folders: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Cubes and rows that no box describes: a removal that was cut (I7), or a description that was lost."""
    missing = set(folders) - set(_box_ids(location))
    left = _folders(location) if missing else {}
    for name in sorted(missing & set(left)):
        found = f"There is no boxes/{name}.json for what lies in {listed(left[name])}."
        advice = (
            "The box is being removed, or that was cut: "
            f"`geofield remove-box {location.url} --id {name} --yes` completes it. If it should stay, bring "
            f"boxes/{name}.json back from a copy of the store."
        )
        yield Finding(name, "I7", "unfinished", found, advice)


def _check_place(location: Location) -> list[Finding]:
    if location.is_s3:
        return []
    try:
        check_filesystem(Path(location.url), allowed=bool(location.options.get(ALLOW_OPTION)))
    except UnsafeStoreError as error:
        return [Finding(None, "I8", "broken", str(error), "Move the store, or say that it is all right.")]
    return []


class _Checking:
    """The checks of one box."""

    def __init__(
        self, location: Location, box: Box, registry: FieldRegistry, deep: bool, older_than: dt.timedelta
    ) -> None:
        self.location, self.box, self.registry, self.deep, self.older_than = location, box, registry, deep, older_than
        self.cube, self.results = Cube(location, box.id), Results(location, box.id)
        self.is_whole = False

    def check(self, *, repair: bool) -> list[Finding]:
        """Look, mend, and look again at what was mended.

        What is broken is looked at again while others change the box: the parts of it are not read at one moment.
        """
        repaired: list[Finding] = []
        for _ in range(_LOOKS):
            self.cube, self.results = Cube(self.location, self.box.id), Results(self.location, self.box.id)
            before = self._state()
            findings = self._look(repair=repair)
            if not any(one.severity == "broken" for one in findings) or self._state() == before:
                return [*repaired, *findings]
            repaired += [one for one in findings if one.repaired]
        return [*repaired, *(one for one in findings if not one.repaired)]

    def _state(self) -> list[object]:
        """What others change when they are at work in the box."""
        found: list[object] = [self.location.look(f"{name}/{self.box.id}.json").data for name in ("boxes", "changes")]
        for look in (self.cube.tip, lambda: self.results.table.open().version):
            try:
                found.append(look())
            except UNREADABLE as error:
                found.append(type(error))
        return found

    def _look(self, *, repair: bool) -> list[Finding]:
        try:
            box = _read_box(self.location, self.box.id)
            if box is None:  # removed meanwhile
                return []
            self.box = box
            return self._check(repair=repair)
        except UNREADABLE as error:
            return [unreadable(self.box.id, "box", f"Box {self.box.id}", error)]

    def _check(self, *, repair: bool) -> list[Finding]:
        missing = self._check_presence(repair=repair)
        if missing and not all(one.repaired for one in missing):
            return missing
        findings, parts = check_cube(self.box, self.cube, self._pending())
        left = list(self._check_left(repair=repair))
        if parts is None:
            return [*missing, *findings, *left]
        shards = list(check_shards(self.box, self.cube, parts))
        findings += shards or check_states(self.box, parts, deep=self.deep)
        # rows from a cube that is not whole would only copy what is wrong with it
        self.is_whole = not any(one.is_open for one in findings)
        rows = self._check_rows(repair=repair and self.is_whole)
        return [*missing, *findings, *rows, *left, *self._check_copies()]

    def _check_copies(self) -> Iterator[Finding]:
        yield from check_copy(self.location, self.cube)
        yield from check_field_copy(self.location, self.box.id, self.registry)
        if self.deep:
            yield from check_image(self.location, self.cube)

    def _pending(self) -> Box | None:
        try:
            return Box.model_validate_json(self.location.read(f"changes/{self.box.id}.json"))
        except (NotFoundError, ValueError):
            return None

    def _check_presence(self, *, repair: bool) -> list[Finding]:
        """A crash between the description and the empty cube leaves a box without one (I7)."""
        try:
            _ = self.cube.repository
        except UNREADABLE as error:
            if not isinstance(error, NotFoundError) or self.location.list(self.cube.key):
                return [unreadable(self.box.id, "cube", f"What lies in {self.cube.key}", error)]
        else:
            return []
        if not self.location.exists(f"boxes/{self.box.id}.json"):  # it is being removed
            return []
        advice = "Add the box again, or `geofield verify --repair` makes the empty cube."
        finding = Finding(self.box.id, "I7", "unfinished", "The box has no cube yet.", advice)
        if repair:
            self.cube.create(cube_schema(self.box, self.box.resolved), Run().metadata("create", []))
            finding = replace(finding, repaired=True)
        return [finding]

    def _check_rows(self, *, repair: bool) -> list[Finding]:
        state = self._rows_state()
        if not repair or not (state.replace or state.remove or state.is_lacking):
            return list(state.findings)
        mend_rows(self.box, self.cube, self.results, self.registry, state, Run())
        again = self._rows_state()
        said = {(one.invariant, one.found) for one in again.findings}
        mended = [
            replace(one, repaired=one.severity == "unfinished" and (one.invariant, one.found) not in said)
            for one in state.findings
        ]
        before = {(one.invariant, one.found) for one in state.findings}
        return mended + [one for one in again.findings if (one.invariant, one.found) not in before]

    def _rows_state(self) -> RowsState:
        where = self.box, self.cube, self.results, self.registry
        return check_rows(*where, compare=self.is_whole, deep=self.deep)

    def _check_left(self, *, repair: bool) -> Iterator[Finding]:
        """Rebuilds that nobody asks for any more, and what attempts left that died or lost (I7)."""
        names = self._dead_rebuilds()
        if names:
            found = f"Rebuilds that nobody asks for any more: {listed(names)}."
            if repair:
                remove_branches(self.cube, names)
            repaired = repair and not set(names) & set(self.cube.repository.list_branches())
            yield Finding(self.box.id, "I7", "unfinished", found, _CLEAR, repaired=repaired)
        try:
            left = garbage(self.cube, self.older_than)
        except StoreUnavailableError:  # of a broken history, which has been told, nothing must be removed
            return
        if left.objects:
            if repair:
                collect(self.cube, self.older_than)
            found = f"Attempts that died or lost have left {left.objects:,} objects ({left.bytes:,} bytes) in the cube."
            yield Finding(self.box.id, "I7", "note", found, f"{_CLEAR} So does `geofield compact`.", repaired=repair)

    def _dead_rebuilds(self) -> list[str]:
        pending = self._pending()
        live = () if pending is None else (branch_of(pending), half_of(branch_of(pending)))
        before = dt.datetime.now(dt.UTC) - self.older_than
        return [one.name for one in branches(self.cube, REBUILD) if one.name not in live and one.active < before]


def _check_temporary(location: Location, older_than: dt.timedelta, *, repair: bool) -> Iterable[Finding]:
    """Files that were to be renamed into place (I7); S3 has none."""
    if location.is_s3:
        return
    root = Path(location.url)
    files = temporary_files(root, dt.datetime.now(dt.UTC) - older_than)
    if not files:
        return
    if repair:
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
    names = [file.relative_to(root).as_posix() for file in files]
    found = f"Temporary files that a writer left behind when it died: {listed(names)}."
    yield Finding(None, "I7", "unfinished", found, "`geofield verify --repair` removes them.", repaired=repair)
