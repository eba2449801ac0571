"""Statistics of the latents of a run, and its held-out ELBO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError
from vaearr.models.quality import ACTIVE_VARIANCE
from vaearr.run import Run
from vaearr.run.step import current_table, step_recipe, store_result
from vaearr.store import read_block

MIN_VARIANCE = 1e-12
LONG_NAMES = {
    "mean": "mean of the posterior mean",
    "std": "standard deviation of the posterior mean",
    "min": "smallest posterior mean",
    "max": "largest posterior mean",
    "logvar_mean": "mean of the posterior log-variance",
    "logvar_std": "standard deviation of the posterior log-variance",
    "kl": "KL divergence",
    "is_active": f"active unit (variance > {ACTIVE_VARIANCE})",
    "aggregate_mean": "mean of the aggregate posterior",
    "aggregate_std": "standard deviation of the aggregate posterior",
    "aggregate_kl": "KL divergence of the aggregate posterior",
}
IN_NATS = {"kl", "aggregate_kl"}
# a dimension of the aggregate posterior beyond these is far from the prior
MAX_MEAN, MIN_STD, MAX_STD = 0.5, 0.5, 1.5
MAX_LISTED = 8
NO_STD = "The latents have no standard deviations: there is no KL, and means are used alone."


def stored_statistics(run: Run) -> xr.Dataset:
    """The stored statistics of the latents; computed and stored if the latents are new."""
    stored = current_table(run, n.LATENT_STATISTICS)
    if stored is not None:
        return stored
    statistics = latent_statistics(run)
    names = [n.run_name(name, run.name) for name in (n.LATENTS, n.LATENTS_STD)]
    statistics.attrs[n.PROVENANCE] = step_recipe(run, None, names).stamp()
    store_result(run, tables={n.LATENT_STATISTICS: statistics})
    return statistics


def latent_statistics(run: Run) -> xr.Dataset:
    """Compute statistics of each latent dimension over the encoded samples.

    `mean, std, min, max` of the posterior mean; `logvar_mean, logvar_std` of its log-variance; `kl`
    (nats, mean over samples); `is_active` (variance of the mean > 0.01); `aggregate_mean,
    aggregate_std` of the aggregate posterior, the mixture of all posteriors; `aggregate_kl`,
    KL(N(aggregate) || N(0, 1)) in nats: Hoffman & Johnson, "ELBO surgery", 2016, with the mixture
    replaced by the Gaussian of its moments. For an autoencoder `kl` is 0 by definition and the
    log-variance NaN. For attached latents without standard deviations all KL are NaN.

    A dimension of a spatial latent is a channel. Its values are those of all positions, taken as
    independent; `kl` and `aggregate_kl` are sums over the positions of a sample (`n_positions` on
    average).

    Parameters
    ----------
    run : Run
        An encoded run.

    Returns
    -------
    xarray.Dataset
        The statistics over ``latent``, with attributes ``n``, ``n_active``, ``kl_total`` and
        ``warnings``.

    Raises
    ------
    NoInputError
        If the run is not encoded.
    """
    names = {n.run_name(n.LATENT, run.name): n.LATENT}
    std = None
    if has_posterior(run):
        std = run.variable(n.LATENTS_STD).rename(names)
    statistics = statistics_of(run.latents.rename(names), std, schema.navigation_dims(run.ds))
    if not statistics.attrs["n"]:
        raise _no_latents(run)
    return statistics.assign_attrs(run.result_attrs)


def strongest_dimensions(run: Run) -> list[int]:
    """Latent dimensions by decreasing KL, or by decreasing spread of the means without a KL.

    In their order if the run is not encoded.
    """
    if n.run_name(n.LATENTS, run.name) not in run.ds:
        return list(range(run.model.latent_shape[0]))
    statistics = latent_statistics(run)
    strength = statistics["kl"].values
    if not np.nansum(strength) > 0:
        strength = statistics["std"].values
    return np.argsort(-strength, kind="stable").tolist()


def statistics_of(
    mean: xr.DataArray, std: xr.DataArray | None, navigation: Sequence[str]
) -> xr.Dataset:
    """The table of `latent_statistics`, from posterior means and standard deviations, if any."""
    mean = mean.astype("f8")
    variance = xr.zeros_like(mean)
    if std is not None:
        variance = std.astype("f8").where(mean.notnull()) ** 2
    dims = [str(dim) for dim in mean.dims if dim != n.LATENT]
    positions = [dim for dim in dims if dim not in navigation]
    is_known = mean.notnull().all(n.LATENT)
    logvar: Any = np.log(variance.where(variance > 0))
    moments = xr.Dataset(
        {
            "mean": mean.mean(dims),
            "std": mean.std(dims),
            "min": mean.min(dims),
            "max": mean.max(dims),
            "variance": variance.mean(dims),
            "logvar_mean": logvar.mean(dims),
            "logvar_std": logvar.std(dims),
            "n_values": is_known.sum(),
            "n": is_known.any(positions).sum(),
        }
    ).compute()
    n_samples = int(moments["n"])
    n_positions = int(moments["n_values"]) / max(n_samples, 1)
    spread = moments["std"] ** 2
    total = spread + moments["variance"]
    is_deterministic = not bool(moments["variance"].any())
    distance = total + moments["mean"] ** 2 - 1
    kl = 0.5 * (distance - moments["logvar_mean"])
    if is_deterministic:
        kl = xr.full_like(spread, np.nan if std is None else 0.0)
    with np.errstate(divide="ignore"):
        aggregate_kl = 0.5 * (distance - np.log(total)) + 0 * kl
    table = moments.assign(
        kl=n_positions * kl,
        is_active=spread > ACTIVE_VARIANCE,
        aggregate_mean=moments["mean"],
        aggregate_std=np.sqrt(total),
        aggregate_kl=n_positions * aggregate_kl,
    )[list(LONG_NAMES)]
    for name, long_name in LONG_NAMES.items():
        units = "nats" if name in IN_NATS else "1"
        table[name].attrs = {"long_name": long_name, "units": units}
    table[n.LATENT] = np.arange(spread.size)
    table.attrs = {
        "n": n_samples,
        "n_positions": n_positions,
        "n_active": int(table["is_active"].sum()),
        "is_deterministic": is_deterministic,
        "kl_total": None if std is None else float(table["kl"].sum()),
        "warnings": [NO_STD],
    }
    if std is not None:
        table.attrs["warnings"] = prior_warnings(table)
    return table


def prior_warnings(statistics: xr.Dataset) -> list[str]:
    """Reasons why samples of the prior N(0, 1) would not resemble the data."""
    if statistics.attrs["is_deterministic"]:
        return [
            "The model is an autoencoder: it has no prior, so only a fitted one can be sampled."
        ]
    size = statistics.sizes[n.LATENT]
    std = statistics["aggregate_std"].values
    mean = statistics["aggregate_mean"].values
    warnings = []
    if not statistics.attrs["n_active"]:
        warnings.append(
            f"Posterior collapse: none of the {size} latent dimensions varies over the data, so "
            "all samples are similar."
        )
    far = np.flatnonzero((std < MIN_STD) | (std > MAX_STD) | (abs(mean) > MAX_MEAN))
    if len(far):
        dims = ", ".join(map(str, far[:MAX_LISTED]))
        if len(far) > MAX_LISTED:
            dims += " …"
        warnings.append(
            f"The aggregate posterior is far from the prior N(0, 1) in {len(far)} of {size} "
            f"dimensions ({dims}): samples of the prior lie where the decoder was not "
            "trained; use the fitted distribution (source='fitted', --source fitted)."
        )
    return warnings


def aggregate_posterior(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Mean `(L,)` and covariance `(L, L)` of the aggregate posterior over the encoded samples.

    Each position of a spatial latent counts as a sample. Raises NoInputError for a run that is not
    encoded.
    """
    mean = _vectors(run, n.LATENTS)
    is_known = np.isfinite(mean).all(1)
    if not is_known.any():
        raise _no_latents(run)
    mean = mean[is_known]
    covariance = np.atleast_2d(np.cov(mean, rowvar=False, bias=True))
    if has_posterior(run):
        std = _vectors(run, n.LATENTS_STD)[is_known]
        covariance = covariance + np.diag(np.square(std).mean(0))
    return mean.mean(0), covariance


