"""Training into a store: what is published, what is refused, what stays untouched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr import grid
from vaearr import names as n
from vaearr.config import ModelConfig, RoiConfig, TrainConfig
from vaearr.errors import ExistsError, RoiError, SchemaError, TrainingError, UsageError
from vaearr.store import create_store, open_store, open_table, run_folder, run_manifest, run_names
from vaearr.testing import assert_valid

from .conftest import SMALL_NETWORK, TINY_TRAINING
from .data import random_patterns_dataset


def test_a_run_is_published_whole(trained_store: Path) -> None:
    ds = xr.open_zarr(trained_store)
    assert_valid(ds)
    manifest = run_manifest(trained_store, "vae")
    assert manifest["state"] == "trained"
    assert TrainConfig.from_attrs(manifest["config"]) == TINY_TRAINING
    assert manifest["data"]["shape"] == list(ds.patterns.shape)
    assert manifest["n_roi"] == int(ds.roi.sum()) == manifest["n_train"] + manifest["n_validation"]
    history = open_table(trained_store, "vae", n.HISTORY)
    assert list(history.epoch.values) == [1, 2]
    assert {"loss", "reconstruction_nll", "kl", "val_loss", "beta", "learning_rate", "seconds"} <= set(history)
    parts = history.val_reconstruction_nll + history.val_amplitude_nll + history.val_kl
    np.testing.assert_allclose(history.val_loss, parts, rtol=1e-6)
    health = open_table(trained_store, "vae", n.HEALTH)
    assert health.kl.dims == ("latent",)
    assert health.attrs["n_active"] == int(health.is_active.sum())


def test_artefact_is_self_describing(trained_store: Path) -> None:
    folder = run_folder(trained_store, "vae") / n.MODEL
    about = json.loads((folder / "config.json").read_text())
    assert about["input_shape"] == [1, 9, 11]
    assert about["input_dtype"] == "uint8"
    assert set(about["versions"]) >= {"vaearr", "torch", "python"}
    assert (folder / "history.csv").read_text().count("\n") == 3
    assert {p.name for p in folder.iterdir()} == {
        "checksums.sha256",
        "config.json",
        "weights.safetensors",
        "last.safetensors",
        "history.csv",
        "history.json",
    }


def test_second_run_does_not_touch_the_first(trained_store: Path) -> None:
    before = xr.open_zarr(trained_store).load()
    run = va.train(trained_store, run="b", config=TINY_TRAINING, latent_dim=5, seed=2)
    va.encode(trained_store, run="b")
    after = xr.open_zarr(trained_store).load()
    xr.testing.assert_identical(after[list(before.data_vars)].drop_vars("latent_b", errors="ignore"), before)
    assert after.latents_b.sizes == {"y": 40, "x": 35, "latent_b": 5}
    xr.testing.assert_equal(after.roi_b, after.roi.rename("roi_b"))  # taken over from the default run
    assert run.name == "b"
    assert run_names(trained_store) == ["b", "vae"]


def test_training_is_deterministic_and_leaves_the_callers_random_state(scan: xr.Dataset, tmp_path: Path) -> None:
    weights = []
    for i in range(2):
        path = create_store(scan, tmp_path / f"{i}.zarr")
        torch.manual_seed(i)
        state = torch.get_rng_state()
        va.train(path, config=TINY_TRAINING)
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(va.load_model(path).state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key


@pytest.mark.parametrize("memory", [1e-6, 2.0], ids=["streamed", "in memory"])
def test_static_background_is_the_mean_training_pattern(trained_store: Path, memory: float) -> None:
    va.train(trained_store, run="c", config=TINY_TRAINING.replace(memory=memory, epochs=1))
    ds = xr.open_zarr(trained_store)
    mean = ds.patterns.values[ds.split_c.values == n.TRAIN].mean(0)
    model = va.load_model(trained_store, "c")
    np.testing.assert_allclose(model.preprocess.background[0].numpy(), mean, rtol=1e-5)


def test_refusals_leave_the_store_as_it_was(trained_store: Path) -> None:
    from .store.test_store import tree_hash

    before = tree_hash(trained_store)
    ds = open_store(trained_store)
    with pytest.raises(ExistsError, match="already has a run 'vae'"):
        va.train(trained_store, config=TINY_TRAINING, seed=5)
    with pytest.raises(RoiError, match="the ROI is empty; of 1400"):
        va.train(trained_store, run="d", roi=RoiConfig(where="BC > 999"))
    with pytest.raises(RoiError, match="only one scan point"):
        va.train(trained_store, run="d", roi=RoiConfig(x=(1.0, 1.5), y=(1.0, 1.5)))
    with pytest.raises(UsageError, match=r"no model 'cnov'. Did you mean 'conv'"):
        va.train(trained_store, run="d", model="cnov")
    with pytest.raises(UsageError, match="has no option 'widht'"):
        va.train(trained_store, run="d", config=TrainConfig(model=ModelConfig(options={"widht": 3})))
    with pytest.raises(UsageError, match=r"TrainConfig\.epochs"):
        va.train(trained_store, run="d", epochs=0)
    with pytest.raises(UsageError, match="device 'tpu'"):
        va.train(trained_store, run="d", device="tpu")
    with pytest.raises(SchemaError, match="coordinate 'x' is not the store's"):
        va.train(trained_store, run="d", roi=grid.roi(ds).assign_coords(x=ds.x.values + 1))
    assert tree_hash(trained_store) == before


def test_loss_that_is_not_finite_stops(scan: xr.Dataset, tmp_path: Path) -> None:
    path = create_store(random_patterns_dataset({"y": 9, "x": 8}, dtype="float32"), tmp_path / "a.zarr")
    with pytest.raises(TrainingError, match="the loss is not finite in epoch 1"):
        va.train(path, config=TINY_TRAINING.replace(learning_rate=1e30))
    assert run_names(path) == []


def test_float_patterns_of_any_scale_train(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 9, "x": 8}, dtype="float32")
    path = create_store(ds.assign(patterns=ds.patterns * 1e4), tmp_path / "a.zarr")
    assert np.isfinite(va.train(path, config=TINY_TRAINING).history.loss).all()


KILLED = """
import os, sys
import vaearr as va
from tests.conftest import TINY_TRAINING
def stop(epoch, row):
    os._exit(9)
