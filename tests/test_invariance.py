"""A wide simulated box on a grid that is no whole number: the same bits whatever cuts the work."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

import geofield
from orchestrate import cluster
from orchestrate.inbox import submit
from orchestrate.run import run

START = dt.date(2025, 5, 1)
X0, Y0, STEP = 465181.0522, 5080254.6335, 9.99479
COLUMNS, ROWS = 2150, 530

pytestmark = pytest.mark.timeout(600)


def make_fields() -> gpd.GeoDataFrame:
    """Discs over every kind of edge: of blocks of 256, tiles of 512 and 2048, and of the box."""
    centres = [(256, 256), (512, 300), (1024, 512), (1536.4, 500), (2048, 256), (2048, 512.5), (2149, 100), (100, 529)]
    shapes = [
        shapely.Point(X0 + STEP * x, Y0 - STEP * y).buffer(radius, 7)
        for x, y in centres
        for radius in (7.0, 111.1, 640.0)
    ]
    shapes.append(shapely.box(X0 - 50, Y0 - STEP * ROWS - 50, X0 + STEP * COLUMNS + 50, Y0 + 50))  # the whole box
    names = [f"f{number:02}" for number in range(len(shapes))]
    return gpd.GeoDataFrame({"field_id": names, "planting_date": str(START)}, geometry=shapes, crs="EPSG:32633")


def make_store(folder: Path, tile: int) -> geofield.Store:
    store = geofield.create_store(folder)
    store.add_box(
        geofield.Box.model_validate(
            {
                "id": "wide",
                "bbox": (X0, Y0 - STEP * ROWS, X0 + STEP * COLUMNS, Y0),
                "crs": "EPSG:32633",
                "start": START,
                "grid": {"crs": "EPSG:32633", "resolution": STEP, "tile": tile},
                "source": {"type": "simulated", "seed": 3, "revisit": 2},
                "variables": {
                    "ndvi": {
                        "index": "NDVI",
                        "mask": {"scl": [0, 1, 3, 8, 9, 10, 11]},
                        "valid_range": [-1, 1],
                        "state": "kalman",
                    },
                    "ndmi": {"index": "NDMI", "valid_range": [-1, 1], "stats": ["mean", "stdev", "quantile(q=0.9)"]},
                },
            }
        )
    )
    path = folder / "fields.geojson"
    path.write_text(json.dumps(json.loads(make_fields().to_json())))
    submit(store, [path], "fields", {"crs": "EPSG:32633"})
    return store


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Any]:
    store = make_store(tmp_path_factory.mktemp("reference"), 2048)
    with cluster.connect("threads", 1) as client:
        receipt = run(store, START + dt.timedelta(days=3), client)
    assert receipt["errors"] == []
    return store.rows(), store.cube("wide").open().load()


@pytest.mark.parametrize(
    ("kind", "workers", "tile"),
    [
        ("threads", 2, 256),
        ("threads", 1, 512),
        ("threads", 2, 2048),
        ("local", 2, 256),
        ("local", 1, 2048),
        ("local", 2, 512),
    ],
)
def test_rows_and_cube_do_not_depend_on_how_the_work_is_cut(
    tmp_path: Path, reference: tuple[pd.DataFrame, Any], kind: str, workers: int, tile: int
) -> None:
    store = make_store(tmp_path / "store", tile)
    with cluster.connect(kind, workers) as client:
        receipt = run(store, START + dt.timedelta(days=3), client)
    assert receipt["errors"] == []
    rows, cube = reference
    assert rows["ndvi_count"].max() > 100_000
    assert rows["status"].nunique() > 1
    pd.testing.assert_frame_equal(store.rows(), rows, check_exact=True)
    mine = store.cube("wide").open()
    for name in cube.data_vars:
        assert np.array_equal(mine[name].values, cube[name].values, equal_nan=True), name
