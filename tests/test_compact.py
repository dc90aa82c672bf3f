"""Compaction: fewer files, the same numbers, and nobody at work is hurt."""

from __future__ import annotations

import datetime as dt

import pandas as pd
import pyarrow as pa
import pytest

from geofield.errors import ConfigurationError, LostRaceError
from geofield.pipeline.compact import Compaction, closed_months, compact
from geofield.pipeline.verify import verify
from geofield.results.rows import Results
from geofield.store import Location
from geofield.table import Snapshot, Table
from tests.support.upkept import DAYS, SHAPES, Upkept, field_rows
from tests.test_upkeep import abandoned

LATER, NOW = dt.date(2030, 1, 1), dt.timedelta(0)


def test_a_month_is_closed_when_it_is_over() -> None:
    months = ["2024-12", "2025-03", "2025-04", "2025-05"]
    assert closed_months(months, dt.date(2025, 4, 1)) == ["2024-12", "2025-03"]
    assert closed_months(months, dt.date(2025, 4, 30)) == ["2024-12", "2025-03"]
    assert closed_months([], dt.date(2025, 4, 1)) == []


def row_table(field_id: str, *days: dt.date, mean: float = 0.5) -> pa.Table:
    """Rows as a box of one variable has them."""
    return pa.table(
        {
            "box": ["b"] * len(days),
            "field_id": [field_id] * len(days),
            "field_version": ["1"] * len(days),
            "date": pa.array(days, pa.date32()),
            "ndvi_mean": [mean] * len(days),
            "digest": ["d"] * len(days),
            "month": [f"{day:%Y-%m}" for day in days],
        }
    )


@pytest.fixture
def results(store_url: str) -> Results:
    """Twelve days in twelve commits, six of March and six of April."""
    made = Results(Location.parse(store_url), "b")
    made.table.location.probe()
    for number in range(12):
        made.commit(row_table("A", dt.date(2025, 3, 26) + dt.timedelta(days=number)), {"run": number})
    return made


def files(results: Results, month: str) -> int:
    table = results.table.open().table
    assert table is not None
    return sum(f"month={month}" in uri for uri in table.file_uris())


def test_closed_months_become_one_file_each(results: Results) -> None:
    before, transaction = results.read(), results.table.open().transaction
    compact(results.table.location, [], dt.date(2025, 4, 20))  # no box: the fields alone
    assert (files(results, "2025-03"), files(results, "2025-04")) == (6, 6)
    done = {one.key: one for one in compact(results.table.location, ["b"], dt.date(2025, 4, 20))}
    assert (files(results, "2025-03"), files(results, "2025-04")) == (1, 6)
    pd.testing.assert_frame_equal(results.read(), before, check_exact=True)
    assert results.table.open().transaction == transaction
    # what was replaced waits for its time
    assert done["rows/b"].files_after > done["rows/b"].files_before
    version = results.table.open().version
    compact(results.table.location, ["b"], dt.date(2025, 4, 20))
    assert results.table.open().version == version
    compact(results.table.location, ["b"], dt.date(2025, 5, 1))
    assert (files(results, "2025-03"), files(results, "2025-04")) == (1, 1)


def test_rows_are_committed_after_a_compaction_and_a_racing_commit_is_refused(results: Results) -> None:
    table, first = results.table, dt.date(2025, 3, 26)
    stale, other = table.open(), table.open()
    compact(table.location, ["b"], LATER)
    # who has read the table before the compaction may append to it after: nobody else has
    table.commit(stale, row_table("B", first), metadata={"run": "x"})
    with pytest.raises(LostRaceError):
        table.commit(other, row_table("B", first), metadata={"run": "y"})
    assert results.commit(row_table("B", first), {}) == 0
    assert results.commit(row_table("A", first, mean=0.6), {}) == 1
    found = results.read()
    assert len(found) == 13
    assert found.set_index(["field_id", "date"])["ndvi_mean"].loc[("A", first)] == 0.6


