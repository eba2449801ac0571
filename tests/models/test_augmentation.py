"""Augmentation: exact flips, rotation against scipy, the same geometry for input and target, off means untouched."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from vaearr.config import AugmentConfig
from vaearr.models.augmentation import (
    Augmentation,
    add_noise,
    apply_augmentation,
    move,
    plan_augmentation,
)

EVERYTHING = AugmentConfig(flip_x=True, flip_y=True, rotate=30, shift=0.1, scale=0.2, noise=0.5, circle=True)
SHAPES = [(1, 12, 12), (2, 9, 14), (1, 15, 8)]


def smooth(*shape: int) -> torch.Tensor:
    sigma = [0] * (len(shape) - 2) + [2, 2]
    return torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), sigma))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_flips_are_exact_and_per_sample(shape):
    x = torch.randn(4, *shape)
    flip_x, flip_y = torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])
    moved = apply_augmentation(x, Augmentation(flip_x=flip_x, flip_y=flip_y))
    for sample, expected in zip(moved, (x[0], x[1].flip(-1), x[2].flip(-2), x[3].flip(-1, -2)), strict=True):
        assert torch.equal(sample, expected)


@pytest.mark.parametrize("shape", [(40, 40), (41, 33), (24, 60)], ids=str)
@pytest.mark.parametrize("degrees", [10, -37, 90, 180])
def test_rotation_equals_scipy(shape, degrees):
    x = smooth(2, 3, *shape)
    turned = move(x, angle=torch.full((2,), math.radians(degrees), dtype=torch.float64))
    for ours, image in zip(turned.flatten(0, 1).numpy(), x.flatten(0, 1).numpy(), strict=True):
        expected = ndimage.rotate(
            image, degrees, reshape=False, order=1, mode="grid-constant", cval=float(image.mean())
        )
        np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_rotation_is_not_coarser_under_autocast():
    x, angle = torch.randn(3, 1, 60, 60), torch.rand(3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = move(x, angle=angle)
    assert torch.equal(mixed, move(x, angle=angle))


def test_volumes_turn_in_the_plane_of_their_last_axes():
    x, angle = torch.randn(2, 1, 3, 9, 11), torch.tensor([0.3, -0.7])
    turned = apply_augmentation(x, Augmentation(angle=angle))
    for z in range(3):
        torch.testing.assert_close(turned[:, :, z], move(x[:, :, z], angle=angle))


@pytest.mark.parametrize("fill", ["mean", "edge"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_shift_by_whole_pixels_is_exact(shape, fill):
    x = torch.randn(2, *shape, dtype=torch.float64)
    shift = torch.tensor([[2 / shape[1], -3 / shape[2]], [0, 0]], dtype=torch.float64)
    moved = move(x, shift=shift, fill=fill)
    torch.testing.assert_close(moved[0, :, 2:, :-3], x[0, :, :-2, 3:])
    torch.testing.assert_close(moved[1], x[1])
    came_in = x[0].mean((-2, -1)) if fill == "mean" else x[0, :, 0, -1]
    torch.testing.assert_close(moved[0, :, 0, -1], came_in)


@pytest.mark.parametrize(("fill", "mode"), [("mean", "grid-constant"), ("edge", "nearest")])
@pytest.mark.parametrize("shape", [(40, 40), (24, 60)], ids=str)
@pytest.mark.parametrize("factor", [0.8, 1.3])
def test_turned_scaled_and_shifted_equals_scipy(shape, factor, fill, mode):
    """In this order: the content grows about the centre and turns, then it moves."""
    x, angle, shift = smooth(1, 1, *shape), math.radians(25), (0.1, -0.05)
    given = {"angle": [angle], "scale": [factor], "shift": [shift]}
    moved = move(x, **{key: torch.tensor(value, dtype=torch.float64) for key, value in given.items()}, fill=fill)
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    back = np.array([[cos, sin], [-sin, cos]])  # rows, columns: counter-clockwise with the first row on top
    centre = (np.array(shape) - 1) / 2
    image = x[0, 0].numpy()
    expected = ndimage.affine_transform(
        image,
        back,
        centre - back @ (centre + np.array(shift) * shape),
        order=1,
        mode=mode,
        cval=float(image.mean()),
    )
    np.testing.assert_allclose(moved[0, 0].numpy(), expected, atol=1e-9)


def test_input_and_target_move_alike():
    """A target that is a pixelwise function of the input stays that function of it."""
    x = torch.randn(16, 1, 20, 24)
    target = 3 - 2 * x
    plan = plan_augmentation(16, EVERYTHING, "cpu")
    moved, wanted = apply_augmentation(x, plan), apply_augmentation(target, plan)
    torch.testing.assert_close(wanted, 3 - 2 * moved, atol=1e-5, rtol=1e-5)
    assert bool(((moved - x).abs().flatten(1).amax(1) > 0.1).all())


def test_one_seed_one_plan_and_samples_differ():
    plans = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        plans.append(plan_augmentation(64, EVERYTHING, "cpu"))
    first, same, other = plans
    assert torch.equal(first.angle, same.angle)
    assert torch.equal(first.flip_x, same.flip_x)
    assert torch.equal(first.shift, same.shift)
    assert torch.equal(first.scale, same.scale)
    assert torch.equal(first.flip_y, same.flip_y)
    assert not torch.equal(first.angle, other.angle)
    assert len(first.angle.unique()) > 32
    assert not torch.equal(first.flip_x, first.flip_y)


def test_off_gives_the_patterns_themselves_and_draws_nothing():
    state, x = torch.get_rng_state(), torch.randn(3, 1, 8, 8)
    torch.set_rng_state(state)
    plan = plan_augmentation(3, AugmentConfig(circle=True), "cpu")
    assert plan == Augmentation()
    assert apply_augmentation(x, plan) is x
    assert add_noise(x, 0.0, circle=True) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(40, 40), (41, 60), (60, 31)], ids=str)
def test_noise_stays_inside_the_circle(shape):
    x = torch.randn(50, 1, *shape)
    noise = add_noise(x, 0.7, circle=True) - x
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2) <= min(height, width) / 2
    assert float(noise[..., ~torch.from_numpy(inside)].abs().max()) == 0
    assert float(noise[..., torch.from_numpy(inside)].std()) == pytest.approx(0.7, rel=0.02)
    assert float(add_noise(x, 0.7).sub(x)[..., ~torch.from_numpy(inside)].std()) == pytest.approx(0.7, rel=0.1)
