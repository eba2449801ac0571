"""What vaearr takes from xarray and zarr beyond what they promise to keep: all of it here, nowhere else."""

from __future__ import annotations

from typing import Any

import xarray as xr
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core import indexing
from zarr.core.codec_pipeline import BatchedCodecPipeline

__all__ = ["BatchedCodecPipeline", "ZarrArrayWrapper", "indexing", "lazy_data"]


def lazy_data(variable: xr.DataArray) -> Any:
    """What a variable holds as it is, where `.data` would read it."""
    return variable.variable._data
