"""What vaearr takes from xarray, dask and zarr beyond what they promise to keep: all of it here, nowhere else."""

from __future__ import annotations

from typing import Any

import xarray as xr
from dask._task_spec import DataNode
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core import indexing

__all__ = ["DataNode", "ZarrArrayWrapper", "indexing", "lazy_data", "read_by"]


def lazy_data(variable: xr.DataArray) -> Any:
    """What a variable holds as it is, where `.data` would read it."""
    return variable.variable._data


def read_by(array: Any, pipeline: Any) -> None:
    """Have an opened zarr array decode by a pipeline of the caller's."""
    object.__setattr__(array.async_array, "codec_pipeline", pipeline)  # a frozen dataclass
