"""Principal components of the latents: directions, loadings, explained variance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr.analysis.embedding.pca import Pca, fit_pca
from vaearr.analysis.exploration.points import open_encoded, some_rows
from vaearr.errors import UsageError

COMPONENT = "component"
MAX_POINTS = 100_000
BATCH = 4096
MOST_BY_DEFAULT = 64


def rows_pca(values: np.ndarray, n_components: int | None = None, seed: int = 0) -> Pca:
    """Principal components of rows `(k, p)`; None for as many as there are. See `vaearr.analysis.embedding.fit_pca`."""
    most = min(len(values) - 1, values.shape[1])
    rows = torch.from_numpy(np.ascontiguousarray(values, np.float64))
    return fit_pca(
        lambda: iter(rows.split(BATCH)),
        n_samples=len(values),
        n_values=values.shape[1],
        n_components=min(most, MOST_BY_DEFAULT) if n_components is None else n_components,
        seed=seed,
    )


def latent_pca(
    store: str | Path,
    run: str = n.DEFAULT_RUN,
    n_components: int | None = None,
    *,
    pooled: bool = False,
    max_points: int = MAX_POINTS,
    seed: int = 0,
) -> xr.Dataset:
    """Principal components of a run's posterior means, as they are (not scaled), over at most `max_points` samples.

    `components (component, latent[, lz, ly, lx])` of unit length; `loadings` of the same shape, components times the
    root of their variance; `explained_variance`, `explained_variance_ratio` (of the total variance of the latents),
    `explained_variance_cumulative` `(component)`; `mean (latent[, …])`. n_components: None for all, at most 64. Spatial
    latents count with all their values, pooled: with one mean per dimension. Raises NoInputError for a run not
    encoded, UsageError for none or more components than there are, DataError for latents that are all alike, or that a
    mask left out at some positions unless `pooled`.
    """
    if n_components is not None and n_components < 1:
        raise UsageError(f"n_components is {n_components}; it must be at least 1.")
    encoded = open_encoded(store, run)
    numbers, values, total = some_rows(encoded, max_points, seed, pool=pooled)
    found = rows_pca(values, n_components, seed)
    shape = encoded.latent_shape[:1] if pooled else encoded.latent_shape
    components = found.components.reshape(-1, *shape)
    scale = np.sqrt(np.maximum(found.variance, 0)).reshape(-1, *(1,) * len(shape))
    inner = n.latent_dims(components.ndim - 1)
    share: dict[str, Any] = {"units": "1", "comment": "of the total variance of the latents"}
    return xr.Dataset(
        {
            "components": ((COMPONENT, *inner), components, {"long_name": "principal component", "units": "1"}),
            "loadings": ((COMPONENT, *inner), components * scale, {"long_name": "loading", "units": "1"}),
            "explained_variance": (COMPONENT, found.variance, {"long_name": "explained variance", "units": "1"}),
            "explained_variance_ratio": (COMPONENT, found.ratio, {"long_name": "explained share", **share}),
            "explained_variance_cumulative": (
                COMPONENT,
                np.cumsum(found.ratio),
                {"long_name": "share explained up to here", **share},
            ),
            "mean": (inner, found.mean.reshape(shape), {"long_name": "mean latent", "units": "1"}),
        },
        coords={COMPONENT: np.arange(len(components)), n.LATENT: np.arange(shape[0])},
        attrs={
            **encoded.attrs,
            "n_points": len(numbers),
            "n_known": total,
            "seed": seed,
            "total_variance": found.total,
        },
    )
