"""Withdrawn and forgotten fields, removed boxes."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

import geofield
from geofield.errors import NotFoundError
from orchestrate import run
from orchestrate.cli import main
from tests.test_orchestrate_changes import END, describe, make_store


@pytest.fixture
def store(store_url: str, tmp_path: Path) -> geofield.Store:
    made = make_store(store_url, tmp_path, describe())
    run(made, END)
    assert set(made.rows()["field_id"]) == {"f1", "f2"}
    return made


def holding(store: geofield.Store, text: str, folder: str) -> list[str]:
    location = store.location
    return [info.key for info in location.list(folder) if text.encode() in location.read(info.key)]


def test_a_withdrawn_field_stops_and_can_come_back(store: geofield.Store, tmp_path: Path) -> None:
    rows = store.rows(field="f1")
    assert store.withdraw_fields(["f1"]) == 1
    assert store.withdraw_fields(["f1"]) == 0
    receipt = run(store, END + dt.timedelta(days=1))["boxes"]["b"]
    assert (receipt["rows_removed"], receipt["rows_written"]) == (len(rows), 1)
    assert set(store.rows()["field_id"]) == {"f2"}
    assert "f1" in set(store.registry.versions()["field_id"])
    # handed in again, its past comes from the stored cube
    again = (
        store.registry.versions().query("field_id == 'f1' and not withdrawn").drop(columns=["accepted", "withdrawn"])
    )
    assert store.registry.accept(again, "again", {}) == 1
    assert run(store, END + dt.timedelta(days=1))["boxes"]["b"]["late"]["source_reads"] == 0
    back = store.rows(field="f1", end=END)
    assert back.equals(rows)


def test_a_forgotten_field_is_in_no_table_any_more(store: geofield.Store) -> None:
    assert holding(store, "f1", "rows/b")
    assert store.forget_fields(["f1"]) == 9
    assert [key for key in holding(store, "f1", "rows/b") if "_delta_log" not in key] == []
    assert [key for key in holding(store, "f1", "fields") if "_delta_log" not in key] == []
    assert store.location.list("weights") == []
    assert set(store.rows()["field_id"]) == {"f2"}
    assert run(store, END)["boxes"]["b"]["rows_written"] == 0
    with pytest.raises(NotFoundError, match="no field 'f1' to forget"):
        store.forget_fields(["f1"])


def test_a_removed_box_leaves_nothing(store: geofield.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["remove-box", store.url, "--id", "b"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert main(["remove-box", store.url, "--id", "b", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] > 10
    assert [info.key for info in store.location.list("") if "/b/" in info.key or info.key.endswith("/b.json")] == []
    assert main(["remove-box", store.url, "--id", "b", "--yes"]) == 2
    assert "no box 'b'" in capsys.readouterr().err
    assert run(store, END)["errors"] == []


def test_the_command_line_withdraws_and_forgets(store: geofield.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["withdraw", store.url, "--field", "f1"]) == 0
    assert main(["forget", store.url, "--field", "f2"]) == 2
    assert main(["forget", store.url, "--field", "f2", "--yes", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["rows"] == 9
    assert [key.startswith("inbox/accepted/") for key in said["files_that_hold_it"]] == [True]
    assert main(["withdraw", store.url, "--field", "nobody"]) == 2
