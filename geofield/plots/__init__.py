"""Pictures of rows, cubes and fields: with matplotlib, with Bokeh, and on maps.

Every function takes plain values (a data frame of rows, a dataset of a cube, a frame of polygons), so that what DuckDB
or Polars read is drawn as well as what a store gives. What draws is imported when it is first needed; what is not
installed is an error that names the extra.
"""

from __future__ import annotations

from geofield.plots.boxday import day
from geofield.plots.heat import heatmap
from geofield.plots.interactive import interactive_series
from geofield.plots.maps import field_map
from geofield.plots.rowseries import multiples, series
from geofield.plots.values import latest_values

__all__ = ["day", "field_map", "heatmap", "interactive_series", "latest_values", "multiples", "series"]
