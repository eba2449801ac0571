"""Preprocessing: known backgrounds go, constant patterns become zeros, nothing becomes NaN, and there is a way back."""

import pytest
import torch

from vaearr.config import PreprocessConfig
from vaearr.models.preprocess import (
    apply,
    dynamic_background,
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


def test_static_background_is_removed_and_dark_pixels_stay_finite():
    background, signal = 50 + 100 * torch.rand(1, 9, 11), 1 + 0.1 * torch.randn(4, 1, 9, 11)
    torch.testing.assert_close(remove_static(background * signal, background, "divide"), signal)
    torch.testing.assert_close(remove_static(background + signal, background, "subtract"), signal, rtol=1e-4, atol=1e-4)
    background[0, 0, :5] = 0
    out = remove_static(patterns(4, 1, 9, 11), background, "divide")
    assert bool((out[:, 0, 0, :5] == 1).all())
    assert bool(torch.isfinite(remove_static(patterns(4, 1, 9, 11), torch.zeros(1, 9, 11), "divide")).all())


def test_low_pass_equals_a_direct_gaussian_sum():
    x, std, out = torch.randn(1, 1, 9, 12), 0.2 * 9, torch.empty(1, 1, 9, 12)
    rows, columns = torch.arange(9)[:, None], torch.arange(12)[None]
    for i in range(9):
        for j in range(12):
            w = torch.exp(-0.5 * (((rows - i) / std) ** 2 + ((columns - j) / std) ** 2))
            out[0, 0, i, j] = (w * x[0, 0]).sum() / w.sum()
    torch.testing.assert_close(dynamic_background(x, 0.2), out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["zscore", "robust", "minmax"])
def test_a_common_scale(mode):
    """Of a constant pattern zeros, after the whole chain too; brightness and gain do not matter."""
    x = patterns(3, 3, 31, 29)
    x[1] = 93
    for sigma in (0.0, 0.125):
        config = PreprocessConfig(static_background="divide", dynamic_background=sigma, normalise=mode)
        out = apply(x, x.float().mean(0), config)
        assert out.dtype == torch.float32
        assert bool((out[1] == 0).all())
        assert bool((out[[0, 2]].flatten(1).std(1) > 0.1).all())
    scaled = normalise(x, mode)
    torch.testing.assert_close(normalise(3 * x.float() + 40, mode), scaled, atol=1e-4, rtol=1e-4)
    if mode == "zscore":
        flat = scaled[[0, 2]].flatten(1)
        torch.testing.assert_close(flat.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(flat.std(1, correction=0), torch.ones(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("static", ["none", "subtract", "divide"])
@pytest.mark.parametrize("dynamic", [0.0, 0.2])
@pytest.mark.parametrize("mode", ["none", "zscore", "robust", "minmax"])
def test_undo_is_the_inverse(static, dynamic, mode):
    config = PreprocessConfig(static_background=static, dynamic_background=dynamic, normalise=mode)
    x = patterns(5, 3, 16, 12)
    x[1] = 42  # of one value
    background = 60 + 100 * torch.rand(3, 16, 12, generator=torch.Generator().manual_seed(1))
    background[0, 0, 0] = 0.01  # of a dark pixel nothing is known but this
    seen, wanted = apply(x, background, config), x.float()
    if static == "divide":
        wanted[[0, 2, 3, 4], 0, 0, 0] = 0.01
    torch.testing.assert_close(undo(seen, x, background, config), wanted, rtol=1e-4, atol=2e-2)
    if not needs_input(config):
        torch.testing.assert_close(undo_without_input(seen[2:], background, config), wanted[2:], rtol=1e-4, atol=1e-2)


def test_a_background_to_take_off_decides_what_auto_means() -> None:
    patterns = random_patterns_dataset({"sample": 4}, {"y": 12, "x": 13}).patterns
    assert settled(PreprocessConfig(), patterns).normalise == "symmetric"
    for asked in ({"dynamic_background": 0.1}, {"static_background": "divide"}):
        assert settled(PreprocessConfig(**asked), patterns).normalise == "quantile"
