"""Pixels to numbers: coverage weights, statistics, kernels. Import from the defining module."""
