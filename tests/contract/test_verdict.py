"""Whether the latents can be trusted: the noise of simulated scans against the truth, and the
verdicts on good and bad runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.testing import synthetic_scan
from vaearr.training.verdict import still_falls, verdict

from .harness import TINY, vaearr

SCAN: dict[str, Any] = {"nx": 18, "ny": 14, "pattern_shape": (24, 24), "n_grains": 4}
NO_SHARES = {"explained_beyond_mean": None, "explained_beyond_mean_pca": None}
SPLIT = ("--set", "split.fraction=0.3")


def true_noise(seed: int, dose: float) -> float:
    """Variance of the noise after the preprocessing of a scan, from its expected patterns."""
    scans = [
        synthetic_scan(**SCAN, seed=seed, dose=dose, noise=noise).patterns.values.astype(float)
        for noise in (True, False)
    ]
    background = scans[0].mean((0, 1))
    noisy, expected = (scan / background for scan in scans)
    noise = noisy - expected
    noise -= noise.mean((2, 3), keepdims=True)
    return float((noise / noisy.std((2, 3), keepdims=True)).var())


@pytest.mark.parametrize(("seed", "dose"), [(1, 40.0), (2, 250.0), (3, 1000.0)])
def test_the_noise_is_that_of_the_simulation(tmp_path: Path, seed: int, dose: float) -> None:
    store = tmp_path / "a.zarr"
    va.ingest(synthetic_scan(**SCAN, seed=seed, dose=dose), store)
    health = va.train(store, model={"name": "pca"}, latent_dim=2).health.attrs
    assert health["noise_variance"] == pytest.approx(true_noise(seed, dose), rel=0.1)
    assert health["noise_share"] == pytest.approx(health["noise_variance"], rel=0.01)  # z-scores


@pytest.fixture(scope="module")
def scan_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("verdict") / "scan.zarr"
    va.ingest(synthetic_scan(**SCAN, seed=5, dose=400.0), store)
    return store


@pytest.mark.parametrize(
    ("kind", "words", "options"),
    [
        ("good", "can be trusted", ["--model", "pca", "--latent-dim", 6]),
        ("overfitted", "overfitted", ["--model", "pca", "--latent-dim", 80]),
        (
            "collapsed",
            "Next: train longer (epochs=4), and if they",
            [*TINY, "--epochs", 2, "--beta", 10_000],
        ),
    ],
)
def test_good_and_bad_runs_are_distinguished(
    scan_store: Path, kind: str, words: str, options: list[Any]
) -> None:
    done = vaearr("train", scan_store, "--run", kind, *SPLIT, *options)
    run = va.load_run(scan_store, kind)
    text_of_run = run.health.attrs["verdict"]
    assert run.health.attrs["verdict_kind"] == kind
    assert words in text_of_run
    assert ("Next: " in text_of_run) == (kind != "good")
    for text in (done.err, repr(run), vaearr("info", scan_store).out):
        assert text.count(text_of_run) == 1
    again = vaearr("train", scan_store, "--run", kind, *SPLIT, *options)
    assert text_of_run in again.err


def test_a_training_that_ended_too_early_is_recognised() -> None:
    facts = {
        "n_active": 32,
        "explained_signal": 0.28,
        "explained_signal_pca": 0.88,
        "training_signal": 0.38,
        "noise_share": 0.62,
    }
    for losses, kind, words in (
        ([9.0, 7.0, 6.0, 5.0], "undertrained", "train longer (epochs=8)"),
        ([9.0, 5.02, 5.01, 5.0], "worse", "28% of the signal (PCA with 32 components: 88%)"),
        ([9.0, 7.0, 5.0, 6.0], "worse", "PCA is better"),
    ):
        history = xr.Dataset({"val_loss": ("epoch", losses)})
        falls = still_falls(history, 4)
        found = verdict(facts, 32, is_falling=falls, epochs=4)
        assert found["verdict_kind"] == kind
        assert words in found["verdict"]
    assert not still_falls(history, 5)  # stopped early
    lost = verdict(facts | {"explained_signal": 0.3, "explained_signal_pca": 0.2}, 32)
    assert "most of the signal" in lost["verdict"]
    noisy = verdict(facts | {"explained_signal": None} | NO_SHARES, 32)
    assert "nearly all" in noisy["verdict"]
    useless = verdict(facts | {"explained_signal": -0.1}, 32)
    assert "explain none of the signal" in useless["verdict"]


def test_a_vae_is_compared_with_as_many_components(scan_store: Path) -> None:
    """The share of the signal is no fit to noise: PCA of many dims gains nothing by it."""
    few = va.train(
        scan_store, run="few", split={"fraction": 0.3}, model={"name": "pca"}, latent_dim=6
    )
    ae = va.train(
        scan_store,
        run="ae",
        split={"fraction": 0.3},
        model={"name": "conv_ae"},
        latent_dim=6,
        epochs=1,
    )
    share = few.health.attrs["explained_signal"]
    assert ae.health.attrs["explained_signal_pca"] == pytest.approx(share, abs=0.02)
    assert ae.health.attrs["n_pca_samples"] > 100
    assert few.health.attrs["explained_signal_pca"] is None
    assert 0 < few.health.attrs["explained_signal_error"] < 0.1


def test_a_collection_has_no_neighbours(tmp_path: Path) -> None:
    store = tmp_path / "digits.zarr"
    vaearr("ingest", "sklearn:digits", store, "--n-samples", 120)
    vaearr("train", store, "--model", "pca", "--latent-dim", 6)
    health = va.load_run(store).health.attrs
    assert health["noise_variance"] is health["explained_signal"] is None
    assert health["measured_on"] == "training"
    assert "of the variance of the training samples about the mean sample" in health["verdict"]
    run = va.load_run(store)
    samples = run.ds.patterns.values[run.ds.split.values == 1].astype(float)
    residual = samples - np.asarray(run.model.reconstruct(samples.astype("f4")))
    expected = 1 - (residual**2).mean() / (samples - samples.mean(0)).var()
    assert health["explained_beyond_mean"] == pytest.approx(expected, abs=0.01)


def test_a_model_that_is_worse_than_the_mean_image_is_not_trusted() -> None:
    facts = {"n_active": 8, "noise_share": None, "explained_signal": None, "training_signal": None}
    found = verdict(facts | {"explained_beyond_mean": -0.4, "explained_beyond_mean_pca": None}, 8)
    assert found["verdict_kind"] == "useless"
    assert "explain none of the variance about the mean sample" in found["verdict"]


def test_runs_of_earlier_versions_have_no_verdict(scan_store: Path) -> None:
    options = ("--run", "old", "--model", "pca", "--latent-dim", 3)
    vaearr("train", scan_store, *options)
    for file in ("runs/old/health/zarr.json", "runs/old/zarr.json", "zarr.json"):
        path = scan_store / file
        text = json.loads(path.read_text())
        _remove_verdict(text)
        path.write_text(json.dumps(text))
    assert "verdict" not in va.load_run(scan_store, "old").health.attrs
    assert "active dimensions" in repr(va.load_run(scan_store, "old"))
    vaearr("train", scan_store, *options)


def _remove_verdict(value: Any) -> None:
    if isinstance(value, dict):
        value.pop("verdict", None)
        value.pop("verdict_kind", None)
        for item in value.values():
            _remove_verdict(item)


def test_the_noise_of_a_scan_is_not_that_of_chosen_neighbours() -> None:
    """Choosing the most similar neighbour on the pixels that are compared would select noise."""
    import torch

    from vaearr.models.signal import Patterns, explained_signal, similar_pairs

    rng = np.random.default_rng(0)
    points = np.argwhere(np.ones((12, 12), bool))
    noise = torch.from_numpy(rng.standard_normal((144, 1, 8, 8), np.float32))
    signal = torch.from_numpy(rng.standard_normal((1, 1, 8, 8), np.float32))
    signs = torch.from_numpy(np.where(points[:, 0] < 6, 1.0, -1.0)).float().view(-1, 1, 1, 1)
    patterns = Patterns(noise + signs * signal, torch.ones(144), points)
    pairs = similar_pairs(patterns)
    assert pairs is not None
    assert float(pairs.noise.mean()) == pytest.approx(1, rel=0.03)
    perfect = explained_signal(patterns, pairs, signs * signal)
    memorised = explained_signal(patterns, pairs, patterns.values)
    nothing = explained_signal(patterns, pairs, 0 * patterns.values)
    assert perfect is not None
    assert memorised is not None
    assert nothing is not None
    assert perfect.signal == pytest.approx(1, abs=0.05)
    assert memorised.signal < 0.3
    assert memorised.own > 1.5
    assert nothing.signal == pytest.approx(0, abs=0.05)
