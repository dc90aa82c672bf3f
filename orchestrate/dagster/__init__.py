"""A Dagster code location over the parts of a run: `dagster dev -m orchestrate.dagster`.

Every asset's body is one call of `orchestrate.parts`; the store alone decides what is right, so that nothing is damaged
whatever is launched when. Loading it connects to nothing. It comes with the extra `dagster`.
"""

from __future__ import annotations

from orchestrate.dagster.definitions import defs as defs

__all__ = ["defs"]
