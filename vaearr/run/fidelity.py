"""Fréchet distances between generated samples and data, computed by MONAI."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import xarray as xr

from vaearr.errors import DataError, UsageError, need
from vaearr.models.quality import frechet_distance
from vaearr.run import Run
from vaearr.run.draw import check_source, prior_warnings_of, sampled_latents
from vaearr.run.stream import batches_of, part_map, through

MIN_SAMPLES = 2048  # with fewer, the Fréchet distance is biased upwards

FeatureFunction = Callable[[torch.Tensor], torch.Tensor]


def fidelity(
    run: Run,
    n_samples: int,
    source: str,
    features: FeatureFunction | None,
    weights: str | Path | None,
    part: str,
    seed: int,
    batch_size: int,
) -> xr.Dataset:
    """Compute the Fréchet distance of generated samples to the data, see `Run.fidelity`."""
    need("monai", "vaearr[monai]", "the Fréchet distance")
    run.check_patterns()
    check_source(run, n_samples, source)
    masks = {}
    for name in {"train", "validation", part}:
        masks[name] = part_map(run, name, max_samples=n_samples, seed=seed)
    feature_name, extract = _features(run, features, weights, masks[part], batch_size)
    data = {}
    for name, mask in masks.items():
        data[name] = _all_features(extract, _preprocessed(run, mask, batch_size))
    reference = data[part]
    if len(reference) < 2:
        raise DataError(
            f"the {part} part of run {run.name!r} has fewer than two samples; choose another "
            "(--part)."
        )
    latents = sampled_latents(run, n_samples, seed, source, batch_size)
    decoded = (run.model.decode_batch(torch.from_numpy(batch)) for batch in latents)
    reconstructed = _reconstructed(run, masks[part], batch_size)
    pairs = {
        "draws": (_all_features(extract, decoded), reference),
        "reconstructions": (_all_features(extract, reconstructed), reference),
        "data": (data["train"], data["validation"]),
    }
    distances = [frechet_distance(*pair) for pair in pairs.values()]
    counts = [len(samples) for samples, _ in pairs.values()]
    reference_counts = [len(samples) for _, samples in pairs.values()]
    dim = "compared"
    return xr.Dataset(
        {
            "frechet": (dim, distances, {"long_name": "Fréchet distance of features"}),
            "n": (dim, counts, {"long_name": "samples"}),
            "n_reference": (dim, reference_counts, {"long_name": "samples of the reference"}),
        },
        coords={dim: list(pairs)},
        attrs={
            **run.result_attrs,
            "source": source,
            "seed": seed,
            "part": part,
            "features": feature_name,
            "n_features": reference.shape[1],
            "warnings": prior_warnings_of(run, source) + _warnings(pairs, feature_name),
        },
    )


def _features(
    run: Run,
    features: FeatureFunction | None,
    weights: str | Path | None,
    reference: xr.DataArray,
    batch_size: int,
) -> tuple[str, FeatureFunction]:
    """Name and function of the requested features."""
    if features is not None and weights is not None:
        raise UsageError(
            "features and weights exclude each other: weights are of an image network. Give one."
        )
    if features is not None:
        return getattr(features, "__name__", "function"), features
    if weights is not None:
        return _image_features(run, Path(weights), reference, batch_size)
    network = run.model.network

    def latents(samples: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = network.encode(samples)[0]
        if mean.ndim == 2:
            return mean
        flat = mean.flatten(2)
        return torch.cat([flat.mean(2), flat.std(2, correction=0)], 1)

    return "latents", latents


@torch.inference_mode()
def _image_features(
    run: Run, weights: Path, reference: xr.DataArray, batch_size: int
) -> tuple[str, FeatureFunction]:
    """Features of an image network, for values scaled to [-1, 1] by the reference samples."""
    from vaearr.models.perceptual import read_features

    network = read_features(weights).to(run.model.device).eval()
    channels, *sides = run.model.preprocess.shape
    if len(sides) != 2 or channels not in network.n_channels:
        raise UsageError(
            f"samples have {channels} channels and sides {sides}; an image network takes images "
            "with 1 or 3 channels. Give features=, a function of samples."
        )
    if min(sides) < network.least:
        raise UsageError(
            f"samples of sides {sides} are too small: {network.name} takes {network.least} or more."
        )
    batches = list(_preprocessed(run, reference, batch_size))
    low = min(float(batch.min()) for batch in batches)
    high = max(float(batch.max()) for batch in batches)
    if not low < high:
        raise DataError(
            "all values of the samples are equal; an image network cannot compare them."
        )

    def pooled(samples: torch.Tensor) -> torch.Tensor:
        maps = network(2 * (samples - low) / (high - low) - 1)
        return torch.cat([layer.flatten(2).mean(2) for layer in maps], 1)

    return f"{network.name} ({weights.name})", pooled


@torch.inference_mode()
def _all_features(extract: FeatureFunction, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Features `(n, d)` of all batches."""
    features = []
    for samples in batches:
        values = extract(samples.float())
        if values.ndim != 2 or len(values) != len(samples):
            raise UsageError(
                f"the features of a batch {tuple(samples.shape)} have shape {tuple(values.shape)}; "
                "expected (B, d)."
            )
        features.append(values.float().cpu())
    return torch.cat(features) if features else torch.empty(0, 0)


@torch.inference_mode()
def _preprocessed(run: Run, mask: xr.DataArray, batch_size: int) -> Iterator[torch.Tensor]:
    for patterns in batches_of(run, mask, batch_size):
        yield run.model.preprocess(patterns)


def _reconstructed(run: Run, mask: xr.DataArray, batch_size: int) -> Iterator[torch.Tensor]:
    for patterns in batches_of(run, mask, batch_size):
        yield through(run.model, patterns).decoded


def _warnings(pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], features: str) -> list[str]:
    """Limits of the distances."""
    warnings = []
    n_samples = min(map(len, pairs["draws"]))
    n_features = pairs["draws"][0].shape[1]
    if n_samples < MIN_SAMPLES or n_samples <= n_features:
        warnings.append(
            f"The Fréchet distance of {n_samples} samples with {n_features} features is too large; "
            "compare it only with the other distances of this table."
        )
    if min(map(len, pairs["data"])) < 2:
        warnings.append(
            "A part of the split has fewer than two samples, so the distance between training and "
            "validation data is not known."
        )
    if features == "latents":
        warnings.append(
            "The features are latents of this run: they miss what the model does not encode, and "
            "distances of other runs have another scale. Use an image network (weights=, "
            "--weights) to compare runs."
        )
    return warnings
