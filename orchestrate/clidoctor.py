"""The commands for the first day: doctor and completion."""

from __future__ import annotations

import click

from orchestrate.clicommon import AS_JSON, STORE, print_json


@click.command()
@STORE
@click.option("--cluster", metavar="threads|local|kube|tcp://..", help="Try this cluster too.")
@AS_JSON
def doctor(store: str | None, cluster: str | None, as_json: bool) -> int:
    """Check versions, credentials, the store's promises, time, disk and a cluster. No secret is shown.

    Exit status: 0 all is well, 1 something is wrong.
    """
    from dataclasses import asdict

    from orchestrate.doctor import examine

    findings = list(examine(store, cluster))
    if as_json:
        print_json({"findings": [asdict(one) for one in findings]})
    else:
        from orchestrate.show import printable

        wide = max(len(one.what) for one in findings)
        for one in findings:
            mark = {"ok": "ok     ", "warning": "look at", "wrong": "WRONG  "}[one.state]
            click.echo(f"{mark}  {one.what:{wide}}  {printable(one.said)}")
            if one.advice:
                click.echo(f"{'':{wide + 11}}{one.advice}")
    return 1 if any(one.state == "wrong" for one in findings) else 0


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print what makes a shell complete geofield's commands and options.

    For bash: geofield completion bash > ~/.local/share/bash-completion/completions/geofield
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(click.get_current_context().find_root().command, {}, "geofield", "_GEOFIELD_COMPLETE").source())
    return 0


COMMANDS = (doctor, completion)
