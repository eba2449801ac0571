"""A store's Dataset as an object of another package: a HyperSpy signal of its patterns, an AnnData of its latents."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import need
from vaearr.run import StoreOrRun, load_run
from vaearr.schema import categories, is_categorical
from vaearr.schema.grid import to_samples

if TYPE_CHECKING:
    from anndata import AnnData


def to_hyperspy(ds: xr.Dataset | xr.DataArray) -> Any:
    """The patterns, or any array over the navigation dims, as a HyperSpy signal; lazy on dask chunks.

    The axes carry names, scales, offsets and units of the coordinates, navigation axes first. Patterns of a scan become
    a kikuchipy EBSD signal where that package is there. Raises MissingExtraError without HyperSpy.
    """
    need("hyperspy", "hyperspy", "to_hyperspy")
    import hyperspy.api as hs

    array = ds[n.PATTERNS] if isinstance(ds, xr.Dataset) else ds
    nav = [dim for dim in map(str, array.dims) if dim in array.attrs.get(n.NAVIGATION_DIMS, (*n.SCAN_DIMS, n.SAMPLE))]
    array = array.transpose(*nav, ...)
    axes = [_axis(array, str(dim), is_navigation=dim in nav) for dim in array.dims]
    n_signal = array.ndim - len(nav)
    kinds = {0: hs.signals.BaseSignal, 1: hs.signals.Signal1D, 2: hs.signals.Signal2D}
    signal = kinds.get(n_signal, hs.signals.BaseSignal)(array.data, axes=axes)
    signal.metadata.General.title = str(array.name or "")
    if array.chunks:
        signal = signal.as_lazy()
    if n_signal == 2 and n.SAMPLE not in nav and array.name == n.PATTERNS and find_spec("kikuchipy"):
        signal.set_signal_type("EBSD")
    return signal


def _axis(array: xr.DataArray, dim: str, *, is_navigation: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {"name": dim, "size": array.sizes[dim], "navigate": is_navigation}
    if dim in array.coords and array[dim].dtype.kind in "iuf" and array.sizes[dim] > 1:
        values = array[dim].values.astype("f8")
        step = float(values[1] - values[0])
        if np.allclose(np.diff(values), step, rtol=1e-6):
            axis |= {"offset": float(values[0]), "scale": step, "units": str(array[dim].attrs.get("units", ""))}
    return axis


def to_anndata(store: StoreOrRun, run: str = n.DEFAULT_RUN) -> AnnData:
    """A run's latents as an AnnData: a row for each known sample of its region, a column for each latent dimension.

    `obs`: every map over the navigation dims (classes as categories) and the coordinates; `obsm`: "spatial", the
    positions (x, y[, z]) of a scan, and every variable with one further dim, such as `pca`, `elements`,
    `latents_std`; `uns`: the run's settings. Of spatial latents the means over their positions. Raises
    MissingExtraError without anndata, NoInputError for a run that is not encoded.
    """
    need("anndata", "vaearr[interchange]", "to_anndata")
    from anndata import AnnData

    opened = load_run(store, run)
    ds, nav = opened.ds, set(schema.navigation_dims(opened.ds))
    latents = schema.vectors(opened.latents).load()
    known = latents.notnull().all([dim for dim in latents.dims if dim not in nav])
    rows = to_samples(latents, known)
    obs, obsm = dict[str, Any](), dict[str, np.ndarray]()
    for name, variable in ds.variables.items():
        further = [str(dim) for dim in variable.dims if dim not in nav]
        if name in (n.PATTERNS, latents.name) or not set(variable.dims) & nav or len(further) > 1:
            continue
        values = to_samples(ds[name].broadcast_like(known) if not further else ds[name], known)
        if further:
            obsm[str(name)] = values.transpose(n.SAMPLE, ...).values
        elif is_categorical(ds[name]):
            words = categories(ds[name])
            codes = pd.Index([*words]).get_indexer(pd.Index(values.values))
            obs[str(name)] = pd.Categorical.from_codes(codes, _plain(words.values()))
        else:
            obs[str(name)] = values.values
    axes = [dim for dim in (n.X, n.Y, n.Z) if dim in nav]
    if axes:
        obsm["spatial"] = np.column_stack([obs[dim] for dim in axes])
    number = _plain(map(str, range(rows.sizes[n.SAMPLE])))
    var = pd.DataFrame(index=_plain(f"latent {i}" for i in range(rows.shape[1])))
    found = AnnData(rows.transpose(n.SAMPLE, ...).values, obs=pd.DataFrame(obs, index=number), var=var, obsm=obsm)
    found.uns["vaearr"] = {"store": str(opened.path), "run": opened.name, **opened.attrs}
    return found


def _plain(words: Iterable[str]) -> pd.Index:
    """Words as Python's own strings, which AnnData writes with any version of pandas."""
    return pd.Index([*words], dtype=object)
