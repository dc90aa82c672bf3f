"""The command line as people and programs call it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import geofield
from geofield import Store
from geofield.errors import StoreUnavailableError
from orchestrate import cli
from tests.support.smallstore import box, feature, make_store, objects, write_fields

BOUNDS = ("--bbox", "4.3", "51.0", "4.306", "51.004")
BOX = (*BOUNDS, "--start", "2025-04-01", "--source", "simulated")


class Result:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def geofield_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command, called in this process."""
    monkeypatch.setenv("GEOFIELD_RETRY_WAIT_S", "0")

    def call(*words: object) -> Result:
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Result(status, said.out, said.err)

    return call


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(str(tmp_path / "store"))


@pytest.fixture
def full(store: Store, tmp_path: Path, geofield_: Any) -> Store:
    """Ten days, one field."""
    geofield_("submit", store.url, write_fields(tmp_path / "f.geojson", feature("A", 0, 0)))
    assert geofield_("run", store.url, "--until", "2025-04-10").status == 0
    return store


# --- help ------------------------------------------------------------------------------------------------------------


def test_help_answers_at_once_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from orchestrate.cli import main; status = main(['--help']); "
        "heavy = {'numpy', 'pandas', 'rich', 'xarray', 'distributed', 'dask', 'pydantic', 'odc', 'yaml', 'icechunk'}; "
        "sys.exit(status or ', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    times = []
    for _ in range(3):  # the machine may be busy: processor time of the best of three counts
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert (done.returncode, done.stderr) == (0, "")
    assert "add-box" in done.stdout
    assert min(times) < 0.5


def test_without_arguments_it_shows_where_to_begin(geofield_: Any) -> None:
    done = geofield_()
    assert done.status == 0
    assert [line.split()[1] for line in done.out.splitlines() if line.startswith("  geofield ")] == [
        "init", "add-box", "submit", "plan", "run", "series", "report", "add-box", "doctor",
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["init", "add-box", "submit", "plan", "run", "status", "series"])
def test_every_command_explains_itself(geofield_: Any, command: str) -> None:
    done = geofield_(command, "--help")
    assert done.status == 0
    assert f"Usage: geofield {command}" in done.out


# --- the way through -------------------------------------------------------------------------------------------------


def test_way_through(geofield_: Any, tmp_path: Path, store_url: str) -> None:
    assert geofield_("init", store_url, "--json").json["is_new"]
    assert "already" in geofield_("init", store_url).out
    added = geofield_("add-box", store_url, "--id", "b", *BOX, "--seed", "3", "--settle-days", "1", "--json").json
    assert [(one["id"], one["is_new"], one["crs"], one["tiles"]) for one in added["boxes"]] == [
        ("b", True, "EPSG:32631", 1)
    ]
    assert geofield.open_store(store_url).box("b").source == {"type": "simulated", "seed": 3}
    assert (
        "there already" in geofield_("add-box", store_url, "--id", "b", *BOX, "--seed", "3", "--settle-days", "1").out
    )

    fields = tmp_path / "fields.csv"
    fields.write_text('field_id,wkt\nA,"POLYGON((4.301 51.001,4.303 51.001,4.303 51.002,4.301 51.002,4.301 51.001))"\n')
    submitted = geofield_("submit", store_url, fields, "--planting-date", "box-start", "--json").json["files"]
    assert [(one["key"], one["is_new"]) for one in submitted] == [("inbox/fields/fields.csv", True)]

    before = objects(geofield.open_store(store_url), "")
    planned = geofield_("plan", store_url, "--until", "2025-04-05", "--json").json
    assert objects(geofield.open_store(store_url), "") == before
    (step,) = planned["steps"]
    assert (step["action"], step["start"], step["end"], step["tasks"]) == ("append", "2025-04-01", "2025-04-04", 4)
    assert planned["inbox"] == {"boxes": 0, "fields": 1}
    assert planned["totals"]["seconds"] is None
    assert planned["totals"]["source_bytes"] > 0

    ran = geofield_("run", store_url, "--until", "2025-04-05", "--workers", "2", "--json")
    assert ran.status == 0
    receipt = ran.json
    assert set(receipt) >= {
        "run_id", "version", "started", "finished", "until", "cluster", "boxes", "inbox", "retries", "errors",
    }  # fmt: skip
    assert set(receipt["boxes"]["b"]) >= {
        "days_appended", "days_amended", "days_present", "source_reads", "source_bytes", "cube_objects_written",
        "cube_bytes_read", "rows_written", "late",
    }  # fmt: skip
    assert set(receipt["boxes"]["b"]["late"]) == {
        "fields",
        "field_days",
        "source_reads",
        "box_tasks",
        "cube_bytes_read",
    }
    assert (receipt["boxes"]["b"]["days_appended"], receipt["boxes"]["b"]["rows_written"]) == (4, 4)
    assert "4 of 4 days" in ran.err

    again = geofield_("run", store_url, "--until", "2025-04-05")
    assert (again.status, again.out) == (0, "Nothing to do: 1 box, everything until 2025-04-05 is there.\n")
    planned = geofield_("plan", store_url, "--until", "2025-04-06", "--json").json
    assert planned["totals"]["seconds"] > 0  # known from the run before
    status = geofield_("status", store_url, "--json").json
    assert status["boxes"]["b"] | {"acquisitions": 0} == {
        "start": "2025-04-01", "last_day": "2025-04-04", "days": 4, "acquisitions": 0, "fields": 1, "fields_done": 1,
        "fields_late": 0, "rows": 4, "rows_missing": 0,
    }  # fmt: skip
    assert len(status["runs"]) == 2


