"""geofield doctor and completion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from geofield import Store
from orchestrate import cli, doctor
from tests.support.smallstore import make_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(str(tmp_path / "store"))


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    status = cli.main(["doctor", *words, "--json"])
    found = json.loads(capsys.readouterr().out)["findings"]
    return status, {one["what"]: one for one in found}


def test_all_is_well(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = asked(capsys, store.url, "--cluster", "threads")
    assert status == 0
    assert {"Python", "geofield", "icechunk", "time", "time zones", "disk of the store", "store", "conditional writes",
            "clock", "cluster"} <= set(found)  # fmt: skip
    assert found["store"]["said"].endswith("boxes: 1")
    assert not store.location.list("inbox"), "what was tried was removed"
    assert cli.main(["doctor", store.url]) == 0
    assert "conditional writes" in capsys.readouterr().out


@pytest.mark.s3
def test_a_store_on_s3_and_one_without_conditional_writes(
    s3: Any, s3_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_store(s3_url)
    status, found = asked(capsys, made.url)
    assert (status, found["conditional writes"]["state"]) == (0, "ok")
    with s3.ignoring_conditions():
        status, found = asked(capsys, made.url)
    assert (status, found["store"]["state"]) == (1, "wrong") or found["store"]["said"]
    assert status == 1


def test_credentials_are_named_and_never_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAABCDEFGHIJKLMNOP")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-hidden")
    status, found = asked(capsys)
    assert status == 0
    assert "AWS_SECRET_ACCESS_KEY" in found["credentials: AWS"]["said"]
    text = json.dumps(found)
    assert "hidden" not in text
    assert "AKIA" not in text
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    status, found = asked(capsys)
    assert (status, found["credentials: pair"]["advice"]) == (1, "Set AWS_SECRET_ACCESS_KEY too.")


def test_what_is_wrong_is_told_and_the_rest_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, found = asked(capsys, str(tmp_path / "nothing"))
    assert (status, found["store"]["state"]) == (0, "warning")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 8, 1))  # type: ignore[attr-defined]
    assert asked(capsys)[1]["disk for temporary files"]["state"] == "warning"
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    status, found = asked(capsys)
    assert (status, found["no-such-package"]["state"]) == (1, "wrong")
    assert asked(capsys, "--cluster", "banana")[1]["cluster"]["state"] == "wrong"


def test_bash_completes_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        try:
            assert cli.main(["completion", shell]) == 0
        except RuntimeError as error:  # click wants a bash of today, and says so
            pytest.skip(str(error))
        script = capsys.readouterr().out
        assert "_GEOFIELD_COMPLETE" in script
    words = {"COMP_WORDS": "geofield add", "COMP_CWORD": "1", "_GEOFIELD_COMPLETE": "bash_complete"}
    code = "import sys; from orchestrate.cli import cli; cli(prog_name='geofield')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["plain,add-box"]
