"""What a Dataset that is given to a step has to do with the store that the step's results go into.

A path stands for the store's own patterns. A Dataset may differ from them by any lazy steps: it brings the patterns,
its grid is the store's or a part of it, and results are NaN, or outside, on the rest. It goes into the store that it
was opened from (`va.open_store` and `xr.open_zarr` note that in `ds.encoding["source"]`, which most steps keep), or
into the one that is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import SchemaError, UsageError
from vaearr.pattern_steps import STEPS
from vaearr.provenance import nested
from vaearr.store import check_store

N_SEEN = 16  # samples by which patterns are told from others
SAME = 1e-3  # relative difference of their means that another machine may make
Labelled = TypeVar("Labelled", xr.Dataset, xr.DataArray)


def store_of(data: str | Path | xr.Dataset, store: str | Path | None = None) -> Path:
    """The store on this machine that results of `data` go into. Raises UsageError where that is not said."""
    if not isinstance(data, xr.Dataset):
        if not isinstance(data, str | Path):
            raise UsageError(f"data is a {type(data).__name__}; give the path of a store, or a Dataset.")
        if store is not None:
            raise UsageError(
                "store says where results of a Dataset go; those of a store's path go there: leave it out."
            )
        return check_store(data)
    place = store or data.encoding.get("source")
    if place is None:
        raise UsageError(
            "the Dataset does not say which store it was opened from; name the one for its results: store='…'."
        )
    return check_store(place)


def check_grid(ds: xr.Dataset, own: xr.Dataset) -> None:
    """Raise SchemaError unless the samples of a Dataset have a place each on the grid of a store."""
    schema.validate(ds)
    nav = schema.navigation_dims(own)
    if schema.navigation_dims(ds) != nav:
        raise SchemaError(f"the Dataset has samples over {schema.navigation_dims(ds)}, the store over {nav}.")
    for dim in nav:
        foreign = ds[dim].values[~np.isin(ds[dim].values, own[dim].values)]
        if len(foreign):
            raise SchemaError(
                f"the Dataset has {dim} = {foreign[0]}, which is no place on the store's grid, so that its results do "
                "not fit there; make a store of it first: va.ingest(ds, 'NEW.zarr')."
            )


def on_grid(values: Labelled, own: xr.Dataset, fill: Any) -> Labelled:
    """Values over the whole grid of a store, `fill` where there were none."""
    return values.reindex({dim: own[dim] for dim in schema.navigation_dims(own)}, fill_value=fill)


def seen(ds: xr.Dataset, roi: xr.DataArray) -> dict[str, Any]:
    """What patterns of a region look like: form, mean and deviation of a few of them, spread over the region."""
    points = np.argwhere(roi.values)
    points = points[np.linspace(0, len(points) - 1, min(N_SEEN, len(points))).astype(int)]
    at = {dim: roi[dim].values[points[:, i]] for i, dim in enumerate(roi.dims)}
    lacking = [f"{dim} = {value}" for dim, values in at.items() for value in values if value not in ds.indexes[dim]]
    if lacking:
        raise UsageError(f"the Dataset lacks points of the run's region, such as {lacking[0]}; give the whole region.")
    some = ds[n.PATTERNS].sel({dim: xr.DataArray(values, dims="seen") for dim, values in at.items()})
    rows = some.transpose("seen", ...).values.reshape(len(points), -1).astype("f8")
    return {
        "sample_shape": list(schema.input_shape(ds)),
        "dtype": str(ds[n.PATTERNS].dtype),
        "mean": rows.mean(1).tolist(),
        "std": rows.std(1).tolist(),
        "steps": nested(ds[n.PATTERNS].attrs, STEPS),
    }


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two times the same patterns were seen."""
    if any(one[key] != other[key] for key in ("sample_shape", "dtype")) or len(one["mean"]) != len(other["mean"]):
        return False
    return all(np.allclose(one[key], other[key], rtol=SAME, atol=SAME, equal_nan=True) for key in ("mean", "std"))