def test_store_from_the_environment(
    geofield_: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOFIELD_STORE", store.url)
    path = write_fields(tmp_path / "f.geojson", feature("A", 0, 0))
    assert geofield_("submit", path).status == 0
    assert geofield_("submit", store.url, path).out.startswith(f"{path}: is in the inbox already")
    assert geofield_("run", "--until", "2025-04-02").status == 0
    assert geofield_("status", "--json").json["boxes"]["b"]["days"] == 2
    other = make_store(str(tmp_path / "other"), box("x"))
    assert list(geofield_("status", other.url, "--json").json["boxes"]) == ["x"]


def test_late_field_costs_no_read_and_leaves_the_cube_as_it_is(geofield_: Any, full: Store, tmp_path: Path) -> None:
    cubes = objects(full, "cubes")
    late = write_fields(tmp_path / "late.geojson", feature("L", 100, 100, planting_date="2025-04-03"))
    geofield_("submit", full.url, late)
    done = geofield_("run", full.url, "--until", "2025-04-10", "--json").json["boxes"]["b"]
    assert done["late"] | {"cube_bytes_read": 0} == {
        "fields": 1, "field_days": 8, "source_reads": 0, "box_tasks": 0, "cube_bytes_read": 0,
    }  # fmt: skip
    assert done["late"]["cube_bytes_read"] > 0
    assert done["source_reads"] == 0
    assert objects(full, "cubes") == cubes


def test_plan_names_late_fields(geofield_: Any, full: Store, tmp_path: Path) -> None:
    full.registry.accept(
        geofield.read_fields(write_fields(tmp_path / "l.geojson", feature("L", 0, 0)), "l.geojson").table, "l", {}
    )
    done = geofield_("plan", full.url, "--until", "2025-04-10")
    assert "fill late fields" in done.out
    steps = geofield_("plan", full.url, "--until", "2025-04-10", "--json").json["steps"]
    assert [(one["action"], one["fields"], one["field_days"]) for one in steps] == [("fill_late", ["L"], 10)]
    assert geofield_("status", full.url, "--json").json["boxes"]["b"]["fields_late"] == 1


def test_a_reason_that_many_rows_share_is_said_once(geofield_: Any, store: Store, tmp_path: Path) -> None:
    unnamed = [feature(None, 0, 0, 20.0 + number) for number in range(7)]
    far = feature("far", 90_000, 0)
    geofield_("submit", store.url, write_fields(tmp_path / "f.geojson", *unnamed, far))
    told = geofield_("run", store.url, "--until", "2025-04-02").out
    (shared,) = (line for line in told.splitlines() if "--id-column" in line)
    assert shared.strip().startswith("f.geojson: 7 rows (0, 1, 2, 3, 4, ...): no field id")
    (alone,) = (line for line in told.splitlines() if "outside" in line)
    assert alone.strip().startswith("f.geojson: row 7, field 'far': ")


def test_what_many_boxes_share_is_said_once(geofield_: Any, store: Store, tmp_path: Path) -> None:
    boxes = [{"id": name, "bbox": [4.3, 51.0, 4.306, 51.004], "colour": "red"} for name in ("one", "two")]
    path = tmp_path / "boxes.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in boxes))
    done = geofield_("add-box", store.url, path, "--start", "2025-04-01", "--source", "simulated")
    assert done.status == 0
    (line,) = (line for line in done.out.splitlines() if "colour" in line)
    assert line.strip().startswith("boxes.jsonl: 2 boxes (one, two): ")


def test_rejected_rows_are_reported_and_no_failure(geofield_: Any, store: Store, tmp_path: Path) -> None:
    bad = tmp_path / "bad.geojson"
    bad.write_text("not a file of fields")
    mixed = write_fields(tmp_path / "mixed\x1b[31m.geojson", feature("A", 0, 0), feature("far", 9000, 0))
    geofield_("submit", store.url, bad, mixed)
    done = geofield_("run", store.url, "--until", "2025-04-02")
    assert done.status == 0
    assert "Inbox: 1 file accepted, 1 rejected; 1 row accepted, 2 rejected." in done.out
    assert "outside of every box" in done.out
    assert "\x1b[31m" not in done.out + done.err
    shown = geofield_("status", store.url).out
    assert "bad.geojson" in shown
    assert "mixed\\x1b[31m.geojson" in shown


# --- failures --------------------------------------------------------------------------------------------------------


def test_failing_box_makes_exit_status_1(geofield_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(str(tmp_path / "store"), box("a"), box("b"))
    real = geofield.pipeline.append_days

    def failing(first: Any, last: Any, source: Any, fields: Any, *rest: Any) -> Any:
        if fields.box.id == "a":
            raise StoreUnavailableError("S3 did not write: no answer.")
        return real(first, last, source, fields, *rest)

    monkeypatch.setattr(geofield.pipeline, "append_days", failing)
    done = geofield_("run", store.url, "--until", "2025-04-02")
    assert done.status == 1
    assert "a 2025-04-01: store_unavailable: S3 did not write: no answer." in done.out
    assert geofield_("run", store.url, "--until", "2025-04-02", "--json").json["retries"] == 3
    assert store.cube("b").head().last is not None


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run", "{store}", "--until", "tomorrow"), "--until 'tomorrow' is not a day; write YYYY-MM-DD"),
        (("run", "{store}", "--until", "2999-01-01"), "is in the future"),
        (("run", "{store}", "--workers", "many"), "--workers is a number or MIN:MAX"),
        (("run", "{store}", "--workers", "0"), "wrong: --workers has to be at least 1, and MIN at most MAX; got '0'."),
        (("run", "{store}", "--cluster", "fast"), "--cluster is threads, local, kube, or an address"),
        (("run", "{store}", "--cluster", "kube"), "extra `kube`"),
        (("run", "{nowhere}"), "There is no store at {nowhere}. Make one: geofield init {nowhere}"),
        (("run",), "No store: give STORE"),
        (("run", "ftp://x/y"), "'ftp://x/y' is no store"),
        (("status", "{nowhere}"), "There is no store"),
        (("plan", "{store}", "--until", "1.2.2025"), "is not a day"),
        (("plan", "{store}", "--sideways"), "No such option"),
        (("dance",), "No such command 'dance'"),
        (("submit", "{store}"), "Nothing to submit"),
        (("submit", "{store}", "{nowhere}/f.geojson"), "There is no file {nowhere}/f.geojson"),
        (("submit", "{store}", "{store}/geofield.json", "--planting-date", "soon"), "--planting-date is a day"),
        (("submit", "{store}", "{store}/geofield.json", "--ids", "digest", "--id-column", "x"), "not both"),
        (("submit", "{store}", "{store}/geofield.json", "--crs", "EPSG:0"), "EPSG:0"),
        (("series", "{store}", "--field", "Z"), "There is no field 'Z'. There is none yet."),
        (("withdraw", "{store}", "--field", "Z"), "There is no field 'Z'. There is none yet."),
        (("forget", "{store}", "--field", "Z"), "There is no field 'Z'. There is none yet."),
        (("history", "{store}", "--field", "Z"), "never was one. There is none yet."),
        (("remove-box", "{store}", "--id", "bb", "--yes"), "There is no box 'bb' in {store}. Near it: b."),
        (("runs", "{store}", "--box", "nope"), "There is no box 'nope' in {store}; it has: b."),
        (("series", "{store}", "--field", "A", "--plot", "{nowhere}.jpg"), "is written as .png, .svg or .pdf"),
        (("series", "{store}", "--field", "A", "--out", "{nowhere}.xlsx"), ".xlsx: rows are written as .csv, .parquet"),
        (("series", "{store}"), "Missing option '--field'"),
        (("add-box", "{store}", *BOUNDS, "--id", "new", "--source", "simulated"), "--start"),
        (("add-box", "{store}", *BOUNDS, "--id", "new", "--start", "2025-04-01"), "--source"),
        (("add-box", "{store}", "--id", "new", "--start", "2025-04-01", "--source", "simulated"), "--bbox"),
        (("add-box", "{store}", "--id", "new", *BOX, "--max-pixels", "100"), "more than the limit of 100"),
        (("add-box", "{store}", "--id", "../x", *BOX), "it has to be 1 to 64 of the characters"),
        (("add-box", "{store}", "--id", "b", *BOX), "Box 'b' is in the store already, with other"),
        (("add-box", "{store}", "--id", "new", *BOX, "--source", "{{"), "--source is neither YAML nor JSON"),
        (("add-box", "{store}", "--id", "new", *BOX, "--source", "[1]"), "--source is a type or a mapping"),
        (("add-box", "{store}", "--id", "new", *BOX, "--source", "telepathy"), "'telepathy' is no type of source"),
        (("add-box", "{store}", "--id", "new", *BOX, "--source", "simulatd"),
         "'simulatd' is no type of source. 'simulated' is near. Give `type` as one of "),
        (("add-box", "{store}", "--id", "new", *BOX, "--variables", "ndvi"), "--variables has to be a mapping"),
        (("add-box", "{store}", "--id", "new", *BOX, "--variables", "{{x: {{band: purple}}}}"), "purple"),
        (("add-box", "{store}", "--id", "new", *BOX, "--tile", "100"), "tile"),
        (("add-box", "{store}", "{nowhere}/box.yaml"), "There is no file"),
        (("add-box", "{store}", "a.yaml", "b.yaml"), "add-box takes one file"),
        (("init", "{nowhere}", "--defaults", "{nowhere}/d.yaml"), "cannot be read"),
    ],
)  # fmt: skip
def test_wrong_calls(geofield_: Any, store: Store, tmp_path: Path, words: tuple[str, ...], text: str) -> None:
    nowhere = str(tmp_path / "nowhere")
    done = geofield_(*(word.format(store=store.url, nowhere=nowhere) for word in words))
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("geofield: ")
    assert text.format(store=store.url, nowhere=nowhere) in done.err
    assert len(done.err.splitlines()) <= 2


