"""Maps whose clusters are known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

CENTRES = np.array([[-6.0, 0.0, 1.0], [0.0, 5.0, -4.0], [6.0, -5.0, 3.0]])


def blob_maps(ny: int = 18, nx: int = 15, *, seed: int = 0, spread: float = 0.5) -> tuple[xr.DataArray, xr.DataArray]:
    """Latents `(y, x, latent)` around three centres, in stripes of 50, 30 and 20 %, and the true numbers."""
    rng = np.random.default_rng(seed)
    truth = np.searchsorted(np.cumsum([0.5, 0.3, 0.2])[:-1] * ny, np.arange(ny) + 0.5)
    truth = np.repeat(truth[:, None], nx, axis=1)
    values = CENTRES[truth] + rng.normal(0, spread, (ny, nx, 3))
    coords = {"y": np.arange(ny) * 0.5, "x": np.arange(nx) * 0.5}
    latents = xr.DataArray(values, {**coords, "latent": np.arange(3)}, ("y", "x", "latent"), name="latents")
    attrs = {"flag_values": [-1, 0, 1, 2], "flag_meanings": "unknown iron nickel oxide"}
    return latents, xr.DataArray(truth.astype("i2"), coords, ("y", "x"), name="phase", attrs=attrs)


@pytest.fixture
def blobs() -> tuple[xr.DataArray, xr.DataArray]:
    """Latents and truth."""
    return blob_maps()
