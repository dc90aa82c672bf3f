"""Runs on a real Kubernetes with the real Dask operator: `pytest -m kubernetes`, with KUBECONFIG set."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import geofield
from geofield import Store
from geofield.errors import ConfigurationError
from orchestrate import cluster, demo, run
from orchestrate.kube import Job
from tests.support.kubes import (
    ROOT,
    SCHEDULER,
    WORKER,
    Namespace,
    days_done,
    finish,
    hand_in,
    kubectl,
    last_day,
    make_store,
    rows_as_bytes,
    start,
    until,
)

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(400),
    # kr8s names the versions that it was tested with
    pytest.mark.filterwarnings("ignore:Kubernetes version"),
    # and never closes its connections
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DAYS = 64  # eight windows: long enough to be disturbed


@pytest.fixture(scope="session", autouse=True)
def _kubernetes() -> None:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no KUBECONFIG: no Kubernetes to run on")
    if find_spec("dask_kubernetes") is None:
        pytest.skip("the extra `kube` is not installed")
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")


@pytest.fixture(autouse=True)
def _left_here() -> Iterator[None]:
    """Connections that kr8s leaves are found here, not in tests of others."""
    yield
    gc.collect()


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Namespace]:
    """A namespace of its own. Without KUBECONFIG nothing is touched."""
    name = f"geofield-test-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    made = Namespace(name, tmp_path)
    until(lambda: made.names("serviceaccount"), 30, "the default service account")
    yield made
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def backfill(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Rows of `DAYS` days as a local cluster makes them."""
    store = make_store(str(tmp_path_factory.mktemp("local") / "store"))
    with cluster.connect("local", 2) as client:
        assert run(store, last_day(DAYS), client)["errors"] == []
    return rows_as_bytes(store)


def begin(space: Namespace, url: str, days: int = DAYS, workers: str = "2", **changes: Any) -> Any:
    """A backfill in a process of its own."""
    return start(
        space.settings(**changes), "run", url, "--until", str(last_day(days)),
        "--cluster", "kube", "--workers", workers, "--json",
    )  # fmt: skip


def check_complete(space: Namespace, url: str, process: Any, backfill: bytes) -> tuple[dict[str, Any], str]:
    status, receipt, told = finish(process)
    assert status == 0, (receipt.get("errors"), told)
    assert receipt["errors"] == []
    assert receipt["cluster"] == "kube"
    assert rows_as_bytes(geofield.open_store(url)) == backfill
    until(lambda: not space.names("daskcluster,pods"), 60, "everything is removed")
    return receipt, told


# --- what a run does -------------------------------------------------------------------------------------------------


def do_the_demo(store: Store, client: Any) -> list[dict[str, Any]]:
    """Days; then late fields, a corrected polygon and more days; then a late scene."""
    receipts = [run(store, demo.PAUSE, client)]
    hand_in(store, demo._make_fields(6, first=18))
    hand_in(store, [demo._moved(demo._make_fields(18))])
    receipts.append(run(store, demo.END, client))
    store.change_box(demo._without_gaps(store.box("north")))
    receipts.append(run(store, demo.END, client))
    assert [one["errors"] for one in receipts] == [[], [], []]
    return receipts


def only_copy(number: int, folder: str) -> bytes:
    """A result that leaves a trace of having been computed."""
    Path(folder, f"{number}-{uuid.uuid4().hex}").touch()
    time.sleep(2)  # so long that more workers come
    return bytes([number]) * 1_000_000


