"""Numbers about a run's latents: means, log-variances, KL, the aggregate posterior beside the prior, held-out ELBO."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError
from vaearr.models.quality import ACTIVE_VARIANCE
from vaearr.run import Run, StoreOrRun, load_run
from vaearr.store import write_table

MIN_VARIANCE = 1e-12
FAR_MEAN, FAR_STD = 0.5, (0.5, 1.5)  # of a dimension of the aggregate posterior, in units of the prior


@dataclass
class Sums:
    """Running sums over latent vectors, around a first guess of the mean so that nothing cancels."""

    count: int = 0
    n_samples: int = 0  # with any known row; each position of a spatial latent is a row
    shift: np.ndarray = field(default_factory=lambda: np.zeros(0))
    first: Any = 0.0
    products: Any = 0.0
    low: Any = np.inf
    high: Any = -np.inf
    variance: Any = 0.0
    logvar: Any = 0.0
    logvar_squared: Any = 0.0

    def add(self, mean: np.ndarray, std: np.ndarray | float = 0.0) -> None:
        """Further posteriors, `(k, L)` each; without standard deviations they are points."""
        if not self.count:
            self.shift = mean.mean(0)
        off = mean - self.shift
        self.count += len(mean)
        self.first += off.sum(0)
        self.products += off.T @ off
        self.low, self.high = np.minimum(self.low, mean.min(0)), np.maximum(self.high, mean.max(0))
        variance = np.broadcast_to(np.square(std), mean.shape)
        self.variance += variance.sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            logvar = np.log(variance)
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


def has_posterior(run: Run) -> bool:
    """Whether standard deviations were written beside the latents, as all but attached ones have them."""
    return n.run_name(n.LATENTS_STD, run.name) in run.ds or run.manifest.get("kind") != n.ATTACHED


def posteriors(run: Run) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Means and standard deviations of the known posteriors, shard by shard, `(k, L)` float64 each, and their samples.

    Each position of a spatial latent is a row. Latents that came without standard deviations have 0. Raises
    NoInputError for a run that is not encoded.
    """
    for numbers, *stored in run.latent_blocks(*[n.LATENTS_STD] * has_posterior(run)):
        mean, *std = (np.moveaxis(part, 1, -1).reshape(-1, part.shape[1]).astype("f8") for part in stored)
        known = np.isfinite(mean).all(1)
        yield mean[known], std[0][known] if std else np.zeros_like(mean[known]), len(numbers)


def latent_sums(run: Run) -> Sums:
    """Sums over the posteriors, one shard at a time. Raises NoInputError for a run that is not encoded."""
    sums = Sums()
    for mean, std, n_samples in posteriors(run):
        sums.add(mean, std)
        sums.n_samples += n_samples
    if not sums.count:
        raise NoInputError(f"run {run.name!r} of {run.path} has no point with known latents; encode it again.")
    return sums


def latent_statistics(store: StoreOrRun, run: str = n.DEFAULT_RUN, *, write: bool = False) -> xr.Dataset:
    """Statistics of each latent dimension over the points of the run's region, from what `encode` wrote.

    `mean, std, min, max` of the posterior mean; `logvar_mean, logvar_std` of its log-variance; `kl` (nats, mean over
    points); `is_active` (variance of the mean > 0.01); `aggregate_mean, aggregate_std` of the aggregate posterior, the
    mixture of all posteriors from which a decoder has learned; `aggregate_kl`, KL(N(aggregate) || N(0, 1)) in nats:
    Hoffman & Johnson, "ELBO surgery", 2016, with the mixture taken as the Gaussian of its moments. For an autoencoder
    without posterior `kl` is 0 by definition and the log-variance NaN; of attached latents that came without standard
    deviations all KL are NaN, and means stand for posteriors.

    Of a spatial latent, a dimension is a channel and its values are those of all positions, taken as independent; `kl`,
    `aggregate_kl` are sums over those of a sample (`n_positions` on average; fewer where a mask left some out).

    Attributes: `n`, `n_active`, `kl_total`, `aggregate_kl_total` (of the Gaussian with all covariances),
    `largest_correlation` of the means of two dimensions, `warnings`. write: keep it as table `latent_statistics` of the
    run. Raises NoInputError for a run that is not there or not encoded.
    """
    opened = load_run(store, run)
    found = statistics_of(latent_sums(opened), has_posterior=has_posterior(opened)).assign_attrs(opened.attrs)
    if write:
        write_table(opened.path, opened.name, n.LATENT_STATISTICS, found)
    return found


