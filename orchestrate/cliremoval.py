"""The commands that remove: withdraw, forget, remove-box."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from geofield.errors import ConfigurationError, NotFoundError, there_is
from orchestrate.boxlist import box_ids
from orchestrate.clicommon import AS_JSON, STORE, open_store, print_json

if TYPE_CHECKING:
    from geofield import Store

_FIELDS = click.option("--field", "fields", multiple=True, required=True, metavar="ID", help="May be given repeatedly.")
_YES = click.option("--yes", is_flag=True, help="Do it.")


@click.command()
@STORE
@_FIELDS
@AS_JSON
def withdraw(store: str | None, fields: tuple[str, ...], as_json: bool) -> int:
    """Say that fields stop: the next run removes their rows; their versions stay.

    A field that is handed in again afterwards comes back, its past from the stored cube.
    """
    opened = open_store(store)
    _check_fields(opened, fields)
    number = opened.withdraw_fields(fields)
    _say(as_json, {"withdrawn": number}, f"{number} of {len(fields)} withdrawn now. The next run removes their rows.")
    return 0


@click.command()
@STORE
@_FIELDS
@_YES
@AS_JSON
def forget(store: str | None, fields: tuple[str, ...], yes: bool, as_json: bool) -> int:
    """Remove fields with all their history. Earlier states of the tables cannot be asked for afterwards."""
    opened = open_store(store)
    _check_fields(opened, fields)
    _confirm(yes, f"{', '.join(fields)} and the history of every table of rows")
    rows = opened.forget_fields(fields)
    files = _files_with(opened, fields)
    text = f"Forgotten: {rows} rows removed."
    if files:
        text += f" Files that were handed in still hold them; delete those yourself: {', '.join(files)}"
    _say(as_json, {"rows": rows, "files_that_hold_it": files}, text)
    return 0


@click.command("remove-box")
@STORE
@click.option("--id", "box_id", required=True, metavar="ID", help="The box.")
@_YES
@AS_JSON
def remove_box(store: str | None, box_id: str, yes: bool, as_json: bool) -> int:
    """Remove a box with its cube, rows and copies."""
    opened = open_store(store)
    _confirm(yes, f"box {box_id} with its cube and rows")
    try:
        number = opened.remove_box(box_id)
    except NotFoundError as error:
        raise NotFoundError(f"{error} {there_is(box_id, box_ids(opened))}") from error
    _say(as_json, {"objects": number}, f"Box {box_id} is gone: {number} objects removed.")
    return 0


COMMANDS = (withdraw, forget, remove_box)


def _confirm(yes: bool, what: str) -> None:
    if not yes:
        raise ConfigurationError(f"This removes {what}, for good. Say --yes to do it.")


def _check_fields(store: Store, fields: tuple[str, ...]) -> None:
    """`NotFoundError` for a field that never was in the store; it names those near to it."""
    known = set(store.registry.versions()["field_id"])
    for name in fields:
        if name not in known:
            raise NotFoundError(f"There is no field {name!r}. {there_is(name, known)}")


def _files_with(store: Store, fields: tuple[str, ...]) -> list[str]:
    """Files that were handed in, read or not, and reasons beside them, in which an id occurs.

    Rather one too many than too few; one that still waits would bring the field back.
    """
    names = [field.encode() for field in fields]
    infos = store.location.list("inbox")
    return [info.key for info in infos if any(name in _said_in(store, info.key) for name in names)]


def _said_in(store: Store, key: str) -> bytes:
    """A file; of the inbox's own what it says of rows, since the id of a run may look like that of a field."""
    from orchestrate.inboxfiles import WHY

    data = store.location.read(key)
    return re.sub(rb'"run": "[^"]*"', b"", data) if key.endswith(WHY) else data


def _say(as_json: bool, value: dict[str, object], text: str) -> None:
    if as_json:
        print_json(value)
    else:
        click.echo(text)
