"""Whether the latents of a training can be trusted, and what to do next, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from dask.array.core import slices_from_chunks

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import in_chunks
from vaearr.errors import DataError
from vaearr.models.artifacts import TrainedModel
from vaearr.models.linear import PCA, Samples, fit_pca
from vaearr.models.quality import MIN_SAMPLES
from vaearr.models.signal import Pairs, Patterns, Shares, explained_signal, similar_pairs

MAX_VALUES = 2**23  # preprocessed values of a part that are held: 32 MiB
MAX_SAMPLES = 8192
MAX_COMPONENTS = 128  # which PCA finds in a second or two
MAX_EXACT = 1024  # values per pattern up to which PCA is exact
MIN_PER_COMPONENT = 2  # training patterns
MARGIN = 0.05  # by which a share must be lower than that of PCA to be called lower
OVERFITTED = 0.3  # by which the share of the training patterns exceeds that of other patterns
FALLING = 0.03  # share of the fall of the loss that the last tenth of the epochs brings
COMPLETE = 0.9  # share of the signal from which a loss that still falls does not matter
LOW = 0.5  # share of the signal below which most of it is lost

TEXTS = {  # of each kind of verdict
    n.GOOD: "The latents can be trusted: they explain {found}.",
    "collapsed": "The latents have collapsed: no latent dimension carries information about the "
    "patterns, so latent maps show noise only. Next: {longer}, and if they stay collapsed, use smaller "
    "batches or lower beta.",
    "noisy": "The latents cannot be trusted: noise is nearly all of the patterns' variance. Next: "
    "bin the patterns more (preprocess.bin), or record them with a higher dose.",
    "overfitted": "The model is overfitted: its latents explain {found}, but {training} of that of "
    "the training patterns. Next: widen the region, use fewer latent dimensions or raise beta.",
    "undertrained": "The training is not complete, as the loss still falls: the latents explain "
    "{found}. Next: {longer}.",
    "useless": "The latents cannot be trusted: they explain {found}. Next: {longer}, or check the "
    "preprocessing.",
    "worse": "PCA is better: the latents explain {found}. Next: {longer}, or use more latent "
    "dimensions.",
    "weak": "The latents miss most of the signal: they explain {found}. Next: {longer}, or use "
    "more latent dimensions.",
}


class Part(NamedTuple):
    """Patterns of a part of the split, similar neighbours, and the shares that the model explains."""

    patterns: Patterns
    pairs: Pairs | None
    shares: Shares | None


def add_verdict(
    health: xr.Dataset,
    model: TrainedModel,
    ds: xr.Dataset,
    split: xr.DataArray,
    *,
    seed: int,
    history: xr.Dataset | None = None,
    epochs: int = 0,
    max_samples: int = MAX_SAMPLES,
) -> None:
    """Add the verdict, and what it rests on, to the attributes of a run's health.

    Parameters
    ----------
    health : xarray.Dataset
        Result of `latent_health`.
    model, ds, split, seed, max_samples
        See `measure_signal`.
    history : xarray.Dataset, optional
        History of a training.
    epochs : int
        Its largest number of epochs.
    """
    health.attrs |= measure_signal(model, ds, split, seed, max_samples)
    is_falling = history is not None and still_falls(history, epochs)
    n_latent = health.sizes[n.LATENT]
    health.attrs |= verdict(health.attrs, n_latent, is_falling=is_falling, epochs=epochs)


def measure_signal(
    model: TrainedModel,
    ds: xr.Dataset,
    split: xr.DataArray,
    seed: int,
    max_samples: int = MAX_SAMPLES,
) -> dict[str, Any]:
    """Measure the noise of the patterns, and which share of the signal the model and PCA explain.

    Random chunks of each part are read, at most 2^23 preprocessed values of `max_samples` samples.

    Parameters
    ----------
    model : TrainedModel
        The model.
    ds : xarray.Dataset
        Stored patterns.
    split : xarray.DataArray
        Part of each sample, over the navigation dims.
    seed : int
        Of the choice of chunks.
    max_samples : int
        Of each part.

    Returns
    -------
    dict
        `noise_variance` (preprocessed units) and `noise_share` (of the variance of the patterns);
        `explained_signal` of validation patterns and its standard error `explained_signal_error`;
        `training_signal`, the same of training patterns, in which memorised noise counts as signal:
        None where neighbours or signal are missing. Without neighbours, as in a collection,
        `explained_beyond_mean`: the share of the variance about the mean training sample; None
        where there are neighbours. `explained_signal_pca` and `explained_beyond_mean_pca`: the same
        of as many principal components of `n_pca_samples` training patterns, None of a PCA, and
        where these are too few.
        `measured_on`: "validation", or "training" if there are fewer than 64 validation samples.
    """
    is_training = (split == n.TRAIN).values
    is_validation = (split == n.VALIDATION).values
    samples = Samples(ds, is_training, split.values != n.OUTSIDE, model.preprocess, seed)
    training = _read(model, samples, max_samples)
    measured = training
    if is_validation.sum() >= MIN_SAMPLES or not is_training.any():
        measured = _read(model, samples.at(is_validation), max_samples)
    by_pca = _decoded_by_pca(model, training.patterns, measured.patterns, seed)
    largest = training if training.pairs is not None else measured
    shares = measured.shares
    facts: dict[str, Any] = {
        "explained_signal": shares and shares.signal,
        "explained_signal_error": shares and shares.error,
        "training_signal": _training_signal(model, training),
        "explained_signal_pca": None,
        "explained_beyond_mean": None,
        "explained_beyond_mean_pca": None,
        "n_pca_samples": 0,
        "measured_on": "training" if measured is training else "validation",
    }
    if by_pca is not None:
        facts["n_pca_samples"] = len(training.patterns.points)
    if measured.pairs is None:
        mean_of = training if is_training.any() else measured
        mean_sample = mean_of.patterns.values.flatten(1).mean(0)
        facts |= _shares_beyond_mean(model, measured.patterns, mean_sample, by_pca)
    elif by_pca is not None:
        decoded = by_pca[measured.pairs.samples]
        shares = explained_signal(measured.patterns, measured.pairs, decoded)
        facts["explained_signal_pca"] = shares and shares.signal
    return _noise(largest) | facts


def _shares_beyond_mean(
    model: TrainedModel, patterns: Patterns, mean_sample: torch.Tensor, by_pca: torch.Tensor | None
) -> dict[str, float]:
    """The shares of the variance about the mean sample that the model and PCA explain."""
    facts: dict[str, float] = {}
    if len(patterns.values):
        decoded = _decoded(model, patterns.values).flatten(1)
        facts["explained_beyond_mean"] = _beyond_mean(patterns, decoded, mean_sample)
    if by_pca is not None:
        facts["explained_beyond_mean_pca"] = _beyond_mean(patterns, by_pca, mean_sample)
    return facts


def _read(model: TrainedModel, samples: Samples, max_samples: int) -> Part:
    """Samples of random chunks, so that they have their neighbours, and the shares explained."""
    limit = min(max_samples, MAX_VALUES // samples.n_values)
    points = [np.empty((0, samples.inside.ndim), np.int64)]
    values = [torch.empty((0, *model.preprocess.shape))]
    spreads = [torch.empty(0)]
    for grid_points, stored in samples.at(_in_random_chunks(samples, limit)).stored():
        points.append(grid_points)
        for batch in stored.split(model.fitting(len(stored))):
            batch = batch.to(model.device)
            values.append(model.preprocess(batch).cpu())
            spreads.append(model.preprocess.spread(batch).cpu())
    x = torch.cat(values)
    is_finite = x.flatten(1).isfinite().all(1)
    kept_points = np.concatenate(points)[is_finite.numpy()]
    patterns = Patterns(x[is_finite], torch.cat(spreads)[is_finite], kept_points)
    pairs = similar_pairs(patterns) if schema.is_scan(samples.ds) else None
    if pairs is None:
        return Part(patterns, None, None)
    decoded = _decoded(model, patterns.values[pairs.samples])
    return Part(patterns, pairs, explained_signal(patterns, pairs, decoded))


@torch.inference_mode()
def _decoded(model: TrainedModel, values: torch.Tensor) -> torch.Tensor:
    """What the model decodes of preprocessed patterns."""
    model.eval()
    decoded = []
    for batch in values.split(model.fitting(len(values))):
        mean, _ = model.network.encode(batch.to(model.device))
        decoded.append(model.decode_batch(mean.float()).cpu())
    return torch.cat(decoded)


def _in_random_chunks(samples: Samples, limit: int) -> np.ndarray:
    """At most `limit` of the samples, boolean over the navigation dims."""
    dims = schema.navigation_dims(samples.ds)
    chunks = in_chunks(samples.ds[n.PATTERNS], dims).chunks
    assert chunks is not None
    regions = slices_from_chunks(chunks[: len(dims)])
    chosen = np.zeros_like(samples.inside)
    for i in np.random.default_rng(samples.seed).permutation(len(regions)):
        inside = samples.inside[regions[i]]
        rows = np.flatnonzero(inside)[:limit]
        chosen[regions[i]].flat[rows] = True
        limit -= len(rows)
    return chosen


def _noise(part: Part) -> dict[str, Any]:
    if part.pairs is None:
        return {"noise_variance": None, "noise_share": None}
    noise = float(part.pairs.noise.mean())
    total = float(part.patterns.values.var())
    return {"noise_variance": noise, "noise_share": noise / max(total, 1e-30)}


def _training_signal(model: TrainedModel, training: Part) -> float | None:
    """The share explained of training patterns, of the own or the neighbour's pattern.

    More than 1 if noise is reproduced. What any fit of so few numbers to a pattern reproduces, a
    share n_latent / n_values of its noise, is not counted.
    """
    shares = training.shares
    if shares is None:
        return None
    noise = _noise(training)["noise_share"]
    n_values = math.prod(model.preprocess.shape)
    fitted = 2 * math.prod(model.latent_shape) / n_values * noise / (1 - noise)
    return max(shares.signal, shares.own - fitted)


def _decoded_by_pca(
    model: TrainedModel, training: Patterns, measured: Patterns, seed: int
) -> torch.Tensor | None:
    """Measured patterns decoded from principal components of training patterns, flat."""
    n_components = math.prod(model.latent_shape)
    rows = training.values.flatten(1).numpy()
    is_too_large = n_components > min(MAX_COMPONENTS, rows.shape[1])
    is_too_few = len(rows) < MIN_PER_COMPONENT * n_components
    if isinstance(model.network, PCA) or is_too_large or is_too_few:
        return None
    solver = "randomized" if rows.shape[1] > MAX_EXACT else None
    try:
        pca = fit_pca(rows, n_components, seed, solver=solver)
    except DataError:  # equal patterns
        return None
    scores = pca.transform(measured.values.flatten(1).numpy())
    return torch.from_numpy(pca.inverse_transform(scores)).float()


def _beyond_mean(patterns: Patterns, decoded: torch.Tensor, mean_sample: torch.Tensor) -> float:
    """The share of the variance about the mean sample that decoded patterns explain."""
    values = patterns.values.flatten(1)
    residual = (values - decoded).square().mean()
    variance = (values - mean_sample).square().mean()
    return float(1 - residual / variance.clamp_min(1e-30))


def still_falls(history: xr.Dataset, max_epochs: int) -> bool:
    """Return whether the loss still falls at the end of a training that was not stopped early.

    The last epoch is the best, and the last tenth of the epochs brings at least 3 % of the fall
    since the first epoch.
    """
    losses = history["val_loss" if "val_loss" in history else "loss"].values
    if len(losses) < max_epochs or losses.argmin() < len(losses) - 1:
        return False
    last_tenth = max(1, len(losses) // 10)
    before = losses[max(0, len(losses) - 1 - last_tenth)]
    return bool(before - losses[-1] >= FALLING * (losses[0] - losses[-1]))


def verdict(
    facts: Mapping[str, Any], n_latent: int, *, is_falling: bool = False, epochs: int = 0
) -> dict[str, str]:
    """State whether the latents can be trusted, and otherwise what to do next.

    Parameters
    ----------
    facts : mapping
        Attributes of the health of a run, with those of `measure_signal`.
    n_latent : int
        Number of latent dimensions.
    is_falling : bool
        Whether the loss still fell at the end.
    epochs : int
        Largest number of epochs of the training; 0 for a model without epochs.

    Returns
    -------
    dict
        `verdict_kind`, a key of `TEXTS`, and `verdict`, a sentence, or two with advice.
    """
    kind = _kind(facts, is_falling)
    longer = f"train longer (epochs={2 * epochs})" if epochs else "widen the region"
    training = facts["training_signal"]
    text = TEXTS[kind].format(
        found=_explained_in_words(facts, n_latent),
        longer=longer,
        training="" if training is None else f"{training:.0%}",
    )
    return {"verdict_kind": kind, "verdict": text}


def _kind(facts: Mapping[str, Any], is_falling: bool) -> str:
    has_signal = facts["explained_signal"] is not None
    if not facts["n_active"]:
        return "collapsed"
    if facts["noise_share"] is not None and not has_signal:
        return "noisy"
    training = facts["training_signal"]
    is_measured = has_signal and training is not None
    if is_measured and training - facts["explained_signal"] > OVERFITTED:
        return "overfitted"
    return _kind_by_share(facts, is_falling)


def _kind_by_share(facts: Mapping[str, Any], is_falling: bool) -> str:
    has_signal = facts["explained_signal"] is not None
    share, pca = _compared(facts)
    if is_falling and share < COMPLETE:
        return "undertrained"
    if share <= 0:
        return "useless"
    if pca is not None and share < pca - MARGIN:
        return "worse"
    return "weak" if has_signal and share < LOW else n.GOOD


def _compared(facts: Mapping[str, Any]) -> tuple[float, float | None]:
    """The shares that the latents and PCA explain: of the signal, or beyond the mean sample."""
    if facts["explained_signal"] is None:
        return facts["explained_beyond_mean"] or 0.0, facts["explained_beyond_mean_pca"]
    return facts["explained_signal"], facts["explained_signal_pca"]


def _explained_in_words(facts: Mapping[str, Any], n_latent: int) -> str:
    share, pca = _compared(facts)
    samples = " of the training samples" if facts.get("measured_on") == "training" else ""
    quantity = f"the signal{samples}"
    noise = ""
    if facts["explained_signal"] is None:
        quantity = f"the variance{samples} about the mean sample, noise included"
    else:
        noise = f"; noise is {facts['noise_share']:.0%} of the patterns' variance"
    comparison = ""
    if pca is not None:
        comparison = f" (PCA with {n_latent} components: {_percent(pca)})"
    return f"{_percent(share)} of {quantity}{comparison}{noise}"


def _percent(share: float) -> str:
    return "none" if share <= 0 else f"{share:.0%}"
