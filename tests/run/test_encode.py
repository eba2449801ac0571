"""Encoding: patterns in any order and form, spatial latents with their positions and masks, what
does not fit.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr.config import EncodeConfig, ModelConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.store import create_store, open_store
from vaearr.store.listing import refresh_listing

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset

SPATIAL = ModelConfig(
    name="autoencoder-kl", latent_dim=2, options={"channels": [4, 8], "groups": 2}
)
N, SIZES, COARSE = 20, {"z": 5, "y": 6, "x": 7}, (3, 3, 4)
OF_VOLUMES = TINY_TRAINING.replace(
    model=SPATIAL.to_attrs(), objective={"target": "self", "input_noise": 0.0}, preprocess={"normalise": "symmetric"},
    split={"method": "random", "fraction": 0.25},
)  # fmt: skip


def test_patterns_of_any_form(trained_store: Path) -> None:
    ds, model = xr.open_zarr(trained_store), va.load_model(trained_store)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    patterns = ds.patterns.values[:2, :2].astype("f4")
    one = model.encode(ds.patterns.values[0, 0])
    assert one.shape == (3,)
    patterns[0, 1, 3, 3], patterns[1, 1] = np.nan, np.inf
    latents = model.encode(patterns)
    np.testing.assert_array_equal(np.isnan(latents).all(-1), [[False, True], [False, True]])
    np.testing.assert_allclose(latents[0, 0], one, atol=1e-5)
    np.testing.assert_allclose(model.encode(patterns[0, 0].astype(">f4")), one, atol=1e-5)
    assert model.encode(patterns[:0]).shape == (0, 2, 3)
    assert model.decode(np.zeros((4, 5, 3), np.float32)).shape == (4, 5, 9, 11)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), (
        "nothing is learned"
    )
    block = ds.patterns.isel(y=slice(0, 9), x=slice(0, 11))  # names decide, not positions
    straight, turned = model.encode(block), model.encode(block.transpose("dx", "x", "dy", "y"))
    np.testing.assert_allclose(turned.transpose(*straight.dims).values, straight.values, atol=1e-6)
    np.testing.assert_array_equal(
        model.decode(straight.transpose("latent", ...)).values, model.decode(straight).values
    )
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: model.encode(np.zeros((5, 9, 12))), "'dy': 9, 'dx': 12.*trained on samples of"),
        (lambda: model.encode(block.rename(dy="row")), "trained on samples of"),
        (lambda: model.decode(np.zeros((2, 7))), r"latents have shape \(7,\)"),
        (lambda: model.decode(straight.rename(latent="feature")), "exactly one latent dim"),
    ]
    for call, message in refused:
        with pytest.raises(DataError, match=message):
            call()


def test_runs_that_do_not_fit(trained_store: Path, tmp_path: Path) -> None:
    other = create_store(random_patterns_dataset({"y": 5, "x": 6}), tmp_path / "other.zarr")
    shutil.copytree(trained_store / "runs" / "vae", other / "runs" / "vae")
    refresh_listing(other)
    with pytest.raises(
        UsageError, match=r"trained on samples of shape \(1, 9, 11\), the store has \(1, 8, 9\)"
    ):
        va.encode(other)
    with pytest.raises(NoInputError, match="has no run 'nope'"):
        va.encode(trained_store, run="nope")
    va.train(trained_store, run="b", config=TINY_TRAINING, epochs=1)
    va.encode(trained_store, run="b", config=EncodeConfig(batch_size=8))
    assert "latents_b" in xr.open_zarr(trained_store)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 volumes of 5 x 6 x 7 voxels, 2 mm apart; runs `vae` and `b`, latents 2 x 3 x 3 x 4."""
    pytest.importorskip("monai")
    ds = random_patterns_dataset({"sample": N}, SIZES)
    ds = ds.assign_coords(
        {dim: (dim, 2.0 * np.arange(size) - 3, {"units": "mm"}) for dim, size in SIZES.items()}
    )
    path = create_store(ds, tmp_path_factory.mktemp("volumes") / "volumes.zarr")
    va.train(path, config=OF_VOLUMES)
    va.train(path, run="b", config=OF_VOLUMES.replace(seed=2))
    va.encode(path)
    va.encode(path, run="b")
    return path


def test_positions(encoded: Path) -> None:
    ds = open_store(encoded).load()
    assert ds.latents_b.dims == ("sample", "latent_b", "lz_b", "ly_b", "lx_b")
    assert ds.latents.shape == (N, 2, *COARSE)
    np.testing.assert_allclose(ds.ly, [-2, 2, 6])  # voxels 0 and 1 lie at -3 and -1 mm
    np.testing.assert_allclose(ds.lz, [-2, 2, 6])  # the last half in the padding
    assert ds.lx.attrs["units"] == "mm"
    assert ds[["latents", "latents_std"]].notnull().all().to_array().all()
