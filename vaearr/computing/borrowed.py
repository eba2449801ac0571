"""What vaearr takes from dask and xarray beyond what they promise to keep: all of it here."""

from __future__ import annotations

from dask._task_spec import DataNode
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core.indexing import LazilyIndexedArray

__all__ = ["DataNode", "LazilyIndexedArray", "ZarrArrayWrapper"]