def test_what_nobody_foresaw_is_two_lines(geofield_: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("orchestrate.summary.summarise", explode)
    done = geofield_("status", store.url)
    assert (done.status, done.err.splitlines()[0]) == (1, "geofield: RuntimeError: boom")
    monkeypatch.setenv("GEOFIELD_DEBUG", "1")
    assert cli.main(["status", store.url]) == 1


def test_ctrl_c_says_that_nothing_is_lost(geofield_: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(geofield.pipeline, "append_days", stopped)
    done = geofield_("run", store.url, "--until", "2025-04-02")
    assert done.status == 1
    assert "Nothing is lost" in done.err


@pytest.mark.slow
def test_sigterm_ends_a_run_and_the_next_goes_on(geofield_: Any, tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"), box(start="2020-01-01"))
    command = [sys.executable, "-m", "orchestrate.cli", "run", store.url, "--until", "2025-01-01"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        while store.cube("b").head().last is None:
            assert process.poll() is None
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Nothing is lost" in err
    assert "Traceback" not in err
    status = geofield_("status", store.url, "--json").json
    held = status["boxes"]["b"]["days"]
    assert status["runs"][0]["errors"][0]["kind"] == "interrupted"
    assert status["runs"][0]["days_appended"] in (held, held - 8)  # the window that was just published may not be told
    more = geofield_(
        "run", store.url, "--until", str(pd.Timestamp("2020-01-01") + pd.Timedelta(days=held + 1))[:10], "--json"
    )
    assert more.json["boxes"]["b"]["days_appended"] == 2


# --- boxes -----------------------------------------------------------------------------------------------------------


def test_box_from_file_options_and_defaults(geofield_: Any, tmp_path: Path) -> None:
    url, defaults, file = str(tmp_path / "store"), tmp_path / "defaults.yaml", tmp_path / "field-7.yaml"
    defaults.write_text("start: 2020-01-01\nsettle_days: 2\nsource: {type: simulated, seed: 9}\n")
    file.write_text("bbox: [4.3, 51.0, 4.306, 51.004]\nsettle_days: 5\n")
    geofield_("init", url, "--defaults", defaults)
    variables = tmp_path / "variables.json"
    variables.write_text('{"red": {"band": "red", "stats": ["mean"]}}')
    done = geofield_("add-box", url, file, "--start", "2025-04-01", "--resolution", "20", "--variables", variables,
                     "--tile", "512", "--settle-days", "1", "--grid-crs", "EPSG:3035")  # fmt: skip
    assert done.status == 0
    added = geofield.open_store(url).box("field-7")
    assert (str(added.start), added.settle_days, added.source["seed"], list(added.variables)) == (
        "2025-04-01",
        5,
        9,
        ["red"],
    )
    assert (added.grid.resolution, added.grid.crs, added.grid.tile) == (20, "EPSG:3035", 512)
    assert "taken from the file's name" in done.out


def test_of_several_boxes_those_that_can_be_are_added(geofield_: Any, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "boxes.jsonl"
    file.write_text(
        '{"box_id": "one", "xmin": 4.3, "ymin": 51, "xmax": 4.31, "ymax": 51.01}\n'
        '{"box_id": "two", "xmin": 4.3, "ymin": 51, "xmax": 4.2, "ymax": 51.01}\n'
        '{"box_id": "b", "xmin": 4.3, "ymin": 51, "xmax": 4.31, "ymax": 51.01}\n'
    )
    done = geofield_(
        "add-box", store.url, file, "--start", "2025-04-01", "--source", "{type: simulated, seed: 1}", "--json"
    )
    assert done.status == 0
    assert [one["id"] for one in done.json["boxes"]] == ["one"]
    assert sorted(one["box"] for one in done.json["rejected"]) == ["b", "two"]


NORMANDY = ("fields-2025-05-06-000211", "late-fields-2025-05-06-184055", "other-key-names")
CAMEL = "01976dbcbdb77dc4b9b61ba545503b77"
INPUTS = [
    ("normandy/bbox.geojson", [f"normandy/{name}.geojson" for name in NORMANDY], (), {"1"}, 9),
    ("two_boxes/bounding_boxes.geojson", ["two_boxes/fields.geojson"], ("--resolution", "5000"), {"1", "2"}, 3),
    ("partial_and_outside/bbox.json", ["partial_and_outside/fields.json"], ("--resolution", "20000"), {"bbox"}, 2),
    (f"jsonl_boxes/readme-camel/boxes/input/bounding_box_{CAMEL}.jsonl",
     ["jsonl_boxes/readme-camel/fields/fields_two_boxes.jsonl"], ("--resolution", "20000"), {CAMEL}, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("boxes", "fields", "options", "ids", "accepted"), INPUTS, ids=[one[0].split("/")[0] for one in INPUTS]
)
def test_files_as_users_wrote_them(
    geofield_: Any,
    shared: Path,
    tmp_path: Path,
    boxes: str,
    fields: list[str],
    options: tuple[str, ...],
    ids: set[str],
    accepted: int,
) -> None:
    url, inputs = str(tmp_path / "store"), shared / "data" / "inputs"
    geofield_("init", url)
    start = ("--start", "2025-04-29", "--source", "simulated")
    assert geofield_("add-box", url, inputs / boxes, *start, *options).status == 0
    assert set(geofield.open_store(url).boxes()) == ids
    files = [inputs / name for name in fields]
    assert geofield_("submit", url, *files, "--ids", "digest", "--planting-date", "box-start").status == 0
    done = geofield_("run", url, "--until", "2025-05-02", "--json")
    assert done.status == 0
    assert done.json["inbox"]["rows_accepted"] == accepted
    assert sum(one["days_appended"] for one in done.json["boxes"].values()) == 4 * len(ids)


# --- a field's series ------------------------------------------------------------------------------------------------


def test_series_in_every_format(geofield_: Any, full: Store, tmp_path: Path) -> None:
    call = ("series", full.url, "--field", "A")
    shown = geofield_(*call).out
    assert shown.startswith("Field A, 10 days\n")
    assert "2025-04-10" in shown
    rows = full.rows(field="A")
    csv = pd.read_csv(__import__("io").StringIO(geofield_(*call, "--format", "csv").out))
    assert csv["ndvi_mean"].tolist() == pytest.approx(rows["ndvi_mean"].tolist(), nan_ok=True)
    records = geofield_(*call, "--json").json
    assert [one["date"] for one in records] == [str(date) for date in rows["date"]]
    assert any(one["ndvi_mean"] is None for one in records)
    for column in ("ndvi_filled_mean", "ndvi_sigma_mean", "covered"):
        read = [float("nan") if one[column] is None else one[column] for one in records]
        np.testing.assert_array_equal(read, rows[column])  # every digit
    written = geofield_(*call, "--out", tmp_path / "a.parquet")
    assert (written.out, written.err) == ("", f"{len(rows)} rows of field A written to {tmp_path / 'a.parquet'}\n")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), rows)


def test_series_of_one_variable(geofield_: Any, tmp_path: Path) -> None:
    two = {"ndvi": {"index": "NDVI", "state": "kalman"}, "ndvi_red": {"band": "red", "stats": ["mean"]}}
    store = make_store(str(tmp_path / "store"), box(variables=two))
    geofield_("submit", store.url, write_fields(tmp_path / "f.geojson", feature("A", 0, 0)))
    geofield_("run", store.url, "--until", "2025-04-03")
    (first, *_) = geofield_("series", store.url, "--field", "A", "--variable", "ndvi_red", "--json").json
    assert [name for name in first if name.startswith("ndvi")] == [
        "ndvi_red_valid",
        "ndvi_red_count",
        "ndvi_red_mean",
    ] or [name for name in first if name.startswith("ndvi")] == ["ndvi_red_valid", "ndvi_red_mean"]
    wrong = geofield_("series", store.url, "--field", "A", "--variable", "evi")
    assert (wrong.status, "There is no variable 'evi'; there is ndvi, ndvi_red." in wrong.err) == (2, True)


def test_plot(geofield_: Any, full: Store, tmp_path: Path) -> None:
    done = geofield_("series", full.url, "--field", "A", "--plot", tmp_path / "a.png")
    assert (done.status, done.out) == (0, "")
    import matplotlib.image

    picture = matplotlib.image.imread(tmp_path / "a.png")
    assert picture.shape == (675, 1500, 4)
    assert len({tuple(pixel) for row in picture[::5, ::5] for pixel in row.round(2)}) > 5  # more than paper and ink
    for suffix, begin in (("svg", b"<?xml"), ("pdf", b"%PDF")):
        assert geofield_("series", full.url, "--field", "A", "--plot", tmp_path / f"a.{suffix}").status == 0
        assert (tmp_path / f"a.{suffix}").read_bytes().startswith(begin)
    nowhere = geofield_("series", full.url, "--field", "A", "--plot", tmp_path / "no" / "a.png")
    assert nowhere.status == 2


def test_field_in_two_boxes(geofield_: Any, tmp_path: Path) -> None:
    east = box("east", bbox=[500300, 5490000, 500700, 5490400])
    store = make_store(str(tmp_path / "store"), box("b"), east)
    geofield_("submit", store.url, write_fields(tmp_path / "f.geojson", feature("A", 310, 0, 60)))
    geofield_("run", store.url, "--until", "2025-04-02")
    assert {one["box"] for one in geofield_("series", store.url, "--field", "A", "--json").json} == {"b", "east"}
    plot = ("series", store.url, "--field", "A", "--plot", tmp_path / "a.png")
    done = geofield_(*plot)
    assert (done.status, "choose one with --box" in done.err) == (2, True)
    assert geofield_(*plot, "--box", "east").status == 0
    other = geofield_("series", store.url, "--field", "B")
    assert (other.status, "There is A." in other.err) == (2, True)


def test_status_says_how_many_boxes_cannot_be_read(geofield_: Any, store: Store) -> None:
    text = store.location.read("boxes/b.json")
    store.location.write("boxes/b.json", text[: len(text) // 2])
    done = geofield_("status", store.url)
    assert done.status == 1
    assert "1 box cannot be read: b." in done.out
    assert "is not a box: it is not complete JSON (" in done.out
    assert "pydantic" not in done.out
    assert "no box yet" not in done.out


def test_a_run_before_a_box_begins_says_so(geofield_: Any, store: Store) -> None:
    told = "Nothing to do until 2024-01-01: 1 box begins later (b from 2025-04-01 on).\n"
    assert geofield_("plan", store.url, "--until", "2024-01-01").out == told
    assert geofield_("run", store.url, "--until", "2024-01-01").out == told
    assert geofield_("run", store.url, "--until", "2025-04-02").status == 0
    assert geofield_("run", store.url, "--until", "2024-01-01").out == told  # from the note of the run before
    assert geofield_("plan", store.url, "--until", "2024-01-01").out == told


_OUTPUTS = """
import json, os, sys
from orchestrate.cli import main
reader, closed = os.pipe()
os.close(reader)
full = os.open("/dev/full", os.O_WRONLY)
told, kept = [], []  # newer Pythons tell of files that cannot be flushed when they go
for kind, words in json.loads(sys.argv[1]):
    kept.append(sys.stdout)
    if kind == "none":
        os.close(1)
        sys.stdout = None
    else:
        os.dup2(closed if kind == "closed" else full, 1)
        sys.stdout = open(1, "w", closefd=False)
    told.append([kind, words[0], main(words)])
    if sys.stdout is not None:
        sys.stdout.flush()
print(json.dumps(told), file=sys.stderr, flush=True)
os._exit(0)
"""


def test_what_stdout_does_not_take(full: Store) -> None:
    commands = [
        ["status", full.url],
        ["status", full.url, "--json"],
        ["plan", full.url],
        ["runs", full.url],
        ["series", full.url, "--field", "A"],
        ["series", full.url, "--field", "A", "--format", "csv"],
        ["--help"],
    ]
    asked = [(kind, words) for kind in ("closed", "full", "none") for words in commands]
    done = subprocess.run(
        [sys.executable, "-c", _OUTPUTS, json.dumps(asked)], stderr=subprocess.PIPE, text=True, check=True
    )
    *said, last = done.stderr.splitlines()
    expected = {"closed": 0, "full": 1, "none": 0}
    assert json.loads(last) == [[kind, words[0], expected[kind]] for kind, words in asked]
    assert set(said) == {
        "geofield: what was to be printed cannot be written: No space left on device. Nothing else is wrong."
    }
    assert len(said) == len(commands)


@pytest.mark.parametrize("content", ["[]", "3", '{"format": 1, "defaults": []}'])
def test_a_description_that_describes_no_store(store: Store, geofield_: Any, content: str) -> None:
    store.location.write("geofield.json", content.encode())
    result = geofield_("status", store.url)
    assert result.status == 1
    assert "does not describe a store. Bring it back from a copy" in result.err


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9", "http://", "ftp://host"])
def test_an_endpoint_that_is_no_address(geofield_: Any, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    result = geofield_("status", "s3://bucket/store")
    assert result.status == 2
    assert f"The endpoint {endpoint!r} is no address of a server: it begins with http://" in result.err
