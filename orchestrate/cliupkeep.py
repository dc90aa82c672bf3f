"""The commands that look after a store: verify, history, compact."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from geofield.errors import ConfigurationError
from orchestrate.clicommon import AS_JSON, STORE, open_store, print_json

if TYPE_CHECKING:
    from geofield import Store
    from geofield.pipeline import CubeCommit, FieldVersion, RowsCommit

_OLDER = click.option("--older-than", "hours", type=click.FloatRange(min=0), default=24, show_default=True,
                      metavar="HOURS", help="What nothing happened to for so long was left behind. 0 where nobody "
                      "writes.")  # fmt: skip
_SHOWN_ITEMS = 4


@click.command()
@STORE
@click.option("--repair", is_flag=True, help="Complete what a crash left, remove what nobody can see.")
@click.option("--deep", is_flag=True, help="Read every shard and compute every number again, not only a few.")
@_OLDER
@AS_JSON
def verify(store: str | None, repair: bool, deep: bool, hours: float, as_json: bool) -> int:
    """Check everything that must hold against what is stored. Exit status 1 when something is wrong."""
    from dataclasses import asdict

    from geofield.pipeline import verify as check

    opened = open_store(store)
    findings = check(opened.location, repair=repair, deep=deep, older_than=dt.timedelta(hours=hours))
    is_well = not any(one.is_open for one in findings)
    if as_json:
        print_json({"store": opened.url, "is_well": is_well, "findings": [asdict(one) for one in findings]})
    elif not findings:
        click.echo(f"All is well in {opened.url}.")
    for one in () if as_json else findings:
        mark = "repaired" if one.repaired else one.severity
        where = "store" if one.box is None else f"box {one.box}"
        click.echo(_printable(f"{mark}: {where}, {one.invariant}: {one.found}"))
        if one.is_open:
            click.echo(_printable(f"    {one.advice}"))
    return 0 if is_well else 1


@click.command()
@STORE
@click.option("--box", "box_id", metavar="ID", help="Every state of its cube that was published.")
@click.option("--field", "field_id", metavar="ID", help="Its versions, and every commit that touched its rows.")
@AS_JSON
def history(store: str | None, box_id: str | None, field_id: str | None, as_json: bool) -> int:
    """Tell what happened to a box, or to a field; with both, to the rows of the field in that box."""
    opened = open_store(store)
    if field_id is not None:
        _tell_field(opened, field_id, box_id, as_json)
    elif box_id is not None:
        _tell_box(opened, box_id, as_json)
    else:
        raise ConfigurationError("Whose history? Give --box ID or --field ID.")
    return 0


@click.command()
@STORE
@click.option("--keep", "days", type=click.FloatRange(0, 90), default=30, show_default=True, metavar="DAYS",
              help="Rows that were replaced within this while can still be read as of a time.")  # fmt: skip
@_OLDER
@AS_JSON
def compact(store: str | None, days: float, hours: float, as_json: bool) -> int:
    """Bring small files of closed months together, free what nothing needs. Others may be at work meanwhile."""
    from dataclasses import asdict

    from geofield.pipeline import compact as work
    from orchestrate.boxlist import box_ids
    from orchestrate.show import console, size, table

    opened = open_store(store)
    done = work(
        opened.location,
        box_ids(opened),
        dt.datetime.now(dt.UTC).date(),
        keep=dt.timedelta(days=days),
        older_than=dt.timedelta(hours=hours),
    )
    if as_json:
        print_json({"store": opened.url, "parts": [asdict(one) for one in done]})
        return 0
    rows = [(one.key, one.files_before, one.files_after, size(one.bytes_before), size(one.bytes_after)) for one in done]
    console().print(table(("what", "files before", "after", "bytes before", "after"), rows))
    return 0


COMMANDS = (verify, history, compact)


def _printable(text: str) -> str:
    from orchestrate.show import printable

    return printable(text)


# --- history ---------------------------------------------------------------------------------------------------------


def _tell_box(store: Store, box_id: str, as_json: bool) -> None:
    from dataclasses import asdict

    from geofield.pipeline import box_history

    store.box(box_id)
    commits = box_history(store.cube(box_id))
    if as_json:
        print_json({"box": box_id, "commits": [asdict(one) for one in commits]})
        return
    from orchestrate.show import console, table

    rows = [
        (f"{one.time:%Y-%m-%d %H:%M}", one.kind, "..".join(dict.fromkeys(one.days)), len(one.amended) or None, one.run,
         one.versions.get("geofield"), one.snapshot, "" if one.line == "present" else one.line)
        for one in commits
    ]  # fmt: skip
    headings = ("time", "what", "days", "amended", "run", "geofield", "snapshot", "kept as")
    console().print(table(headings, rows, f"Box {box_id}"))
    for one in commits:
        for text in _item_lines(one):
            click.echo(_printable(text))


def _item_lines(commit: CubeCommit) -> list[str]:
    lines = []
    for change in commit.changes:
        told = [
            f"{word} {_listed(names)}"
            for word, names in (
                ("came:", change.added), ("went:", change.removed), ("in another version:", change.reprocessed)
            )
            if names
        ]  # fmt: skip
        lines.append(f"{commit.snapshot}: {change.date} {'; '.join(told)}")
    return lines


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN_ITEMS
    return ", ".join(names[:_SHOWN_ITEMS]) + (f" and {rest} more" if rest > 0 else "")


def _tell_field(store: Store, field_id: str, box_id: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from geofield.pipeline import field_boxes, field_versions, rows_history
    from orchestrate.boxlist import readable_boxes

    versions = field_versions(store.registry, field_id)
    if box_id is not None:
        store.box(box_id)
    boxes = [box_id] if box_id is not None else field_boxes(store.registry, field_id, readable_boxes(store))
    commits = [one for name in boxes for one in rows_history(store.location, name, field_id)]
    commits.sort(key=lambda one: one.time, reverse=True)
    if as_json:
        print_json(
            {
                "field": field_id,
                "versions": [asdict(one) for one in versions],
                "rows": [asdict(one) for one in commits],
            }
        )
        return
    _show_field(field_id, versions, commits)


def _show_field(field_id: str, versions: Sequence[FieldVersion], commits: Sequence[RowsCommit]) -> None:
    from orchestrate.show import console, table

    out = console()
    headings = ("time", "version", "planting", "harvest", "is", "file", "row")
    rows = [
        (f"{one.accepted:%Y-%m-%d %H:%M}", one.version, one.planting_date, one.harvest_date,
         "withdrawn" if one.withdrawn else "accepted", one.file, one.row)
        for one in versions
    ]  # fmt: skip
    out.print(table(headings, rows, f"Versions of field {field_id}"))
    touched = [
        (f"{one.time:%Y-%m-%d %H:%M}", one.box, one.kind, one.added, one.changed, one.removed, one.first, one.last,
         one.run)
        for one in commits
    ]  # fmt: skip
    out.print(table(("time", "box", "what", "added", "changed", "removed", "first", "last", "run"), touched, "Rows"))
    if any(one.added is None for one in commits):
        click.echo("Where there are dashes, the files of the commit were freed: it may have touched rows of the field.")
