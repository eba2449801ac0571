"""What attached values become: one function for each kind, from rows in place to a labelled variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.attaching.files import Values
from vaearr.attaching.placing import Placement
from vaearr.errors import DataError

Build = Callable[[xr.Dataset, Values, Placement, str, Mapping[int, str]], xr.DataArray]

KINDS: dict[str, Build] = {}


def kind(build: Build) -> Build:
    """Register the decorated function under its own name."""
    KINDS[build.__name__] = build
    return build


@kind
def latents(
    ds: xr.Dataset, values: Values, placement: Placement, name: str, classes: Mapping[int, str]
) -> xr.DataArray:
    """Latents of a run that was made elsewhere: `(navigation…, latent_<run>)`. `name` is the run's."""
    dim = n.run_name(n.LATENT, name)
    one = _stack(ds, values, placement, n.run_name(n.LATENTS, name), dim, values.numbers)
    one[dim].attrs.update(n.ATTRS[n.LATENT])
    return one.assign_attrs(long_name="latent (attached)", units="1")


@kind
def scores(ds: xr.Dataset, values: Values, placement: Placement, name: str, classes: Mapping[int, str]) -> xr.DataArray:
    """Scores of a decomposition: `(navigation…, <name>_component)`."""
    dim = f"{name}_{n.COMPONENT}"
    one = _stack(ds, values, placement, name, dim, values.numbers)
    one[dim].attrs["long_name"] = n.COMPONENT
    return one.assign_attrs(long_name=f"{name} score (attached)", units="1")


@kind
def elements(
    ds: xr.Dataset, values: Values, placement: Placement, name: str, classes: Mapping[int, str]
) -> xr.DataArray:
    """Element maps: `(element, navigation…)`; under another name than `elements`, over a dim `<name>_element`."""
    if not values.columns:
        raise DataError(f"{values.origin['file']} names no elements; expected a CSV with one column for each element.")
    labels = [column.split("(")[0].split("[")[0].strip() or column for column in values.columns]
    if len(set(labels)) < len(labels):
        raise DataError(f"{values.origin['file']} has element columns {', '.join(labels)}; expected each once.")
    dim = n.ELEMENT if name == n.ELEMENTS else f"{name}_{n.ELEMENT}"
    return _stack(ds, values, placement, name, dim, labels).transpose(dim, ...).assign_attrs(n.ATTRS[n.ELEMENTS])


@kind
def map(ds: xr.Dataset, values: Values, placement: Placement, name: str, classes: Mapping[int, str]) -> xr.DataArray:
    """One value for each scan point, NaN where there is none."""
    grid = placement.on_grid(_as_float(_single(values)), np.nan)
    return _variable(ds, grid, name).assign_attrs(n.ATTRS.get(name, {"long_name": _label(values, name), "units": "1"}))


@kind
def classes(
    ds: xr.Dataset, values: Values, placement: Placement, name: str, classes: Mapping[int, str]
) -> xr.DataArray:
    """One class number for each scan point: -1 for no class (noise, not indexed), -2 where there is no value."""
    numbers = _single(values)
    if numbers.dtype.kind == "f":
        numbers = np.where(np.isnan(numbers), n.NOT_CLUSTERED, numbers)
    wrong = (numbers != np.rint(numbers)) | (numbers < n.NOT_CLUSTERED) | (numbers > np.iinfo("i4").max)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{values.origin['file']}: row {row} holds {numbers[row]:g}; expected whole class numbers, -1 for no class "
            f"and {n.NOT_CLUSTERED} for no value."
        )
    grid = placement.on_grid(np.rint(numbers).astype("i4"), n.NOT_CLUSTERED)
    found = [int(code) for code in np.unique(grid) if code >= 0]
    words = {n.NOT_CLUSTERED: "no_value", n.NOISE: "no_class"} | {code: f"class_{code}" for code in found}
    words |= {int(code): "_".join(str(word).split()) for code, word in classes.items() if str(word).strip()}
    words = dict(sorted(words.items()))
    attrs = {"long_name": _label(values, name), "flag_values": list(words), "flag_meanings": " ".join(words.values())}
    small = grid.max(initial=0) <= np.iinfo("i2").max
    return _variable(ds, grid.astype("i2") if small else grid, name).assign_attrs(attrs)


def _stack(ds: xr.Dataset, values: Values, placement: Placement, name: str, dim: str, labels: Any) -> xr.DataArray:
    rows = _as_float(values.values if values.values.ndim > 1 else values.values[:, None])
    grid = placement.on_grid(rows, np.nan)
    index = list(labels) or list(range(rows.shape[1]))
    return _variable(ds, grid, name, dim).assign_coords({dim: (dim, index)})


def _variable(ds: xr.Dataset, grid: np.ndarray, name: str, *further: str) -> xr.DataArray:
    nav = schema.navigation_dims(ds)
    coords = {dim: ds[dim].variable for dim in nav}
    return xr.DataArray(grid, dims=(*nav, *further), coords=coords, name=name)


def _single(values: Values) -> np.ndarray:
    rows = values.values
    if rows.ndim > 1 and rows.shape[1] != 1:
        which = f" ({', '.join(values.columns[:20])}); choose one with columns=" if values.columns else ""
        raise DataError(f"{values.origin['file']} has {rows.shape[1]} values for each point, expected one{which}.")
    return np.asarray(rows).reshape(-1)


def _as_float(rows: np.ndarray) -> np.ndarray:
    """Floats as they are (half precision as single); integers in the float that holds them all."""
    rows = np.asarray(rows)
    if rows.dtype.kind != "f":
        return rows.astype("f4" if rows.dtype.itemsize <= 2 else "f8")
    return rows.astype(np.dtype(f"f{min(max(rows.dtype.itemsize, 4), 8)}"))


def _label(values: Values, name: str) -> str:
    return values.columns[0] if len(values.columns) == 1 else name
