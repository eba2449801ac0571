"""Is a latent space in good order: used, spread as the prior says, its dimensions free; and what lies far off in it."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.exploration.points import POINT, classes_if_any, named, open_encoded, point_coords
from vaearr.errors import DataError, UsageError
from vaearr.models.quality import ACTIVE_VARIANCE
from vaearr.run import Run, StoreOrRun
from vaearr.run.statistics import Sums, correlations, has_posterior, latent_sums, posteriors, statistics_of

LEAST_DRAWS = 20_000  # of the aggregate posterior: a distance of two distributions is known to about 1 / root of this
MOST_DRAWS = 50_000
BINS, REACH = 81, 4.0  # of the histograms; at least so far, in standard deviations of the prior


def health(store: StoreOrRun, run: str = n.DEFAULT_RUN, *, seed: int = 0) -> xr.Dataset:
    """Disentanglement and health of a run's latents, from what `encode` wrote.

    Over `latent`: `kl` (nats), `is_active` (variance of the mean > 0.01), `aggregate_mean`, `aggregate_std`,
    `aggregate_kl` as in `latent_statistics`; `wasserstein`, the mean distance between the quantiles of the aggregate
    posterior and of N(0, 1) (W1, in standard deviations of the prior), of one dimension each. `correlation (latent,
    other)`, Pearson, of the posterior means, NaN of constant dimensions. `density (latent, bin)` of the aggregate
    posterior beside `prior (bin)`, both per unit, over `edge`; what lies beyond the edges is not in it.

    Attributes: `n_active`, `kl_total`, `largest_correlation` with `largest_pair`, the two active dimensions;
    `aggregate_kl_total`, KL of the Gaussian with all covariances from the prior. `warnings`.

    The aggregate posterior is drawn from: as often from each posterior until there are 20 000 draws, at most 50 000.
    Each position of a spatial latent counts on its own. Of an autoencoder, and of latents attached without standard
    deviations, the means are the draws and `kl` is 0 or NaN. Raises NoInputError for a run not encoded.
    """
    from scipy.special import ndtr, ndtri

    encoded = open_encoded(store, run)
    sums = latent_sums(encoded)
    known = statistics_of(sums, has_posterior=has_posterior(encoded))
    draws = _aggregate_draws(encoded, sums, seed)
    quantiles = ndtri((np.arange(len(draws)) + 0.5) / len(draws))[:, None]
    far = abs(np.quantile(draws, (0.001, 0.999), axis=0)).max()  # a few far draws do not widen the range
    edges = np.linspace(-max(REACH, far), max(REACH, far), BINS + 1)
    counts = np.stack([np.histogram(column, edges)[0] for column in draws.T])
    correlation = correlations(sums.covariance)
    active = np.flatnonzero(known["is_active"])
    pair, largest = list[int](), 0.0
    if len(active) > 1:
        off = np.triu(abs(correlation[np.ix_(active, active)]), 1)
        pair = [int(active[i]) for i in np.unravel_index(off.argmax(), off.shape)]
        largest = float(correlation[tuple(pair)])
    wasserstein = abs(np.sort(draws, axis=0) - quantiles).mean(0)
    about = {key: known.attrs[key] for key in ("n", "n_active", "kl_total", "aggregate_kl_total", "warnings")}
    about |= {"seed": seed, "largest_correlation": largest, "largest_pair": pair}
    return xr.Dataset(
        {
            **{name: known[name] for name in ("kl", "aggregate_mean", "aggregate_std", "aggregate_kl", "is_active")},
            "wasserstein": named(n.LATENT, wasserstein, "Wasserstein distance from the prior"),
            "correlation": named((n.LATENT, "other"), correlation, "correlation of the means"),
            "density": named((n.LATENT, "bin"), counts / (len(draws) * np.diff(edges)), "aggregate posterior per unit"),
            "prior": named("bin", np.diff(ndtr(edges)) / np.diff(edges), "prior per unit"),
            "edges": named("edge", edges, "edges of the bins"),
        },
        coords={n.LATENT: known[n.LATENT].assign_attrs(n.ATTRS[n.LATENT]), "other": known[n.LATENT].values},
        attrs={**encoded.attrs, **about},
    )


def _aggregate_draws(encoded: Run, sums: Sums, seed: int) -> np.ndarray:
    """Draws `(k, L)` of the aggregate posterior: one or several of each posterior, of a part if they are many."""
    rng = np.random.default_rng(seed)
    times = max(1, math.ceil(LEAST_DRAWS / sums.count)) if np.any(sums.variance > 0) else 1
    share = min(1.0, MOST_DRAWS / (sums.count * times))
    parts = []
    for mean, std, _ in posteriors(encoded):
        taken = np.repeat(rng.random(len(mean)) < share if share < 1 else np.ones(len(mean), bool), times)
        mean, std = (np.repeat(part, times, axis=0)[taken] for part in (mean, std))
        parts.append(mean + std * rng.standard_normal(mean.shape))
    return np.concatenate(parts)


def out_of_distribution(store: StoreOrRun, run: str = n.DEFAULT_RUN) -> xr.Dataset:
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
    is_deterministic = bool((sums.variance == 0).all())
    active = np.flatnonzero(np.diag(sums.covariance) > (0 if is_deterministic else ACTIVE_VARIANCE))
    if not len(active):
        raise DataError(f"no latent dimension of run {run!r} varies over the data (collapse); there is no distance.")
    values, vectors = np.linalg.eigh(sums.covariance[np.ix_(active, active)])
    kept = values > values.max() * len(values) * np.finfo(float).eps
    white = vectors[:, kept] / np.sqrt(values[kept])
    squared = np.full(int(np.prod(encoded.grid)), np.nan)
    for numbers, rows in encoded.latent_blocks():
        z = np.moveaxis(rows[:, active].reshape(len(rows), len(active), -1).astype("f8"), 1, -1)
        squared[numbers] = np.nanmean((((z - sums.mean[active]) @ white) ** 2).sum(-1), axis=1)
    nav, known = schema.navigation_dims(encoded.ds), squared.reshape(encoded.grid)
    about = {"active": active.tolist(), "degrees": white.shape[1], "n": int(np.isfinite(known).sum())}
    data = {"distance": named(nav, np.sqrt(known), "Mahalanobis distance to all posterior means")}
    if len(encoded.latent_shape) == 1:
        data["p_value"] = named(nav, chi2.sf(known, white.shape[1]), "probability of a larger distance (chi^2)")
    return xr.Dataset(data, {dim: encoded.ds[dim] for dim in nav}, {**encoded.attrs, **about})


def unusual(
    store: StoreOrRun,
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
    numbers = np.argsort(-distance, kind="stable")[: min(count, int(np.isfinite(distance).sum()))]  # NaN last
    classes, signal = classes_if_any(encoded.ds, by), schema.signal_dims(encoded.ds)
    stored = encoded.samples(np.stack(np.unravel_index(numbers, encoded.grid), axis=1))
    words = {**encoded.ds[n.PATTERNS].attrs, n.SIGNAL_DIMS: list(signal), "scale": "stored"}
    data = {str(k): (POINT, v.values.ravel()[numbers], dict(v.attrs)) for k, v in maps.data_vars.items()}
    coords = {dim: encoded.ds[dim] for dim in signal if dim in encoded.ds.coords}
    return xr.Dataset(
        {**data, "input": ((POINT, *signal), stored, words)},
        coords={**coords, **point_coords(encoded, numbers, classes)},
        attrs={**maps.attrs, "by": None if classes is None else classes.by},
    )
