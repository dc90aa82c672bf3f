"""Options, Hypothesis profiles and the fixtures that every test may ask for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.support.s3server import S3Server

ROOT = Path(__file__).resolve().parent.parent

# `ci` is the default everywhere: a shared machine makes any deadline a lie. `long` is for a person looking for trouble.
hypothesis.settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True, database=None)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Left from the user's own shell, these would send a test to a real account or a real bucket.
FOREIGN_VARIABLES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "GEOFIELD_STORE",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say where the real data lies."""
    parser.addoption(
        "--shared",
        metavar="DIR",
        type=Path,
        default=None,
        help="folder with real data, given as --shared=DIR; by default ../shared beside the project, where it exists",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a folder that holds no data before any test runs, instead of skipping what was asked for."""
    given: Path | None = config.getoption("--shared")
    if given is not None and not (given / "data").is_dir():
        raise pytest.UsageError(f"--shared={given}: there is no folder {given / 'data'}.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what reads real data, so that `-m accept` runs all of it."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.accept)


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Path:
    """The folder with real data; skips where there is none. Read from it, never write into it."""
    given: Path | None = request.config.getoption("--shared")
    folder = (given or ROOT.parent / "shared").resolve()
    if not (folder / "data").is_dir():
        pytest.skip("no real data here: pass --shared=DIR, a folder that holds data/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Take the user's own cloud account and store out of reach of every test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FOREIGN_VARIABLES:
            patch.delenv(name, raising=False)
        nothing = tmp_path_factory.mktemp("aws") / "empty"
        nothing.touch()
        patch.setenv("AWS_CONFIG_FILE", str(nothing))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nothing))
        yield


@pytest.fixture(scope="session")
def s3(_clean_environment: None) -> Iterator[S3Server]:
    """An S3 server of this session; the environment tells every AWS tool, child processes included, where it is."""
    from tests.support.s3server import S3Server  # moto takes a second to load: only tests on S3 pay it

    with S3Server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def bucket(s3: S3Server) -> str:
    """A bucket of this session."""
    return s3.create_bucket()


@pytest.fixture
def s3_url(bucket: str) -> str:
    """`s3://bucket/prefix` where nothing is yet."""
    return f"s3://{bucket}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.s3)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a store where nothing is yet: a directory, then an S3 prefix."""
    if request.param == "directory":
        return str(tmp_path / "store")
    # asked for here, so that a test on a directory starts no server
    url: str = request.getfixturevalue("s3_url")
    return url
