"""Loss terms: nats per sample, against closed forms and torch.distributions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Laplace, Normal
from torch.distributions import kl_divergence as torch_kl

from vaearr.errors import TrainingError
from vaearr.models.objectives import (
    amplitude_nll,
    bernoulli_nll,
    beta_schedule,
    capacity_penalty,
    check_targets,
    classification_nll,
    gaussian_nll,
    kl_divergence,
    kl_penalty,
    laplace_nll,
    optimal_sigma_nll,
    shape_nll,
)


def test_kl_equals_torch_distributions():
    mean, logvar = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    expected = torch_kl(Normal(mean, torch.exp(0.5 * logvar)), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mean, logvar), expected)


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


def test_optimal_sigma_is_the_best_single_variance():
    target, recon = torch.randn(2, 4, 1, 5, 6, dtype=torch.float64)
    best = (target - recon).square().mean()
    nll = optimal_sigma_nll(target, recon).mean()
    torch.testing.assert_close(nll, gaussian_nll(target, recon, float(best.log())).mean())
    for factor in (0.9, 1.1):
        assert float(gaussian_nll(target, recon, float((factor * best).log())).mean()) > float(nll)
    d = target[0].numel()
    assert float(nll) == pytest.approx(0.5 * d * (math.log(2 * math.pi * float(best)) + 1))


def test_perfect_reconstruction_stays_finite():
    x = torch.zeros(3, 1, 8, 8, requires_grad=True)
    nll = optimal_sigma_nll(torch.zeros(3, 1, 8, 8), x).mean()
    nll.backward()
    assert bool(torch.isfinite(nll))
    assert bool(torch.isfinite(x.grad).all())


def test_beta_rises_linearly_and_stays():
    assert [beta_schedule(step, 4, 2.0) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert beta_schedule(0, 0, 3.0) == 3.0


def test_laplace_nll_equals_torch_distributions():
    target, recon = torch.randn(2, 4, 2, 5, 6, dtype=torch.float64)
    expected = -Laplace(recon, 1.0).log_prob(target).flatten(1).sum(1)
    torch.testing.assert_close(laplace_nll(target, recon), expected)


def test_bernoulli_nll_equals_torch_distributions():
    logits = 4 * torch.randn(4, 2, 5, 6, dtype=torch.float64)
    target = torch.rand_like(logits).round()
    expected = -Bernoulli(logits=logits).log_prob(target).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli_nll(target, logits), expected)


@pytest.mark.parametrize("value", [-0.5, 1.5, math.nan])
def test_targets_that_are_no_probability_give_no_number(value):
    target = torch.rand(3, 1, 4, 4)
    target[1, 0, 2, 3] = value
    assert torch.isnan(bernoulli_nll(target, torch.zeros_like(target))).tolist() == [False, True, False]
    with pytest.raises(TrainingError, match=r"range from .* to .*bernoulli.*normalise='minmax'"):
        check_targets(target, "bernoulli")
    for other in ("optimal_sigma", "gaussian", "laplace"):
        check_targets(target, other)


def test_rounding_beyond_0_and_1_is_let_through():
    target = torch.tensor([-1e-6, 1 + 1e-6, 0.0, 1.0]).view(1, 1, 2, 2)
    check_targets(target, "bernoulli")
    assert bool(bernoulli_nll(target, torch.zeros_like(target)).isfinite())


@pytest.mark.parametrize(("capacity", "sign"), [(1.0, 1), (50.0, -1)], ids=["above", "below"])
def test_capacity_pulls_the_kl_towards_it(capacity, sign):
    kl = torch.rand(6, 4).add(1).requires_grad_()
    penalty = capacity_penalty(kl, capacity)
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(abs(float(kl.detach().sum()) / 6 - capacity), rel=1e-5)
    torch.testing.assert_close(kl.grad, torch.full((6, 4), sign / 6))
    torch.testing.assert_close(capacity_penalty(kl, torch.tensor(capacity)), penalty)


def test_classification_equals_the_cross_entropy_where_all_have_labels():
    logits, labels = torch.randn(9, 4), torch.randint(0, 4, (9,))
    torch.testing.assert_close(classification_nll(logits, labels), F.cross_entropy(logits, labels))
    assert float(classification_nll(torch.zeros(9, 4), labels)) == pytest.approx(math.log(4))


def test_missing_labels_add_nothing_and_batches_average_exactly():
    logits, labels = torch.randn(12, 3), torch.tensor([0, -1, 2, 1, -1, -1, 0, 0, 1, -1, 2, 2])
    known = labels >= 0
    whole = classification_nll(logits, labels)
    torch.testing.assert_close(whole, F.cross_entropy(logits[known], labels[known], reduction="sum") / 12)
    parts = [classification_nll(logits[i : i + 4], labels[i : i + 4]) for i in (0, 4, 8)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_shape_nll_does_not_depend_on_the_reconstructions_size():
    partner, recon = torch.randn(4, 1, 5, 6), torch.randn(4, 1, 5, 6)
    recon = recon + 0.5 * partner  # a positive projection
    one, other = shape_nll(partner, recon, gaussian_nll), shape_nll(partner, 7 * recon, gaussian_nll)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    best = min(float(gaussian_nll(partner, c * recon).sum()) for c in torch.linspace(0, 2, 401))
    assert float(one.sum()) <= best + 0.1  # each sample has its own best size


def test_amplitude_nll_moves_the_size_alone():
    own, recon = torch.randn(4, 1, 5, 6), torch.randn(4, 1, 5, 6, requires_grad=True)
    value = amplitude_nll(own, recon, gaussian_nll)
    torch.testing.assert_close(value, gaussian_nll(own, recon), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), recon)
    along = (gradient * recon).flatten(1).sum(1) / recon.square().flatten(1).sum(1)
    torch.testing.assert_close(gradient, along.view(-1, 1, 1, 1) * recon, rtol=1e-4, atol=1e-5)
