"""Whether draws of a run are like its data, and whether they are copies of it: distances with others beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import schema
from vaearr.errors import DataError, UsageError, did_you_mean
from vaearr.names import DEFAULT_RUN
from vaearr.run import Run, StoreOrRun, open_run
from vaearr.run.draw import BATCH, check_draws, draw_latents, draw_warnings
from vaearr.run.stream import PARTS, batches_of, part_map, through

LATENTS, ENCODER, IMAGE = KINDS = ("latents", "encoder", "image")
WHOLE = "whole"
MOST_SLICES = 32
FEW = 2048  # samples below which the Fréchet distance is said to be biased
DRAW, HELD_OUT = "draw", "held_out"
NEAR = 0.05  # quantile of the held-out distances below which a draw counts as near
LEVEL = 0.01

FeatureFunction = Callable[[torch.Tensor], torch.Tensor]
Features = Callable[[torch.Tensor], dict[str, torch.Tensor]]  # of samples (B, C, …): rows of features by axis
Side = tuple[int, dict[str, np.ndarray]]  # a number of samples, and their rows of features by axis


def sample_fidelity(
    store: StoreOrRun,
    run: str = DEFAULT_RUN,
    *,
    n_samples: int = 1000,
    source: str = "prior",
    features: str | FeatureFunction = LATENTS,
    weights: str | Path | None = None,
    part: str = "validation",
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = BATCH,
) -> xr.Dataset:
    """Fréchet distance of draws to data, beside that of reconstructions and of training to validation data.

    All are compared as the network sees them, preprocessed. `frechet (compared)`: draws, and the reconstructions of the
    reference, against the reference, which is the data of `part`; `data`, the floor, is training against validation
    data. `n`, `n_reference`: samples on each side, at most `n_samples`. Draws are those of `sample_prior` with the same
    seed. Attribute `warnings`: what stands against reading the numbers, such as few samples.

    features: latents, posterior means (of spatial ones mean and standard deviation of each channel); encoder, the
    stages of the run's encoder averaged over positions; image, the same of an image network whose `weights` are given
    (alexnet, vgg16 or squeezenet1_1 as torchvision names them), with the reference's values from -1 to 1; or a
    function from preprocessed samples `(B, C, …)` to `(B, d)`. In 2-D image networks volumes go slice by slice:
    `frechet_of_axis (compared, axis)` is that of each axis, `frechet` their mean.

    Raises UsageError for arguments that do not fit, NoInputError for a run that is not there or, with
    `source="fitted"`, not encoded, DataError where a set has fewer than two samples.
    """
    opened = open_run(store, run, device=device)
    check_draws(opened, n_samples, source)
    maps = {name: part_map(opened, name, most=n_samples, seed=seed) for name in dict.fromkeys((*PARTS, part))}
    name, function = features_of(opened, features, weights, maps[part], batch_size)

    def seen(samples: xr.DataArray) -> Iterator[torch.Tensor]:
        return (opened.model.preprocess(stored) for _, stored in batches_of(opened, samples, batch_size))

    def rebuilt(samples: xr.DataArray) -> Iterator[torch.Tensor]:
        return (through(opened.model, stored)[3] for _, stored in batches_of(opened, samples, batch_size))

    drawn = (_decoded(opened, z) for z in draw_latents(opened, n_samples, seed, source, batch_size))
    draws, real = _side(function, drawn), {name: _side(function, seen(chosen)) for name, chosen in maps.items()}
    if real[part][0] < 2:
        raise DataError(f"the {part} part of run {run!r} has fewer than two samples; choose another part (--part).")
    sides = {
        "draws": (draws, real[part]),
        "reconstructions": (_side(function, rebuilt(maps[part])), real[part]),
        "data": (real["train"], real["validation"]),
    }
    table = _table(sides)
    n_features = next(iter(real[part][1].values())).shape[1]
    told = [*draw_warnings(opened, source), *_warnings(name, table, n_features, is_own=features in (LATENTS, ENCODER))]
    about = {"source": source, "seed": seed, "part": part, "features": name, "n_features": n_features}
    return table.assign_attrs(**opened.attrs, **about, warnings=told)


def features_of(
    opened: Run,
    kind: str | FeatureFunction,
    weights: str | Path | None,
    reference: xr.DataArray,
    batch_size: int = BATCH,
) -> tuple[str, Features]:
    """The features that are meant, see `sample_fidelity`, in words and as a function from samples to rows by axis.

    reference: samples whose values an image network sees from -1 to 1. Raises UsageError for features that are not
    there or do not fit the samples, NoInputError or DataError for a file of weights that does not hold them.
    """
    if callable(kind):
        return getattr(kind, "__name__", "own function"), _of_user(kind)
    if kind not in KINDS:
        raise UsageError(f"there are no features {kind!r}.{did_you_mean(kind, list(KINDS))}")
    if (kind == IMAGE) != (weights is not None):
        needed = "need a file of weights" if kind == IMAGE else "have no use for weights; use features='image'"
        raise UsageError(f"features {kind!r} {needed} (--weights FILE --features image).")
    network = opened.model.network
    if kind == LATENTS:
        return LATENTS, lambda x: {WHOLE: _of_latents(network.encode(x)[0])}
    if weights is not None:
        return _image_features(opened, Path(weights), reference, batch_size)
    from vaearr.models.perceptual import EncoderFeatures

    stages = EncoderFeatures(network).to(opened.model.device).eval()
    return ENCODER, lambda x: {WHOLE: _pooled(stages(x))}


def _of_user(function: FeatureFunction) -> Features:
    def features(samples: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = function(samples)
        if rows.ndim != 2 or len(rows) != len(samples):
            raise UsageError(
                f"the features of a batch {tuple(samples.shape)} have shape {tuple(rows.shape)}; expected (B, d)."
            )
        return {WHOLE: rows}

    return features


@torch.inference_mode()
def _image_features(opened: Run, weights: Path, reference: xr.DataArray, batch_size: int) -> tuple[str, Features]:
    """An image network's features; of volumes, of at most `MOST_SLICES` slices along each axis."""
    from vaearr.models.perceptual import read_features

    network = read_features(weights).to(opened.model.device).eval()
    channels, *sides = opened.model.seen_shape
    if channels not in network.n_channels:
        raise UsageError(f"samples have {channels} channels; an image network takes 1 or 3. Use other features.")
    if min(sides) < network.least:
        raise UsageError(f"samples of sides {sides} are too small: {network.name} takes {network.least} or more.")
    low, high = math.inf, -math.inf
    for _, stored in batches_of(opened, reference, batch_size):
        seen = opened.model.preprocess(stored)
        low, high = min(low, float(seen.min())), max(high, float(seen.max()))
    if not low < high:
        raise DataError("all values of the samples are equal; there is nothing for an image network to see.")

    def features(samples: torch.Tensor) -> dict[str, torch.Tensor]:
        scaled = 2 * (samples - low) / (high - low) - 1
        if len(sides) == 2:
            return {WHOLE: _pooled(network(scaled))}
        found = {}
        for k, axis in enumerate(schema.signal_dims(opened.ds)[-3:]):
            count = min(sides[k], MOST_SLICES)
            at = ((torch.arange(count) + 0.5) * sides[k] / count).long().to(scaled.device)
            slices = scaled.index_select(k + 2, at).movedim(k + 2, 1).flatten(0, 1)
            found[axis] = torch.cat([_pooled(network(some)) for some in slices.split(MOST_SLICES)])
        return found

    return f"{network.name} ({weights.name})", features


