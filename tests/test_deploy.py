"""What deploys geofield: the image, compose.yaml, the scripts in deploy/, the locks they install from."""

from __future__ import annotations

import http.server
import importlib.util
import re
import shutil
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrate.metrics import Metrics, served

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = {name for name, one in SERVICES.items() if "build" in one}
PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")


def instructions(name: str) -> list[str]:
    """What a Dockerfile says after an instruction, line by line."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(None, 1)[1] for line in joined.splitlines() if line.startswith(f"{name} ")]


# --- locks -----------------------------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, str]:
    """Lines of a lock without hashes: name and marker -> version."""
    lines = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    found = {}
    for line in lines:
        requirement = line.partition("--hash=")[0]
        assert "--hash=sha256:" in line, f"{requirement} has no hash"
        package, _, rest = requirement.partition("==")
        version, _, marker = rest.partition(";")
        found[f"{package} {marker.strip()}".strip()] = version.strip()
    return found


@pytest.mark.parametrize("extra", ["kube", "dagster"])
def test_the_lock_of_an_extra_is_the_lock_of_what_runs_and_more(extra: str) -> None:
    base, more = pins("requirements.txt"), pins(f"requirements-{extra}.txt")
    other = {name: (version, more.get(name)) for name, version in base.items() if more.get(name) != version}
    assert not other
    assert any(name.startswith({"kube": "dask-kubernetes", "dagster": "dagster"}[extra]) for name in more)


def test_charts_are_those_of_the_locked_versions() -> None:
    operator = (ROOT / "terraform/modules/dask-operator/variables.tf").read_text()
    assert f'"{pins("requirements-kube.txt")["dask-kubernetes"]}"' in operator
    dagster = (ROOT / "terraform/modules/dagster/variables.tf").read_text()
    assert f'"{pins("requirements-dagster.txt")["dagster"]}"' in dagster


# --- the image -------------------------------------------------------------------------------------------------------


def test_the_image_is_built_from_a_pinned_base_and_locks_with_hashes() -> None:
    (base,) = (value for value in instructions("ARG") if value.startswith("PYTHON_IMAGE="))
    assert PINNED.fullmatch(base.partition("=")[2])
    assert instructions("FROM") == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]
    installs = [step for step in instructions("RUN") if "pip install" in step]
    assert len(installs) == 2
    assert "--require-hashes --only-binary=:all: -r lock.txt" in installs[0]
    assert "--no-deps --no-build-isolation ." in installs[1]
    assert not instructions("ADD"), "ADD fetches"
    (lock,) = (value for value in instructions("ARG") if value.startswith("LOCK="))
    assert lock == "LOCK=requirements-kube.txt"


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    *_, last = instructions("USER")
    user, group = last.split(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    assert DOCKERFILE.index("\nUSER ") < DOCKERFILE.index("\nENTRYPOINT ")
    assert instructions("ENTRYPOINT") == ['["geofield"]']
    assert "healthcheck" in instructions("HEALTHCHECK")[0]


def test_nothing_gets_into_the_build_but_what_is_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for step in instructions("COPY")
        if not step.startswith("--from")
        for source in step.split()[:-1]
        if "$" not in source
    }
    assert copied <= allowed
    assert all((ROOT / name).exists() for name in allowed)


# --- compose.yaml ----------------------------------------------------------------------------------------------------


def test_every_image_is_pinned() -> None:
    for name, service in SERVICES.items():
        if name in OWN:
            version = PROJECT["version"]
            assert re.fullmatch(rf"\$\{{GEOFIELD_(DAGSTER_)?IMAGE:-geofield(-dagster)?:{version}\}}", service["image"])
        else:
            assert PINNED.fullmatch(service["image"]), name


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_may_do_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), "open to the network"
    assert "healthcheck" in service


def test_no_password_is_written_down() -> None:
    secrets = [
        (name, key, value)
        for name, service in SERVICES.items()
        for key, value in service.get("environment", {}).items()
        if re.search(r"SECRET|PASSWORD|ACCESS_KEY", key)
    ]
    assert len(secrets) > 10
    for name, key, value in secrets:
        assert re.fullmatch(r"\$\{[A-Z0-9_]+:\?.+\}", value), f"{name}: {key}"


def test_what_is_mounted_exists() -> None:
    mounted = [
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert {"./docs/monitoring/alerts.yaml", "./docs/monitoring/grafana.json", "./deploy/prometheus.yaml"} <= set(
        mounted
    )
    assert all((ROOT / path).exists() for path in mounted)
    for path in sorted((ROOT / "deploy").rglob("*.yaml")):
        assert isinstance(yaml.safe_load(path.read_text()), dict), path


def test_prometheus_asks_services_that_there_are() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yaml").read_text())
    targets = [one for job in config["scrape_configs"] for static in job["static_configs"] for one in static["targets"]]
    assert {target.partition(":")[0] for target in targets} <= set(SERVICES)
    assert "runner:9464" in targets
    assert config["rule_files"] == ["alerts.yaml"]


def test_only_the_core_starts_without_a_profile() -> None:
    core = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert core == {"s3", "seed", "scheduler", "worker", "runner"}


# --- scripts ---------------------------------------------------------------------------------------------------------

SCRIPTS = [
    "deploy/env",
    "deploy/slim",
    "deploy/healthcheck",
    "deploy/image-check",
    "deploy/kind-check",
    "terraform/check",
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_executable_and_can_be_read(name: str) -> None:
    path = ROOT / name
    assert path.stat().st_mode & stat.S_IXUSR
    shell = path.read_text().splitlines()[0].rpartition("/")[2].split()[-1]
    if shell != "python3":
        subprocess.run([shell, "-n", str(path)], check=True)


def test_passwords_are_made_once_and_differ(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        for _ in range(2):
            subprocess.run([str(ROOT / "deploy/env"), str(tmp_path / name)], check=True, capture_output=True)
        texts.append((tmp_path / name).read_text())
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    values = [line.partition("=")[2] for line in "\n".join(texts).split()]
    assert len(values) == len(set(values)) == 8
    assert all(re.fullmatch(r"[0-9a-f]{40}", value) for value in values)
    asked = set(re.findall(r"\$\{([A-Z0-9_]+):\?", (ROOT / "compose.yaml").read_text()))
    assert asked == {line.partition("=")[0] for line in texts[0].split()}


@pytest.mark.skipif(shutil.which("docker") is not None or shutil.which("podman") is not None, reason="it would build")
def test_the_check_of_the_image_says_why_it_is_skipped() -> None:
    done = subprocess.run([str(ROOT / "deploy/image-check")], capture_output=True, text=True, check=True)
    assert "SKIPPED: the image was not checked, since there is neither docker nor podman" in done.stdout


@pytest.fixture
def healthcheck() -> Any:
    """The script as a module."""
    loader = SourceFileLoader("healthcheck", str(ROOT / "deploy/healthcheck"))
    spec = importlib.util.spec_from_loader("healthcheck", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    was, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = was
    return module


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of a server that answers, but not with geofield's metrics."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"up 1\n")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_well_are_those_whose_metrics_answer(healthcheck: Any, elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = b"geofield\0watch\0s3://bucket/store\0"
    monkeypatch.setattr(healthcheck.Path, "read_bytes", lambda _: command)
    with served(Metrics(), "127.0.0.1:0") as port:
        monkeypatch.setenv("GEOFIELD_METRICS", f"0.0.0.0:{port}")
        assert healthcheck.main([]) is None
    assert "refused" in healthcheck.main([])
    monkeypatch.setenv("GEOFIELD_METRICS", elsewhere.removeprefix("http://").rstrip("/"))
    assert "without geofield_settings_valid" in healthcheck.main([])
    monkeypatch.setenv("GEOFIELD_METRICS", "9464")
    assert "it should be HOST:PORT" in healthcheck.main([])


def test_a_job_with_an_end_is_well_as_long_as_it_runs(healthcheck: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthcheck.Path, "read_bytes", lambda _: b"geofield\0run\0/store\0")
    assert healthcheck.main([]) is None


def test_an_address_has_to_answer(healthcheck: Any, elsewhere: str) -> None:
    assert healthcheck.main([elsewhere]) is None
    assert "refused" in healthcheck.main(["http://127.0.0.1:1/"])
    assert healthcheck.main(["nonsense"]) is not None
