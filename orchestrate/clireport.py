"""The command that writes the report page."""

from __future__ import annotations

from pathlib import Path

import click

from geofield.errors import ConfigurationError
from orchestrate.clicommon import DONE, FAILED, STORE, open_store


@click.command()
@STORE
@click.option("--out", metavar="FILE.html", type=click.Path(path_type=Path), required=True, help="Write it here.")
@click.option("--days", metavar="N", type=click.IntRange(1), default=366, show_default=True,
              help="Of each series, the last ones; fewer where the store has very many fields.")  # fmt: skip
@click.option("--no-imagery", is_flag=True, help="No picture under the maps: reads no pixels.")
def report(store: str | None, out: Path, days: int, no_imagery: bool) -> int:
    """Write one page that needs no network: maps, series, late and refused fields, lag, receipts."""
    from orchestrate.report import render, report_of

    if out.suffix.lower() not in ("", ".html", ".htm"):
        raise ConfigurationError(f"{out}: the report is an HTML page; name it .html or .htm.")
    opened = open_store(store)
    found = report_of(opened, days, imagery=not no_imagery)
    text = render(found)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror or error}.") from error
    click.echo(f"{out}: {len(text.encode()) / 1e6:.1f} MB; open it in a browser.")
    for one in found.meta["errors"]:
        click.echo(f"warning: box {one['box']} could not be read: {one['kind']}: {one['message']}", err=True)
    return FAILED if found.meta["errors"] else DONE


COMMANDS = (report,)
