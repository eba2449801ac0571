"""Latent statistics and held-out ELBO against direct formulae, warnings in words, the rule of one
standard error.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import NoInputError
from vaearr.run.statistics import (
    _standard_error,
    held_out,
    prior_warnings,
    recommend,
    score_run,
    statistics_of,
)
from vaearr.store.remove import remove


def test_an_autoencoder_has_no_posterior(collection: Path) -> None:
    found = va.load_run(collection, "ae").statistics()
    assert found["kl"].values.tolist() == [0, 0, 0]
    assert np.isnan(found["logvar_mean"]).all()
    assert "no prior" in found.attrs["warnings"][0]


def _statistics(mean: np.ndarray, std: np.ndarray) -> xr.Dataset:
    posterior = (
        xr.DataArray(values, dims=("sample", "latent")).chunk(sample=1000) for values in (mean, std)
    )
    return statistics_of(*posterior, ("sample",))


def test_warnings_tell_when_the_prior_is_not_the_data() -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(0, 0.8, (4000, 4)), np.full((4000, 4), 0.6)
    assert prior_warnings(_statistics(mean, std)) == []
    found = prior_warnings(_statistics(mean * [1, 1, 3, 1] + [0, 0, 0, 2], std))
    assert "in 2 of 4 dimensions (2, 3)" in found[0]
    assert "Posterior collapse" in prior_warnings(_statistics(0 * mean, 0 * std + 1))[0]
    np.testing.assert_allclose(
        _statistics(1e7 + mean, std)["std"], mean.std(0), rtol=1e-6
    )  # nothing cancels


def test_elbo_is_that_of_the_formula(trained_store: Path) -> None:
    found, ds = held_out(va.load_run(trained_store)), xr.open_zarr(trained_store).load()
    size = ds.sizes["dy"] * ds.sizes["dx"]
    variance = float(ds["reconstruction_error"].where(ds["split"] == 1).mean())
    elbos = []
    for y, x in np.argwhere(ds["split"].values == 2):
        mean, std = (ds[name].values[y, x].astype(float) for name in ("latents", "latents_std"))
        kl = sum(0.5 * (m * m + s * s - 1) - math.log(s) for m, s in zip(mean, std, strict=True))
        squares = size * float(ds["reconstruction_error"].values[y, x])
        elbos.append(-0.5 * size * math.log(2 * math.pi * variance) - squares / (2 * variance) - kl)
    assert found["elbo"] == pytest.approx(np.mean(elbos), rel=1e-6)
    assert found["n"] == len(elbos)
    assert 1 < (found["n_groups"] or 0) < len(elbos)
    row = score_run(va.load_run(trained_store))
    assert (row["run"], row["latent_dim"], row["beta"], row["epochs"]) == ("vae", 3, 1.0, 2)
    remove(trained_store, "latents")
    with pytest.raises(NoInputError, match="no latents; write it with 'vaearr encode"):
        held_out(va.load_run(trained_store))


def test_standard_error_takes_groups_as_independent() -> None:
    rng, label = np.random.default_rng(0), np.repeat(np.arange(40), 9)
    draws = [rng.normal(size=40)[label] + 0.3 * rng.normal(size=label.size) for _ in range(400)]
    claimed = np.mean([_standard_error(values, label) for values in draws])
    assert claimed == pytest.approx(np.std([values.mean() for values in draws]), rel=0.1)
    single = np.arange(5.0)
    assert _standard_error(single, np.arange(5)) == pytest.approx(single.std(ddof=1) / math.sqrt(5))
    assert _standard_error(single, np.zeros(5, int)) is None


def _row(size: int, elbo: float, se: float | None, beta: float = 1.0) -> dict[str, Any]:
    return {"latent_dim": size, "elbo": elbo, "elbo_se": se, "beta": beta}


def test_the_fewest_within_one_standard_error() -> None:
    rows = [
        _row(32, -100.0, 2.0),
        _row(8, -101.9, 9.0),
        _row(4, -102.1, 9.0),
        _row(8, -101.0, 1.0, beta=0.5),
    ]
    assert (recommend(rows)["latent_dim"], recommend(rows)["beta"]) == (
        8,
        0.5,
    )  # of two alike in size the better
    assert recommend([_row(4, -101.0, 50.0), _row(8, -100.0, None)])["latent_dim"] == 8
    with pytest.raises(NoInputError, match="no run to recommend"):
        recommend([])
