"""The plain objects of a location, on a directory and on S3."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import FlexibleChecksumError

import geofield
from geofield.errors import AccessError, ConfigurationError, NotFoundError, StoreUnavailableError, UnsafeStoreError
from geofield.s3 import Requests
from geofield.store import Location
from orchestrate.receipt import recent_receipts

if TYPE_CHECKING:
    from tests.support.s3server import S3Server


def test_objects_are_written_read_listed_and_removed(store_url: str) -> None:
    location = Location.parse(store_url)
    location.write("inbox/fields/a b+c#1 100%.geojson", b"one")
    location.write("inbox/fields/a b+c#1 100%.geojson", b"three")
    location.write("boxes/t.json", b"{}")
    assert location.read("inbox/fields/a b+c#1 100%.geojson") == b"three"
    infos = location.list("inbox")
    assert [(info.key, info.size) for info in infos] == [("inbox/fields/a b+c#1 100%.geojson", 5)]
    assert infos[0].modified.utcoffset() is not None
    assert location.exists("boxes/t.json")
    assert not location.exists("boxes/t")
    location.move("boxes/t.json", "boxes/u.json")
    assert [info.key for info in location.list("boxes")] == ["boxes/u.json"]
    location.delete("boxes/u.json")
    location.delete("boxes/u.json")
    assert location.list("boxes") == []


def test_a_missing_object_is_named(store_url: str) -> None:
    with pytest.raises(NotFoundError, match=r"no object 'boxes/x\.json'"):
        Location.parse(store_url).read("boxes/x.json")


def test_one_of_many_creators_wins(store_url: str) -> None:
    location = Location.parse(store_url)
    for number in range(5):
        key, won, barrier = f"runs/{number}", [], threading.Barrier(8)

        def create(writer: int, key: str = key, won: list[int] = won, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            if location.create(key, str(writer).encode()):
                won.append(writer)

        threads = [threading.Thread(target=create, args=(writer,)) for writer in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert location.read(key) == str(won[0]).encode()


def test_a_good_store_passes_the_probe_and_keeps_no_trace_of_it(store_url: str) -> None:
    location = Location.parse(store_url)
    location.probe()
    assert location.list("") == []


@pytest.mark.s3
@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_told_as_such() -> None:
    location = Location.parse("s3://no-such-bucket/prefix")
    asked: list[Callable[[], object]] = [
        location.probe,
        lambda: location.read("a"),
        lambda: location.create("a", b""),
        lambda: location.write("a", b""),
        lambda: geofield.open_store(location.url),
        lambda: geofield.create_store(location.url),
    ]
    for ask in asked:
        with pytest.raises(ConfigurationError, match="There is no bucket 'no-such-bucket'"):
            ask()


@pytest.mark.s3
@pytest.mark.usefixtures("s3")
def test_a_name_that_no_bucket_can_have_is_told_as_such() -> None:
    with pytest.raises(ConfigurationError, match=r"There is no bucket 'BAD_name'.*a to z, 0 to 9"):
        geofield.create_store("s3://BAD_name/prefix")


@pytest.mark.s3
def test_a_refusal_is_not_taken_for_a_broken_description(s3_url: str, s3: S3Server) -> None:
    store = geofield.create_store(s3_url)
    asked: list[Callable[[], object]] = [
        lambda: geofield.open_store(s3_url),
        lambda: store.box("b"),
        lambda: recent_receipts(store),
    ]
    store.location.write("runs/2026/01/20260101T000000Z-00000000.json", b"{}")
    for ask in asked:
        with (
            s3.interfering(lambda method, key: 403),
            pytest.raises(AccessError, match=r"[a-z]\. Check the credentials"),
        ):
            ask()


@pytest.mark.s3
@pytest.mark.parametrize("condition", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused_by_name(
    s3_url: str, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Requests.put
    ignored = condition.replace("-", "")

    async def careless(self: Requests, key: str, data: bytes, **conditions: str) -> str | None:
        return await honest(self, key, data, **{name: value for name, value in conditions.items() if name != ignored})

    monkeypatch.setattr(Requests, "put", careless)
    with pytest.raises(UnsafeStoreError, match=f"does not honour {condition}"):
        Location.parse(s3_url).probe()


@pytest.mark.s3
def test_a_server_that_looks_at_a_condition_before_it_writes_is_refused(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Requests.put

    async def late(self: Requests, key: str, data: bytes, IfMatch: str = "", **conditions: str) -> str | None:  # noqa: N803
        if IfMatch and (await self.get(key))[1] != IfMatch:
            return None
        await asyncio.sleep(0.02)
        return await honest(self, key, data, **conditions)

    monkeypatch.setattr(Requests, "put", late)
    with pytest.raises(UnsafeStoreError, match="does not keep If-Match when two writers come at once: both replace"):
        Location.parse(s3_url).probe()
    assert Location.parse(s3_url).list("") == []


@pytest.mark.s3
@pytest.mark.parametrize("notices", [False, True])
def test_a_server_that_mixes_what_two_wrote_is_refused(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, notices: bool
) -> None:
    honest = Requests.get

    async def mixed(self: Requests, key: str) -> tuple[bytes, str]:
        content, _ = await honest(self, key)
        await asyncio.sleep(0.02)
        after, etag = await honest(self, key)
        if notices and after != content:
            raise StoreUnavailableError("S3 did not read") from FlexibleChecksumError(error_msg="another checksum")
        return content, etag

    monkeypatch.setattr(Requests, "get", mixed)
    with pytest.raises(UnsafeStoreError, match="content of one write and the ETag of another"):
        Location.parse(s3_url).probe()


@pytest.mark.s3
def test_an_answer_that_does_not_come_is_no_missing_guarantee(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third request of those that meet fails, or is done and its answer lost."""
    asked = itertools.count()
    for name in ("get", "put"):
        honest = getattr(Requests, name)

        async def failing(self: Requests, *what: object, honest: Any = honest, **condition: str) -> object:
            number = next(asked)
            if number > 5 and number % 3 == 0:
                if number % 2:
                    await honest(self, *what, **condition)
                raise StoreUnavailableError("S3 did not answer")
            return await honest(self, *what, **condition)

        monkeypatch.setattr(Requests, name, failing)
    Location.parse(s3_url).probe()
    assert next(asked) > 30


@pytest.mark.parametrize("key", ["../x", "a/../../x"])
def test_a_key_stays_inside(store_url: str, key: str) -> None:
    with pytest.raises(ConfigurationError, match="leaves the store"):
        Location.parse(store_url).write(key, b"")


def test_a_store_may_be_named_by_a_path_that_goes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("here", "there/below"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there" / "below")
    (tmp_path / "s").symlink_to(tmp_path / "t")
    monkeypatch.chdir(tmp_path / "here")
    assert geofield.create_store("../store").url == str(tmp_path / "store")
    for name in ("../store", f"{tmp_path}/here/.././store", f"file://{tmp_path}/here/../store", "link/../../store"):
        assert geofield.open_store(name).url == str(tmp_path / "store")
    assert Location.parse("link/../new").url == str(tmp_path / "there" / "new")
    assert Location.parse("../s").url == str(tmp_path / "s")
    assert Location.parse("link").url == str(tmp_path / "here" / "link")


def test_credentials_are_not_taken_and_never_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="from the environment"):
        Location.parse("s3://bucket/x", {"aws_secret_access_key": "hunter2hunter2"})
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    assert b"hunter2" not in pickle.dumps(Location.parse("s3://bucket/x", {"region": "eu-west-1"}))


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "http://host/bucket"])
def test_what_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"give a directory or s3://bucket/prefix"):
        Location.parse(url)
