"""A run as one object: it opens only what is asked for, and does what a trained model can."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vaearr as va
from vaearr.errors import NoInputError

from .harness import HAS_MONAI, attributes, zarr

LAZY = """
import sys, vaearr as va
run = va.load_run(sys.argv[1])
print(run, run._repr_html_(), run.config, run.ds, run.history, run.health)
print("torch" in sys.modules)
run.model
print("torch" in sys.modules)
"""


def test_nothing_is_opened_before_it_is_needed(trained_template: Path) -> None:
    asked = [sys.executable, "-c", LAZY, str(trained_template)]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[-2:] == ["False", "True"]


def test_it_says_in_a_few_lines_what_it_is(trained_template: Path, known_template: Path) -> None:
    run = va.load_run(trained_template, "vae")
    text = repr(run)
    assert len([line for line in text.splitlines() if not line.startswith("warning")]) <= 6
    for words in ("'vae'", str(trained_template), "conv, 3 latent", "best epoch", "latents"):
        assert words in text
    html = run._repr_html_()
    assert html.count("<tr>") >= 4
    assert "best epoch" in html
    assert "none" in repr(va.load_run(known_template, "theirs"))


def test_its_fields_are_those_of_the_store(trained_template: Path) -> None:
    run = va.load_run(trained_template)
    assert (run.path, run.name) == (trained_template, "vae")
    assert (
        run.manifest["weights_sha256"]
        == attributes(trained_template / "runs" / "vae")["weights_sha256"]
    )
    assert run.config["model"]["latent_dim"] == 3
    np.testing.assert_array_equal(
        run.history["loss"], zarr(trained_template, "runs/vae/history")["loss"]
    )
    np.testing.assert_array_equal(run.health["kl"], zarr(trained_template, "runs/vae/health")["kl"])
    assert "latents" in run.ds


def test_what_is_trained_is_encoded_by_its_run(scan_store: Path) -> None:
    options = {"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4}
    run = va.train(
        scan_store, run="b", model={"options": options}, latent_dim=3, epochs=1, device="cpu"
    )
    assert run.history.sizes["epoch"] == 1
    assert run.health.sizes["latent"] == 3
    assert "not encoded yet" in repr(run)
    run.encode(device="cpu")
    assert "latents_b" in run.ds
    assert "not encoded yet" not in repr(run)
    assert run.sample(2, source="fitted").sizes["sample"] == 2
    again = va.load_run(scan_store, "b")
    assert again.manifest == run.manifest
    np.testing.assert_array_equal(again.history["loss"], run.history["loss"])


def test_refusals(trained_template: Path, known_template: Path) -> None:
    with pytest.raises(NoInputError, match="no run 'b'"):
        va.load_run(trained_template, "b")
    run = va.load_run(known_template, "theirs")
    with pytest.raises(NoInputError, match="attached"):
        run.sample(3)
    with pytest.raises(NoInputError):
        _ = run.history


@pytest.mark.skipif(not HAS_MONAI, reason="the Fréchet distance needs monai")
def test_the_distance_of_draws_is_that_of_their_features(images_template: Path) -> None:
    def few(seen: torch.Tensor) -> torch.Tensor:
        return seen.flatten(1)[:, ::97]

    found = va.load_run(images_template).fidelity(n_samples=200, features=few, part="all", seed=4)
    draws = va.load_run(images_template).sample(n_samples=200, seed=4).decoded.values / 127.5 - 1
    data = zarr(images_template).patterns.values / 127.5 - 1
    a, b = (few(torch.from_numpy(np.float64(part))).numpy() for part in (draws, data))
    s, t = np.cov(a.T), np.cov(b.T)
    values = np.linalg.eigvals(s @ t).real.clip(0)
    expected = (
        ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * np.sqrt(values).sum()
    )
    assert float(found.frechet.sel(compared="draws")) == pytest.approx(expected, rel=0.02)
