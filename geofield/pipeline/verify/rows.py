"""The rows of a box against its cube and its fields, and mending what a crash left."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from geofield.boxes import Box
from geofield.cube.cube import Cube, Head, to_date
from geofield.cube.view import read_digests
from geofield.errors import CorruptStoreError
from geofield.fields import place_fields
from geofield.pipeline.boxfields import BoxFields, box_fields
from geofield.pipeline.late import computed_rows, refresh_rows
from geofield.pipeline.layers import value_columns
from geofield.pipeline.run import Run
from geofield.pipeline.verify.findings import UNREADABLE, Finding, date_list, listed, unreadable
from geofield.registry import FieldRegistry
from geofield.results.rows import Results, row_schema

SAMPLE = 5
"""Fields whose rows are computed again without `deep`."""

_AT_ONCE = 200  # fields computed together when all are
_NEXT_RUN = "The next run, or `geofield verify --repair`, completes it; a run that is at work now may be about to."
_NOT_BY_RUN = "Runs leave the box alone until then, and so does `geofield verify --repair`."
_KEYS = ["field_id", "field_version", "date", "digest"]

Dates = npt.NDArray[np.datetime64]
Numbers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class RowsState:
    """What was found, and what a repair would do about it.

    Attributes
    ----------
    replace
        Fields whose rows have to be written whole: some are doubled, or should not be there.
    remove
        Ids that have rows and are no fields of the box.
    is_lacking
        Rows are missing or not current.
    """

    findings: tuple[Finding, ...] = ()
    replace: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    is_lacking: bool = False


def check_rows(
    box: Box, cube: Cube, results: Results, registry: FieldRegistry, *, compare: bool, deep: bool
) -> RowsState:
    """What should be there against what is.

    Parameters
    ----------
    compare
        The numbers are computed again from the cube. Not where the cube is broken: rows would be blamed for it.
    deep
        Those of every field; else of a random few.
    """
    # rows first, then the cube: rows are written after it, so what they come from is there when the cube is read
    try:
        snapshot = results.table.open()
        names = set() if snapshot.table is None else {item.name for item in snapshot.table.schema().fields}
        lacking = [name for name in _KEYS if names and name not in names]
        if lacking:
            found = f"The rows have no column {listed(lacking)}."
            return RowsState((Finding(box.id, "rows", "broken", found, "Bring `rows` back from a copy."),))
        # of one version: rows that are written meanwhile may come from a later state of the cube
        read = partial(results.read, as_of=snapshot.version)
        present = read(columns=_KEYS)[_KEYS] if names else pd.DataFrame(columns=_KEYS)
    except UNREADABLE as error:
        return RowsState((unreadable(box.id, "rows", "The rows", error),))
    head = cube.head()
    try:
        fields = current_fields(box, registry)
    except UNREADABLE as error:
        return RowsState((unreadable(box.id, "fields", "The fields of the box", error),))
    strays = set(present["field_id"]) - set(fields.columns.ids)
    try:
        registry.check_not_lost(strays, results.table.key)
    except CorruptStoreError as error:
        return RowsState((Finding(box.id, "fields", "broken", str(error), _NOT_BY_RUN),))
    state = _standing(fields, cube, head, present)
    if names and compare and not state.findings:
        try:
            differing = tuple(_check_values(fields, cube, head, read, deep=deep))
        except UNREADABLE as error:
            differing = (unreadable(box.id, "rows", "The numbers of the rows, or the pixels under them,", error),)
        return RowsState(differing)
    return state


def current_fields(box: Box, registry: FieldRegistry) -> BoxFields:
    """The fields that have area in a box now."""
    return box_fields(box, place_fields(registry.current(), {box.id: box}, explain=False).table)


def mend_rows(box: Box, cube: Cube, results: Results, registry: FieldRegistry, state: RowsState, run: Run) -> None:
    """Write what should be there; what is right stays as it is."""
    fields = current_fields(box, registry)
    metadata = run.metadata("repair", [])
    if state.remove:
        gone = [name for name in state.remove if name not in set(fields.columns.ids)]
        results.remove(gone, metadata)
    places = [number for number, name in enumerate(fields.columns.ids) if name in set(state.replace)]
    if places:
        chosen = fields.take(np.array(places, dtype=np.int64))
        results.replace(chosen.columns.ids, partial(_computed_now, chosen, cube), metadata)
    if state.is_lacking:
        refresh_rows(fields, cube, results, run, "repair")


def _computed_now(fields: BoxFields, cube: Cube) -> pa.Table:
    return computed_rows(fields, cube, cube.head())


# --- which rows there are --------------------------------------------------------------------------------------------


def _standing(fields: BoxFields, cube: Cube, head: Head, present: pd.DataFrame) -> RowsState:
    box_id = fields.box.id
    findings: list[Finding] = []
    places = present["field_id"].map({name: number for number, name in enumerate(fields.columns.ids)})
    strays = sorted(set(present["field_id"][places.isna()]))
    if strays:
        found = f"Rows of what is no field of the box any more (withdrawn, forgotten or moved away): {listed(strays)}."
        findings.append(Finding(box_id, "I6", "unfinished", found, _NEXT_RUN))
    known = present[places.notna()].reset_index(drop=True)
    place = places[places.notna()].to_numpy(dtype=np.int64)
    dates = known["date"].to_numpy(dtype="datetime64[D]")
    step, inside = _steps(head, dates)
    same = known["field_version"].to_numpy(object) == np.array(fields.columns.versions, dtype=object)[place]
    due = _due(fields, place, dates)

    replace: set[str] = set()
    for which, invariant, said in (
        (known.duplicated(["field_id", "date"], keep=False).to_numpy(), "I4", "Rows are there twice"),
        (~same, "I6", "Rows are of an earlier version of the field"),
        (same & ~inside, "I9", "Rows are of days that the cube does not hold"),
        (same & inside & ~due, "I6", "Rows are of days before planting or after harvest"),
    ):
        if which.any():
            names = sorted(set(known["field_id"][which]))
            told = f"{said}: fields {listed(names)}, days {date_list(known['date'][which].tolist())}."
            findings.append(Finding(box_id, invariant, "unfinished", told, _NEXT_RUN))
            replace.update(names)
    missing, stale = _lacking(fields, cube, head, known, place, np.where(same & inside & due, step, -1))
    for counts, said in ((missing, "missing"), (stale, "not from what the cube holds now")):
        if counts.any():
            names = [fields.columns.ids[number] for number in np.flatnonzero(counts).tolist()]
            told = f"{int(counts.sum()):,} rows are {said}: fields {listed(names)}."
            findings.append(Finding(box_id, "I9", "unfinished", told, _NEXT_RUN))
    return RowsState(tuple(findings), tuple(sorted(replace)), tuple(strays), bool(missing.any() or stale.any()))


def _steps(head: Head, dates: Dates) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    first = int(head.days[0]) if len(head.days) else 0
    step = dates.astype(np.int64) - first
    return step, (step >= 0) & (step < len(head.days))


def _due(fields: BoxFields, place: Numbers, dates: Dates) -> npt.NDArray[np.bool_]:
    last = fields.last[place]
    return np.asarray((dates >= fields.first[place]) & (np.isnat(last) | (dates <= last)), dtype=np.bool_)


def _lacking(
    fields: BoxFields,
    cube: Cube,
    head: Head,
    known: pd.DataFrame,
    place: Numbers,
    step: Numbers,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(field,) rows that are missing, and rows that are there and not current.

    Parameters
    ----------
    step
        Of each known row, the step that it is the row of; -1 for rows that belong nowhere.
    """
    none = np.zeros(len(fields), dtype=np.int64)
    if not len(head.days):
        return none, none
    dates: list[dt.date] = [to_date(day) for day in head.days]
    wanted = fields.active(dates)
    digests = fields.digests(read_digests(cube.arrays(head.snapshot)))
    there, current = np.zeros_like(wanted), np.zeros_like(wanted)
    belongs = step >= 0
    at = step[belongs], place[belongs]
    there[at] = True
    good = known["digest"].to_numpy(object)[belongs] == digests[at]
    current[at[0][good], at[1][good]] = True
    return (wanted & ~there).sum(axis=0), (wanted & there & ~current).sum(axis=0)


