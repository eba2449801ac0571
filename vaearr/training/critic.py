"""The discriminator of a training: its own weights, optimizer and step, beside the VAE's in one process."""

from __future__ import annotations

import torch
from torch import nn

from vaearr.config import AdversarialConfig, TrainConfig
from vaearr.device import autocast
from vaearr.errors import UsageError
from vaearr.models import build_discriminator
from vaearr.models.losses import PENALTY_WEIGHT, discriminator_loss, gradient_penalty
from vaearr.training.processes import Processes
from vaearr.training.schedule import make_optimizer


class CriticStep(nn.Module):
    """Loss of the discriminator for preprocessed patterns and what was decoded for them: `2 x (B, C, …) -> ()`."""

    def __init__(self, network: nn.Module, config: AdversarialConfig, precision: torch.dtype) -> None:
        super().__init__()
        self.network, self.config, self.precision = network, config, precision

    def forward(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """real and fake without history."""
        with autocast(real.device, self.precision):
            maps_real, maps_fake = self.network(real), self.network(fake)
        loss = discriminator_loss(maps_real, maps_fake, self.config.kind)
        if self.config.kind == "wgan-gp":
            loss = loss + PENALTY_WEIGHT * gradient_penalty(self.network, real, fake)
        return loss


class Critic:
    """Network, optimizer and step of the discriminator.

    Raises UsageError for an unknown discriminator, for patterns that are too small for it, and for wgan-gp in several
    processes, whose second derivative cannot be averaged over them.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        settings: TrainConfig,
        input_shape: tuple[int, ...],
        device: torch.device,
        precision: torch.dtype,
        team: Processes,
    ) -> None:
        if config.kind == "wgan-gp" and team.size > 1:
            raise UsageError("wgan-gp runs in one process; choose objective.adversarial.kind='hinge' or one process.")
        self.network = build_discriminator(config.discriminator, input_shape, **config.options).to(device)
        self.highest = config.learning_rate or settings.learning_rate
        rates = settings.replace(learning_rate=self.highest, weight_decay=0.0)
        self.optimizer = make_optimizer(list(self.network.parameters()), rates)
        self.clip = settings.clip
        self._step = team.share(CriticStep(self.network, config, precision), device)

    def learn(self, real: torch.Tensor, fake: torch.Tensor, n_batches: int) -> torch.Tensor:
        """Gradients of one of the `n_batches` batches of an update; returns the loss, without history."""
        self.network.train()
        loss: torch.Tensor = self._step(real, fake.detach())
        (loss / n_batches).backward()
        return loss.detach()

    def update(self, share: float) -> None:
        """One update at this share of the highest learning rate, and on to the next."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.highest * share
        nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
