"""What geofield asks of the Kubernetes API server, and what is wrong with pods, in sentences."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from geofield.errors import ConfigurationError, TransientError
from orchestrate.kubespec import ALIVE, API, MANAGED_BY, RUN, STORE

_ANSWER_S = 20.0
_LINES = 15  # of the log of a pod that crashes
_REFUSED, _MISSING, _EXISTS = (401, 403), 404, 409
_DENIED = "It may do what k8s/base/rbac.yaml lists; is the run under that service account?"


class ClusterError(TransientError):
    """A Dask cluster on Kubernetes did not start or could not be reached; another try may succeed."""

    kind = "cluster"


@dataclass(frozen=True)
class KubeState:
    """A Dask cluster that a run made.

    Attributes
    ----------
    alive
        When its runner last gave a sign; None: never.
    phase
        As the operator has it, which may be wrong (Pending though all runs).
    """

    name: str
    namespace: str
    run_id: str
    store: str
    created: dt.datetime
    alive: dt.datetime | None
    workers: int
    phase: str
    is_leaving: bool

    def silent_for(self, now: dt.datetime) -> float:
        """Seconds since its runner's last sign of life, or since it was made."""
        return (now - (self.alive or self.created)).total_seconds()


class Kubernetes:
    """The API server, as far as runs need it. For one thread.

    Parameters
    ----------
    namespace
        Default: that of the pod or of the kubeconfig.

    Raises
    ------
    ConfigurationError
        The extra `kube` is not installed, or there is no cluster to be found.
    """

    def __init__(self, namespace: str | None = None) -> None:
        check_installed()
        import kr8s
        from kr8s.objects import new_class

        with _told("reach the Kubernetes API server"):
            self._api = kr8s.api()
            self._api.timeout = _ANSWER_S
            self.namespace = namespace or str(self._api.namespace)
        self._kind = new_class("DaskCluster", API, asyncio=False, namespaced=True)

    def create(self, spec: Mapping[str, Any]) -> None:
        """Make a DaskCluster."""
        with _told(f"create the DaskCluster {spec['metadata']['name']}"):
            self._kind(_placed(spec, self.namespace), api=self._api).create()

    def delete(self, name: str) -> bool:
        """Delete one; False if there is none. Returns before it is gone."""
        return self._on(name, "delete", lambda one: one.delete())

    def exists(self, name: str) -> bool:
        """Whether there is such a cluster."""
        with _told(f"get the DaskCluster {name}"):
            return bool(self._named(name).exists())

    def note_alive(self, name: str, now: str) -> bool:
        """Put a sign of life on a cluster; False if there is none any more."""
        patch = {"metadata": {"annotations": {ALIVE: now}}}
        return self._on(name, "patch", lambda one: one.patch(patch))

    def clusters(self) -> list[KubeState]:
        """Those that runs made, in the order of their names."""
        with _told("list DaskClusters"):
            found = self._api.get(self._kind, namespace=self.namespace, label_selector=MANAGED_BY)
            return sorted((state_of(_plain(one)) for one in found), key=lambda one: one.name)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Pods of a cluster, as Kubernetes has them."""
        return self._listed("pods", name)

    def deployments(self, name: str) -> list[dict[str, Any]]:
        """Deployments of a cluster: where it is told that no pod may be made."""
        return self._listed("deployments", name)

    def image_of(self, pod: str) -> str:
        """The image of a pod's first container."""
        from kr8s.objects import Pod

        with _told(f"get the pod {pod}, for its image"):
            found = Pod.get(pod, namespace=self.namespace, api=self._api)
            return str(found.spec.containers[0].image)

    def log(self, pod: str) -> str:
        """The last lines of a pod, of its last life if this one has said nothing; empty if there are none."""
        from kr8s.objects import Pod

        for previous in (False, True):
            with contextlib.suppress(Exception):  # an explanation that is missing must not hide what it explains
                one = Pod({"metadata": {"name": pod, "namespace": self.namespace}}, api=self._api)
                lines = list(one.logs(tail_lines=_LINES, previous=previous))
                if lines:
                    return "\n".join(lines)
        return ""

    def _named(self, name: str) -> Any:
        return self._kind({"metadata": {"name": name, "namespace": self.namespace}}, api=self._api)

    def _on(self, name: str, verb: str, do: Any) -> bool:
        import kr8s

        try:
            with _told(f"{verb} the DaskCluster {name}"):
                do(self._named(name))
        except kr8s.NotFoundError:
            return False
        return True

    def _listed(self, kind: str, name: str) -> list[dict[str, Any]]:
        with _told(f"list {kind}"):
            found = self._api.get(kind, namespace=self.namespace, label_selector={"dask.org/cluster-name": name})
            return [_plain(one) for one in found]


def check_installed() -> None:
    """`ConfigurationError` where the extra is missing."""
    from importlib.util import find_spec

    if find_spec("dask_kubernetes") is None:
        raise ConfigurationError("--cluster kube needs the extra `kube`: pip install 'geofield[kube]'.")


