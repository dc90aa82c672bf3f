"""From bands to variables: which bands a box needs, and the value of each variable where it is valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import spyndex

from geofield.boxes import Bits, Box, Variable
from geofield.encoding import Encoding, FloatArray, IntArray, value_encoding
from geofield.errors import RecipeError

# The index catalogue's letters beside the band names of STAC's eo extension.
_COMMON_NAMES = {
    "A": ("coastal",),
    "B": ("blue",),
    "G": ("green",),
    "R": ("red",),
    "RE1": ("rededge071", "rededge1", "rededge"),
    "RE2": ("rededge075", "rededge2"),
    "RE3": ("rededge078", "rededge3"),
    "N": ("nir", "nir08"),
    "N2": ("nir08", "nir08a"),
    "WV": ("nir09",),
    "S1": ("swir16",),
    "S2": ("swir22",),
    "T": ("lwir11", "lwir"),
}


def check_recipe(box: Box, offered: Sequence[str]) -> None:
    """`RecipeError` when a variable asks for a band or an index that does not exist."""
    for name, variable in box.variables.items():
        for band in variable_bands(variable, offered):
            if band not in offered:
                raise RecipeError(
                    f"Variable {name} of box {box.id} needs the band {band!r}; its source offers {', '.join(offered)}."
                )


def variable_bands(variable: Variable, offered: Sequence[str]) -> tuple[str, ...]:
    """Names of the bands that a variable is made from, its quality bands last."""
    inputs = (variable.band,) if variable.band is not None else tuple(_index_bands(variable, offered).values())
    return tuple(dict.fromkeys((*inputs, *variable.mask)))


def needed_bands(variables: Mapping[str, Variable], offered: Sequence[str]) -> tuple[str, ...]:
    """Every band that some variable needs, each once."""
    return tuple(dict.fromkeys(band for variable in variables.values() for band in variable_bands(variable, offered)))


def encoding_of(variable: Variable) -> Encoding:
    """How the observation, its estimate and its error are stored."""
    return value_encoding(variable.valid_range, variable.precision)


def observe(variable: Variable, bands: Mapping[str, FloatArray]) -> IntArray:
    """The stored integers of one variable of one acquisition.

    Parameters
    ----------
    bands
        name -> (y, x), physical values, NaN where missing.

    Returns
    -------
    (y, x) integers of `encoding_of(variable)`: fill where a band is missing, a quality band is missing or names an
    unwanted class, or the value is outside the valid range.
    """
    values = bands[variable.band] if variable.band is not None else _index_values(variable, bands)
    valid = np.isfinite(values)
    for band, unwanted in variable.mask.items():
        valid &= _is_good(bands[band], unwanted)
    if variable.valid_range is not None:
        with np.errstate(invalid="ignore"):
            valid &= (values >= variable.valid_range[0]) & (values <= variable.valid_range[1])
    return encoding_of(variable).encode(np.where(valid, values, np.nan))


def _is_good(quality: FloatArray, unwanted: tuple[int, ...] | Bits) -> npt.NDArray[np.bool_]:
    good: npt.NDArray[np.bool_] = ~np.isnan(quality)
    if not isinstance(unwanted, Bits):
        for value in unwanted:
            good &= quality != value
        return good
    packed = np.where(good, quality, 0).astype(np.int64)
    for low, high, numbers in unwanted.unwanted:
        field = packed >> low & (1 << high - low + 1) - 1
        good &= ~np.isin(field, numbers)
    return good


def count_valid(encoding: Encoding, numbers: IntArray) -> int:
    """How many pixels are not missing."""
    return int(np.count_nonzero(numbers != encoding.fill))


def merge(encoding: Encoding, layers: Sequence[IntArray]) -> IntArray:
    """Per pixel the first layer that is not missing there."""
    merged = layers[0].copy() if len(layers) > 1 else layers[0]
    for layer in layers[1:]:
        gaps = merged == encoding.fill
        merged[gaps] = layer[gaps]
    return merged


def median(encoding: Encoding, layers: Sequence[IntArray]) -> IntArray:
    """Per pixel the median of the layers that are not missing there; between two values, the even of two steps."""
    if len(layers) == 1:
        return layers[0]
    stacked = np.stack(layers).astype(np.int64)
    missing = stacked == encoding.fill
    ordered = np.sort(np.where(missing, np.iinfo(np.int64).max, stacked), axis=0)
    count = len(layers) - missing.sum(axis=0)
    lower = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    upper = np.take_along_axis(ordered, np.minimum(count // 2, len(layers) - 1)[None], axis=0)[0]
    with np.errstate(over="ignore"):
        middle = np.rint((lower + upper) / 2)
    values: IntArray = np.where(count > 0, middle, encoding.fill).astype(encoding.dtype)
    return values


def _index_bands(variable: Variable, offered: Sequence[str]) -> dict[str, str]:
    """Letter of the catalogue -> band of the source."""
    entry = _index(variable)
    constants = spyndex.constants
    found: dict[str, str] = {}
    for letter in entry.bands:
        if letter in constants:
            continue
        names = _COMMON_NAMES.get(letter, ())
        match = next((name for name in (*names, letter) if name in offered), None)
        if match is None:
            raise RecipeError(
                f"Index {variable.index} needs {' or '.join(names) or letter}; the source offers {', '.join(offered)}. "
                "Name the band so, or choose another index."
            )
        found[letter] = match
    return found


def _index(variable: Variable) -> Any:
    try:
        return spyndex.indices[variable.index]
    except KeyError as error:
        raise RecipeError(
            f"There is no spectral index {variable.index!r} in the catalogue (spyndex {spyndex.__version__}); they are "
            "written like NDVI, NDMI, EVI."
        ) from error


def _index_values(variable: Variable, bands: Mapping[str, FloatArray]) -> npt.NDArray[np.float64]:
    entry = _index(variable)
    constants = {letter: spyndex.constants[letter].default for letter in entry.bands if letter in spyndex.constants}
    inputs = {letter: bands[name] for letter, name in _index_bands(variable, tuple(bands)).items()}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(spyndex.computeIndex(variable.index, params={**inputs, **constants}), dtype=np.float64)
