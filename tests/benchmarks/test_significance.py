"""Are the p-values of maps uniform where nothing is to be found? Rejection rates and quantiles, printed: `make bench`.

VAEARR_BENCH_TARGETS sets the number of target maps per row (default 100, with two latents each). With
VAEARR_BENCH_FIGURES=<folder> the calibration curves are saved there as `significance.png`. Nothing here can fail on
a rate; the suite's own test holds a bound.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.config import SignificanceConfig

from ..contract.null_maps import (
    SHAPE,
    Draw,
    gaussian_maps,
    grains,
    null_p_values,
    skewed,
    two_classes,
    with_trend,
)

pytestmark = pytest.mark.benchmarks

TARGETS = int(os.environ.get("VAEARR_BENCH_TARGETS", "100"))
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
RESULTS: dict[tuple[str, str], dict[str, np.ndarray]] = {}

NULLS: dict[str, Draw] = {
    "white noise": lambda rng, k: rng.standard_normal((k, *SHAPE)),
    "smooth, length 1": lambda rng, k: gaussian_maps(rng, k, 1),
    "smooth, length 2": lambda rng, k: gaussian_maps(rng, k, 2),
    "smooth, length 4": lambda rng, k: gaussian_maps(rng, k, 4),
    "smooth, length 8": lambda rng, k: gaussian_maps(rng, k, 8),
    "rough, length 3": lambda rng, k: gaussian_maps(rng, k, 3, kind="exponential"),
    "rough, length 10": lambda rng, k: gaussian_maps(rng, k, 10, kind="exponential"),
    "stretched 2 x 6": lambda rng, k: gaussian_maps(rng, k, 2, stretch=3),
    "skewed, length 3": lambda rng, k: skewed(gaussian_maps(rng, k, 3)),
    "two classes, length 4": lambda rng, k: two_classes(gaussian_maps(rng, k, 4)),
    "80 grains": lambda rng, k: grains(rng, k, 80),
    "trend + length 2": lambda rng, k: with_trend(gaussian_maps(rng, k, 2), rng),
}


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    head = "  ".join(f"q{100 * q:02.0f}" for q in QUANTILES)
    print(f"\n{'null maps':24}{'region':11}  p<=5 %  naive    {head}  (quantiles of p)")
    for (null, region), found in RESULTS.items():
        p = found["p_value"][np.isfinite(found["p_value"])]  # none of maps that are too smooth
        if not p.size:
            print(f"{null:24}{region:11}  too smooth")
            continue
        row = "  ".join(f"{q:.2f}"[1:] for q in np.minimum(np.quantile(p, QUANTILES), 0.99))
        rates = f"{np.mean(p <= 0.05):6.1%}  {np.mean(found['p_naive'] <= 0.05):5.0%}"
        print(f"{null:24}{region:11}  {rates}    {row}")
    if folder := os.environ.get("VAEARR_BENCH_FIGURES"):
        _figure(Path(folder))


@pytest.mark.parametrize("irregular", [False, True], ids=["full", "irregular"])
@pytest.mark.parametrize("null", NULLS)
def test_spectrum_is_calibrated(null: str, irregular: bool) -> None:
    region = "irregular" if irregular else "full"
    RESULTS[null, region] = null_p_values(NULLS[null], TARGETS, irregular=irregular, seed=1)


def test_time_of_a_full_field() -> None:
    """VAEARR_BENCH_POINTS=118000 VAEARR_BENCH_LATENTS=64 for a full scan."""
    points, n_latents = (int(os.environ.get(f"VAEARR_BENCH_{k}", d)) for k, d in (("POINTS", 20000), ("LATENTS", 16)))
    shape = (int(np.sqrt(points * 0.75)), int(np.sqrt(points / 0.75)))
    maps = gaussian_maps(np.random.default_rng(0), n_latents + 1, 4, shape=shape)
    latents = xr.DataArray(np.moveaxis(maps[1:], 0, -1), dims=("y", "x", "latent"))
    began = time.perf_counter()
    va.significance(
        latents, xr.DataArray(maps[0], dims=("y", "x")), ["pearson", "spearman"], None, SignificanceConfig()
    )
    print(f"\n199 surrogates, {shape[0]} x {shape[1]} points, {n_latents} latents: {time.perf_counter() - began:.1f} s")


def _figure(folder: Path) -> None:
    """Sorted p-values against what they should be: on the diagonal where the test keeps its promise."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, title) in zip(
        figure.subplots(1, 2),
        (("p_value", "surrogate maps"), ("p_naive", "as if points were independent")),
        strict=True,
    ):
        for key, found in RESULTS.items():
            p = np.sort(found[name][np.isfinite(found[name])])
            if key[1] == "irregular":
                axes.plot((np.arange(p.size) + 0.5) / p.size, p, label=key[0], lw=1)
        axes.plot([0, 1], [0, 1], "k:", lw=1)
        axes.set(xlabel="expected p-value", ylabel="p-value under the null", title=title, aspect="equal")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=7)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "significance.png", dpi=150)