va.train(sys.argv[1], config=TINY_TRAINING, on_epoch=stop)
"""


def test_killed_training_leaves_no_run_and_starts_anew(scan_store: Path) -> None:
    code = subprocess.run([sys.executable, "-c", KILLED, str(scan_store)], check=False).returncode
    assert code == 9
    assert "roi" not in xr.open_zarr(scan_store)
    assert run_names(scan_store) == []
    va.train(scan_store, config=TINY_TRAINING)
    assert run_names(scan_store) == ["vae"]


def test_latents_follow_a_known_factor(tmp_path: Path) -> None:
    """A scan whose patterns differ in one stripe's position: the latents must tell where it is."""
    ny, nx = 24, 30
    rng = np.random.default_rng(0)
    phase = np.linspace(0, np.pi, nx)[None].repeat(ny, 0)
    rows = np.arange(16)
    stripe = np.exp(-0.5 * ((rows - 8 - 5 * np.cos(phase[..., None])) / 1.5) ** 2)
    values = 60 + 120 * stripe[..., None] * np.ones(16) + rng.normal(0, 4, (ny, nx, 16, 16))
    ds = random_patterns_dataset({"y": ny, "x": nx}, {"dy": 16, "dx": 16})
    ds = ds.assign(patterns=ds.patterns.copy(data=values.clip(0, 255).astype("uint8")))
    path = create_store(ds, tmp_path / "a.zarr")
    model = ModelConfig(latent_dim=4, options=SMALL_NETWORK)
    run = va.train(path, config=TrainConfig(model=model, epochs=25, batch_size=32, learning_rate=3e-3, device="cpu"))
    latents = va.encode(path).latents.values.reshape(-1, 4)
    factor = np.cos(phase).ravel()
    design = np.column_stack([latents, np.ones(len(latents))])
    residual = factor - design @ np.linalg.lstsq(design, factor, rcond=None)[0]
    assert 1 - residual.var() / factor.var() > 0.9
    assert run.health.attrs["explained_variance"] > 0.5
    assert run.health.attrs["n_active"] >= 1


def test_a_roi_given_as_a_map(trained_store: Path) -> None:
    ds = open_store(trained_store)
    va.train(trained_store, run="b", roi=ds.BC > 100, config=TINY_TRAINING)
    assert run_manifest(trained_store, "b")["roi"] == "given as a map"
    stored = xr.open_zarr(trained_store).roi_b
    np.testing.assert_array_equal(stored.values, ((ds.BC > 100) & ds.present).values)
    assert stored.attrs["flag_meanings"] == "outside analysed"
    assert "source" not in stored.attrs


def test_taking_over_the_roi_is_said(trained_store: Path) -> None:
    said: list[str] = []
    va.train(trained_store, run="b", config=TINY_TRAINING, say=said.append)
    assert said[0].startswith("the ROI is that of run 'vae'")


def test_few_validation_points_do_not_look_like_a_collapse(trained_store: Path) -> None:
    run = va.train(trained_store, run="b", config=TINY_TRAINING.replace(split={"method": "random", "fraction": 0.001}))
    assert run.manifest["n_validation"] < 5
    assert run.health.attrs["n_samples"] == run.manifest["n_train"]


def test_runs_of_other_sizes_stand_in_one_tree(trained_store: Path) -> None:
    va.train(trained_store, run="b", config=TINY_TRAINING, latent_dim=5)
    va.encode(trained_store, run="b")
    tree = xr.open_datatree(trained_store, engine="zarr")
    assert tree["runs/b/health"].to_dataset(inherit=False).sizes == {"latent_b": 5}


def test_a_collection_is_its_own_target(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"sample": 60}, {"dy": 9, "dx": 11})
    path = create_store(ds, tmp_path / "collection.zarr")
    config = TINY_TRAINING.replace(objective={"target": "auto"}, split={"method": "random"})
    run = va.train(path, config=config)
    assert run.manifest["config"]["objective"]["target"] == "self"
    assert "amplitude_nll" not in run.history
    with pytest.raises(UsageError, match="collection without a grid; set it to 'self'"):
        va.train(path, run="b", config=TINY_TRAINING)
    assert run_names(path) == ["vae"]
