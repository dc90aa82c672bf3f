"""Rows: one per field and day."""
