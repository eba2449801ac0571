"""Presets are whole settings; the converter of earlier losses gives parallel gradients in every combination."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from vaearr.config import TrainConfig
from vaearr.errors import UsageError
from vaearr.models.objectives import LIKELIHOODS, kl_divergence
from vaearr.presets import (
    PRESETS,
    RECONSTRUCTIONS,
    REDUCTIONS,
    check_preset,
    objective_from_legacy,
    preset,
    preset_settings,
)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_whole_settings(name):
    assert preset(name) == TrainConfig.from_attrs(preset_settings(name))
    assert preset(name, epochs=3).epochs == 3
    preset_settings(name)["model"].clear()
    assert preset_settings(name)["model"], "a copy was changed"


@pytest.mark.parametrize(
    ("name", "n_dims", "match"), [("sd", 3, "not for volumes.*maisi"), ("maisi", 2, "not for images.*sd")]
)
def test_presets_for_samples_of_another_kind_are_refused(name, n_dims, match):
    with pytest.raises(UsageError, match=match):
        check_preset(name, n_dims)
    check_preset(name, 5 - n_dims)


SHAPE, LATENT = (5, 2, 3, 4), 7
N_VALUES = 24


def legacy_loss(target, recon, mean, logvar, reconstruction, reduction, kl_reduction, weight):
    """As the earlier systems wrote it: a torch loss function and the closed-form KL, each reduced in its own way."""
    function = {"mse": F.mse_loss, "l1": F.l1_loss, "bce": F.binary_cross_entropy_with_logits}[reconstruction]
    kl = -0.5 * (1 + logvar - mean.square() - logvar.exp())
    reduced = []
    for values, how in ((function(recon, target, reduction="none"), reduction), (kl, kl_reduction)):
        reduced.append({"mean": values.mean(), "sum": values.flatten(1).sum(1).mean(), "batch_sum": values.sum()}[how])
    return reduced[0] + weight * reduced[1]


def gradient(loss, inputs):
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, inputs)])


@pytest.mark.parametrize(("reduction", "kl_reduction"), list(product(REDUCTIONS, REDUCTIONS)))
@pytest.mark.parametrize("reconstruction", RECONSTRUCTIONS)
@pytest.mark.parametrize("weight", [0.0, 0.3, 250.0])
def test_gradients_are_parallel(reconstruction, reduction, kl_reduction, weight):
    target = torch.rand(SHAPE, dtype=torch.float64)
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (SHAPE, (5, LATENT), (5, LATENT))
    ]
    recon, mean, logvar = inputs
    loss = legacy_loss(target, recon, mean, logvar, reconstruction, reduction, kl_reduction, weight)
    earlier = gradient(loss, inputs)
    config = objective_from_legacy(
        reconstruction=reconstruction,
        reconstruction_reduction=reduction,
        kl_reduction=kl_reduction,
        kl_weight=weight,
        n_values=N_VALUES,
        latent_dim=LATENT,
        batch_size=SHAPE[0],
    )
    nll = LIKELIHOODS[config.likelihood](target, recon).mean()
    ours = gradient(nll + config.beta * kl_divergence(mean, logvar).sum(1).mean(), inputs)
    scale = {"mse": 2, "l1": 1, "bce": 1}[reconstruction] * {"sum": 1, "mean": 1 / N_VALUES, "batch_sum": 5}[reduction]
    torch.testing.assert_close(earlier, scale * ours)


@pytest.mark.parametrize(
    ("reconstruction", "reduction", "kl_reduction", "n_values", "latent_dim", "beta"),
    [
        ("mse", "sum", "mean", 60 * 60, 256, 0.002),
        ("l1", "mean", "sum", 256 * 256 * 3, 128, 196_608),
        ("mse", "mean", "sum", 256 * 256 * 3, 128, 98_304),
        ("mse", "mean", "mean", 60 * 60, 32, 56.25),
        ("mse", "batch_sum", "batch_sum", 60 * 60, 32, 0.5),
        ("bce", "sum", "sum", 784, 20, 1.0),
    ],
)
def test_published_extremes(reconstruction, reduction, kl_reduction, n_values, latent_dim, beta):
    config = objective_from_legacy(
        reconstruction=reconstruction,
        reconstruction_reduction=reduction,
        kl_reduction=kl_reduction,
        kl_weight=1.0,
        n_values=n_values,
        latent_dim=latent_dim,
    )
    assert config.beta == pytest.approx(beta, rel=0.03)


USUAL = {
    "reconstruction": "mse",
    "reconstruction_reduction": "sum",
    "kl_reduction": "sum",
    "kl_weight": 1.0,
    "n_values": 100,
    "latent_dim": 10,
}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"reconstruction": "ms"}, "Did you mean 'mse'"),
        ({"kl_reduction": "average"}, "kl_reduction is 'average'"),
        ({"kl_reduction": "batch_sum"}, "give batch_size"),
        ({"n_values": 0}, "n_values is 0"),
        ({"kl_weight": -1.0}, "beta"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(change, word):
    with pytest.raises(UsageError, match=word):
        objective_from_legacy(**USUAL | change)
