"""Is a latent space in good order: used, spread as the prior says, its dimensions free."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.run import Run, StoreOrRun
from vaearr.run.exploration.points import named, open_encoded
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
