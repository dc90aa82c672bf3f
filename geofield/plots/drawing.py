"""Matplotlib, imported when something is drawn; colours that the pictures share."""

from __future__ import annotations

from typing import Any

from geofield.errors import ConfigurationError

# Told apart by people who see few colours, and in grey: green and blue differ in lightness, marks in shape.
OBSERVATION, ESTIMATE, PLANTED, CLOUD = "#1b7837", "#2166ac", "#8c510a", "#8a8a8a"
SEQUENTIAL = "YlGn"
MISSING = "#e9e9e9"


def new_axes(axes: Any, size: tuple[float, float]) -> Any:
    """The axes that were given, or new ones of a figure that a notebook shows."""
    if axes is not None:
        return axes
    return _pyplot().subplots(figsize=size, layout="constrained")[1]


def new_grid(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure and its (rows, columns) axes, which share both scales."""
    figure, axes = _pyplot().subplots(
        rows, columns, figsize=size, layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    return figure, axes


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise missing("matplotlib", "plots") from error
    return pyplot


def missing(library: str, extra: str) -> ConfigurationError:
    """The error for a library that is not installed."""
    return ConfigurationError(f"This picture needs {library}, which is not installed: pip install 'geofield[{extra}]'.")


def dress_dates(axes: Any, ticks: int = 10) -> None:
    """Dates below, short; light lines behind."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=ticks)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.grid(alpha=0.3, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
