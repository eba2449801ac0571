"""Devices and precision, Dask clusters, progress bars."""
