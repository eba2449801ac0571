"""Training into a store: what is learned, what is refused, what stays untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.config import ModelConfig, RoiConfig, TrainConfig
from vaearr.errors import ExistsError, RoiError, SchemaError, TrainingError, UsageError
from vaearr.schema import grid
from vaearr.store import create_store, open_store, run_names

from ..conftest import SMALL_NETWORK, TINY_TRAINING
from ..data import random_patterns_dataset
from ..store.test_store import tree_hash


def test_refusals_leave_the_store_as_it_was(trained_store: Path) -> None:
    before, ds = tree_hash(trained_store), open_store(trained_store)
    shifted = grid.roi(ds).assign_coords(x=ds.x.values + 1)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"run": "vae", "seed": 5}, ExistsError, "already has a run 'vae'"),
        ({"roi": RoiConfig(where="BC > 999")}, RoiError, "the ROI is empty; of 1400"),
        ({"roi": RoiConfig(x=(1.0, 1.5), y=(1.0, 1.5))}, RoiError, "only one scan point"),
        ({"roi": shifted}, SchemaError, "coordinate 'x' is not the store's"),
        ({"model": "cnov"}, UsageError, r"no model 'cnov'. Did you mean 'conv'"),
        ({"model": ModelConfig(options={"widht": 3})}, UsageError, "has no option 'widht'"),
        ({"epochs": 0}, UsageError, r"TrainConfig\.epochs"),
        ({"device": "tpu"}, UsageError, "device 'tpu'"),
        ({"split": {"method": "groups", "by": "BCC"}}, UsageError, "split.by: .*'BCC'.*BC"),
    ]
    for given, error, match in cases:
        with pytest.raises(error, match=match):
            va.train(trained_store, **{"run": "d", "config": TINY_TRAINING, **given})
    assert tree_hash(trained_store) == before


def test_float_patterns_of_any_scale_train_until_the_loss_is_not_finite(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 9, "x": 8}, dtype="float32")
    path = create_store(ds.assign(patterns=ds.patterns * 1e4), tmp_path / "a.zarr")
    assert np.isfinite(va.train(path, config=TINY_TRAINING).history.loss).all()
    with pytest.raises(TrainingError, match="the loss is not finite in epoch 1"):
        va.train(path, run="b", config=TINY_TRAINING, learning_rate=1e30)
    assert run_names(path) == ["vae"]


def test_latents_follow_a_known_factor(tmp_path: Path) -> None:
    """A scan whose patterns differ in one stripe's position: the latents must tell where it is."""
    ny, nx = 24, 30
    rng = np.random.default_rng(0)
    phase = np.linspace(0, np.pi, nx)[None].repeat(ny, 0)
    stripe = np.exp(-0.5 * ((np.arange(16) - 8 - 5 * np.cos(phase[..., None])) / 1.5) ** 2)
    values = 60 + 120 * stripe[..., None] * np.ones(16) + rng.normal(0, 4, (ny, nx, 16, 16))
    ds = random_patterns_dataset({"y": ny, "x": nx}, {"dy": 16, "dx": 16})
    ds = ds.assign(patterns=ds.patterns.copy(data=values.clip(0, 255).astype("uint8")))
    path = create_store(ds, tmp_path / "a.zarr")
    model = ModelConfig(latent_dim=4, options=SMALL_NETWORK)
    run = va.train(
        path,
        config=TrainConfig(model=model, epochs=25, batch_size=32, learning_rate=3e-3, device="cpu"),
    )
    latents = va.encode(path).latents.values.reshape(-1, 4)
    factor, design = np.cos(phase).ravel(), np.column_stack([latents, np.ones(len(latents))])
    residual = factor - design @ np.linalg.lstsq(design, factor, rcond=None)[0]
    assert 1 - residual.var() / factor.var() > 0.9
    assert run.health.attrs["explained_variance"] > 0.5
    assert run.health.attrs["n_active"] >= 1


def test_a_roi_given_as_a_map_and_few_validation_points(trained_store: Path) -> None:
    ds = open_store(trained_store)
    few = {"method": "random", "fraction": 0.001}
    run = va.train(trained_store, run="b", roi=ds.BC > 100, config=TINY_TRAINING, split=few)
    assert run.manifest["roi"] == "given as a map"
    stored = xr.open_zarr(trained_store).roi_b
    np.testing.assert_array_equal(stored.values, ((ds.BC > 100) & ds.present).values)
    assert stored.attrs["flag_meanings"] == "outside analysed"
    assert run.manifest["n_validation"] < 5
    assert run.health.attrs["n_samples"] == run.manifest["n_train"], (
        "few points do not look like a collapse"
    )


def test_a_collection_is_its_own_target(tmp_path: Path) -> None:
    path = create_store(
        random_patterns_dataset({"sample": 60}, {"dy": 9, "dx": 11}), tmp_path / "collection.zarr"
    )
    run = va.train(
        path, config=TINY_TRAINING, objective={"target": "auto"}, split={"method": "random"}
    )
    assert run.config["objective"]["target"] == "self"
    assert "amplitude_nll" not in run.history
    with pytest.raises(UsageError, match="collection without a grid; set it to 'self'"):
        va.train(path, run="b", config=TINY_TRAINING)
    assert run_names(path) == ["vae"]
