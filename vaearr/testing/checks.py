"""Assertions about Datasets."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vaearr import names as n
from vaearr import schema

DERIVED = (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR)


def assert_valid(ds: xr.Dataset) -> None:
    """Raise unless `ds` is laid out as `vaearr.schema` says (SchemaError) and its values keep the promises too.

    Each run's float variables are NaN exactly outside the run's ROI, or where `present` is false if it has none;
    standard deviations and errors are not negative; an ROI holds measured samples only, a split marks samples of its
    ROI only; flag variables hold declared values only. A broken promise is an AssertionError. Computes the maps, never
    `patterns`.
    """
    schema.validate(ds)
    nav = schema.navigation_dims(ds)
    present = np.ones(schema.navigation_shape(ds), bool)
    if n.PRESENT in ds:
        present = ds[n.PRESENT].transpose(*nav).values
    own = [name.partition("_")[2] for name in map(str, ds.data_vars) if name.startswith((f"{n.ROI}_", f"{n.SPLIT}_"))]
    for run in dict.fromkeys([n.DEFAULT_RUN, *schema.runs(ds), *own]):
        inside, roi, split = present, n.run_name(n.ROI, run), n.run_name(n.SPLIT, run)
        if roi in ds:
            inside = ds[roi].transpose(*nav).values
            _none(inside & ~present, f"{roi!r} holds", "samples that are not present.")
        for variable in DERIVED:
            _assert_derived(ds, n.run_name(variable, run), inside, is_signed=variable == n.LATENTS)
        if split in ds:
            _assert_flags(ds[split], [n.OUTSIDE, n.TRAIN, n.VALIDATION])
            marked = ds[split].transpose(*nav).values != n.OUTSIDE
            _none(marked & ~inside, f"{split!r} marks", f"samples outside the ROI; they must be {n.OUTSIDE}.")
    if n.PHASE in ds and "flag_values" in ds[n.PHASE].attrs:
        _assert_flags(ds[n.PHASE], [*map(int, ds[n.PHASE].attrs["flag_values"]), n.PHASE_MISSING])


def _assert_derived(ds: xr.Dataset, name: str, inside: NDArray[np.bool_], *, is_signed: bool) -> None:
    if name not in ds:
        return
    nav = schema.navigation_dims(ds)
    assert set(nav) <= set(ds[name].dims), f"{name!r} has dims {ds[name].dims}; it must lie over {nav}."
    assert ds[name].dtype.kind == "f", f"{name!r} has dtype {ds[name].dtype}; NaN outside the ROI needs floats."
    values = ds[name].transpose(*nav, ...).values
    wanted = inside.reshape(inside.shape + (1,) * (values.ndim - inside.ndim))
    _none(wanted & ~np.isfinite(values), f"{name!r} has", "values inside the ROI that are not finite.")
    _none(~wanted & ~np.isnan(values), f"{name!r} has", "values outside the ROI that are not NaN.")
    _none((values < 0) & (not is_signed), f"{name!r} has", "negative values.")


def _none(bad: NDArray[np.bool_], who: str, what: str) -> None:
    assert not bad.any(), f"{who} {int(bad.sum())} {what}"


def _assert_flags(variable: xr.DataArray, declared: list[int]) -> None:
    unknown = sorted(set(np.unique(variable.values).tolist()) - set(declared))
    assert not unknown, f"{variable.name!r} holds {unknown}, which its flags do not declare: {sorted(set(declared))}."