def has_posterior(run: Run) -> bool:
    """Whether standard deviations are stored; attached latents may have none."""
    return n.run_name(n.LATENTS_STD, run.name) in run.ds


def _vectors(run: Run, variable: str) -> np.ndarray:
    """Values `(k, L)` of a variable of the run, one row for each position."""
    n_navigation = len(schema.navigation_dims(run.ds))
    values = np.moveaxis(read_block(run.variable(variable), {}), n_navigation, -1)
    return values.reshape(-1, values.shape[-1]).astype("f8")


def _no_latents(run: Run) -> NoInputError:
    return NoInputError(
        f"run {run.name!r} of {run.path} has no point with known latents; encode it again."
    )


def held_out(run: Run) -> dict[str, float | int | None]:
    """Compute the held-out ELBO of a run.

    ELBO of a sample = -D / 2 log(2 pi s2) - D e / (2 s2) - KL, with its D values, its mean squared
    error e in preprocessed units, the KL of its posterior from N(0, 1), and s2 the mean of e over
    the training samples: the best variance (Rybkin, Daniilidis, Levine, "Simple and effective VAE
    training with calibrated decoders", ICML 2021, section 4, here of the training samples, so that
    nothing is fitted to the validation samples).

    Neighbours on a scan are similar, so the blocks of the split count as independent, not their
    points (all points if the split is not by blocks).

    Parameters
    ----------
    run : Run
        An encoded run with training and validation samples.

    Returns
    -------
    dict
        ``elbo`` (nats per sample), its standard error ``elbo_se`` (None for fewer than two blocks),
        and the numbers of validation samples ``n`` and of blocks ``n_groups``.

    Raises
    ------
    NoInputError
        If the run is not encoded, or has no training or validation samples.
    """
    split = run.variable(n.SPLIT).load()
    mean = run.latents.astype("f8")
    std = run.variable(n.LATENTS_STD).astype("f8").clip(MIN_VARIANCE)
    latent_dims = [dim for dim in mean.dims if dim not in split.dims]
    kl = 0.5 * (mean**2 + std**2 - 1 - 2 * np.log(std)).sum(latent_dims, skipna=False)
    kl, error = dask.compute(kl, run.variable(n.RECONSTRUCTION_ERROR).astype("f8"))
    is_known = kl.notnull() & error.notnull()
    is_training = is_known & (split == n.TRAIN)
    is_validation = is_known & (split == n.VALIDATION)
    if not (is_training.any() and is_validation.any()):
        counts = f"{int(is_training.sum())} training and {int(is_validation.sum())} validation"
        raise NoInputError(
            f"run {run.name!r} has {counts} points; train with split.fraction above 0."
        )
    variance = max(float(error.where(is_training).mean()), MIN_VARIANCE)
    size = math.prod(run.model.preprocess.shape)
    log_likelihood = -0.5 * size * (math.log(2 * math.pi * variance) + error / variance)
    elbo = (log_likelihood - kl).values[is_validation.values]
    side = max(int(split.attrs.get("block_used") or 1), 1)
    blocks = np.argwhere(is_validation.values) // side
    groups = np.unique(blocks, axis=0, return_inverse=True)[1].ravel()
    return {
        "elbo": float(elbo.mean()),
        "elbo_se": _standard_error(elbo, groups),
        "n": len(elbo),
        "n_groups": int(groups.max()) + 1,
    }


