"""What an array of a copy is: its name, its numbers and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geofield.encoding import Encoding, FloatArray


@dataclass(frozen=True, slots=True)
class CopyArray:
    """One array (time, y, x) of a copy.

    Attributes
    ----------
    name
        The same in the dataset that is copied and in the copy.
    long_name
        For people.
    encoding
        Integers with a step and a fill value; None: float32, NaN where missing, for values that no step fits.
    units
        As UDUNITS writes them. Days are `day`: readers decode `days` as a time span.
    """

    name: str
    long_name: str
    encoding: Encoding | None
    units: str = "1"

    @property
    def dtype(self) -> str:
        """As stored."""
        return "float32" if self.encoding is None else self.encoding.dtype

    @property
    def fill(self) -> int | float:
        """What a missing value is stored as."""
        return float("nan") if self.encoding is None else self.encoding.fill

    def stored(self, values: FloatArray) -> npt.NDArray[Any]:
        """Values as they lie in the copy."""
        return values.astype(np.float32) if self.encoding is None else self.encoding.encode(values)

    def cf_attributes(self) -> dict[str, Any]:
        """CF: what turns stored numbers into values, and what these mean."""
        attributes: dict[str, Any] = {"long_name": self.long_name, "units": self.units}
        if self.encoding is not None:
            attributes["_FillValue"] = self.encoding.fill
            if self.encoding.scale != 1:
                attributes |= {"scale_factor": self.encoding.scale, "add_offset": 0.0}
        return attributes
