"""The assets: registries of boxes and fields, a cube and rows for each day of each box, late fields.

Each body is one call of `orchestrate.parts`, and what it came to. What may not be done now is refused there, by what
the store holds; launching anything in any order, twice, or in parallel damages nothing.
"""

# Dagster looks at annotations themselves: no `from __future__ import annotations` here, nor `MaterializeResult[..]`.
# mypy: disable-error-code="type-arg"

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from orchestrate import parts
from orchestrate.boxlist import box_ids
from orchestrate.dagster import metadata
from orchestrate.dagster.failures import check, told
from orchestrate.dagster.partitions import BOX_DAYS, BOXES, DAY_BEFORE, box_and_day
from orchestrate.dagster.resources import ClusterResource, StoreResource

if TYPE_CHECKING:
    import pandas as pd

FILES_AT_ONCE = 1000
"""Files of the inbox that one run takes; the sensor asks again while more are waiting."""
NULL_SHARE, NULL_DAYS = 0.95, 30
"""More nulls than this among the observations of so many days are worth a look."""

SOURCE_POOL, CUBE_POOL, INBOX_POOL = "geofield_source", "geofield_cube", "geofield_inbox"
"""Pools: what reads imagery, what reads stored cubes, what reads the inbox. Limits are the instance's."""


STORED = dg.AssetSpec(
    "store",
    deps=["box_cube", "field_rows", "late_fields"],
    group_name="geofield",
    kinds={"zarr", "delta"},
    description="Everything that is stored. Nothing makes it; what looks at all of it is checked here, so that a check "
    "of thousands of boxes does not come with every day of every box.",
)


@dg.multi_asset(
    name="registries",
    specs=[
        dg.AssetSpec("boxes", group_name="geofield", kinds={"json"}, description="Rectangles, each with its cube."),
        dg.AssetSpec("fields", group_name="geofield", kinds={"delta"}, description="Every accepted field version."),
    ],
    pool=INBOX_POOL,
)
def registries(
    context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource
) -> Iterator[dg.MaterializeResult]:
    """What waits in the inbox is taken in; the boxes become partitions."""
    settings = cluster.settings()
    with told(context, settings):
        opened = store.open()
        receipt = parts.receive(opened, FILES_AT_ONCE, settings)
        names = box_ids(opened)
    context.instance.add_dynamic_partitions(str(BOXES.name), names)
    yield dg.MaterializeResult("boxes", metadata=metadata.of_inbox(receipt) | {"boxes": len(names)})
    yield dg.MaterializeResult("fields", metadata=metadata.of_inbox(receipt))
    check(context, settings, receipt)


@dg.asset(
    partitions_def=BOX_DAYS,
    deps=["boxes", dg.AssetDep("box_cube", partition_mapping=DAY_BEFORE)],
    pool=SOURCE_POOL,
    group_name="geofield",
    kinds={"zarr", "dask"},
)
def box_cube(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource) -> dg.MaterializeResult:
    """One day of one box, on top of the day before it. A day that is there is compared with its source, and amended."""
    box, day = box_and_day(context.partition_key)
    settings = cluster.settings()
    with told(context, settings), cluster.connect() as client:
        opened = store.open()
        receipt = parts.extend_box(opened, box, day, client, settings)
        shown = metadata.of_cluster(client)
    check(context, settings, receipt)
    return dg.MaterializeResult(
        metadata=metadata.picture_of_day(opened, box, day) | shown | metadata.of_receipt(receipt, box)
    )


@dg.asset(
    partitions_def=BOX_DAYS,
    deps=[box_cube, "fields"],
    pool=CUBE_POOL,
    group_name="geofield",
    kinds={"delta", "dask"},
    check_specs=[
        dg.AssetCheckSpec("null_share", asset="field_rows", description=f"Nulls among {NULL_DAYS} days of rows.")
    ],
)
def field_rows(
    context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource
) -> dg.MaterializeResult:
    """The rows of a box's fields: written with the day, completed here from the stored cube where some are missing."""
    box, day = box_and_day(context.partition_key)
    settings = cluster.settings()
    with told(context, settings), cluster.connect() as client:
        opened = store.open()
        receipt = parts.complete_rows(opened, box, day, client, settings)
        recent = opened.rows(box=box, start=day - dt.timedelta(days=NULL_DAYS - 1), end=day)
    check(context, settings, receipt)
    today = recent[recent["date"] == day]
    shown = metadata.picture_of_rows(recent, box)
    shown |= {"rows": len(today), "rows_observed": int((today["status"] == "observed").sum())}
    shown |= metadata.of_receipt(receipt, box)
    return dg.MaterializeResult(metadata=shown, check_results=[_null_share(recent)])


def _null_share(rows: "pd.DataFrame") -> dg.AssetCheckResult:
    columns = [f"{name.removesuffix('_valid')}_mean" for name in rows.columns if name.endswith("_valid")]
    days = rows["date"].nunique()
    share = float(rows[columns].isna().to_numpy().mean()) if columns and len(rows) else 0.0
    return dg.AssetCheckResult(
        check_name="null_share",
        passed=share <= NULL_SHARE or days < NULL_DAYS,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"null_share": share, "rows": len(rows), "days": days, "threshold": NULL_SHARE},
        description=f"{share:.0%} of the observations of {days} days are null: clouds, masks, or no imagery.",
    )


@dg.asset(
    deps=["fields", dg.AssetDep(box_cube, partition_mapping=dg.LastPartitionMapping())],
    pool=CUBE_POOL,
    group_name="geofield",
    kinds={"delta"},
    # by fields alone: a new day brings the rows of its fields itself
    automation_condition=dg.AutomationCondition.eager().ignore(dg.AssetSelection.assets("box_cube")),
)
def late_fields(
    context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource
) -> dg.MaterializeResult:
    """Fields that came after their days, or were corrected: their rows, sliced from the stored cubes of all boxes."""
    settings = cluster.settings()
    with told(context, settings), cluster.connect() as client:
        receipt = parts.fill_fields(store.open(), None, client, settings)
        shown = metadata.of_cluster(client)
    check(context, settings, receipt)
    return dg.MaterializeResult(metadata=metadata.of_receipt(receipt) | shown)
