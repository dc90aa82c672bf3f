"""The command `geofield`. Nothing heavy is imported before a command runs, so that `--help` answers at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from geofield.errors import ConfigurationError, GeofieldError
from orchestrate import clidoctor, cliimport, clireport, cliseries, cliwatch
from orchestrate.cliclusters import COMMANDS as CLUSTERS
from orchestrate.clicommon import (
    AS_JSON,
    CLUSTER,
    DONE,
    FAILED,
    STORE,
    WORKERS,
    WRONG,
    Command,
    named,
    open_store,
    print_json,
    store_and_files,
    without_warnings,
)
from orchestrate.cliremoval import COMMANDS
from orchestrate.cliupkeep import COMMANDS as UPKEEP
from orchestrate.optionvalues import file_text, mapping_of, source_of, variables_of

_BEGIN = """\
geofield: field statistics from satellite imagery, day by day.

Begin:
  geofield init STORE                                   make a store, a directory or s3://bucket/prefix
  geofield add-box STORE boxes.yaml                     say what is watched, from when, from which imagery
  geofield submit STORE fields.geojson                  hand in fields
  geofield plan STORE                                   see what a run would do
  geofield run STORE                                    do it
  geofield series STORE --field ID --plot field.png     look at a field
  geofield report STORE --out report.html               look at all of them, in a browser

Without imagery of your own:
  geofield add-box STORE --id try --bbox 4.30 51.00 4.32 51.01 --start 2025-04-01 --source simulated

When something is odd:
  geofield doctor STORE                                 check versions, credentials, the store, time, disk

export GEOFIELD_STORE=... saves saying STORE each time. geofield COMMAND --help tells the options.
geofield completion bash|zsh|fish lets your shell complete them.
"""


# --- the group and what commands share -------------------------------------------------------------------------------


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="geofield", message="%(prog)s %(version)s", prog_name="geofield")
@click.pass_context
def cli(context: click.Context) -> None:
    """Field statistics from satellite imagery: a cube per box that every day extends, rows per field and day.

    STORE is a directory or s3://bucket/prefix; GEOFIELD_STORE is its default. Exit status: 0 done, 1 something
    failed, 2 the call or its configuration is wrong.
    """
    if context.invoked_subcommand is None:
        click.echo(_BEGIN, nl=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; its exit status."""
    from orchestrate import logs

    signal.signal(signal.SIGTERM, _stop)
    _open_streams()
    out, err = sys.stdout, sys.stderr
    try:
        logs.configure()
        status = cli.main(
            args=None if arguments is None else list(arguments), prog_name="geofield", standalone_mode=False
        )
        sys.stdout.flush()
        return status if isinstance(status, int) else DONE
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        _complain(error.format_message())
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"See `{error.ctx.command_path} --help`.", err=True)
        return WRONG
    except (KeyboardInterrupt, click.Abort):
        _complain("stopped. Nothing is lost: what was published stays, and the next run goes on from there.")
        if arguments is None:
            # threads may be in the middle of a task; waiting for them, or for what they leave, helps nobody
            sys.stdout.flush()
            os._exit(FAILED)
        return FAILED
    except BrokenPipeError:
        _drop_output()
        return DONE  # whoever read stdout has seen enough
    except SystemExit:
        if sys.stdout is out:
            raise
        sys.stdout, sys.stderr = out, err  # click wraps both when a pipe is closed, and would end with 1
        _drop_output()
        return DONE
    except GeofieldError as error:
        _trace()
        _complain(str(error))
        return WRONG if error.action == "fix" else FAILED
    except Exception as error:
        _trace()
        if isinstance(error, OSError) and _is_of_stdout(error):
            _drop_output()
            _complain(f"what was to be printed cannot be written: {error.strerror}. Nothing else is wrong.")
            return FAILED
        _complain(f"{type(error).__name__}: {error}\nNobody foresaw this; GEOFIELD_DEBUG=1 shows where it happened.")
        return FAILED


def _open_streams() -> None:
    """Whoever closed stdout or stderr wants to read nothing; Python has None there, which no library expects."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process


def _is_of_stdout(error: OSError) -> bool:
    """Whether stdout takes no more: what it did not take is still there, and fails again."""
    try:
        sys.stdout.flush()
    except OSError as again:
        return again.errno == error.errno
    return False


def _drop_output() -> None:
    """Away with what stdout did not take; else the interpreter complains once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _complain(text: str) -> None:
    import logging

    from orchestrate import logs, masking

    if logs.is_json():
        logging.getLogger(__name__).error("%s", text)
    else:
        click.echo(f"geofield: {masking.mask(text)}", err=True)


def _trace() -> None:
    if os.environ.get("GEOFIELD_DEBUG"):
        import traceback

        from orchestrate.masking import mask

        click.echo(mask(traceback.format_exc()), err=True, nl=False)


