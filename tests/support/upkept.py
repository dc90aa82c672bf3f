"""A store whose every part was written by hand or by the pipeline, to be broken on purpose."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import deltalake
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

import geofield
from geofield.boxes import Box
from geofield.cube.cube import Cube
from geofield.fields.versions import field_versions
from geofield.pipeline import append_days
from geofield.pipeline.layers import cube_schema
from geofield.pipeline.verify.rows import current_fields
from geofield.registry import FieldRegistry
from geofield.results.rows import Results
from geofield.store import Location
from geofield.testing.source import ArraySource
from tests.test_pipeline import make_box, scene

DAYS = [dt.date(2025, 4, number) for number in range(1, 7)]
# 300 x 600 pixels: tiles of 256 in two rows of three
WIDE = GeoBox((300, 600), Affine(10, 0, 500000, 0, -10, 5490000), "EPSG:32631")
CORNER = (505120.0, 5487000.0, 506000.0, 5487440.0)  # the last tile alone
CRS = "EPSG:32631"
SHAPES = {
    "first": shapely.box(500105, 5489805, 500195, 5489895),
    "last": shapely.box(505805, 5487105, 505895, 5487195),
    "cross": shapely.box(502400, 5487300, 502700, 5487600),
}


def source() -> ArraySource:
    """Imagery on days 1 (twice), 3, 4 (of the last tile alone) and 6 (without a valid pixel)."""
    rng = np.random.default_rng(11)
    images = [rng.uniform(0, 0.9, WIDE.shape) for _ in range(5)]
    images[2][rng.uniform(size=WIDE.shape) < 0.5] = np.nan
    images[4][:] = np.nan
    first, second, third, fourth, last = (
        scene(day, hour=hour, ndvi=image)
        for day, hour, image in zip(
            (DAYS[0], DAYS[0], DAYS[2], DAYS[3], DAYS[5]), (10, 12, 10, 10, 10), images, strict=True
        )
    )
    scenes = [first, replace(second, id="corner", footprint=CORNER), third, replace(fourth, footprint=CORNER), last]
    return ArraySource(WIDE, scenes)


def field_rows(harvest: dt.date | None = None, **shapes: Any) -> pd.DataFrame:
    """Field versions as the registry takes them, planted on day 1."""
    geometry = np.array(list(shapes.values()), dtype=object)
    planted = np.array([DAYS[0]] * len(shapes), dtype=object)
    harvested = np.array([harvest] * len(shapes), dtype=object)
    none = np.array([None] * len(shapes), dtype=object)
    return pd.DataFrame(
        {
            "field_id": list(shapes),
            "version": field_versions(geometry, np.array([CRS] * len(shapes), dtype=object), planted, harvested),
            "box": none,
            "geometry": [shape.wkb for shape in geometry],
            "crs": CRS,
            "planting_date": planted,
            "harvest_date": harvested,
            "crop": none,
            "properties": "{}",
            "row": range(1, len(shapes) + 1),
            "arrival": dt.datetime(2025, 4, 1, tzinfo=dt.UTC),
        }
    )


class Upkept:
    """The parts of a store with one box `b`, three fields and six days."""

    def __init__(self, url: str) -> None:
        self.location = Location.parse(url)
        self.cube, self.results = Cube(self.location, "b"), Results(self.location, "b")
        self.registry = FieldRegistry(self.location)

    @property
    def box(self) -> Box:
        return Box.model_validate_json(self.location.read("boxes/b.json"))

    @classmethod
    def make(cls, url: str) -> Upkept:
        """Everything that a store has, in order."""
        geofield.create_store(url)
        made, box = cls(url), make_box(WIDE, 256)
        made.location.write("boxes/b.json", box.model_dump_json().encode())
        made.cube.create(cube_schema(box, box.resolved), {"kind": "create", "run": "r"})
        made.registry.accept(field_rows(**SHAPES), "fields.geojson", {"run": "r"})
        made.append(DAYS[0], DAYS[-1])
        return made

    def append(self, start: dt.date, end: dt.date) -> None:
        fields = current_fields(self.box, self.registry)
        append_days(start, end, source(), fields, self.cube, self.results)

    def copy(self, url: str) -> Upkept:
        """The same store elsewhere: repositories and tables hold no absolute paths."""
        target = Location.parse(url)
        if not target.is_s3:
            shutil.copytree(self.location.url, url)
        else:
            for info in self.location.list(""):
                if not info.key.startswith("."):
                    target.write(info.key, self.location.read(info.key))
        return Upkept(url)

    def objects(self, *folders: str) -> dict[str, bytes]:
        """Key -> bytes; of the whole store when no folder is named."""
        infos = [info for folder in folders or ("",) for info in self.location.list(folder)]
        return {info.key: self.location.read(info.key) for info in infos if not info.key.startswith(".")}

    def commit(self, change: Callable[[zarr.Group], None]) -> None:
        """Put a commit on `main` that no geofield would make."""
        session = Cube(self.location, "b").repository.writable_session("main")
        change(zarr.open_group(session.store, mode="r+"))
        session.commit("by hand")
        self.cube = Cube(self.location, "b")

    def table(self, key: str = "rows/b") -> deltalake.DeltaTable:
        return deltalake.DeltaTable(self.location.table_uri(key), storage_options=self.location.table_options())

    def write_rows(self, rows: pd.DataFrame, key: str = "rows/b") -> None:
        """Append rows as some other program would."""
        schema = pa.schema(self.table(key).schema().to_arrow())
        deltalake.write_deltalake(
            self.table(key), pa.Table.from_pandas(rows, schema, preserve_index=False), mode="append"
        )

    def rows(self) -> pd.DataFrame:
        """All rows with their month."""
        found = self.results.read()
        return found.assign(month=[f"{date:%Y-%m}" for date in found["date"]])
