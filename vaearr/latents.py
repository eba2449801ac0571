"""Model and store -> labelled latent maps, streamed shard by shard, and back to patterns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.artifacts import TrainedModel, load_folder
from vaearr.batching import read_samples
from vaearr.config import EncodeConfig
from vaearr.device import autocast, pick_device, pick_precision
from vaearr.errors import NoInputError, UsageError
from vaearr.provenance import now, versions
from vaearr.runs import check_fits, data_fingerprint
from vaearr.store import (
    Region,
    VariableSpec,
    check_patterns,
    check_store,
    open_store,
    pending,
    publish_staged,
    recover,
    run_folder,
    run_manifest,
    staged_variables,
    write_block,
)

Values = dict[str, np.ndarray]


def load_model(store: str | Path, run: str = n.DEFAULT_RUN, *, device: str = "cpu") -> TrainedModel:
    """The trained model of a run, with its weights checked; `.encode` and `.decode` take arrays and DataArrays."""
    return load_folder(run_folder(store, run) / n.MODEL, device=pick_device(device))


def encode(
    store: str | Path,
    *,
    run: str | None = None,
    config: EncodeConfig | None = None,
    say: Callable[[str], None] | None = None,
    on_block: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Write `latents`, `latents_std` and `reconstruction_error` of a run into its store; NaN outside the run's ROI.

    Posterior mean and standard deviation, so the same call gives the same numbers. The unit of work is a shard: after
    an interruption the same call goes on where it stopped, and nothing is visible before all is written. A run that is
    encoded already is left as it is. run: replaces the one of `config`. Returns the opened store. Raises NoInputError
    for a run that is not there, DataError for a damaged store or model, UsageError for a model of other data.
    """
    settings = (config or EncodeConfig()).replace(run=run)
    run = settings.run
    tell = say or (lambda text: None)
    path = check_store(store)
    recover(path)
    check_patterns(path)
    manifest = run_manifest(path, run)
    ds = open_store(path, chunks=None)
    wanted = [n.run_name(v, run) for v in (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR)]
    if all(name in ds for name in wanted):
        tell(f"run {run!r} is encoded already: {', '.join(wanted)} are in {store}")
        return open_store(path)
    model = load_model(path, run, device=settings.device)
    check_fits(ds, manifest, model)
    roi = ds[n.run_name(n.ROI, run)].load()
    provenance = {"run": run, "parents": [n.PATTERNS, str(roi.name)], "weights_sha256": manifest["weights_sha256"]}
    request = {**provenance, "config": settings.to_attrs(), "data": data_fingerprint(ds)}
    stamp = {n.PROVENANCE: {**request, "versions": versions(), "time": now()}}
    latent = n.run_name(n.LATENT, run)
    index = np.arange(model.model_config.latent_dim)
    coords = xr.Dataset(coords={latent: (latent, index, n.ATTRS[n.LATENT])})
    with staged_variables(path, _specs(ds, run, stamp), coords=coords, request=request) as staging:
        left = pending(staging)
        if len(left) < len(staging.regions):
            tell(f"going on with an interrupted encode: {len(staging.regions) - len(left)} blocks are done")
        for done, region in enumerate(left, len(staging.regions) - len(left) + 1):
            values = encode_region(model, ds, roi, region, settings)
            write_block(staging, region, {n.run_name(name, run): v for name, v in values.items()})
            if on_block:
                on_block(done, len(staging.regions))
        publish_staged(staging)
    return open_store(path)


def _specs(ds: xr.Dataset, run: str, stamp: dict[str, Any]) -> dict[str, VariableSpec]:
    nav = schema.navigation_dims(ds)
    dims = {n.LATENTS: (*nav, n.run_name(n.LATENT, run)), n.RECONSTRUCTION_ERROR: nav}
    dims[n.LATENTS_STD] = dims[n.LATENTS]
    return {
        n.run_name(name, run): VariableSpec(dims=dims[name], attrs=n.ATTRS[name] | stamp)
        for name in (n.LATENTS, n.LATENTS_STD, n.RECONSTRUCTION_ERROR)
    }


