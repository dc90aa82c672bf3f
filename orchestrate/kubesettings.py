"""What a Dask cluster on Kubernetes is made of: image, sizes, places, patience. No secrets, only their names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from geofield.errors import ConfigurationError
from orchestrate.memory import parse_memory

FILE = "GEOFIELD_KUBE_FILE"
POD_NAME, POD_UID = "GEOFIELD_POD_NAME", "GEOFIELD_POD_UID"
"""Of the runner's own pod, by the downward API."""
_PREFIX = "GEOFIELD_KUBE_"
_SIMPLE = ("image", "namespace", "service_account", "runner_does_s", "dead_after_s")  # each also GEOFIELD_KUBE_NAME
_LARGEST = 1_000_000  # bytes
_RESERVED = ("DASK_SCHEDULER_ADDRESS", "DASK_WORKER_NAME")
_STRICT = ConfigDict(frozen=True, extra="forbid")

Spot = Literal["karpenter", "eks", "gke", "aks"]


class PodSettings(BaseModel):
    """The size of a pod, and on which nodes it may run."""

    model_config = _STRICT

    cpu: str = Field(default="1", description="requested", pattern=r"^\d+(\.\d+)?m?$")
    memory: str = Field(default="4Gi", description="requested, and the limit")
    scratch: str | None = Field(default="8Gi", description="disk for what does not fit into memory; none: no limit")
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels of the nodes")
    tolerations: tuple[dict[str, Any], ...] = Field(default=(), description="taints of nodes that are borne")
    annotations: dict[str, str] = Field(default_factory=dict, description="of the pod")
    pod: dict[str, Any] = Field(default_factory=dict, description="more of the pod's spec, such as priorityClassName")

    @field_validator("memory", "scratch")
    @classmethod
    def _amount(cls, value: str | None) -> str | None:
        if value is not None:
            parse_memory(value)
        return value


class WorkerSettings(PodSettings):
    """A worker: one process."""

    threads: int = Field(default=1, ge=1, le=64, description="numbers come from compiled code: more workers, rather")
    spot: Spot | None = Field(default=None, description="nodes that may vanish: of which provider")


class KubeSettings(BaseModel):
    """Settings of Dask clusters. Times are in seconds."""

    model_config = _STRICT

    image: str | None = Field(
        default=None, description="of scheduler and workers; default: that of the runner's own pod"
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[str, ...] = ()
    namespace: str | None = Field(default=None, description="default: that of the pod or of the kubeconfig")
    service_account: str = Field(
        default="default", description="of scheduler and workers; it needs no rights in Kubernetes"
    )
    env: dict[str, str] = Field(default_factory=dict, description="variables of scheduler and workers; no secrets")
    secrets: tuple[str, ...] = Field(default=(), description="names of Secrets whose keys become variables")
    config_maps: tuple[str, ...] = Field(default=(), description="names of ConfigMaps whose keys become variables")
    labels: dict[str, str] = Field(default_factory=dict, description="more labels of everything that is made")
    scheduler: PodSettings = Field(default_factory=lambda: PodSettings(memory="2Gi", scratch="1Gi"))
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    idle_timeout_s: int = Field(
        default=300, ge=10, description="the operator removes a cluster that did nothing for so long"
    )
    target_duration_s: int = Field(
        default=30, ge=1, description="workers are added until what is known to do takes so long"
    )
    operator_timeout_s: float = Field(default=60, gt=0, description="how long the operator may take to act")
    start_timeout_s: float = Field(
        default=600, gt=0, description="how long pods may take: nodes are made, images pulled"
    )
    attempts: int = Field(default=2, ge=1, le=10, description="clusters that are tried, when one does not start")
    reconnect_s: float = Field(default=600, gt=0, description="how long a lost scheduler may take to come back")
    runner_does_s: float = Field(
        default=60, ge=0, description="work that takes less is done by the runner: pods take longer"
    )
    finish_s: float = Field(default=900, gt=0, description="a cluster begins with the workers that need about so long")
    dead_after_s: float = Field(
        default=300, ge=1, description="a cluster whose runner gave no sign for so long is removed"
    )
    port_forward: bool = Field(default=False, description="for a runner outside of the cluster")

    @field_validator("env")
    @classmethod
    def _free(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name in _RESERVED:
                raise ValueError(f"{name} is set by the operator")
        return value


def kube_settings(environment: Mapping[str, str] | None = None, *, needs_image: bool = True) -> KubeSettings:
    """The settings that hold: variables such as `GEOFIELD_KUBE_IMAGE`, then the file.

    Parameters
    ----------
    environment
        Default: that of the process. `GEOFIELD_KUBE_FILE` names a YAML file.
    needs_image
        Whether a cluster is to be made; to look at those that are there takes none.

    Raises
    ------
    ConfigurationError
        A setting is wrong, or there is no image.
    """
    environment = os.environ if environment is None else environment
    path = environment.get(FILE)
    values = _read(Path(path)) if path else {}
    values |= {name: environment[_PREFIX + name.upper()] for name in _SIMPLE if environment.get(_PREFIX + name.upper())}
    if needs_image and not values.get("image") and not environment.get(POD_NAME):
        raise ConfigurationError(
            f"--cluster kube: which image do its pods run? Set {_PREFIX}IMAGE, or `image` in the file that "
            f"{FILE} names. In a pod that {POD_NAME} names it is the pod's own. See docs/kubernetes.md."
        )
    try:
        return KubeSettings.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False)
        )
        raise ConfigurationError(f"{path or 'Settings of --cluster kube'}: {faults}.") from error


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_bytes()
        if len(text) > _LARGEST:
            raise ConfigurationError(f"{FILE}: {path} has {len(text):,} bytes; that is no settings file.")
        value = yaml.safe_load(text)
    except OSError as error:
        raise ConfigurationError(f"{FILE}: {path} cannot be read: {error.strerror or error}.") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{FILE}: {path} is not YAML: {error}.") from error
    if value is not None and not isinstance(value, dict):
        raise ConfigurationError(f"{FILE}: {path} has to be a mapping, key: value, line by line.")
    return dict(value or {})
