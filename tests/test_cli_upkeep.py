"""verify, history and compact as people and programs call them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geofield import Store
from orchestrate import run
from orchestrate.cli import main
from orchestrate.config import Settings
from orchestrate.inbox import submit
from tests.support.smallstore import day, feature, make_store, write_fields


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = make_store(str(tmp_path / "store"))
    submit(made, [write_fields(tmp_path / "f.geojson", feature("A", 0, 0), feature("B", 150, 150))])
    run(made, day(4), settings=Settings(retry_wait_s=0))
    return made


def call(capsys: pytest.CaptureFixture[str], status: int, *words: object) -> str:
    assert main([str(word) for word in words]) == status
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], status: int, *words: object) -> Any:
    return json.loads(call(capsys, status, *words, "--json"))


def test_verify_says_that_all_is_well(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "All is well" in call(capsys, 0, "verify", store.url)
    assert document(capsys, 0, "verify", store.url, "--deep") == {"store": store.url, "is_well": True, "findings": []}


def test_verify_fails_until_it_is_repaired(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.results("b").remove(["A"], {})
    told = call(capsys, 1, "verify", store.url)
    assert "unfinished: box b, I9: 4 rows are missing: fields A." in told
    assert "--repair" in told
    found = document(capsys, 0, "verify", store.url, "--repair")
    assert found["is_well"]
    assert [(one["invariant"], one["repaired"]) for one in found["findings"]] == [("I9", True)]
    assert "All is well" in call(capsys, 0, "verify", store.url)


def test_verify_takes_an_age_in_hours(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.cube("b").repository.create_branch("rebuild-x", store.cube("b").tip())
    call(capsys, 0, "verify", store.url)
    assert "I7" in call(capsys, 1, "verify", store.url, "--older-than", 0)
    assert "repaired" in call(capsys, 0, "verify", store.url, "--older-than", "0", "--repair")
    call(capsys, 2, "verify", store.url, "--older-than", "-1")


def test_history_of_a_box(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    told = call(capsys, 0, "history", store.url, "--box", "b")
    assert "2025-04-01..2025-04-04" in told
    commits = document(capsys, 0, "history", store.url, "--box", "b")["commits"]
    assert [one["kind"] for one in commits] == ["append", "create"]
    assert commits[0]["snapshot"] == store.cube("b").tip()
    assert commits[0]["run"] in {
        info.key.rpartition("/")[2].removesuffix(".json") for info in store.location.list("runs")
    }


def test_history_of_a_field(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    told = call(capsys, 0, "history", store.url, "--field", "A")
    assert "f.geojson" in told
    assert "Rows" in told
    found = document(capsys, 0, "history", store.url, "--field", "A", "--box", "b")
    assert [(one["planting_date"], one["withdrawn"]) for one in found["versions"]] == [("2025-04-01", False)]
    assert [(one["kind"], one["added"], one["first"]) for one in found["rows"]] == [("append", 4, "2025-04-01")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Whose history"),
        (("--field", "ghost"), "no field 'ghost'"),
        (("--box", "ghost"), "no box 'ghost'"),
        (("--field", "A", "--box", "ghost"), "no box 'ghost'"),
    ],
)
def test_history_of_what_is_not_there(
    store: Store, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert main(["history", store.url, *words]) == 2
    assert said in capsys.readouterr().err


def test_compact_tells_files_and_bytes(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for until in (5, 6):
        run(store, day(until), settings=Settings(retry_wait_s=0))
    before = store.rows()
    found = document(capsys, 0, "compact", store.url, "--keep", 0, "--older-than", 0)
    parts = {one["key"]: one for one in found["parts"]}
    assert set(parts) == {"fields", "rows/b", "cubes/b"}
    assert store.rows().equals(before)
    assert sum(info.key.endswith(".parquet") for info in store.location.list("rows/b/month=2025-04")) == 1
    assert "rows/b" in call(capsys, 0, "compact", store.url)
    call(capsys, 2, "compact", store.url, "--keep", "91")
