"""The plain Zarr copy: what readers see at any instant, what a rerun does, and that only the cube decides its bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from geofield.copies.arrays import CopyArray
from geofield.copies.documents import DAY_CAPACITY, Layout
from geofield.copies.geoparquet import geoparquet_bytes
from geofield.copies.zarrcopy import write_zarr
from geofield.errors import CrsError, InputError
from geofield.pipeline import correct_days, publish
from geofield.store import Location
from tests.support.published import (
    FOLDER,
    State,
    append,
    check_copy,
    copies,
    cube_path,
    day,
    fields,
    make_work,
    open_copy,
    publish_all,
    rebuilt,
    small_chunks,
    source,
    state,
)
from tests.test_pipeline import DAY1, SMALL, Work, make_box


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)


def correct(work: Work, days: int, **versions: str) -> None:
    report = correct_days(DAY1, source(days, **versions), work.fields(), work.cube, work.results)
    assert report.days_amended


class Death(BaseException):
    """What a test raises where a process would be killed."""


def after_each_write(patch: pytest.MonkeyPatch, look: Callable[[str], None]) -> None:
    """Call `look` with the key after each object that is written or removed, and before the next one."""

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def looking(self: Location, key: str, *more: Any) -> Any:
            result = call(self, key, *more)
            look(key)
            return result

        return looking

    for name in ("write", "replace", "delete"):
        patch.setattr(Location, name, watched(getattr(Location, name)))


def die_before_write(patch: pytest.MonkeyPatch, number: int) -> list[str]:
    """The process is dead from the n-th write on; the keys that were written before."""
    done: list[str] = []

    def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
        def living(self: Location, key: str, *more: Any) -> Any:
            if len(done) >= number:
                raise Death
            done.append(key)
            return call(self, key, *more)

        return living

    for name in ("write", "replace", "delete"):
        patch.setattr(Location, name, mortal(getattr(Location, name)))
    return done


# --- up to date ------------------------------------------------------------------------------------------------------


def test_a_copy_shows_what_the_cube_shows_day_by_day(store_url: str) -> None:
    work = make_work(store_url)
    for days in (1, 2, 3, 8):
        before = len(work.cube.head().days)
        append(work, days)
        report = publish_all(work)
        assert report.zarr is not None
        assert (report.zarr.days, report.zarr.days_written, report.zarr.is_new) == (days, days - before, before == 0)
        check_copy(open_copy(work), work.cube.open())
    assert np.isnan(open_copy(work)["ndvi"][2]).all()  # no image came that day: the state is carried on
    assert (open_copy(work)["ndvi_age"][2] == open_copy(work)["ndvi_age"][1] + 1).all()


def test_publishing_again_writes_nothing(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = make_work(store_url, 4)
    publish_all(work)
    before = copies(work.location)
    touched: list[str] = []
    after_each_write(monkeypatch, touched.append)
    report = publish_all(work)
    assert touched == []
    assert report.zarr is not None
    assert report.zarr.objects_written == 0
    assert copies(work.location) == before


def test_an_append_writes_the_new_day_and_nothing_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = make_work(str(tmp_path), 4)
    publish_all(work)
    append(work, 5)
    touched: list[str] = []
    after_each_write(monkeypatch, touched.append)
    publish_all(work, zarr=True)
    assert {key.split("/")[5] for key in touched if key.count("/") > 5} == {"4"}  # published/b/cube.zarr/ndvi/c/4/..
    assert touched[-1] == f"{FOLDER}/cube.zarr/zarr.json"
    first_document = next(number for number, key in enumerate(touched) if key.endswith("zarr.json"))
    assert all(key.endswith("zarr.json") for key in touched[first_document:])


def test_built_day_by_day_and_rebuilt_from_nothing_have_the_same_bytes(store_url: str) -> None:
    work = make_work(store_url)
    for days in (1, 2, 3, 5):
        append(work, days)
        publish_all(work)
    correct(work, 5, d2="2")
    publish_all(work)
    append(work, 7)
    publish_all(work)
    grown = copies(work.location)
    assert len(grown) > 50
    assert rebuilt(work) == grown


def test_a_correction_rewrites_the_days_from_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = make_work(str(tmp_path), 8)
    publish_all(work)
    correct(work, 8, d5="2")
    touched: list[str] = []
    after_each_write(monkeypatch, touched.append)
    report = publish_all(work, zarr=True)
    assert report.zarr is not None
    assert report.zarr.days_written == 4  # days 5 to 8: the state of each starts from the day before
    assert {int(key.split("/")[5]) for key in touched if key.count("/") > 5} == {4, 5, 6, 7}
    check_copy(open_copy(work), work.cube.open())


def test_a_withdrawn_image_leaves_no_chunk_behind(store_url: str) -> None:
    work = make_work(store_url, 5)
    publish_all(work)
    scenes = [one for one in source(5).scenes if one.time.date() != day(5)]
    correct_days(DAY1, type(source(5))(SMALL, scenes), work.fields(), work.cube, work.results)
    publish_all(work)
    check_copy(open_copy(work), work.cube.open())
    assert not work.location.list(f"{FOLDER}/cube.zarr/ndvi/c/4")
    left = copies(work.location)
    assert rebuilt(work) == left


def test_a_cube_without_days_and_without_imagery(tmp_path: Path) -> None:
    work = make_work(str(tmp_path))
    report = publish_all(work)
    assert report.zarr is not None
    assert (report.zarr.days, report.cog) == (0, None)
    assert open_copy(work)["ndvi"].shape == (0, 4, 4)
    append(work, 2)
    publish_all(work)
    grown = copies(work.location)
    assert rebuilt(work) == grown


def test_another_grid_or_a_damaged_root_is_built_anew(tmp_path: Path) -> None:
    work = make_work(str(tmp_path), 4)
    publish_all(work)
    right = copies(work.location)
    root = cube_path(work) / "zarr.json"
    moved = json.loads(root.read_bytes())
    moved["consolidated_metadata"]["metadata"]["ndvi"]["attributes"]["spatial:transform"][2] += 10
    for damaged in (json.dumps(moved).encode(), b"{", b"[]", b'{"consolidated_metadata": {}}'):
        root.write_bytes(damaged)
        (cube_path(work) / "left").mkdir(exist_ok=True)
        (cube_path(work) / "left/over").write_bytes(b"1")
        report = publish_all(work)
        assert report.zarr is not None
        assert report.zarr.is_new
        assert copies(work.location) == right


# --- readers ---------------------------------------------------------------------------------------------------------


def test_whatever_instant_a_reader_opens_it_sees_whole_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every single object that is written a reader opens the copy, and all earlier readers read on."""
    location = Location.parse(tmp_path / "copies")
    whole = state(make_work(str(tmp_path), 8))
    whole.until(3).write(location)
    opened = [xr.open_zarr(f"{location.url}/copy", chunks=None)]
    lengths: list[int] = []

    def look(key: str) -> None:
        whole.check(location)
        now = xr.open_zarr(f"{location.url}/copy", chunks=None)
        lengths.append(now.sizes["time"])
        for earlier in opened:  # not loaded: every value is fetched again
            check_copy(earlier.copy(), whole.dataset.isel(time=slice(0, earlier.sizes["time"])))
        if now.sizes["time"] != opened[-1].sizes["time"]:
            opened.append(now)

    with monkeypatch.context() as patch:
        after_each_write(patch, look)
        whole.write(location)
    assert lengths == sorted(lengths)
    assert sorted(set(lengths)) == [3, 5, 7, 8]  # two days to a window
    assert len(lengths) > 40