def statistics_of(sums: Sums, *, has_posterior: bool = True) -> xr.Dataset:
    """The table of `latent_statistics`, from sums."""
    covariance, posterior = sums.covariance, sums.variance / sums.count
    spread, mean = np.maximum(np.diag(covariance), 0), sums.mean
    each, total, active = sums.count / (sums.n_samples or sums.count), spread + posterior, spread > ACTIVE_VARIANCE
    is_deterministic = bool((posterior == 0).all())
    logvar = logvar_std = np.full_like(spread, np.nan)
    kl = np.full_like(spread, 0.0 if has_posterior else np.nan)
    if not is_deterministic:
        logvar = sums.logvar / sums.count
        logvar_std = np.sqrt(np.maximum(sums.logvar_squared / sums.count - logvar**2, 0))
        kl = 0.5 * (total + mean**2 - 1 - logvar)
    with np.errstate(divide="ignore"):
        marginal = 0.5 * (total + mean**2 - 1 - np.log(total)) + 0 * kl
    sign, logdet = np.linalg.slogdet(covariance + np.diag(posterior))
    joint = 0.5 * float((total + mean**2 - 1).sum() - logdet) if sign > 0 else np.inf
    off = np.triu(abs(np.nan_to_num(correlations(covariance[np.ix_(active, active)]))), 1)
    columns = {
        "mean": (mean, "mean of the posterior mean", "1"),
        "std": (np.sqrt(spread), "standard deviation of the posterior mean", "1"),
        "min": (sums.low, "least posterior mean", "1"),
        "max": (sums.high, "largest posterior mean", "1"),
        "logvar_mean": (logvar, "mean of the posterior log-variance", "1"),
        "logvar_std": (logvar_std, "standard deviation of the posterior log-variance", "1"),
        "kl": (each * kl, "KL divergence", "nats"),
        "is_active": (active, f"active unit (variance > {ACTIVE_VARIANCE})", ""),
        "aggregate_mean": (mean, "mean of the aggregate posterior", "1"),
        "aggregate_std": (np.sqrt(total), "standard deviation of the aggregate posterior", "1"),
        "aggregate_kl": (each * marginal, "KL divergence of the aggregate posterior", "nats"),
    }
    found = xr.Dataset(
        {
            name: (n.LATENT, values, {"long_name": text} | ({"units": units} if units else {}))
            for name, (values, text, units) in columns.items()
        },
        coords={n.LATENT: np.arange(len(spread))},
        attrs={
            "n": sums.n_samples,
            "n_positions": each,
            "n_active": int(active.sum()),
            "is_deterministic": is_deterministic,
            "kl_total": float(each * kl.sum()) if has_posterior else None,
            "aggregate_kl_total": float(each * joint) if has_posterior and np.isfinite(joint) else None,
            "largest_correlation": float(off.max(initial=0.0)),
        },
    )
    no_posterior = "The latents came without standard deviations: there is no KL, and means stand for posteriors."
    return found.assign_attrs(warnings=prior_warnings(found) if has_posterior else [no_posterior])


def correlations(covariance: np.ndarray) -> np.ndarray:
    """Correlations of covariances, NaN of a dimension without variance."""
    scale = np.sqrt(np.maximum(np.diag(covariance), 0))
    product = np.outer(scale, scale)
    found = np.divide(covariance, product, out=np.full_like(covariance, np.nan), where=product > 0)
    return np.asarray(np.clip(found, -1, 1))


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


