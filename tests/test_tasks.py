"""What Dask's dashboard shows of a run: tasks grouped by kind, each with its box, day and place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dask
import pytest
from dask.callbacks import Callback
from dask.utils import key_split
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import SchedulerPlugin

import geofield
from geofield.pipeline import append_days, correct_days, fill_late_fields, late
from orchestrate.inbox import read_inbox, submit
from tests.support.smallstore import box, day, feature, make_store, write_fields

KIND = re.compile(r"(append|correct|count|late|rank|weights)-\(b .*\) \d{8}T\d{6}Z-[0-9a-f]{8}\S*-[0-9a-f]{6}")


class Keys(Callback):
    """Every key that a local scheduler begins with."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def _start_state(self, dsk: Any, state: Any) -> None:
        self.seen += [str(key) for key in dsk]


@pytest.fixture
def parts(tmp_path: Path) -> Any:
    """Source, fields, cube and results of a box."""
    store = make_store(str(tmp_path / "s"), box("b", grid={"crs": "EPSG:32631", "resolution": 10, "tile": 256}))
    submit(store, [write_fields(tmp_path / "f.geojson", feature("F0", 50, 50), feature("F1", 150, 210))])
    read_inbox(store, geofield.Run())
    return store, (store.box_fields("b"), store.cube("b"), store.results("b"))


def test_key_is_grouped_by_kind_and_says_what_it_is_at(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, where = parts
    monkeypatch.setattr(late, "_FEW", 0)  # little work, but on Dask
    with Keys() as keys, dask.config.set(scheduler="synchronous"):
        append_days(day(1), day(4), store.source("b"), *where)
        fill_late_fields(*where)
        changed = store.box("b").model_copy(
            update={"source": {**store.box("b").source, "reprocessed": {str(day(1)): 1}}}
        )
        store.change_box(changed)
        correct_days(day(1), store.source("b"), *where)
    kinds = {key_split(key) for key in keys.seen}
    assert kinds == {"append", "correct", "late", "weights"}
    assert all(KIND.fullmatch(key) for key in keys.seen), keys.seen
    assert len(set(keys.seen)) == len(keys.seen)
    assert [key for key in keys.seen if key.startswith(f"append-(b {day(1)} tile 0,0) ")] != []


def test_keys_of_the_same_work_differ_from_call_to_call(parts: Any) -> None:
    store, where = parts
    with Keys() as keys, dask.config.set(scheduler="synchronous"):
        for end in (1, 2):
            append_days(day(1), day(end), store.source("b"), *where)
        first = [key for key in keys.seen if key_split(key) == "weights"]
    assert len(first) == len(set(first)) == 2


class Annotations(SchedulerPlugin):
    """What graphs are annotated with when they arrive."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def update_graph(self, scheduler: Any, *, annotations: dict[str, Any], **more: Any) -> None:
        self.seen += annotations.get("geofield", {}).values()


def test_tasks_on_a_cluster_carry_annotations(parts: Any) -> None:
    store, where = parts
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        plugin = Annotations()
        cluster.scheduler.add_plugin(plugin)
        append_days(day(1), day(2), store.source("b"), *where)
    assert {(one["kind"], one["box"]) for one in plugin.seen} == {("append", "b")}
