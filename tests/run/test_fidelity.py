"""Draws beside data: the same numbers as by hand, low where sets are alike and high where not; copies are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import vaearr as va
from vaearr.cli import app
from vaearr.config import ModelConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.models.perceptual import layers_without_weights
from vaearr.run import open_run
from vaearr.run.draw import draw_latents
from vaearr.run.judge import ENCODER, features_of, frechet_distance, kernel_distance, nearest_rows
from vaearr.run.train import train
from vaearr.store import create_store, open_store

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset
from ..store.test_store import tree_hash

SPATIAL = ModelConfig(
    name="autoencoder-kl",
    latent_dim=2,
    options={"channels": [4, 4], "groups": 2, "mid_attention": False},
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded random weights of an image network."""
    generator = torch.Generator().manual_seed(7)
    state = {
        f"features.{key}": torch.randn(value.shape, generator=generator) * 0.1
        for key, value in layers_without_weights("squeezenet").state_dict().items()
    }
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small volumes with a run of spatial latents that is not encoded."""
    pytest.importorskip("monai")
    ds = random_patterns_dataset({"sample": 16}, {"z": 18, "y": 20, "x": 22})
    path = create_store(ds, tmp_path_factory.mktemp("volumes") / "volumes.zarr")
    self_target = TINY_TRAINING.objective.replace(target="self").to_attrs()
    config = TINY_TRAINING.replace(model=SPATIAL.to_attrs(), epochs=1, batch_size=4, objective=self_target)
    train(path, config=config)
    return path


@pytest.mark.parametrize(("run", "source"), [("vae", "prior"), ("vae", "fitted"), ("ae", "fitted")])
def test_draws_are_those_of_sample_prior(collection: Path, run: str, source: str) -> None:
    want = va.sample_prior(collection, run, 7, 3, source=source)["latents"]  # type: ignore[arg-type]
    batches = list(draw_latents(open_run(collection, run, device="cpu"), 7, 3, source, 2))
    assert [len(z) for z in batches] == [2, 2, 2, 1]
    np.testing.assert_allclose(np.concatenate(batches), want, atol=1e-6)


def test_numbers_are_those_of_the_formulas(trained_store: Path) -> None:
    before = tree_hash(trained_store)
    found = va.sample_fidelity(trained_store, n_samples=5000, part="validation", batch_size=32)
    model, ds = va.load_model(trained_store), open_store(trained_store, chunks=None)
    held = ds["latents"].values[ds["split"].values == 2]
    drawn = va.sample_prior(trained_store, n_samples=5000)["decoded"].values
    with torch.inference_mode():
        again = model.network.encode(torch.from_numpy(drawn[:, None]))[0].numpy()
    first = found.sel(compared="draws")
    assert float(first["frechet"]) == pytest.approx(frechet_distance(again, held), rel=1e-3)
    assert float(first["kernel"]) == pytest.approx(kernel_distance(again, held)[0], rel=1e-3)
    data = found.sel(compared="data")
    train_rows = ds["latents"].values[ds["split"].values == 1]
    assert float(data["frechet"]) == pytest.approx(frechet_distance(train_rows, held), rel=1e-3)
    assert found["n"].values.tolist() == [5000, len(held), len(train_rows)]
    assert (found["n_reference"] == len(held)).all()
    assert f"of {len(held)} samples: it comes out too large" in " ".join(found.attrs["warnings"])
    assert tree_hash(trained_store) == before
    smaller = va.sample_fidelity(trained_store, n_samples=20, part="train")
    assert smaller["n"].values.tolist()[:2] == [20, 20]


def test_own_function_and_encoder_stages(collection: Path) -> None:
    def mean_colour(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).mean(2)

    found = va.sample_fidelity(collection, n_samples=30, part="all", features=mean_colour)
    assert (found.attrs["features"], found.attrs["n_features"]) == ("mean_colour", 3)
    assert not any("run's own" in text for text in found.attrs["warnings"])
    stages = va.sample_fidelity(collection, n_samples=8, part="all", features="encoder")
    assert "no more than the" in stages.attrs["warnings"][-2]
    opened = open_run(collection, "vae", device="cpu")
    (rows,) = features_of(opened, ENCODER)(torch.rand(4, *opened.model.input_shape))
    assert rows.shape == (4, stages.attrs["n_features"])
    with pytest.raises(UsageError, match=r"expected \(B, d\)"):
        va.sample_fidelity(collection, n_samples=3, part="all", features=lambda x: x.mean())


def test_volumes_go_through_an_image_network_slice_by_slice(volumes: Path, weights: Path) -> None:
    found = va.sample_fidelity(volumes, n_samples=4, features="image", weights=weights, part="train")
    assert found["axis"].values.tolist() == ["z", "y", "x"]
    np.testing.assert_allclose(found["frechet_of_axis"].mean("axis"), found["frechet"])
    np.testing.assert_allclose(found["kernel_of_axis"].mean("axis"), found["kernel"])
    assert found["n"].values.tolist()[:2] == [4, 4]
    assert np.isnan(found["kernel"].sel(compared="data"))  # one held-out volume
    assert any("no floor" in text for text in found.attrs["warnings"])
    assert va.sample_fidelity(volumes, n_samples=4, part="train").attrs["n_features"] == 4  # mean and std of 2 channels


def test_nearest_rows_by_blocks() -> None:
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(2500, 5)), rng.normal(size=(1500, 5))
    queries[7] = rows[1900]
    batches = ((np.arange(k, k + 500)[:, None], rows[k : k + 500]) for k in range(0, 2500, 500))
    distances, points = nearest_rows(queries, batches)
    every = np.linalg.norm(queries[:, None] - rows[None], axis=-1)
    np.testing.assert_array_equal(points[:, 0], every.argmin(1))
    np.testing.assert_allclose(distances, every.min(1), atol=1e-7)
    assert (points[7, 0], distances[7]) == (1900, pytest.approx(0, abs=1e-7))


def test_distance_to_the_training_data(trained_store: Path, collection: Path) -> None:
    found = va.nearest_training(trained_store, n_samples=400, batch_size=16)
    ds = open_store(trained_store, chunks=None)
    split, latents = ds["split"].values, ds["latents"].values
    held, known = latents[split == 2], latents[split == 1]
    want = np.sort(np.linalg.norm(held[:, None] - known[None], axis=-1).min(1))
    np.testing.assert_allclose(np.sort(found["held_out_distance"]), want, atol=1e-4)
    near = ds["split"].sel(x=found["nearest_x"], y=found["nearest_y"])
    assert (near == 1).all()
    own = ds["latents"].sel(x=found["held_out_x"], y=found["held_out_y"]).values
    to = ds["latents"].sel(x=found["held_out_nearest_x"], y=found["held_out_nearest_y"]).values
    np.testing.assert_allclose(np.linalg.norm(own - to, axis=-1), found["held_out_distance"], atol=1e-4)
    assert "neighbours in the training part" in found.attrs["warnings"][0]
    assert "nearest_sample" in va.nearest_training(collection, n_samples=5).coords


def test_copies_are_found(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that gives back training samples whatever it is asked to decode."""
    opened = open_run(collection, "vae", device="cpu")
    chosen = np.flatnonzero(opened.ds["split"].values == 1)
    raw = torch.from_numpy(opened.ds["patterns"].values[chosen])
    with torch.inference_mode():
        seen = opened.model.preprocess(raw)
    monkeypatch.setattr("vaearr.artifacts.TrainedModel.decode_batch", lambda self, z: seen[: len(z)])
    copies = va.nearest_training(collection, n_samples=20)
    assert float(copies["distance"].max()) < 1e-3
    assert copies["nearest_sample"].values.tolist() == opened.ds["sample"].values[chosen[:20]].tolist()
    assert copies.attrs["share_near"] == 1
    assert copies.attrs["ratio"] < 0.01
    assert "may be copies" in copies.attrs["conclusion"]
    noise = torch.randn(20, *seen.shape[1:], generator=torch.Generator().manual_seed(0)) * 500
    monkeypatch.setattr("vaearr.artifacts.TrainedModel.decode_batch", lambda self, z: noise[: len(z)])
    assert "no sign of copies" in va.nearest_training(collection, n_samples=20).attrs["conclusion"]


