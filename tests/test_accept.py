"""Acceptance on real data: the command line against independent truth. Needs the folder of real data (`--shared`)."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import exactextract
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio

import geofield

pytestmark = pytest.mark.timeout(900)

START, HALF, END = "2015-07-11", "2016-06-30", "2016-12-22"
LATE = range(30, 44)
STATISTICS = ("count", "mean", "stdev", "min", "max", "median")
TWICE = dt.date(2015, 12, 8)  # two acquisitions; the truth has a row for each, both of them cloud alone


def call(*arguments: object) -> dict[str, Any]:
    """One call of the command line; its JSON."""
    command = [sys.executable, "-m", "orchestrate.cli", *map(str, arguments), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"GEOFIELD_DEBUG": "1"}
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def box_file(folder: Path, shared: Path, precision: str) -> Path:
    path = folder / "tomaj.yaml"
    path.write_text(
        f"""
id: tomaj
bbox: [465181.0522318204, 5079244.8912012065, 466180.53145382757, 5080254.63349641]
crs: EPSG:32633
start: {START}
grid: native
source:
  type: files
  root: {os.path.relpath(shared / "data/sentinel2_tomaj/cog", folder)}
  bands: {{ndvi: "NDVI_{{time}}.tif", cloud: "CLM_{{time}}.tif"}}
variables:
  ndvi: {{band: ndvi, mask: {{cloud: [1]}}, valid_range: [-1, 1], precision: {precision}, state: kalman}}
