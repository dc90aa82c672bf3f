"""The report page: what it tells is what the store holds, and nothing in it is markup but its own."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geofield import Run, Store
from orchestrate import cli
from orchestrate.inbox import InboxReport, read_inbox, submit
from orchestrate.report import render, report_of
from orchestrate.report.values import BoxData, Report, VariableData, pack
from orchestrate.run import run
from tests.support.smallstore import START, box, feature, make_store, write_fields

HOSTILE = "</script><img src=x onerror=alert(1)>${7*7}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two boxes, ten days; one field on time, one late, one that waits, one refused; hostile ids and properties."""
    folder = tmp_path_factory.mktemp("report")
    sky = {"type": "simulated", "seed": 5, "revisit": 2, "phase": 0, "cloudiness": 0.2}
    made = make_store(str(folder / "store"), box(source=sky), box("c", bbox=[500500, 5490000, 500900, 5490400]))
    first = write_fields(folder / "a.geojson", feature("A", 0, 0, crop=HOSTILE), feature("far", 90_000, 0))
    submit(made, [first], "fields", {})
    assert not run(made, START + dt.timedelta(days=5))["errors"]
    submit(made, [write_fields(folder / "b.geojson", feature(HOSTILE, 150, 0, note=f"{HOSTILE}\u2028"))], "fields", {})
    assert not run(made, START + dt.timedelta(days=9))["errors"]
    submit(made, [write_fields(folder / "c.geojson", feature("waiting", 0, 200))], "fields", {})
    read_inbox(made, Run(), InboxReport())  # known, but no run has given it rows
    return made


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    """Every start tag of a page, as a browser reads it."""
    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    Reader().feed(page)
    return found


def data_of(page: str, name: str) -> Any:
    (text,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def unpack(packed: dict[str, Any], *shape: int) -> Any:
    planes = np.frombuffer(gzip.decompress(base64.b64decode(packed["data"])), np.uint8).reshape(2, *shape)
    steps = planes[0] + 256 * planes[1].astype(int)
    return np.where(steps == 65535, np.nan, packed["low"] + packed["step"] * steps)


# --- what it tells ---------------------------------------------------------------------------------------------------


def test_the_page_holds_the_numbers_of_the_store(store: Store) -> None:
    page = render(report_of(store))
    head = data_of(page, "box-0")
    fields = json.loads(gzip.decompress(base64.b64decode(head["fields"])))
    assert (head["id"], head["first_day"], head["days"]) == ("b", "2025-04-01", 10)
    (ndvi,) = head["variables"]
    for name in ("A", HOSTILE):
        place = [one["id"] for one in fields].index(name)
        rows = store.rows(box="b", field=name)
        for layer, column in (
            ("observed", "ndvi_mean"),
            ("estimate", "ndvi_filled_mean"),
            ("sigma", "ndvi_sigma_mean"),
        ):
            np.testing.assert_allclose(unpack(ndvi[layer], len(fields), 10)[place], rows[column], atol=2e-5)
    # the square of A: 100 m at the lower left corner of 40 x 40 pixels, y down
    (square,) = fields[[one["id"] for one in fields].index("A")]["rings"]
    assert {(x, y) for x, y in zip(square[0][::2], square[0][1::2], strict=True)} == {
        (0, 40),
        (10, 40),
        (10, 30),
        (0, 30),
    }
    assert unpack(ndvi["quicklook"], 40, 40) == pytest.approx(
        store.cube("b").open()["ndvi_filled"].isel(time=-1).to_numpy(), abs=2e-5, nan_ok=True
    )


def test_the_page_tells_what_is_late_what_was_refused_and_how_far_boxes_are(store: Store) -> None:
    meta = report_of(store, now=dt.datetime(2025, 4, 14, 12, tzinfo=dt.UTC)).meta
    assert [(one["id"], one["last_day"], one["lag"], one["late"]) for one in meta["boxes"]] == [
        ("b", "2025-04-10", 4, 1),
        ("c", "2025-04-10", 4, 0),
    ]
    told = {one["field"]: one for one in meta["late"]["rows"]}
    assert set(told) == {"waiting", HOSTILE}
    assert told["waiting"]["reason"].startswith("10 days between 2025-04-01 and 2025-04-10 are missing")
    assert told[HOSTILE]["reason"].startswith("Came after its first day was appended")
    assert (meta["late"]["waiting"], meta["late"]["total"]) == (1, 2)
    (refused,) = meta["refused"]["rows"]
    assert refused["field_id"] == "far"
    assert refused["reason"]
    assert [one["days"] for one in meta["runs"]] == [8, 12]


def test_fewer_days_where_fields_are_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one.status.shape[1] for one in report_of(store, 3).boxes] == [3, 3]
    monkeypatch.setattr("orchestrate.report.content.FIELD_DAYS", 12)
    found = report_of(store)
    assert (found.meta["days"], found.boxes[0].status.shape) == (4, (3, 4))
    assert found.boxes[0].first_day == "2025-04-07"


def test_a_store_without_anything_has_a_page(tmp_path: Path) -> None:
    page = render(report_of(make_store(str(tmp_path / "store"))))
    assert data_of(page, "meta")["boxes"][0]["last_day"] is None
    assert data_of(page, "meta")["boxes"][0]["lag"] > 0


def test_a_box_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    made = make_store(str(tmp_path / "store"), box(), box("c"))
    made.location.write("boxes/c.json", b"{")
    found = report_of(made)
    assert [one.id for one in found.boxes] == ["b"]
    assert [(one["box"], one["kind"]) for one in found.meta["errors"]] == [("c", "corrupt_store")]


