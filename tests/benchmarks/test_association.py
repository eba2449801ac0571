"""The seven metrics against their formulae with matrices of pairs, and over a whole field: `make bench`.

VAEARR_BENCH_ASSOCIATION=118000x64 sets points and latents of the field, VAEARR_BENCH_LATENTS=512 the latents of the
ratio. The formulae are those of the first seed system; one latent takes seconds, so few are timed and scaled up.
Nothing here can fail on speed. Read the table.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from vaearr.association.metrics import apply, choose

from ..association import reference

pytestmark = pytest.mark.benchmarks

SIDE = 70  # n = 4900
LATENTS = int(os.environ.get("VAEARR_BENCH_LATENTS", "512"))
N_FIELD, L_FIELD = map(int, os.environ.get("VAEARR_BENCH_ASSOCIATION", "118000x64").split("x"))
N_DENSE = 2
RESULTS: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    print("\n" + "\n".join(RESULTS))


def _data(n: int, n_latents: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(n, n_latents)).astype("f4")
    target = np.round(60 + 20 * (latents[:, :1] + rng.normal(size=(n, 1)))).clip(0, 255).astype("f4")
    side = int(np.ceil(np.sqrt(n)))
    return latents, target, np.stack(np.divmod(np.arange(n), side), axis=1).astype("f8")


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    a, b = (np.abs(np.subtract.outer(v, v)) for v in (x, y))
    a, b = (m - m.mean(axis=0) - m.mean(axis=1)[:, None] + m.mean() for m in (a, b))
    return float(np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean())))


def _hsic(x: np.ndarray, y: np.ndarray) -> float:
    n = x.size
    grams = []
    for v in (x, y):
        distance = np.abs(np.subtract.outer(v, v))
        sigma = np.median(distance[distance > 0])
        grams.append(np.exp(-(distance**2) / (2 * sigma**2 + 1e-12)))
    centre = np.eye(n) - 1 / n
    return float(np.trace(grams[0] @ centre @ grams[1] @ centre) / (n - 1) ** 2)


def _formulae(positions: np.ndarray) -> dict[str, Callable[[np.ndarray, np.ndarray], float]]:
    return {
        "pearson": reference.PAIRWISE["pearson"],
        "spearman": reference.PAIRWISE["spearman"],
        "kendall": reference.kendall,
        "mutual_information": reference.mutual_information,
        "distance_correlation": _distance_correlation,
        "hsic": _hsic,
        "partial_pearson": lambda x, y: reference.partial_pearson(x, y, positions, 1),
    }


def test_many_latents_against_the_formulae() -> None:
    latents, target, positions = _data(SIDE**2, LATENTS)
    apply(choose("all"), latents[:100, :1], target[:100], positions[:100])  # compiled once
    ours, theirs = {}, {}
    for name in [*_formulae(positions), "all"]:
        ours[name] = _seconds(lambda name=name: apply(choose(name), latents, target, positions))
    values = apply(choose("all"), latents[:, :N_DENSE], target, positions)[0][..., 0]
    y = target[:, 0].astype("f8")
    for m, (name, formula) in enumerate(_formulae(positions).items()):
        began = time.perf_counter()
        found = [formula(latents[:, i].astype("f8"), y) for i in range(N_DENSE)]
        theirs[name] = (time.perf_counter() - began) * LATENTS / N_DENSE
        np.testing.assert_allclose(values[m], found, rtol=1e-9)
    theirs["all"] = sum(theirs.values())
    RESULTS.append(f"{LATENTS} latents, n = {SIDE**2} (the formulae: {N_DENSE} latents, scaled)")
    for name, seconds in ours.items():
        RESULTS.append(
            f"{name:24} {seconds:9.2f} s   formula {theirs[name]:9.1f} s   ratio {theirs[name] / seconds:8.1f}"
            + ("   (target 200)" if name == "all" else "")
        )


@contextmanager
def _peak(found: list[float]) -> Iterator[None]:
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
    latents, target, positions = _data(N_FIELD, L_FIELD)
    apply(choose("all"), latents[:100, :1], target[:100], positions[:100])
    memory: list[float] = []
    with _peak(memory):
        seconds = _seconds(lambda: apply(choose("all"), latents, target, positions))
    RESULTS.append(
        f"{L_FIELD} latents, n = {N_FIELD}, all seven: {seconds:.1f} s, peak memory {max(memory):.0f} MB above the "
        f"{(latents.nbytes + target.nbytes + positions.nbytes) / 1e6:.0f} MB of data"
    )
