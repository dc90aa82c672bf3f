"""The code location as a whole: loading, partitions in their millions, checks, ticks, instance configurations, Helm."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("dagster", reason="the extra `dagster` is not installed")

import dagster as dg

from geofield import Store
from orchestrate.dagster import jobs, sensors
from orchestrate.dagster.definitions import defs
from orchestrate.dagster.partitions import BOXES, box_and_day, first_day, key_of
from orchestrate.inbox import submit
from tests.support.dagsters import Location, in_folder
from tests.support.smallstore import box, day, feature, make_store, write_fields

ROOT = Path(__file__).resolve().parent.parent
LIMITS = [
    {"key": "dagster/partition/box", "value": {"applyLimitPerUniqueValue": True}, "limit": 1},
    {"key": "geofield/part", "value": "inbox", "limit": 1},
]
DEFAULT_START = "2024-01-01"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    made = make_store(str(tmp_path / "store"))
    monkeypatch.setenv("GEOFIELD_STORE", made.url)
    monkeypatch.setenv("GEOFIELD_RETRY_WAIT_S", "0")
    monkeypatch.setenv("GEOFIELD_DAGSTER_PICTURES", "0")
    return made


@pytest.fixture
def location(store: Store) -> Iterator[Location]:
    with dg.DagsterInstance.ephemeral() as instance:
        found = Location(instance, store)
        found.tick(sensors.boxes)
        yield found


# --- loading ---------------------------------------------------------------------------------------------------------


def test_loads_without_any_connection() -> None:
    script = (
        "import socket\n"
        "def refuse(*told): raise AssertionError('a connection was opened')\n"
        "socket.socket.connect = refuse\n"
        "import dagster, orchestrate.dagster\n"
        "dagster.Definitions.validate_loadable(orchestrate.dagster.defs)\n"
        "import sys\n"
        "print([name for name in ('distributed', 'icechunk', 'deltalake', 'matplotlib') if name in sys.modules])\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GEOFIELD_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_fields_are_no_partitions() -> None:
    graph = defs.resolve_asset_graph()
    names = {key.to_user_string(): graph.get(key).partitions_def for key in graph.get_all_asset_keys()}
    assert {name for name, partitions in names.items() if partitions is not None} == {"box_cube", "field_rows"}
    assert names["fields"] is names["late_fields"] is None


def test_key_of_a_partition() -> None:
    key = key_of("a.b-c_1", dt.date(2025, 4, 1))
    assert str(key) == "a.b-c_1|2025-04-01"
    assert box_and_day(str(key)) == ("a.b-c_1", dt.date(2025, 4, 1))
    assert first_day({}) == dt.date.fromisoformat(DEFAULT_START)
    with pytest.raises(ValueError, match="GEOFIELD_DAGSTER_START is a day"):
        first_day({"GEOFIELD_DAGSTER_START": "soon"})


QUERY = """query Page($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionKeysByDimension { name partitionKeys }
  partitionStats { numMaterialized numPartitions }
  assetPartitionStatuses { ... on MultiPartitionStatuses { ranges { primaryDimStartKey primaryDimEndKey
    secondaryDim { ... on DefaultPartitionStatuses { materializedPartitions } } } } } } } }"""


def test_two_million_partitions_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 boxes x 3 years: what the page of an asset asks for, from a location that is loaded for it."""
    pytest.importorskip("dagster_graphql", reason="it comes with the webserver of Dagster")
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget
    from dagster_graphql.test.utils import execute_dagster_graphql

    start = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=3 * 365)
    monkeypatch.setenv("GEOFIELD_STORE", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GEOFIELD_DAGSTER_START", start.isoformat())
    with in_folder(tmp_path) as instance:
        instance.add_dynamic_partitions(str(BOXES.name), [f"box-{number:04}" for number in range(2000)])
        for number in range(3):
            key = key_of(f"box-{number:04}", start + dt.timedelta(days=number))
            instance.report_runless_asset_event(dg.AssetMaterialization("box_cube", partition=key))
        module = ModuleTarget("orchestrate.dagster", attribute=None, working_directory=str(ROOT), location_name=None)
        with WorkspaceProcessContext(instance, module) as workspace:
            began = time.perf_counter()
            for name, materialised in (("box_cube", 3), ("field_rows", 0)):
                context = workspace.create_request_context()
                found = execute_dagster_graphql(context, QUERY, variables={"key": {"path": [name]}})
                page = found.data["assetNodeOrError"]
                dimensions = {one["name"]: len(one["partitionKeys"]) for one in page["partitionKeysByDimension"]}
                assert dimensions == {"box": 2000, "day": 3 * 365}
                assert page["partitionStats"]["numPartitions"] == 2000 * 3 * 365
                assert page["partitionStats"]["numMaterialized"] == materialised
                assert len(page["assetPartitionStatuses"]["ranges"]) == materialised
            assert time.perf_counter() - began < 10


# --- ticks -----------------------------------------------------------------------------------------------------------


def test_boxes_are_partitions_whoever_adds_them(location: Location, store: Store) -> None:
    store.add_box(box("c"))
    location.tick(sensors.boxes)
    assert sorted(location.instance.get_dynamic_partitions("boxes")) == ["b", "c"]
    store.remove_box("b")
    location.tick(sensors.boxes)
    assert location.instance.get_dynamic_partitions("boxes") == ["c"]
    assert "as known" in location.tick(sensors.boxes).skip_message


def test_schedule_asks_for_what_is_due(tmp_path: Path, store: Store) -> None:
    store.add_box(box("slow", settle_days=3))
    store.add_box(box("old", start="2023-12-30"))  # before the first partition
    with in_folder(tmp_path) as instance:
        location = Location(instance, store)
        assert not location.schedule(day(2))  # no box is a partition yet
        location.tick(sensors.boxes)
        assert [one.partition_key for one in location.schedule(day(2))] == ["b|2025-04-01"]
        assert location.run_day(1).success
        assert not location.schedule(day(2))
        keys = [one.partition_key for one in location.schedule(day(20))]
        assert keys[:3] == ["b|2025-04-02", "b|2025-04-03", "b|2025-04-04"]
        assert [key.split("|")[0] for key in keys] == ["b"] * jobs.CATCH_UP + ["slow"] * jobs.CATCH_UP
        requests = location.schedule(day(3))
        assert [one.tags["dagster/partition/box"] for one in requests] == ["b"]


def test_late_fields_follow_fields_and_nothing_else(location: Location) -> None:
    with pytest.warns(dg.BetaWarning):
        first = dg.evaluate_automation_conditions(defs, instance=location.instance)
    cursor = first.cursor
    for event, requested in (
        (dg.AssetMaterialization("box_cube", partition=key_of("b", day(1))), 0),
        (dg.AssetMaterialization("fields"), 1),
        (dg.AssetMaterialization("boxes"), 0),
    ):
        location.instance.report_runless_asset_event(event)
        with pytest.warns(dg.BetaWarning):
            found = dg.evaluate_automation_conditions(defs, instance=location.instance, cursor=cursor)
        cursor = found.cursor
        assert found.total_requested == requested, event.asset_key
        assert found.get_num_requested(dg.AssetKey("late_fields")) == requested


@pytest.mark.parametrize("files", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_inbox_of_many_files_is_looked_at_within_a_tick(location: Location, store: Store, files: int) -> None:
    """A tick may take a minute; no file is opened, so that the content does not matter."""
    folder = Path(store.url) / "inbox" / "fields"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        (folder / f"{number:06}.geojson").touch()
        if number % 2:
            (folder / f"{number:06}.geojson.options.json").touch()
    began = time.perf_counter()
    (request,) = location.tick(sensors.inbox).run_requests
    assert time.perf_counter() - began < 30
    assert request.tags["geofield/files"] == str(files)
    assert location.cursor is not None
    assert len(location.cursor) < 200


# --- checks ----------------------------------------------------------------------------------------------------------


def checked(location: Location) -> dict[str, tuple[bool, dict[str, Any]]]:
    result = location.run("checks")
    assert result.success
    return {
        one.check_name: (one.passed, {name: value.value for name, value in one.metadata.items()})
        for one in result.get_asset_check_evaluations()
    }


def test_checks_tell_what_is_wrong(location: Location, store: Store, tmp_path: Path) -> None:
    submit(store, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0))])
    location.read_inbox()
    for number in range(1, 9):
        assert location.run_day(number).success
    found = checked(location)
    assert {name: passed for name, (passed, _) in found.items()} == {
        "is_fresh": False, "invariants": True, "agreement": True,
    }  # fmt: skip
    (stale,) = found["is_fresh"][1]["stale_boxes"].records
    assert stale.data["last_day"] == str(day(8))
    rows = store.results("b")
    table = rows.table.open().table
    assert table is not None
    done = table.update(updates={"ndvi_valid": "0.123"})  # somebody else's hand
    assert done["num_updated_rows"] == 8
    passed, shown = checked(location)["agreement"]
    assert not passed
    assert "do not say what the cube gives" in shown["found"]
    assert "A" in shown["found"]


