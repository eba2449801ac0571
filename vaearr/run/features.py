"""Samples of a model as features, in which sets of them are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.blocks import Blocks, read_chosen
from vaearr.errors import DataError, UsageError, did_you_mean
from vaearr.run import Run
from vaearr.run.summary import PARTS

LATENTS, ENCODER, IMAGE = "latents", "encoder", "image"
KINDS = (LATENTS, ENCODER, IMAGE)
OWN = (LATENTS, ENCODER)  # features of the run itself
WHOLE = "whole"
MOST_SLICES = 32

FeatureFunction = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Features:
    """A function from preprocessed samples `(B, C, …)` to one array of features per axis, `(B * each, d)`.

    axes: `("whole",)`, or the dims along which volumes are cut into slices; each: slices of a sample along each.
    """

    name: str
    axes: tuple[str, ...]
    each: tuple[int, ...]
    function: Callable[[torch.Tensor], list[torch.Tensor]]

    @torch.inference_mode()
    def __call__(self, samples: torch.Tensor) -> list[np.ndarray]:
        """Raises UsageError for a function of the user's that gives another shape."""
        found = self.function(samples)
        for rows, each in zip(found, self.each, strict=True):
            if rows.ndim != 2 or len(rows) != len(samples) * each:
                raise UsageError(
                    f"the features of a batch {tuple(samples.shape)} have shape {tuple(rows.shape)}; expected (B, d)."
                )
        return [rows.float().cpu().numpy() for rows in found]


def features_of(
    opened: Run,
    kind: str | FeatureFunction,
    *,
    weights: Path | None = None,
    value_range: Callable[[], tuple[float, float]] | None = None,
) -> Features:
    """The features that are meant, see `vaearr.run.judge.sample_fidelity`.

    value_range: gives the values that become -1 and 1 for an image network. Raises UsageError for features that are not
    there or do not fit the samples, NoInputError or DataError for a file of weights that does not hold them.
    """
    if callable(kind):
        given = kind
        return Features(getattr(kind, "__name__", "own function"), (WHOLE,), (1,), lambda x: [given(x)])
    if kind not in KINDS:
        raise UsageError(f"there are no features {kind!r}.{did_you_mean(kind, list(KINDS))}")
    if (kind == IMAGE) != (weights is not None):
        needed = "need a file of weights" if kind == IMAGE else "have no use for weights; use features='image'"
        raise UsageError(f"features {kind!r} {needed} (--weights FILE --features image).")
    network = opened.model.network
    if kind == LATENTS:
        return Features(LATENTS, (WHOLE,), (1,), lambda x: [_of_latents(network.encode(x)[0])])
    if kind == ENCODER:
        from vaearr.models.perceptual import EncoderFeatures

        stages = EncoderFeatures(network).to(opened.model.device).eval()
        return Features(ENCODER, (WHOLE,), (1,), lambda x: [_pooled(stages(x))])
    assert weights is not None
    assert value_range is not None
    return _image_features(opened, weights, value_range)


def _image_features(opened: Run, weights: Path, value_range: Callable[[], tuple[float, float]]) -> Features:
    from vaearr.models.perceptual import read_features

    model, signal = opened.model, schema.signal_dims(opened.ds)
    network = read_features(weights).to(model.device).eval()
    channels, *sides = model.input_shape
    if channels not in network.n_channels:
        raise UsageError(f"samples have {channels} channels; an image network takes 1 or 3. Use other features.")
    if min(sides) < network.least:
        raise UsageError(f"samples of sides {sides} are too small: {network.name} takes {network.least} or more.")
    low, high = value_range()

    def planes(x: torch.Tensor) -> torch.Tensor:
        return _pooled(network(2 * (x - low) / (high - low) - 1))

    name = f"{network.name} ({weights.name})"
    if len(sides) == 2:
        return Features(name, (WHOLE,), (1,), lambda x: [planes(x)])
    counts = tuple(min(size, MOST_SLICES) for size in sides)

    def slices(x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for axis, count in enumerate(counts, start=2):
            places = ((torch.arange(count) + 0.5) * x.shape[axis] / count).long().to(x.device)
            flat = x.index_select(axis, places).movedim(axis, 1).flatten(0, 1)
            found.append(torch.cat([planes(part) for part in flat.split(MOST_SLICES)]))
        return found

    return Features(name, signal[-3:], counts, slices)


def _of_latents(mean: torch.Tensor) -> torch.Tensor:
    """Vector latents as they are; of spatial ones mean and standard deviation of each channel, `(B, 2 L)`."""
    if mean.ndim == 2:
        return mean
    flat = mean.flatten(2)
    return torch.cat([flat.mean(2), flat.std(2, correction=0)], 1)


def _pooled(maps: list[torch.Tensor]) -> torch.Tensor:
    """Mean over positions of each map `(B, c, …)`, side by side."""
    return torch.cat([found.flatten(2).mean(2) for found in maps], 1)


def part_map(opened: Run, part: str, *, most: int | None, seed: int) -> xr.DataArray:
    """Samples of a part of the run's split as a boolean map over the navigation dims, a seeded choice of `most`.

    part: train, validation or all. Raises UsageError for another one.
    """
    known = [*PARTS, "all"]
    if part not in known:
        raise UsageError(f"there is no part {part!r}.{did_you_mean(part, known)}")
    split = opened.ds[n.run_name(n.SPLIT, opened.name)].transpose(*schema.navigation_dims(opened.ds)).load()
    inside = split == PARTS[part] if part in PARTS else split != n.OUTSIDE
    points = np.flatnonzero(inside.values)
    if most is not None and len(points) > most:
        kept = np.zeros(inside.size, bool)
        kept[np.random.default_rng([seed, 1]).permutation(points)[:most]] = True
        inside = inside.copy(data=kept.reshape(inside.shape))
    return inside


def batches_of(opened: Run, chosen: xr.DataArray, batch_size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Chosen points `(k, navigation)`, row-major in each block, and their patterns as stored `(k, C, …)`.

    The next block is read meanwhile. Samples with values that are not finite are left out.
    """
    model, size = opened.model, opened.model.fitting(batch_size)
    blocks = Blocks(opened.ds[n.PATTERNS], schema.navigation_dims(opened.ds))
    for block in read_chosen(blocks, chosen.values, model.input_shape):
        points, stored = block.points, block.stored
        if stored.is_floating_point():
            known = torch.isfinite(stored).flatten(1).all(1)
            points, stored = points[known.numpy()], stored[known]
        for start in range(0, len(points), size):
            yield points[start : start + size], stored[start : start + size].to(model.device)


def preprocessed(opened: Run, stored: torch.Tensor) -> torch.Tensor:
    """Stored samples as the network sees them."""
    with torch.inference_mode():
        seen: torch.Tensor = opened.model.preprocess(stored.to(opened.model.device))
    return seen


def values_of(opened: Run, chosen: xr.DataArray, batch_size: int) -> tuple[float, float]:
    """Least and largest value of preprocessed samples. Raises DataError where all are equal."""
    low, high = np.inf, -np.inf
    for _, stored in batches_of(opened, chosen, batch_size):
        seen = preprocessed(opened, stored)
        low, high = min(low, float(seen.min())), max(high, float(seen.max()))
    if not low < high:
        raise DataError("all values of the samples are equal; there is nothing for an image network to see.")
    return low, high
