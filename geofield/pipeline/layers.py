"""What is reduced of a box: the layers of each variable, and the columns that come of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from geofield.boxes import Box, Variable
from geofield.cube.cube import Cube, Head
from geofield.cube.schema import ArraySpec, Schema
from geofield.encoding import AGE, IntArray
from geofield.errors import LostRaceError
from geofield.grid import Grid
from geofield.recipe.digest import recipe_digest
from geofield.recipe.state import State, noise, sigma
from geofield.recipe.variables import encoding_of
from geofield.reduce.layer import Layer
from geofield.reduce.statistics import parse_stat

STATE_LAYERS = ("filled", "sigma", "age")


def cube_schema(box: Box, grid: Grid) -> Schema:
    """The arrays that the cube of a box holds."""
    arrays: list[ArraySpec] = []
    for name, variable in box.variables.items():
        encoding = encoding_of(variable)
        arrays.append(ArraySpec(name, encoding, "observation", name))
        if variable.state:
            arrays.append(ArraySpec(f"{name}_filled", encoding, "filled", name))
            arrays.append(ArraySpec(f"{name}_sigma0", encoding, "sigma0", name))
            arrays.append(ArraySpec(f"{name}_age", AGE, "age", name))
    drift = {name: noise(variable)[0] for name, variable in box.variables.items() if variable.state}
    return Schema(grid, tuple(arrays), drift, recipe_digest(box, grid).hex())


def is_cube_of(box: Box, cube: Cube, head: Head) -> bool:
    """Whether a cube, whose head was just looked at, is that of a box; one of no days may begin on any."""
    return cube.schema == cube_schema(box, box.resolved) and head.first in (None, box.start)


def check_schema(box: Box, cube: Cube) -> None:
    """`LostRaceError` when the cube is not (any more) that of the box: somebody changed it meanwhile."""
    if cube.schema != cube_schema(box, box.resolved):
        raise LostRaceError(f"Box {box.id} was changed meanwhile: its cube holds other arrays. Read the box again.")


def statistics_of(box: Box) -> dict[str, tuple[str, ...]]:
    """Layer -> statistics; of a state the mean is taken."""
    stats: dict[str, tuple[str, ...]] = {}
    for name, variable in box.variables.items():
        stats[name] = tuple(dict.fromkeys(("count", *variable.stats)))
        if variable.state:
            stats |= {f"{name}_{layer}": ("mean",) for layer in STATE_LAYERS}
    return stats


def value_columns(box: Box) -> list[str]:
    """Names of the value columns of a row, in order."""
    columns: list[str] = []
    for name, variable in box.variables.items():
        columns.append(f"{name}_valid")
        columns += [f"{name}_{parse_stat(stat).suffix}" for stat in variable.stats]
        if variable.state:
            columns += [f"{name}_{layer}_mean" for layer in STATE_LAYERS]
    return columns


def observation_layer(name: str, variable: Variable, observed: IntArray) -> dict[str, Layer]:
    """`observed` is (time, y, x), as stored."""
    encoding = encoding_of(variable)
    return {name: Layer(observed, encoding.scale, encoding.fill)}


def state_layers(name: str, variable: Variable, state: State, gaps: npt.NDArray[np.int64]) -> dict[str, Layer]:
    """The state as it stands `gaps` days after its acquisitions.

    Parameters
    ----------
    state
        Arrays (time, y, x).
    gaps
        (time,) whole days since the acquisition that each step of `state` includes.
    """
    encoding = encoding_of(variable)
    age = AGE.decode(state.age) + gaps[:, None, None]
    error = sigma(encoding.decode(state.sigma0), age, noise(variable)[0])
    return {
        f"{name}_filled": Layer(state.filled, encoding.scale, encoding.fill),
        f"{name}_sigma": Layer(error, None, None),
        f"{name}_age": Layer(age, None, None),
    }


def row_values(
    box: Box, combined: Mapping[str, npt.NDArray[np.float64]], total: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    """Columns of rows from combined statistics, all (time, field).

    Parameters
    ----------
    total
        (field,) sum of all weights of a field.
    """
    values = dict(combined)
    with np.errstate(invalid="ignore", divide="ignore"):
        for name in box.variables:
            share = combined[f"{name}_count"] / total
            values[f"{name}_valid"] = np.where(total > 0, share, 0.0)
    return values
