"""What assets, sensors and checks are given: the store, where Dask's work runs, the settings of the environment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from orchestrate import cluster
from orchestrate.config import Settings
from orchestrate.config import settings as read_settings

if TYPE_CHECKING:
    from geofield import Store


class StoreResource(dg.ConfigurableResource[Any]):
    """The store, a directory or `s3://bucket/prefix`; opened when it is first used in a run or a tick."""

    url: str

    def open(self) -> Store:
        """The store; `NotFoundError` where there is none."""
        import geofield

        return geofield.open_store(self.url)


class ClusterResource(dg.ConfigurableResource[Any]):
    """Where Dask's work runs; what is not said here is taken from `GEOFIELD_CLUSTER` and `GEOFIELD_WORKERS`."""

    kind: str | None = None
    workers: str | None = None

    def settings(self) -> Settings:
        """The settings of a run: the environment's `GEOFIELD_*`, with what is said here before it."""
        return read_settings(cluster=self.kind, workers=self.workers)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """What `orchestrate.cluster.connect` yields: threads of this process, or a client of Dask."""
        held = self.settings()
        with cluster.connect(held.cluster, held.workers) as client:
            yield client
