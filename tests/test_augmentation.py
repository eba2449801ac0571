"""Augmentation: exact flips, rotation against scipy, the same geometry for input and target, off means untouched."""

import math
import statistics

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch._subclasses.fake_tensor import FakeTensorMode

from vaearr.config import AugmentConfig
from vaearr.errors import UsageError
from vaearr.models.augmentation import (
    Augmentation,
    add_noise,
    apply_augmentation,
    inscribed_circle,
    move,
    plan_augmentation,
    rotate,
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
    turned = rotate(x, torch.full((2,), math.radians(degrees), dtype=torch.float64))
    for ours, image in zip(turned.flatten(0, 1).numpy(), x.flatten(0, 1).numpy(), strict=True):
        expected = ndimage.rotate(
            image, degrees, reshape=False, order=1, mode="grid-constant", cval=float(image.mean())
        )
        np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_a_quarter_turn_is_counter_clockwise():
    x = torch.randn(1, 1, 11, 11)
    turned = rotate(x, torch.tensor([math.pi / 2]))
    torch.testing.assert_close(turned, torch.rot90(x, 1, (-2, -1)), atol=1e-5, rtol=0)


def test_each_sample_has_its_own_angle_and_zero_leaves_it():
    x = torch.randn(2, 1, 20, 20)
    turned = rotate(x, torch.tensor([0.0, 0.4]))
    torch.testing.assert_close(turned[0], x[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(turned[1:], rotate(x[1:], torch.tensor([0.4])))
    assert float((turned[1] - x[1]).abs().max()) > 0.1


def test_what_comes_in_from_outside_is_the_mean_of_the_pattern():
    x = 7 + torch.rand(3, 2, 10, 40)
    corner = rotate(x, torch.full((3,), math.pi / 2))[..., 0, 0]
    torch.testing.assert_close(corner, x.mean((-2, -1)))


def test_rotation_keeps_the_range_but_for_rounding():
    x = torch.rand(8, 1, 30, 30).round()
    turned = rotate(x, torch.linspace(-3, 3, 8))
    assert float(turned.min()) >= -1e-6
    assert float(turned.max()) <= 1 + 1e-6


def test_rotation_is_not_coarser_under_autocast():
    x, angle = torch.randn(3, 1, 60, 60), torch.rand(3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = rotate(x, angle)
    assert torch.equal(mixed, rotate(x, angle))


def test_volumes_turn_in_the_plane_of_their_last_axes():
    x, angle = torch.randn(2, 1, 3, 9, 11), torch.tensor([0.3, -0.7])
    turned = apply_augmentation(x, Augmentation(angle=angle))
    for z in range(3):
        torch.testing.assert_close(turned[:, :, z], rotate(x[:, :, z], angle))


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


def test_each_sample_has_its_own_size_and_nothing_given_leaves_it():
    x = smooth(2, 1, 30, 30)
    grown = move(x, scale=torch.tensor([1.0, 1.5], dtype=torch.float64))
    torch.testing.assert_close(grown[0], x[0])
    assert float((grown[1] - x[1]).abs().max()) > 0.1
    torch.testing.assert_close(move(x), x)


def test_the_edge_fill_keeps_an_even_background():
    x = torch.zeros(4, 1, 28, 28)
    x[:, :, 10:18, 10:18] = 1
    plan = plan_augmentation(4, AugmentConfig(rotate=40, shift=0.1, scale=0.2, fill="edge"))
    moved = apply_augmentation(x, plan)
    corners = moved[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float(corners.abs().max()) == 0
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("setting", "value"), [("shift", -0.1), ("shift", 1.0), ("scale", -0.5), ("scale", 2.0), ("fill", "mirror")]
)
def test_settings_that_make_no_sense_are_refused(setting, value):
    with pytest.raises(UsageError, match=f"AugmentConfig.{setting}"):
        AugmentConfig.from_attrs({setting: value})


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


def test_plans_are_uniform():
    plan = plan_augmentation(20_000, EVERYTHING, "cpu")
    limit = math.radians(30)
    assert float(plan.angle.abs().max()) <= limit
    assert float(plan.angle.std()) == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert float(plan.angle.mean()) == pytest.approx(0, abs=0.02 * limit)
    assert plan.shift.shape == (20_000, 2)
    for draws, largest in ((plan.scale.log(), math.log(1.2)), (plan.shift, 0.1)):
        assert float(draws.abs().max()) <= largest * (1 + 1e-6)
        assert float(draws.std()) == pytest.approx(largest / math.sqrt(3), rel=0.02)
    for flips in (plan.flip_x, plan.flip_y):
        assert statistics.fmean(flips.tolist()) == pytest.approx(0.5, abs=0.02)


def test_off_gives_the_patterns_themselves_and_draws_nothing():
    state, x = torch.get_rng_state(), torch.randn(3, 1, 8, 8)
    torch.set_rng_state(state)
    plan = plan_augmentation(3, AugmentConfig(circle=True), "cpu")
    assert plan == Augmentation()
    assert apply_augmentation(x, plan) is x
    assert add_noise(x, 0.0, circle=True) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "config", [{"flip_x": True}, {"flip_y": True}, {"rotate": 5}, {"shift": 0.1}, {"scale": 0.1}], ids=str
)
def test_only_what_is_on_is_drawn(config):
    (name,) = config
    plan = plan_augmentation(5, AugmentConfig(**config), "cpu")
    drawn = {key for key, value in vars(plan).items() if isinstance(value, torch.Tensor)}
    assert drawn == {"angle" if name == "rotate" else name}


def test_patterns_are_not_changed_in_place():
    x = torch.randn(4, 1, 10, 10)
    before = x.clone()
    add_noise(apply_augmentation(x, plan_augmentation(4, EVERYTHING, "cpu")), 0.5, circle=True)
    assert torch.equal(x, before)


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


@pytest.mark.parametrize("side", [30, 31], ids=["even", "odd"])
def test_the_circle_touches_each_side_and_has_its_area(side):
    inside = inscribed_circle(side, side + 9)
    assert bool(inside[0].any())
    assert bool(inside[-1].any())
    assert not bool(inside[:, :4].any())
    assert torch.equal(inside, inside.flip(0).flip(1))
    assert int(inside.sum()) == pytest.approx(math.pi * side**2 / 4, rel=0.03)


def test_nothing_waits_for_the_device():
    """Fake tensors have no values, so that reading one back fails."""
    with FakeTensorMode():
        x = torch.empty(4, 1, 20, 24)
        moved = apply_augmentation(x, plan_augmentation(4, EVERYTHING, x.device))
        assert add_noise(moved, 0.5, circle=True).shape == x.shape