def test_rows_are_those_of_a_local_cluster_while_workers_come_and_go(
    space: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo from 1 worker to several and back; no result that one worker holds alone is ever computed again."""
    local = make_store(str(tmp_path / "local"))
    with cluster.connect("local", 2) as client:
        do_the_demo(local, client)
    monkeypatch.setenv("GEOFIELD_KUBE_FILE", str(space.settings()))
    remote, traces = make_store(space.store()), tmp_path / "traces"
    traces.mkdir()
    counts, over = [], threading.Event()

    def count() -> None:
        while not over.wait(1):
            counts.append(len(space.running(WORKER)))

    counting = threading.Thread(target=count)
    counting.start()
    try:
        with cluster.connect("kube", (0, 4), Job(geofield.Run().id)) as client:
            assert len(space.running(WORKER)) == 1
            receipts = do_the_demo(remote, client)
            held = client.map(only_copy, range(32), folder=str(traces), pure=False)
            from distributed import wait

            wait(held, timeout=180)
            most = max(counts)
            assert len({one for names in client.who_has(held).values() for one in names}) > 1
            until(lambda: len(space.running(WORKER)) == 1, 200, "back to the one that holds everything")
            until(lambda: len(client.scheduler_info()["workers"]) == 1, 30, "one worker known to the scheduler")
            assert client.gather(held) == [bytes([number]) * 1_000_000 for number in range(32)]
            assert len(list(traces.iterdir())) == 32
    finally:
        over.set()
        counting.join()
    assert most >= 3, counts
    assert {one["cluster"] for one in receipts} == {"kube"}
    late = receipts[1]["boxes"]["north"]["late"]
    assert (late["fields"], late["source_reads"], late["box_tasks"]) == (7, 0, 0)
    assert rows_as_bytes(remote) == rows_as_bytes(local)
    assert not space.names("daskcluster")


def test_the_command_tells_how_long_it_took_to_the_first_task(space: Namespace, backfill: bytes) -> None:
    url = make_store(space.store()).url
    receipt, told = check_complete(space, url, begin(space, url, workers="0:3"), backfill)
    assert list(receipt["startup"]) == ["plan", "operator", "pods", "connect"]
    assert all(0 < seconds < 120 for seconds in receipt["startup"].values())
    line = next(line for line in told.splitlines() if "first task" in line)
    print(line)
    assert all(f"{name} {seconds:.1f} s" in line for name, seconds in receipt["startup"].items())


def test_little_work_starts_no_pods(space: Namespace) -> None:
    url = make_store(space.store()).url
    status, receipt, told = finish(begin(space, url, days=4, runner_does_s=600))
    assert (status, receipt["cluster"], receipt["startup"]) == (0, "threads", {})
    assert "the runner does it" in told
    assert not space.names("daskcluster,pods")


# --- what may be lost ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["a worker", "the scheduler", "the whole cluster"])
def test_rows_are_the_same_when_pods_are_lost(space: Namespace, backfill: bytes, lost: str) -> None:
    url = make_store(space.store()).url
    process = begin(space, url, idle_timeout_s=20)
    until(lambda: days_done(url) >= 8, 120, "the first days")
    if lost == "the whole cluster":
        space.kubectl("delete", "--wait=false", *space.names("daskcluster"))
    else:
        pods = space.names("pods", WORKER if lost == "a worker" else SCHEDULER)
        space.kubectl("delete", "--grace-period=0", "--force", "--wait=false", pods[0])
    at = days_done(url)
    assert process.poll() is None
    assert at < DAYS - 8, "it was over before it was disturbed"
    if lost != "the whole cluster":
        until(lambda: pods[0] not in space.names("pods"), 30, "the pod is gone")
    receipt, told = check_complete(space, url, process, backfill)
    if lost == "the whole cluster":  # between two graphs a scheduler that is lost is replaced before anybody misses it
        assert receipt["retries"] > 0, told
        assert "made again" in told


def test_the_cluster_of_a_run_that_was_killed_is_removed(space: Namespace, backfill: bytes) -> None:
    url = make_store(space.store()).url
    process = begin(space, url, dead_after_s=8, idle_timeout_s=600)
    until(lambda: days_done(url) >= 8, 120, "the first days")
    process.kill()
    process.communicate()
    (name,) = space.names("daskcluster")
    settings = space.settings(dead_after_s=8)
    status, found, _ = finish(start(settings, "clusters", "--remove-dead", "--json"))
    # its last sign of life is younger than that
    assert (status, [one["state"] for one in found["clusters"]]) == (0, ["alive"])

    def states() -> list[str]:
        return [one["state"] for one in finish(start(settings, "clusters", "--json"))[1]["clusters"]]

    until(lambda: states() == ["dead"], 60, "no sign of life")
    status, found, _ = finish(start(settings, "clusters", "--remove-dead", "--json"))
    assert [(one["name"], one["state"]) for one in found["clusters"]] == [(name.partition("/")[2], "removed")]
    until(lambda: not space.names("daskcluster,pods"), 60, "everything is removed")
    check_complete(space, url, begin(space, url), backfill)


def test_the_operator_removes_what_nobody_uses(space: Namespace) -> None:
    """The last net: nobody ever calls `geofield clusters`."""
    url = make_store(space.store()).url
    process = begin(space, url, idle_timeout_s=15)
    until(lambda: days_done(url) >= 8, 120, "the first days")
    process.kill()
    process.communicate()
    assert space.names("daskcluster")
    until(lambda: not space.names("daskcluster,pods"), 90, "removed by the operator")


# --- what cannot start -----------------------------------------------------------------------------------------------


def fails(space: Namespace, **changes: Any) -> str:
    url = make_store(space.store()).url
    status, receipt, told = finish(begin(space, url, days=4, **changes))
    assert status == 1
    (error,) = receipt["errors"]
    until(lambda: not space.names("daskcluster,pods"), 60, "everything is removed")
    return f"{error['kind']} {error['message']} {told}"


def test_an_image_that_is_not_there_is_told(space: Namespace) -> None:
    told = fails(space, image="missing/geofield:1", start_timeout_s=15, attempts=1)
    assert "ImagePullBackOff" in told or "ErrImagePull" in told
    assert told.startswith("cluster ")


def test_a_node_that_is_not_there_is_told(space: Namespace) -> None:
    worker = {"memory": "1Gi", "cpu": "100m", "scratch": None, "spot": "karpenter"}
    told = fails(space, worker=worker, start_timeout_s=30, attempts=1)
    # one pod by its name, several of one fate together
    assert re.search(r"worker\)?: Unschedulable: 0/1 nodes are available", told), told


def test_a_quota_is_told(space: Namespace) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
    space.kubectl("apply", "-f", "-", given=quota)
    assert "exceeded quota" in fails(space, start_timeout_s=15, attempts=1)


def test_other_packages_in_the_pods_are_refused(space: Namespace, tmp_path: Path) -> None:
    fake = tmp_path / "other" / "geofield-9.9.9.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: geofield\nVersion: 9.9.9\n")
    told = fails(space, env={"PYTHONPATH": str(fake.parent)})
    assert f"geofield {geofield.__version__} in the runner, 9.9.9 in the pod" in told


def test_a_namespace_that_is_not_there_is_told(space: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOFIELD_KUBE_FILE", str(space.settings(namespace="nowhere-at-all")))
    with pytest.raises(ConfigurationError, match="nowhere-at-all"), cluster.connect("kube", 1):
        pass


# --- as the manifests have it ----------------------------------------------------------------------------------------


def documents(*names: str) -> list[dict[str, Any]]:
    import yaml

    return [one for name in names for one in yaml.safe_load_all((ROOT / "k8s" / name).read_text()) if one]


def runner_job(name: str, arguments: list[str], settings: Path) -> dict[str, Any]:
    """The shipped CronJob's pod, as a Job that runs now and with the test's own store and settings."""
    (cron,) = documents("daily/cronjob.yaml")
    template = cron["spec"]["jobTemplate"]["spec"]["template"]
    pod = template["spec"]
    (container,) = pod["containers"]
    container["env"] = [one for one in container["env"] if "valueFrom" in one] + [
        {"name": "GEOFIELD_KUBE_FILE", "value": str(settings)},
        {"name": "PYTHONPATH", "value": str(ROOT)},
        {"name": "HOME", "value": "/scratch"},
        {"name": "TMPDIR", "value": "/scratch"},
    ]
    container.pop("envFrom")
    container["command"], container["args"] = ["python", "-W", "ignore", *arguments[:2]], arguments[2:]
    container["resources"] = {}
    container["volumeMounts"] = [one for one in container["volumeMounts"] if one["name"] == "scratch"]
    pod["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    spec = {"backoffLimit": 0, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def job_log(space: Namespace, name: str, seconds: float = 200) -> tuple[bool, str]:
    """Whether a Job succeeded, and what it said."""

    def conditions() -> str:
        return space.kubectl("get", "job", name, "-o", "jsonpath={.status.conditions[*].type}")

    kind = until(conditions, seconds, f"the end of Job {name}: {space.kubectl('get', 'pods')}")
    return kind == "Complete", space.kubectl("logs", f"job/{name}")


def test_the_runner_has_exactly_the_rights_that_it_needs(space: Namespace, backfill: bytes) -> None:
    """As a Job under the shipped service account; what it was not given, it is refused."""
    for one in documents("base/serviceaccounts.yaml", "base/rbac.yaml"):
        space.kubectl("apply", "-f", "-", given=one)
    url = make_store(space.store()).url
    settings = space.settings(service_account="geofield-dask")
    arguments = ["-m", "orchestrate.cli", "run", url, "--until", str(last_day(DAYS)), "--cluster", "kube",
                 "--workers", "0:3"]  # fmt: skip
    space.kubectl("apply", "-f", "-", given=runner_job("run", arguments, settings))
    until(lambda: space.names("daskcluster"), 60, "a cluster")
    (owner,) = json.loads(space.kubectl("get", "daskcluster", "-o", "json"))["items"][0]["metadata"]["ownerReferences"]
    assert owner["kind"] == "Pod"
    is_done, told = job_log(space, "run")
    assert is_done, told
    assert rows_as_bytes(geofield.open_store(url)) == backfill
    assert "forbidden" not in told
    until(lambda: not space.names("daskcluster"), 60, "everything is removed")

    space.kubectl("apply", "-f", "-", given=runner_job("look", ["-c", REFUSED, space.name], settings))
    is_done, told = job_log(space, "look")
    assert is_done, told
    assert told.split() == ["403"] * 8

    def may(who: str, verb: str, what: str, *more: str) -> bool:
        account = f"system:serviceaccount:{space.name}:{who}"
        return "yes" in space.kubectl("auth", "can-i", verb, what, *more, "--as", account, check=False)

    (role,) = [one for one in documents("base/rbac.yaml") if one["kind"] == "Role"]
    given = {
        (verb, f"{what}.{group}" if group else what)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for what in rule["resources"]
        for verb in rule["verbs"]
    }
    assert all(may("geofield-runner", verb, what) for verb, what in given)
    assert not any(may("geofield-dask", verb, what) for verb, what in given)
    for what in ("secrets", "configmaps", "pods", "pods/exec", "pods/portforward", "deployments.apps", "jobs.batch"):
        for verb in ("create", "delete", "patch", "update"):
            assert not may("geofield-runner", verb, what), (verb, what)
    assert not may("geofield-runner", "get", "secrets")
    assert not may("geofield-runner", "list", "daskclusters.kubernetes.dask.org", "-n", "default")


REFUSED = """
import sys, kubernetes
kubernetes.config.load_incluster_config()
core, apps = kubernetes.client.CoreV1Api(), kubernetes.client.AppsV1Api()
rights, own = kubernetes.client.RbacAuthorizationV1Api(), sys.argv[1]
for call in (
    lambda: core.list_namespaced_secret(own),
    lambda: core.read_namespaced_config_map("geofield", own),
    lambda: core.create_namespaced_pod(own, {"metadata": {"name": "x"}, "spec": {"containers": []}}),
    lambda: core.delete_collection_namespaced_pod(own),
    lambda: apps.delete_collection_namespaced_deployment(own),
    lambda: rights.create_namespaced_role(own, {"metadata": {"name": "x"}, "rules": []}),
    lambda: core.list_namespaced_pod("kube-system"),
    lambda: core.list_node(),
):
    try:
        call()
        print("allowed")
    except kubernetes.client.ApiException as error:
        print(error.status)
"""


@pytest.fixture(params=["local", "dev", "prod"])
def overlay(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """An overlay and its namespace, which is made here and removed."""
    import yaml

    name = str(request.param)
    folder = ROOT / "k8s" / "overlays" / name
    namespace = yaml.safe_load((folder / "kustomization.yaml").read_text())["namespace"]
    until(lambda: "Terminating" not in kubectl("get", "namespace", namespace, check=False), 120, "it is gone")
    if kubectl("get", "namespace", namespace, "--ignore-not-found"):
        pytest.skip(f"this cluster has a namespace {namespace}, which is nobody's to try things in")
    yield name, namespace
    kubectl("delete", "namespace", namespace, "--wait=false", check=False)


def test_the_server_takes_every_overlay_as_far_as_it_knows_its_kinds(overlay: tuple[str, str]) -> None:
    """`local` to the last object; of the others all but what this server cannot know, which is named."""
    import yaml

    name, namespace = overlay
    folder = str(ROOT / "k8s" / "overlays" / name)
    known = set(kubectl("api-versions").split())
    found = list(yaml.safe_load_all(kubectl("kustomize", folder)))
    if name == "local":
        told = kubectl("apply", "-k", folder)
        assert len(told.splitlines()) == len(found) > 15
        assert "unchanged" in kubectl("apply", "-k", folder)
        return
    kubectl("apply", "-f", "-", given=next(one for one in found if one["kind"] == "Namespace"))
    left_out = set()
    for one in found:
        if one["apiVersion"] not in known:
            left_out.add(one["kind"])
            continue
        if one["kind"] == "CronJob" and '"cronjobs"' not in kubectl("get", "--raw", "/apis/batch/v1"):
            # batch/v1beta1 until 1.21, without a time zone until 1.27; nothing else differs
            one = documents("daily/cronjob.yaml")[0] | {"apiVersion": "batch/v1beta1"}
            del one["spec"]["timeZone"]
        kubectl("apply", "-n", namespace, "--dry-run=server", "-f", "-", given=one)
    print(f"{name}: this server does not know {sorted(left_out)}")
    assert left_out <= {"ServiceMonitor", "PrometheusRule"}
