"""Preprocessing: known backgrounds go, nothing becomes NaN, and there is a way back.

Augmentation: geometry against scipy, the same for input and target, off means untouched.
"""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from vaearr.config import AugmentConfig, PreprocessConfig
from vaearr.models.augmentation import add_noise, draw_geometry, moved
from vaearr.models.preprocess import Preprocess, decide_preprocess, remove_static

from ..data import random_patterns_dataset


def patterns(*shape, seed=0):
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_static_background_is_removed_and_dark_pixels_stay_finite():
    background, signal = 50 + 100 * torch.rand(1, 9, 11), 1 + 0.1 * torch.randn(4, 1, 9, 11)
    torch.testing.assert_close(remove_static(background * signal, background, "divide"), signal)
    torch.testing.assert_close(
        remove_static(background + signal, background, "subtract"), signal, rtol=1e-4, atol=1e-4
    )
    background[0, 0, :5] = 0
    out = remove_static(patterns(4, 1, 9, 11), background, "divide")
    assert bool((out[:, 0, 0, :5] == 1).all())
    assert bool(
        torch.isfinite(remove_static(patterns(4, 1, 9, 11), torch.zeros(1, 9, 11), "divide")).all()
    )


@pytest.mark.parametrize("static", ["none", "subtract", "divide"])
@pytest.mark.parametrize("mode", ["none", "zscore", "robust", "minmax"])
def test_undo_is_the_inverse(static, mode):
    config = PreprocessConfig(static_background=static, normalise=mode)
    x = patterns(5, 3, 16, 12)
    x[1] = 42  # of one value
    background = 60 + 100 * torch.rand(3, 16, 12, generator=torch.Generator().manual_seed(1))
    background[0, 0, 0] = 0.01  # of a dark pixel nothing is known but this
    preprocess = Preprocess(config, (3, 16, 12))
    preprocess.background.copy_(background)
    output, wanted = preprocess(x), x.float()
    if static == "divide":
        wanted[[0, 2, 3, 4], 0, 0, 0] = 0.01
    torch.testing.assert_close(preprocess.undo(output, x), wanted, rtol=1e-4, atol=2e-2)
    if not preprocess.needs_input:
        torch.testing.assert_close(
            preprocess.undo_without_input(output[2:]), wanted[2:], rtol=1e-4, atol=1e-2
        )


def test_a_background_to_take_off_decides_what_auto_means() -> None:
    patterns = random_patterns_dataset({"sample": 4}, {"y": 12, "x": 13}).patterns
    assert decide_preprocess(PreprocessConfig(), patterns).normalise == "symmetric"
    divided = PreprocessConfig(static_background="divide")
    assert decide_preprocess(divided, patterns).normalise == "quantile"


EVERYTHING = AugmentConfig(
    flip_x=True, flip_y=True, rotate=30, shift=0.1, scale=0.2, noise=0.5, circle=True
)


@pytest.mark.parametrize(("fill", "mode"), [("mean", "grid-constant"), ("edge", "nearest")])
@pytest.mark.parametrize("shape", [(40, 40), (24, 60)], ids=str)
@pytest.mark.parametrize("factor", [0.8, 1.3])
def test_turned_scaled_and_shifted_equals_scipy(shape, factor, fill, mode):
    """In this order: the content grows about the centre and turns, then it moves."""
    image = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), 2)
    angle, shift = math.radians(25), (0.1, -0.05)
    given = (torch.tensor([value], dtype=torch.float64) for value in (angle, factor, shift))
    found = moved(torch.from_numpy(image)[None, None], *given, fill)
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    back = np.array(
        [[cos, sin], [-sin, cos]]
    )  # rows, columns: counter-clockwise with the first row on top
    centre = (np.array(shape) - 1) / 2
    start = centre - back @ (centre + np.array(shift) * shape)
    expected = ndimage.affine_transform(
        image, back, start, order=1, mode=mode, cval=float(image.mean())
    )
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-9)


def test_input_and_target_move_alike_by_the_seed():
    """A function of single pixels stays one; volumes turn in their last plane; never in reduced
    precision.
    """
    x = torch.randn(16, 1, 2, 20, 24)
    moves = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        moves.append(draw_geometry(16, EVERYTHING))
    one, again, other = (move(x) for move in moves)
    torch.testing.assert_close(moves[0](3 - 2 * x), 3 - 2 * one, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moves[0](x[:, :, 1]), one[:, :, 1])
    assert bool(((one - x).abs().flatten(1).amax(1) > 0.1).all())
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(moves[0](x), one)
    flipped = draw_geometry(16, AugmentConfig(flip_x=True))(x)
    pairs = list(zip(flipped, x, strict=True))
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in pairs)
    assert 0 < sum(torch.equal(a, b) for a, b in pairs) < 16, "each sample by itself"


def test_off_gives_the_patterns_themselves_and_draws_nothing():
    state, x = torch.get_rng_state(), torch.ones(3, 1, 8, 8)
    assert draw_geometry(3, AugmentConfig(circle=True))(x) is x
    assert add_noise(x, 0.0, circle=True) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(40, 40), (41, 60)], ids=str)
def test_noise_stays_inside_the_circle(shape):
    x = torch.randn(50, 1, *shape)
    noise = add_noise(x, 0.7, circle=True) - x
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    inside = torch.from_numpy(
        np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2) <= min(height, width) / 2
    )
    assert float(noise[..., ~inside].abs().max()) == 0
    assert float(noise[..., inside].std()) == pytest.approx(0.7, rel=0.02)