"""
    )
    return path


def field_files(folder: Path, shared: Path) -> tuple[Path, Path]:
    fields = gpd.read_parquet(shared / "data/sentinel2_tomaj/fields.parquet")
    on_time, late = folder / "on-time.parquet", folder / "late.parquet"
    fields[~fields["fid"].isin(LATE)].to_parquet(on_time)
    fields[fields["fid"].isin(LATE)].to_parquet(late)
    return on_time, late


def submit(store: str, path: Path) -> None:
    call("submit", store, path, "--id-column", "fid", "--planting-date", "box-start")


def grown(
    store: str, folder: Path, shared: Path, *, late: bool, cut: bool = True, precision: str = "1e-4"
) -> list[Any]:
    """A store with every field and every day, and the receipts of its runs."""
    folder.mkdir(exist_ok=True)
    files = field_files(folder, shared)
    call("init", store)
    call("add-box", store, box_file(folder, shared, precision))
    submit(store, files[0])
    if not late:
        submit(store, files[1])
    receipts = []
    if cut:
        receipts.append(call("run", store, "--until", HALF, "--cluster", "threads", "--workers", 2))
    if late:
        submit(store, files[1])
        receipts.append(call("run", store, "--until", HALF, "--cluster", "threads", "--workers", 2))
    receipts.append(call("run", store, "--until", END, "--cluster", "threads", "--workers", 2))
    return receipts


def cube_objects(store: str) -> dict[str, bytes]:
    location = geofield.open_store(store).location
    return {info.key: location.read(info.key) for info in location.list("cubes")}


def check_against_truth(store: str, shared: Path, tolerance: float, median: float) -> None:
    truth = pd.read_parquet(shared / "data/sentinel2_tomaj/truth_exactextract.parquet")
    truth = truth.assign(field_id=truth["fid"].astype(str), date=truth["time"].dt.date)
    truth = truth.drop_duplicates(["field_id", "date"])
    rows = geofield.open_store(store).rows("tomaj")
    both = rows.merge(truth, on=["field_id", "date"])
    assert len(both) == 44 * 31
    for name in STATISTICS:
        found, wanted = both[f"ndvi_{name}"].to_numpy(float), both[name].to_numpy(float)
        assert (np.isnan(found) == np.isnan(wanted)).all(), name
        limit = {"count": 1e-6, "median": median}.get(name, tolerance)
        assert np.nanmax(np.abs(found - wanted)) <= limit, name
    share = both["frac_valid"].to_numpy(float)
    assert np.abs(both["ndvi_valid"].to_numpy(float) - share).max() <= 1e-6
    assert set(both["status"]) == {"observed", "all_masked"}
    assert set(rows.loc[~rows["date"].isin(truth["date"]), "status"]) == {"no_acquisition"}


def check_against_exactextract_on_the_cube(store: str, shared: Path, folder: Path) -> None:
    """Every statistic of every acquisition day as exactextract gives it for the decoded cube."""
    cube = geofield.open_store(store).cube("tomaj").open(variables=["ndvi"])
    days = cube.isel(time=np.flatnonzero(cube["acquired"].values))["ndvi"].load()
    path = folder / "decoded.tif"
    profile = {"driver": "GTiff", "count": days.sizes["time"], "dtype": "float64", "nodata": np.nan}
    geobox = cube.odc.geobox
    with rasterio.open(
        path, "w", **profile, height=geobox.shape.y, width=geobox.shape.x, crs="EPSG:32633", transform=geobox.transform
    ) as file:
        file.write(days.values)
    fields = gpd.read_parquet(shared / "data/sentinel2_tomaj/fields.parquet")
    found = exactextract.exact_extract(path, fields, list(STATISTICS), include_cols=["fid"], output="pandas")
    rows = geofield.open_store(store).rows("tomaj").set_index(["field_id", "date"])
    compared = 0
    for number, time in enumerate(days["time"].values.astype("datetime64[D]").tolist(), 1):
        for record in found.to_dict("records"):
            row = rows.loc[(str(record["fid"]), time)]
            for name in STATISTICS:
                wanted, ours = record[f"band_{number}_{name}"], row[f"ndvi_{name}"]
                wanted = np.nan if wanted is None else wanted
                assert (wanted == 0 and ours == 0) or ours == pytest.approx(wanted, rel=1e-6, abs=1e-9, nan_ok=True)
                compared += 1
    assert compared == 31 * 44 * len(STATISTICS)


def test_tomaj_on_a_directory(shared: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "late")
    receipts = grown(store, tmp_path, shared, late=True)
    first, filled, last = (receipt["boxes"]["tomaj"] for receipt in receipts)
    assert (first["days_appended"], filled["days_appended"], last["days_appended"]) == (356, 0, 175)
    late = filled["late"]
    assert (late["fields"], late["field_days"], late["source_reads"], late["box_tasks"]) == (14, 14 * 356, 0, 0)
    assert filled["source_reads"] == 0
    check_against_truth(store, shared, 1e-4, median=0.004)
    check_against_exactextract_on_the_cube(store, shared, tmp_path)

    # cut in two with late fields, in one piece with all on time: the same rows and the same cube, bit for bit
    whole = str(tmp_path / "whole")
    grown(whole, tmp_path / "w", shared, late=False, cut=False)
    one, other = geofield.open_store(store), geofield.open_store(whole)
    pd.testing.assert_frame_equal(one.rows(), other.rows(), check_exact=True)
    for name, array in one.cube("tomaj").open().data_vars.items():
        assert np.array_equal(array.values, other.cube("tomaj").open()[name].values, equal_nan=True), name

    again = call("run", store, "--until", END)
    assert again["boxes"]["tomaj"]["days_appended"] == again["boxes"]["tomaj"]["rows_written"] == 0


def test_late_fields_leave_every_object_of_the_cube_and_every_other_row(shared: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    files = field_files(tmp_path, shared)
    call("init", store)
    call("add-box", store, box_file(tmp_path, shared, "1e-4"))
    submit(store, files[0])
    call("run", store, "--until", "2015-12-31")
    objects, rows = cube_objects(store), geofield.open_store(store).rows()
    submit(store, files[1])
    call("run", store, "--until", "2015-12-31")
    assert cube_objects(store) == objects
    after = geofield.open_store(store).rows()
    late = after["field_id"].isin([str(fid) for fid in LATE])
    assert late.sum() == 14 * 174
    pd.testing.assert_frame_equal(after[~late].reset_index(drop=True), rows, check_exact=True)


@pytest.mark.s3
def test_tomaj_on_s3(shared: Path, tmp_path: Path, s3_url: str) -> None:
    grown(s3_url, tmp_path, shared, late=True)
    check_against_truth(s3_url, shared, 1e-4, median=0.004)


def test_with_a_finer_step_the_median_agrees_too(shared: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    grown(store, tmp_path, shared, late=False, cut=False, precision="1e-6")
    check_against_truth(store, shared, 1e-6, median=1e-4)


def test_two_runs_on_two_processes_equal_one_on_threads(shared: Path, tmp_path: Path) -> None:
    stores = [str(tmp_path / name) for name in ("threads", "local")]
    for store, cluster in zip(stores, ("threads", "local"), strict=True):
        call("init", store)
        call("add-box", store, box_file(tmp_path, shared, "1e-4"))
        submit(store, field_files(tmp_path, shared)[0])
        call("run", store, "--until", "2015-08-31", "--cluster", cluster, "--workers", 2)
    one, other = (geofield.open_store(store).rows() for store in stores)
    pd.testing.assert_frame_equal(one, other, check_exact=True)