# --- what the rows say -----------------------------------------------------------------------------------------------


def _check_values(
    fields: BoxFields, cube: Cube, head: Head, read: Callable[..., pd.DataFrame], *, deep: bool
) -> Iterator[Finding]:
    """Numbers, bit for bit, against the same computed from the cube (I6)."""
    numbers = np.arange(len(fields), dtype=np.int64)
    if not deep and len(numbers) > SAMPLE:
        numbers = np.sort(np.random.default_rng().choice(numbers, SAMPLE, replace=False))
    wrong: dict[str, set[dt.date]] = {}
    columns: set[str] = set()
    for start in range(0, len(numbers), _AT_ONCE):
        chosen = fields.take(numbers[start : start + _AT_ONCE])
        expected = computed_rows(chosen, cube, head).to_pandas().drop(columns="month")
        stored = read(fields=chosen.columns.ids)
        for name, differs in _differences(expected, stored, row_schema(value_columns(fields.box)).names[:-1]):
            columns.add(name)
            for field_id, date in differs:
                wrong.setdefault(field_id, set()).add(date)
    if wrong:
        days = {date for dates in wrong.values() for date in dates}
        yield Finding(
            fields.box.id, "I6", "broken",
            f"Rows that call themselves current do not say what the cube gives: fields {listed(sorted(wrong))}, days "
            f"{date_list(days)}, columns {listed(sorted(columns))}.",
            "Something other than geofield wrote them. Bring the table back to a version before that "
            "(`geofield history --field`), or delete the rows of these fields; the next run writes them anew.",
        )  # fmt: skip


def _differences(
    expected: pd.DataFrame, stored: pd.DataFrame, columns: list[str]
) -> Iterator[tuple[str, list[tuple[str, dt.date]]]]:
    """Columns in which rows of the same key differ, with the keys."""
    key = ["field_id", "date"]
    one, other = expected.set_index(key), stored.set_index(key)
    common = one.index.intersection(other.index)
    one, other = one.loc[common], other.loc[common]
    for name in columns:
        if name in key:
            continue
        if name not in other.columns:
            yield name, common.tolist()
            continue
        differs = ~_same(one[name], other[name])
        if differs.any():
            yield name, common[differs].tolist()


def _same(one: pd.Series, other: pd.Series) -> npt.NDArray[np.bool_]:
    if one.dtype.kind == "f":
        left, right = one.to_numpy(np.float64), other.to_numpy(np.float64)
        return np.asarray((left.view(np.int64) == right.view(np.int64)) | (np.isnan(left) & np.isnan(right)))
    return np.asarray(one.to_numpy(object) == other.to_numpy(object), dtype=np.bool_)
