"""Loss terms: nats per sample, against closed forms and torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from vaearr.objectives import (
    beta_at,
    beta_schedule,
    corrupt,
    gaussian_nll,
    kl_divergence,
    kl_penalty,
    optimal_sigma_nll,
)


def test_kl_equals_torch_distributions():
    mean, logvar = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    expected = torch_kl(Normal(mean, torch.exp(0.5 * logvar)), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mean, logvar), expected)


def test_kl_is_zero_at_the_prior_and_never_negative():
    zero = torch.zeros(2, 3)
    assert float(kl_divergence(zero, zero).abs().max()) == 0
    assert float(kl_divergence(zero, 1e-3 * torch.randn(2, 3)).min()) >= 0


def test_penalty_is_the_plain_kl_without_free_bits():
    kl = torch.rand(6, 4)
    torch.testing.assert_close(kl_penalty(kl), kl.sum(1).mean())
    kl = torch.tensor([[0.1, 2.0], [0.3, 4.0]])
    assert float(kl_penalty(kl, 0.5)) == pytest.approx(0.5 + 3.0)


@pytest.mark.parametrize("logvar", [0.0, -1.3], ids=["unit", "narrow"])
def test_gaussian_nll_equals_torch_distributions(logvar):
    target, recon = torch.randn(2, 4, 1, 5, 6, dtype=torch.float64)
    expected = -Normal(recon, math.exp(0.5 * logvar)).log_prob(target).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_nll(target, recon, logvar), expected)


def test_gaussian_nll_takes_a_logvar_per_pixel():
    target, recon, logvar = torch.randn(3, 4, 2, 5, 6, dtype=torch.float64)
    expected = -Normal(recon, torch.exp(0.5 * logvar)).log_prob(target).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_nll(target, recon, logvar), expected)


def test_optimal_sigma_is_the_best_single_variance():
    target, recon = torch.randn(2, 4, 1, 5, 6, dtype=torch.float64)
    best = (target - recon).square().mean()
    nll = optimal_sigma_nll(target, recon).mean()
    torch.testing.assert_close(nll, gaussian_nll(target, recon, float(best.log())).mean())
    for factor in (0.9, 1.1):
        assert float(gaussian_nll(target, recon, float((factor * best).log())).mean()) > float(nll)
    d = target[0].numel()
    assert float(nll) == pytest.approx(0.5 * d * (math.log(2 * math.pi * float(best)) + 1))


def test_optimal_sigma_gradient_is_the_squared_error_over_twice_the_variance():
    target, recon = torch.randn(2, 4, 1, 5, 6, dtype=torch.float64)
    recon.requires_grad_()
    optimal_sigma_nll(target, recon).mean().backward()
    variance = (target - recon.detach()).square().mean()
    torch.testing.assert_close(recon.grad, (recon.detach() - target) / variance / len(target))


def test_perfect_reconstruction_stays_finite():
    x = torch.zeros(3, 1, 8, 8, requires_grad=True)
    nll = optimal_sigma_nll(torch.zeros(3, 1, 8, 8), x).mean()
    nll.backward()
    assert bool(torch.isfinite(nll))
    assert bool(torch.isfinite(x.grad).all())


def test_beta_rises_linearly_and_stays():
    assert [beta_schedule(step, 4, 2.0) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert beta_schedule(0, 0, 3.0) == 3.0
    assert beta_at(49, 1000, 1.0, 0.1) == pytest.approx(0.5)
    assert beta_at(999, 1000, 0.0, 0.1) == 0.0


def test_corruption_has_the_stated_size_and_zero_leaves_the_patterns():
    x = torch.zeros(20, 1, 40, 40)
    assert float(corrupt(x, 0.7).std()) == pytest.approx(0.7, rel=0.05)
    assert corrupt(x, 0.0) is x
    assert float(x.abs().max()) == 0