@pytest.mark.slow
def test_readers_in_a_thread_during_twenty_appends(store_url: str) -> None:
    location = Location.parse(f"{store_url}/copies")
    whole = state(make_work(store_url, 21))
    whole.until(1).write(location)
    stop = threading.Event()
    seen: list[xr.Dataset] = []
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                seen.append(xr.open_zarr(f"{location.url}/copy", chunks=None).load())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for days in range(2, 22):
            whole.until(days).write(location)
    finally:
        stop.set()
        thread.join()
    assert failed == []
    for found in seen:
        check_copy(found, whole.dataset.isel(time=slice(0, found.sizes["time"])))
    assert len({found.sizes["time"] for found in seen}) > 2


# --- others who publish ----------------------------------------------------------------------------------------------


def test_who_waited_for_the_lock_publishes_what_stands_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, other = make_work(str(tmp_path), 4), Work(str(tmp_path), make_box(SMALL))
    publish_all(work)
    lock, deleted = Location.lock, []

    def waiting(self: Location, name: str) -> Any:
        monkeypatch.undo()
        append(other, 6)
        publish_all(other)
        after_each_write(monkeypatch, deleted.append)
        return lock(self, name)

    monkeypatch.setattr(Location, "lock", waiting)
    report = publish(work.location, work.box, work.cube, fields, zarr=True, cog=True, fields=True)
    monkeypatch.undo()
    assert deleted == []
    assert report.zarr is not None
    assert (report.zarr.days, report.snapshot) == (6, other.cube.tip())
    check_copy(open_copy(work), work.cube.open())


