"""Adversarial losses: numbers by hand, directions of the gradients, the ramp."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vaearr.adversarial import KINDS, discriminator_loss, generator_loss, gradient_penalty, ramp
from vaearr.errors import UsageError
from vaearr.models.discriminators import build_discriminator

REAL = [torch.tensor([[2.0, 0.0]]), torch.tensor([[0.5]])]
FAKE = [torch.tensor([[-2.0, 1.0]]), torch.tensor([[-0.5]])]


def softplus(x):
    return math.log(1 + math.exp(x))


BY_HAND = {
    # mean over the positions of each map, then over the two maps
    "hinge": (((0 + 1) / 2 + (0 + 2) / 2 + 0.5 + 0.5) / 2, (0.5 + 0.5) / 2),
    "bce": (
        ((softplus(-2) + softplus(0)) / 2 + (softplus(-2) + softplus(1)) / 2 + softplus(-0.5) + softplus(-0.5)) / 2,
        ((softplus(2) + softplus(-1)) / 2 + softplus(0.5)) / 2,
    ),
    "lsgan": (((1 + 1) / 4 + (4 + 1) / 4 + 0.25 / 2 + 0.25 / 2) / 2, ((9 + 0) / 4 + 2.25 / 2) / 2),
    "wgan-gp": ((-0.5 - 1 - 0.5 - 0.5) / 2, (0.5 + 0.5) / 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_by_hand(kind):
    expected_d, expected_g = BY_HAND[kind]
    assert float(discriminator_loss(REAL, FAKE, kind)) == pytest.approx(expected_d, rel=1e-6)
    assert float(generator_loss(FAKE, kind)) == pytest.approx(expected_g, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_finite_and_float32_for_extreme_logits(kind):
    big = [torch.tensor([[-200.0, 200.0]], dtype=torch.bfloat16)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = discriminator_loss(big, big, kind), generator_loss(big, kind)
    for loss in losses:
        assert loss.dtype == torch.float32
        assert loss.shape == ()
        assert bool(loss.isfinite())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_the_discriminator_lowers_its_loss(kind):
    network = build_discriminator("conv", (1, 16, 16), channels=4, layers=2, norm="none")
    real, fake = torch.rand(4, 1, 16, 16), torch.randn(4, 1, 16, 16)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    before = discriminator_loss(network(real), network(fake), kind)
    before.backward()
    optimizer.step()
    assert float(discriminator_loss(network(real), network(fake), kind).detach()) < float(before.detach())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_the_generator_raises_the_score_of_its_samples(kind):
    network = build_discriminator("conv", (1, 16, 16), channels=4, layers=2, norm="none")
    fake = torch.randn(4, 1, 16, 16, requires_grad=True)
    before = network(fake)[0]
    (slope,) = torch.autograd.grad(generator_loss([before], kind), fake)
    after = network(fake - 1.0 * slope)[0]
    assert float((after - before).mean().detach()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_training_tells_two_kinds_of_samples_apart(kind):
    network = build_discriminator("conv", (1, 16, 16), channels=4, layers=2, norm="none")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        real, fake = torch.rand(8, 1, 16, 16), torch.rand(8, 1, 16, 16).round()
        loss = discriminator_loss(network(real), network(fake), kind)
        if kind == "wgan-gp":
            loss = loss + 10 * gradient_penalty(network, real, fake)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, fake = network(torch.rand(32, 1, 16, 16))[0], network(torch.rand(32, 1, 16, 16).round())[0]
    assert float((real > fake.mean()).float().mean()) > 0.95


class Slope(nn.Module):
    """D(x) = slope * sum(x), as two maps."""

    def __init__(self, slope):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x):
        score = self.slope * x.flatten(1).sum(1, keepdim=True)
        return [score, torch.cat([score, score], 1)]


@pytest.mark.parametrize("slope", [0.0, 0.25, 1.0, -2.0])
def test_gradient_penalty_of_a_plane(slope):
    """|grad| = |slope| * sqrt(n) everywhere, whatever the draw."""
    network = Slope(slope)
    penalty = gradient_penalty(network, torch.randn(5, 1, 2, 8), torch.randn(5, 1, 2, 8))
    assert float(penalty.detach()) == pytest.approx((abs(slope) * 4 - 1) ** 2, abs=1e-5)
    penalty.backward()
    assert bool(network.slope.grad.isfinite())
    expected = 2 * (abs(slope) * 4 - 1) * 4 * math.copysign(1, slope) if slope else 0.0
    assert float(network.slope.grad) == pytest.approx(expected, abs=1e-3)


def test_gradient_penalty_is_taken_between_the_samples():
    """D(x) = x^2 / 2 has slope x: with real = 1 and decoded = 3, slopes are u + 3 (1 - u)."""

    def parabola(x):
        return [x.square().flatten(1).sum(1, keepdim=True) / 2]

    real, fake = torch.ones(20_000, 1, 1, 1), 3 * torch.ones(20_000, 1, 1, 1)
    torch.manual_seed(1)
    first = gradient_penalty(parabola, real, fake)
    torch.manual_seed(1)
    assert torch.equal(first, gradient_penalty(parabola, real, fake))
    assert float(first.detach()) == pytest.approx(4 / 3, rel=0.03)  # the mean of (2 v)^2 for v ~ U(0, 1)


@pytest.mark.parametrize("name", ["patch", "multiscale", "conv"])
def test_gradient_penalty_inside_autocast_reaches_every_layer(name):
    network = build_discriminator(name, (1, 24, 24), channels=4)
    real, fake = torch.randn(2, 1, 24, 24), torch.randn(2, 1, 24, 24)
    torch.manual_seed(0)
    plain = gradient_penalty(network, real, fake)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gradient_penalty(network, real.bfloat16().float(), fake)
    assert mixed.dtype == torch.float32
    assert float(mixed.detach()) == pytest.approx(float(plain.detach()), rel=0.05)
    plain.backward()
    slopes = {key: p.grad for key, p in network.named_parameters() if key.endswith("weight")}
    assert all(slope is not None and bool(slope.isfinite().all()) and bool(slope.any()) for slope in slopes.values())


@given(start=st.integers(0, 50), rise=st.integers(0, 50))
def test_ramp_waits_then_rises_to_one(start, rise):
    weights = [ramp(update, start, rise) for update in range(start + rise + 3)]
    assert weights[:start] == [0.0] * start
    assert all(0 < w <= 1 for w in weights[start:])
    assert weights == sorted(weights)
    assert weights[max(start + rise - 1, start) :] == [1.0] * (3 + min(rise, 1))


def test_ramp_is_linear():
    assert [ramp(update, 2, 4) for update in range(8)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_refusals():
    with pytest.raises(UsageError, match=r"no adversarial loss 'hing'\. Did you mean 'hinge'"):
        generator_loss(FAKE, "hing")
    with pytest.raises(UsageError, match=r"no adversarial loss 'wgan'\. Did you mean 'wgan-gp'"):
        discriminator_loss(REAL, FAKE, "wgan")
    with pytest.raises(UsageError, match="2 maps of real and 1 of decoded"):
        discriminator_loss(REAL, FAKE[:1])
    with pytest.raises(UsageError, match="no logit maps"):
        generator_loss([])
    with pytest.raises(UsageError, match="differ in shape"):
        gradient_penalty(Slope(1.0), torch.zeros(2, 1, 3, 3), torch.zeros(3, 1, 3, 3))
    with pytest.raises(UsageError, match="must not be negative"):
        ramp(0, -1, 2)
