"""Whether draws of a run are like its data: distances of distributions, with others beside them to read them by."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from vaearr.errors import DataError
from vaearr.names import DEFAULT_RUN
from vaearr.run import Run, open_run
from vaearr.run.distances import frechet_distance, kernel_distance
from vaearr.run.draw import BATCH, check_draws, draw_latents, draw_warnings
from vaearr.run.features import (
    LATENTS,
    OWN,
    WHOLE,
    FeatureFunction,
    Features,
    batches_of,
    features_of,
    part_map,
    preprocessed,
    values_of,
)
from vaearr.run.memorisation import nearest_lines, nearest_training  # noqa: F401

COMPARED = ("draws", "reconstructions", "data")
FEW = 2048  # samples below which the Fréchet distance is said to be biased
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
    """Fréchet and kernel distance of draws to data, beside those of reconstructions and of training to validation data.

    All are compared as the network sees them, preprocessed. `frechet`, `kernel`, `kernel_error (compared)`: draws, and
    the reconstructions of the reference, against the reference, which is the data of `part`; `data`, the floor, is
    training against validation data. `n`, `n_reference`: samples on each side, at most `n_samples`. Draws are those of
    `sample_prior` with the same seed. The kernel distance is unbiased and the one for few samples; see
    `vaearr.run.distances`. Attribute `warnings`: what stands against reading the numbers.

    features: latents, posterior means (of spatial ones mean and standard deviation of each channel); encoder, the
    stages of the run's encoder averaged over positions; image, the same of an image network whose `weights` are given
    (alexnet, vgg16 or squeezenet1_1 as torchvision names them), with the reference's values from -1 to 1; or a
    function from preprocessed samples `(B, C, …)` to `(B, d)`. In 2-D image networks volumes go slice by slice:
    `frechet_of_axis`, `kernel_of_axis (compared, axis)` are those of each axis, the others their means.

    Raises UsageError for arguments that do not fit, NoInputError for a run that is not there or, with
    `source="fitted"`, not encoded, DataError where a set has fewer than two samples.
    """
    opened = open_run(store, run, device=device)
    check_draws(opened, n_samples, source)
    reference = part_map(opened, part, most=n_samples, seed=seed)
    found = features_of(
        opened,
        features,
        weights=None if weights is None else Path(weights),
        value_range=lambda: values_of(opened, reference, batch_size),
    )
    real, recon = _data_rows(opened, found, reference, batch_size)
    drawn = _collected(
        found, (opened.model.decode_batch(z) for z in draw_latents(opened, n_samples, seed, source, batch_size))
    )
    sides = {"draws": (drawn, real), "reconstructions": (recon, real)}
    if len(real[0]) < 2 * found.each[0]:
        raise DataError(f"the {part} part of run {run!r} has fewer than two samples; choose another part (--part).")
    sides |= _floor(opened, found, real, part=part, n_samples=n_samples, seed=seed, batch_size=batch_size)
    table = _table(found, sides)
    table.attrs = {
        **opened.attrs,
        "source": source,
        "seed": seed,
        "part": part,
        "features": found.name,
        "n_features": int(real[0].shape[1]),
        "warnings": [*draw_warnings(opened, source), *_warnings(found, table, real[0].shape[1], features)],
    }
    return table


def _collected(features: Features, batches: Iterable[torch.Tensor]) -> Rows:
    """Features of many batches; the samples themselves are not kept."""
    parts = [features(batch) for batch in batches]
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def _data_rows(opened: Run, features: Features, chosen: xr.DataArray, batch_size: int) -> tuple[Rows, Rows]:
    """Features of samples, and of their reconstructions."""
    both: tuple[list[Rows], list[Rows]] = ([], [])
    for _, stored in batches_of(opened, chosen, batch_size):
        both[0].append(features(preprocessed(opened, stored)))
        both[1].append(features(opened.model.decode_batch(opened.model.encode_batch(stored)[0])))
    if not both[0]:
        raise DataError(
            f"the part of run {opened.name!r} that is asked for has no sample; choose another one (--part)."
        )
    real, recon = ([np.concatenate(rows) for rows in zip(*parts, strict=True)] for parts in both)
    return real, recon


def _floor(
    opened: Run, features: Features, real: Rows, *, part: str, n_samples: int, seed: int, batch_size: int
) -> dict[str, tuple[Rows, Rows]]:
    """Training and validation data, where there are two samples of each."""
    found = []
    for name in ("train", "validation"):
        if name == part:
            found.append(real)
            continue
        chosen = part_map(opened, name, most=n_samples, seed=seed)
        rows = _collected(features, (preprocessed(opened, raw) for _, raw in batches_of(opened, chosen, batch_size)))
        if not rows or len(rows[0]) < 2 * features.each[0]:
            return {}
        found.append(rows)
    first, second = found if part != "train" else found[::-1]
    return {"data": (first, second)}


def _table(features: Features, sides: dict[str, tuple[Rows, Rows]]) -> xr.Dataset:
    shape = (len(COMPARED), len(features.axes))
    frechet, kernel, error = np.full((3, *shape), np.nan)
    counts = np.zeros((2, len(COMPARED)), int)
    for i, name in enumerate(COMPARED):
        if name not in sides:
            continue
        a, b = sides[name]
        counts[:, i] = len(a[0]) // features.each[0], len(b[0]) // features.each[0]
        for k, each in enumerate(features.each):
            frechet[i, k] = frechet_distance(a[k], b[k])
            kernel[i, k], error[i, k] = kernel_distance(a[k], b[k], each=each, is_paired=name == "reconstructions")
    text = {"frechet": "Fréchet distance of features", "kernel": "kernel distance of features (squared, unbiased)"}
    table = xr.Dataset(
        {
            "frechet": ("compared", frechet.mean(1), {"long_name": text["frechet"]}),
            "kernel": ("compared", kernel.mean(1), {"long_name": text["kernel"], "units": "1"}),
            # one sample has slices along all axes, so that errors of axes are not independent
            "kernel_error": (
                "compared",
                error.mean(1),
                {"long_name": "standard error (an upper limit of several axes')"},
            ),
            "n": ("compared", counts[0], {"long_name": "samples"}),
            "n_reference": ("compared", counts[1], {"long_name": "samples of the reference"}),
        },
        coords={"compared": list(COMPARED)},
    )
    if features.axes != (WHOLE,):
        for name, values in (("frechet", frechet), ("kernel", kernel)):
            table[f"{name}_of_axis"] = (("compared", "axis"), values, {"long_name": f"{text[name]}, slices of an axis"})
        table = table.assign_coords(axis=list(features.axes))
    return table


def _warnings(features: Features, table: xr.Dataset, n_features: int, asked: str | FeatureFunction) -> list[str]:
    found = []
    fewest = int(min(table["n"][0], table["n_reference"][0]))
    rank = f", no more than the {n_features} features" if fewest <= n_features else ""
    if fewest <= n_features or fewest < FEW:
        found.append(
            f"The Fréchet distance is of {fewest} samples{rank}: it comes out too large. Read it beside the others of "
            "this table alone, and trust the kernel distance."
        )
    if not int(table["n"].sel(compared="data")):
        found.append("One part of the split has fewer than two samples, so there is no floor to read the distances by.")
    if asked in OWN:
        found.append(
            f"The features ({features.name}) are the run's own: they do not see what the model does not, and distances "
            "of other runs are on another scale. Use an image network to compare runs."
        )
    return found


def fidelity_lines(found: xr.Dataset) -> list[str]:
    """The table in words and numbers."""
    attrs = found.attrs
    about = {
        "draws": f"draws ({attrs['source']})",
        "reconstructions": "reconstructions",
        "data": "training against validation",
    }
    lines = [
        f"run {attrs['run']!r}, reference: {attrs['part']} data; features: {attrs['features']} ({attrs['n_features']})",
        f"{'':28}{'n':>7}{'against':>9}{'Fréchet':>12}{'kernel':>13} +- error",
    ]
    for name in found["compared"].values:
        row = found.sel(compared=name)
        lines.append(
            f"{about[str(name)]:28}{int(row['n']):>7}{int(row['n_reference']):>9}{float(row['frechet']):>12.5g}"
            f"{float(row['kernel']):>13.4g} +- {float(row['kernel_error']):.2g}"
        )
    for axis in found["axis"].values if "axis" in found.dims else ():
        values = ", ".join(f"{float(v):.5g}" for v in found["frechet_of_axis"].sel(axis=axis))
        lines.append(f"Fréchet of slices along {axis}: {values}")
    return lines
