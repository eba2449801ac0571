"""Augmentation: exact flips, geometry against scipy, the same for input and target, off means untouched."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from vaearr.config import AugmentConfig
from vaearr.models.augmentation import Augmentation, add_noise, apply_augmentation, plan_augmentation

EVERYTHING = AugmentConfig(flip_x=True, flip_y=True, rotate=30, shift=0.1, scale=0.2, noise=0.5, circle=True)


def test_flips_are_exact_and_per_sample():
    x = torch.randn(4, 2, 9, 14)
    flip_x, flip_y = torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])
    moved = apply_augmentation(x, Augmentation(flip_x=flip_x, flip_y=flip_y))
    for sample, expected in zip(moved, (x[0], x[1].flip(-1), x[2].flip(-2), x[3].flip(-1, -2)), strict=True):
        assert torch.equal(sample, expected)


@pytest.mark.parametrize(("fill", "mode"), [("mean", "grid-constant"), ("edge", "nearest")])
@pytest.mark.parametrize("shape", [(40, 40), (24, 60)], ids=str)
@pytest.mark.parametrize("factor", [0.8, 1.3])
def test_turned_scaled_and_shifted_equals_scipy(shape, factor, fill, mode):
    """In this order: the content grows about the centre and turns, then it moves."""
    image = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), 2)
    angle, shift = math.radians(25), (0.1, -0.05)
    given = {"angle": [angle], "scale": [factor], "shift": [shift]}
    plan = Augmentation(**{key: torch.tensor(v, dtype=torch.float64) for key, v in given.items()}, fill=fill)
    moved = apply_augmentation(torch.from_numpy(image)[None, None], plan)
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    back = np.array([[cos, sin], [-sin, cos]])  # rows, columns: counter-clockwise with the first row on top
    centre = (np.array(shape) - 1) / 2
    start = centre - back @ (centre + np.array(shift) * shape)
    expected = ndimage.affine_transform(image, back, start, order=1, mode=mode, cval=float(image.mean()))
    np.testing.assert_allclose(moved[0, 0].numpy(), expected, atol=1e-9)


def test_volumes_turn_in_the_plane_of_their_last_axes_and_never_in_reduced_precision():
    x, plan = torch.randn(2, 1, 3, 9, 11), Augmentation(angle=torch.tensor([0.3, -0.7]))
    turned = apply_augmentation(x, plan)
    for z in range(3):
        torch.testing.assert_close(turned[:, :, z], apply_augmentation(x[:, :, z], plan))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(apply_augmentation(x, plan), turned)


def test_input_and_target_move_alike_by_the_seed():
    """A target that is a pixelwise function of the input stays that function of it."""
    x = torch.randn(16, 1, 20, 24)
    plans = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        plans.append(plan_augmentation(16, EVERYTHING, "cpu"))
    moved, again, other = (apply_augmentation(x, plan) for plan in plans)
    torch.testing.assert_close(apply_augmentation(3 - 2 * x, plans[0]), 3 - 2 * moved, atol=1e-5, rtol=1e-5)
    assert bool(((moved - x).abs().flatten(1).amax(1) > 0.1).all())
    assert torch.equal(moved, again)
    assert not torch.equal(moved, other)


def test_off_gives_the_patterns_themselves_and_draws_nothing():
    state, x = torch.get_rng_state(), torch.ones(3, 1, 8, 8)
    plan = plan_augmentation(3, AugmentConfig(circle=True), "cpu")
    assert plan == Augmentation()
    assert apply_augmentation(x, plan) is x
    assert add_noise(x, 0.0, circle=True) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(40, 40), (41, 60)], ids=str)
def test_noise_stays_inside_the_circle(shape):
    x = torch.randn(50, 1, *shape)
    noise = add_noise(x, 0.7, circle=True) - x
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    inside = torch.from_numpy(np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2) <= min(height, width) / 2)
    assert float(noise[..., ~inside].abs().max()) == 0
    assert float(noise[..., inside].std()) == pytest.approx(0.7, rel=0.02)
