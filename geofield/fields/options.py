"""What the caller says about a file of fields that the file does not say itself."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from geofield.boxes import check_box_id
from geofield.errors import ConfigurationError
from geofield.fields.crsnames import field_crs

MAX_BYTES = 2 * 1024**3
MAX_VERTICES = 5_000_000


@dataclass(frozen=True)
class FieldOptions:
    """Settings kept with a submitted file; what the file says itself goes first.

    Raises
    ------
    CrsError, BoxError, ConfigurationError
        A setting is wrong in itself, whatever the file holds.
    """

    crs: str | None = None
    """CRS of a file that declares none."""
    id_column: str | None = None
    """The column or property that holds the field id."""
    ids: Literal["digest"] | None = None
    """`digest`: a field without an id is named after its content."""
    planting_date: dt.date | Literal["box-start"] | None = None
    """What holds for fields without a planting date."""
    box: str | None = None
    """The box of fields that name none."""
    max_bytes: int = MAX_BYTES
    """Limit of a file, after unpacking."""
    max_vertices: int = MAX_VERTICES
    """Limit of one polygon."""

    def __post_init__(self) -> None:
        if self.crs is not None:
            field_crs(self.crs)
        if self.box is not None:
            check_box_id(self.box)
        if self.ids not in (None, "digest"):
            raise ConfigurationError(f"--ids can only be `digest`; got {self.ids!r}.")
        if self.ids is not None and self.id_column is not None:
            raise ConfigurationError("Give either --id-column or --ids digest, not both.")
        date = self.planting_date
        if date not in (None, "box-start") and type(date) is not dt.date:
            raise ConfigurationError(f"--planting-date is a day, YYYY-MM-DD, or `box-start`; got {date!r}.")
