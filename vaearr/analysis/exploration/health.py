"""Is a latent space in good order: used, spread as the prior says, its dimensions free of each other."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.exploration.points import named, open_encoded
from vaearr.errors import UsageError
from vaearr.run import Run
from vaearr.run.statistics import Sums, correlations, has_posterior, latent_sums, posteriors, statistics_of

LEAST_DRAWS = 20_000  # of the aggregate posterior: a distance of two distributions is known to about 1 / root of this
MAX_DRAWS = 50_000
REACH = 4.0  # of the histograms, at least, in standard deviations of the prior


def health(
    store: str | Path, run: str = n.DEFAULT_RUN, *, bins: int = 81, max_draws: int = MAX_DRAWS, seed: int = 0
) -> xr.Dataset:
    """Disentanglement and health of a run's latents, from what `encode` wrote.

    Over `latent`: `kl` (nats), `is_active` (variance of the mean > 0.01), `aggregate_mean`, `aggregate_std`,
    `aggregate_kl` as in `latent_statistics`; `kolmogorov`, the largest difference between the distribution functions
    of the aggregate posterior and of N(0, 1) (0 to 1), and `wasserstein`, the mean distance between their quantiles
    (W1, in standard deviations of the prior), of one dimension each. `correlation (latent, other)`, Pearson, of the
    posterior means, NaN of constant dimensions. `density (latent, bin)` of the aggregate posterior beside `prior
    (bin)`, both per unit, over `edge`; what lies beyond the edges is not in it.

    Attributes: `n_active`, `kl_total`, `largest_correlation` with `largest_pair`, the two active dimensions;
    `aggregate_kl_total`, KL of the Gaussian with all covariances from the prior; `total_correlation` (nats), its part
    that is due to dependence, -0.5 log det R with the correlations R of the aggregate posterior (Watanabe, IBM J. Res.
    Dev. 4, 66 (1960), of a Gaussian), so that aggregate_kl_total = sum(aggregate_kl) + total_correlation for vector
    latents; `total_correlation_bound` (nats), the same of the normal scores of the draws: no change of single
    dimensions alters total correlation, and of all distributions with Gaussian margins and correlations R the Gaussian
    has the least, hence a lower bound; L (L - 1) / (4 draws), what chance makes of none, is taken off. None where
    dimensions depend linearly. `warnings`.

    The aggregate posterior is drawn from: as often from each posterior until there are 20 000 draws, at most
    `max_draws`. Each position of a spatial latent counts on its own. Of an autoencoder, and of latents attached without
    standard deviations, the means are the draws and `kl` is 0 or NaN. Raises NoInputError for a run not encoded,
    UsageError for bins, max_draws or a seed that cannot be.
    """
    from scipy.special import ndtr, ndtri
    from scipy.stats import kstest

    if bins < 2 or max_draws < 2:
        raise UsageError(f"bins is {bins} and max_draws {max_draws}; both must be at least 2.")
    encoded = open_encoded(store, run)
    sums = latent_sums(encoded)
    known = statistics_of(sums, has_posterior=has_posterior(encoded))
    draws = aggregate_draws(encoded, sums, max_draws, seed)
    quantiles = ndtri((np.arange(len(draws)) + 0.5) / len(draws))[:, None]
    edges, density = _density(draws, bins)
    correlation = correlations(sums.covariance)
    active = np.flatnonzero(known["is_active"])
    pair, largest = list[int](), 0.0
    if len(active) > 1:
        off = np.triu(abs(correlation[np.ix_(active, active)]), 1)
        pair = [int(active[i]) for i in np.unravel_index(off.argmax(), off.shape)]
        largest = float(correlation[tuple(pair)])
    columns = {
        "kolmogorov": (
            [kstest(column, "norm", method="asymp").statistic for column in draws.T],
            "Kolmogorov-Smirnov distance from the prior",
        ),
        "wasserstein": (abs(np.sort(draws, axis=0) - quantiles).mean(0), "Wasserstein distance from the prior"),
    }
    return xr.Dataset(
        {
            **{name: known[name] for name in ("kl", "aggregate_mean", "aggregate_std", "aggregate_kl", "is_active")},
            **{name: named(n.LATENT, values, words) for name, (values, words) in columns.items()},
            "correlation": named((n.LATENT, "other"), correlation, "correlation of the means"),
            "density": named((n.LATENT, "bin"), density, "aggregate posterior per unit"),
            "prior": named("bin", np.diff(ndtr(edges)) / np.diff(edges), "prior per unit"),
            "edges": named("edge", edges, "edges of the bins"),
        },
        coords={
            n.LATENT: (n.LATENT, np.arange(len(correlation)), dict(n.ATTRS[n.LATENT])),
            "other": np.arange(len(correlation)),
        },
        attrs={
            **encoded.attrs,
            **{key: known.attrs[key] for key in ("n", "n_active", "kl_total", "aggregate_kl_total", "warnings")},
            "n_draws": len(draws),
            "seed": seed,
            "largest_correlation": largest,
            "largest_pair": pair,
            "total_correlation": gaussian_total_correlation(
                correlations(sums.covariance + np.diag(sums.variance / sums.count))
            ),
            "total_correlation_bound": _copula_bound(draws),
        },
    )


def aggregate_draws(encoded: Run, sums: Sums, most: int, seed: int) -> np.ndarray:
    """Draws `(k, L)` of the aggregate posterior: one or several of each posterior, of a part if they are many."""
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be a whole number, at least 0.")
    rng = np.random.default_rng(seed)
    times = max(1, math.ceil(min(LEAST_DRAWS, most) / sums.count)) if np.any(sums.variance > 0) else 1
    share = min(1.0, most / (sums.count * times))
    parts = []
    for mean, std, _ in posteriors(encoded):
        if share < 1:
            taken = rng.random(len(mean)) < share
            mean, std = mean[taken], std[taken]
        if times > 1:
            mean, std = np.repeat(mean, times, axis=0), np.repeat(std, times, axis=0)
        parts.append(mean + std * rng.standard_normal(mean.shape))
    return np.concatenate(parts)


def gaussian_total_correlation(correlation: np.ndarray) -> float | None:
    """Total correlation of a Gaussian in nats, -0.5 log det R, over dimensions that vary; None for singular R."""
    varies = np.isfinite(np.diag(correlation))
    values = np.linalg.eigvalsh(correlation[np.ix_(varies, varies)])
    if len(values) and values[0] <= len(values) * np.finfo(float).eps:
        return None
    return float(max(0.0, -0.5 * np.log(values).sum()))


def _copula_bound(draws: np.ndarray) -> float | None:
    """Total correlation of the Gaussian copula of draws `(k, L)`: ranks as normal scores; equal values share a rank."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    scores = ndtri((rankdata(draws[:, np.ptp(draws, axis=0) > 0], axis=0) - 0.5) / len(draws))
    off = scores - scores.mean(0)
    found = gaussian_total_correlation(correlations(off.T @ off))
    chance = scores.shape[1] * (scores.shape[1] - 1) / (4 * len(draws))
    return None if found is None else max(0.0, found - chance)


def _density(drawn: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges `(bins + 1,)` about 0, and draws per unit `(L, bins)`. A few far draws do not widen the range."""
    tails = np.quantile(drawn, (0.001, 0.999), axis=0)
    reach = max(REACH, float(abs(tails).max()))
    edges = np.linspace(-reach, reach, bins + 1)
    counts = np.stack([np.histogram(column, edges)[0] for column in drawn.T])
    return edges, counts / (len(drawn) * np.diff(edges))
