"""The manifests in k8s/: valid, restricted, and told in docs/security.md."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrate.config import PREFIX
from orchestrate.config import settings as run_settings
from orchestrate.kubesettings import KubeSettings
from orchestrate.kubespec import NANNY_PORT, SCHEDULER_PORT, WORKER_PORT

ROOT = Path(__file__).resolve().parent.parent
K8S = ROOT / "k8s"
OVERLAYS = ("local", "dev", "prod")
# Kinds of the Prometheus operator, whose schemas Kubernetes does not have.
FOREIGN = {"ServiceMonitor", "PrometheusRule"}
PATCHES = {"runner.yaml", "identity.yaml"}


def documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Everything that is no patch, no list of kustomize, no settings of ours and no values of Helm (dagster/)."""
    for path in sorted(K8S.rglob("*.yaml")):
        if path.name not in {"kustomization.yaml", "dask.yaml", *PATCHES} and path.parent.name != "dagster":
            for one in yaml.safe_load_all(path.read_text()):
                yield path, one


def render(overlay: str) -> list[dict[str, Any]]:
    """What is applied: by kubectl, skipped without one."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl, which puts overlays together")
    done = subprocess.run(
        [kubectl, "kustomize", str(K8S / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def pods(found: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in found:
        spec = one.get("spec") or {}
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template is not None:
            yield f"{one['kind']} {one['metadata']['name']}", template["spec"]


def check_schema(one: Mapping[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate carries the schemas")
    for version in ("1.27", "1.30", validate.latest_version()):
        validate.validate(dict(one), version, strict=True)


def test_every_manifest_is_valid() -> None:
    kinds = set()
    for path, one in documents():
        if one["kind"] not in FOREIGN:
            kinds.add(one["kind"])
            try:
                check_schema(one)
            except Exception as error:
                raise AssertionError(f"{path}: {one['kind']} {one['metadata']['name']}: {error}") from error
    assert {"CronJob", "Deployment", "Job", "NetworkPolicy", "Role", "RoleBinding", "ServiceAccount"} <= kinds


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_valid_when_put_together(overlay: str) -> None:
    found = render(overlay)
    for one in found:
        if one["kind"] not in FOREIGN:
            check_schema(one)
    held = {(one["kind"], one["metadata"]["name"]): one for one in found}
    settings = held["ConfigMap", "geofield"]["data"]
    assert settings["GEOFIELD_CLUSTER"] == "kube"
    assert run_settings({name: value for name, value in settings.items() if name.startswith(PREFIX)}).store
    if overlay != "local" and "v1.20" in subprocess.run(["kubectl", "version", "--client"], capture_output=True,
                                                        text=True, check=True).stdout:  # fmt: skip
        return  # it takes patches of a batch/v1 CronJob for ones that replace lists
    for name, pod in pods(found):
        if "s3" not in name:
            assert all(one["image"] != "geofield" for one in pod["containers"]), name


def test_clusters_are_described_by_valid_settings() -> None:
    files = sorted(K8S.rglob("dask.yaml"))
    assert len(files) == 4
    for path in files:
        held = KubeSettings.model_validate(yaml.safe_load(path.read_text()))
        assert held.image is None
        assert held.service_account == "geofield-dask"


def test_pods_are_restricted() -> None:
    found = list(pods([one for _, one in documents()]))
    assert len(found) == 4
    for name, pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod.get("automountServiceAccountToken") is (pod.get("serviceAccountName") == "geofield-runner"), name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        for one in pod["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert set(one["resources"]["requests"]) == {"cpu", "memory"}, name
            assert "memory" in one["resources"]["limits"], name


def test_no_secret_is_written_down() -> None:
    assert not any(one["kind"] == "Secret" for _, one in documents())
    word = re.compile(r"secret|password|token|access_key", re.IGNORECASE)
    for path in K8S.rglob("kustomization.yaml"):
        value = yaml.safe_load(path.read_text())
        assert "secretGenerator" not in value
        for one in value.get("configMapGenerator", ()):
            assert not [literal for literal in one.get("literals", ()) if word.search(literal)], path


def test_a_daily_run_is_never_doubled_and_ends() -> None:
    (cron,) = [one for _, one in documents() if one["kind"] == "CronJob"]
    spec, job = cron["spec"], cron["spec"]["jobTemplate"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert min(spec["startingDeadlineSeconds"], job["activeDeadlineSeconds"], job["ttlSecondsAfterFinished"]) > 0
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 5)


def test_policies_name_the_ports_that_dask_is_given() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for _, one in documents() if one["kind"] == "NetworkPolicy"}
    assert policies["geofield-nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def ports(name: str, way: str) -> set[int]:
        return {port["port"] for rule in policies[name][way] for port in rule["ports"]}

    assert {WORKER_PORT, NANNY_PORT} <= ports("geofield-dask-worker", "ingress")
    assert {WORKER_PORT, NANNY_PORT} <= ports("geofield-dask-scheduler", "egress")
    assert SCHEDULER_PORT in ports("geofield-dask-scheduler", "ingress") & ports("geofield-runner", "egress")


def test_alert_rules_are_those_of_the_docs() -> None:
    (rule,) = [one for _, one in documents() if one["kind"] == "PrometheusRule"]
    told = yaml.safe_load((ROOT / "docs" / "monitoring" / "alerts.yaml").read_text())["groups"]
    ours, kubernetes = rule["spec"]["groups"]
    assert [ours] == told
    import promql_parser

    for one in kubernetes["rules"]:
        promql_parser.parse(one["expr"])


def test_everything_is_told_in_the_docs() -> None:
    """Every account, policy and Secret, every resource and verb of every role, every port."""
    text = (ROOT / "docs" / "security.md").read_text()
    lines = text.splitlines()
    wanted: set[str] = set()
    for _, one in documents():
        if one["kind"] in ("ServiceAccount", "NetworkPolicy"):
            wanted.add(f"`{one['metadata']['name']}`")
        for rule in one.get("rules", ()) if one["kind"] in ("Role", "ClusterRole") else ():
            for what in rule["resources"]:
                (first,) = [place for place, line in enumerate(lines) if line.startswith(f"| `{what}` |")]
                told = lines[first]
                while lines[first + 1].startswith("| |"):
                    first += 1
                    told += lines[first]
                assert all(f"`{verb}`" in told for verb in rule["verbs"]), (what, rule["verbs"])
                assert len(re.findall(r"`(get|list|create|patch|delete|update|watch)`", told)) >= len(rule["verbs"])
        if one["kind"] == "NetworkPolicy":
            rules = [*one["spec"].get("ingress", ()), *one["spec"].get("egress", ())]
            wanted |= {str(port["port"]) for rule in rules for port in rule["ports"]}
    for path in K8S.rglob("*.yaml"):
        wanted |= {f"`{name}`" for name in re.findall(r"secret(?:Ref|KeyRef): \{name: ([\w-]+)", path.read_text())}
    assert {"`geofield-s3`", "`geofield-notify`", "`geofield-dask`"} <= wanted
    assert not [name for name in wanted if name not in text]