@pytest.mark.parametrize(("before", "number"), [(0, 20), (0, 40), (3, 2), (3, 9), (3, 20)])
def test_without_a_lock_no_copy_goes_back(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, before: int, number: int
) -> None:
    """After the n-th write of a publisher another one publishes two days more and a correction."""
    work, other = make_work(s3_url, before), Work(s3_url, make_box(SMALL))
    if before:
        publish_all(work)
    append(work, 4)
    left, shown = [number], []

    def overtaken(key: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            correct(other, 4, d2="2")
            append(other, 6)
            publish_all(other)
            shown.append(other.cube.tip())
        elif shown and key.endswith("cube.zarr/zarr.json"):
            shown.append(json.loads(work.location.read(key))["attributes"]["geofield:snapshot"])

    with monkeypatch.context() as patch:
        after_each_write(patch, overtaken)
        report = publish_all(work)
    assert set(shown) <= {other.cube.tip()}
    assert report.snapshot == other.cube.tip()
    check_copy(open_copy(work), other.cube.open())
    completed = copies(work.location)
    assert rebuilt(other) == completed


def test_without_a_lock_no_copy_goes_back_to_other_arrays(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two publishers at once where the copy has to be made anew; each removes what the other one wrote."""
    work, other = make_work(s3_url, 4), Work(s3_url, make_box(SMALL))
    publish_all(work)
    key = f"{FOLDER}/cube.zarr/zarr.json"
    work.location.write(key, b"{")
    shown = []

    def overtaken(written: str) -> None:
        monkeypatch.undo()
        assert written == key
        with pytest.raises(FileNotFoundError, match="No group found"):
            open_copy(work)
        append(other, 6)
        shown.append(publish_all(other).snapshot)

    after_each_write(monkeypatch, overtaken)
    report = publish_all(work)
    assert shown == [report.snapshot]
    check_copy(open_copy(work), other.cube.open())
    completed = copies(work.location)
    assert rebuilt(other) == completed


# --- crashes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, State | None]:
    """What stood, by what comes on top of it: `after`."""
    work = make_work(str(tmp_path_factory.mktemp("states")), 5)
    first = state(work)
    correct(work, 5, d2="2")
    return {"nothing": None, "fewer days": state(work).until(3), "other images": first, "after": state(work)}


@pytest.mark.parametrize(("before", "step"), [("nothing", 5), ("fewer days", 1), ("other images", 2)])
def test_killed_before_any_write_the_next_run_completes_it(
    before: str, step: int, states: dict[str, State | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stood, after = states[before], states["after"]
    assert after is not None
    reference = Location.parse(tmp_path / "reference")
    after.write(reference)
    wanted = {info.key: reference.read(info.key) for info in reference.list("copy")}
    number = 0
    while True:
        location = Location.parse(tmp_path / str(number))
        if stood is not None:
            stood.write(location)
        with monkeypatch.context() as patch:
            done = die_before_write(patch, number)
            try:
                after.write(location)
            except Death:
                pass
            else:
                break
        assert len(done) == number
        if before == "fewer days":
            after.check(location)  # readers open what stands, whatever was cut short
        after.write(location)
        assert {info.key: location.read(info.key) for info in location.list("copy")} == wanted
        number += step
    assert number > 40


def test_a_correction_that_was_cut_short_and_taken_back(
    states: dict[str, State | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digests are again those that were remembered, the chunks are not."""
    first, other = states["other images"], states["after"]
    assert first is not None
    assert other is not None
    location = Location.parse(tmp_path)
    first.write(location)
    before = {info.key: location.read(info.key) for info in location.list("copy")}
    with monkeypatch.context() as patch:
        done = die_before_write(patch, 4)
        with pytest.raises(Death):
            other.write(location)
    assert done == ["copy/digest/c/0", *(f"copy/ndvi/c/1/{key}" for key in ("0/0", "0/1", "1/0"))]
    first.write(location)
    assert {info.key: location.read(info.key) for info in location.list("copy")} == before


_KILLED = """
import os, signal, sys
import pytest
from geofield.store import Location
from tests.support.published import Work, make_box, SMALL, publish_all, small_chunks

small_chunks(pytest.MonkeyPatch())
url, number = sys.argv[1], int(sys.argv[2])
done = []

def mortal(call):
    def living(self, key, *more):
        if len(done) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(key)
        return call(self, key, *more)
    return living

Location.write, Location.replace = mortal(Location.write), mortal(Location.replace)
publish_all(Work(url, make_box(SMALL)))
"""


@pytest.mark.parametrize("number", [11, 1000])
def test_kill_9_while_publishing_and_bytes_of_another_process(store_url: str, number: int) -> None:
    work = make_work(store_url, 3)
    publish_all(work)
    append(work, 4)
    publish_all(work)
    correct(work, 4, d1="2")
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED, store_url, str(number)],
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert ended.returncode == (0 if number == 1000 else -signal.SIGKILL)
    if number != 1000:
        publish_all(work)
    completed = copies(work.location)
    check_copy(open_copy(work), work.cube.open())
    assert rebuilt(work) == completed


# --- refusals --------------------------------------------------------------------------------------------------------


def test_digests_and_pixels_have_to_fit(tmp_path: Path) -> None:
    work = make_work(str(tmp_path), 2)
    layout = Layout(SMALL, (CopyArray("ndvi", "ndvi", None),), {})
    location, cube = work.location, work.cube.open()

    def write(dataset: xr.Dataset, *digests: int) -> Any:
        return write_zarr(location, "x.zarr", dataset, layout, np.array(digests, dtype=np.uint64), "s")

    with pytest.raises(InputError, match=r"2 days needs 2 digests that are not 0; got shape \(1,\)"):
        write(cube, 1)
    with pytest.raises(InputError, match="digests that are not 0"):
        write(cube, 1, 0)
    with pytest.raises(InputError, match=r"has \(4, 3\) pixels, the layout of its copy \(4, 4\)"):
        write(cube.isel(x=slice(0, 3)), 1, 2)
    many = cube.isel(time=np.zeros(DAY_CAPACITY + 1, dtype=int))
    with pytest.raises(InputError, match="32768 days at most; the cube has 32769"):
        write(many, *range(1, DAY_CAPACITY + 2))


def test_fields_in_metres_are_refused() -> None:
    import geopandas
    import shapely

    frame = geopandas.GeoDataFrame(fields(), geometry=shapely.from_wkb(fields()["geometry"]), crs="EPSG:32631")
    with pytest.raises(CrsError, match="published in EPSG:4326; these are in EPSG:32631"):
        geoparquet_bytes(frame)
