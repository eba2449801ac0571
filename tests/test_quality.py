"""Latent health and image metrics: the numbers against direct formulae and another library, the
warnings in words.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vaearr.models.quality import compression_ratio, health_warnings, image_metrics


def test_warnings_say_it_in_words() -> None:
    for n_active, deterministic, words in (
        (0, False, []),  # the verdict states it
        (3, False, ["Only 3 of 32 latent dimensions are in use"]),
        (3, True, ["Only 3 of 32 latent dimensions vary"]),
        (30, False, []),
    ):
        found = health_warnings(n_active, 32, is_deterministic=deterministic)
        assert all(word in text for word, text in zip(words, found, strict=True))


@pytest.mark.parametrize("shape", [(3, 12, 11), (1, 12, 13, 15), (2, 11, 12, 13)], ids=str)
def test_image_metrics_equal_an_independent_library(shape: tuple[int, ...]) -> None:
    reference = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(1)
    a = rng.random((4, *shape)) * 255
    b = a + rng.normal(0, 50, a.shape) * np.arange(4).reshape(4, *[1] * len(shape))
    span = np.array([255.0, 255.0, 255.0, 0.0])
    found = image_metrics(torch.from_numpy(a), torch.from_numpy(b), span)
    how = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 255,
        "channel_axis": 0,
    }
    for i in (1, 2):
        assert float(found["ssim"][i]) == pytest.approx(
            reference.structural_similarity(a[i], b[i], **how), abs=1e-9
        )
        psnr = reference.peak_signal_noise_ratio(a[i], b[i], data_range=255)
        assert float(found["psnr"][i]) == pytest.approx(psnr, rel=1e-12)
        assert float(found["mse"][i]) == pytest.approx(((a[i] - b[i]) ** 2).mean(), rel=1e-12)
        assert float(found["mae"][i]) == pytest.approx(abs(a[i] - b[i]).mean(), rel=1e-12)
    assert (float(found["ssim"][0]), float(found["psnr"][0])) == (
        pytest.approx(1, abs=1e-12),
        np.inf,
    )
    assert np.isnan(found["psnr"][3])  # a sample without a range
    assert "ssim" not in image_metrics(torch.zeros(1, 1, 10, 12), torch.zeros(1, 1, 10, 12), 1.0)


def test_compression_counts_bytes() -> None:
    assert compression_ratio((60, 60), "uint8", (32,)) == 28.125
    ratio = compression_ratio((1, 46, 55, 46), "float32", (4, 12, 14, 12))
    assert ratio == pytest.approx(14.43, abs=0.01)
