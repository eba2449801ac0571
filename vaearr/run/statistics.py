"""Numbers about a run's latents: means, log-variances, KL, the aggregate posterior beside the
prior, held-out ELBO.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import dask
import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError
from vaearr.models.quality import ACTIVE_VARIANCE
from vaearr.run import Run
from vaearr.store import Region, read_block, store_blocks

MIN_VARIANCE = 1e-12
WORDS = {
    "mean": ("mean of the posterior mean", "1"),
    "std": ("standard deviation of the posterior mean", "1"),
    "min": ("least posterior mean", "1"),
    "max": ("largest posterior mean", "1"),
    "logvar_mean": ("mean of the posterior log-variance", "1"),
    "logvar_std": ("standard deviation of the posterior log-variance", "1"),
    "kl": ("KL divergence", "nats"),
    "is_active": (f"active unit (variance > {ACTIVE_VARIANCE})", "1"),
    "aggregate_mean": ("mean of the aggregate posterior", "1"),
    "aggregate_std": ("standard deviation of the aggregate posterior", "1"),
    "aggregate_kl": ("KL divergence of the aggregate posterior", "nats"),
}
FAR_MEAN, FAR_STD = (
    0.5,
    (0.5, 1.5),
)  # of a dimension of the aggregate posterior, in units of the prior


@dataclass
class Sums:
    """Running sums over latent vectors, around a first guess of the mean so that nothing cancels."""

    count: int = 0
    shift: np.ndarray = field(default_factory=lambda: np.zeros(0))
    first: Any = 0.0
    products: Any = 0.0
    variance: Any = 0.0

    def add(self, mean: np.ndarray, std: np.ndarray | float = 0.0) -> None:
        """Further posteriors, `(k, L)` each; without standard deviations they are points."""
        if not self.count:
            self.shift = mean.mean(0)
        off = mean - self.shift
        self.count += len(mean)
        self.first += off.sum(0)
        self.products += off.T @ off
        self.variance += np.broadcast_to(np.square(std), mean.shape).sum(0)

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
    """Whether standard deviations were written beside the latents, as all but attached ones have
    them.
    """
    return n.run_name(n.LATENTS_STD, run.name) in run.ds or run.manifest.get("kind") != n.ATTACHED


def latent_sums(run: Run) -> Sums:
    """Sums over the known posteriors, one shard at a time; each position of a spatial latent is a
    row.

    Latents that came without standard deviations have 0. Raises NoInputError for a run that is not
    encoded.
    """
    sums = Sums()
    for region in store_blocks(run.path):
        mean = _rows(run, n.LATENTS, region)
        known = np.isfinite(mean).all(1)
        if known.any():
            sums.add(
                mean[known], _rows(run, n.LATENTS_STD, region)[known] if has_posterior(run) else 0.0
            )
    if not sums.count:
        raise NoInputError(
            f"run {run.name!r} of {run.path} has no point with known latents; encode it again."
        )
    return sums


def _rows(run: Run, variable: str, region: Region) -> np.ndarray:
    """Values of one of the run's variables in a region as `(k, L)`, each position of a spatial
    latent a row.
    """
    values = np.moveaxis(
        read_block(run.variable(variable), region), len(schema.navigation_shape(run.ds)), -1
    )
    return values.reshape(-1, values.shape[-1]).astype("f8")


def latent_statistics(run: Run) -> xr.Dataset:
    """Statistics of each latent dimension over the points of the run's region, from what `encode`
    wrote.

    `mean, std, min, max` of the posterior mean; `logvar_mean, logvar_std` of its log-variance; `kl`
    (nats, mean over points); `is_active` (variance of the mean > 0.01); `aggregate_mean,
    aggregate_std` of the aggregate posterior, the mixture of all posteriors from which a decoder
    has learned; `aggregate_kl`, KL(N(aggregate) || N(0, 1)) in nats: Hoffman & Johnson, "ELBO
    surgery", 2016, with the mixture taken as the Gaussian of its moments. For an autoencoder
    without posterior `kl` is 0 by definition and the log-variance NaN; of attached latents that
    came without standard deviations all KL are NaN, and means stand for posteriors.

    Of a spatial latent, a dimension is a channel and its values are those of all positions, taken
    as independent; `kl`, `aggregate_kl` are sums over those of a sample (`n_positions` on average;
    fewer where a mask left some out).

    Attributes: `n`, `n_active`, `kl_total`, `warnings`. Raises NoInputError for a run that is not
    encoded.
    """
    mean = run.latents.rename({n.run_name(n.LATENT, run.name): n.LATENT})
    std = None
    if has_posterior(run):
        std = run.variable(n.LATENTS_STD).rename({n.run_name(n.LATENT, run.name): n.LATENT})
    found = statistics_of(mean, std, schema.navigation_dims(run.ds)).assign_attrs(run.result_attrs)
    if not found.attrs["n"]:
        raise NoInputError(
            f"run {run.name!r} of {run.path} has no point with known latents; encode it again."
        )
    return found


def statistics_of(mean: xr.DataArray, std: xr.DataArray | None, nav: Sequence[str]) -> xr.Dataset:
    """The table of `latent_statistics`, from posterior means and standard deviations over `nav`,
    latent and positions.

    std: None where there are none.
    """
    mean = mean.astype("f8")
    variance = xr.zeros_like(mean) if std is None else std.astype("f8").where(mean.notnull()) ** 2
    every = [str(dim) for dim in mean.dims if dim != n.LATENT]
    known = mean.notnull().all(n.LATENT)
    logvar: Any = np.log(variance.where(variance > 0))
    moments = xr.Dataset(
        {
            "mean": mean.mean(every),
            "std": mean.std(every),
            "min": mean.min(every),
            "max": mean.max(every),
            "variance": variance.mean(every),
            "logvar_mean": logvar.mean(every),
            "logvar_std": logvar.std(every),
            "n_rows": known.sum(),
            "n": known.any([dim for dim in every if dim not in nav]).sum(),
        }
    ).compute()
    n_samples = int(moments["n"])
    n_positions = int(moments["n_rows"]) / max(n_samples, 1)
    spread = moments["std"] ** 2
    total = spread + moments["variance"]
    active = spread > ACTIVE_VARIANCE
    is_deterministic = not bool(moments["variance"].any())
    distance = total + moments["mean"] ** 2 - 1
    if is_deterministic:
        kl = xr.full_like(spread, np.nan if std is None else 0.0)
    else:
        kl = 0.5 * (distance - moments["logvar_mean"])
    with np.errstate(divide="ignore"):
        marginal = 0.5 * (distance - np.log(total)) + 0 * kl
    found = moments.assign(
        kl=n_positions * kl,
        is_active=active,
        aggregate_mean=moments["mean"],
        aggregate_std=np.sqrt(total),
        aggregate_kl=n_positions * marginal,
    )[list(WORDS)]
    for name, (text, units) in WORDS.items():
        found[name].attrs = {"long_name": text, "units": units}
    found = found.assign_coords({n.LATENT: np.arange(spread.size)}).assign_attrs(
        n=n_samples,
        n_positions=n_positions,
        n_active=int(active.sum()),
        is_deterministic=is_deterministic,
        kl_total=None if std is None else float(n_positions * kl.sum()),
    )
    no_posterior = "The latents came without standard deviations: there is no KL, and means stand for posteriors."
    return found.assign_attrs(warnings=[no_posterior] if std is None else prior_warnings(found))


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
        return [
            "The model is an autoencoder: it has no prior, so only a fitted distribution can be drawn from."
        ]
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


def held_out(run: Run) -> dict[str, float | int | None]:
    """`elbo` of a run's validation points, nats per sample, with its standard error `elbo_se`, `n`
    and `n_groups`.

    ELBO of a sample = -D / 2 log(2 pi s2) - D e / (2 s2) - KL, with its D values, its mean squared
    error e in preprocessed units, KL of its posterior from N(0, 1), and s2 the mean of e over the
    training points: the variance that suits them best (Rybkin, Daniilidis, Levine, "Simple and
    effective VAE training with calibrated decoders", ICML 2021, section 4, here of the training
    points, so that nothing is fitted to the validation points).

    Neighbours on a scan are alike, so the standard error takes the blocks of the split, not their
    points, as independent (all points where the split is not by blocks); None for fewer than two of
    them. Raises NoInputError for a run that is not encoded or that has no training or no validation
    points.
    """
    split = run.variable(n.SPLIT).load()
    mean, std = run.latents.astype("f8"), run.variable(n.LATENTS_STD).astype("f8")
    std = std.clip(MIN_VARIANCE)
    within = [dim for dim in mean.dims if dim not in split.dims]
    kl = 0.5 * (mean**2 + std**2 - 1 - 2 * np.log(std)).sum(within, skipna=False)
    kl, error = dask.compute(kl, run.variable(n.RECONSTRUCTION_ERROR).astype("f8"))
    is_known = kl.notnull() & error.notnull()
    training, held = is_known & (split == n.TRAIN), is_known & (split == n.VALIDATION)
    if not (training.any() and held.any()):
        raise NoInputError(
            f"run {run.name!r} has {int(training.sum())} training and {int(held.sum())} validation points; train with "
            "split.fraction above 0."
        )
    variance = max(float(error.where(training).mean()), MIN_VARIANCE)
    size = math.prod(run.model.seen_shape)
    every = -0.5 * size * (math.log(2 * math.pi * variance) + error / variance) - kl
    elbo = every.values[held.values]
    blocks = np.argwhere(held.values) // max(int(split.attrs.get("block_used") or 1), 1)
    label = np.unique(blocks, axis=0, return_inverse=True)[1].ravel()
    scored = {"elbo": float(elbo.mean()), "elbo_se": _standard_error(elbo, label), "n": len(elbo)}
    return {**scored, "n_groups": int(label.max()) + 1}


def _standard_error(values: np.ndarray, label: np.ndarray) -> float | None:
    """Of the mean over groups that are drawn together: a ratio of sums (Cochran, Sampling
    Techniques, 1977, 6.19).
    """
    count = int(label.max()) + 1
    if count < 2:
        return None
    sizes = np.bincount(label, minlength=count)
    rest = np.bincount(label, weights=values - values.mean(), minlength=count)
    return float(math.sqrt(count / (count - 1) * float((rest**2).sum())) / sizes.sum())


def score_run(run: Run) -> dict[str, Any]:
    """What a run is compared by: its settings, held-out ELBO, active dimensions, explained
    variance, epochs.
    """
    config, health = run.config, run.health.attrs
    return {
        "run": run.name,
        "latent_dim": run.manifest.get("latent_dim") or config["model"]["latent_dim"],
        "beta": config["objective"]["beta"],
        "n_roi": run.manifest["n_roi"],
        **held_out(run),
        "n_active": health["n_active"],
        "kl": health["kl_total"],
        "explained_variance": health["explained_variance"],
        "epochs": run.manifest.get("epochs_run"),
    }


def recommend(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row with the fewest latent dimensions whose held-out ELBO is within one standard error of
    the best one's.

    The rule of one standard error (Breiman, Friedman, Olshen, Stone, "Classification and Regression
    Trees", 1984, section 3.4.3), with the standard error of the best. Of equal sizes the higher
    ELBO counts. Where the best has no standard error (one validation block) it is the best itself.
    rows: as of `score_run`, of one region.
    """
    if not rows:
        raise NoInputError("there is no run to recommend.")
    best = max(rows, key=lambda row: row["elbo"])
    close = [row for row in rows if row["elbo"] >= best["elbo"] - (best["elbo_se"] or 0.0)]
    return min(close, key=lambda row: (row["latent_dim"], -row["elbo"]))
