"""Held-out ELBO against its formula, its standard error against a simulation, the rule of one standard error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from vaearr.errors import NoInputError
from vaearr.run.statistics import _standard_error, held_out, recommend, score_run
from vaearr.store.remove import remove


def test_elbo_is_that_of_the_formula(trained_store: Path) -> None:
    found = held_out(trained_store, "vae")
    ds = xr.open_zarr(trained_store).load()
    validation, train = ds["split"] == 2, ds["split"] == 1
    size = ds.sizes["dy"] * ds.sizes["dx"]
    variance = float(ds["reconstruction_error"].where(train).mean())
    elbos = []
    for y, x in np.argwhere(validation.values):
        mean, std = (ds[name].values[y, x].astype(float) for name in ("latents", "latents_std"))
        kl = sum(0.5 * (m * m + s * s - 1) - math.log(s) for m, s in zip(mean, std, strict=True))
        squares = size * float(ds["reconstruction_error"].values[y, x])
        elbos.append(-0.5 * size * math.log(2 * math.pi * variance) - squares / (2 * variance) - kl)
    assert found["elbo"] == pytest.approx(np.mean(elbos), rel=1e-6)
    assert found["n"] == len(elbos)
    assert 1 < (found["n_groups"] or 0) < len(elbos)


def test_standard_error_takes_groups_as_independent() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(40), 9)
    draws = [rng.normal(size=40)[label] + 0.3 * rng.normal(size=label.size) for _ in range(400)]
    spread = np.std([values.mean() for values in draws])
    claimed = np.mean([_standard_error(values, label) for values in draws])
    assert claimed == pytest.approx(spread, rel=0.1)
    single = np.arange(5.0)
    assert _standard_error(single, np.arange(5)) == pytest.approx(single.std(ddof=1) / math.sqrt(5))
    assert _standard_error(single, np.zeros(5, int)) is None


def _row(size: int, elbo: float, se: float | None, beta: float = 1.0) -> dict[str, Any]:
    return {"latent_dim": size, "elbo": elbo, "elbo_se": se, "beta": beta}


def test_the_fewest_within_one_standard_error() -> None:
    rows = [_row(32, -100.0, 2.0), _row(8, -101.9, 9.0), _row(4, -102.1, 9.0), _row(8, -101.0, 1.0, beta=0.5)]
    assert recommend(rows)["latent_dim"] == 8
    assert recommend(rows)["beta"] == 0.5  # of two alike in size the better
    assert recommend([_row(4, -101.0, 50.0), _row(8, -100.0, None)])["latent_dim"] == 8
    with pytest.raises(NoInputError, match="no run to recommend"):
        recommend([])


def test_a_row_says_what_was_trained(trained_store: Path) -> None:
    row = score_run(trained_store, "vae")
    assert (row["run"], row["latent_dim"], row["beta"], row["epochs"]) == ("vae", 3, 1.0, 2)
    assert 0 <= row["n_active"] <= 3


def test_a_run_without_latents_is_refused(trained_store: Path) -> None:
    remove(trained_store, variables=["latents_std"])
    with pytest.raises(NoInputError, match="no latents_std; write it with 'vaearr encode"):
        held_out(trained_store, "vae")
