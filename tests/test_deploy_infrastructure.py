"""terraform/ and the workflow of hosted CI, as far as they can be looked at without providers and without a host."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
TERRAFORM = ROOT / "terraform"
FILES = sorted(path for path in TERRAFORM.rglob("*.tf") if ".terraform" not in path.parts)
MODULES = sorted(path for path in (TERRAFORM / "modules").iterdir() if path.is_dir())
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())


def test_terraform_is_formatted() -> None:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    done = subprocess.run([str(TERRAFORM / "check"), "--fast"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_says_its_providers_and_what_it_takes_and_gives(module: Path) -> None:
    assert {"main.tf", "variables.tf", "outputs.tf", "versions.tf"} <= {path.name for path in module.glob("*.tf")}
    for path in (module / "variables.tf", module / "outputs.tf"):
        blocks = re.findall(r'^(?:variable|output) "(\w+)" \{(.*?)^\}', path.read_text(), re.MULTILINE | re.DOTALL)
        assert blocks
        assert [name for name, body in blocks if "description" not in body] == []
    if module.name != "eks":  # only puts the others together
        tests = "".join(path.read_text() for path in (module / "tests").glob("*.tftest.hcl"))
        assert "mock_provider" in tests
        assert tests.count("assert {") + tests.count("expect_failures") >= 3


def test_every_version_is_bounded() -> None:
    for path in FILES:
        text = path.read_text()
        for source, version in re.findall(r'source\s+= "(hashicorp/\w+)"\n\s+version = "([^"]+)"', text):
            assert version.startswith("~> "), f"{path.name}: {source} {version}"
        assert text.count('source  = "hashicorp/') == len(re.findall(r'version = "~> ', text)), path
        if 'resource "helm_release"' in text:
            assert text.count('resource "helm_release"') == len(
                re.findall(r"^\s+version\s+= var\.", text, re.MULTILINE)
            )


def test_no_secret_gets_into_the_state() -> None:
    for path in FILES:
        code = re.sub(r"#.*", "", path.read_text())
        assert not re.search(r'resource "(kubernetes_secret\w*|random_password|aws_iam_access_key)"', code), path
        assert not re.search(r'(?i)(password|secret_key|token)\s*=\s*"[^"]', code), path


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_state_is_remote_encrypted_and_locked(name: str) -> None:
    text = (TERRAFORM / "environments" / name / "versions.tf").read_text()
    backend = re.search(r'backend "s3" \{(.*?)\}', text, re.DOTALL)
    assert backend is not None
    assert re.search(r"encrypt\s+= true", backend[1])
    assert re.search(r"use_lockfile\s+= true", backend[1])


def test_the_runner_may_do_the_same_however_it_is_installed() -> None:
    documents = yaml.safe_load_all((ROOT / "k8s/base/rbac.yaml").read_text())
    (role,) = (one for one in documents if one["kind"] == "Role")
    text = (TERRAFORM / "modules/runner/variables.tf").read_text()
    block = text[text.index('variable "role_rules"') :]
    found = re.findall(r"\{ api_groups = (\[.*?\]), resources = (\[.*?\]), verbs = (\[.*?\]) \}", block)
    rules = [dict(zip(("apiGroups", "resources", "verbs"), map(yaml.safe_load, one), strict=True)) for one in found]
    assert rules == role["rules"]


def test_one_s3_server_for_compose_and_terraform() -> None:
    image = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["s3"]["image"]
    assert f'"{image}"' in (TERRAFORM / "environments/local/variables.tf").read_text()


# --- hosted CI -------------------------------------------------------------------------------------------------------


def steps() -> list[dict[str, Any]]:
    """The steps of all jobs."""
    return [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_hosted_ci_runs_what_the_project_runs() -> None:
    commands = "\n".join(step.get("run", "") for step in steps())
    for command in ("bash .ci/run", "make image-check", "make terraform-check", "deploy/kind-check", "docker compose"):
        assert command in commands
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", commands)) <= targets


def test_actions_are_pinned_by_commit_and_may_only_read() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", one)] == []
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job and "permissions" not in job for job in WORKFLOW["jobs"].values())
    checkouts = [step for step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_the_workflow_is_one() -> None:
    if shutil.which("actionlint") is None:
        pytest.skip("actionlint is not installed")
    subprocess.run(["actionlint", ".github/workflows/ci.yml"], cwd=ROOT, check=True)
