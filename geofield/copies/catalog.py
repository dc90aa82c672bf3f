"""What the copies of a box are, as STAC 1.1: a collection, an item for the newest image, a catalogue of all boxes.

Documents tell what stands and nothing of the moment or the process that wrote them: made again they are the same bytes.
Addresses are relative, so that a store can be served from anywhere.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from odc.geo.geobox import GeoBox

from geofield.copies.arrays import CopyArray
from geofield.grid import bounds_of, crs_of, parse_crs
from geofield.projection import project

STAC = "1.1.0"
_EXTENSIONS = "https://stac-extensions.github.io"
# 2.2.0 and not 2.3.0, which says the same of a cube: pystac opens that one
DATACUBE = f"{_EXTENSIONS}/datacube/v2.2.0/schema.json"
PROJECTION = f"{_EXTENSIONS}/projection/v2.0.0/schema.json"
RASTER = f"{_EXTENSIONS}/raster/v2.0.0/schema.json"
PROCESSING = f"{_EXTENSIONS}/processing/v1.2.0/schema.json"
TABLE = f"{_EXTENSIONS}/table/v1.2.0/schema.json"

ZARR, COG, PARQUET, JSON, JSONLD = (
    "application/vnd.zarr; version=3",
    "image/tiff; application=geotiff; profile=cloud-optimized",
    "application/vnd.apache.parquet",
    "application/json",
    "application/ld+json",
)
_DEGREES = 7  # decimals: a centimetre
_TOLERANCE = 1e-6  # degrees
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Published:
    """What stands of a box's copies.

    Attributes
    ----------
    title, description
        For people, the same in every document.
    arrays
        Those of the cube and of the image.
    first, last
        Days that the Zarr copy shows; None: there is no such copy.
    image
        The day that the GeoTIFF shows.
    snapshot
        The state of the cube that the Zarr copy shows, where it shows one as a whole.
    fields, rows
        Columns of the fields' GeoParquet and of the rows table, where there are such.
    lineage
        Variable -> what it is made from, for people.
    software
        Name -> version.
    """

    box_id: str
    title: str
    description: str
    geobox: GeoBox
    arrays: Sequence[CopyArray]
    first: dt.date | None
    last: dt.date | None
    image: dt.date | None
    snapshot: str | None
    fields: pa.Schema | None
    rows: pa.Schema | None
    lineage: Mapping[str, str]
    software: Mapping[str, str]
    keywords: Sequence[str] = field(default=("field statistics", "satellite imagery", "time series"))

    @property
    def days(self) -> tuple[dt.date, dt.date]:
        """First and last of everything."""
        shown = [day for day in (self.first, self.last, self.image) if day is not None]
        return min(shown), max(shown)

    @property
    def outline(self) -> Any:
        """The box in longitude and latitude: a polygon whose edges follow those of the box, counterclockwise."""
        crs = crs_of(self.geobox)
        box = np.array([shapely.box(*bounds_of(self.geobox))], dtype=object)
        (shape,) = project(box, crs, parse_crs("EPSG:4326"), _TOLERANCE)
        return shapely.geometry.polygon.orient(shape)

    @property
    def bbox(self) -> list[float]:
        """West, south, east, north."""
        return [round(number, _DEGREES) for number in self.outline.bounds]


def collection(one: Published) -> dict[str, Any]:
    """The STAC collection of a box, to lie at `stac/collection.json` beside its copies."""
    first, last = one.days
    extensions = [DATACUBE, PROJECTION, PROCESSING] if one.first is not None else []
    if one.fields is not None or one.rows is not None:
        extensions.append(TABLE)
    links = [
        _link("root", "../../catalog.json", JSON),
        _link("parent", "../../catalog.json", JSON),
        _link("describedby", "../dataset.jsonld", JSONLD, "The same as schema.org Dataset"),
    ]
    if one.image is not None:
        links.insert(2, _link("item", "./latest.json", "application/geo+json", f"The image of {one.image}"))
    return {
        "type": "Collection",
        "stac_version": STAC,
        "stac_extensions": extensions,
        "id": one.box_id,
        "title": one.title,
        "description": one.description,
        "keywords": list(one.keywords),
        "license": "other",
        "extent": {
            "spatial": {"bbox": [one.bbox]},
            "temporal": {"interval": [[_start(first), _end(last)]]},
        },
        **(cube_fields(one) if one.first is not None else {}),
        "links": links,
        "assets": _assets(one),
    }


def item(one: Published) -> dict[str, Any]:
    """The STAC item of the newest image, to lie at `stac/latest.json`."""
    assert one.image is not None
    ring = [[round(x, _DEGREES), round(y, _DEGREES)] for x, y in one.outline.exterior.coords]
    return {
        "type": "Feature",
        "stac_version": STAC,
        "stac_extensions": [PROJECTION, RASTER, PROCESSING],
        "id": f"{one.box_id}-latest",
        "collection": one.box_id,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": one.bbox,
        "properties": {
            "title": f"{one.title}: {one.image}",
            "datetime": None,
            "start_datetime": _start(one.image),
            "end_datetime": _end(one.image),
            **_processing(one),
        },
        "links": [
            _link("root", "../../catalog.json", JSON),
            _link("parent", "./collection.json", JSON),
            _link("collection", "./collection.json", JSON),
        ],
        "assets": {
            "image": {
                "href": "../latest.tif",
                "type": COG,
                "title": f"Every array of {one.image}",
                "roles": ["data"],
                **_place(one.geobox),
                "bands": [_band(array, one.geobox) for array in one.arrays],
            }
        },
    }


def catalog(title: str, box_ids: Iterable[str]) -> dict[str, Any]:
    """The STAC catalogue of a store, to lie at `published/catalog.json`."""
    children = [_link("child", f"./{box_id}/stac/collection.json", JSON, box_id) for box_id in sorted(box_ids)]
    return {
        "type": "Catalog",
        "stac_version": STAC,
        "id": "geofield",
        "title": title,
        "description": "Boxes of which there are copies: daily cubes, newest images, fields and their statistics.",
        "links": [_link("root", "./catalog.json", JSON), *children],
    }


def children_of(document: Mapping[str, Any]) -> list[str]:
    """The boxes that a catalogue lists."""
    links = document.get("links")
    found = [one for one in links if isinstance(one, Mapping)] if isinstance(links, list) else []
    hrefs = [str(one.get("href")).split("/") for one in found if one.get("rel") == "child"]
    return [parts[1] for parts in hrefs if len(parts) == 4]


def cube_fields(one: Published) -> dict[str, Any]:
    """The fields of the datacube extension."""
    assert one.first is not None
    assert one.last is not None
    crs = crs_of(one.geobox)
    code = crs.to_epsg()
    system = crs.to_wkt("WKT2_2019") if code is None else code
    a, (rows, columns) = one.geobox.transform, one.geobox.shape
    centres = {
        "y": [a.f + a.e * (rows - 0.5), a.f + a.e * 0.5],
        "x": [a.c + a.a * 0.5, a.c + a.a * (columns - 0.5)],
    }
    steps = {"y": a.e, "x": a.a}
    space = {
        axis: {
            "type": "spatial", "axis": axis, "extent": [float(number) for number in centres[axis]],
            "step": float(steps[axis]), "reference_system": system, "description": "Centres of pixels",
        }
        for axis in ("y", "x")
    }  # fmt: skip
    time = {"type": "temporal", "extent": [_start(one.first), _start(one.last)], "step": "P1D"}
    dimensions = ["time", "y", "x"]
    return {
        "cube:dimensions": {"time": time, **space},
        "cube:variables": {
            array.name: {"dimensions": dimensions, "type": "data", "description": array.long_name, "unit": array.units}
            for array in one.arrays
        },
    }


def _assets(one: Published) -> dict[str, Any]:
    assets: dict[str, Any] = {}
    if one.first is not None:
        assets["cube"] = {
            "href": "../cube.zarr",
            "type": ZARR,
            "title": "The cube, one step per day, as plain Zarr",
            "roles": ["data"],
            **_place(one.geobox),
            **_processing(one),
            **({} if one.snapshot is None else {"geofield:snapshot": one.snapshot}),
        }
    if one.fields is not None:
        assets["fields"] = {
            "href": "../fields.parquet",
            "type": PARQUET,
            "title": "The fields, as GeoParquet",
            "roles": ["data"],
            "table:columns": _columns(one.fields),
            "table:primary_geometry": "geometry",
        }
    if one.rows is not None:
        assets["rows"] = {
            "href": f"../../../rows/{one.box_id}",
            "type": PARQUET,
            "title": "One row for each field and day: a Delta Lake table, joined to the fields by field_id = id",
            "description": "Read it as Delta Lake (DuckDB, Polars, Spark, pandas); its Parquet files alone also hold "
            "rows that were replaced.",
            "roles": ["data"],
            "table:columns": _columns(one.rows),
        }
    return assets


def _place(geobox: GeoBox) -> dict[str, Any]:
    crs = crs_of(geobox)
    code = crs.to_epsg()
    return {
        **({"proj:wkt2": crs.to_wkt("WKT2_2019")} if code is None else {"proj:code": f"EPSG:{code}"}),
        "proj:shape": [geobox.shape.y, geobox.shape.x],
        "proj:transform": [float(number) for number in list(geobox.transform)[:6]],
        "proj:bbox": [float(number) for number in bounds_of(geobox)],
    }


def _processing(one: Published) -> dict[str, Any]:
    lineage = "; ".join(f"{name}: {text}" for name, text in one.lineage.items())
    return {"processing:level": "L3", "processing:lineage": lineage, "processing:software": dict(one.software)}


def _band(array: CopyArray, geobox: GeoBox) -> dict[str, Any]:
    resolution = abs(geobox.transform.a)
    return {
        "name": array.name,
        "description": array.long_name,
        "data_type": "float32",
        "nodata": "nan",
        "unit": array.units,
        "raster:sampling": "area",
        **({} if crs_of(geobox).is_geographic else {"raster:spatial_resolution": float(resolution)}),
    }


def _columns(schema: pa.Schema) -> list[dict[str, str]]:
    return [{"name": column.name, "type": str(column.type)} for column in schema]


def _link(rel: str, href: str, kind: str, title: str | None = None) -> dict[str, str]:
    return {"rel": rel, "href": href, "type": kind, **({} if title is None else {"title": title})}


def _start(day: dt.date) -> str:
    return f"{day}T00:00:00Z"


def _end(day: dt.date) -> str:
    """The last second of a day."""
    return f"{day}T23:59:59Z"
