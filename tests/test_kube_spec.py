"""Clusters on Kubernetes, as far as they can be tested without one: settings, descriptions, sizes, reasons."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from geofield.errors import ConfigurationError
from orchestrate.kube import Job, bounds, first_workers
from orchestrate.kubeapi import is_hopeless, is_ready, state_of, troubles
from orchestrate.kubesettings import KubeSettings, kube_settings
from orchestrate.kubespec import COMPARED, Asked, Owner, cluster_name, cluster_spec
from orchestrate.memory import parse_memory
from orchestrate.sizing import Demand, demand, workers_to_begin_with
from orchestrate.work import Append, Correct, FillLate, Rebuild, Reduce, Remove
from orchestrate.workers import check_versions, differences, versions

RUN = "20261121T054754Z-88502bd3"
DAY = dt.date(2026, 11, 20)


def spec(owner: Owner | None = None, workers: int = 2, **changes: Any) -> dict[str, Any]:
    asked = Asked(
        name=cluster_name(RUN, 1), run_id=RUN, store="s3://bucket/fields", image="registry/geofield:1", workers=workers,
        now="2026-11-21T05:47:54+00:00", versions={"dask": "1.2"}, owner=owner,
    )  # fmt: skip
    return cluster_spec(KubeSettings.model_validate(changes), asked)


def container(made: Mapping[str, Any], part: str) -> dict[str, Any]:
    (one,) = made["spec"][part]["spec"]["containers"]
    return dict(one)


def variables(one: Mapping[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in one["env"]}


# --- the description -------------------------------------------------------------------------------------------------


def test_commands_exist_in_the_installed_distributed() -> None:
    """The scripts dask-scheduler and dask-worker, which the operator's own defaults call, do not."""
    made = spec()
    for part in ("scheduler", "worker"):
        one = container(made, part)
        assert one["command"] == ["dask"]
        word, *options = [word for word in one["args"] if not word.startswith("$")]
        assert word == part
        told = subprocess.run(
            [str(Path(sys.executable).parent / "dask"), word, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert all(option in told for option in options if option.startswith("--"))


def test_the_scheduler_answers_the_operator_by_http() -> None:
    """Without these routes the operator stops the newest workers, whatever they hold."""
    import importlib

    routes = json.loads(variables(container(spec(), "scheduler"))["DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES"])
    assert "distributed.http.scheduler.api" in routes
    served = [path for name in routes for path, *_ in importlib.import_module(name).routes]
    assert "/api/v1/retire_workers" in served
    assert "/api/v1/adaptive_target" in served
    from dask.config import collect_env

    held = collect_env({"DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES": json.dumps(routes)})
    assert held["distributed"]["scheduler"]["http"]["routes"] == routes


def test_an_idle_cluster_always_ends() -> None:
    assert spec()["spec"]["idleTimeout"] == 300
    with pytest.raises(ConfigurationError, match="idle_timeout_s"):
        settings_of("image: x\nidle_timeout_s: 0")


def test_memory_limits_are_said_in_bytes() -> None:
    worker = container(spec(worker={"memory": "4Gi", "threads": 3, "cpu": "2500m", "scratch": "20Gi"}), "worker")
    options = dict(zip(worker["args"][1::2], worker["args"][2::2], strict=True))
    assert int(options["--memory-limit"]) == int(4 * 2**30 * 0.9)
    assert options["--nthreads"] == "3"
    assert worker["resources"] == {
        "requests": {"cpu": "2500m", "memory": "4Gi", "ephemeral-storage": "20Gi"},
        "limits": {"memory": "4Gi", "ephemeral-storage": "20Gi"},
    }


def test_what_belongs_to_a_run_says_so() -> None:
    metadata = spec(labels={"team": "north"})["metadata"]
    assert metadata["labels"] == {
        "team": "north",
        "app.kubernetes.io/name": "geofield",
        "app.kubernetes.io/managed-by": "geofield",
        "geofield/run": RUN,
    }
    assert metadata["annotations"] == {
        "geofield/store": "s3://bucket/fields",
        "geofield/alive": "2026-11-21T05:47:54+00:00",
    }
    (owner,) = spec(owner=Owner("runner-x", "uid-1"))["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", "runner-x", "uid-1")
    assert owner["blockOwnerDeletion"] is False


@pytest.mark.parametrize("attempt", [1, 2, 10])
@pytest.mark.parametrize("run_id", [RUN, "Ähm_{HOME}.." + "x" * 80, "---"])
def test_names_are_what_the_operator_takes(run_id: str, attempt: int) -> None:
    import re

    name = cluster_name(run_id, attempt)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 53
    assert name != cluster_name(run_id, attempt + 1)


def test_settings_are_where_they_belong() -> None:
    made = spec(
        service_account="geofield-dask", env={"AWS_REGION": "eu"}, secrets=["keys"], config_maps=["geofield"],
        image_pull_policy="Always", image_pull_secrets=["registry"], target_duration_s=7,
        worker={"spot": "gke", "node_selector": {"pool": "big"}, "annotations": {"a": "b"},
                "tolerations": [{"key": "big", "operator": "Exists"}], "pod": {"priorityClassName": "low"}},
    )  # fmt: skip
    scheduler, worker = made["spec"]["scheduler"]["spec"], made["spec"]["worker"]["spec"]
    for part in ("scheduler", "worker"):
        one = container(made, part)
        assert variables(one)["AWS_REGION"] == "eu"
        assert json.loads(variables(one)["GEOFIELD_EXPECTED_VERSIONS"]) == {"dask": "1.2"}
        assert one["envFrom"] == [{"configMapRef": {"name": "geofield"}}, {"secretRef": {"name": "keys"}}]
        assert (one["image"], one["imagePullPolicy"]) == ("registry/geofield:1", "Always")
    assert variables(container(made, "scheduler"))["DASK_DISTRIBUTED__ADAPTIVE__TARGET_DURATION"] == "7s"
    assert worker["nodeSelector"] == {"pool": "big", "cloud.google.com/gke-spot": "true"}
    assert [one["key"] for one in worker["tolerations"]] == ["big", "cloud.google.com/gke-spot"]
    assert (worker["priorityClassName"], "priorityClassName" in scheduler) == ("low", False)
    assert not {"nodeSelector", "tolerations"} & set(scheduler)  # a scheduler never goes where nodes vanish
    for pod in (scheduler, worker):
        assert pod["serviceAccountName"] == "geofield-dask"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert made["spec"]["worker"]["metadata"]["annotations"]["a"] == "b"


def test_pods_are_as_restricted_as_kubernetes_knows() -> None:
    """The profile `restricted` of the pod security standards, and a root file system that is only read."""
    made = spec()
    for part in ("scheduler", "worker"):
        pod, one = made["spec"][part]["spec"], container(made, part)
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["automountServiceAccountToken"] is False
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPath" in volume for volume in pod["volumes"])


@pytest.mark.parametrize("spot", ["karpenter", "eks", "gke", "aks"])
def test_spot_workers_have_a_label_of_their_provider(spot: str) -> None:
    assert len(spec(worker={"spot": spot})["spec"]["worker"]["spec"]["nodeSelector"]) == 1


# --- settings --------------------------------------------------------------------------------------------------------


def settings_of(text: str, **environment: str) -> KubeSettings:
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        return kube_settings({"GEOFIELD_KUBE_FILE": file.name, **environment})


def test_the_environment_goes_before_the_file() -> None:
    held = settings_of("image: one\nnamespace: here\nworker: {memory: 8Gi}", GEOFIELD_KUBE_IMAGE="two")
    assert (held.image, held.namespace, held.worker.memory) == ("two", "here", "8Gi")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("worker: {memory: 8 GB}", "worker.memory: '8 GB' is no amount of memory"),
        ("imagination: 1", "imagination"),
        ("worker: {spot: hetzner}", "karpenter"),
        ("env: {DASK_WORKER_NAME: x}", "set by the operator"),
        ("- 1", "has to be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_wrong_settings_are_named(text: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        settings_of(text, GEOFIELD_KUBE_IMAGE="x")


def test_an_image_is_needed_unless_the_pod_has_one() -> None:
    with pytest.raises(ConfigurationError, match="GEOFIELD_KUBE_IMAGE"):
        kube_settings({})
    assert kube_settings({"GEOFIELD_POD_NAME": "runner-x"}).image is None
    assert kube_settings({}, needs_image=False).dead_after_s == 300
    with pytest.raises(ConfigurationError, match="cannot be read"):
        kube_settings({"GEOFIELD_KUBE_FILE": "/nowhere/dask.yaml"})


@pytest.mark.parametrize(
    ("text", "size"), [("4Gi", 2**32), ("500M", 5 * 10**8), ("1.5Gi", 3 * 2**29), ("17", 17), ("2k", 2000)]
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


# --- sizes -----------------------------------------------------------------------------------------------------------


def append(box: str, days: int, tiles: int, seconds: float | None = None) -> Append:
    return Append(box, DAY, DAY, days, days * tiles, 0, None, 0, seconds)


def test_a_small_late_field_starts_no_pods() -> None:
    late = FillLate("b", ("f",), 365, None)
    assert demand([late], 4).seconds < 1
    assert first_workers(KubeSettings(), (0, 20), Job(RUN, asked=demand([late], 4))) == 0
    assert first_workers(KubeSettings(), (3, 20), Job(RUN, asked=demand([], 4))) == 0
    assert first_workers(KubeSettings(), None, Job(RUN, asked=None)) == 1


def test_a_large_backfill_starts_near_what_it_needs() -> None:
    """Ten years of four boxes of 16 tiles each: 64 tiles side by side, more work than 20 workers do in 15 minutes."""
    steps = [append(name, 3650, 16) for name in "abcd"]
    asked = demand(steps, 4)
    assert asked == Demand(4 * 3650 * 16 * 2.0, 64)
    assert workers_to_begin_with(asked, 0, 20) == 20
    assert workers_to_begin_with(asked, 0, 200) == 64
    assert workers_to_begin_with(asked, 0, 200, threads=4) == 16
    # two boxes at once keep half as many busy
    assert workers_to_begin_with(demand(steps, 2), 0, 200) == 32


def test_sizes_between() -> None:
    # an hour of work, to be done in 15 minutes
    assert workers_to_begin_with(Demand(3600, 64), 0, 20) == 4
    assert workers_to_begin_with(Demand(3600, 2), 0, 20) == 2
    assert workers_to_begin_with(Demand(3600, 64), 6, 20) == 6
    assert workers_to_begin_with(Demand(3600, 64), 0, 3) == 3
    assert workers_to_begin_with(Demand(61, 1), 0, 20) == 1
    assert workers_to_begin_with(Demand(59, 64), 5, 20) == 0
    # what earlier runs took goes before a guess
    assert demand([append("b", 10, 4, seconds=7.0)], 4) == Demand(7.0, 4)


def test_every_step_has_a_size() -> None:
    steps = [
        append("a", 1, 1), Rebuild("a", 10, 40), Correct("a", DAY, 3), Reduce("a", DAY, DAY, ("f",), 5),
        FillLate("a", tuple(str(number) for number in range(130)), 130), Remove("a", ("f",), 3),
    ]  # fmt: skip
    asked = demand(steps, 1)
    assert asked.width == 4
    assert asked.seconds == pytest.approx(2 + 80 + 6 + 0.0025 + 0.065)


def test_bounds() -> None:
    assert (bounds(None), bounds(4), bounds((1, 9))) == ((0, 20), (4, 4), (1, 9))


# --- versions --------------------------------------------------------------------------------------------------------


def test_versions_that_differ_are_told_with_both() -> None:
    here = versions(COMPARED)
    assert set(here) == {"python", *COMPARED}
    assert "none" not in here.values()
    assert differences(here, here) == []
    assert differences({"dask": "1", "zarr": "3"}, {"dask": "2", "zarr": "3"}) == ["dask 1 in the runner, 2 in the pod"]
    assert differences({"dask": "1"}, {}) == ["dask 1 in the runner, none in the pod"]
    check_versions(json.dumps(here))
    with pytest.raises(ConfigurationError, match=rf"geofield 99 in the runner, {here['geofield']} in the pod"):
        check_versions(json.dumps(here | {"geofield": "99"}))


def test_a_pod_with_other_packages_ends(tmp_path: Path) -> None:
    """In a process of its own, as a preload of a scheduler, which logs what a preload raises and goes on."""
    code = (
        "from orchestrate.workers import dask_setup\nclass Scheduler: pass\ndask_setup(Scheduler())\nprint('goes on')"
    )
    for wanted, status in (({"geofield": "99"}, 1), ({}, 0)):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False,
            env={"GEOFIELD_EXPECTED_VERSIONS": json.dumps(wanted), "PYTHONPATH": str(Path(__file__).parent.parent)},
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert ("goes on" in done.stdout) == (status == 0)
        assert ("geofield 99 in the runner" in done.stderr) == (status == 1)


# --- reasons ---------------------------------------------------------------------------------------------------------


def pod(name: str = "worker", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": f"x-{name}", "labels": {"dask.org/component": name}}, "status": status}


def waiting(reason: str, message: str = "", **more: Any) -> list[dict[str, Any]]:
    return [{"state": {"waiting": {"reason": reason, "message": message}}, **more}]


def test_reasons_of_pods_that_do_not_run() -> None:
    full = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no memory."}
    assert troubles([pod("scheduler", conditions=[full]), pod(conditions=[full]), pod(conditions=[full])]) == [
        "3 pods (scheduler, worker): Unschedulable: 0/3 nodes: no memory."
    ]
    assert troubles([pod(containerStatuses=waiting("ImagePullBackOff", "no such image"))]) == [
        "worker: ImagePullBackOff: no such image"
    ]
    assert troubles([pod(containerStatuses=waiting("ContainerCreating"))]) == []
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    (told,) = troubles([pod(containerStatuses=[{"state": {"running": {}}, "lastState": killed}])])
    assert "raise `memory`" in told
    ended = {"terminated": {"reason": "Error", "exitCode": 127}}
    assert troubles([pod(containerStatuses=waiting("CrashLoopBackOff", lastState=ended))]) == [
        "worker: CrashLoopBackOff (exit code 127)"
    ]
    assert troubles([pod(phase="Failed", reason="Evicted", message="The node was low on disk.")]) == [
        "worker: Evicted: The node was low on disk."
    ]
    quota = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    assert troubles([], [pod("scheduler", conditions=[quota])]) == ["scheduler: no pod may be made: exceeded quota"]
    assert troubles([pod(phase="Running"), pod()]) == []


def test_hopeless_and_ready_pods() -> None:
    crash = waiting("CrashLoopBackOff", restartCount=2)
    assert is_hopeless([pod(), pod(containerStatuses=crash)]) == "x-worker"
    assert is_hopeless([pod(containerStatuses=waiting("CrashLoopBackOff", restartCount=1))]) is None
    ready = pod(conditions=[{"type": "Ready", "status": "True"}])
    assert is_ready(ready)
    assert not is_ready(pod())
    ready["metadata"]["deletionTimestamp"] = "2026-11-21T05:00:00Z"
    assert not is_ready(ready)


def test_a_cluster_as_the_server_gives_it() -> None:
    made = spec()
    made["metadata"] |= {"namespace": "n", "creationTimestamp": "2026-11-21T05:47:00Z"}
    found = state_of(made)
    assert (found.run_id, found.store, found.workers, found.phase) == (RUN, "s3://bucket/fields", 2, "")
    assert found.silent_for(dt.datetime(2026, 11, 21, 5, 48, tzinfo=dt.UTC)) == 6
    made["metadata"]["annotations"]["geofield/alive"] = "whatever"
    assert state_of(made).silent_for(dt.datetime(2026, 11, 21, 5, 48, tzinfo=dt.UTC)) == 60
    made["metadata"]["deletionTimestamp"] = "2026-11-21T05:49:00Z"
    assert state_of(made).is_leaving
