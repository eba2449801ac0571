"""Everything that vaearr uses of other libraries beyond their public interfaces."""

from __future__ import annotations

from typing import Any

from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core.indexing import LazilyIndexedArray

__all__ = [
    "LazilyIndexedArray",  # an array on disk that xarray reads when it is indexed
    "ZarrArrayWrapper",  # a zarr array as xarray reads it
    "set_location",
    "tornado_application",
]


def tornado_application(server: Any) -> Any:
    """Return the Tornado application of a bokeh server, which has no public name for it."""
    return server._tornado


def set_location(state: Any, location: Any) -> None:
    """Set the address of a panel document; panel's parser fails for IPv6 addresses."""
    state._locations[state.curdoc] = location
