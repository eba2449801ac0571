"""How unusual each sample is for a run, by where its latents lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.exploration.points import POINT, classes_if_any, open_encoded, point_coords
from vaearr.errors import DataError, UsageError
from vaearr.models.quality import ACTIVE_VARIANCE
from vaearr.run.statistics import latent_sums


def out_of_distribution(store: str | Path, run: str = n.DEFAULT_RUN) -> xr.Dataset:
    """How far each sample lies from the others: `distance` over the navigation dims, for vector latents `p_value` too.

    distance: Mahalanobis' d of the posterior mean, d^2 = (z - m)' C^-1 (z - m) with the mean m and covariance C of all
    posterior means (Mahalanobis, Proc. Natl. Inst. Sci. India 2, 49 (1936)). p_value: the probability of a larger one
    if the means were Gaussian, by chi^2 with as many degrees of freedom as the attribute `degrees` says. Of a spatial
    latent m and C are over all positions, d is the root mean square over the positions that are known, and there is no
    p_value, since positions beside each other are alike. Only active dimensions count (variance of the mean > 0.01),
    since others do not tell samples apart; of an autoencoder, and of latents attached without standard deviations, all
    that vary.

    NaN outside the region. Attributes: `active`, the dimensions; `degrees`; `n`, samples. Raises NoInputError for a run
    not encoded, DataError where no dimension is active.
    """
    from scipy.stats import chi2

    encoded = open_encoded(store, run)
    sums = latent_sums(encoded)
    spread = np.diag(sums.covariance)
    is_deterministic = bool((sums.variance == 0).all())
    active = np.flatnonzero(spread > (0 if is_deterministic else ACTIVE_VARIANCE))
    if not len(active):
        raise DataError(f"no latent dimension of run {run!r} varies over the data (collapse); there is no distance.")
    values, vectors = np.linalg.eigh(sums.covariance[np.ix_(active, active)])
    kept = values > values.max() * len(values) * np.finfo(float).eps
    white = vectors[:, kept] / np.sqrt(values[kept])
    squared = np.full(int(np.prod(encoded.grid)), np.nan)
    for numbers, rows in encoded.latent_blocks():
        z = np.moveaxis(rows[:, active].reshape(len(rows), len(active), -1).astype("f8"), 1, -1)
        each = (((z - sums.mean[active]) @ white) ** 2).sum(-1)
        known = np.isfinite(each)
        squared[numbers] = np.where(known, each, 0).sum(1) / known.sum(1)
    maps = {"distance": (np.sqrt(squared), "Mahalanobis distance to all posterior means")}
    if len(encoded.latent_shape) == 1:
        maps["p_value"] = (chi2.sf(squared, white.shape[1]), "probability of a larger distance (chi^2)")
    nav = schema.navigation_dims(encoded.ds)
    return xr.Dataset(
        {
            name: (nav, array.reshape(encoded.grid), {"long_name": text, "units": "1"})
            for name, (array, text) in maps.items()
        },
        coords={dim: encoded.ds[dim] for dim in nav},
        attrs={
            **encoded.attrs,
            "active": active.tolist(),
            "degrees": white.shape[1],
            "n": int(np.isfinite(squared).sum()),
        },
    )


def unusual(
    store: str | Path,
    run: str = n.DEFAULT_RUN,
    count: int = 16,
    *,
    by: str | None = None,
    maps: xr.Dataset | None = None,
) -> xr.Dataset:
    """The samples that lie farthest from the others in latent space, the farthest first, with their patterns.

    `distance` and, of vector latents, `p_value (point)` as of `out_of_distribution`; `input (point, [channel,] dy,
    dx)`, stored values; coordinates `number`, the navigation coordinates and, of `by` (None: label, phase or clusters
    where one is there), `class`. maps: a result of `out_of_distribution` of this run, so that it is not made again.
    Raises UsageError for a count below 1 or maps of another run, and as `out_of_distribution`.
    """
    if count < 1:
        raise UsageError(f"count is {count}; it must be at least 1.")
    encoded = open_encoded(store, run)
    if maps is None:
        maps = out_of_distribution(store, run)
    elif any(maps.attrs.get(key) != encoded.attrs[key] for key in ("run", "weights_sha256")):
        raise UsageError(f"the maps are of run {maps.attrs.get('run')!r}; give those of {run!r} as it is now, or none.")
    distance = maps["distance"].values.ravel()
    order = np.argsort(-distance, kind="stable")  # NaN last
    numbers = order[: min(count, int(np.isfinite(distance).sum()))]
    classes = classes_if_any(encoded.ds, by)
    coords = point_coords(encoded, numbers, classes)
    signal, patterns = schema.signal_dims(encoded.ds), encoded.ds[n.PATTERNS]
    stored = encoded.samples(np.stack(np.unravel_index(numbers, encoded.grid), axis=1))
    return xr.Dataset(
        {
            **{str(k): (POINT, v.values.ravel()[numbers], dict(v.attrs)) for k, v in maps.data_vars.items()},
            "input": (
                (POINT, *signal),
                stored,
                {**patterns.attrs, n.SIGNAL_DIMS: list(signal), "scale": "stored"},
            ),
        },
        coords={
            **coords,
            **{d: encoded.ds[d] for d in signal if d in encoded.ds.coords and d not in coords},
        },
        attrs={**maps.attrs, "by": None if classes is None else classes.by},
    )