def test_command(collection: Path, weights: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["judge", str(collection), "--n", "12", "--part", "all", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert "draws (prior)" in done.stdout
    assert "nearest training latent" in done.stdout
    assert "warning: The Fréchet distance is of 12 samples" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["fidelity.csv", "nearest.csv"]
    assert len((tmp_path / "out" / "nearest.csv").read_text().splitlines()) == 13


def test_refusals(collection: Path, trained_store: Path, volumes: Path, weights: Path) -> None:
    with pytest.raises(UsageError, match=r"no features 'latnets'.*Did you mean 'latents'"):
        va.sample_fidelity(collection, features="latnets")
    with pytest.raises(UsageError, match="need a file of weights"):
        va.sample_fidelity(collection, features="image")
    with pytest.raises(UsageError, match="have no use for weights"):
        va.sample_fidelity(collection, weights=weights)
    with pytest.raises(UsageError, match="too small: squeezenet"):
        va.sample_fidelity(trained_store, features="image", weights=weights)
    with pytest.raises(NoInputError, match="is not there"):
        va.sample_fidelity(volumes, features="image", weights=weights.with_name("none.pth"))
    with pytest.raises(UsageError, match="no part 'test'"):
        va.sample_fidelity(collection, part="test")
    with pytest.raises(DataError, match="fewer than two"):
        va.sample_fidelity(volumes, n_samples=3, part="validation")
    for judged in (va.sample_fidelity, va.nearest_training):
        with pytest.raises(UsageError, match="n_samples is 0"):
            judged(collection, n_samples=0)
        with pytest.raises(UsageError, match="no source 'pior'"):
            judged(collection, source="pior")
        with pytest.raises(UsageError, match="autoencoder, which has no prior"):
            judged(collection, "ae")
        with pytest.raises(NoInputError, match="no run 'b'"):
            judged(collection, "b")
        with pytest.raises(NoInputError, match="vaearr encode"):
            judged(volumes, source="fitted")
