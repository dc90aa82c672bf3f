"""Kept weights: the same bits with and without them, whatever has become of what is kept."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from odc.geo.geobox import GeoBox

from geofield.reduce import weights
from geofield.reduce.coverage import Coverage, coverage
from geofield.reduce.weights import WeightStore, grid_digest, polygon_keys
from geofield.store import Location
from tests.support.shapes import CRS, make_fields, make_geobox

GEOBOX = make_geobox(600, 700, (9.99479, 9.99745))
FIELDS = make_fields(60, GEOBOX, 3)
KEYS = polygon_keys(FIELDS.geometry.to_wkb(), [CRS] * len(FIELDS))


@pytest.fixture(autouse=True)
def _keep_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FEW", 0)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many fields were computed in each call that computed any."""
    calls: list[int] = []
    compute = weights.compute_runs

    def counted(fields: Any, *rest: Any) -> Any:
        calls.append(len(fields))
        return compute(fields, *rest)

    monkeypatch.setattr(weights, "compute_runs", counted)
    return calls


def get(store: WeightStore, chosen: Sequence[int] = range(60), geobox: GeoBox = GEOBOX) -> Coverage:
    return store.coverage(FIELDS.iloc[list(chosen)], [KEYS[i] for i in chosen], geobox)


def check_equal(found: Coverage, chosen: Sequence[int] = range(60), geobox: GeoBox = GEOBOX) -> None:
    expected = coverage(FIELDS.iloc[list(chosen)], geobox)
    for name, value in vars(expected).items():
        if isinstance(value, np.ndarray):
            assert getattr(found, name).dtype == value.dtype, name
            assert np.array_equal(getattr(found, name), value), name
    assert found.geobox == geobox


def packs(store: WeightStore) -> list[str]:
    return [info.key for info in store.location.list("weights")]


def test_the_second_time_nothing_is_computed_and_the_bits_are_the_same(store_url: str, computed: list[int]) -> None:
    store = WeightStore(Location.parse(store_url), "b")
    check_equal(get(store))
    assert computed == [60]
    check_equal(get(store))
    check_equal(get(store, [7, 3, 50]), [7, 3, 50])
    assert computed == [60]
    (pack,) = packs(store)
    assert pack.startswith(f"weights/b/{grid_digest(GEOBOX)}/")


def test_only_new_fields_are_computed(tmp_path: Path, computed: list[int]) -> None:
    store = WeightStore(Location.parse(tmp_path), "b")
    get(store, range(40))
    check_equal(get(store))
    assert computed == [40, 20]
    assert len(packs(store)) == 2


def test_many_packs_become_one(tmp_path: Path, computed: list[int]) -> None:
    store = WeightStore(Location.parse(tmp_path), "b")
    for last in range(5, 5 + weights.MOST_PACKS):
        get(store, range(last))
    assert len(packs(store)) == weights.MOST_PACKS
    get(store)
    assert len(packs(store)) == 1
    check_equal(get(store))
    assert sum(computed) == 60


def test_another_grid_and_another_box_keep_their_own(tmp_path: Path, computed: list[int]) -> None:
    store = WeightStore(Location.parse(tmp_path), "b")
    get(store)
    other = make_geobox(600, 700, (20.0, 20.0))
    check_equal(get(store, geobox=other), geobox=other)
    get(WeightStore(store.location, "c"))
    assert computed == [60, 60, 60]
    check_equal(get(store))
    assert computed == [60, 60, 60]


