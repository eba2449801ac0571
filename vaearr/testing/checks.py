"""Assertions about Datasets, and about how often dask computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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
    for run in dict.fromkeys([n.DEFAULT_RUN, *schema.runs(ds), *_runs_of(ds, n.ROI), *_runs_of(ds, n.SPLIT)]):
        inside = _inside(ds, run)
        _assert_derived(ds, run, inside)
        split = n.run_name(n.SPLIT, run)
        if split in ds:
            _assert_flags(ds[split], [n.OUTSIDE, n.TRAIN, n.VALIDATION])
            n_marked = int(((ds[split].transpose(*schema.navigation_dims(ds)).values != n.OUTSIDE) & ~inside).sum())
            assert n_marked == 0, f"{split!r} marks {n_marked} samples outside the ROI; they must be {n.OUTSIDE}."
    if n.PHASE in ds and "flag_values" in ds[n.PHASE].attrs:
        declared = [int(value) for value in ds[n.PHASE].attrs["flag_values"]]
        _assert_flags(ds[n.PHASE], [*declared, n.PHASE_MISSING])


def _runs_of(ds: xr.Dataset, variable: str) -> list[str]:
    """Runs that have their own `variable`, the default run apart."""
    return [str(name).removeprefix(f"{variable}_") for name in ds.data_vars if str(name).startswith(f"{variable}_")]


def _inside(ds: xr.Dataset, run: str) -> NDArray[np.bool_]:
    """Samples that a run must have values for."""
    nav = schema.navigation_dims(ds)
    everywhere = np.ones(schema.navigation_shape(ds), dtype=bool)
    present = ds[n.PRESENT].transpose(*nav).values if n.PRESENT in ds else everywhere
    name = n.run_name(n.ROI, run)
    if name not in ds:
        return present
    roi = ds[name].transpose(*nav).values
    n_missing = int((roi & ~present).sum())
    assert n_missing == 0, f"{name!r} holds {n_missing} samples that are not present."
    return roi


def _assert_derived(ds: xr.Dataset, run: str, inside: NDArray[np.bool_]) -> None:
    nav = schema.navigation_dims(ds)
    for variable in DERIVED:
        name = n.run_name(variable, run)
        if name not in ds:
            continue
        assert set(nav) <= set(ds[name].dims), f"{name!r} has dims {ds[name].dims}; it must lie over {nav}."
        assert ds[name].dtype.kind == "f", f"{name!r} has dtype {ds[name].dtype}; NaN outside the ROI needs floats."
        values = ds[name].transpose(*nav, ...).values
        finite, nan = np.isfinite(values), np.isnan(values)
        wanted = np.broadcast_to(inside.reshape(inside.shape + (1,) * (values.ndim - inside.ndim)), values.shape)
        n_bad, n_left = int((wanted & ~finite).sum()), int((~wanted & ~nan).sum())
        assert n_bad == 0, f"{name!r} has {n_bad} values inside the ROI that are not finite."
        assert n_left == 0, f"{name!r} has {n_left} values outside the ROI that are not NaN."
        if variable != n.LATENTS:
            n_negative = int((values < 0).sum())
            assert n_negative == 0, f"{name!r} has {n_negative} negative values."


def _assert_flags(variable: xr.DataArray, declared: list[int]) -> None:
    unknown = sorted(set(np.unique(variable.values).tolist()) - set(declared))
    assert not unknown, f"{variable.name!r} holds {unknown}, which its flags do not declare: {sorted(set(declared))}."


@contextmanager
def count_computes(at_most: int | None = None) -> Iterator[list[Any]]:
    """Count dask computes inside the block; more than `at_most` is an AssertionError, even if the block catches it.

    Yields a list that grows by one with every compute; its entries are the dask keys asked for. One `compute`, `load`
    or `persist` of any number of arrays counts once; computes that name their own `scheduler=` are not seen. Tasks run
    one after another inside the block. Same purpose as `raise_if_dask_computes` in xarray's test suite.
    """
    import dask

    computes: list[Any] = []

    def scheduler(graph: Any, keys: Any, **kwargs: Any) -> Any:
        computes.append(keys)
        _assert_at_most(len(computes), at_most)
        run: Callable[..., Any] = dask.get
        return run(graph, keys, **kwargs)

    with dask.config.set(scheduler=scheduler):
        yield computes
    _assert_at_most(len(computes), at_most)


def _assert_at_most(n_computes: int, at_most: int | None) -> None:
    if at_most is not None and n_computes > at_most:
        raise AssertionError(f"dask computed {n_computes} times, at most {at_most} allowed: something is not lazy.")
