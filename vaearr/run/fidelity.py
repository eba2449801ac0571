"""Fréchet distances between generated samples and data, computed by MONAI."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pandas as pd
import torch
import xarray as xr

from vaearr.errors import DataError, UsageError, did_you_mean, need
from vaearr.models.quality import frechet_distance
from vaearr.run import Run
from vaearr.run.draw import check_source, prior_warnings_of, sampled_latents
from vaearr.run.stream import encode_and_decode, part_map, pattern_batches, subset_map

MIN_SAMPLES = 2048  # with fewer, the Fréchet distance is biased upwards

PARTS_OF_DATA = ("validation", "train", "all")
LONG_NAMES = {
    "frechet": "Fréchet distance of features",
    "n": "samples",
    "n_reference": "samples of the reference",
}

FeatureFunction = Callable[[torch.Tensor], torch.Tensor]


def fidelity(
    run: Run, n_samples: int, source: str, features: FeatureFunction | None, part: str, seed: int
) -> xr.Dataset:
    """Compute the Fréchet distance of generated samples to the data, see `Run.fidelity`."""
    need("monai", "vaearr[monai]", "the Fréchet distance")
    run.check_patterns()
    check_source(run, n_samples, source)
    extract = features or partial(_latent_features, run)
    feature_name = "latents"
    if features is not None:
        feature_name = getattr(features, "__name__", "function")
    if part not in PARTS_OF_DATA:
        raise UsageError(f"there is no part {part!r}.{did_you_mean(part, PARTS_OF_DATA)}")
    masks = {}
    data = {}
    for name in {"train", "validation", part}:
        masks[name] = subset_map(part_map(run, name), n_samples, seed)
        data[name] = _all_features(extract, _preprocessed(run, masks[name]))
    reference = data[part]
    if len(reference) < 2:
        raise DataError(
            f"the {part} part of run {run.name!r} has fewer than two samples; choose another "
            "(--part)."
        )
    latents = sampled_latents(run, n_samples, seed, source)
    decoded = (run.model.decode_batch(torch.from_numpy(batch)) for batch in latents)
    pairs = {
        "draws": (_all_features(extract, decoded), reference),
        "reconstructions": (_all_features(extract, _reconstructed(run, masks[part])), reference),
        "data": (data["train"], data["validation"]),
    }
    table = pd.DataFrame(
        {
            "frechet": [frechet_distance(*pair) for pair in pairs.values()],
            "n": [len(samples) for samples, _ in pairs.values()],
            "n_reference": [len(samples) for _, samples in pairs.values()],
        },
        index=pd.Index(list(pairs), name="compared"),
    )
    result = xr.Dataset.from_dataframe(table)
    for name, long_name in LONG_NAMES.items():
        result[name].attrs["long_name"] = long_name
    return result.assign_attrs(
        **run.result_attrs,
        source=source,
        seed=seed,
        part=part,
        features=feature_name,
        n_features=reference.shape[1],
        warnings=prior_warnings_of(run, source) + _warnings(pairs, feature_name),
    )


def _latent_features(run: Run, samples: torch.Tensor) -> torch.Tensor:
    """Posterior means; of spatial latents the mean and standard deviation of each channel."""
    mean: torch.Tensor = run.model.network.encode(samples)[0]
    if mean.ndim == 2:
        return mean
    flat = mean.flatten(2)
    return torch.cat([flat.mean(2), flat.std(2, correction=0)], 1)


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
def _preprocessed(run: Run, mask: xr.DataArray) -> Iterator[torch.Tensor]:
    for patterns in pattern_batches(run, mask):
        yield run.model.preprocess(patterns)


def _reconstructed(run: Run, mask: xr.DataArray) -> Iterator[torch.Tensor]:
    for patterns in pattern_batches(run, mask):
        yield encode_and_decode(run.model, patterns).decoded


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
            "distances of other runs have another scale. Give features= of an image network to "
            "compare runs."
        )
    return warnings
