"""A model from elsewhere as a run: published whole or not at all, and used like one that was trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from vaearr.artifacts import load_model, save_weights
from vaearr.cli import app
from vaearr.config import PreprocessConfig
from vaearr.errors import DataError, ExistsError, RoiError, UsageError
from vaearr.importing import ImportConfig, import_model
from vaearr.info import store_facts
from vaearr.latents import encode, reconstruct
from vaearr.run import Run
from vaearr.store import create_store, has_table, open_store, open_table, run_manifest
from vaearr.testing import random_patterns_dataset

from .foreign.ldm_reference import Reference, random_weights
from .store.test_store import tree_hash

pytest.importorskip("monai")

WEIGHTS = random_weights((32, 32), res_blocks=1)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    ds = random_patterns_dataset({"sample": 70}, {"channel": 3, "y": 12, "x": 14})
    return create_store(ds, tmp_path / "images.zarr")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_file({f"first_stage_model.{name}": value for name, value in WEIGHTS.items()}, tmp_path / "sd.safetensors")
    return tmp_path / "sd.safetensors"


def test_latents_of_an_imported_model_are_those_of_the_original(store: Path, checkpoint: Path) -> None:
    lines: list[str] = []
    result = import_model(store, checkpoint, run="sd", say=lines.append)
    assert isinstance(result, Run)
    assert "layout ldm under 'first_stage_model.'" in lines[0]
    ds = encode(store, run="sd")
    patterns = torch.from_numpy(ds["patterns"].values)
    with torch.no_grad():
        mean, logvar = Reference(WEIGHTS).encode(patterns.float() / 127.5 - 1)
    np.testing.assert_allclose(ds["latents_sd"].values, mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(ds["latents_std_sd"].values, (0.5 * logvar).exp().numpy(), rtol=1e-4)
    model = load_model(store, "sd")
    assert model.preprocess_config.normalise == "symmetric"
    with torch.no_grad():
        decoded = Reference(WEIGHTS).decode(mean[:3])
    np.testing.assert_allclose(model.decode(mean[:3].numpy()), decoded.numpy(), atol=1e-4)
    assert reconstruct(store, run="sd", n_samples=3).sizes["sample"] == 3


def test_what_is_published(store: Path, checkpoint: Path) -> None:
    import_model(store, checkpoint, run="sd")
    ds, manifest = open_store(store, chunks=None), run_manifest(store, "sd")
    assert set(np.unique(ds["split_sd"])) == {2}, "no point was trained on"
    assert bool(ds["roi_sd"].all())
    assert (manifest["state"], manifest["n_train"], manifest["n_validation"]) == ("imported", 0, 70)
    origin = manifest["config"]["imported"]
    assert (origin["file"], origin["layout"], origin["n_weights_read"]) == ("sd.safetensors", "ldm", len(WEIGHTS))
    assert manifest["config"]["model"]["options"]["channels"] == [32, 32]
    assert len(origin["sha256"]) == 64
    assert not has_table(store, "sd", "history")
    health = open_table(store, "sd", "health")
    assert health.sizes["latent"] == 4
    assert health.attrs["n_samples"] == 70
    assert store_facts(store)["trained"]["sd"]["model"]["name"] == "autoencoder-kl"


def test_a_region_and_the_number_of_judged_samples(store: Path, checkpoint: Path, monkeypatch) -> None:
    monkeypatch.setattr("vaearr.importing.N_JUDGED", 10)
    ds = open_store(store, chunks=None)
    roi = ds["BC"].copy(data=np.arange(70) < 30)
    result = import_model(store, checkpoint, run="part", roi=roi)
    assert result.health.attrs["n_samples"] == 10
    ds = open_store(store, chunks=None)
    np.testing.assert_array_equal(ds["split_part"], np.where(np.arange(70) < 30, 2, 0))
    with pytest.raises(RoiError, match="no scan point"):
        import_model(store, checkpoint, run="none", roi=roi & False)


def test_our_own_weights_of_another_model(store: Path, tmp_path: Path) -> None:
    settings = ImportConfig(model="conv", latent_dim=5, options={"width": 8, "hidden": 16, "max_width": 16},
                            preprocess=PreprocessConfig(static_background="subtract", normalise="none"))  # fmt: skip
    torch.manual_seed(5)
    save_file({"x": torch.ones(1)}, tmp_path / "conv.safetensors")
    with pytest.raises(DataError, match="no autoencoder in the layout vaearr"):
        import_model(store, tmp_path / "conv.safetensors", run="conv", config=settings)
    from vaearr.models.conv import ConvVAE

    network = ConvVAE((3, 12, 14), 5, width=8, hidden=16, max_width=16)
    save_weights(network, tmp_path / "conv.safetensors")
    state = torch.get_rng_state()
    import_model(store, tmp_path / "conv.safetensors", run="conv", config=settings)
    assert torch.equal(torch.get_rng_state(), state)
    model = load_model(store, "conv")
    patterns = open_store(store, chunks=None)["patterns"].values
    np.testing.assert_allclose(model.preprocess.background.numpy(), patterns.mean(0), rtol=1e-5)
    with torch.no_grad():
        mean, _ = network.eval().encode(torch.from_numpy(patterns - patterns.mean(0)).float())
    np.testing.assert_allclose(encode(store, run="conv")["latents_conv"], mean, atol=1e-4)
    with pytest.raises(UsageError, match="not told by a checkpoint: give latent_dim and options"):
        import_model(store, tmp_path / "conv.safetensors", run="b", config=ImportConfig(model="conv"))


def test_refusals_change_nothing(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    grey = create_store(random_patterns_dataset({"sample": 20}, {"y": 12, "x": 14}), tmp_path / "grey.zarr")
    torch.save({name: value for name, value in WEIGHTS.items() if "conv_out" not in name}, tmp_path / "part.pt")
    before = tree_hash(store), tree_hash(grey)
    with pytest.raises(
        DataError, match=r"for samples of 3 channel\(s\) in 2 dimensions; the store's have shape \(1, 12"
    ):
        import_model(grey, checkpoint, run="sd")
    with pytest.raises(DataError, match="4 missing in the file"):
        import_model(store, tmp_path / "part.pt", run="sd")
    with pytest.raises(UsageError, match="multiples of groups=24"):
        import_model(store, checkpoint, run="sd", config=ImportConfig(options={"groups": 24}))
    with pytest.raises(UsageError, match=r"has no option 'group'\. Did you mean 'groups'"):
        import_model(store, checkpoint, run="sd", config=ImportConfig(options={"group": 32}))
    with pytest.raises(UsageError, match="cannot name a run"):
        import_model(store, checkpoint, run="a b")
    assert (tree_hash(store), tree_hash(grey)) == before
    assert not store.with_name(f".{store.name}.staging").exists()
    import_model(store, checkpoint, run="sd")
    with pytest.raises(ExistsError, match="already has a run 'sd'"):
        import_model(store, checkpoint, run="sd")


def test_the_command(store: Path, checkpoint: Path) -> None:
    args = ["import", str(store), str(checkpoint), "--run", "sd", "--set", "options.head=tanh", "--layout", "ldm"]
    done = CliRunner().invoke(app, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f"{len(WEIGHTS)} weights read" in done.output
    assert f"next: 'vaearr encode {store} --run sd'" in done.output
    assert run_manifest(store, "sd")["config"]["model"]["options"]["head"] == "tanh"