def _of_latents(mean: torch.Tensor) -> torch.Tensor:
    """Vector latents as they are; of spatial ones mean and standard deviation of each channel, `(B, 2 L)`."""
    flat = mean.flatten(2) if mean.ndim > 2 else None
    return mean if flat is None else torch.cat([flat.mean(2), flat.std(2, correction=0)], 1)


def _pooled(maps: list[torch.Tensor]) -> torch.Tensor:
    """Mean over positions of each map `(B, c, …)`, side by side."""
    return torch.cat([found.flatten(2).mean(2) for found in maps], 1)


def _decoded(opened: Run, z: np.ndarray) -> torch.Tensor:
    return opened.model.decode_batch(torch.from_numpy(z))


@torch.inference_mode()
def _side(features: Features, batches: Iterable[torch.Tensor]) -> Side:
    """Features of many batches; the samples themselves are not kept."""
    count, parts = 0, dict[str, list[np.ndarray]]()
    for samples in batches:
        count += len(samples)
        for axis, rows in features(samples.float()).items():
            parts.setdefault(axis, []).append(rows.float().cpu().numpy())
    return count, {axis: np.concatenate(rows) for axis, rows in parts.items()}


def _table(sides: dict[str, tuple[Side, Side]]) -> xr.Dataset:
    """The distance of both sides of each comparison, NaN where one has fewer than two samples; their numbers."""
    axes = list(sides["draws"][0][1])
    values, counts = np.full((len(sides), len(axes)), np.nan), np.zeros((2, len(sides)), int)
    for i, ((n_first, first), (n_second, second)) in enumerate(sides.values()):
        if min(n_first, n_second) >= 2:
            counts[:, i] = n_first, n_second
            values[i] = [frechet_distance(first[axis], second[axis]) for axis in axes]
    text = "Fréchet distance of features"
    columns = {
        "frechet": ("compared", values.mean(1), {"long_name": text}),
        "n": ("compared", counts[0], {"long_name": "samples"}),
        "n_reference": ("compared", counts[1], {"long_name": "samples of the reference"}),
    }
    table = xr.Dataset(columns, coords={"compared": list(sides)})
    if axes == [WHOLE]:
        return table
    about = {"long_name": f"{text}, slices of an axis"}
    return table.assign(frechet_of_axis=(("compared", "axis"), values, about)).assign_coords(axis=axes)


