"""The description of a Dask cluster as Kubernetes takes it. Pure: values in, a dictionary out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrate.memory import parse_memory
from orchestrate.workers import EXPECTED

if TYPE_CHECKING:
    from orchestrate.kubesettings import KubeSettings, PodSettings, Spot

API = "kubernetes.dask.org/v1"
MANAGED_BY = {"app.kubernetes.io/name": "geofield", "app.kubernetes.io/managed-by": "geofield"}
"""On every cluster that a run makes, and on nothing else."""
RUN = "geofield/run"
STORE = "geofield/store"
ALIVE = "geofield/alive"
"""Annotation: when the runner last gave a sign of life."""

COMPARED: Sequence[str] = ("geofield", "dask", "distributed", "icechunk", "zarr", "xarray", "numpy", "deltalake")
"""Packages whose objects travel between runner, scheduler and workers, or that decide what is written."""

SCHEDULER_PORT, DASHBOARD_PORT, WORKER_PORT, NANNY_PORT, WORKER_DASHBOARD_PORT = 8786, 8787, 8789, 8790, 8788
_SCRATCH = "/scratch"
_SHARE = 0.9  # of a pod's memory that Dask counts with; the rest is for the nanny, who restarts the worker
_DEATH_S = 120
# The operator asks the scheduler's HTTP API which workers may go. Without it, it falls back to stopping the newest,
# whatever they hold. These are distributed's own routes and that one.
_ROUTES = ("scheduler.prometheus", "scheduler.info", "scheduler.json", "scheduler.api", "health", "proxy", "statics")
_SPOT: dict[Spot, tuple[str, str, bool]] = {  # label, value, whether the nodes carry it as a taint too
    "karpenter": ("karpenter.sh/capacity-type", "spot", False),
    "eks": ("eks.amazonaws.com/capacityType", "SPOT", False),
    "gke": ("cloud.google.com/gke-spot", "true", True),
    "aks": ("kubernetes.azure.com/scalesetpriority", "spot", True),
}
# What moves pods about to save nodes leaves these alone: each holds what others wait for.
_STAY = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


@dataclass(frozen=True)
class Owner:
    """The pod that a cluster belongs to: when it is deleted, Kubernetes deletes the cluster."""

    name: str
    uid: str


@dataclass(frozen=True)
class Asked:
    """What a run asks for.

    Attributes
    ----------
    workers
        To begin with.
    versions
        Package -> version of the runner.
    now
        Sign of life, ISO 8601.
    """

    name: str
    run_id: str
    store: str
    image: str
    workers: int
    now: str
    versions: Mapping[str, str] = field(default_factory=dict)
    owner: Owner | None = None


def cluster_name(run_id: str, attempt: int) -> str:
    """A name that Kubernetes takes for the n-th try of a run: at most 53 lower-case letters, digits and dashes."""
    plain = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")[-36:].strip("-")
    return f"geofield-{plain or 'run'}" + ("" if attempt == 1 else f"-{attempt}")


def cluster_spec(settings: KubeSettings, asked: Asked) -> dict[str, Any]:
    """A DaskCluster.

    Parameters
    ----------
    settings
        Image, sizes, places.
    asked
        Name, run and number of workers.

    Returns
    -------
    dict
        As the API server takes it.
    """
    metadata: dict[str, Any] = {
        "name": asked.name,
        "labels": {**settings.labels, **MANAGED_BY, RUN: asked.run_id},
        "annotations": {STORE: asked.store, ALIVE: asked.now},
    }
    if asked.owner is not None:
        # blockOwnerDeletion would ask for a right on the pod's finalizers
        owner = {"apiVersion": "v1", "kind": "Pod", "name": asked.owner.name, "uid": asked.owner.uid}
        metadata["ownerReferences"] = [{**owner, "controller": False, "blockOwnerDeletion": False}]
    return {
        "apiVersion": API,
        "kind": "DaskCluster",
        "metadata": metadata,
        "spec": {
            "idleTimeout": settings.idle_timeout_s,
            "scheduler": _scheduler(settings, asked),
            "worker": _workers(settings, asked),
        },
    }


def _scheduler(settings: KubeSettings, asked: Asked) -> dict[str, Any]:
    ports = {"tcp-comm": SCHEDULER_PORT, "http-dashboard": DASHBOARD_PORT}
    health = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
    container = {
        # `dask scheduler`: distributed has no script dask-scheduler any more. A command, since an image of ours begins
        # with `geofield`.
        **_container("scheduler", settings, asked, settings.scheduler),
        "args": [
            "scheduler", "--host", "0.0.0.0", "--port", str(SCHEDULER_PORT),
            "--dashboard-address", f":{DASHBOARD_PORT}", "--preload", "orchestrate.workers",
        ],
        "ports": [_port(name, number) for name, number in ports.items()],
        "readinessProbe": {**health, "periodSeconds": 1, "timeoutSeconds": 5},
        "livenessProbe": {**health, "initialDelaySeconds": 30, "periodSeconds": 20, "timeoutSeconds": 10},
    }  # fmt: skip
    container["env"] = [
        *container["env"],
        _variable(
            "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES",
            json.dumps([f"distributed.http.{name}" for name in _ROUTES]),
        ),
        _variable("DASK_DISTRIBUTED__ADAPTIVE__TARGET_DURATION", f"{settings.target_duration_s}s"),
        # a task whose worker vanished so often is given up: nodes that vanish are no fault of a task
        _variable("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "10"),
    ]
    return {
        "metadata": {"annotations": {**_STAY, **settings.scheduler.annotations}},
        "spec": _pod(settings, settings.scheduler, container),
        "service": {
            "type": "ClusterIP",
            "selector": {"dask.org/cluster-name": asked.name, "dask.org/component": "scheduler"},
            "ports": [
                {"name": name, "protocol": "TCP", "port": number, "targetPort": name} for name, number in ports.items()
            ],
        },
    }


def _workers(settings: KubeSettings, asked: Asked) -> dict[str, Any]:
    worker = settings.worker
    ports = {"tcp-worker": WORKER_PORT, "tcp-nanny": NANNY_PORT, "http-dashboard": WORKER_DASHBOARD_PORT}
    limit = int(parse_memory(worker.memory) * _SHARE)
    container = {
        **_container("worker", settings, asked, worker),
        # Ports that are known can be let through by a network policy; what they would be by chance cannot. Dask's own
        # guess of the memory is a share of the pod's by processors of the node: the limit is said.
        "args": [
            "worker", "--name", "$(DASK_WORKER_NAME)", "--nworkers", "1", "--nthreads", str(worker.threads),
            "--memory-limit", str(limit), "--worker-port", str(WORKER_PORT), "--nanny-port", str(NANNY_PORT),
            "--dashboard-address", f":{WORKER_DASHBOARD_PORT}", "--death-timeout", str(_DEATH_S),
            "--local-directory", _SCRATCH, "--preload", "orchestrate.workers", "--preload-nanny", "orchestrate.workers",
        ],
        "ports": [_port(name, number) for name, number in ports.items()],
    }  # fmt: skip
    return {
        "replicas": asked.workers,
        "metadata": {"annotations": {**_STAY, **worker.annotations}},
        "spec": _pod(settings, worker, container, worker.spot),
    }


def _container(name: str, settings: KubeSettings, asked: Asked, size: PodSettings) -> dict[str, Any]:
    limits = {"memory": size.memory} | ({} if size.scratch is None else {"ephemeral-storage": size.scratch})
    variables = {
        "HOME": _SCRATCH,
        "TMPDIR": _SCRATCH,
        **settings.env,
        EXPECTED: json.dumps(dict(asked.versions), sort_keys=True),
    }
    sources = [{"configMapRef": {"name": one}} for one in settings.config_maps]
    sources += [{"secretRef": {"name": one}} for one in settings.secrets]
    container: dict[str, Any] = {
        "name": name,
        "image": asked.image,
        "command": ["dask"],
        "env": [_variable(key, value) for key, value in variables.items()],
        # no limit of CPU: a pod that would be throttled while its node is idle only takes longer
        "resources": {"requests": {"cpu": size.cpu, **limits}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": _SCRATCH}],
    }
    if sources:
        container["envFrom"] = sources
    if settings.image_pull_policy is not None:
        container["imagePullPolicy"] = settings.image_pull_policy
    return container


def _pod(
    settings: KubeSettings, size: PodSettings, container: Mapping[str, Any], spot: Spot | None = None
) -> dict[str, Any]:
    selector, tolerations = dict(size.node_selector), list(size.tolerations)
    if spot is not None:
        label, value, is_taint = _SPOT[spot]
        selector[label] = value
        if is_taint:
            tolerations.append({"key": label, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    pod: dict[str, Any] = {
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 30,
        "containers": [dict(container)],
        "volumes": [{"name": "scratch", "emptyDir": {} if size.scratch is None else {"sizeLimit": size.scratch}}],
    }
    if selector:
        pod["nodeSelector"] = selector
    if tolerations:
        pod["tolerations"] = tolerations
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": one} for one in settings.image_pull_secrets]
    return pod | size.pod


def _variable(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}