def _plain(found: Any) -> dict[str, Any]:
    """What kr8s wraps, as plain values."""
    plain: dict[str, Any] = found.raw.to_dict() if hasattr(found.raw, "to_dict") else dict(found.raw)
    return plain


def _placed(spec: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    return {**spec, "metadata": {**spec["metadata"], "namespace": namespace}}


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of the API server in our words; that something is not there stays kr8s's own."""
    import httpx
    import kr8s

    try:
        yield
    except kr8s.NotFoundError:
        raise
    except kr8s.ServerError as error:
        code = error.response.status_code if error.response is not None else 0
        if code in _REFUSED:
            raise ConfigurationError(f"Kubernetes refuses to {what}: {error}. {_DENIED}") from error
        if code == _MISSING:
            raise ConfigurationError(
                f"Kubernetes cannot {what}: {error}. Either the namespace is not there, or the Dask operator is not "
                "installed: see docs/kubernetes.md."
            ) from error
        if 400 <= code < 500 and code != _EXISTS:
            raise ConfigurationError(f"Kubernetes cannot {what}: {error}.") from error
        raise ClusterError(f"Kubernetes could not {what}: {error}.") from error
    except ValueError as error:
        raise ConfigurationError(
            f"Kubernetes could not {what}: {error}. In a pod that needs its service account's token; elsewhere a "
            "kubeconfig, and the Dask operator has to be installed: see docs/kubernetes.md."
        ) from error
    except (httpx.HTTPError, kr8s.APITimeoutError, kr8s.ConnectionClosedError, OSError) as error:
        raise ClusterError(f"Could not {what}: {type(error).__name__}: {error}.") from error


def state_of(raw: Mapping[str, Any]) -> KubeState:
    """A DaskCluster as the API server gives it. What is not as it should be is left out."""
    metadata, spec = raw["metadata"], raw.get("spec") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return KubeState(
        name=str(metadata["name"]),
        namespace=str(metadata.get("namespace", "")),
        run_id=str(labels.get(RUN, "")),
        store=str(annotations.get(STORE, "")),
        created=_time(metadata.get("creationTimestamp")) or dt.datetime.now(dt.UTC),
        alive=_time(annotations.get(ALIVE)),
        workers=int((spec.get("worker") or {}).get("replicas") or 0),
        phase=str((raw.get("status") or {}).get("phase") or ""),
        is_leaving="deletionTimestamp" in metadata,
    )


def _time(value: Any) -> dt.datetime | None:
    try:
        found = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


# --- what is wrong ---------------------------------------------------------------------------------------------------


def troubles(pods: Iterable[Mapping[str, Any]], deployments: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """Why pods do not run, one sentence each; the same reason of several pods is told once.

    Parameters
    ----------
    pods, deployments
        Of one cluster, as Kubernetes has them.
    """
    found: dict[str, list[str]] = {}
    for pod in pods:
        reason = _trouble(pod)
        if reason is not None:
            found.setdefault(reason, []).append(_short(pod))
    for one in deployments:
        for condition in (one.get("status") or {}).get("conditions") or ():
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                reason = f"no pod may be made: {condition.get('message') or condition.get('reason')}"
                found.setdefault(reason, []).append(_short(one))
    return [f"{_who(names)}: {reason}" for reason, names in found.items()]


def is_hopeless(pods: Iterable[Mapping[str, Any]]) -> str | None:
    """The name of a pod that crashes again and again; None: none does."""
    for pod in pods:
        for container in _containers(pod):
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") == "CrashLoopBackOff" and int(container.get("restartCount") or 0) > 1:
                return str(pod["metadata"]["name"])
    return None


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether Kubernetes takes a pod for ready."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        one.get("type") == "Ready" and one.get("status") == "True" for one in conditions
    )


def component(one: Mapping[str, Any]) -> str:
    """`scheduler` or `worker`."""
    return str((one["metadata"].get("labels") or {}).get("dask.org/component", "pod"))


def _trouble(pod: Mapping[str, Any]) -> str | None:
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason') or 'not scheduled'}: {condition.get('message') or 'no reason given'}"
    for container in _containers(pod):
        state = container.get("state") or {}
        killed = (container.get("lastState") or {}).get("terminated") or state.get("terminated") or {}
        if killed.get("reason") == "OOMKilled":
            return "OOMKilled: it took more memory than its limit; raise `memory` of it in the settings"
        waiting = state.get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            code = f" (exit code {killed['exitCode']})" if killed.get("exitCode") is not None else ""
            return f"{waiting['reason']}{code}" + (f": {waiting['message']}" if waiting.get("message") else "")
    if status.get("phase") == "Failed":
        return f"{status.get('reason') or 'Failed'}: {status.get('message') or 'no reason given'}"
    return None


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _short(one: Mapping[str, Any]) -> str:
    return component(one)


def _who(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} pods ({', '.join(sorted(set(names)))})"
