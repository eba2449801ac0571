"""Latent health and image metrics: the numbers against direct formulae and another library, the warnings in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vaearr as va
from vaearr.batching import batches
from vaearr.errors import UsageError
from vaearr.quality import compression_ratio, health_warnings, image_metrics, latent_health, mse, psnr, ssim
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


SIZES = {"grey": (1, 14, 17), "colour": (3, 12, 11), "volume": (1, 12, 13, 15), "channels of a volume": (2, 11, 12, 13)}


@pytest.mark.parametrize("shape", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_image_metrics_equal_an_independent_library(shape: tuple[int, ...], data_range: float) -> None:
    reference = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(1)
    a = rng.random((4, *shape)) * data_range
    b = np.clip(
        a + rng.normal(0, 0.2 * data_range, a.shape) * np.arange(4)[:, None].reshape(4, *[1] * len(shape)), 0, None
    )
    found = image_metrics(torch.from_numpy(a), torch.from_numpy(b), data_range)
    for i in range(1, 4):
        want = reference.structural_similarity(
            a[i], b[i], channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=data_range,
        )  # fmt: skip
        assert float(found["ssim"][i]) == pytest.approx(want, abs=1e-9)
        want = reference.peak_signal_noise_ratio(a[i], b[i], data_range=data_range)
        assert float(found["psnr"][i]) == pytest.approx(want, rel=1e-12)
        assert float(found["mse"][i]) == pytest.approx(((a[i] - b[i]) ** 2).mean(), rel=1e-12)
        assert float(found["mae"][i]) == pytest.approx(abs(a[i] - b[i]).mean(), rel=1e-12)
    assert float(found["ssim"][0]) == pytest.approx(1, abs=1e-12)
    assert float(found["psnr"][0]) == np.inf


def test_ssim_of_float32_and_of_a_range_for_each_sample() -> None:
    x = torch.rand(5, 1, 20, 20)
    y = x + 0.1 * torch.rand_like(x)
    span = torch.tensor([0.5, 1.0, 2.0, 255.0, 0.0])
    together = ssim(x, y, span)
    for i in range(4):
        assert float(together[i]) == pytest.approx(float(ssim(x[i : i + 1], y[i : i + 1], float(span[i]))), abs=1e-12)
    assert torch.isnan(together[4])
    assert torch.isnan(psnr(x, y, span)[4])
    assert together.dtype == torch.float64
    np.testing.assert_allclose(psnr(x, y, 2.0) - psnr(x, y, 1.0), 20 * np.log10(2))


@given(scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_metrics_do_not_depend_on_the_unit_when_the_range_follows(scale: float, shift: float) -> None:
    x = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x.flip(2)
    np.testing.assert_allclose(psnr(scale * x + shift, scale * y + shift, scale), psnr(x, y, 1.0), atol=1e-6)
    np.testing.assert_allclose(ssim(scale * x, scale * y, scale), ssim(x, y, 1.0), atol=1e-9)


def test_metrics_refuse_what_cannot_be_compared() -> None:
    x = torch.zeros(2, 1, 12, 12)
    with pytest.raises(
        UsageError, match=r"input \(2, 1, 12, 12\) and reconstruction \(2, 1, 12, 11\).*nothing is resized"
    ):
        mse(x, x[..., :11])
    with pytest.raises(UsageError, match="too small for SSIM: it takes sides of 11"):
        ssim(x[..., :10], x[..., :10], 1.0)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="must be a positive number"):
            psnr(x, x, wrong)
    with pytest.raises(UsageError, match="one for each sample"):
        psnr(x, x, torch.ones(3))
    assert "ssim" not in image_metrics(x[..., :10], x[..., :10], 1.0)


def test_compression_counts_bytes() -> None:
    assert compression_ratio((60, 60), "uint8", (32,)) == 28.125
    assert compression_ratio((60, 60), "float32", (32,)) == 4 * compression_ratio((60, 60), np.uint8, (32,))
    assert compression_ratio((1, 46, 55, 46), "float32", (4, 12, 14, 12), "float16") == pytest.approx(28.86, abs=0.01)
    with pytest.raises(UsageError, match="hold nothing"):
        compression_ratio((4, 4), "uint8", (0,))
