"""Large samples window by window; draws of z and a cap on the points of an encoding."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from . import inputs
from .harness import EXISTS, HAS_MONAI, MONAI, UNAVAILABLE, USAGE, sets, vaearr, zarr

SPATIAL = sets(
    "model.name=autoencoder-kl",
    'model.options={"channels": [16, 32, 32], "groups": 8, "mid_attention": false}',
    *("model.latent_dim=4", "objective.beta=0.001", "precision=float32", "device=cpu", "seed=1"),
)


def texture(folder: Path) -> Path:
    """Images of 96 x 96 pixels with smooth random structures."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(16):
        spectrum = np.fft.rfft2(rng.normal(size=(96, 96)))
        y, x = np.meshgrid(np.fft.fftfreq(96), np.fft.rfftfreq(96), indexing="ij")
        image = np.fft.irfft2(spectrum * np.exp(-400 * (x**2 + y**2)))
        image = 128 + 40 * image / image.std()
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
    return folder


@pytest.mark.skipif(not HAS_MONAI, reason=MONAI)
def test_latents_by_windows_are_those_of_the_whole_away_from_borders(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    vaearr("ingest", texture(tmp_path / "set"), store)
    vaearr("train", store, "--epochs", 8, "--set", "batch_size=4", *SPATIAL)
    vaearr("encode", store)
    whole = zarr(store).latents.values
    inner = (..., slice(3, -3), slice(3, -3))
    for window, overlap in (("48x48", 0.5), ("32x32", 0.25)):
        told = vaearr("encode", store, "--window", window, "--overlap", overlap, "--overwrite")
        pieces = zarr(store).latents.values
        r = np.corrcoef(whole[inner].ravel(), pieces[inner].ravel())[0, 1]
        [reported] = re.findall(r"of an undivided sample of 96 x 96 px by r = (\d\.\d+)", told.err)
        assert abs(float(reported) - r) < 0.005
        assert float(reported) >= 0.99 or "warning" in told.err
    assert (
        "multiples" in vaearr("encode", store, "--window", "30x30", "--overwrite", code=USAGE).error
    )


def test_windows_need_monai(
    trained_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = shutil.copytree(trained_template, tmp_path / "a.zarr")
    monkeypatch.setattr("vaearr.errors.find_spec", lambda package: None)
    for command in (("encode", store, "--overwrite"), ("reconstruct", store, "--name", "windows")):
        error = vaearr(*command, "--window", "8x8", code=UNAVAILABLE).error
        assert 'pip install "vaearr[monai]"' in error


def test_draws_are_stored_with_their_seed(trained_template: Path, tmp_path: Path) -> None:
    store = shutil.copytree(trained_template, tmp_path / "a.zarr")
    vaearr("encode", store, "--draws", 200, "--seed", 5, code=EXISTS)
    vaearr("encode", store, "--draws", 200, "--seed", 5, "--overwrite")
    ds = zarr(store)
    z = ds.z_draws.values
    assert ds.z_draws.dims == ("y", "x", "draw", "latent")
    assert ds.z_draws.attrs["seed"] == 5
    inside = ds.roi.values.astype(bool)
    assert np.isnan(z[~inside]).all()
    normal = (z[inside] - ds.latents.values[inside][:, None]) / ds.latents_std.values[inside][
        :, None
    ]
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert "already" in vaearr("encode", store, "--draws", 200, "--seed", 5).err
    again = shutil.copytree(trained_template, tmp_path / "b.zarr")
    vaearr("encode", again, "--draws", 2, "--seed", 5, "--batch-size", 7, "--overwrite")
    np.testing.assert_allclose(zarr(again).z_draws, z[:, :, :2], atol=1e-5)
    vaearr("encode", store, "--overwrite")
    assert "z_draws" not in zarr(store)
    assert "draw" not in zarr(store).coords


def test_points_are_capped_and_spread(trained_template: Path, tmp_path: Path) -> None:
    store = shutil.copytree(trained_template, tmp_path / "a.zarr")
    before = zarr(trained_template).latents.values
    vaearr("encode", store, "--max-points", 40, "--overwrite")
    ds = zarr(store)
    found = np.isfinite(ds.latents.values).all(-1)
    assert found.sum() == 40
    assert not (found & ~ds.roi.values.astype(bool)).any()
    np.testing.assert_allclose(ds.latents.values[found], before[found], atol=1e-5)
    rows = inputs.grains().shape[0]
    quarters = [found[y : y + rows // 2, x : x + 10].sum() for y in (0, rows // 2) for x in (0, 10)]
    assert min(quarters) >= 6
    assert "max_points" in vaearr("encode", store, code=EXISTS).error
