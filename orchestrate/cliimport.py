"""The command `geofield import`."""

from __future__ import annotations

from typing import Any

import click

from geofield.errors import ConfigurationError
from orchestrate.clicommon import AS_JSON, WORKERS, print_json, without_warnings


@click.command("import")
@click.argument("words", metavar="STORE PATH", nargs=-1, required=True)
@click.option(
    "--box", "box_id", metavar="ID", required=True, help="The box; made from the imagery when it is not there."
)
@click.option(
    "--band",
    "bands",
    metavar="NAME=PATTERN|VARIABLE",
    multiple=True,
    help="A band: its files, as in ndvi=NDVI_{time}.tif, or its variable; default: as they are called.",
)
@click.option("--quality", metavar="NAME", multiple=True, help="A band of classes; never interpolated, no variable.")
@click.option("--variables", metavar="FILE|JSON|YAML", help="What a new box keeps; default: every band as it is.")
@click.option("--bbox", nargs=4, type=float, metavar="XMIN YMIN XMAX YMAX", help="Of a new box; default: all of it.")
@click.option("--crs", help="CRS of --bbox; default EPSG:4326.")
@click.option(
    "--resolution", type=float, help="Of a new box, in metres of its UTM zone; default: the imagery's pixels."
)
@click.option("--time", metavar="NAME", help="Coordinate of the times of a NetCDF file or Zarr store; default time.")
@click.option("--acquired", metavar="NAME", help="Variable that is true at the times at which imagery came.")
@click.option("--source-crs", metavar="CRS", help="CRS of a stack that does not say its own.")
@click.option("--until", metavar="DATE", help="Last day, included; default the last of the imagery.")
@click.option("--cluster", metavar="threads|local|tcp://..", help="Where the work runs; default threads.")
@WORKERS
@AS_JSON
def import_(words: tuple[str, ...], box_id: str, bands: tuple[str, ...], as_json: bool, **said: Any) -> int:
    """Bring imagery that is there already into a cube: a folder of GeoTIFFs with times in their names, a NetCDF file
    or a Zarr store. The same call again goes on where the last one ended, or does nothing.
    """  # noqa: D205
    import geofield
    from orchestrate import cluster as clusters
    from orchestrate.config import parse_until, settings
    from orchestrate.importing import import_imagery

    store, path = _store_and_path(words)
    held = settings(cluster=said["cluster"], workers=said["workers"])
    clusters.check_kind(held.cluster)
    with without_warnings():
        opened = geofield.open_store(store)
        imagery = geofield.imagery_at(
            path, _bands(bands), said["quality"], time=said["time"], acquired=said["acquired"], crs=said["source_crs"]
        )
        until = None if said["until"] is None else parse_until(said["until"])
        with clusters.connect(held.cluster, held.workers) as client, clusters.active(client):
            receipt = import_imagery(
                opened, imagery, box_id, _box_values(said), until, label=clusters.label(client), progress=_tell
            )
    found = {"images": imagery.images, "first": str(imagery.first), "last": str(imagery.last), **imagery.spec}
    if as_json:
        print_json({**receipt, "imagery": found})
        return 0
    one = receipt["boxes"][box_id]
    click.echo(
        f"{imagery.images} images from {imagery.first} to {imagery.last}; bands: {', '.join(imagery.spec['bands'])}"
    )
    made = " (made now)" if receipt["is_new_box"] else ""
    click.echo(
        f"box {box_id}{made}: {one['days_appended']} days appended, {one['days_present']} were there, "
        f"{one['rows_written']} rows written; last day {one['last_day']}"
    )
    return 0


COMMANDS = (import_,)


def _store_and_path(words: tuple[str, ...]) -> tuple[str, str]:
    import os

    if len(words) == 2:
        return words[0], words[1]
    default = os.environ.get("GEOFIELD_STORE")
    if len(words) > 2 or not default:
        raise ConfigurationError("import takes STORE and the PATH of the imagery; GEOFIELD_STORE can say the first.")
    return default, words[0]


def _bands(said: tuple[str, ...]) -> dict[str, str] | None:
    found = {}
    for text in said:
        name, mark, value = text.partition("=")
        if not (name and mark and value):
            raise ConfigurationError(
                f"--band is NAME=PATTERN or NAME=VARIABLE, as in ndvi=NDVI_{{time}}.tif; got {text!r}."
            )
        found[name] = value
    return found or None


def _box_values(said: dict[str, Any]) -> dict[str, Any]:
    """What options say of a new box, in the keys of a box file."""
    from orchestrate.optionvalues import variables_of

    grid = None if said["resolution"] is None else {"resolution": said["resolution"]}
    bbox = said["bbox"] or None
    return {
        "variables": variables_of(said["variables"]),
        "bbox": None if bbox is None else list(bbox),
        "crs": said["crs"],
        "grid": grid,
    }


def _tell(done: int, days: int) -> None:
    click.echo(f"{done} of {days} days", err=True)
