"""What moves data through the stages: the only package that names two of them.

`append_day` and `append_days` extend a cube, `reduce_days` brings rows up to date from a stored cube, and
`fill_late_fields` gives late fields their past; the last two have no source to read from.
"""

from geofield.pipeline.append import AppendReport, append_day, append_days
from geofield.pipeline.boxfields import BoxFields, box_fields
from geofield.pipeline.compact import compact
from geofield.pipeline.correct import CorrectionReport, changed_days, correct_days
from geofield.pipeline.days import Offer, catalogue_digest, offer
from geofield.pipeline.history import (
    CubeCommit,
    FieldVersion,
    RowsCommit,
    box_history,
    field_boxes,
    field_versions,
    rows_history,
)
from geofield.pipeline.late import LateReport, fill_late_fields, missing_rows, reduce_days, refresh_rows
from geofield.pipeline.publish import PublishReport, publish
from geofield.pipeline.rebuild import rebuild_cube
from geofield.pipeline.run import Run
from geofield.pipeline.verify import Finding, verify

__all__ = [
    "AppendReport",
    "BoxFields",
    "CorrectionReport",
    "CubeCommit",
    "FieldVersion",
    "Finding",
    "LateReport",
    "Offer",
    "PublishReport",
    "RowsCommit",
    "Run",
    "append_day",
    "append_days",
    "box_fields",
    "box_history",
    "catalogue_digest",
    "changed_days",
    "compact",
    "correct_days",
    "field_boxes",
    "field_versions",
    "fill_late_fields",
    "missing_rows",
    "offer",
    "publish",
    "rebuild_cube",
    "reduce_days",
    "refresh_rows",
    "rows_history",
    "verify",
]