def test_checks_come_with_no_day(location: Location) -> None:
    (only,) = location.run_day(1).get_asset_check_evaluations()
    assert only.check_name == "null_share"


# --- instances -------------------------------------------------------------------------------------------------------


def instance_of(folder: Path, text: str) -> dg.DagsterInstance:
    (folder / "dagster.yaml").write_text(text)
    return dg.DagsterInstance.from_config(str(folder))


@contextlib.contextmanager
def postgres_server() -> Iterator[int]:
    """A server of its own on loopback; as root it runs under the account `postgres`, as it refuses to run as root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    programs = found[-1].parent if found else Path(shutil.which("initdb") or "").parent
    if not (programs / "initdb").is_file() or not (programs / "postgres").is_file():
        pytest.skip("no Postgres server is installed here (initdb, postgres)")
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("Postgres does not run as root, and there is no account `postgres`")
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory() as name:  # not below pytest's folders, which are for their owner alone
        if user:
            shutil.chown(name, user["user"], user["group"])
        yield from _serving(programs, Path(name), user)


def _serving(programs: Path, folder: Path, user: dict[str, Any]) -> Iterator[int]:
    data = folder / "data"
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-U", "dagster", "--auth=trust", "-N"],
        cwd=folder, capture_output=True, text=True, check=False, **user,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(port), *options], cwd=folder, stdout=log, stderr=log, **user
        )
    try:
        limit = time.monotonic() + 60
        ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-d", "postgres"]
        while subprocess.run(ready, check=False).returncode:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < limit, (folder / "log").read_text()
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def assert_limits(instance: dg.DagsterInstance) -> None:
    config = instance.get_concurrency_config()
    assert config.run_queue_config is not None
    assert config.run_queue_config.tag_concurrency_limits == LIMITS
    assert config.pool_config.default_pool_limit == 4
    assert instance.run_retries_enabled
    assert instance.run_retries_max_retries == 2
    assert not instance.run_retries_retry_on_asset_or_op_failure
    assert instance.run_monitoring_enabled
    assert not instance.telemetry_enabled


def test_local_instance(tmp_path: Path, store: Store) -> None:
    with instance_of(tmp_path, (ROOT / "deploy/dagster/local.yaml").read_text()) as instance:
        assert_limits(instance)
        location = Location(instance, store)
        location.tick(sensors.boxes)
        assert location.run_day(1).success


def test_postgres_instance(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped configuration, on a server of the test's: a refused day waits and is asked for in its turn."""
    pytest.importorskip("dagster_postgres")
    monkeypatch.setenv("DAGSTER_POSTGRES_PASSWORD", "of no account")
    text = (ROOT / "deploy/dagster/dagster.yaml").read_text()
    (tmp_path / "home").mkdir()
    with postgres_server() as port:
        for old, new in (
            ("hostname: postgres", "hostname: 127.0.0.1"), ("port: 5432", f"port: {port}"),
            ("db_name: dagster", "db_name: postgres"), ("/tmp/dagster", str(tmp_path / "home")),
        ):  # fmt: skip
            assert old in text
            text = text.replace(old, new)
        with instance_of(tmp_path / "home", text) as instance:
            assert_limits(instance)
            location = Location(instance, store)
            location.tick(sensors.boxes)
            assert not location.run_day(2).success
            assert location.run_day(1).success
            requests = location.tick(sensors.early_days).run_requests
            assert [one.partition_key for one in requests] == [str(key_of("b", day(2)))]
            assert all(result.success for result in location.launch(requests, "box_days"))
            assert instance.get_materialized_partitions(dg.AssetKey("box_cube")) == {
                str(key_of("b", day(number))) for number in (1, 2)
            }
    assert store.cube("b").head().last == day(2)


def test_helm_values() -> None:
    """One daemon, limits as on one machine, a code location of its own under the name that the pages look for."""
    core = yaml.safe_load((ROOT / "k8s/dagster/values.yaml").read_text())
    code = yaml.safe_load((ROOT / "k8s/dagster/code-location.yaml").read_text())
    queue = core["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queue["tagConcurrencyLimits"] == LIMITS
    assert not core["dagster-user-deployments"]["enableSubchart"]
    (server,) = core["dagsterWebserver"]["workspace"]["servers"]
    (deployment,) = code["deployments"]
    assert (server["host"], server["port"]) == (deployment["name"], deployment["port"])
    assert deployment["codeServerArgs"] == ["--module-name", "orchestrate.dagster"]
    assert code["postgresqlSecretName"] == core["global"]["postgresqlSecretName"]
