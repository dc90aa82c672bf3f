"""A page of Dask's dashboard that tells in boxes, days and fields what a run is at.

`events` is told by the run, `plugin` listens in the scheduler, `page` draws. It lies at `/geofield` of the dashboard.
"""
