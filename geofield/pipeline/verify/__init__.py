"""What is stored, checked against what must hold."""

from geofield.pipeline.verify.findings import Finding
from geofield.pipeline.verify.main import verify

__all__ = ["Finding", "verify"]
