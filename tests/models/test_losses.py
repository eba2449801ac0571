"""Loss terms: nats per sample, against closed forms and torch.distributions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Laplace, Normal
from torch.distributions import kl_divergence as torch_kl

from vaearr.errors import TrainingError
from vaearr.models.losses import (
    LIKELIHOODS,
    amplitude_nll,
    bernoulli_nll,
    check_targets,
    classification_nll,
    gaussian_nll,
    kl_divergence,
    kl_penalty,
    optimal_sigma_nll,
    shape_nll,
)


def test_kl_equals_torch_distributions():
    mean, logvar = torch.randn(2, 7, 5, dtype=torch.float64)
    kl = kl_divergence(mean, logvar)
    torch.testing.assert_close(
        kl, torch_kl(Normal(mean, torch.exp(0.5 * logvar)), Normal(0.0, 1.0))
    )
    torch.testing.assert_close(kl_penalty(kl), kl.sum(1).mean())
    assert float(kl_penalty(torch.tensor([[0.1, 2.0], [0.3, 4.0]]), 0.5)) == pytest.approx(
        0.5 + 3.0
    )


DENSITIES = {"gaussian": lambda x: Normal(x, 1.0), "laplace": lambda x: Laplace(x, 1.0)}
DENSITIES |= {"bernoulli": lambda x: Bernoulli(logits=x)}


@pytest.mark.parametrize("name", DENSITIES)
def test_likelihoods_equal_torch_distributions(name):
    target, recon = torch.rand(2, 4, 2, 5, 6, dtype=torch.float64)
    target, recon = target.round(), 4 * recon - 2
    expected = -DENSITIES[name](recon).log_prob(target).flatten(1).sum(1)
    torch.testing.assert_close(LIKELIHOODS[name](target, recon), expected)


def test_optimal_sigma_is_the_best_single_variance():
    target, recon = torch.randn(2, 4, 1, 5, 6, dtype=torch.float64)
    best, nll = (target - recon).square().mean(), float(optimal_sigma_nll(target, recon).mean())
    assert nll == pytest.approx(0.5 * 30 * (math.log(2 * math.pi * float(best)) + 1))
    for factor in (0.9, 1.0, 1.1):
        density = Normal(recon, (factor * best).sqrt())
        assert float(-density.log_prob(target).flatten(1).sum(1).mean()) >= nll - 1e-9
    x = torch.zeros(3, 1, 8, 8, requires_grad=True)  # a perfect reconstruction stays finite
    optimal_sigma_nll(torch.zeros(3, 1, 8, 8), x).mean().backward()
    assert bool(torch.isfinite(x.grad).all())


@pytest.mark.parametrize("value", [-0.5, 1.5, math.nan])
def test_targets_that_are_no_probability_give_no_number(value):
    target = torch.rand(3, 1, 4, 4)
    target[0, 0, 0, 0] = 1 + 1e-6  # rounding is let through
    check_targets(target, "bernoulli")
    target[1, 0, 2, 3] = value
    assert torch.isnan(bernoulli_nll(target, torch.zeros_like(target))).tolist() == [
        False,
        True,
        False,
    ]
    with pytest.raises(TrainingError, match=r"range from .* to .*bernoulli.*normalise='minmax'"):
        check_targets(target, "bernoulli")
    check_targets(target, "gaussian")


def test_missing_labels_add_nothing_and_batches_average_exactly():
    logits, labels = torch.randn(12, 3), torch.tensor([0, -1, 2, 1, -1, -1, 0, 0, 1, -1, 2, 2])
    known = labels >= 0
    whole = classification_nll(logits, labels)
    torch.testing.assert_close(
        whole, F.cross_entropy(logits[known], labels[known], reduction="sum") / 12
    )
    parts = [classification_nll(logits[i : i + 4], labels[i : i + 4]) for i in (0, 4, 8)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_partners_decide_on_the_shape_and_the_own_pattern_on_the_size():
    partner, recon = torch.randn(4, 1, 5, 6), torch.randn(4, 1, 5, 6)
    recon = recon + 0.5 * partner  # a positive projection
    one, other = (
        shape_nll(partner, recon, gaussian_nll),
        shape_nll(partner, 7 * recon, gaussian_nll),
    )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    best = min(float(gaussian_nll(partner, c * recon).sum()) for c in torch.linspace(0, 2, 401))
    assert float(one.sum()) <= best + 0.1  # each sample has its own best size
    recon.requires_grad_()
    value = amplitude_nll(partner, recon, gaussian_nll)
    torch.testing.assert_close(value, gaussian_nll(partner, recon), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), recon)
    along = (gradient * recon).flatten(1).sum(1) / recon.square().flatten(1).sum(1)
    torch.testing.assert_close(gradient, along.view(-1, 1, 1, 1) * recon, rtol=1e-4, atol=1e-5)
