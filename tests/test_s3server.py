"""The S3 server of the tests: what is proved on it about races is worth as much as its conditional writes."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import botocore.exceptions
import deltalake
import icechunk
import numpy as np
import pyarrow as pa
import pytest
import s3fs
import zarr

from tests.support.s3server import SECRET_KEY, S3Server

pytestmark = pytest.mark.s3
ROOT = Path(__file__).resolve().parent.parent


def status_of(call: Callable[[], Any]) -> int:
    """HTTP status of a boto3 call."""
    try:
        return int(call()["ResponseMetadata"]["HTTPStatusCode"])
    except botocore.exceptions.ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def test_create_only_succeeds_once(s3: S3Server, bucket: str) -> None:
    client = s3.client()

    def put() -> int:
        return status_of(lambda: client.put_object(Bucket=bucket, Key="once", Body=b"x", IfNoneMatch="*"))

    assert [put(), put()] == [200, 412]
    client.delete_object(Bucket=bucket, Key="once")
    assert put() == 200


def test_stale_etag_is_refused(s3: S3Server, bucket: str) -> None:
    client = s3.client()
    first = client.put_object(Bucket=bucket, Key="swap", Body=b"1")["ETag"]

    def swap(body: bytes, etag: str) -> int:
        return status_of(lambda: client.put_object(Bucket=bucket, Key="swap", Body=body, IfMatch=etag))

    assert swap(b"2", first) == 200
    assert swap(b"3", first) == 412
    assert client.get_object(Bucket=bucket, Key="swap")["Body"].read() == b"2"
    assert status_of(lambda: client.put_object(Bucket=bucket, Key="nothing", Body=b"", IfMatch=first)) == 404


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that change places 5,000 times as often: without the server's lock the race below has many winners."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("condition", ["create", "swap"])
def test_one_of_twenty_racing_writers_wins(s3: S3Server, bucket: str, condition: str) -> None:
    client = s3.client()
    for round_number in range(20):
        key = f"race-{condition}-{round_number}"
        arguments: dict[str, Any] = {"IfNoneMatch": "*"}
        if condition == "swap":
            arguments = {"IfMatch": client.put_object(Bucket=bucket, Key=key, Body=b"start")["ETag"]}
        together = threading.Barrier(20)

        def write(writer: int, key: str = key, arguments: dict[str, Any] = arguments, gate: Any = together) -> int:
            gate.wait()
            return status_of(lambda: client.put_object(Bucket=bucket, Key=key, Body=str(writer).encode(), **arguments))

        with ThreadPoolExecutor(20) as pool:
            statuses = list(pool.map(write, range(20)))
        assert sorted(statuses) == [200] + [412] * 19
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == str(statuses.index(200)).encode()


def test_requests_and_bytes_are_counted(s3: S3Server) -> None:
    client, name = s3.client(), s3.create_bucket()
    with s3.counting() as outer:
        client.put_object(Bucket=name, Key="a/b c", Body=b"12345")
        with s3.counting() as inner:
            assert client.get_object(Bucket=name, Key="a/b c")["Body"].read() == b"12345"
            client.list_objects_v2(Bucket=name, Prefix="a/")
    client.delete_object(Bucket=name, Key="a/b c")
    assert inner.log == [("GET", "a/b c"), ("GET", "a/")]
    assert inner.operations == {"GET": 1, "LIST": 1}
    assert inner.requests[0].bytes_out == 5
    assert outer.methods == {"PUT": 1, "GET": 2}
    # boto3 frames the body in chunks with a checksum, so a little more than the five bytes travels
    assert 5 <= outer.bytes_in < 100
    assert outer.keys("PUT") == ["a/b c"]
    assert [request.is_write for request in outer.requests] == [True, False, False]


def test_a_server_can_ignore_conditions(s3: S3Server, bucket: str) -> None:
    client = s3.client()

    def put() -> int:
        return status_of(lambda: client.put_object(Bucket=bucket, Key="ignored", Body=b"x", IfNoneMatch="*"))

    with s3.ignoring_conditions(), s3.counting() as counts:
        assert [put(), put()] == [200, 200]
    assert put() == 412
    assert {request.condition for request in counts.requests} == {"If-None-Match"}


def test_a_test_can_refuse_requests(s3: S3Server, bucket: str) -> None:
    client = s3.client()
    with s3.interfering(lambda method, key: 503 if method == "PUT" and key == "busy" else None):
        assert status_of(lambda: client.put_object(Bucket=bucket, Key="busy", Body=b"x")) == 503
        assert status_of(lambda: client.put_object(Bucket=bucket, Key="free", Body=b"x")) == 200
    assert status_of(lambda: client.get_object(Bucket=bucket, Key="busy")) == 404


def test_s3fs_finds_it(s3_url: str) -> None:
    files = s3fs.S3FileSystem()
    files.pipe(f"{s3_url}/folder/object", b"bytes")
    with pytest.raises(FileExistsError):
        files.pipe_file(f"{s3_url}/folder/object", b"others", mode="create")
    assert files.cat(f"{s3_url}/folder/object") == b"bytes"
    assert [name.rsplit("/", 1)[1] for name in files.ls(f"{s3_url}/folder", refresh=True)] == ["object"]


def icechunk_repository(url: str) -> icechunk.Repository:
    """A repository at a URL, found the way a user's process finds it."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    storage = icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix,
        region=os.environ["AWS_REGION"],
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        allow_http=True,
        force_path_style=True,
        from_env=True,
    )
    return icechunk.Repository.open_or_create(storage)


