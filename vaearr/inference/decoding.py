"""A run ready for use, and latents as labelled pictures in the best units that can be had."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.models.preprocess import needs_input, undo_without_input
from vaearr.run import Run

PREPROCESSED = "preprocessed"
BATCH = 256


def decoded_array(opened: Run, z: np.ndarray, dim: str) -> xr.DataArray:
    """Latents `(k, *latent_shape)` decoded: `(dim, [channel,] dy, dx)`.

    In stored units where the preprocessing treats all patterns alike (no normalisation, no dynamic background), else in
    preprocessed ones, because there is no input whose scale could be given back; the attribute `scale` says which.
    """
    model, signal = opened.model, schema.signal_dims(opened.ds)
    config, parts = model.preprocess_config, []
    for some in torch.from_numpy(np.asarray(z, np.float32)).split(model.fitting(BATCH)):
        decoded = model.decode_batch(some)
        if not needs_input(config):
            decoded = undo_without_input(decoded, model.preprocess.background, config)
        parts.append(decoded.cpu().numpy())
    values = np.concatenate(parts).reshape(-1, *(opened.ds.sizes[d] for d in signal))
    return xr.DataArray(
        values,
        dims=(dim, *signal),
        coords={d: opened.ds[d] for d in signal if d in opened.ds.coords},
        name="decoded",
        attrs={"long_name": "decoded pattern", n.SIGNAL_DIMS: list(signal), **scale_attrs(opened)},
    )


def scale_attrs(opened: Run, *, stored: bool | None = None) -> dict[str, str]:
    """Units of pictures: those of the stored patterns, or 1 for preprocessed ones."""
    is_stored = not needs_input(opened.model.preprocess_config) if stored is None else stored
    if is_stored:
        return {"units": str(opened.ds[n.PATTERNS].attrs.get("units", "1")), "scale": "stored"}
    return {"units": "1", "scale": PREPROCESSED}


def seen_batch(opened: Run, raw: torch.Tensor) -> torch.Tensor:
    """Stored patterns `(B, C, …)` in the units of `decoded_array`."""
    if not needs_input(opened.model.preprocess_config):
        return raw.float()
    with torch.inference_mode():
        seen: torch.Tensor = opened.model.preprocess(raw.to(opened.model.device))
    return seen.cpu()