def _standard_error(values: np.ndarray, groups: np.ndarray) -> float | None:
    """Standard error of the mean over groups (Cochran, Sampling Techniques, 1977, 6.19)."""
    count = int(groups.max()) + 1
    if count < 2:
        return None
    offsets = np.bincount(groups, weights=values - values.mean(), minlength=count)
    return math.sqrt(count / (count - 1) * float((offsets**2).sum())) / len(values)


def score_run(run: Run) -> dict[str, Any]:
    """Collect settings and scores by which runs are compared.

    Parameters
    ----------
    run : Run
        An encoded run with training and validation samples.

    Returns
    -------
    dict
        Name, latent size, beta and samples of the run; the numbers of `held_out`; active
        dimensions, KL (nats), explained variance and epochs.

    Raises
    ------
    NoInputError
        If the run is not encoded, or has no training or validation samples.
    """
    config = run.config
    health = run.health.attrs
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


def recommend(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Choose the fewest latent dimensions within one standard error of the best ELBO.

    Among equal sizes the higher ELBO counts.

    Parameters
    ----------
    scores : sequence of dict
        Results of `score_run`.

    Returns
    -------
    dict
        One of `scores`.

    Raises
    ------
    NoInputError
        If there is none.

    References
    ----------
    Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", 1984, section 3.4.3.
    """
    if not scores:
        raise NoInputError("there is no run to recommend.")
    best = max(scores, key=lambda score: score["elbo"])
    least = best["elbo"] - (best["elbo_se"] or 0.0)
    close = [score for score in scores if score["elbo"] >= least]
    return min(close, key=lambda score: (score["latent_dim"], -score["elbo"]))