def test_icechunk_finds_it(s3_url: str) -> None:
    repository = icechunk_repository(s3_url)
    # what travels to a worker carries no key
    assert SECRET_KEY.encode() not in pickle.dumps(repository.writable_session("main").fork())
    session = repository.writable_session("main")
    array = zarr.create_array(session.store, name="a", shape=(4,), chunks=(2,), dtype="i4")
    array[:] = np.arange(4, dtype="i4")
    session.commit("four numbers")
    read = zarr.open_array(icechunk_repository(s3_url).readonly_session("main").store, path="a", mode="r")
    np.testing.assert_array_equal(read[:], [0, 1, 2, 3])


def test_icechunk_publishes_once(s3_url: str) -> None:
    """Two writers swap `main` from the same tip: the second is refused."""
    repository = icechunk_repository(s3_url)
    tip = repository.lookup_branch("main")
    for name in ("one", "two"):
        repository.create_branch(name, tip)
        session = repository.writable_session(name)
        zarr.create_group(session.store, path=name)
        session.commit(name)
    repository.reset_branch("main", repository.lookup_branch("one"), from_snapshot_id=tip)
    with pytest.raises(icechunk.IcechunkError, match="conflict"):
        repository.reset_branch("main", repository.lookup_branch("two"), from_snapshot_id=tip)
    assert repository.lookup_branch("main") == repository.lookup_branch("one")


def test_deltalake_finds_it(s3_url: str) -> None:
    deltalake.write_deltalake(s3_url, pa.table({"x": [1, 2]}))
    deltalake.write_deltalake(s3_url, pa.table({"x": [3]}), mode="append")
    table = deltalake.DeltaTable(s3_url)
    assert table.version() == 1
    assert sorted(table.to_pyarrow_table()["x"].to_pylist()) == [1, 2, 3]


def test_deltalake_appends_race_safely(s3_url: str) -> None:
    deltalake.write_deltalake(s3_url, pa.table({"x": [0]}))

    def append(x: int) -> None:
        deltalake.write_deltalake(s3_url, pa.table({"x": [x]}), mode="append")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, range(1, 7)))
    table = deltalake.DeltaTable(s3_url)
    assert table.version() == 6
    assert sorted(table.to_pyarrow_table()["x"].to_pylist()) == list(range(7))


def test_another_process_finds_it(s3: S3Server, s3_url: str) -> None:
    code = f"import s3fs; s3fs.S3FileSystem().pipe('{s3_url}/from-a-child', b'hello')"
    with s3.counting() as counts:
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert [key.rsplit("/", 1)[1] for key in counts.keys("PUT")] == ["from-a-child"]


def test_it_runs_as_a_script() -> None:
    command = [sys.executable, "-m", "tests.support.s3server", "--port", "0", "--bucket", "made"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            word, url = process.stdout.readline().split()
            assert word == "url"
            files = s3fs.S3FileSystem(endpoint_url=url, key="any", secret="any", skip_instance_cache=True)
            files.pipe("made/object", b"1")
            assert files.cat("made/object") == b"1"
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_store_of_each_kind_starts_empty(store_url: str) -> None:
    if store_url.startswith("s3://"):
        assert not s3fs.S3FileSystem().exists(store_url)
    else:
        assert not Path(store_url).exists()
