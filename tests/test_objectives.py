"""Loss terms: nats per sample, against closed forms and torch.distributions."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import Bernoulli, Laplace, Normal
from torch.distributions import kl_divergence as torch_kl

from vaearr.config import ObjectiveConfig
from vaearr.errors import TrainingError
from vaearr.models.objectives import (
    LIKELIHOODS,
    amplitude_nll,
    bernoulli_nll,
    beta_schedule,
    capacity_penalty,
    check_targets,
    classification_nll,
    corrupt,
    gaussian_nll,
    kl_divergence,
    kl_penalty,
    laplace_nll,
    optimal_sigma_nll,
    posterior_kl,
    shape_nll,
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


def test_corruption_has_the_stated_size_and_zero_leaves_the_patterns():
    x = torch.zeros(20, 1, 40, 40)
    assert float(corrupt(x, 0.7).std()) == pytest.approx(0.7, rel=0.05)
    assert corrupt(x, 0.0) is x
    assert float(x.abs().max()) == 0


def test_the_table_holds_every_likelihood_of_the_settings():
    assert set(LIKELIHOODS) == set(get_args(ObjectiveConfig.model_fields["likelihood"].annotation))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_are_per_sample_and_best_at_the_target(name):
    target = 0.2 + 0.6 * torch.rand(4, 2, 5, 6, dtype=torch.float64)
    best = torch.logit(target) if name == "bernoulli" else target
    nll = LIKELIHOODS[name](target, best)
    assert nll.shape == (4,)
    for shift in (0.1, -0.1):
        assert bool((LIKELIHOODS[name](target, best + shift) > nll).all())


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_ignore_the_order_of_pixels(name):
    target, recon = torch.rand(2, 4, 1, 5, 6, dtype=torch.float64)
    turned = LIKELIHOODS[name](target.transpose(2, 3), recon.transpose(2, 3))
    torch.testing.assert_close(turned, LIKELIHOODS[name](target, recon))


def test_laplace_nll_equals_torch_distributions():
    target, recon = torch.randn(2, 4, 2, 5, 6, dtype=torch.float64)
    expected = -Laplace(recon, 1.0).log_prob(target).flatten(1).sum(1)
    torch.testing.assert_close(laplace_nll(target, recon), expected)


def test_bernoulli_nll_equals_torch_distributions():
    logits = 4 * torch.randn(4, 2, 5, 6, dtype=torch.float64)
    target = torch.rand_like(logits).round()
    expected = -Bernoulli(logits=logits).log_prob(target).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli_nll(target, logits), expected)


def test_bernoulli_nll_between_0_and_1_is_the_cross_entropy():
    logits, target = torch.randn(4, 1, 5, 6, dtype=torch.float64), torch.rand(4, 1, 5, 6, dtype=torch.float64)
    p = torch.sigmoid(logits)
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli_nll(target, logits), expected)


def test_bernoulli_gradient_is_the_error_even_where_the_sigmoid_is_flat():
    logits = torch.tensor([-200.0, -3.0, 0.0, 3.0, 200.0]).view(1, 1, 1, 5).requires_grad_()
    target = torch.ones(1, 1, 1, 5)
    nll = bernoulli_nll(target, logits)
    nll.sum().backward()
    assert bool(nll.isfinite().all())
    torch.testing.assert_close(logits.grad, torch.sigmoid(logits.detach()) - target)


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


def test_unknown_likelihoods_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'gaussian'"):
        check_targets(torch.zeros(1, 1, 8, 8), "gausian")


def test_posterior_kl_is_the_kl_but_for_deterministic_networks():
    mean, logvar = torch.randn(2, 6, 3)
    network = torch.nn.Linear(1, 1)
    torch.testing.assert_close(posterior_kl(network, mean, logvar), kl_divergence(mean, logvar))
    network.is_deterministic = True
    kl = posterior_kl(network, mean, torch.full_like(logvar, -torch.inf))
    assert torch.equal(kl, torch.zeros(6, 3))


@pytest.mark.parametrize(("capacity", "sign"), [(1.0, 1), (50.0, -1)], ids=["above", "below"])
def test_capacity_pulls_the_kl_towards_it(capacity, sign):
    kl = torch.rand(6, 4).add(1).requires_grad_()
    penalty = capacity_penalty(kl, capacity)
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(abs(float(kl.detach().sum()) / 6 - capacity), rel=1e-5)
    torch.testing.assert_close(kl.grad, torch.full((6, 4), sign / 6))
    torch.testing.assert_close(capacity_penalty(kl, torch.tensor(capacity)), penalty)


def test_capacity_is_of_the_batch_not_of_each_sample():
    assert float(capacity_penalty(torch.tensor([[1.0, 2.0], [5.0, 4.0]]), 6.0)) == 0
    kl = torch.rand(6, 4)
    torch.testing.assert_close(capacity_penalty(kl, 0.0), kl_penalty(kl))


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


def test_samples_without_a_label_get_no_gradient():
    logits, labels = torch.randn(5, 3, requires_grad=True), torch.tensor([0, -1, 2, -1, 1])
    classification_nll(logits, labels).backward()
    assert logits.grad.any(1).tolist() == [True, False, True, False, True]


def test_a_batch_without_labels_is_exactly_zero():
    logits = torch.randn(5, 3, requires_grad=True)
    nll = classification_nll(logits, torch.full((5,), -1))
    nll.backward()
    assert float(nll.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros(5, 3))


def test_nothing_waits_for_the_device():
    """Fake tensors have no values, so that reading one back fails."""
    with FakeTensorMode():
        target, recon = torch.empty(4, 1, 8, 8), torch.empty(4, 1, 8, 8)
        for likelihood in LIKELIHOODS.values():
            assert likelihood(target, recon).shape == (4,)
        kl = kl_divergence(torch.empty(4, 3), torch.empty(4, 3))
        assert kl_penalty(kl, 0.1).shape == capacity_penalty(kl, torch.empty(())).shape == ()
        assert classification_nll(torch.empty(4, 3), torch.empty(4, dtype=torch.int64)).shape == ()


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


def test_shape_and_amplitude_of_a_constant_reconstruction_are_finite():
    target = torch.randn(3, 1, 4, 4)
    recon = torch.zeros(3, 1, 4, 4, requires_grad=True)
    value = (shape_nll(target, recon, gaussian_nll) + amplitude_nll(target, recon, gaussian_nll)).sum()
    (gradient,) = torch.autograd.grad(value, recon)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