def test_a_cache_that_is_lost_or_cannot_be_written_is_not_missed(
    tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from geofield.errors import AccessError, NotFoundError

    store = WeightStore(Location.parse(tmp_path), "b")
    get(store)
    with monkeypatch.context() as patch:  # listed, then made one with others by another process
        patch.setattr(Location, "read", lambda *_: (_ for _ in ()).throw(NotFoundError("gone")))
        check_equal(get(store))
    store.location.delete(packs(store)[0])
    with monkeypatch.context() as patch:
        patch.setattr(Location, "write", lambda *_: (_ for _ in ()).throw(AccessError("no")))
        check_equal(get(store))
    assert packs(store) == []
    assert computed == [60, 60, 60]


def rewritten(data: bytes, how: str) -> bytes:
    """A pack that says something else."""
    table = pq.read_table(io.BytesIO(data))
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    place = next(i for i, count in enumerate(columns["weight"].value_lengths().to_pylist()) if count > 2)
    name = {"cell": "row", "twice": "row", "outside": "col", "long": "length", "none": "length"}.get(how, "weight")
    lists = columns[name].to_pylist()
    if how == "cell":
        lists[place][1] = 10**8
    elif how == "outside":
        lists[place][0] = -1
    elif how == "twice":
        lists[place][1] = lists[place][0]
    elif how == "long":
        lists[place][0] += 300
    elif how == "none":
        lists[place][0] = 0
    elif how == "above one":
        lists[place][0] = 1.5
    elif how == "nan":
        lists[place][0] = float("nan")
    elif how == "null":
        lists[place][0] = None
    elif how == "shorter":
        lists[place].pop()
    elif how == "whole":
        name, lists = "whole", columns["whole"].to_pylist()
        lists[place][0] = not lists[place][0]
    elif how == "covered":
        name, lists = "covered", [2.0] * table.num_rows
    columns[name] = pa.array(lists, table.schema.field(name).type)
    if how == "type":
        columns["covered"] = columns["covered"].cast(pa.float32())
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "how",
    ["cell", "outside", "twice", "long", "none", "above one", "nan", "null", "shorter", "whole", "covered", "type"],
)
def test_what_a_pack_says_is_checked(tmp_path: Path, computed: list[int], how: str) -> None:
    store = WeightStore(Location.parse(tmp_path), "b")
    get(store)
    (key,) = packs(store)
    data = rewritten(store.location.read(key), how)
    store.location.delete(key)
    forged = f"{key.rpartition('/')[0]}/{weights._content_digest(data)}.parquet"
    store.location.write(forged, data)
    check_equal(get(store))
    assert computed == [60, 60]
    assert forged not in packs(store)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:500] + b"\0" + data[501:], lambda _: b""]
)
def test_a_damaged_pack_is_computed_again(tmp_path: Path, computed: list[int], damage: Any) -> None:
    store = WeightStore(Location.parse(tmp_path), "b")
    get(store)
    (key,) = packs(store)
    store.location.write(key, damage(store.location.read(key)))
    check_equal(get(store))
    assert computed == [60, 60]
    check_equal(get(store))
    assert computed == [60, 60]


def test_two_writers_at_once_do_no_harm(tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    store = WeightStore(Location.parse(tmp_path), "b")
    write, entered = Location.write, []

    def overtaken(self: Location, key: str, data: bytes) -> None:
        if not entered:
            entered.append(key)
            get(store, range(30, 60))  # another process, between the computing and the writing of this one
        write(self, key, data)

    monkeypatch.setattr(Location, "write", overtaken)
    check_equal(get(store, range(40)), range(40))
    assert computed == [40, 30]
    assert len(packs(store)) == 2
    check_equal(get(store))
    assert computed == [40, 30]


def test_few_fields_are_computed_without_asking_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FEW", 5)
    monkeypatch.setattr(Location, "list", None)
    check_equal(get(WeightStore(Location.parse(tmp_path), "b"), range(5)), range(5))


def test_a_coverage_travels_as_runs_and_arrives_as_it_was() -> None:
    import pickle

    cover = coverage(make_fields(200, GEOBOX, 4), GEOBOX)
    sent = pickle.dumps(cover)
    assert len(sent) < 8 * cover.pixels  # a place and a weight each would be 16 bytes
    arrived = pickle.loads(sent)
    for name, value in vars(cover).items():
        if isinstance(value, np.ndarray):
            assert getattr(arrived, name).dtype == value.dtype, name
            assert np.array_equal(getattr(arrived, name), value), name
