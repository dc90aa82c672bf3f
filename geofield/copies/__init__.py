"""Published copies for tools that read neither Icechunk nor Delta: plain Zarr, a Cloud Optimized GeoTIFF, GeoParquet.

A copy is made from plain values (a lazy xarray.Dataset, a GeoDataFrame) and holds nothing of the moment or the process
that made it: made again from nothing it has the same bytes.
"""
