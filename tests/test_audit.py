"""Questions to the receipts."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from geofield import Store
from geofield.store import Location
from orchestrate import cli
from orchestrate.audit import attempts, by_day, months, receipts_since
from tests.support.smallstore import make_store
from tests.support.watching import a_box, a_receipt, an_error


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(str(tmp_path / "s"))


def put(store: Store, receipt: dict[str, Any]) -> None:
    started = dt.datetime.fromisoformat(receipt["started"])
    store.location.write(f"runs/{started:%Y/%m}/{receipt['run_id']}.json", json.dumps(receipt).encode())


def started(text: str, **changes: Any) -> dict[str, Any]:
    moment = dt.datetime.fromisoformat(text)
    return a_receipt(f"{moment:%Y%m%dT%H%M%SZ}-0000aaaa", started=moment.isoformat(), **changes)


def test_only_the_needed_months_are_listed_and_only_the_needed_days_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("2026-08-31T10:00+00:00", "2026-09-03T10:00+00:00", "2026-10-05T10:00+00:00",
                 "2026-10-07T10:00+00:00", "2026-11-01T00:10+00:00"):  # fmt: skip
        put(store, started(text))
    store.location.write("runs/2026/10/notes.txt", b"x")
    store.location.write("runs/2026/10/20261007T000000Z-broken.json", b"{")
    store.location.write("runs/2026/10/20261007T000001Z-list.json", b"[]")
    store.location.write("runs/2026/10/20261007T000002Z-other.json", b'{"run_id": "x", "started": 3}')
    listed: list[str] = []
    read: list[str] = []
    real_list, real_read = Location.list, Location.read
    monkeypatch.setattr(Location, "list", lambda self, key: (listed.append(key), real_list(self, key))[1])
    monkeypatch.setattr(Location, "read", lambda self, key: (read.append(key), real_read(self, key))[1])
    found = list(receipts_since(store, dt.date(2026, 9, 3), dt.date(2026, 10, 6)))
    assert [one["started"][:10] for one in found] == ["2026-09-03", "2026-10-05"]
    assert listed == ["runs/2026/09", "runs/2026/10"]
    assert not any("2026/11" in key or "2026/08" in key for key in read)
    assert list(months(dt.date(2025, 11, 30), dt.date(2026, 1, 1))) == ["runs/2025/11", "runs/2025/12", "runs/2026/01"]


def test_attempts_of_runs() -> None:
    error = an_error(date="2026-11-19")
    found = list(
        attempts(
            [
                a_receipt("1", boxes={"b": a_box(days_appended=0), "c": a_box()}, errors=[error]),
                a_receipt("2", boxes={"b": a_box(days_appended=2, first_day_appended="2026-11-19")}),
                a_receipt("3", boxes={"b": a_box(days_appended=0, rows_written=0)}),
                a_receipt("4", boxes={}, errors=[an_error("access", None, None)]),
                a_receipt("5", boxes={"b": a_box()}, finished=None),
                a_receipt("6", boxes={"b": a_box()}, errors=[an_error("interrupted", None, None)]),
            ]
        )
    )
    told = [(one["run_id"], one["box"], one["outcome"], one["days_appended"]) for one in found]
    assert told == [
        ("1", "b", "failed", 0), ("1", "c", "done", 1), ("2", "b", "done", 2), ("3", "b", "nothing", 0),
        ("4", None, "failed", 0), ("5", "b", "unfinished", 1), ("6", "b", "interrupted", 1),
        ("6", None, "interrupted", 0),
    ]  # fmt: skip
    assert found[0]["errors"] == [{"date": "2026-11-19", "kind": error["kind"], "message": error["message"]}]
    assert (found[1]["seconds"], found[4]["seconds"]) == (2.5, 10.0)
    assert by_day(found[:3]) == [
        {"box": "b", "date": "2026-11-19", "attempts": 2, "failed": 1, "kinds": ["source_unavailable"],
         "appended_by": "2"},
        {"box": "b", "date": "2026-11-20", "attempts": 1, "failed": 0, "kinds": [], "appended_by": "2"},
        {"box": "c", "date": "2026-11-20", "attempts": 1, "failed": 0, "kinds": [], "appended_by": "1"},
    ]  # fmt: skip


def test_command(store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "do-not-show-me")
    put(store, started("2026-10-05T10:00+00:00", errors=[an_error() | {"message": "key do-not-show-me was refused"}]))
    put(store, started("2026-10-06T10:00+00:00", boxes={"b": a_box(), "c": a_box()}))

    def runs(*words: str) -> Any:
        capsys.readouterr()
        status = cli.main(["runs", store.url, *words])
        said = capsys.readouterr()
        assert "do-not-show-me" not in said.out + said.err
        return status, said.out if "--json" not in words else json.loads(said.out), said.err

    status, found, _ = runs("--since", "2026-10-01", "--json")
    assert (status, len(found["attempts"]), len(found["days"])) == (0, 3, 2)
    _, found, _ = runs("--since", "2026-10-01", "--failed", "--json")
    assert [one["outcome"] for one in found["attempts"]] == ["failed"]
    assert [(one["date"], one["kinds"]) for one in found["days"]] == [("2026-11-20", ["source_unavailable"])]
    _, found, _ = runs("--since", "2026-10-01", "--box", "c", "--json")
    assert [one["box"] for one in found["attempts"]] == ["c"]
    _, text, _ = runs("--since", "2026-10-01")
    assert "source_unavailable" in text
    assert "20261006T100000Z-0000aaaa" in text
    assert runs("--since", "2026-10-07")[1] == "No such run since 2026-10-07.\n"
    assert runs("--since", "October")[0] == 2


def test_a_real_run_is_found(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", store.url, "--until", "2025-04-03"]) == 0
    capsys.readouterr()
    assert cli.main(["runs", store.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (one,) = found["attempts"]
    assert (one["outcome"], one["first_day"], one["last_day"]) == ("done", "2025-04-01", "2025-04-03")
    assert [day["date"] for day in found["days"]] == ["2025-04-01", "2025-04-02", "2025-04-03"]