def _until_option(command: Command) -> Command:
    return click.option("--until", metavar="DATE", help="Last day, included; default today (UTC).")(command)


def _look_back_option(command: Command) -> Command:
    text = "Days before the cube's last that are compared with what the source offers now; default 30."
    return click.option("--look-back", metavar="DAYS", type=click.IntRange(0), help=text)(command)


# --- commands --------------------------------------------------------------------------------------------------------


@cli.command()
@STORE
@click.option("--defaults", metavar="FILE", type=click.Path(path_type=Path),
              help="YAML or JSON: what new boxes have when nobody says.")  # fmt: skip
@AS_JSON
def init(store: str | None, defaults: Path | None, as_json: bool) -> int:
    """Create a store, and check that its server keeps what every commit relies on."""
    import geofield
    from geofield.errors import NotFoundError

    url = named(store)
    said = None if defaults is None else mapping_of(file_text(defaults), f"--defaults {defaults}")
    try:
        geofield.open_store(url)
        is_new = False
    except NotFoundError:
        is_new = True
    made = geofield.create_store(url, said)
    if as_json:
        print_json({"store": made.url, "is_new": is_new, "defaults": made.defaults})
        return DONE
    click.echo(f"{'Made a store at' if is_new else 'There is a store already at'} {made.url}")
    if is_new:
        click.echo(f"Next: geofield add-box {made.url} FILE")
    return DONE


@cli.command("add-box")
@click.argument("words", metavar="STORE [FILE]", nargs=-1)
@click.option("--id", "box_id", metavar="ID", help="Id of the box.")
@click.option("--bbox", nargs=4, type=float, metavar="XMIN YMIN XMAX YMAX", help="Bounds.")
@click.option("--crs", help="CRS of the bounds; default EPSG:4326.")
@click.option("--resolution", type=float, help="Pixel size in units of the grid's CRS; default 10.")
@click.option("--grid-crs", help="CRS of the grid; default utm, the zone of the centre. `native`: the source's grid.")
@click.option("--tile", type=int, help="Side of a tile in pixels, a multiple of 256.")
@click.option("--start", metavar="DATE", help="First day of the cube.")
@click.option("--source", metavar="TYPE|JSON|YAML", help="Where pixels come from, e.g. simulated.")
@click.option("--seed", type=int, help="Seed of a simulated source.")
@click.option("--variables", metavar="FILE|JSON|YAML", help="What is derived from the bands.")
@click.option("--settle-days", type=int, help="Days held back, because the provider may still fill them.")
@click.option("--max-pixels", type=int, help="Refuse larger boxes; default 500,000,000 pixels a day.")
@click.option("--replace", is_flag=True,
              help="Change a box that is there: the next run builds its new cube beside the old one.")  # fmt: skip
@AS_JSON
def add_box(words: tuple[str, ...], as_json: bool, **said: Any) -> int:
    """Register boxes: the file first, then the options, then the store's defaults."""
    from orchestrate.boxadding import add_boxes
    from orchestrate.config import settings

    url, files = store_and_files(words)
    if len(files) > 1:
        raise ConfigurationError(f"add-box takes one file; got {', '.join(str(file) for file in files)}.")
    max_pixels = settings(max_pixels=said.pop("max_pixels")).max_pixels
    replace = said.pop("replace")
    options = {"id": said.pop("box_id"), **said}
    options["source"] = source_of(said["source"], options.pop("seed"))
    options["variables"] = variables_of(said["variables"])
    with without_warnings():
        result = add_boxes(open_store(url), files[0] if files else None, options, max_pixels, replace=replace)
    if as_json:
        print_json(result)
    else:
        from orchestrate.show import show_boxes

        show_boxes(result)
    return DONE if result["boxes"] else WRONG


@cli.command()
@click.argument("words", metavar="STORE FILE...", nargs=-1, required=True)
@click.option("--as", "as_", type=click.Choice(["fields", "boxes"]), default="fields", show_default=True,
              help="What the files hold.")  # fmt: skip
@click.option("--crs", help="CRS of files that declare none.")
@click.option("--id-column", metavar="NAME", help="Column or property with the field id.")
@click.option("--ids", type=click.Choice(["digest"]), help="Name fields without an id after their content.")
@click.option("--planting-date", metavar="DATE|box-start", help="Holds for fields that have none.")
@click.option("--box", metavar="ID", help="Box of fields that name none.")
@AS_JSON
def submit(words: tuple[str, ...], as_: str, as_json: bool, **said: Any) -> int:
    """Put field or box files in the inbox; the options are kept with each and say what it does not."""
    from dataclasses import asdict

    from orchestrate.inbox import submit as put
    from orchestrate.inboxfiles import waiting

    url, files = store_and_files(words)
    if not files:
        raise ConfigurationError("Nothing to submit: give STORE and the files.")
    opened = open_store(url)
    done = [asdict(one) for one in put(opened, files, "boxes" if as_ == "boxes" else "fields", said)]
    if as_json:
        print_json({"files": done})
        return DONE
    from orchestrate.show import show_submitted

    show_submitted(done, len(waiting(opened)))
    return DONE


