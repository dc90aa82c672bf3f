"""Pixels of one layer over one window, and the one definition of a missing pixel. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geofield.errors import GridError, InputError


@dataclass(frozen=True)
class Layer:
    """Pixels of one layer, stored or physical.

    value = float64(data) * scale; a pixel is missing when its data is `fill` or NaN. Nowhere else is this decided.
    """

    data: npt.NDArray[Any]
    """(time, y, x), integers or floats, covering exactly one window."""
    scale: float | None = None
    """Physical units per stored unit; None: the data are physical."""
    fill: float | None = None
    """The stored number that says missing; None: every number is a value (NaN never is)."""

    def __post_init__(self) -> None:
        if self.data.ndim != 3:
            raise GridError(f"A layer has dimensions (time, y, x); got an array of shape {self.data.shape}.")
        if self.data.dtype.kind not in "iufb":
            raise InputError(f"A layer holds integers or floats; got {self.data.dtype}. Convert it with `.astype`.")
        if self.scale is not None and not (np.isfinite(self.scale) and self.scale != 0):
            raise InputError(f"The scale of a layer is a finite number other than 0; got {self.scale}.")

    @property
    def native(self) -> npt.NDArray[Any]:
        """The data in a type that the kernels know: the same numbers, at most in a wider type."""
        kind, size = self.data.dtype.kind, self.data.dtype.itemsize
        if kind == "b":
            return self.data.view(np.uint8)
        if kind == "f" and size not in (4, 8):
            return self.data.astype(np.float32 if size < 4 else np.float64)
        return self.data.astype(self.data.dtype.newbyteorder("="), copy=False)

    @property
    def factor(self) -> float:
        """What data are multiplied with; 1.0 changes no bit."""
        return 1.0 if self.scale is None else float(self.scale)

    def missing(self) -> tuple[Any, bool]:
        """(fill in the type of the data, whether it can occur there): -9999 never does among unsigned bytes."""
        dtype = self.native.dtype
        if self.fill is None or self.fill != self.fill:
            return dtype.type(0), False
        if dtype.kind == "f":
            return dtype.type(self.fill), True
        info = np.iinfo(dtype)
        occurs = float(self.fill).is_integer() and info.min <= self.fill <= info.max
        return dtype.type(int(self.fill) if occurs else 0), occurs
