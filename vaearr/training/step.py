"""The differentiable part of a training step, and what changes from one update to the next.

`Step` computes the terms of the loss from stored patterns, `DiscriminatorLoss` is the loss of the
discriminator. The weights of the terms and the learning rate are known for every update, so there
is no scheduler whose state would have to be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from vaearr.computing.device import autocast, pick_precision
from vaearr.config import TrainConfig
from vaearr.models import Network, losses
from vaearr.models.artifacts import TrainedModel, pooled
from vaearr.models.augmentation import add_noise, draw_geometry
from vaearr.training.objective import Prediction, loss_terms

BETAS, MOMENTUM = (0.9, 0.99), 0.9

# name of a term -> its sum over samples, and the number of these
Sums = dict[str, torch.Tensor]


class StepOutput(NamedTuple):
    """Results for a batch: the mean `loss`, the `sums` of its terms, and the prediction."""

    loss: torch.Tensor
    sums: Sums
    prediction: Prediction


class Step(nn.Module):
    """Loss of a batch of stored patterns, in nats per sample.

    perceptual: a module of `models.perceptual`.
    """

    def __init__(
        self, model: TrainedModel, config: TrainConfig, perceptual: nn.Module | None = None
    ) -> None:
        super().__init__()
        assert config.objective.input_noise is not None, "the settings still contain 'auto'"
        self.model = model
        self.config = config
        self.input_noise = config.objective.input_noise
        self.precision = pick_precision(config.precision, model.device)
        self.perceptual = perceptual  # a submodule, so that its mode is set with that of the step
        self.terms = loss_terms(model, config.objective, self.precision, perceptual)

    def forward(
        self,
        patterns: torch.Tensor,
        target: torch.Tensor | None,
        labels: torch.Tensor | None,
        term_weights: torch.Tensor,
        discriminator: nn.Module | None = None,
    ) -> StepOutput:
        """Compute the terms of the loss and their weighted sum.

        target: patterns to predict; None for the patterns themselves. labels: `(B,)`, -1 for none.
        term_weights: in the order of `terms`. discriminator: gives logit maps of preprocessed
        patterns, once it is in use; its parameters get no gradient here.
        """
        model = self.model
        network: Network = model.network
        has_logits = losses.takes_logits(self.config.objective.likelihood)
        class_logits = None
        with autocast(patterns.device, self.precision):
            sample = model.preprocess(patterns)
            wanted = sample if target is None else model.preprocess(target)
            noisy = sample
            if self.training:
                sample, wanted = self._moved(sample, wanted, is_partner=target is not None)
                noisy = self._with_noise(sample)
            mean, logvar = network.encode(noisy)
            z = mean
            if self.training and not network.is_deterministic:
                z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            decoded = network.decode(z, logits=True) if has_logits else network.decode(z)
            if labels is not None and model.classifier is not None:
                class_logits = model.classifier(pooled(mean)).float()
        decoded = decoded.float()
        mean = mean.float()
        prediction = Prediction(
            sample=sample,
            target=wanted,
            is_partner=target is not None,
            decoded=decoded,
            decoded_values=decoded.sigmoid() if has_logits else decoded,
            mean=mean,
            kl=losses.posterior_kl(network, mean, logvar.float()),
            class_logits=class_logits,
            labels=labels,
            discriminator=discriminator,
        )
        loss, sums = self._loss(prediction, term_weights)
        return StepOutput(loss, sums, prediction)

    def _moved(
        self, sample: torch.Tensor, wanted: torch.Tensor, is_partner: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Input and target, moved and turned in the same way."""
        move = draw_geometry(len(sample), self.config.augment, sample.device)
        moved = move(sample)
        if self.config.objective.target == "unmoved":
            return moved, wanted
        target = move(wanted) if is_partner else moved
        return moved, target

    def _with_noise(self, sample: torch.Tensor) -> torch.Tensor:
        augment = self.config.augment
        noisy = add_noise(sample, self.input_noise)
        return add_noise(noisy, augment.noise, augment.circle)

    def _loss(
        self, prediction: Prediction, term_weights: torch.Tensor
    ) -> tuple[torch.Tensor, Sums]:
        loss = prediction.kl.new_zeros(())
        sums: Sums = {}
        all_samples = loss.new_full((), len(prediction.kl))
        for term, weight in zip(self.terms, term_weights, strict=True):
            measured = term.measure(prediction)
            if measured is None:
                continue
            loss = loss + term.contribution(measured, weight)
            n_samples = all_samples if measured.n_samples is None else measured.n_samples
            sums[term.name] = torch.stack([measured.value.detach() * n_samples, n_samples])
        sums["loss"] = torch.stack([loss.detach() * all_samples, all_samples])
        return loss, sums


class DiscriminatorLoss(nn.Module):
    """Loss of the discriminator for preprocessed and decoded patterns: `2 x (B, C, …) -> ()`."""

    def __init__(self, network: nn.Module, kind: str, precision: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.kind = kind
        self.precision = precision

    def forward(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Return the loss; real and fake have no gradients."""
        with autocast(real.device, self.precision):
            maps_real = self.network(real)
            maps_fake = self.network(fake)
        loss = losses.discriminator_loss(maps_real, maps_fake, self.kind)
        if self.kind == "wgan-gp":
            loss = loss + losses.PENALTY_WEIGHT * losses.gradient_penalty(self.network, real, fake)
        return loss


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainConfig
) -> torch.optim.Optimizer:
    """Return AdamW (decoupled weight decay), Adam or SGD with Nesterov momentum, fused."""
    kwargs: dict[str, Any] = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "fused": True,
    }
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, nesterov=True, **kwargs)
    cls = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return cls(parameters, betas=BETAS, **kwargs)


def rate_shares(config: TrainConfig, per_epoch: int) -> np.ndarray:
    """Return the share of the highest learning rate at each update, `(n_updates,)`: a linear rise,
    then a cosine down.

    With `restarts` the cosine starts again that many times, in parts of equal length (Loshchilov &
    Hutter, "SGDR", ICLR 2017). With `schedule_per="epoch"` the rate is that of the epoch's first
    update.
    """
    n_updates = per_epoch * config.epochs
    update = np.arange(n_updates)
    if config.schedule_per == "epoch":
        update -= update % per_epoch
    rise = round(config.rise * n_updates)
    done = (update - rise) / max(1, n_updates - rise) * (config.restarts + 1)
    fall = 0.5 * (1 + np.cos(np.pi * (done % 1)))
    cosine = config.rate_end + (1 - config.rate_end) * fall
    return np.where(update < rise, (update + 1) / max(rise, 1), cosine)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside the block, and restore the random state afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=True):
        torch.manual_seed(seed)
        yield


def seed_step(seed: int, rank: int, step: int) -> None:
    """Make the random numbers of a step a function of (seed, rank, step), also when resumed."""
    state = np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
