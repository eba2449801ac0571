"""Numbers about a run's latents: posterior means, log-variances, KL, and the aggregate posterior beside the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError
from vaearr.quality import ACTIVE_VARIANCE
from vaearr.store import check_store, open_store, read_ahead, read_block, run_manifest, shown, store_blocks, write_table

FAR_MEAN, FAR_STD = 0.5, (0.5, 1.5)  # of a dimension of the aggregate posterior, in units of the prior


@dataclass
class Sums:
    """Running sums over latent vectors, around a first guess of the mean so that nothing cancels."""

    count: int = 0
    shift: np.ndarray = field(default_factory=lambda: np.zeros(0))
    first: Any = 0.0
    products: Any = 0.0
    low: Any = np.inf
    high: Any = -np.inf
    variance: Any = 0.0
    logvar: Any = 0.0
    logvar_squared: Any = 0.0
    n_samples: int = 0  # with any known row; each position of a spatial latent is a row

    def add(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Further posteriors, `(k, L)` each."""
        if not self.count:
            self.shift = mean.mean(0)
        off = mean - self.shift
        self.count += len(mean)
        self.first += off.sum(0)
        self.products += off.T @ off
        self.low, self.high = np.minimum(self.low, mean.min(0)), np.maximum(self.high, mean.max(0))
        self.variance += (std**2).sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            logvar = 2 * np.log(std)
        self.logvar += logvar.sum(0)
        self.logvar_squared += (logvar**2).sum(0)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the posterior means, `(L,)`."""
        return np.asarray(self.shift + self.first / self.count)

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the posterior means, `(L, L)`."""
        off = self.first / self.count
        return np.asarray(self.products / self.count - np.outer(off, off))


def latent_sums(path: Path, run: str) -> Sums:
    """Sums over the encoded points of a run, one shard at a time. Raises NoInputError where it is not encoded."""
    manifest = run_manifest(path, run)
    ds = open_store(path, chunks=None)
    names = n.run_name(n.LATENTS, run), n.run_name(n.LATENTS_STD, run)
    if lacking := [name for name in names if name not in ds]:
        named = shown(path)
        hint = "" if manifest.get("kind") == n.ATTACHED else f"; write it with 'vaearr encode {named} --run {run}'"
        raise NoInputError(f"{named} does not hold {', '.join(lacking)} of run {run!r}{hint}.")
    latent, nav = n.run_name(n.LATENT, run), schema.navigation_dims(ds)
    positions = [str(dim) for dim in ds[names[0]].dims if dim not in (*nav, latent)]
    order = (*nav, *positions, latent)
    variables = [ds[name].transpose(*order) for name in names]
    each = math.prod(ds.sizes[dim] for dim in positions)
    sums = Sums()
    for mean, std in read_ahead(lambda region: [read_block(v, region) for v in variables], store_blocks(path)):
        rows = mean.reshape(-1, mean.shape[-1]).astype("f8")
        known = np.isfinite(rows).all(1)
        sums.n_samples += int(known.reshape(-1, each).any(1).sum())
        if known.any():
            sums.add(rows[known], std.reshape(rows.shape)[known].astype("f8"))
    if not sums.count:
        raise NoInputError(f"run {run!r} of {shown(path)} has no point with known latents; encode it again.")
    return sums


def latent_statistics(store: str | Path, run: str = n.DEFAULT_RUN, *, write: bool = False) -> xr.Dataset:
    """Statistics of each latent dimension over the points of the run's region, from what `encode` wrote.

    `mean, std, min, max` of the posterior mean; `logvar_mean, logvar_std` of its log-variance; `kl` (nats, mean over
    points); `is_active` (variance of the mean > 0.01); `aggregate_mean, aggregate_std` of the aggregate posterior, the
    mixture of all posteriors from which a decoder has learned; `aggregate_kl`, KL(N(aggregate) || N(0, 1)) in nats:
    Hoffman & Johnson, "ELBO surgery", 2016, with the mixture taken as the Gaussian of its moments. For an autoencoder
    without posterior `kl` is 0 by definition and the log-variance NaN.

    Of a spatial latent, a dimension is a channel and its values are those of all positions, taken as independent; `kl`,
    `aggregate_kl` are sums over those of a sample (`n_positions` on average; fewer where a mask left some out).

    Attributes: `n`, `n_active`, `kl_total`, `aggregate_kl_total` (of the Gaussian with all covariances),
    `largest_correlation` of the means of two dimensions, `warnings`. write: keep it as table `latent_statistics` of the
    run. Raises NoInputError for a run that is not there or not encoded.
    """
    path = check_store(store)
    sums = latent_sums(path, run)
    manifest = run_manifest(path, run)
    found = _table(sums).assign_attrs(run=run, weights_sha256=manifest.get("weights_sha256"))
    found.attrs["warnings"] = prior_warnings(found)
    if write:
        write_table(path, run, n.LATENT_STATISTICS, found, replace=True)
    return found