def _warnings(features: str, table: xr.Dataset, n_features: int, *, is_own: bool) -> list[str]:
    found = []
    fewest = int(min(table["n"][0], table["n_reference"][0]))
    rank = f", no more than the {n_features} features" if fewest <= n_features else ""
    if rank or fewest < FEW:
        found.append(
            f"The Fréchet distance is of {fewest} samples{rank}: it comes out too large. Read it beside the others of "
            "this table alone."
        )
    if not int(table["n"].sel(compared="data")):
        found.append("One part of the split has fewer than two samples, so there is no floor to read the distances by.")
    if is_own:
        found.append(
            f"The features ({features}) are the run's own: they do not see what the model does not, and distances "
            "of other runs are on another scale. Use an image network to compare runs."
        )
    return found


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Fréchet distance of the Gaussians with the moments of two sets of features, `(n, d), (m, d)`; down is better.

    |mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), the squared distance of Dowson & Landau 1982, on
    features as in Heusel et al. 2017 (FID). In float64, with covariances over n - 1. S = R^T R of the centred
    features makes the trace of the root the sum of the singular values of R_a R_b^T: nothing is squared or inverted,
    so it holds for n < d too. Few samples bias it upward.

    Raises UsageError for arrays of other shapes, DataError for values that are not finite or fewer than 2 rows.
    """
    a, b = np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.shape[1]:
        raise UsageError(f"features have shapes {a.shape} and {b.shape}; expected (n, d) and (m, d).")
    if min(len(a), len(b)) < 2:
        raise DataError(f"there are {len(a)} and {len(b)} rows of features; a distance takes 2 or more.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("features hold values that are not finite; leave those samples out.")
    apart, first, second = a.mean(0) - b.mean(0), _root(a), _root(b)
    shared = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    return max(float(apart @ apart + (first**2).sum() + (second**2).sum() - 2 * shared), 0.0)


def _root(rows: np.ndarray) -> np.ndarray:
    """R, `(min(n, d), d)`, with R^T R the covariance of the rows."""
    centred = (rows - rows.mean(0)) / math.sqrt(len(rows) - 1)
    return centred if len(rows) <= rows.shape[1] else np.asarray(np.linalg.qr(centred, mode="r"))


def nearest_training(
    store: StoreOrRun,
    run: str = DEFAULT_RUN,
    *,
    n_samples: int = 1000,
    source: str = "prior",
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = BATCH,
) -> xr.Dataset:
    """Distance of each draw to the nearest training sample, beside that of held-out samples; in latents.

    A draw is decoded and encoded again; distances are Euclidean between posterior means, spatial ones with all their
    positions. Draws are those of `sample_prior` with the same seed; held-out are at most `n_samples` of the validation
    part. `distance (draw)` and `held_out_distance (held_out)`, with coordinates of the nearest training sample
    (`nearest_sample`, or `nearest_y` …) and of the held-out one.

    Attributes: `ratio`, median of the draws over that of held-out samples; `share_near`, share of the draws that lie
    nearer than all but a twentieth of the held-out samples; `p_value`, one-sided Mann-Whitney test that draws lie
    nearer; `conclusion` in words; `warnings`. Draws that are nearer than held-out samples may be copies: the pairs
    have to be looked at, for draws that all lie where the data are dense are near too.

    Raises as `sample_fidelity`, and DataError for a run without training samples.
    """
    opened = open_run(store, run, device=device)
    check_draws(opened, n_samples, source)

    def rows_of(part: str, most: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for points, stored in batches_of(opened, part_map(opened, part, most=most, seed=seed), batch_size):
            yield points, opened.model.encode_batch(stored)[0].flatten(1).cpu().numpy()

    drawn = (_decoded(opened, z) for z in draw_latents(opened, n_samples, seed, source, batch_size))
    with torch.inference_mode():
        queries = [opened.model.network.encode(seen)[0].float().flatten(1).cpu().numpy() for seen in drawn]
    held = list(rows_of("validation", n_samples))
    distances, points = nearest_rows(np.concatenate(queries + [rows for _, rows in held]), rows_of("train", None))
    text = "distance to the nearest training latent"
    table = xr.Dataset(coords={DRAW: np.arange(n_samples)})
    for dim, part, words in ((DRAW, slice(n_samples), "draws"), (HELD_OUT, slice(n_samples, None), "held-out samples")):
        name = "distance" if dim == DRAW else "held_out_distance"
        table[name] = (dim, distances[part], {"long_name": f"{text}, {words}", "units": "1"})
    nav = schema.navigation_dims(opened.ds)
    own = np.concatenate([np.zeros((0, len(nav)), int), *(where for where, _ in held)])
    for i, dim in enumerate(nav):
        values, attrs = opened.ds[dim].values, opened.ds[dim].attrs
        table.coords[f"nearest_{dim}"] = (DRAW, values[points[:n_samples, i]], attrs)
        table.coords[f"held_out_nearest_{dim}"] = (HELD_OUT, values[points[n_samples:, i]], attrs)
        table.coords[f"held_out_{dim}"] = (HELD_OUT, values[own[:, i]], attrs)
    found = _conclusion(distances[:n_samples], distances[n_samples:], is_scan=schema.is_scan(opened.ds))
    return table.assign_attrs(**opened.attrs, source=source, seed=seed, **found)


def nearest_rows(
    queries: np.ndarray, batches: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance `(q,)` of each query `(q, d)` to the nearest of many rows `(k, d)`, and that row's point `(q, p)`.

    batches: points `(k, p)` and rows. Euclidean, in float64; the first of equally near ones. Distances below 1e-8 times
    the length of the rows are rounding. Raises DataError without any row.
    """
    from sklearn.metrics import pairwise_distances_argmin_min

    wanted = np.asarray(queries, np.float64)
    best, points = np.full(len(wanted), np.inf), None
    for where, rows in batches:
        index, distance = pairwise_distances_argmin_min(wanted, np.asarray(rows, np.float64))
        points = np.full((len(wanted), where.shape[1]), -1) if points is None else points
        nearer = distance < best
        best[nearer], points[nearer] = distance[nearer], where[index[nearer]]
    if points is None:
        raise DataError("there is no row to be near to.")
    return best, points


def _conclusion(draws: np.ndarray, held_out: np.ndarray, *, is_scan: bool) -> dict[str, Any]:
    """Numbers and words on two sets of distances."""
    if not len(held_out):
        words = "There are no held-out samples to compare the draws with; look at the nearest pairs."
        return {"ratio": None, "share_near": None, "p_value": None, "conclusion": words, "warnings": []}
    from scipy.stats import mannwhitneyu

    usual, p = float(np.median(held_out)), float(mannwhitneyu(draws, held_out, alternative="less").pvalue)
    words = "Draws do not lie nearer to training samples than held-out samples do: no sign of copies."
    if p < LEVEL:
        words = (
            "Draws lie nearer to training samples than held-out samples do: they may be copies, or all lie where the "
            "data are dense; look at the nearest pairs."
        )
    neighbours = (
        "Held-out points of a scan have neighbours in the training part that look like them, so that copies may "
        "not stand out."
    )
    return {
        "ratio": float(np.median(draws)) / usual if usual else None,
        "share_near": float((draws < np.quantile(held_out, NEAR)).mean()),
        "p_value": p,
        "conclusion": words,
        "warnings": [neighbours] if is_scan else [],
    }
