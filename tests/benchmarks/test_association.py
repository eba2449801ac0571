"""The seven metrics against their formulae with matrices of pairs, and over a whole field: `make
bench`.

VAEARR_BENCH_ASSOCIATION=118000x64 sets points and latents of the field, VAEARR_BENCH_LATENTS=512
the latents of the ratio. The formulae are those of the first seed system; one latent takes seconds,
so few are timed and scaled up. Nothing here can fail on speed. Read the table.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from sklearn.feature_selection import mutual_info_regression

import vaearr as va

from ..contract.test_association import partial, terms

pytestmark = pytest.mark.benchmarks

SIDE = 70  # n = 4900
LATENTS = int(os.environ.get("VAEARR_BENCH_LATENTS", "512"))
N_FIELD, L_FIELD = map(int, os.environ.get("VAEARR_BENCH_ASSOCIATION", "118000x64").split("x"))
N_DENSE = 2


def data(n: int, n_latents: int) -> tuple[xr.DataArray, xr.DataArray]:
    """Latents `(y, x, latent)` and a map of 8 bits that follows the first of them, over about n
    points.
    """
    rng, side = np.random.default_rng(0), int(np.sqrt(n))
    latents = rng.normal(size=(n // side, side, n_latents)).astype("f4")
    target = (
        np.round(60 + 20 * (latents[..., 0] + rng.normal(size=latents.shape[:2])))
        .clip(0, 255)
        .astype("f4")
    )
    return xr.DataArray(latents, dims=("y", "x", "latent")), xr.DataArray(
        target, dims=("y", "x"), name="BC"
    )


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    a, b = (np.abs(np.subtract.outer(v, v)) for v in (x, y))
    a, b = (m - m.mean(axis=0) - m.mean(axis=1)[:, None] + m.mean() for m in (a, b))
    return float(np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean())))


def hsic(x: np.ndarray, y: np.ndarray) -> float:
    distances = [np.abs(np.subtract.outer(v, v)) for v in (x, y)]
    a, b = (np.exp(-(d**2) / (2 * np.median(d[d > 0]) ** 2 + 1e-12)) for d in distances)
    centre = np.eye(x.size) - 1 / x.size
    return float(np.trace(a @ centre @ b @ centre) / (x.size - 1) ** 2)


ROWS = terms(*(axis.ravel().astype(float) for axis in np.indices((SIDE, SIDE))), 1)
FORMULAE: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "pearson": lambda x, y: float(scipy.stats.pearsonr(x, y).statistic),
    "spearman": lambda x, y: float(scipy.stats.spearmanr(x, y).statistic),
    "kendall": lambda x, y: float(scipy.stats.kendalltau(x, y).statistic),
    "mutual_information": lambda x, y: float(
        mutual_info_regression(x[:, None], y, n_neighbors=7, random_state=0)[0]
    ),
    "distance_correlation": distance_correlation,
    "hsic": hsic,
    "partial_pearson": lambda x, y: partial(x, y, ROWS),
}


def test_many_latents_against_the_formulae() -> None:
    latents, target = data(SIDE**2, LATENTS)
    values = va.associate(latents[..., :N_DENSE], target)  # compiled once
    y, total = target.values.ravel().astype("f8"), 0.0
    print(f"\n{LATENTS} latents, n = {SIDE**2} (the formulae: {N_DENSE} latents, scaled)")
    for name, formula in FORMULAE.items():
        began = time.perf_counter()
        found = [formula(latents.values[..., i].ravel().astype("f8"), y) for i in range(N_DENSE)]
        theirs = (time.perf_counter() - began) * LATENTS / N_DENSE
        total += theirs
        np.testing.assert_allclose(values.sel(metric=name), found, rtol=1e-9)
        ours = seconds(lambda name=name: va.associate(latents, target, [name]))
        print(f"{name:24} {ours:9.2f} s   formula {theirs:9.1f} s   ratio {theirs / ours:8.1f}")
    ours = seconds(lambda: va.associate(latents, target))
    print(
        f"{'all':24} {ours:9.2f} s   formula {total:9.1f} s   ratio {total / ours:8.1f}   (target 200)"
    )


@contextmanager
def peak(found: list[float]) -> Iterator[None]:
    """Largest resident memory while it runs, less that before, in MB."""

    def resident() -> float:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    before, done = resident(), threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            found.append(resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def test_whole_field() -> None:
    latents, target = data(N_FIELD, L_FIELD)
    va.associate(latents[:10, :10], target[:10, :10])
    memory: list[float] = []
    with peak(memory):
        took = seconds(lambda: va.associate(latents, target))
    print(
        f"\n{L_FIELD} latents, n = {target.size}, all seven: {took:.1f} s, peak memory {max(memory):.0f} MB above the "
        f"{(latents.nbytes + target.nbytes) / 1e6:.0f} MB of data"
    )
