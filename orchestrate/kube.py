"""A Dask cluster on Kubernetes for the time of one run: made, watched, adapted, removed."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from geofield.errors import ConfigurationError
from orchestrate.kubeapi import ClusterError, Kubernetes, KubeState, component, is_hopeless, is_ready, troubles
from orchestrate.kubespec import COMPARED, Asked, Owner, cluster_name, cluster_spec
from orchestrate.masking import mask
from orchestrate.sizing import Demand, workers_to_begin_with
from orchestrate.workers import differences, knock, versions

if TYPE_CHECKING:
    from orchestrate.kubesettings import KubeSettings

DEFAULT_WORKERS = (0, 20)
_POLL_S = 0.25
_BEAT_S = 30.0
_CONNECT_S = 60.0
_CLOSE_S = 10.0
_GONE_S = 60.0

Value = TypeVar("Value")
Say = Callable[[str], None]


@dataclass
class Job:
    """What a cluster is for.

    Attributes
    ----------
    asked
        What the plan comes to; None: not known.
    say
        Told what a person wants to read.
    startup
        Seconds until the first task, by part: `plan`, where the caller has put it, `operator`, `pods`, `connect`.
    """

    run_id: str
    store: str = ""
    asked: Demand | None = None
    say: Say = field(default=lambda text: None)
    startup: dict[str, float] = field(default_factory=dict)


def bounds(workers: int | tuple[int, int] | None) -> tuple[int, int]:
    """Between which numbers of workers a cluster adapts."""
    if workers is None:
        return DEFAULT_WORKERS
    return workers if isinstance(workers, tuple) else (workers, workers)


def first_workers(settings: KubeSettings, workers: int | tuple[int, int] | None, job: Job) -> int:
    """How many workers a cluster for a job begins with; 0: none is worth starting."""
    least, most = bounds(workers)
    if job.asked is None:
        return max(1, least)
    limits = settings.worker.threads, settings.finish_s, settings.runner_does_s
    return workers_to_begin_with(job.asked, least, most, *limits)


@contextlib.contextmanager
def kube_client(settings: KubeSettings, workers: int | tuple[int, int] | None, number: int, job: Job) -> Iterator[Any]:
    """A client of a cluster of its own, for as long as the context lasts.

    Parameters
    ----------
    workers
        A number, or (least, most) between which the cluster adapts.
    number
        Workers to begin with.

    Yields
    ------
    `distributed.Client`
        At least one worker has run a task, and has the versions that this process has.

    Raises
    ------
    ClusterError
        It did not start in time; why its pods do not run is in the message.
    ConfigurationError
        It cannot start like this: no rights, no operator, other versions of packages.
    """
    api = Kubernetes(settings.namespace)
    remove_dead(api, settings.dead_after_s, job.say)
    with contextlib.ExitStack() as stack:
        spec = _made(api, settings, number, job, stack)
        name, ready = str(spec["metadata"]["name"]), time.monotonic()
        client, cluster = _connected(name, api.namespace, settings, stack)
        _run_first(client, settings, api, name)
        job.startup["connect"] = round(time.monotonic() - ready, 3)
        _tell_startup(job)
        least, most = bounds(workers)
        adapt = None
        if least != most:
            # what the operator's timer reads; distributed's own adaptive loop takes no part
            def adapt() -> None:
                _bounded(lambda: cluster.adapt(least, most), _CONNECT_S, "set the limits of the autoscaler")

            adapt()
        watch = _Watch(settings, spec, client, adapt, job.say)
        stack.callback(watch.stop)
        watch.start()
        yield client


def remove_dead(api: Kubernetes, dead_after_s: float, say: Say) -> list[KubeState]:
    """Remove clusters whose runner gave no sign of life for so long; those that were."""
    now = dt.datetime.now(dt.UTC)
    dead = [one for one in api.clusters() if not one.is_leaving and one.silent_for(now) > dead_after_s]
    for one in dead:
        api.delete(one.name)
        say(f"cluster {one.name} of run {one.run_id}: its runner is gone since {one.silent_for(now):.0f} s; removed")
    return dead


# --- making one ------------------------------------------------------------------------------------------------------


def _made(
    api: Kubernetes, settings: KubeSettings, number: int, job: Job, stack: contextlib.ExitStack
) -> Mapping[str, Any]:
    """The description of a cluster whose scheduler and first worker run; it is removed with `stack`."""
    owner = _owner()
    image = settings.image or api.image_of("" if owner is None else owner.name)
    for attempt in range(1, settings.attempts + 1):
        asked = Asked(
            name=cluster_name(job.run_id, attempt),
            run_id=job.run_id,
            store=mask(job.store),
            image=image,
            workers=number,
            now=_now(),
            versions=own_versions(),
            owner=owner,
        )
        spec = cluster_spec(settings, asked)
        job.say(f"kube: cluster {asked.name} with {number} worker{'' if number == 1 else 's'} to begin with")
        with contextlib.ExitStack() as failed:
            failed.callback(_remove, api, asked.name, job.say)
            began = time.monotonic()
            api.create(spec)
            try:
                job.startup.update(_wait_for_pods(api, asked.name, settings, began, job.say))
            except ClusterError as error:
                if attempt == settings.attempts:
                    raise
                job.say(f"kube: {error} Trying again ({attempt + 1} of {settings.attempts}).")
                continue
            stack.push(failed.pop_all())
            return spec
    raise AssertionError("unreachable")  # pragma: no cover


def _wait_for_pods(api: Kubernetes, name: str, settings: KubeSettings, began: float, say: Say) -> dict[str, float]:
    """Seconds until the operator had acted, and from then on until a scheduler and a worker ran."""
    acted: float | None = None
    told: set[str] = set()
    while True:
        pods, deployments = api.pods(name), api.deployments(name)
        waited = time.monotonic() - began
        if acted is None and deployments:
            acted = waited
        if {component(one) for one in pods if is_ready(one)} >= {"scheduler", "worker"}:
            acted = acted or waited
            return {"operator": round(acted, 3), "pods": round(waited - acted, 3)}
        reasons = troubles(pods, deployments)
        for reason in reasons:
            if reason not in told:
                told.add(reason)
                say(f"kube: waiting, {reason}")
        crashing = is_hopeless(pods)
        if crashing is not None:
            raise ConfigurationError(f"{name}: {'; '.join(reasons)}. Its log ends with:\n{api.log(crashing)}")
        if acted is None and waited > settings.operator_timeout_s:
            raise ClusterError(f"The Dask operator did nothing about {name} for {waited:.0f} s; is it running?")
        if waited > settings.start_timeout_s:
            raise ClusterError(f"{name} did not start within {waited:.0f} s: {'; '.join(reasons) or _states(pods)}.")
        time.sleep(_POLL_S)


def _states(pods: Sequence[Mapping[str, Any]]) -> str:
    found = [f"{component(one)} {(one.get('status') or {}).get('phase', 'unknown')}" for one in pods]
    return ", ".join(found) or "there are no pods"


def _remove(api: Kubernetes, name: str, say: Say) -> None:
    """Delete a cluster and see it go. What cannot be deleted now, the operator deletes when it was idle for long."""
    try:
        if not api.delete(name):
            return
        until = time.monotonic() + _GONE_S
        while api.exists(name):
            if time.monotonic() > until:
                say(f"kube: cluster {name} is marked for removal, but the operator has not removed it yet")
                return
            time.sleep(_POLL_S)
    except (ClusterError, ConfigurationError) as error:
        say(f"kube: cluster {name} was not removed: {error} `geofield clusters --remove-dead` does it later.")


def _owner() -> Owner | None:
    """The pod that this runs in, when it was told its name."""
    from orchestrate.kubesettings import POD_NAME, POD_UID

    name, uid = os.environ.get(POD_NAME), os.environ.get(POD_UID)
    return Owner(name, uid) if name and uid else None


# --- connecting ------------------------------------------------------------------------------------------------------


def _connected(name: str, namespace: str, settings: KubeSettings, stack: contextlib.ExitStack) -> tuple[Any, Any]:
    from dask_kubernetes.operator import KubeCluster
    from distributed import Client

    def connect() -> Any:
        # An existing one, not one that KubeCluster makes: that waits for a phase which the operator may never set,
        # with everything running, and closing a second one by the same name would delete the first one's cluster.
        return KubeCluster.from_name(
            name, namespace=namespace, quiet=True, port_forward_cluster_ip=settings.port_forward,
            shutdown_on_close=False,
        )  # fmt: skip

    cluster = _bounded(connect, _CONNECT_S, f"connect to the scheduler of {name}")
    stack.callback(_quietly, lambda: cluster.close(timeout=_CLOSE_S))
    # The timeout is also how long a lost scheduler is waited for: a client that gave up is closed for good.
    client = _bounded(lambda: Client(cluster, timeout=settings.reconnect_s), _CONNECT_S, f"connect to {name}")
    stack.callback(_quietly, lambda: client.close(timeout=_CLOSE_S))
    return client, cluster


def _run_first(client: Any, settings: KubeSettings, api: Kubernetes, name: str) -> None:
    """See a worker run a task, with the packages that this process has."""
    _refuse_others(client.run_on_scheduler(versions, COMPARED), "the scheduler")
    first = client.submit(versions, COMPARED, pure=False)
    try:
        found = first.result(timeout=settings.start_timeout_s)
    except TimeoutError as error:
        reasons = "; ".join(troubles(api.pods(name))) or "its worker pods run, but do not reach the scheduler"
        waited = f"{settings.start_timeout_s:.0f} s"
        raise ClusterError(f"{name}: no worker took a task within {waited}: {reasons}.") from error
    _refuse_others(found, "a worker")


def _refuse_others(found: Mapping[str, str], who: str) -> None:
    faults = differences(own_versions(), found)
    if faults:
        raise ConfigurationError(
            f"{who} runs other packages than this process: {'; '.join(faults)}. Rows have to come from one version: "
            "run geofield from the image that the cluster has, or set GEOFIELD_KUBE_IMAGE to the one that has these."
        )


def own_versions() -> dict[str, str]:
    """Versions of what is compared, of this process."""
    return versions(COMPARED)


def _tell_startup(job: Job) -> None:
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in job.startup.items())
    since = "the run began" if "plan" in job.startup else "the cluster was asked for"
    job.say(f"kube: first task {sum(job.startup.values()):.1f} s after {since}: {parts}")


def _bounded(call: Callable[[], Value], seconds: float, what: str) -> Value:
    """What a call returns that may wait for ever; after `seconds` it is left to itself."""
    results: list[Value] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=work, name="kube-call", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise ClusterError(f"Could not {what} within {seconds:.0f} s.")
    if errors:
        raise ClusterError(f"Could not {what}: {type(errors[0]).__name__}: {errors[0]}") from errors[0]
    return results[0]


def _quietly(call: Callable[[], Any]) -> None:
    """Close what may be closed, or lost, already."""
    with contextlib.suppress(Exception):
        _bounded(call, _CLOSE_S, "close")


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


# --- watching one ----------------------------------------------------------------------------------------------------


class _Watch:
    """Keeps a cluster for as long as its runner lives, and tells what its pods suffer from.

    On every beat: a sign of life on the DaskCluster, for `geofield clusters`; a knock at the scheduler, so that the
    operator does not take a runner that commits rows for one that is gone; and the reasons why pods do not run. A
    cluster that was deleted is made again under its name: the client finds it there, and the run plans again.
    """

    def __init__(
        self, settings: KubeSettings, spec: Mapping[str, Any], client: Any, adapt: Callable[[], None] | None, say: Say
    ) -> None:
        self._settings, self._spec, self._client, self._adapt, self._say = settings, spec, client, adapt, say
        self._name = str(spec["metadata"]["name"])
        self._beat_s = min(_BEAT_S, settings.dead_after_s / 5, settings.idle_timeout_s / 4)
        self._stopping = threading.Event()
        self._told: set[str] = set()
        self._is_new = False
        self._thread = threading.Thread(target=self._work, name="kube-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a beat that hangs is left to itself."""
        self._stopping.set()
        self._thread.join(_CLOSE_S)

    def _work(self) -> None:
        api: Kubernetes | None = None
        while not self._stopping.wait(self._beat_s):
            try:
                api = api or Kubernetes(self._settings.namespace)
                self._beat(api)
            except Exception as error:  # whatever it is: the run goes on without a beat
                self._tell(f"kube: {type(error).__name__}: {error}")

    def _beat(self, api: Kubernetes) -> None:
        if not api.note_alive(self._name, _now()):
            self._make_again(api)
            return
        if self._is_new and self._adapt is not None:
            # a beat later: what adapted the old one was that one's, and goes with it
            self._adapt()
        self._is_new = False
        for reason in troubles(api.pods(self._name), api.deployments(self._name)):
            self._tell(f"kube: {reason}")
        self._knock()

    def _make_again(self, api: Kubernetes) -> None:
        if self._stopping.is_set():
            return
        self._say(f"kube: cluster {self._name} was deleted by somebody else; it is made again")
        api.create(self._spec)
        self._is_new = True

    def _knock(self) -> None:
        with contextlib.suppress(OSError):  # lost, and coming back
            self._client.run_on_scheduler(knock)

    def _tell(self, text: str) -> None:
        if text not in self._told and not self._stopping.is_set():
            self._told.add(text)
            self._say(text)
