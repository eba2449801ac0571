"""A small scan with everything a view can show."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr


@pytest.fixture
def ds() -> xr.Dataset:
    """12 x 9 scan points with band contrast, two elements, phase, latents and a region of interest."""
    rng = np.random.default_rng(0)
    roi = np.zeros((12, 9), bool)
    roi[2:11, 1:7] = True
    latents = rng.normal(size=(12, 9, 3)).astype("f4")
    latents[~roi] = np.nan
    phase = rng.integers(0, 2, (12, 9)).astype("i2")
    phase[0, 0] = -1
    attrs = {"navigation_dims": ["y", "x"], "signal_dims": ["dy", "dx"]}
    return xr.Dataset(
        {
            "patterns": (("y", "x", "dy", "dx"), np.zeros((12, 9, 2, 2), "u1"), attrs),
            "BC": (
                ("y", "x"),
                rng.integers(0, 255, (12, 9)).astype("f4"),
                {"long_name": "band contrast", "units": "1"},
            ),
            "elements": (("element", "y", "x"), rng.random((2, 12, 9)).astype("f4"), {"units": "wt%"}),
            "phase": (
                ("y", "x"),
                phase,
                {"long_name": "phase", "flag_values": [-2, -1, 0, 1], "flag_meanings": "none unknown ni_fcc fe_bcc"},
            ),
            "roi": (("y", "x"), roi),
            "latents": (("y", "x", "latent"), latents),
        },
        coords={
            "y": ("y", np.arange(12) * 0.5, {"units": "um"}),
            "x": ("x", np.arange(9) * 0.5, {"units": "um"}),
            "element": ["Fe", "Ni"],
            "latent": np.arange(3),
        },
    )


@pytest.fixture
def history() -> xr.Dataset:
    """Three epochs."""
    names = ["loss", "val_loss", "reconstruction_nll", "val_reconstruction_nll", "kl", "val_kl"]
    return xr.Dataset({name: ("epoch", [3.0, 2.0, 1.5]) for name in names}, coords={"epoch": [1, 2, 3]})


@pytest.fixture
def health() -> xr.Dataset:
    """Two active latents, one unused."""
    return xr.Dataset(
        {
            "kl": ("latent", [2.0, 1.0, 0.0]),
            "mean_variance": ("latent", [0.9, 0.5, 0.0]),
            "is_active": ("latent", [True, True, False]),
        },
        coords={"latent": [0, 1, 2]},
        attrs={"explained_variance": 0.5, "n_active": 2, "warnings": []},
    )


@pytest.fixture
def samples() -> xr.Dataset:
    """Two patterns and their reconstructions."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 2, 8, 10)).astype("f4")
    return xr.Dataset(
        {"input": (("sample", "dy", "dx"), images[0]), "reconstruction": (("sample", "dy", "dx"), images[1])},
        coords={"x": ("sample", [0.5, 1.5], {"units": "um"}), "y": ("sample", [1.0, 2.0], {"units": "um"})},
    )
