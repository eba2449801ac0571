"""A second stage gets every latent once, by class and part, scaled, from the store alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vaearr as va
from vaearr import names as n
from vaearr.config import EncodeConfig, ModelConfig
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.run.second_stage import LatentBatches, latent_batches
from vaearr.store import create_store, open_store

from .conftest import TINY_TRAINING
from .data import random_patterns_dataset


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images of 6 x 7 with labels 3 = thin and 5 = thick, some unknown, and a mask; spatial latents."""
    ds = random_patterns_dataset({"sample": 30}, {"y": 6, "x": 7})
    label = np.array([3, 5, -1] * 10, "i4")
    attrs = {"flag_values": [-1, 3, 5], "flag_meanings": "unknown thin thick"}
    mask = np.ones((30, 6, 7), bool)
    mask[0, :, :4] = False
    ds = ds.assign(kind=(("sample",), label, attrs), mask=(("sample", "y", "x"), mask))
    path = create_store(ds, tmp_path_factory.mktemp("latents") / "images.zarr")
    model = ModelConfig(name="autoencoder-kl", latent_dim=2, options={"channels": [4, 8], "groups": 2})
    config = TINY_TRAINING.replace(
        model=model.to_attrs(), objective={"target": "self"}, split={"method": "random", "fraction": 0.2}
    )
    va.train(path, config=config)
    va.encode(path, config=EncodeConfig(mask="mask"))
    return path


def _all(batches: LatentBatches, number: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    parts = list(batches.epoch(number))
    labels = None if parts[0].labels is None else torch.cat([p.labels for p in parts if p.labels is not None])
    return torch.cat([p.latents for p in parts]), torch.cat([p.known for p in parts]), labels


@pytest.mark.parametrize("memory", [2.0, 1e-6], ids=["resident", "streamed"])
def test_each_training_latent_comes_once_scaled(encoded: Path, memory: float) -> None:
    ds = open_store(encoded).load()
    found = latent_batches(encoded, batch_size=7, label="kind", memory=memory)
    z, known, labels = _all(found)
    train = (ds.split == n.TRAIN).values
    want = np.nan_to_num(ds.latents.values[train] * ds.latents.attrs["diffusion_scale"])
    assert z.shape == want.shape == (found.n_samples, *found.latent_shape)
    np.testing.assert_allclose(np.sort(z.flatten(1).sum(1)), np.sort(want.reshape(len(want), -1).sum(1)), atol=1e-4)
    assert labels is not None
    assert sorted(labels.tolist()) == sorted(ds.kind.values[train].tolist())
    assert known.shape == (len(z), 1, 3, 4)
    assert float(z[known.expand_as(z)].std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(_all(found)[0], z)
    assert not torch.equal(_all(found, 1)[0], z), "another order"


def test_classes_and_parts_are_chosen(encoded: Path) -> None:
    ds = open_store(encoded).load()
    _, _, labels = _all(latent_batches(encoded, part="all", label="kind", classes=["thick"]))
    assert labels is not None
    assert labels.tolist() == [5] * 10
    validation = latent_batches(encoded, part="validation", scaled=False, shuffle=False)
    z, known, none = _all(validation)
    assert none is None
    want = ds.latents.values[(ds.split == n.VALIDATION).values]
    np.testing.assert_array_equal(z.numpy(), np.nan_to_num(want))
    np.testing.assert_array_equal(known.numpy(), np.isfinite(want[:, :1]))


def test_iterating_goes_on_to_the_next_epoch(encoded: Path) -> None:
    found = latent_batches(encoded, batch_size=8)
    first, second = ([b.latents for b in found] for _ in range(2))
    assert len(first) == len(found)
    assert not torch.equal(torch.cat(first), torch.cat(second))


def test_what_is_not_there_is_refused(encoded: Path, trained_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no class 'thin_'.*thin"):
        latent_batches(encoded, label="kind", classes=["thin_"])
    with pytest.raises(UsageError, match=r"label=.label."):
        latent_batches(encoded, classes=["thin"])
    with pytest.raises(UsageError, match="no part 'test'"):
        latent_batches(encoded, part="test")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="says no 'diffusion_scale'"):
        latent_batches(trained_store)
    assert latent_batches(trained_store, scaled=False).latent_shape == (3,)
    store = shutil.copytree(encoded, tmp_path / "copy.zarr")
    model = ModelConfig(name="autoencoder-kl", latent_dim=2, options={"channels": [4], "groups": 2})
    config = TINY_TRAINING.replace(model=model.to_attrs(), objective={"target": "self"}, epochs=1)
    va.train(store, run="b", config=config)
    with pytest.raises(NoInputError, match="has no latents"):
        latent_batches(store, "b")
