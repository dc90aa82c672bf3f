"""A store as one page: a map, the series of every field, what is late, what was refused, what the last runs did."""

from __future__ import annotations

from orchestrate.report.content import report_of
from orchestrate.report.page import render

__all__ = ["render", "report_of"]
