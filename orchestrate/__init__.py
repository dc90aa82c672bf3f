"""The runner of geofield: decides what to do, where to run it, and accounts for it."""

from __future__ import annotations

from orchestrate import cluster
from orchestrate.inbox import submit
from orchestrate.plan import plan

# The function takes the place of its module, which stays importable as `orchestrate.run`; so does `plan`.
from orchestrate.run import run

__all__ = ["cluster", "plan", "run", "submit"]
