"""Logs: their form, the run they belong to, and that no secret is in them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geofield.errors import ConfigurationError
from geofield.store import Location
from orchestrate import cli, logs, masking
from tests.support.smallstore import make_store

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYFAKEKEY"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    logs.configure("human", "info")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    log = logging.getLogger("orchestrate.x")
    with logs.of_run("r1"):
        log.info("%d days\nappended", 3, extra={"box": "b", "date": "2026-11-20"})
    log.debug("not told")
    logging.getLogger("other").info("not told")
    logging.getLogger("other").warning("told")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it broke")
    first, other, broken = lines(capsys.readouterr().err)
    assert first.pop("time")[10] == "T"
    assert first == {
        "level": "info", "logger": "orchestrate.x", "run": "r1", "message": "3 days\nappended", "box": "b",
        "date": "2026-11-20",
    }  # fmt: skip
    assert (other["level"], other["run"], other["message"]) == ("warning", None, "told")
    assert "ValueError: broken" in broken["error"]


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("orchestrate.x")
    logs.configure("human", "debug")
    log.debug("a")
    log.warning("b")
    logs.configure("human", is_stamped=True)
    with logs.of_run("r1"):
        log.info("c")
    plain, warned, stamped = capsys.readouterr().err.splitlines()
    assert (plain, warned) == ("a", "warning: b")
    assert stamped.endswith("Z r1 c")


def test_from_the_environment() -> None:
    logs.configure(environment={"GEOFIELD_LOG": "JSON"})
    assert logs.is_json()
    logs.configure(environment={})
    assert not logs.is_json()
    with pytest.raises(ConfigurationError, match="GEOFIELD_LOG is human or json; got 'xml'"):
        logs.configure(environment={"GEOFIELD_LOG": "xml"})
    with pytest.raises(ConfigurationError, match="GEOFIELD_LOG_LEVEL"):
        logs.configure(environment={"GEOFIELD_LOG_LEVEL": "loud"})


def test_the_run_in_threads_that_know_nothing() -> None:
    seen: list[str | None] = []

    def look() -> None:
        thread = threading.Thread(target=lambda: seen.append(logs.current_run()))
        thread.start()
        thread.join()

    with logs.of_run("r1"):
        look()
        with logs.of_run("r2"):
            look()  # two at work: nobody can tell
            assert logs.current_run() == "r2"
    look()
    assert seen == ["r1", None, None]


def test_a_library_that_writes_by_itself_is_adopted(capsys: pytest.CaptureFixture[str]) -> None:
    own = logging.getLogger("somelibrary.part")
    own.addHandler(logging.StreamHandler())
    own.propagate = False
    logs.configure("json")
    logs.adopt("somelibrary")
    own.warning("told")
    assert [one["message"] for one in lines(capsys.readouterr().err)] == ["told"]


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "DB_PASSWORD", "PC_SDK_SUBSCRIPTION_KEY",
    "SLACK_WEBHOOK", "my_api_key",
])  # fmt: skip
def test_variables_that_are_named_like_secrets(name: str) -> None:
    assert masking.mask(f"a {SECRET} b", {name: SECRET}) == "a *** b"


@pytest.mark.parametrize("name", ["HOME", "AWS_SHARED_CREDENTIALS_FILE", "AWS_REGION", "KEYBOARD", "GIT_AUTHOR_NAME"])
def test_variables_that_are_not(name: str) -> None:
    assert masking.mask(f"a {SECRET} b", {name: SECRET}) == f"a {SECRET} b"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key AKIAIOSFODNN7EXAMPLE.", "key ***."),
        ("https://user:pass@host/x", "https://***@host/x"),
        ("https://a.blob/x.tif?se=2026&sig=ab%2Fcd&sp=r", "https://a.blob/x.tif?se=2026&sig=***&sp=r"),
        ("?X-Amz-Credential=AK/2026&X-Amz-Signature=0a1b", "?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer ***"),
        ("?access_token=abc", "?access_token=***"),
        ("box b: 3 tokens of 10 m", "box b: 3 tokens of 10 m"),
    ],
)
def test_what_has_the_form_of_a_secret(text: str, masked: str) -> None:
    assert masking.mask(text, {}) == masked


def test_short_values_do_not_take_words_out_of_texts() -> None:
    assert masking.mask("it is true", {"USE_TOKEN": "true"}) == "it is true"


def test_everything_in_a_value() -> None:
    value = {SECRET: [SECRET, {"a": (SECRET, 1, None)}]}
    assert masking.mask_all(value, {"X_SECRET": SECRET}) == {"***": ["***", {"a": ["***", 1, None]}]}


@pytest.mark.parametrize("words", [(), ("--log-format", "json"), ("--json",)])
def test_a_secret_of_the_environment_appears_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """A library that tells the key in its error, as boto does with malformed ones."""
    store = make_store(str(tmp_path / "s"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("GEOFIELD_RETRY_WAIT_S", "0")
    monkeypatch.setenv("GEOFIELD_DEBUG", "1")

    def broken(*args: object) -> None:
        raise RuntimeError(f"the key {SECRET} is malformed")

    monkeypatch.setattr("geofield.pipeline.append_days", broken)
    assert cli.main(["run", store.url, "--until", "2025-04-02", *words]) == 1
    said = capsys.readouterr()
    assert "is malformed" in said.out + said.err
    assert SECRET not in said.out + said.err
    receipts = [store.location.read(info.key) for info in store.location.list("runs")]
    assert len(receipts) == 1
    assert b"the key *** is malformed" in receipts[0]
    monkeypatch.setattr(Location, "list", broken)
    assert cli.main(["status", store.url]) == 1
    said = capsys.readouterr()
    assert "is malformed" in said.err
    assert SECRET not in said.err


def test_one_run_id_throughout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(str(tmp_path / "s"))
    assert cli.main(["run", store.url, "--until", "2025-04-03", "--json", "--log-format", "json"]) == 0
    said = capsys.readouterr()
    run = json.loads(said.out)["run_id"]
    found = lines(said.err)
    assert {one["run"] for one in found} == {run}
    assert found[-1]["days_appended"] == 3
    assert any(info.key.endswith(f"/{run}.json") for info in store.location.list("runs"))


def test_complaints_are_lines_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOFIELD_LOG", "json")
    assert cli.main(["run"]) == 2
    (one,) = lines(capsys.readouterr().err)
    assert (one["level"], "No store" in one["message"]) == ("error", True)
    monkeypatch.setenv("GEOFIELD_LOG", "xml")
    assert cli.main(["run"]) == 2
    assert "GEOFIELD_LOG is human or json" in capsys.readouterr().err
