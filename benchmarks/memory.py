"""Peak memory of one day of a large box with two threads: `python benchmarks/memory.py [side] [fields]`.

Prints the peak of the process (resident set) after a first day and after a second one, which starts from the first's
state. The limit is 3 GB.
"""

from __future__ import annotations

import datetime as dt
import resource
import sys
import tempfile
import time

import dask
import numpy as np
import pandas as pd
import shapely

import geofield
from geofield.pipeline import append_day, box_fields

START = dt.date(2025, 5, 1)
X0, Y0 = 500_000, 5_000_000


def make_box(side: int) -> geofield.Box:
    """A box of side x side pixels of 10 m, imagery every day."""
    ndvi = {"index": "NDVI", "mask": {"scl": [0, 1, 3, 8, 9, 10, 11]}, "valid_range": [-1, 1], "state": "kalman"}
    return geofield.Box.model_validate(
        {
            "id": "large",
            "bbox": (X0, Y0, X0 + 10 * side, Y0 + 10 * side),
            "crs": "EPSG:32631",
            "grid": {"crs": "EPSG:32631"},
            "start": START,
            "source": {"type": "simulated", "revisit": 1},
            "variables": {"ndvi": ndvi},
        }
    )


def make_fields(side: int, count: int) -> pd.DataFrame:
    """Squares of 20 x 20 pixels, scattered."""
    corners = np.random.default_rng(0).uniform(100, 10 * side - 300, (2, count))
    x, y = X0 + corners[0], Y0 + corners[1]
    return pd.DataFrame(
        {
            "field_id": [f"f{number}" for number in range(count)],
            "version": "000000000000",
            "geometry": shapely.to_wkb(shapely.box(x, y, x + 200, y + 200)),
            "crs": "EPSG:32631",
            "planting_date": START,
            "harvest_date": None,
        }
    )


def main() -> None:
    """Two days, and what they took."""
    side, count = (int(text) for text in (sys.argv[1:] + ["10980", "10000"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads", num_workers=2):
        store = geofield.create_store(folder)
        box = store.add_box(make_box(side))
        fields = box_fields(box, make_fields(side, count))
        print(f"{side} x {side} pixels, {count} fields, 2 threads")
        for number in range(2):
            began = time.perf_counter()
            day = START + dt.timedelta(days=number)
            report = append_day(day, store.source("large"), fields, store.cube("large"), store.results("large"))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            took = time.perf_counter() - began
            print(f"day {number + 1}: {took:5.1f} s, {report.rows_written} rows, peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
