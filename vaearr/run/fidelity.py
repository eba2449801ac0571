"""How far generated samples are from the data: Fréchet distances, computed by MONAI."""

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

MIN_SAMPLES = 2048  # below, the Fréchet distance is biased upward and a warning says so

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
    parts = {
        name: part_map(run, name, most=n_samples, seed=seed)
        for name in {"train", "validation", part}
    }
    name, extract = _features(run, features, weights, parts[part], batch_size)

    real = {}
    for part_name, chosen in parts.items():
        real[part_name] = _rows(extract, _preprocessed(run, chosen, batch_size))
    reference = real[part]
    if len(reference) < 2:
        raise DataError(
            f"the {part} part of run {run.name!r} has fewer than two samples; choose another (--part)."
        )
    latents = sampled_latents(run, n_samples, seed, source, batch_size)
    generated = _rows(extract, (run.model.decode_batch(torch.from_numpy(z)) for z in latents))
    rebuilt = _rows(extract, _reconstructed(run, parts[part], batch_size))
    pairs = {
        "draws": (generated, reference),
        "reconstructions": (rebuilt, reference),
        "data": (real["train"], real["validation"]),
    }
    text = "Fréchet distance of features"
    columns = {
        "frechet": (
            "compared",
            [frechet_distance(*pair) for pair in pairs.values()],
            {"long_name": text},
        ),
        "n": ("compared", [len(first) for first, _ in pairs.values()], {"long_name": "samples"}),
        "n_reference": (
            "compared",
            [len(second) for _, second in pairs.values()],
            {"long_name": "samples of the reference"},
        ),
    }
    attrs = {
        **run.result_attrs,
        "source": source,
        "seed": seed,
        "part": part,
        "features": name,
        "n_features": reference.shape[1],
        "warnings": prior_warnings_of(run, source) + _warnings(pairs, name),
    }
    return xr.Dataset(columns, coords={"compared": list(pairs)}, attrs=attrs)


def _features(
    run: Run,
    features: FeatureFunction | None,
    weights: str | Path | None,
    reference: xr.DataArray,
    batch_size: int,
) -> tuple[str, FeatureFunction]:
    """Name and function of the features that are asked for."""
    if features is not None and weights is not None:
        raise UsageError(
            "features and weights exclude each other: weights name an image network. Give one of them."
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
    """Features of an image network, which sees the reference's values from -1 to 1."""
    from vaearr.models.perceptual import read_features

    network = read_features(weights).to(run.model.device).eval()
    channels, *sides = run.model.seen_shape
    if len(sides) != 2 or channels not in network.n_channels:
        raise UsageError(
            f"samples have {channels} channels and sides {sides}; an image network takes images with 1 or 3 "
            "channels. Give features=, a function of samples."
        )
    if min(sides) < network.least:
        raise UsageError(
            f"samples of sides {sides} are too small: {network.name} takes {network.least} or more."
        )
    batches = list(_preprocessed(run, reference, batch_size))
    low = min(float(batch.min()) for batch in batches)
    high = max(float(batch.max()) for batch in batches)
    if not low < high:
        raise DataError("all values of the samples are equal; an image network has nothing to see.")

    def pooled(samples: torch.Tensor) -> torch.Tensor:
        maps = network(2 * (samples - low) / (high - low) - 1)
        return torch.cat([layer.flatten(2).mean(2) for layer in maps], 1)

    return f"{network.name} ({weights.name})", pooled


@torch.inference_mode()
def _rows(extract: FeatureFunction, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Features of many batches, `(n, d)`; the samples themselves are not kept."""
    parts = [torch.empty(0, 0)]
    for samples in batches:
        rows = extract(samples.float())
        if rows.ndim != 2 or len(rows) != len(samples):
            raise UsageError(
                f"the features of a batch {tuple(samples.shape)} have shape {tuple(rows.shape)}; expected (B, d)."
            )
        parts.append(rows.float().cpu())
    return torch.cat(parts[1:] or parts)


@torch.inference_mode()
def _preprocessed(run: Run, chosen: xr.DataArray, batch_size: int) -> Iterator[torch.Tensor]:
    for _, stored in batches_of(run, chosen, batch_size):
        yield run.model.preprocess(stored)


def _reconstructed(run: Run, chosen: xr.DataArray, batch_size: int) -> Iterator[torch.Tensor]:
    for _, stored in batches_of(run, chosen, batch_size):
        yield through(run.model, stored)[3]


def _warnings(pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], features: str) -> list[str]:
    found = []
    n_samples, n_features = min(map(len, pairs["draws"])), pairs["draws"][0].shape[1]
    if n_samples < MIN_SAMPLES or n_samples <= n_features:
        found.append(
            f"The Fréchet distance of {n_samples} samples with {n_features} features is too large; compare it only "
            "with the other distances of this table."
        )
    if min(map(len, pairs["data"])) < 2:
        found.append(
            "A part of the split has fewer than two samples, so the distance of data to data is not known."
        )
    if features == "latents":
        found.append(
            "The features are latents of this run: they miss what the model does not see, and distances of other runs "
            "are on another scale. Use an image network (weights=, --weights) to compare runs."
        )
    return found
