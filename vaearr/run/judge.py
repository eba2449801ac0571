"""Whether draws of a run are like its data, and whether they are copies of it: distances with others beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import schema
from vaearr.errors import DataError, UsageError, did_you_mean
from vaearr.names import DEFAULT_RUN
from vaearr.run import Run, open_run
from vaearr.run.draw import BATCH, check_draws, draw_latents, draw_warnings
from vaearr.run.stream import PARTS, batches_of, part_map, through

LATENTS, ENCODER, IMAGE = KINDS = ("latents", "encoder", "image")
OWN = (LATENTS, ENCODER)  # features of the run itself
WHOLE = ("whole",)
MOST_SLICES = 32
COMPARED = ("draws", "reconstructions", "data")
FEW = 2048  # samples below which the Fréchet distance is said to be biased
DRAW, HELD_OUT = "draw", "held_out"
NEAR = 0.05  # quantile of the held-out distances below which a draw counts as near
LEVEL = 0.01

FeatureFunction = Callable[[torch.Tensor], torch.Tensor]
Rows = list[np.ndarray]  # features of a set of samples, an array per axis


def sample_fidelity(
    store: str | Path | Run,
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
    """Fréchet distance of draws to data, beside those of reconstructions and of training to validation data.

    All are compared as the network sees them, preprocessed. `frechet (compared)`: draws, and the reconstructions of the
    reference, against the reference, which is the data of `part`; `data`, the floor, is training against validation
    data. `n`, `n_reference`: samples on each side, at most `n_samples`. Draws are those of `sample_prior` with the same
    seed. Attribute `warnings`: what stands against reading the numbers, such as too few samples; see
    `frechet_distance`.

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
    names = dict.fromkeys((*PARTS, part))
    maps = {name: part_map(opened, name, most=n_samples, seed=seed) for name in names}
    found = features_of(opened, features, None if weights is None else Path(weights), maps[part], batch_size)
    drawn = [found(_decoded(opened, z)) for z in draw_latents(opened, n_samples, seed, source, batch_size)]
    rows = {name: _data_rows(opened, found, chosen, batch_size, rebuilt=name == part) for name, chosen in maps.items()}
    if len(rows[part]) < 2 or len(rows[part][0][0]) < 2 * found.each[0]:
        raise DataError(f"the {part} part of run {run!r} has fewer than two samples; choose another part (--part).")
    real, recon = rows[part]
    sides = {"draws": (_joined(drawn), real), "reconstructions": (recon, real)}
    first, second = rows["train"][:1], rows["validation"][:1]
    if all(sets and len(sets[0][0]) >= 2 * found.each[0] for sets in (first, second)):
        sides["data"] = (first[0], second[0])
    table, n_features = _table(found, sides), int(real[0].shape[1])
    told = [*draw_warnings(opened, source), *_warnings(found, table, n_features, features)]
    about = {"source": source, "seed": seed, "part": part, "features": found.name, "n_features": n_features}
    return table.assign_attrs(**opened.attrs, **about, warnings=told)


@dataclass(frozen=True)
class Features:
    """A function from preprocessed samples `(B, C, …)` to one array of features per axis, `(B * each, d)`.

    axes: `("whole",)`, or the dims along which volumes are cut into slices; each: slices of a sample along each.
    """

    name: str
    function: Callable[[torch.Tensor], list[torch.Tensor]]
    axes: tuple[str, ...] = WHOLE
    each: tuple[int, ...] = (1,)

    @torch.inference_mode()
    def __call__(self, samples: torch.Tensor) -> Rows:
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
    weights: Path | None = None,
    reference: xr.DataArray | None = None,
    batch_size: int = BATCH,
) -> Features:
    """The features that are meant, see `sample_fidelity`; reference: whose values an image network sees from -1 to 1.

    Raises UsageError for features that are not there or do not fit the samples, NoInputError or DataError for a file
    of weights that does not hold them.
    """
    if callable(kind):
        given = kind
        return Features(getattr(kind, "__name__", "own function"), lambda x: [given(x)])
    if kind not in KINDS:
        raise UsageError(f"there are no features {kind!r}.{did_you_mean(kind, list(KINDS))}")
    if (kind == IMAGE) != (weights is not None):
        needed = "need a file of weights" if kind == IMAGE else "have no use for weights; use features='image'"
        raise UsageError(f"features {kind!r} {needed} (--weights FILE --features image).")
    network = opened.model.network
    if kind == LATENTS:
        return Features(LATENTS, lambda x: [_of_latents(network.encode(x)[0])])
    if weights is not None and reference is not None:
        return _image_features(opened, weights, reference, batch_size)
    from vaearr.models.perceptual import EncoderFeatures

    stages = EncoderFeatures(network).to(opened.model.device).eval()
    return Features(ENCODER, lambda x: [_pooled(stages(x))])


