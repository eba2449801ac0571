"""Draws beside data: distances as by other formulas, unbiased, low where sets are alike; copies are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.linalg import sqrtm

import vaearr as va
from vaearr.config import ModelConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.models.perceptual import layers_without_weights
from vaearr.run import open_run
from vaearr.run.judge import ENCODER, features_of, frechet_distance, nearest_rows
from vaearr.store import create_store, open_store

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset

SPATIAL = ModelConfig(
    name="autoencoder-kl", latent_dim=2, options={"channels": [4, 4], "groups": 2, "mid_attention": False}
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded random weights of an image network."""
    generator, layers = torch.Generator().manual_seed(7), layers_without_weights("squeezenet").state_dict()
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_file({f"features.{key}": torch.randn(v.shape, generator=generator) * 0.1 for key, v in layers.items()}, path)
    return path


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small volumes with a run of spatial latents that is not encoded."""
    pytest.importorskip("monai")
    ds = random_patterns_dataset({"sample": 16}, {"z": 18, "y": 20, "x": 22})
    path = create_store(ds, tmp_path_factory.mktemp("volumes") / "volumes.zarr")
    self_target = TINY_TRAINING.objective.replace(target="self").to_attrs()
    va.train(
        path, config=TINY_TRAINING.replace(model=SPATIAL.to_attrs(), epochs=1, batch_size=4, objective=self_target)
    )
    return path


def test_numbers_are_those_of_the_formulas(trained_template: Path) -> None:
    found = va.sample_fidelity(trained_template, n_samples=5000, part="validation", batch_size=32)
    model, ds = va.load_model(trained_template), open_store(trained_template, chunks=None)
    held, train = (ds["latents"].values[ds["split"].values == part] for part in (2, 1))
    drawn = va.sample_prior(trained_template, n_samples=5000)["decoded"].values
    with torch.inference_mode():
        again = model.network.encode(torch.from_numpy(drawn[:, None]))[0].numpy()
    assert float(found["frechet"][0]) == pytest.approx(frechet_distance(again, held), rel=1e-3)
    assert float(found["frechet"].sel(compared="data")) == pytest.approx(frechet_distance(train, held), rel=1e-3)
    assert found["n"].values.tolist() == [5000, len(held), len(train)]
    assert (found["n_reference"] == len(held)).all()
    assert f"of {len(held)} samples: it comes out too large" in " ".join(found.attrs["warnings"])
    assert va.sample_fidelity(trained_template, n_samples=20, part="train")["n"].values.tolist()[:2] == [20, 20]


def test_own_function_and_encoder_stages(collection: Path) -> None:
    def mean_colour(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).mean(2)

    found = va.sample_fidelity(collection, n_samples=30, part="all", features=mean_colour)
    assert (found.attrs["features"], found.attrs["n_features"]) == ("mean_colour", 3)
    assert not any("run's own" in text for text in found.attrs["warnings"])
    stages, opened = va.sample_fidelity(collection, n_samples=8, part="all", features="encoder"), open_run(collection)
    _, stages_of = features_of(opened, ENCODER, None, xr.DataArray())
    (rows,) = stages_of(torch.rand(4, *opened.model.input_shape)).values()
    assert rows.shape == (4, stages.attrs["n_features"])


def test_volumes_go_through_an_image_network_slice_by_slice(volumes: Path, weights: Path) -> None:
    found = va.sample_fidelity(volumes, n_samples=4, features="image", weights=weights, part="train")
    assert found["axis"].values.tolist() == ["z", "y", "x"]
    np.testing.assert_allclose(found["frechet_of_axis"].mean("axis"), found["frechet"])
    assert found["n"].values.tolist()[:2] == [4, 4]
    assert np.isnan(found["frechet"].sel(compared="data"))  # one held-out volume
    assert any("no floor" in text for text in found.attrs["warnings"])
    assert va.sample_fidelity(volumes, n_samples=4, part="train").attrs["n_features"] == 4  # mean and std of 2 channels


def test_nearest_rows_by_blocks() -> None:
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(2500, 5)), rng.normal(size=(2100, 5))
    queries[7] = rows[1900]
    batches = ((np.arange(k, k + 500)[:, None], rows[k : k + 500]) for k in range(0, 2500, 500))
    distances, points = nearest_rows(queries, batches)
    every = np.linalg.norm(queries[:, None] - rows[None], axis=-1)
    np.testing.assert_array_equal(points[:, 0], every.argmin(1))
    np.testing.assert_allclose(distances, every.min(1), atol=1e-7)


def test_distance_to_the_training_data(trained_template: Path) -> None:
    found, ds = va.nearest_training(trained_template, n_samples=400, batch_size=16), open_store(trained_template)
    held, known = (ds["latents"].values[ds["split"].values == part] for part in (2, 1))
    want = np.sort(np.linalg.norm(held[:, None] - known[None], axis=-1).min(1))
    np.testing.assert_allclose(np.sort(found["held_out_distance"]), want, atol=1e-4)
    assert (ds["split"].sel(x=found["nearest_x"], y=found["nearest_y"]) == 1).all()
    own = ds["latents"].sel(x=found["held_out_x"], y=found["held_out_y"]).values
    to = ds["latents"].sel(x=found["held_out_nearest_x"], y=found["held_out_nearest_y"]).values
    np.testing.assert_allclose(np.linalg.norm(own - to, axis=-1), found["held_out_distance"], atol=1e-4)
    assert "neighbours in the training part" in found.attrs["warnings"][0]


def test_copies_are_found(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that gives back training samples whatever it is asked to decode."""
    opened = open_run(collection)
    chosen = np.flatnonzero(opened.ds["split"].values == 1)
    with torch.inference_mode():
        seen = opened.model.preprocess(torch.from_numpy(opened.ds["patterns"].values[chosen]))
    monkeypatch.setattr("vaearr.models.artifacts.TrainedModel.decode_batch", lambda self, z: seen[: len(z)])
    copies = va.nearest_training(collection, n_samples=20)
    assert float(copies["distance"].max()) < 1e-3
    assert copies["nearest_sample"].values.tolist() == opened.ds["sample"].values[chosen[:20]].tolist()
    assert copies.attrs["share_near"] == 1
    assert copies.attrs["ratio"] < 0.01
    noise = torch.randn(20, *seen.shape[1:], generator=torch.Generator().manual_seed(0)) * 500
    monkeypatch.setattr("vaearr.models.artifacts.TrainedModel.decode_batch", lambda self, z: noise[: len(z)])
    assert "no sign of copies" in va.nearest_training(collection, n_samples=20).attrs["conclusion"]


