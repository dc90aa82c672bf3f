"""What the copies of a box are, as a schema.org Dataset: the JSON-LD that search engines for data harvest."""

from __future__ import annotations

import html
import json
from typing import Any

from geofield.copies.catalog import COG, JSON, PARQUET, ZARR, Published


def dataset(one: Published) -> dict[str, Any]:
    """A schema.org Dataset, to lie beside the copies; addresses are relative."""
    first, last = one.days
    west, south, east, north = one.bbox
    parts = [("stac/collection.json", JSON, "The same as a STAC collection")]
    if one.first is not None:
        parts.append(("cube.zarr", ZARR, "The cube as plain Zarr"))
    if one.image is not None:
        parts.append(("latest.tif", COG, f"The image of {one.image}"))
    if one.fields is not None:
        parts.append(("fields.parquet", PARQUET, "The fields as GeoParquet"))
    if one.rows is not None:
        parts.append((f"../../rows/{one.box_id}", PARQUET, "One row for each field and day, a Delta Lake table"))
    return {
        "@context": "https://schema.org/",
        "@type": "Dataset",
        "name": one.title,
        "identifier": one.box_id,
        "description": one.description,
        "keywords": list(one.keywords),
        "temporalCoverage": f"{first}/{last}",
        "spatialCoverage": {
            "@type": "Place",
            "geo": {"@type": "GeoShape", "box": f"{south} {west} {north} {east}"},
        },
        **({} if one.snapshot is None else {"version": one.snapshot}),
        "measurementTechnique": [f"{name}: {text}" for name, text in one.lineage.items()],
        "variableMeasured": [
            {
                "@type": "PropertyValue",
                "name": array.name,
                "description": array.long_name,
                "unitText": array.units,
            }
            for array in one.arrays
        ],
        "distribution": [
            {"@type": "DataDownload", "name": name, "contentUrl": address, "encodingFormat": kind}
            for address, kind, name in parts
        ],
    }


def page(one: Published, document: dict[str, Any]) -> str:
    """A page that holds the Dataset, since harvesters follow pages; what it shows is what the Dataset says."""
    listed = "\n".join(
        f'<li><a href="{html.escape(part["contentUrl"])}">{html.escape(part["name"])}</a></li>'
        for part in document["distribution"]
    )
    # inside a script only "</" could end it
    data = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    title = html.escape(one.title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<script type="application/ld+json">\n{data}\n</script>\n</head>\n<body>\n<h1>{title}</h1>\n'
        f"<p>{html.escape(one.description)}</p>\n<ul>\n{listed}\n</ul>\n</body>\n</html>\n"
    )
