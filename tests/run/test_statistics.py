"""Latent statistics against direct formulae, and warnings in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr

import vaearr as va
from vaearr.run.statistics import Sums, prior_warnings, statistics_of
from vaearr.store import open_store, open_table

from ..store.test_store import tree_hash


def test_statistics_equal_the_formulae(trained_store: Path) -> None:
    ds, before = open_store(trained_store, chunks=None), tree_hash(trained_store)
    found = va.latent_statistics(trained_store)
    assert tree_hash(trained_store) == before
    inside = ds["roi"].values
    means, std = (ds[name].values[inside].astype("f8") for name in ("latents", "latents_std"))
    assert found.attrs["n"] == inside.sum()
    for name, want in {
        "mean": means.mean(0),
        "std": means.std(0),
        "min": means.min(0),
        "max": means.max(0),
        "logvar_mean": 2 * np.log(std).mean(0),
        "logvar_std": 2 * np.log(std).std(0),
        "aggregate_std": np.sqrt(means.var(0) + (std**2).mean(0)),
    }.items():
        np.testing.assert_allclose(found[name], want, rtol=1e-6, atol=1e-9, err_msg=name)
    normal = torch.distributions.Normal(torch.from_numpy(means), torch.from_numpy(std))
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean(0)
    np.testing.assert_allclose(found["kl"], kl, rtol=1e-6)
    whole = torch.distributions.MultivariateNormal(
        torch.from_numpy(means.mean(0)), torch.from_numpy(np.cov(means.T, bias=True) + np.diag((std**2).mean(0)))
    )
    unit = torch.distributions.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    np.testing.assert_allclose(
        found.attrs["aggregate_kl_total"], torch.distributions.kl_divergence(whole, unit), rtol=1e-6
    )


def test_statistics_are_kept_on_request(trained_store: Path) -> None:
    found = va.latent_statistics(trained_store, write=True)
    kept = open_table(trained_store, "vae", "latent_statistics")
    xr.testing.assert_equal(kept, found)
    assert kept.attrs["warnings"] == found.attrs["warnings"]
    va.latent_statistics(trained_store, write=True)


def test_an_autoencoder_has_no_posterior(collection: Path) -> None:
    found = va.latent_statistics(collection, "ae", write=True)
    assert found["kl"].values.tolist() == [0, 0, 0]
    assert np.isnan(found["logvar_mean"]).all()
    assert "no prior" in found.attrs["warnings"][0]
    assert open_table(collection, "ae", "latent_statistics")["latent"].sizes == {"latent": 3}


def _statistics(mean: np.ndarray, std: np.ndarray) -> xr.Dataset:
    sums = Sums()
    for part in np.array_split(np.arange(len(mean)), 3):
        sums.add(mean[part], std[part])
    return statistics_of(sums)


def test_warnings_tell_when_the_prior_is_not_the_data() -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(0, 0.8, (4000, 4)), np.full((4000, 4), 0.6)
    assert prior_warnings(_statistics(mean, std)) == []
    found = prior_warnings(_statistics(mean * [1, 1, 3, 1] + [0, 0, 0, 2], std))
    assert "in 2 of 4 dimensions (2, 3)" in found[0]
    assert "Posterior collapse" in prior_warnings(_statistics(0 * mean, 0 * std + 1))[0]


def test_large_offsets_do_not_cancel() -> None:
    rng = np.random.default_rng(0)
    mean = 1e7 + rng.normal(size=(999, 2))
    np.testing.assert_allclose(_statistics(mean, np.ones_like(mean))["std"], mean.std(0), rtol=1e-6)