def test_packing_keeps_values_to_a_65534th_of_their_range() -> None:
    values = np.random.default_rng(3).normal(size=(7, 50))
    values[2, 3:9] = np.nan
    back = unpack(pack(values), 7, 50)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
    assert np.nanmax(abs(back - values)) <= 0.51 * (np.nanmax(values) - np.nanmin(values)) / 65534
    for flat in (np.full((2, 2), 0.25), np.full((2, 2), np.nan)):
        np.testing.assert_array_equal(unpack(pack(flat), 2, 2), flat)


# --- nothing in it is markup but its own -----------------------------------------------------------------------------


def test_what_comes_from_outside_is_never_markup(store: Store) -> None:
    page = render(report_of(store))
    assert not [
        tag for tag, attributes in elements(page) if tag == "img" or any(name.startswith("on") for name in attributes)
    ]
    assert HOSTILE not in page
    scripts = [attributes.get("type") for tag, attributes in elements(page) if tag == "script"]
    assert scripts == ["application/json"] * 3 + [None]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", page)


def test_a_hostile_store_name_stays_text() -> None:
    empty = {"made": "2025-01-01", "version": "0", "days": 1, "boxes": [], "runs": [], "errors": []}
    meta = {**empty, "store": "<b>@@SCRIPT@@</b>", "late": {"rows": [], "total": 0, "waiting": 0}}
    page = render(Report({**meta, "refused": {"rows": [], "total": 0, "files": 0}}, []))
    assert "<title>geofield: &lt;b&gt;@@SCRIPT@@&lt;/b&gt;</title>" in page
    assert data_of(page, "meta")["store"] == "<b>@@SCRIPT@@</b>"


def test_the_policy_lets_one_script_run_and_nothing_be_fetched(store: Store) -> None:
    import hashlib

    page = render(report_of(store))
    (policy,) = [one["content"] for tag, one in elements(page) if tag == "meta" and "http-equiv" in one]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


def test_secrets_are_masked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "c.geojson-secret")
    assert "c.geojson-secret" not in render(Report(report_of(store).meta, []))


def test_the_command_writes_it(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    assert cli.main(["report", store.url, "--out", str(out), "--no-imagery"]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    assert data_of(out.read_text(), "box-0")["variables"][0]["quicklook"] is None
    assert cli.main(["report", store.url, "--out", str(tmp_path / "no" / "report.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_command_says_what_it_could_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear = {"type": "simulated", "seed": 5, "revisit": 1, "cloudiness": 0.0}
    made = make_store(str(tmp_path / "store"), box(source=clear), box("c"))
    submit(made, [write_fields(tmp_path / "a.geojson", feature("A", 0, 0))], "fields", {})
    run(made, START + dt.timedelta(days=1))
    made.location.write("boxes/c.json", b"{")
    shards = made.location.list("cubes/b/chunks")
    assert shards
    for info in shards:
        made.location.write(info.key, b"not what was written")
    out = tmp_path / "report.html"
    assert cli.main(["report", made.url, "--out", str(out)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" could not be read: ")[0] for line in said] == ["warning: box c", "warning: box b"]
    page = out.read_text()
    assert {one["box"] for one in data_of(page, "meta")["errors"]} == {"b", "c"}
    assert data_of(page, "box-0")["id"] == "b"  # its rows can be read


def test_a_page_is_not_written_under_the_name_of_another_format(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", store.url, "--out", str(tmp_path / "r.pdf")]) == 2
    assert "r.pdf: the report is an HTML page; name it .html or .htm" in capsys.readouterr().err
    assert not (tmp_path / "r.pdf").exists()


def test_thousands_of_fields_stay_small() -> None:
    """5,000 fields with a year each: 7.4 MB were measured."""
    assert len(render(many(5000, 366))) < 12e6


def many(count: int, days: int) -> Report:
    """A page of made-up fields in a square."""
    chance = np.random.default_rng(1)
    side = int(np.ceil(np.sqrt(count)))
    fields = []
    for number in range(count):
        x, y = 20.0 * (number % side), 20.0 * (number // side)
        ring = [x + 2, y + 2, x + 17, y + 3, x + 16, y + 16, x + 3, y + 15, x + 2, y + 2]
        fields.append({"id": f"field {number}", "rings": [[ring]], "planted": "2025-01-01", "harvest": None,
                       "crop": "wheat", "covered": 1.0, "version": "v", "versions": 1, "file": None,
                       "properties": {}})  # fmt: skip
    observed = np.full((count, days), np.nan)
    observed[:, ::5] = 0.5 + 0.2 * chance.standard_normal((count, len(range(0, days, 5))))
    estimate = np.cumsum(0.01 * chance.standard_normal((count, days)), axis=1)
    status = np.where(np.isfinite(observed), 1, 3).astype(np.uint8)
    one = BoxData("big", 20.0 * side, 20.0 * side, "EPSG:32633, pixels of 10 x 10", "2025-01-01", fields, status)
    one.variables.append(VariableData("ndvi", observed, estimate, np.round(np.abs(estimate), 2)))
    about = {"id": "big", "start": "2025-01-01", "last_day": "2026-01-01", "lag": 1, "days": days, "acquisitions": 73,
             "fields": count, "late": 0, "rows": count * days, "rows_missing": 0, "variables": ["ndvi"]}  # fmt: skip
    meta = {"store": "made up", "made": "2026-01-02T00:00:00+00:00", "version": "0", "days": days, "boxes": [about],
            "late": {"rows": [], "total": 0, "waiting": 0}, "refused": {"rows": [], "total": 0, "files": 0}, "runs": [],
            "errors": []}  # fmt: skip
    return Report(meta, [one])