def _table(sums: Sums) -> xr.Dataset:
    covariance, posterior = sums.covariance, sums.variance / sums.count
    spread = np.maximum(np.diag(covariance), 0)
    deterministic, each = bool((posterior == 0).all()), sums.count / (sums.n_samples or sums.count)
    total = spread + posterior
    logvar = np.full_like(spread, np.nan) if deterministic else sums.logvar / sums.count
    logvar_std = logvar
    if not deterministic:
        logvar_std = np.sqrt(np.maximum(sums.logvar_squared / sums.count - logvar**2, 0))
    second = spread + sums.mean**2
    kl = np.zeros_like(spread) if deterministic else 0.5 * (second + posterior - 1 - logvar)
    active = spread > ACTIVE_VARIANCE
    with np.errstate(divide="ignore"):
        marginal = 0.5 * (total + sums.mean**2 - 1 - np.log(total))
    full = covariance + np.diag(posterior)
    sign, logdet = np.linalg.slogdet(full)
    joint = 0.5 * (total.sum() + (sums.mean**2).sum() - len(total) - logdet) if sign > 0 else np.inf
    columns = {
        "mean": (sums.mean, "mean of the posterior mean", "1"),
        "std": (np.sqrt(spread), "standard deviation of the posterior mean", "1"),
        "min": (sums.low, "least posterior mean", "1"),
        "max": (sums.high, "largest posterior mean", "1"),
        "logvar_mean": (logvar, "mean of the posterior log-variance", "1"),
        "logvar_std": (logvar_std, "standard deviation of the posterior log-variance", "1"),
        "kl": (each * kl, "KL divergence", "nats"),
        "is_active": (active, f"active unit (variance > {ACTIVE_VARIANCE})", ""),
        "aggregate_mean": (sums.mean, "mean of the aggregate posterior", "1"),
        "aggregate_std": (np.sqrt(total), "standard deviation of the aggregate posterior", "1"),
        "aggregate_kl": (each * marginal, "KL divergence of the aggregate posterior", "nats"),
    }
    return xr.Dataset(
        {
            name: (n.LATENT, values, {"long_name": text} | ({"units": units} if units else {}))
            for name, (values, text, units) in columns.items()
        },
        coords={n.LATENT: np.arange(len(spread))},
        attrs={
            "n": sums.n_samples,
            "n_positions": each,
            "n_active": int(active.sum()),
            "is_deterministic": deterministic,
            "kl_total": float(each * kl.sum()),
            "aggregate_kl_total": float(each * joint) if np.isfinite(joint) else None,
            "largest_correlation": _largest_correlation(covariance, active),
        },
    )


def _largest_correlation(covariance: np.ndarray, active: np.ndarray) -> float:
    """Largest absolute correlation of two active dimensions; 0 where there are not two."""
    part = covariance[np.ix_(active, active)]
    if len(part) < 2:
        return 0.0
    scale = np.sqrt(np.diag(part))
    return float(abs(np.triu(part / np.outer(scale, scale), 1)).max())


def prior_warnings(statistics: xr.Dataset) -> list[str]:
    """Why draws from the prior N(0, 1) would not look like the data; empty when all is well."""
    size = statistics.sizes[n.LATENT]
    if statistics.attrs["is_deterministic"]:
        return ["The model is an autoencoder: it has no prior, so only a fitted distribution can be drawn from."]
    std, mean = statistics["aggregate_std"].values, statistics["aggregate_mean"].values
    warnings = []
    if not statistics.attrs["n_active"]:
        warnings.append(
            f"Posterior collapse: none of the {size} latent dimensions varies over the data, so all draws look alike."
        )
    far = np.flatnonzero((std < FAR_STD[0]) | (std > FAR_STD[1]) | (abs(mean) > FAR_MEAN))
    if len(far):
        listed = ", ".join(map(str, far[:8])) + (" …" if len(far) > 8 else "")
        warnings.append(
            f"The aggregate posterior is far from the prior N(0, 1) in {len(far)} of {size} dimensions ({listed}): "
            "draws from the prior fall where the decoder has seen little; draw from the fitted distribution."
        )
    return warnings