def held_out(store: StoreOrRun, run: str = n.DEFAULT_RUN) -> dict[str, float | int | None]:
    """`elbo` of a run's validation points, nats per sample, with its standard error `elbo_se`, `n` and `n_groups`.

    ELBO of a sample = -D / 2 log(2 pi s2) - D e / (2 s2) - KL, with its D values, its mean squared error e in
    preprocessed units, KL of its posterior from N(0, 1), and s2 the mean of e over the training points: the variance
    that suits them best (Rybkin, Daniilidis, Levine, "Simple and effective VAE training with calibrated decoders", ICML
    2021, section 4, here of the training points, so that nothing is fitted to the validation points).

    Neighbours on a scan are alike, so the standard error takes the blocks of the split, not their points, as
    independent (all points where the split is not by blocks); None for fewer than two of them. Read shard by shard.
    Raises NoInputError for a run that is not encoded or that has no training or no validation points.
    """
    opened = load_run(store, run)
    split, size = opened.own(n.SPLIT).load(), math.prod(opened.model.seen_shape)
    parts, training, found = split.values.ravel(), [np.zeros(0)], [np.zeros((3, 0))]
    for numbers, *stored in opened.latent_blocks(n.LATENTS_STD, n.RECONSTRUCTION_ERROR):
        part = parts[numbers]
        latents, std, error = (values.reshape(len(numbers), -1).astype("f8") for values in stored)
        training.append(error[part == n.TRAIN, 0])
        held = part == n.VALIDATION
        mean, spread = latents[held], np.maximum(std[held], MIN_VARIANCE)
        kl = 0.5 * (mean**2 + spread**2 - 1 - 2 * np.log(spread)).sum(1)
        found.append(np.stack([numbers[held], error[held, 0], kl]))
    own, (held_numbers, errors, kl) = np.concatenate(training), np.concatenate(found, 1)
    if not (len(own) and len(kl)):
        raise NoInputError(
            f"run {run!r} has {len(own)} training and {len(kl)} validation points; train with split.fraction above 0."
        )
    variance = max(float(own.mean()), MIN_VARIANCE)
    elbo = -0.5 * size * (math.log(2 * math.pi * variance) + errors / variance) - kl
    points = np.stack(np.unravel_index(held_numbers.astype(int), split.shape), 1)
    blocks = points // max(int(split.attrs.get("block_used") or 1), 1)
    label = np.unique(blocks, axis=0, return_inverse=True)[1].ravel()
    scored = {"elbo": float(elbo.mean()), "elbo_se": _standard_error(elbo, label), "n": len(elbo)}
    return {**scored, "n_groups": int(label.max()) + 1}


def _standard_error(values: np.ndarray, label: np.ndarray) -> float | None:
    """Of the mean over groups that are drawn together: a ratio of sums (Cochran, Sampling Techniques, 1977, 6.19)."""
    count = int(label.max()) + 1
    if count < 2:
        return None
    sizes = np.bincount(label, minlength=count)
    rest = np.bincount(label, weights=values - values.mean(), minlength=count)
    return float(math.sqrt(count / (count - 1) * float((rest**2).sum())) / sizes.sum())


def score_run(store: StoreOrRun, run: str) -> dict[str, Any]:
    """What a run is compared by: its settings, held-out ELBO, active dimensions, explained variance, epochs."""
    opened = load_run(store, run)
    config, health = opened.config, opened.health.attrs
    return {
        "run": run,
        "latent_dim": opened.manifest.get("latent_dim") or config["model"]["latent_dim"],
        "beta": config["objective"]["beta"],
        "n_roi": opened.manifest["n_roi"],
        **held_out(opened, run),
        "n_active": health["n_active"],
        "kl": health["kl_total"],
        "explained_variance": health["explained_variance"],
        "epochs": opened.manifest.get("epochs_run"),
    }


def recommend(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row with the fewest latent dimensions whose held-out ELBO is within one standard error of the best one's.

    The rule of one standard error (Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", 1984,
    section 3.4.3), with the standard error of the best. Of equal sizes the higher ELBO counts. Where the best has no
    standard error (one validation block) it is the best itself. rows: as of `score_run`, of one region.
    """
    if not rows:
        raise NoInputError("there is no run to recommend.")
    best = max(rows, key=lambda row: row["elbo"])
    close = [row for row in rows if row["elbo"] >= best["elbo"] - (best["elbo_se"] or 0.0)]
    return min(close, key=lambda row: (row["latent_dim"], -row["elbo"]))
