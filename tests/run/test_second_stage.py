"""A second stage gets every latent once, by class and part, scaled, from the store alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaearr as va
from vaearr import names as n
from vaearr.config import ModelConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.run.second_stage import LatentBatches, latent_batches
from vaearr.store import create_store, open_store

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset

MODEL = ModelConfig(name="autoencoder-kl", latent_dim=2, options={"channels": [4, 8], "groups": 2})


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images of 6 x 7 with labels 3 = thin and 5 = thick, some unknown; spatial latents; run b not."""
    pytest.importorskip("monai")
    ds = random_patterns_dataset({"sample": 30}, {"y": 6, "x": 7})
    attrs = {"flag_values": [-1, 3, 5], "flag_meanings": "unknown thin thick"}
    ds = ds.assign(kind=("sample", np.array([3, 5, -1] * 10, "i4"), attrs))
    path = create_store(ds, tmp_path_factory.mktemp("latents") / "images.zarr")
    split = {"method": "random", "fraction": 0.2}
    config = TINY_TRAINING.replace(model=MODEL.to_attrs(), objective={"target": "self"}, split=split, epochs=1)
    va.train(path, config=config)
    va.encode(path)
    va.train(path, run="b", config=config)
    return path


def _all(batches: LatentBatches, number: int = 0) -> tuple[torch.Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*batches.epoch(number), strict=True) if parts[0] is not None)


@pytest.mark.parametrize("memory", [2.0, 1e-6], ids=["resident", "streamed"])
def test_each_training_latent_comes_once_scaled(encoded: Path, memory: float) -> None:
    ds = open_store(encoded).load()
    found = latent_batches(encoded, batch_size=7, label="kind", memory=memory)
    z, known, labels = _all(found)
    train = (ds.split == n.TRAIN).values
    want = np.nan_to_num(ds.latents.values[train] * ds.latents.attrs["diffusion_scale"])
    assert z.shape == want.shape == (found.n_samples, *found.latent_shape)
    np.testing.assert_allclose(np.sort(z.flatten(1).sum(1)), np.sort(want.reshape(len(want), -1).sum(1)), atol=1e-4)
    assert sorted(labels.tolist()) == sorted(ds.kind.values[train].tolist())
    assert float(z[known.expand_as(z)].std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(_all(found)[0], z)
    assert not torch.equal(_all(found, 1)[0], z), "another order"
    first, second = (torch.cat([batch.latents for batch in found]) for _ in range(2))
    assert torch.equal(first, z)
    assert not torch.equal(first, second), "iterating goes on to the next epoch"


def test_classes_and_parts_are_chosen(encoded: Path) -> None:
    assert _all(latent_batches(encoded, part="all", label="kind", classes=["thick"]))[2].tolist() == [5] * 10
    z, known = _all(latent_batches(encoded, part="validation", scaled=False, shuffle=False))
    ds = open_store(encoded).load()
    want = ds.latents.values[(ds.split == n.VALIDATION).values]
    np.testing.assert_array_equal(z.numpy(), np.nan_to_num(want))
    np.testing.assert_array_equal(known.numpy(), np.isfinite(want[:, :1]))


def test_what_is_not_there_is_refused(encoded: Path, trained_template: Path) -> None:
    cases: list[tuple[Path, dict[str, Any], type[Exception], str]] = [
        (encoded, {"label": "kind", "classes": ["thin_"]}, UsageError, r"no class 'thin_'.*thin"),
        (encoded, {"classes": ["thin"]}, UsageError, r"label=.label."),
        (encoded, {"part": "test"}, UsageError, "no part 'test'"),
        (encoded, {"run": "b"}, NoInputError, "has no latents"),
        (trained_template, {}, DataError, "says no 'diffusion_scale'"),
    ]
    for store, given, error, match in cases:
        with pytest.raises(error, match=match):
            latent_batches(store, **given)
    assert latent_batches(trained_template, scaled=False).latent_shape == (3,)