@cli.command()
@STORE
@_until_option
@_look_back_option
@click.option("--search/--no-search", default=True, show_default=True,
              help="Ask STAC catalogues for items, bytes and cloud cover.")  # fmt: skip
@AS_JSON
def plan(store: str | None, until: str | None, look_back: int | None, search: bool, as_json: bool) -> int:
    """Show what a run would do, with tasks, bytes, imagery on offer and a time estimate. Changes nothing."""
    from orchestrate.config import parse_until, settings
    from orchestrate.summary import planned

    held = settings(look_back=look_back)
    day = parse_until(until if until is not None else held.until)
    with without_warnings():
        result = planned(open_store(store), day, held.look_back, search)
    if as_json:
        print_json(result)
    else:
        from orchestrate.show import show_plan

        show_plan(result)
    return FAILED if result["errors"] else DONE


@cli.command()
@STORE
@_until_option
@CLUSTER
@WORKERS
@_look_back_option
@cliwatch.metrics_options
@cliwatch.log_options
@AS_JSON
def run(
    store: str | None, until: str | None, as_json: bool, metrics_file: Path | None, push_gateway: str | None,
    log_format: str | None, log_level: str | None, **said: Any,
) -> int:  # fmt: skip
    """Read the inbox, append the missing days, fill late fields, write rows."""
    from orchestrate import logs
    from orchestrate.cluster import check_ready
    from orchestrate.config import parse_until, settings
    from orchestrate.progress import for_people
    from orchestrate.run import run as run_store

    logs.configure(log_format, log_level)
    asked = settings(until=None if until is None else parse_until(until), **said)
    parse_until(asked.until)
    check_ready(asked.cluster)
    with without_warnings():
        opened = open_store(store)
        tenant = cliwatch.tenant_of(opened.url, {"until": until, **said})
        day = parse_until(tenant.until)
        cliwatch.adopt_loggers()
        with for_people(as_json) as progress:
            receipt = run_store(opened, day, progress=progress, settings=tenant.run)
        cliwatch.follow_up(tenant, opened, receipt, metrics_file, push_gateway)
    if as_json:
        print_json(receipt)
    else:
        from orchestrate.show import show_receipt

        show_receipt(receipt)
    return FAILED if receipt["errors"] else DONE


@cli.command()
@STORE
@AS_JSON
def status(store: str | None, as_json: bool) -> int:
    """Show boxes, last day, fields done, late and rejected, the last runs and their failures."""
    from orchestrate.summary import summarise

    with without_warnings():
        result = summarise(open_store(store))
    if as_json:
        print_json(result)
    else:
        from orchestrate.show import show_status

        show_status(result)
    return FAILED if result["errors"] else DONE


@cli.command()
@STORE
@click.option("--box", metavar="ID", required=True, help="Id of the box.")
@click.option("--zarr", is_flag=True, help="cube.zarr: the cube as plain Zarr, one step per date.")
@click.option("--cog", is_flag=True, help="latest.tif: the newest day with imagery.")
@click.option("--fields", is_flag=True, help="fields.parquet: the fields and their polygons.")
@click.option("--stac", is_flag=True, help="STAC and schema.org documents of the copies that stand, for harvesters.")
@AS_JSON
def publish(store: str | None, box: str, as_json: bool, **chosen: bool) -> int:
    """Bring the copies of a box for other tools up to date, under published/ in the store; default all of them."""
    from dataclasses import asdict

    from geofield.pipeline import publish as bring_up_to_date

    if not any(chosen.values()):
        chosen = dict.fromkeys(chosen, True)
    with without_warnings():
        opened = open_store(store)
        one = opened.box(box)
        result = asdict(
            bring_up_to_date(
                opened.location,
                one,
                opened.cube(box),
                lambda: opened.place(opened.registry.current(), {box: one}).table,
                **chosen,
            )
        )
    if as_json:
        print_json(result)
    else:
        from orchestrate.show import show_published

        show_published(opened.url, result)
    return DONE


_MORE = (cliimport, cliseries, cliwatch, clireport, clidoctor)
for _command in (*COMMANDS, *UPKEEP, *CLUSTERS, *(one for module in _MORE for one in module.COMMANDS)):
    cli.add_command(_command)


if __name__ == "__main__":
    sys.exit(main())