def _image_features(opened: Run, weights: Path, reference: xr.DataArray, batch_size: int) -> Features:
    from vaearr.models.perceptual import read_features

    network = read_features(weights).to(opened.model.device).eval()
    channels, *sides = opened.model.input_shape
    if channels not in network.n_channels:
        raise UsageError(f"samples have {channels} channels; an image network takes 1 or 3. Use other features.")
    if min(sides) < network.least:
        raise UsageError(f"samples of sides {sides} are too small: {network.name} takes {network.least} or more.")
    seen = (_seen(opened, stored) for _, stored in batches_of(opened, reference, batch_size))
    spans = np.array([(float(x.min()), float(x.max())) for x in seen]).reshape(-1, 2)
    low, high = float(spans[:, 0].min(initial=np.inf)), float(spans[:, 1].max(initial=-np.inf))
    if not low < high:
        raise DataError("all values of the samples are equal; there is nothing for an image network to see.")

    def planes(x: torch.Tensor) -> torch.Tensor:
        return _pooled(network(2 * (x - low) / (high - low) - 1))

    name = f"{network.name} ({weights.name})"
    if len(sides) == 2:
        return Features(name, lambda x: [planes(x)])
    counts = tuple(min(size, MOST_SLICES) for size in sides)

    def slices(x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for axis, count in enumerate(counts, start=2):
            places = ((torch.arange(count) + 0.5) * x.shape[axis] / count).long().to(x.device)
            flat = x.index_select(axis, places).movedim(axis, 1).flatten(0, 1)
            found.append(torch.cat([planes(part) for part in flat.split(MOST_SLICES)]))
        return found

    return Features(name, slices, schema.signal_dims(opened.ds)[-3:], counts)


def _of_latents(mean: torch.Tensor) -> torch.Tensor:
    """Vector latents as they are; of spatial ones mean and standard deviation of each channel, `(B, 2 L)`."""
    flat = mean.flatten(2) if mean.ndim > 2 else None
    return mean if flat is None else torch.cat([flat.mean(2), flat.std(2, correction=0)], 1)


def _pooled(maps: list[torch.Tensor]) -> torch.Tensor:
    """Mean over positions of each map `(B, c, …)`, side by side."""
    return torch.cat([found.flatten(2).mean(2) for found in maps], 1)


@torch.inference_mode()
def _seen(opened: Run, stored: torch.Tensor) -> torch.Tensor:
    """Stored samples as the network sees them."""
    seen: torch.Tensor = opened.model.preprocess(stored)
    return seen


def _decoded(opened: Run, z: np.ndarray) -> torch.Tensor:
    return opened.model.decode_batch(torch.from_numpy(z))


def _joined(parts: Iterable[Rows]) -> Rows:
    """Features of many batches; the samples themselves are not kept."""
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def _data_rows(opened: Run, features: Features, chosen: xr.DataArray, batch_size: int, *, rebuilt: bool) -> list[Rows]:
    """Features of samples and, if wanted, of their reconstructions; none without a sample."""
    parts = []
    for _, stored in batches_of(opened, chosen, batch_size):
        sets = through(opened.model, stored)[::3] if rebuilt else [_seen(opened, stored)]  # as seen, and decoded
        parts.append([features(samples.float()) for samples in sets])
    return [_joined(rows) for rows in zip(*parts, strict=True)]


def _table(features: Features, sides: dict[str, tuple[Rows, Rows]]) -> xr.Dataset:
    words = "Fréchet distance of features"
    of_axis = xr.DataArray(
        [
            [frechet_distance(*pair) for pair in zip(*sides[name], strict=True)]
            if name in sides
            else [np.nan] * len(features.axes)
            for name in COMPARED
        ],
        {"compared": list(COMPARED), "axis": list(features.axes)},
        attrs={"long_name": f"{words}, slices of an axis"},
    )
    table = of_axis.mean("axis").assign_attrs(long_name=words).to_dataset(name="frechet")
    for i, (name, text) in enumerate({"n": "samples", "n_reference": "samples of the reference"}.items()):
        counts = [len(sides[of][i][0]) // features.each[0] if of in sides else 0 for of in COMPARED]
        table[name] = ("compared", counts, {"long_name": text})
    return table if features.axes == WHOLE else table.assign(frechet_of_axis=of_axis)


def _warnings(features: Features, table: xr.Dataset, n_features: int, asked: str | FeatureFunction) -> list[str]:
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
    if asked in OWN:
        found.append(
            f"The features ({features.name}) are the run's own: they do not see what the model does not, and distances "
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
    a, b = _checked(features_a, features_b, 2)
    apart = a.mean(0) - b.mean(0)
    first, second = _root(a), _root(b)
    shared = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    return max(float(apart @ apart + (first**2).sum() + (second**2).sum() - 2 * shared), 0.0)


def _root(rows: np.ndarray) -> np.ndarray:
    """R, `(min(n, d), d)`, with R^T R the covariance of the rows."""
    centred = (rows - rows.mean(0)) / math.sqrt(len(rows) - 1)
    return centred if len(rows) <= rows.shape[1] else np.asarray(np.linalg.qr(centred, mode="r"))


def _checked(a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not first.shape[1]:
        raise UsageError(f"features have shapes {first.shape} and {second.shape}; expected (n, d) and (m, d).")
    if min(len(first), len(second)) < least:
        raise DataError(f"there are {len(first)} and {len(second)} rows of features; distances take {least} or more.")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DataError("features hold values that are not finite; leave those samples out.")
    return first, second


def nearest_training(
    store: str | Path | Run,
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

    batches: points `(k, p)` and rows. Euclidean, by blocks, in float64; the first of equally near ones. Distances below
    1e-8 times the length of the rows are rounding. Raises DataError without any row.
    """
    wanted, best, points = torch.from_numpy(np.asarray(queries, np.float64)), np.full(len(queries), np.inf), None
    for where, rows in batches:
        found, index = (part.numpy() for part in torch.cdist(wanted, torch.from_numpy(rows).double()).min(1))
        points = np.zeros((len(wanted), where.shape[1]), int) if points is None else points
        nearer = found < best
        best[nearer], points[nearer] = found[nearer], where[index[nearer]]
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
