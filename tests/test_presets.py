"""Presets are whole settings; the converter of earlier losses gives parallel gradients in every combination."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from vaearr.config import TrainConfig
from vaearr.config.presets import (
    PRESETS,
    RECONSTRUCTIONS,
    REDUCTIONS,
    objective_from_legacy,
    preset,
    preset_settings,
)
from vaearr.errors import UsageError
from vaearr.models.losses import LIKELIHOODS, kl_divergence


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_whole_settings(name):
    assert preset(name) == TrainConfig.from_attrs(preset_settings(name))
    assert preset(name, epochs=3).epochs == 3
    preset_settings(name)["model"].clear()
    assert preset_settings(name)["model"], "a copy was changed"


def legacy_loss(target, recon, mean, logvar, reconstruction, reduction, kl_reduction, weight):
    """As the earlier systems wrote it: a torch loss function and the closed-form KL, each reduced in its own way."""
    function = {"mse": F.mse_loss, "l1": F.l1_loss, "bce": F.binary_cross_entropy_with_logits}[reconstruction]
    kl = -0.5 * (1 + logvar - mean.square() - logvar.exp())
    reduced = []
    for values, how in ((function(recon, target, reduction="none"), reduction), (kl, kl_reduction)):
        reduced.append({"mean": values.mean(), "sum": values.flatten(1).sum(1).mean(), "batch_sum": values.sum()}[how])
    return reduced[0] + weight * reduced[1]


@pytest.mark.parametrize(("reconstruction", "reduction", "kl"), list(product(RECONSTRUCTIONS, REDUCTIONS, REDUCTIONS)))
def test_gradients_are_parallel(reconstruction, reduction, kl):
    target = torch.rand(5, 2, 3, 4, dtype=torch.float64)
    shapes = (target.shape, (5, 7), (5, 7))
    recon, mean, logvar = inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    legacy = {"reconstruction": reconstruction, "reconstruction_reduction": reduction, "kl_reduction": kl}
    config = objective_from_legacy(**legacy, kl_weight=0.3, n_values=24, latent_dim=7, batch_size=5)
    nll = LIKELIHOODS[config.likelihood](target, recon).mean()
    losses = (
        legacy_loss(target, recon, mean, logvar, reconstruction, reduction, kl, 0.3),
        nll + config.beta * kl_divergence(mean, logvar).sum(1).mean(),
    )
    earlier, ours = (torch.cat([part.flatten() for part in torch.autograd.grad(x, inputs)]) for x in losses)
    scale = {"mse": 2, "l1": 1, "bce": 1}[reconstruction] * {"sum": 1, "mean": 1 / 24, "batch_sum": 5}[reduction]
    torch.testing.assert_close(earlier, scale * ours)


USUAL = {"reconstruction": "mse", "reconstruction_reduction": "sum", "kl_reduction": "sum", "kl_weight": 1.0}
USUAL |= {"n_values": 256 * 256 * 3, "latent_dim": 256}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"reconstruction": "ms"}, "Did you mean 'mse'"),
        ({"kl_reduction": "average"}, "kl_reduction is 'average'"),
        ({"kl_reduction": "batch_sum"}, "give batch_size"),
        ({"n_values": 0}, "must be at least 1"),
        ({"kl_weight": -1.0}, "beta"),
    ],
)
def test_wrong_settings_are_refused(change, word):
    with pytest.raises(UsageError, match=word):
        objective_from_legacy(**USUAL | change)
