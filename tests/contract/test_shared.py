"""The shared stores are what the other tests take them for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import inputs
from .harness import vaearr, zarr


def test_scan(scan_template: Path) -> None:
    ds = zarr(scan_template)
    assert ds.patterns.dims == ("y", "x", "dy", "dx")
    assert ds.patterns.dtype == "uint8"
    present = np.ones((inputs.NY, inputs.NX), bool)
    present[tuple(zip(*inputs.MISSING, strict=True))] = False
    np.testing.assert_array_equal(ds.present, present)
    np.testing.assert_array_equal(ds.patterns.values[present], inputs.patterns()[present])
    np.testing.assert_allclose(ds.x, inputs.STEP * np.arange(inputs.NX))


def test_trained(trained_template: Path) -> None:
    ds = zarr(trained_template)
    assert ds.latents.dims == ("y", "x", "latent")
    inside = ds.roi.values.astype(bool)
    assert inside.sum() == 20 * inputs.NY - 1  # one of the two missing points lies there
    np.testing.assert_array_equal(np.isfinite(ds.latents.values).all(-1), inside)
    assert "latents_pca" in ds
    assert "grains" in ds
    assert "is intact" in vaearr("verify", trained_template).out


def test_images(images_template: Path) -> None:
    ds = zarr(images_template)
    assert ds.patterns.dims == ("sample", "y", "x")
    assert dict(ds.latents.sizes) == {"sample": 36, "latent": 3}


def test_volumes(volumes_template: Path) -> None:
    ds = zarr(volumes_template)
    assert ds.patterns.dims == ("sample", "z", "y", "x")
    assert ds.latents.ndim == 5
