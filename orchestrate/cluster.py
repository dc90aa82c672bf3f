"""Where a run computes: threads of this process, a local cluster, or a scheduler that runs elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from geofield.errors import ConfigurationError
from orchestrate import kube
from orchestrate.dashboard import events
from orchestrate.kube import Job
from orchestrate.threads import Threads, threads

Workers = int | tuple[int, int] | None

KINDS = ("threads", "local", "kube")
_SCHEMES = ("tcp://", "tls://", "ws://", "wss://", "ucx://")
_NAMES = {"LocalCluster": "local", "KubeCluster": "kube"}
_ANSWER_S = 20
_CLOSE_S = 10


def check_ready(kind: str) -> None:
    """`ConfigurationError` when a kind cannot be used here: no extra, no image, a wrong setting."""
    check_kind(kind)
    if kind == "kube":
        from orchestrate.kubeapi import check_installed
        from orchestrate.kubesettings import kube_settings

        check_installed()
        kube_settings()


def check_kind(kind: str) -> str:
    """The kind as it is; `ConfigurationError` when it is none."""
    if kind in KINDS or kind.startswith(_SCHEMES):
        return kind
    raise ConfigurationError(f"--cluster is threads, local, kube, or an address such as tcp://host:8786; got {kind!r}.")


@contextlib.contextmanager
def connect(kind: str = "threads", workers: Workers = None, job: Job | None = None) -> Iterator[Any]:
    """Have Dask's work run somewhere for as long as the context lasts.

    Parameters
    ----------
    kind
        `threads` (no cluster), `local` (processes on this machine), `kube`, or the address of a running scheduler.
    workers
        A number, or (least, most) for a cluster that adapts. Default: one for each CPU; `kube`: 0 to 20.
    job
        For `kube`: what the cluster is for. Where the plan is known, little work starts no pods.

    Yields
    ------
    `distributed.Client`, or `Threads`
        The same graph runs on each. What was started is closed when the context ends, also after an error.

    Raises
    ------
    ConfigurationError
        An unknown kind, a wrong number of workers, nobody answers at the address, or Kubernetes refuses.
    TransientError
        A cluster on Kubernetes did not start; the message says why its pods do not run.
    """
    check_kind(kind)
    if kind == "threads":
        with _threads(workers) as pool:
            yield pool
    elif kind == "local":
        with _local(workers) as client:
            yield client
    elif kind == "kube":
        with _kube(workers, job) as client:
            yield client
    else:
        if workers is not None:
            raise ConfigurationError(f"--workers cannot be given for {kind}: that scheduler has its own workers.")
        with _address(kind) as client:
            yield client


@contextlib.contextmanager
def active(client: Any) -> Iterator[str | None]:
    """Makes `client`, as `connect` yields it or a Client of the caller's own, the one that Dask uses.

    Yields
    ------
    Where geofield's page of the dashboard is; None where there is none.
    """
    if client is None or isinstance(client, Threads):
        yield None
        return
    import dask

    # the weights of a window's fields travel once, with the graph: tens of megabytes for thousands of fields are right
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}), client.as_current():
        yield _page(client)


def _page(client: Any) -> str | None:
    link = str(client.dashboard_link or "")
    return f"{link.removesuffix('/status')}/geofield" if events.install(client) and link else None


def label(client: Any) -> str:
    """What a receipt calls the place where the work ran."""
    if client is None or isinstance(client, Threads):
        return "threads"
    kind = _NAMES.get(type(getattr(client, "cluster", None)).__name__)
    return kind or str(client.scheduler.address)


def _threads(workers: Workers) -> contextlib.AbstractContextManager[Threads]:
    return threads(workers[1] if isinstance(workers, tuple) else workers or os.cpu_count() or 1)


@contextlib.contextmanager
def _kube(workers: Workers, job: Job | None) -> Iterator[Any]:
    from geofield import Run
    from orchestrate.kubesettings import kube_settings

    settings = kube_settings()
    held = job or kube.Job(Run().id)
    number = kube.first_workers(settings, workers, held)
    if not number:
        seconds = 0.0 if held.asked is None else held.asked.seconds
        held.say(f"kube: the runner does it: {seconds:.0f} s of work, and pods take longer to start")
        with _threads(None) as pool:
            yield pool
        return
    with kube.kube_client(settings, workers, number, held) as client:
        yield client


@contextlib.contextmanager
def _local(workers: Workers) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    number = workers[0] if isinstance(workers, tuple) else workers or os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without(logging.getLogger("asyncio"), "AllExit"))
        # One thread a process: numbers come from compiled code that would otherwise wait for one another's GIL.
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=number,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # a free port: two runs on a machine must not quarrel about 8787
                preload=["orchestrate.workers"],
                silence_logs=logging.ERROR,
            )
        )
        if isinstance(workers, tuple):
            cluster.adapt(minimum=workers[0], maximum=workers[1])
        client = stack.enter_context(Client(cluster, timeout=_ANSWER_S))
        try:
            yield client
        except KeyboardInterrupt:
            # what is torn down in the middle complains; whoever stopped it knows why
            logging.disable(logging.CRITICAL)
            stack.callback(logging.disable, logging.NOTSET)
            raise


@contextlib.contextmanager
def _without(logger: logging.Logger, text: str) -> Iterator[None]:
    """Keep a message out of a log: that of a wait which distributed leaves behind when Ctrl-C ends it."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


@contextlib.contextmanager
def _address(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(address, timeout=_ANSWER_S)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"No Dask scheduler answers at {address}: {error}") from error
    try:
        yield client
    finally:
        client.close(timeout=_CLOSE_S)
