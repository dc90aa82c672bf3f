"""Where pixels come from: one protocol, and what implements it."""

from __future__ import annotations

from geofield.source.protocol import Acquisition, Source

__all__ = ["Acquisition", "Source"]
