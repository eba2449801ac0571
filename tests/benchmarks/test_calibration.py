"""How often does each metric find something between smooth maps that know nothing of each other?

Maps of 24 x 28 points, white noise smoothed by a Gaussian of 1 to 4 steps: the share of p-values at
most 0.05 of all draws, its standard error, and the share of draws without a p-value (too few
effective points). `pytest tests/benchmarks/test_calibration.py -m benchmarks -s`;
VAEARR_BENCH_DRAWS sets the number of draws.
"""

from __future__ import annotations

import os

import dask
import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

import vaearr as va
from vaearr.analysis.association import METRICS
from vaearr.config import SignificanceConfig

pytestmark = pytest.mark.benchmarks

SHAPE, MARGIN, LEVEL = (24, 28), 40, 0.05
DRAWS = int(os.environ.get("VAEARR_BENCH_DRAWS", "400"))
HIGHEST_RATE = 0.065


def smooth_map(rng: np.random.Generator, sigma: float) -> np.ndarray:
    noise = rng.standard_normal([size + 2 * MARGIN for size in SHAPE])
    inside = tuple(slice(MARGIN, MARGIN + size) for size in SHAPE)
    return np.asarray(gaussian_filter(noise, sigma)[inside])


def p_values(sigma: float, effect: float = 0.0, draws: int = DRAWS) -> np.ndarray:
    """p-values (draw, metric) of pairs of smooth maps; the target holds `effect` times the latent."""
    rng = np.random.default_rng(int(10 * sigma))
    metrics, found = list(METRICS), []
    with dask.config.set(scheduler="synchronous"):
        for seed in range(draws):
            latent, target = smooth_map(rng, sigma), smooth_map(rng, sigma)
            config = SignificanceConfig(n_surrogates=99, seed=seed)
            latents = xr.DataArray(latent[..., None], dims=("y", "x", "latent"))
            tested = va.associate(
                latents,
                xr.DataArray(target + effect * latent, dims=("y", "x")),
                metrics,
                significance=config,
            )
            found.append(tested.p_value.values.ravel())
    return np.array(found)


@pytest.mark.parametrize("sigma", [3, 4, 2, 1])
def test_smooth_maps_that_know_nothing_of_each_other(sigma: float) -> None:
    found = p_values(sigma)
    rates, without = (found <= LEVEL).mean(axis=0), np.isnan(found).mean(axis=0)
    print(
        f"\nsigma {sigma}, {DRAWS} draws: share of p <= {LEVEL} (standard error), share without a p-value"
    )
    for name, rate, share in zip(METRICS, rates, without, strict=True):
        error = np.sqrt(rate * (1 - rate) / DRAWS)
        print(f"  {name:32} {rate:.3f} ({error:.3f})  {share:.2f}", flush=True)
    assert rates.max() <= HIGHEST_RATE


def test_a_true_effect_is_found() -> None:
    found = p_values(1, effect=1.0, draws=20)
    power = (found <= LEVEL).mean(axis=0)
    print(
        f"\nr about 0.7, 20 draws: share found {dict(zip(METRICS, power.round(2).tolist(), strict=True))}"
    )
    assert power.min() > 0.9
