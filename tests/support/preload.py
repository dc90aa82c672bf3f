"""What children find done when they begin: libraries imported, kernels ready. Opens no store.

Icechunk starts threads of its own when it is imported, from its second version on, and threads do not pass on to a
forked process. There a child imports it itself, and whatever needs it.
"""

from importlib.metadata import version

import deltalake
import filelock
import geopandas
import s3fs
import xarray
import zarr

IMPORTED = (deltalake, filelock, geopandas, s3fs, xarray, zarr)


def warm() -> None:
    """Load every kernel by a day of the box in memory."""
    import geofield.cube.view  # noqa: F401
    from geofield.grid import Window
    from geofield.pipeline.layers import observation_layer, statistics_of
    from geofield.recipe.state import advance, never_seen, noise
    from geofield.recipe.variables import encoding_of, observe
    from geofield.reduce.partial import combine, reduce_window
    from tests.support import workload

    fields = workload.fields_of(**workload.FIELDS)
    variable = fields.box.variables["ndvi"]
    encoding = encoding_of(variable)
    observed = observe(variable, {"ndvi": workload.image(1)})
    advance(never_seen(encoding, observed.shape, 0), observed, encoding, *noise(variable), 1)
    stats = statistics_of(fields.box)
    layers = observation_layer("ndvi", variable, observed[None])
    stats = {name: kinds for name, kinds in stats.items() if name in layers}
    window = Window(0, 0, *observed.shape)
    combine([reduce_window(layers, window, fields.cover, stats)], fields.cover, stats)


if int(version("icechunk").split(".")[0]) < 2:
    warm()