def test_refusals(collection: Path, trained_template: Path, volumes: Path, weights: Path) -> None:
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (collection, {"features": "latnets"}, r"no features 'latnets'.*Did you mean 'latents'"),
        (collection, {"features": "image"}, "need a file of weights"),
        (collection, {"weights": weights}, "have no use for weights"),
        (collection, {"n_samples": 3, "part": "all", "features": lambda x: x.mean()}, r"expected \(B, d\)"),
        (trained_template, {"features": "image", "weights": weights}, "too small: squeezenet"),
        (volumes, {"features": "image", "weights": weights.with_name("none.pth")}, "is not there"),
        (collection, {"part": "test"}, "no part 'test'"),
        (volumes, {"n_samples": 3, "part": "validation"}, "fewer than two"),
    ]
    judges: tuple[Callable[..., Any], ...] = (va.sample_fidelity, va.nearest_training)
    both: list[tuple[Path, dict[str, Any], str]] = [
        (collection, {"n_samples": 0}, "n_samples is 0"),
        (collection, {"source": "pior"}, "no source 'pior'"),
        (collection, {"run": "ae"}, "autoencoder, which has no prior"),
        (collection, {"run": "b"}, "no run 'b'"),
        (volumes, {"source": "fitted"}, "vaearr encode"),
    ]
    for judge in judges:
        for store, given_to, message in [*cases, *both] if judge is va.sample_fidelity else both:
            with pytest.raises((UsageError, NoInputError, DataError), match=message):
                judge(store, **given_to)


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 60), st.integers(20, 60), st.integers(1, 8), st.integers(0, 99))
def test_frechet_equals_the_root_of_the_product(n: int, m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)), rng.normal(1, 2, size=(m, d))
    first, second = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    root = sqrtm(first @ second).real
    want = float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    ("b", "error", "message"),
    [
        (np.ones((4, 2)), UsageError, r"expected \(n, d\) and \(m, d\)"),
        (np.ones((1, 3)), DataError, "4 and 1 rows"),
        (np.full((4, 3), np.nan), DataError, "not finite"),
    ],
    ids=["shapes", "one row", "NaN"],
)
def test_distances_that_cannot_be(b: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        frechet_distance(np.ones((4, 3)), b)
