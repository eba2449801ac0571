"""How unusual each sample is for a run, by where its latents lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError
from vaearr.exploration.points import open_encoded
from vaearr.inference.statistics import latent_sums
from vaearr.quality import ACTIVE_VARIANCE


def out_of_distribution(store: str | Path, run: str = n.DEFAULT_RUN) -> xr.Dataset:
    """How far each sample lies from the aggregate posterior: `distance` and `p_value` over the navigation dims.

    distance: Mahalanobis' d of the posterior mean, d^2 = (z - m)' C^-1 (z - m) with the mean m and covariance C of the
    aggregate posterior, that of the means plus the mean posterior variance (Mahalanobis, Proc. Natl. Inst. Sci. India
    2, 49 (1936)). p_value: probability of a larger one if latents were Gaussian, by chi^2 with `degrees` degrees of
    freedom. Only active dimensions count (variance of the mean > 0.01), since others do not tell samples apart and
    would only add degrees of freedom; of an autoencoder, all that vary. Positions of a spatial latent are taken as
    independent: squares and degrees are sums over those that are known.

    NaN outside the region, 0 degrees there. Attributes: `active`, the dimensions; `n`, samples. Raises NoInputError for
    a run not encoded, DataError where no dimension is active.
    """
    from scipy.stats import chi2

    encoded = open_encoded(store, run)
    sums = latent_sums(encoded.path, run)
    spread, posterior = np.diag(sums.covariance), sums.variance / sums.count
    is_deterministic = bool((posterior == 0).all())
    active = np.flatnonzero(spread > (0 if is_deterministic else ACTIVE_VARIANCE))
    if not len(active):
        raise DataError(f"no latent dimension of run {run!r} varies over the data (collapse); there is no distance.")
    covariance = (sums.covariance + np.diag(posterior))[np.ix_(active, active)]
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values.max() * len(values) * np.finfo(float).eps
    white = vectors[:, kept] / np.sqrt(values[kept])
    squared = np.full(int(np.prod(encoded.grid)), np.nan)
    degrees = np.zeros(squared.size, int)
    for numbers, rows in encoded.blocks():
        z = np.moveaxis(rows[:, active].reshape(len(rows), len(active), -1).astype("f8"), 1, -1)
        each = (((z - sums.mean[active]) @ white) ** 2).sum(-1)
        known = np.isfinite(each)
        squared[numbers] = np.where(known, each, 0).sum(1)
        degrees[numbers] = known.sum(1) * white.shape[1]
    squared[degrees == 0] = np.nan
    nav = schema.navigation_dims(encoded.ds)
    p_value = chi2.sf(squared, np.maximum(degrees, 1))
    maps = {
        "distance": (np.sqrt(squared), "Mahalanobis distance to the aggregate posterior"),
        "p_value": (p_value, "probability of a larger distance (chi^2)"),
        "degrees": (degrees, "degrees of freedom"),
    }
    return xr.Dataset(
        {
            name: (nav, array.reshape(encoded.grid), {"long_name": text, "units": "1"})
            for name, (array, text) in maps.items()
        },
        coords={dim: encoded.ds[dim] for dim in nav},
        attrs={**encoded.attrs, "active": active.tolist(), "n": int((degrees > 0).sum())},
    )
