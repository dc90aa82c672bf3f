"""A change of mind: other variables, mask, noise or grid, an earlier start.

A new cube beside the old one, swapped in when complete.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable

import pandas as pd

from geofield.boxes import Box
from geofield.cube.cube import Cube
from geofield.errors import LostRaceError
from geofield.pipeline.append import AppendReport, append_days
from geofield.pipeline.boxfields import BoxFields, box_fields
from geofield.pipeline.correct import correct_days
from geofield.pipeline.layers import cube_schema, is_cube_of
from geofield.pipeline.run import Run
from geofield.recipe.digest import recipe_digest
from geofield.results.rows import Results
from geofield.source.protocol import Source

PREFIX = "rebuild-"
_TRIES = 5
_NO_FIELDS = pd.DataFrame(
    columns=["field_id", "version", "geometry", "crs", "planting_date", "harvest_date"], dtype=object
)


def rebuild_cube(
    box: Box,
    source: Source,
    cube: Cube,
    results: Results,
    run: Run | None = None,
    progress: Callable[[int], None] | None = None,
) -> AppendReport:
    """Build the cube of a changed box beside the present one and swap it in by one compare-and-swap.

    What an earlier call built is kept: a rebuild that was cut goes on where it ended. Readers see the old cube until
    the new one holds as many days. Days that were built before the present one was last published to are compared with
    the source once more, so that no correction is lost. Rows are not written here: their digests differ afterwards, and
    the planner finds them.

    Parameters
    ----------
    box
        The box as it is to be, its grid resolved.
    cube
        The present one, of the box as it was.

    Raises
    ------
    LostRaceError
        Others kept extending the old cube.
    """
    run = run or Run()
    schema = cube_schema(box, box.resolved)
    report = AppendReport()
    fields = box_fields(box, _NO_FIELDS)
    for _ in range(_TRIES):
        head = cube.head()
        if is_cube_of(box, cube, head):  # another run was faster, or an earlier call, which may have been cut
            cube.leave_beside(branch_of(box))
            return report
        other = cube.beside(branch_of(box), schema)
        afresh = copy.copy(source)  # a source may keep what it found before the tip was there; its copy asks again
        report += _amend(afresh, fields, other, results, run)
        if head.last is not None and head.last >= box.start:
            report += append_days(box.start, head.last, afresh, fields, other, results, run, progress)
        try:
            cube.adopt(other, head.snapshot, dt.datetime.now(dt.UTC))
        except LostRaceError:
            continue
        return report
    raise LostRaceError(f"Box {box.id} is being extended by others faster than it is rebuilt; try again.")


def _amend(source: Source, fields: BoxFields, other: Cube, results: Results, run: Run) -> AppendReport:
    """Amend the days that were built earlier: a scene may have been amended in the present cube since."""
    if not len(other.head().days):
        return AppendReport()
    done = correct_days(fields.box.start, source, fields, other, results, run)
    return AppendReport(
        source_reads=done.source_reads,
        source_bytes=done.source_bytes,
        cube_objects_written=done.cube_objects_written,
        tasks=done.tasks,
    )


def branch_of(box: Box) -> str:
    """The branch on which the cube of a changed box is built."""
    return f"{PREFIX}{recipe_digest(box, box.resolved).hex()}-{box.resolved.tile}-{box.start:%Y%m%d}"
