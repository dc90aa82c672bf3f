"""The command `series`: one field's rows, as a table, a file or a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from geofield.errors import ConfigurationError
from orchestrate.clicommon import DONE, STORE, open_store, without_warnings


@click.command()
@STORE
@click.option("--field", metavar="ID", required=True, help="Id of the field.")
@click.option("--box", metavar="ID", help="Box, for a field that lies in several.")
@click.option("--variable", metavar="V", help="One variable; default all, for the plot the first.")
@click.option("--format", "format_", type=click.Choice(["table", "csv", "parquet", "json"]),
              help="On stdout; default table.")  # fmt: skip
@click.option("--plot", metavar="FILE.png|svg|pdf", type=click.Path(path_type=Path), help="Draw it.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write here instead of stdout.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def series(
    store: str | None, field: str, box: str | None, variable: str | None, format_: str | None, plot: Path | None,
    out: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Show one field's time series."""
    from orchestrate import series as one

    if plot is not None:
        one.picture_format(plot)
    kind = "json" if as_json else format_ or _format_of(out)
    with without_warnings():
        rows = one.field_rows(open_store(store), field, box, variable)
        if plot is not None:
            drawn = one.plot(rows, plot, variable)
            click.echo(f"{drawn} of field {field} is drawn in {plot}", err=True)
            if format_ is None and not as_json and out is None:
                return DONE
        _write_rows(rows, kind, out)
    return DONE


def _format_of(out: Path | None) -> str:
    """The format that a file's name asks for."""
    from orchestrate.series import FILES

    if out is None:
        return "table"
    suffix = out.suffix.lower().lstrip(".") or FILES[0]
    if suffix not in FILES:
        raise ConfigurationError(f"{out}: rows are written as .{', .'.join(FILES[:-1])} or .{FILES[-1]}.")
    return suffix


def _write_rows(rows: Any, format_: str, out: Path | None) -> None:
    from orchestrate import series as one
    from orchestrate.show import many, show_rows

    if format_ == "table":
        if out is not None:
            raise ConfigurationError("--out takes csv, parquet or json; say which with --format.")
        show_rows(rows, one.table_columns(rows))
        return
    if format_ == "parquet":
        if out is None and sys.stdout.isatty():
            raise ConfigurationError("Parquet is not for a terminal: give --out FILE, or send stdout to a file.")
        data = one.to_parquet(rows)
    else:
        data = (one.to_csv(rows) if format_ == "csv" else one.to_json(rows) + "\n").encode()
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror or error}.") from error
    click.echo(f"{many(len(rows), 'row')} of field {rows['field_id'].iloc[0]} written to {out}", err=True)


COMMANDS = (series,)
