"""Latents -> decoded patterns, in stored units where that is possible."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.latents import distances_to_data
from vaearr.run import Run
from vaearr.run.points import encoded_latents
from vaearr.run.statistics import latent_statistics

BATCH_SIZE = 256
DISTANCE, IS_FAR = "distance_to_data", "is_far"


def decoded_latents(
    run: Run, latents: np.ndarray, sizes: Mapping[str, int], long_name: str
) -> xr.Dataset:
    """Decode latents `(k, L[, lz, ly, lx])` over new dims of these sizes, whose product is k.

    Returns `latents (*dims, latent[, lz, ly, lx])` and `decoded (*dims, [channel,] dy, dx)`; of an
    encoded run also `distance_to_data (*dims)` and `is_far (*dims)`, see `Run.traverse`.
    """
    shape = (*sizes.values(), *latents.shape[1:])
    dims = (*sizes, *n.latent_dims(latents.ndim - 1))
    decoded = xr.Dataset({"decoded": decoded_array(run, latents, sizes)}, attrs=run.result_attrs)
    decoded["latents"] = n.named(dims, latents.reshape(shape).astype("f4"), long_name)
    if n.run_name(n.LATENTS, run.name) in run.ds:
        _, samples = encoded_latents(run)
        spread = latent_statistics(run)["aggregate_std"].values
        distances, limit = distances_to_data(latents, samples, spread)
        distances = distances.reshape(tuple(sizes.values()))
        decoded[DISTANCE] = n.named(tuple(sizes), distances, "distance from the nearest sample")
        decoded[IS_FAR] = n.named(tuple(sizes), distances > limit, "far from every sample")
        decoded[IS_FAR].attrs["limit"] = limit
    return decoded.assign_coords({n.LATENT: np.arange(latents.shape[1])})


def decoded_array(run: Run, latents: np.ndarray, sizes: Mapping[str, int]) -> xr.DataArray:
    """Decode latents `(k, L[, lz, ly, lx])` into patterns `(*dims, [channel,] dy, dx)`.

    Patterns are in stored units if the preprocessing treats all patterns the same way. With a
    normalisation or a dynamic background they are in preprocessed units, because no input exists
    whose scale could be restored. The attribute `scale` states which.
    """
    model = run.model
    batches = []
    for batch in torch.from_numpy(np.asarray(latents, np.float32)).split(model.fitting(BATCH_SIZE)):
        decoded = model.decode_batch(batch)
        if not model.preprocess.needs_input:
            decoded = model.preprocess.undo_without_input(decoded)
        batches.append(model.preprocess.enlarged(decoded).cpu().numpy())
    signal = schema.signal_dims(run.ds)
    signal_shape = [run.ds.sizes[dim] for dim in signal]
    values = np.concatenate(batches).reshape(*sizes.values(), *signal_shape)
    coords = {dim: run.ds[dim] for dim in signal if dim in run.ds.coords}
    attrs = {"long_name": "decoded pattern", n.SIGNAL_DIMS: list(signal), **scale_attrs(run)}
    return xr.DataArray(values, coords, (*sizes, *signal), name="decoded", attrs=attrs)


def scale_attrs(run: Run, *, is_stored: bool | None = None) -> dict[str, str]:
    """Units of patterns: stored ones, or 1 if preprocessed; by default those of `decoded_array`."""
    if is_stored is None:
        is_stored = not run.model.preprocess.needs_input
    if is_stored:
        return {"units": str(run.ds[n.PATTERNS].attrs.get("units", "1")), "scale": "stored"}
    return {"units": "1", "scale": "preprocessed"}


@torch.inference_mode()
def comparable_inputs(run: Run, patterns: torch.Tensor) -> torch.Tensor:
    """Stored patterns `(B, C, …)` in the units of `decoded_array`."""
    if not run.model.preprocess.needs_input:
        return patterns.float()
    preprocess = run.model.preprocess
    return preprocess.enlarged(preprocess(patterns.to(run.model.device))).cpu()


def comparable_patterns(run: Run, patterns: xr.DataArray) -> xr.DataArray:
    """Stored patterns in the units of decoded ones, see `Run.as_decoded`."""
    shape = (len(patterns), *schema.input_shape(run.ds))
    inputs = comparable_inputs(run, torch.from_numpy(patterns.values.reshape(shape)))
    return patterns.copy(data=inputs.numpy().reshape(patterns.shape))
