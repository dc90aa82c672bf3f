"""The command `clusters`: Dask clusters that runs made on Kubernetes."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from orchestrate.clicommon import AS_JSON, print_json, without_warnings

if TYPE_CHECKING:
    from orchestrate.kubeapi import KubeState


@click.command()
@click.option("--remove-dead", is_flag=True, help="Remove those whose runner gave no sign of life for five minutes.")
@click.option("--namespace", metavar="NAME", help="Default: that of the pod or of the kubeconfig.")
@AS_JSON
def clusters(remove_dead: bool, namespace: str | None, as_json: bool) -> int:
    """Show the Dask clusters that runs made on Kubernetes, and whether their runs are alive."""
    from orchestrate.kube import remove_dead as remove
    from orchestrate.kubeapi import Kubernetes
    from orchestrate.kubesettings import kube_settings

    settings = kube_settings(needs_image=False)
    with without_warnings():  # kr8s warns of versions of Kubernetes that it was not tested with
        api = Kubernetes(namespace or settings.namespace)
        found = api.clusters()
        gone = remove(api, settings.dead_after_s, lambda text: None) if remove_dead else []
    now = dt.datetime.now(dt.UTC)
    removed = {one.name for one in gone}
    told = [_told(one, now, settings.dead_after_s, one.name in removed) for one in found]
    if as_json:
        print_json({"namespace": api.namespace, "clusters": told})
    else:
        _show(api.namespace, told)
    return 0


def _told(one: KubeState, now: dt.datetime, dead_after_s: float, is_removed: bool) -> dict[str, Any]:
    silent = one.silent_for(now)
    state = "removed" if is_removed else "leaving" if one.is_leaving else "dead" if silent > dead_after_s else "alive"
    return {
        "name": one.name,
        "run_id": one.run_id,
        "store": one.store,
        "workers": one.workers,
        "created": one.created.isoformat(),
        "silent_s": round(silent),
        "state": state,
    }


def _show(namespace: str, told: list[dict[str, Any]]) -> None:
    if not told:
        click.echo(f"No clusters of geofield in namespace {namespace}.")
        return
    columns = ("name", "run_id", "workers", "silent_s", "state")
    rows = [columns, *(tuple(str(one[name]) for name in columns) for one in told)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


COMMANDS = (clusters,)
