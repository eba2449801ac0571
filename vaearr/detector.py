"""Less of the detector: a source's patterns, and all that lies over its pixels, cropped and binned on the way in."""

from __future__ import annotations

from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.pattern_steps import CENTRE, CONVENTION, bin_patterns, crop
from vaearr.provenance import nested
from vaearr.store.layout import pattern_chunks

DETECTOR, BINNING, SPREAD = "detector", "binning", "projection_centre_spread"  # see sources.vendor


def reduced(ds: xr.Dataset, config: IngestConfig) -> xr.Dataset:
    """`ds` with `config.crop` and then `config.bin` applied to everything over the detector; lazy where it was.

    A static background and the numbers of the attribute `detector` follow. Patterns are read by whole shards, so memory
    stays that of a few. Scan points without a pattern are NaN where binning makes floats of integers. Raises UsageError
    for a window without pixels and for a side that is not a multiple of `bin`.
    """
    if not config.crop and config.bin == 1:
        return ds
    about = dict(nested(ds.attrs, DETECTOR) or {})
    patterns = ds[n.PATTERNS]
    centre = {key: about[key] for key in (CENTRE, CONVENTION) if key in about}
    less = _on_detector(patterns.assign_attrs(centre), config)
    if patterns.dtype.kind != "f" and less.dtype.kind == "f" and n.PRESENT in ds:
        less = less.where(ds[n.PRESENT])
    new = {n.PATTERNS: less}
    for name, variable in ds.data_vars.items():
        dims = [dim for dim in schema.signal_dims(ds) if dim in variable.dims]
        if name != n.PATTERNS and dims:
            plain = variable.assign_attrs({n.NAVIGATION_DIMS: [], n.SIGNAL_DIMS: dims})
            new[str(name)] = _on_detector(plain, config).drop_attrs(deep=False).assign_attrs(variable.attrs)
    about = _about(about, patterns, less, config.bin) if about else {}
    for key in {CENTRE, CONVENTION} - set(patterns.attrs):
        less.attrs.pop(key, None)
    own = [name for name, coord in ds.coords.items() if {n.DY, n.DX} & set(coord.dims)]
    others = [name for name in ds.coords if name not in own]
    rest = ds.drop_vars([*new, *own])
    return rest.assign(
        {name: variable.drop_vars(others, errors="ignore") for name, variable in new.items()}
    ).assign_attrs({DETECTOR: about} if about else {})


def _on_detector(variable: xr.DataArray, config: IngestConfig) -> xr.DataArray:
    """One variable that says which of its dims are the detector's, cropped and binned along them."""
    dims, nav = variable.attrs[n.SIGNAL_DIMS], variable.attrs[n.NAVIGATION_DIMS]
    windows: dict[str, Any] = {dim: window for dim, window in config.crop.items() if dim in dims}
    if windows:
        variable = crop(variable, **windows)
    if config.bin == 1:
        return variable
    if nav:
        sizes = variable.sizes
        chunks = pattern_chunks(
            tuple(sizes[dim] for dim in nav), tuple(sizes[dim] for dim in dims), variable.dtype.itemsize
        )
        variable = variable.chunk(dict(zip(nav, chunks, strict=False)))
    return bin_patterns(variable, config.bin)


def _about(about: dict[str, Any], before: xr.DataArray, after: xr.DataArray, size: int) -> dict[str, Any]:
    """The numbers of the detector after a crop, which the projection centre of `after` has followed, and binning.

    The centre and its spread are in shares of the width (x) and height (y, z).
    """
    kept = {key: value for key, value in about.items() if key not in (CENTRE, CONVENTION, SPREAD)}
    if BINNING in kept:
        kept[BINNING] *= size
    if CENTRE not in after.attrs:
        return kept
    kept |= {key: after.attrs[key] for key in (CENTRE, CONVENTION)}
    if SPREAD in about:
        height, width = (before.sizes[dim] / (after.sizes[dim] * size) for dim in (n.DY, n.DX))
        kept[SPREAD] = [value * factor for value, factor in zip(about[SPREAD], (width, height, height), strict=True)]
    return kept
