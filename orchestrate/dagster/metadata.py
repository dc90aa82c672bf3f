"""What a materialisation shows of itself: counts, the receipt, the Dask dashboard, a small picture."""

from __future__ import annotations

import base64
import datetime as dt
import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd

    from geofield import Store

PICTURES = "GEOFIELD_DAGSTER_PICTURES"
"""Variable of the environment; `0`: no pictures. Each takes some 10 kB of Dagster's event log."""

_COUNTS = ("days_appended", "days_amended", "source_reads", "source_bytes", "cube_objects_written", "rows_written")
_LATE = ("fields", "field_days", "source_reads", "box_tasks", "cube_bytes_read")
_LARGEST = 4_000_000  # pixels: of a larger box no picture is drawn, reading the day again would cost too much
_SIDE = 160  # pixels of a picture, about
_LISTED = 50  # boxes told in the receipt of a run over all of them


def of_receipt(receipt: Mapping[str, Any], box: str | None = None) -> dict[str, Any]:
    """The counts of a receipt, of one box or summed over all, and the receipt itself."""
    boxes = [one for name, one in receipt["boxes"].items() if box in (None, name)]
    shown: dict[str, Any] = {name: sum(one[name] for one in boxes) for name in _COUNTS}
    shown |= {f"late_{name}": sum(one["late"][name] for one in boxes) for name in _LATE}
    # thousands of boxes that had nothing to do are nothing for the event log
    busy = {name: one for name, one in receipt["boxes"].items() if name == box or one["rows_written"]}
    whole = dict(receipt) | {"boxes": dict(list(busy.items())[:_LISTED])}
    return shown | {"run_id": receipt["run_id"], "cluster": receipt["cluster"], "receipt": dg.MetadataValue.json(whole)}


def of_inbox(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """What reading the inbox came to, with the first rows that were refused."""
    shown: dict[str, Any] = dict(receipt["inbox"])
    if receipt["rejected"]:
        shown["rejected"] = dg.MetadataValue.json(receipt["rejected"])
    return shown | {"run_id": receipt["run_id"]}


def of_cluster(client: Any) -> dict[str, Any]:
    """A link to the Dask dashboard, where there is one."""
    link = getattr(client, "dashboard_link", None)
    return {"dask_dashboard": dg.MetadataValue.url(link)} if link else {}


# --- pictures --------------------------------------------------------------------------------------------------------


def picture_of_day(store: Store, box: str, day: dt.date) -> dict[str, Any]:
    """The first estimate of a box on a day, else its first variable; nothing of a large box."""
    grid = store.box(box).resolved
    if not _is_wanted() or grid.shape[0] * grid.shape[1] > _LARGEST:
        return {}
    from matplotlib import colormaps
    from matplotlib.image import imsave

    cube = store.cube(box).open(start=day, end=day)
    names = [str(name) for name in cube.data_vars if cube[name].dims == ("time", "y", "x")]
    if not names or not cube.sizes["time"]:
        return {}
    name = next((one for one in names if one.endswith("_filled")), names[0])
    step = max(1, max(grid.shape) // _SIDE)
    values = cube[name].isel(time=0, y=slice(None, None, step), x=slice(None, None, step)).to_numpy()
    buffer = io.BytesIO()
    imsave(buffer, values, cmap=colormaps["YlGn"].with_extremes(bad="lightgrey"), vmin=0, vmax=1, format="png")
    return {"picture": _image(buffer.getvalue(), f"{name} of box {box} on {day}, 0 to 1; grey: none")}


def picture_of_rows(rows: pd.DataFrame, box: str) -> dict[str, Any]:
    """The fields of a box over the last days: the middle field's estimate, and between which the middle half lies."""
    columns = [name for name in rows.columns if name.endswith("_filled_mean")] or [
        name for name in rows.columns if name.endswith("_mean")
    ]
    if not _is_wanted() or not columns or rows[columns[0]].isna().all():
        return {}
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    by_day = rows.groupby("date")[columns[0]].quantile(np.array([0.25, 0.5, 0.75])).unstack()
    figure = Figure(figsize=(5, 2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.fill_between(by_day.index, by_day[0.25], by_day[0.75], color="#2166ac", alpha=0.2, lw=0)
    axes.plot(by_day.index, by_day[0.5], color="#2166ac", lw=1.6)
    axes.set_ylabel(columns[0].removesuffix("_mean"), fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(_few_days())
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return {"picture": _image(buffer.getvalue(), f"the fields of box {box}: median, and the middle half of them")}


def _few_days() -> Any:
    from matplotlib.dates import AutoDateLocator

    return AutoDateLocator(minticks=2, maxticks=6)


def _is_wanted() -> bool:
    return os.environ.get(PICTURES) != "0"


def _image(png: bytes, text: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![{text}](data:image/png;base64,{base64.b64encode(png).decode()})\n\n{text}")
