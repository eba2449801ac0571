"""What vaearr takes from xarray beyond what they promise to keep: all of it here."""

from __future__ import annotations

from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core.indexing import LazilyIndexedArray

__all__ = ["LazilyIndexedArray", "ZarrArrayWrapper"]
