"""Preprocessing functions: known backgrounds go, constant patterns become zeros, nothing becomes NaN."""

from typing import Any

import pytest
import torch

from vaearr.config import PreprocessConfig
from vaearr.models.preprocess import (
    apply,
    dynamic_background,
    is_constant,
    needs_input,
    normalise,
    remove_static,
    settled,
    undo,
    undo_without_input,
)

from ..data import random_patterns_dataset


def patterns(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_static_background_is_removed():
    background = 50 + 100 * torch.rand(1, 9, 11)
    signal = 1 + 0.1 * torch.randn(4, 1, 9, 11)
    torch.testing.assert_close(remove_static(background * signal, background, "divide"), signal)
    torch.testing.assert_close(remove_static(background + signal, background, "subtract"), signal, rtol=1e-4, atol=1e-4)
    x = patterns(4, 1, 9, 11)
    assert remove_static(x, background, "none").dtype == torch.float32


def test_dark_detector_pixels_stay_finite():
    background = torch.rand(1, 9, 11) * 100 + 1
    background[0, 0, :5] = 0
    out = remove_static(patterns(4, 1, 9, 11), background, "divide")
    assert bool((out[:, 0, 0, :5] == 1).all())
    assert bool(torch.isfinite(remove_static(patterns(4, 1, 9, 11), torch.zeros(1, 9, 11), "divide")).all())


def test_low_pass_equals_a_direct_gaussian_sum():
    x = torch.randn(1, 1, 9, 12, dtype=torch.float64).float()
    std = 0.2 * 9
    out = torch.empty_like(x)
    for i in range(9):
        for j in range(12):
            w = torch.exp(
                -0.5 * (((torch.arange(9)[:, None] - i) / std) ** 2 + ((torch.arange(12)[None] - j) / std) ** 2)
            )
            out[0, 0, i, j] = (w * x[0, 0]).sum() / w.sum()
    torch.testing.assert_close(dynamic_background(x, 0.2), out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 0.125])
@pytest.mark.parametrize("mode", ["zscore", "robust", "minmax"])
def test_constant_pattern_becomes_zeros_after_the_whole_chain(mode, sigma):
    x = patterns(3, 1, 31, 29)
    x[1] = 93
    assert is_constant(x).tolist() == [False, True, False]
    out = apply(
        x, x.float().mean(0), PreprocessConfig(static_background="divide", dynamic_background=sigma, normalise=mode)
    )
    assert out.dtype == torch.float32
    assert bool((out[1] == 0).all())
    assert bool((out[[0, 2]].flatten(1).std(1) > 0.1).all())


def test_zscore_has_mean_zero_and_spread_one_over_channels():
    out = normalise(patterns(5, 3, 12, 10), "zscore").flatten(1)
    torch.testing.assert_close(out.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(1, correction=0), torch.ones(5), atol=1e-4, rtol=0)


def test_brightness_and_gain_do_not_matter():
    x = patterns(3, 1, 12, 10).float()
    for mode in ("zscore", "robust", "minmax"):
        torch.testing.assert_close(normalise(3 * x + 40, mode), normalise(x, mode), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("static", ["none", "subtract", "divide"])
@pytest.mark.parametrize("dynamic", [0.0, 0.2])
@pytest.mark.parametrize("mode", ["none", "zscore", "robust", "minmax"])
@pytest.mark.parametrize("shape", [(5, 1, 9, 11), (5, 3, 16, 12)], ids=str)
def test_undo_is_the_inverse(static, dynamic, mode, shape):
    config = PreprocessConfig(static_background=static, dynamic_background=dynamic, normalise=mode)
    x = patterns(*shape)
    x[1] = 42  # of one value
    background = 60 + 100 * torch.rand(shape[1:], generator=torch.Generator().manual_seed(1))
    seen = apply(x, background, config)
    torch.testing.assert_close(undo(seen, x, background, config), x.float(), rtol=1e-4, atol=2e-2)
    if not needs_input(config):
        x = x[2:]
        torch.testing.assert_close(undo_without_input(seen[2:], background, config), x.float(), rtol=1e-4, atol=1e-2)
    else:
        with pytest.raises(ValueError, match="without an input it cannot be undone"):
            undo_without_input(seen, background, config)


def test_undo_gives_back_the_scale_and_not_the_shape():
    config = PreprocessConfig(static_background="none", normalise="zscore")
    x = patterns(3, 1, 9, 11).float()
    flat = undo(torch.zeros_like(x), x, torch.ones(1, 9, 11), config)
    torch.testing.assert_close(flat, x.mean((1, 2, 3), keepdim=True).expand_as(x))


def test_undo_knows_nothing_of_dark_pixels_but_the_background():
    config = PreprocessConfig(static_background="divide", normalise="zscore")
    background = torch.full((1, 9, 11), 100.0)
    background[0, 0, 0] = 0.01
    x = patterns(3, 1, 9, 11)
    back = undo(apply(x, background, config), x, background, config)
    assert bool((back[:, 0, 0, 0] == 0.01).all())
    torch.testing.assert_close(back[:, 0, 1:], x[:, 0, 1:].float(), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    "asked", [{"dynamic_background": 0.1}, {"static_background": "divide"}], ids=["slow", "static"]
)
def test_a_background_to_take_off_decides_what_auto_means(asked: dict[str, Any]) -> None:
    patterns = random_patterns_dataset({"sample": 4}, {"y": 12, "x": 13}).patterns
    assert settled(PreprocessConfig(), patterns).normalise == "symmetric"
    assert settled(PreprocessConfig(**asked), patterns).normalise == "quantile"
