"""Latent health: the numbers against direct formulae, the warnings in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vaearr as va
from vaearr.batching import batches
from vaearr.quality import health_warnings, latent_health
from vaearr.store import open_store


def test_health_equals_the_formulae(trained_store: Path) -> None:
    ds, model = open_store(trained_store, chunks=None), va.load_model(trained_store)
    loader = batches(ds, roi=ds.roi, shuffle=False, batch_size=37)
    health = latent_health(model, loader)
    stored = torch.from_numpy(ds.patterns.values[ds.roi.values][:, None])
    mean, logvar = (t.double() for t in model.encode_batch(stored))
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean(0)
    np.testing.assert_allclose(health.kl, kl, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(health.mean_variance, mean.var(0, correction=0), rtol=1e-3, atol=1e-8)
    x = model.preprocess(stored)
    residual = (x - model.decode_batch(mean.float())).square().sum()
    explained = 1 - residual / (x - x.mean()).square().sum()
    assert health.attrs["explained_variance"] == pytest.approx(float(explained), rel=1e-4, abs=1e-6)
    assert health.attrs["n_samples"] == len(stored)


@pytest.mark.parametrize(
    ("n_active", "explained", "words"),
    [
        (0, 0.2, "Posterior collapse: none of the 32"),
        (3, 0.2, "Only 3 of 32"),
        (30, -0.1, "explains none"),
        (30, 0.4, None),
    ],
)
def test_warnings_say_it_in_words(n_active: int, explained: float, words: str | None) -> None:
    found = health_warnings(n_active, 32, explained)
    assert (words is None and not found) or words in found[0]  # type: ignore[operator]


def test_a_collapsed_model_is_reported(trained_store: Path) -> None:
    model = va.load_model(trained_store)
    with torch.no_grad():
        for parameter in model.network.to_posterior.parameters():
            parameter.zero_()
    ds = open_store(trained_store, chunks=None)
    health = latent_health(model, batches(ds, roi=ds.roi))
    assert health.attrs["n_active"] == 0
    assert "collapse" in health.attrs["warnings"][0]
    assert float(health.kl.sum()) == 0