def encode_region(
    model: TrainedModel, ds: xr.Dataset, roi: xr.DataArray, region: Region, config: EncodeConfig
) -> Values:
    """Latents, their standard deviation and the reconstruction error of one block of the grid, NaN outside the ROI."""
    inside = roi.isel(region).values
    latent = model.model_config.latent_dim
    values = {
        n.LATENTS: np.full((*inside.shape, latent), np.nan, np.float32),
        n.LATENTS_STD: np.full((*inside.shape, latent), np.nan, np.float32),
        n.RECONSTRUCTION_ERROR: np.full(inside.shape, np.nan, np.float32),
    }
    if not inside.any():
        return values
    stored = read_samples(ds[n.PATTERNS], region, inside, model.input_shape)
    parts = []
    precision = pick_precision(config.precision, model.device)
    for start in range(0, len(stored), config.batch_size):
        with autocast(model.device, precision):
            parts.append(_encode_batch(model, torch.from_numpy(stored[start : start + config.batch_size])))
    for name, columns in zip(values, zip(*parts, strict=True), strict=True):
        values[name][inside] = torch.cat(columns).cpu().numpy()
    return values


@torch.inference_mode()
def _encode_batch(model: TrainedModel, stored: torch.Tensor) -> tuple[torch.Tensor, ...]:
    seen = model.preprocess(stored.to(model.device))
    mean, logvar = model.network.encode(seen)
    error = (seen - model.network.decode(mean).float()).square().flatten(1).mean(1)
    return mean.float(), (0.5 * logvar.float()).exp(), error


def reconstruct(store: str | Path, *, run: str = n.DEFAULT_RUN, n_samples: int = 8, seed: int = 0) -> xr.Dataset:
    """Patterns as the network sees them and as it decodes them, for scan points spread over the validation part.

    Variables `input` and `reconstruction`, `(sample, [channel,] dy, dx)`, in preprocessed units; the navigation
    coordinates of each sample as coordinates of `sample`. A seeded choice; posterior mean.
    """
    ds = open_store(store, chunks=None)
    manifest = run_manifest(store, run)
    model = load_model(store, run)
    check_fits(ds, manifest, model)
    parts = ds[n.run_name(n.SPLIT, run)].load()
    candidates = np.argwhere(parts.values == n.VALIDATION)
    if not len(candidates):
        candidates = np.argwhere(parts.values == n.TRAIN)
    if not len(candidates):
        raise NoInputError(f"run {run!r} of {store} has no scan point in its split; train it again.")
    if n_samples < 1:
        raise UsageError(f"n_samples is {n_samples}; it must be at least 1.")
    chosen = np.random.default_rng(seed).permutation(len(candidates))[:n_samples]
    points = candidates[np.sort(chosen)]
    index = {dim: xr.DataArray(points[:, i], dims=n.SAMPLE) for i, dim in enumerate(parts.dims)}
    stored = ds[n.PATTERNS].isel(index).transpose(n.SAMPLE, ...).load()
    raw = torch.from_numpy(stored.values.reshape(-1, *model.input_shape))
    mean, _ = model.encode_batch(raw)
    with torch.inference_mode():
        seen = model.preprocess(raw)
    decoded = model.decode_batch(mean)
    coords = {dim: (n.SAMPLE, ds[dim].values[points[:, i]], ds[dim].attrs) for i, dim in enumerate(parts.dims)}
    dims = (n.SAMPLE, *schema.signal_dims(ds))
    return xr.Dataset(
        {
            "input": (dims, seen.numpy().reshape(stored.shape), {"long_name": "pattern as the network sees it"}),
            "reconstruction": (dims, decoded.numpy().reshape(stored.shape), {"long_name": "decoded posterior mean"}),
        },
        coords=coords if n.SAMPLE not in parts.dims else {n.SAMPLE: stored[n.SAMPLE]},
        attrs={"run": run, "weights_sha256": manifest["weights_sha256"], "seed": seed},
    )
