"""On a server of S3 that others wrote: conditions, commits and errors are not only those of a test's own."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
import s3fs

import geofield
from geofield import probe
from geofield.errors import AccessError, ConfigurationError, UnsafeStoreError
from geofield.store import Location
from tests.support.gateway import VERSION, Gateway
from tests.support.workload import (
    CORRECTED,
    EVERYBODY,
    SCENES,
    State,
    Work,
    correct,
    extend,
    fields_of,
    in_this_thread,
    state,
    undisturbed,
)

PROGRAM = Gateway.program_or_none()
pytestmark = [
    pytest.mark.s3,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        PROGRAM is None, reason=f"no versitygw: go install github.com/versity/versitygw/cmd/versitygw@{VERSION}"
    ),
]


@contextlib.contextmanager
def serving(folder: Path, *, sidecar: bool = False) -> Iterator[str]:
    """A bucket on it; the environment tells everybody where it is."""
    assert PROGRAM is not None
    try:
        os.setxattr(folder, "user.geofield", b"1")
    except OSError:
        pytest.skip("the file system of temporary files has no extended attributes")
    with Gateway(PROGRAM, folder, sidecar=sidecar) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        boto3.Session().client("s3").create_bucket(Bucket="bucket")
        yield "bucket"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory, _clean_environment: None) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("gateway")) as name:
        yield name


@pytest.fixture
def url(bucket: str) -> str:
    return f"s3://{bucket}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> State:
    """The box as it is in a directory when nobody races."""
    return undisturbed(str(tmp_path_factory.mktemp("fresh") / "store"), 8, CORRECTED)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else writes. A read that meets a write may mix the two here, and a store is refused when that is seen."""
    monkeypatch.setattr(probe, "_probe_contention", lambda *arguments: None)


@pytest.mark.usefixtures("alone")
def test_it_keeps_what_commits_rely_on(url: str) -> None:
    location = Location.parse(url)
    location.probe()
    assert location.list("") == []
    assert location.create("a", b"1")
    assert not location.create("a", b"2")
    assert location.read("a") == b"1"


def test_it_is_refused_where_reads_mix_writes(tmp_path: Path, bucket: str) -> None:
    with serving(tmp_path, sidecar=True) as other:
        location = Location.parse(f"s3://{other}/prefix")
        with pytest.raises(UnsafeStoreError, match="ETag of another"):
            location.probe(swaps=100)  # of 52 looks with 20 each found it


@pytest.mark.usefixtures("alone")
def test_its_own_errors_are_told_in_ours(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Callable[[], object]] = [
        lambda: geofield.create_store("s3://no-such-bucket/prefix"),
        lambda: geofield.open_store("s3://no-such-bucket/prefix"),
        lambda: geofield.create_store("s3://b/prefix"),
    ]
    for ask in asked:
        with pytest.raises(ConfigurationError, match="There is no bucket"):
            ask()
    geofield.create_store(url)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        s3fs.S3FileSystem.clear_instance_cache()  # those that are open go on with what they began with
        with pytest.raises(AccessError, match="Check the credentials"):
            geofield.open_store(url)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_box_comes_out_as_in_a_directory(url: str, expected: State) -> None:
    with in_this_thread():
        work = Work(url).create()
        extend(work, 1, 5, SCENES)
        correct(work, CORRECTED, fields_of(**EVERYBODY))
        extend(work, 6, 8, CORRECTED, fields_of(**EVERYBODY))
    assert state(url) == expected