def test_a_replacement_of_rows_that_a_compaction_moved_is_refused_and_tried_again(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, first = results.table, dt.date(2025, 3, 26)
    stale = table.open()
    compact(table.location, ["b"], LATER)
    with pytest.raises(LostRaceError):
        table.commit(stale, row_table("A", first, mean=0.7), replacing=f"date = DATE '{first}'")
    assert results.read()["ndvi_mean"].unique().tolist() == [0.5]

    real, opened = Table.open, []

    def overtaken(self: Table, as_of: int | dt.datetime | None = None) -> Snapshot:
        snapshot = real(self, as_of)
        opened.append(snapshot.version)
        if len(opened) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(Table, "open", real)
                results.commit(row_table("A", first + dt.timedelta(days=1), mean=0.9), {})
                self.compact("month", ["2025-03", "2025-04"])
        return snapshot

    monkeypatch.setattr(Table, "open", overtaken)
    assert results.commit(row_table("A", first, mean=0.8), {}) == 1
    monkeypatch.undo()
    assert results.read()["ndvi_mean"].tolist() == [0.8, 0.9] + [0.5] * 10


def test_a_compaction_that_a_writer_overtakes_tries_again(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    real, first = Table.open, dt.date(2025, 3, 26)
    opened: list[int] = []

    def overtaken(self: Table, as_of: int | dt.datetime | None = None) -> Snapshot:
        snapshot = real(self, as_of)
        opened.append(snapshot.version)
        if len(opened) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(Table, "open", real)
                results.commit(row_table("A", first, mean=0.9), {})
        return snapshot

    monkeypatch.setattr(Table, "open", overtaken)
    assert results.table.compact("month", ["2025-03", "2025-04"]) == 10
    assert len(opened) == 2
    monkeypatch.undo()
    assert results.read()["ndvi_mean"].tolist() == [0.9] + [0.5] * 11


def test_a_compaction_that_is_always_overtaken_says_so(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    real, means = Table.open, iter(range(1, 99))

    def overtaken(self: Table, as_of: int | dt.datetime | None = None) -> Snapshot:
        snapshot = real(self, as_of)
        with monkeypatch.context() as patch:
            patch.setattr(Table, "open", real)
            results.commit(row_table("A", dt.date(2025, 3, 26), mean=next(means) / 100), {})
        return snapshot

    monkeypatch.setattr(Table, "open", overtaken)
    with pytest.raises(LostRaceError, match="compact it later"):
        results.table.compact("month", ["2025-03"])
    monkeypatch.undo()
    assert len(results.read()) == 12


def test_the_past_is_read_until_it_is_freed(results: Results) -> None:
    version, before = results.table.open().version, results.read()
    results.commit(row_table("A", dt.date(2025, 3, 26), mean=0.9), {})
    compact(results.table.location, ["b"], LATER)
    pd.testing.assert_frame_equal(results.read(as_of=version), before)
    now = results.read()
    done = {one.key: one for one in compact(results.table.location, ["b"], LATER, keep=NOW)}["rows/b"]
    pd.testing.assert_frame_equal(results.read(), now, check_exact=True)
    parquet = [info for info in results.table.location.list("rows/b") if info.key.endswith(".parquet")]
    assert sum("/month=" in info.key for info in parquet) == 2
    assert done.files_after < done.files_before
    assert done.bytes_after < done.bytes_before
    results.commit(row_table("A", dt.date(2025, 5, 1)), {})
    assert len(results.read()) == 13


@pytest.mark.parametrize("keep", [dt.timedelta(days=-1), dt.timedelta(days=91)])
def test_a_while_that_no_table_remembers_is_refused(results: Results, keep: dt.timedelta) -> None:
    with pytest.raises(ConfigurationError, match="0 to 90 days"):
        results.table.free(keep)


def test_a_whole_store_is_compacted_and_stays_right(tmp_path: object) -> None:
    store = Upkept.make(f"{tmp_path}/store")
    for number in range(4):
        store.registry.accept(field_rows(**{f"n{number}": SHAPES["last"].buffer(number)}), f"{number}.geojson", {})
    assert all(one.repaired for one in verify(store.location, repair=True))
    abandoned(store)  # type: ignore[arg-type]
    rows, versions = store.rows(), store.registry.versions()
    done = compact(store.location, ["b", "none"], LATER, keep=NOW, older_than=NOW)
    assert [one.key for one in done] == ["fields", "rows/b", "cubes/b", "rows/none", "cubes/none"]
    assert done[-1] == Compaction("cubes/none", 0, 0, 0, 0)
    assert done[2].bytes_after < done[2].bytes_before
    pd.testing.assert_frame_equal(store.rows(), rows, check_exact=True)
    pd.testing.assert_frame_equal(store.registry.versions(), versions)
    assert len(store.table("fields").file_uris()) == 1
    assert len(store.table().file_uris()) == 1
    assert verify(store.location, deep=True) == []
    assert store.cube.head().first == DAYS[0]
