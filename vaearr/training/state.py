"""The state of a training: what is trained, the schedule of its updates, and how far it is."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vaearr.batching import PatternBatches, Walk
from vaearr.config import AdversarialConfig, TrainConfig
from vaearr.errors import UsageError
from vaearr.models import build
from vaearr.models.artifacts import TrainedModel
from vaearr.training.objective import ADVERSARIAL, DISCRIMINATOR
from vaearr.training.processes import ALONE, Processes
from vaearr.training.step import DiscriminatorLoss, Step, Sums, make_optimizer, rate_shares, seeded

GRADIENT_SCALE = 4096.0  # at the start, of a training in float16

Tensors = dict[str, torch.Tensor]
Row = dict[str, Any]  # of an epoch: numbers by name; latent_kl is a list, one per dimension


@dataclass
class Training:
    """A training: what is trained, and the state that checkpoints hold.

    Attributes
    ----------
    must_agree : mapping
        Settings, data and processes, which a checkpoint must share to be resumed.
    perceptual : torch.nn.Module or None
        The network that `objective.perceptual` asks for.
    epoch_samples : int
        Samples of an epoch, of all processes; 0 for all samples.
    epoch, batch : int
        The running epoch, from 0, and how many of its batches are done.
    sums : dict
        Sums of the terms of the running epoch, over the samples of this process.
    seconds : float
        Time spent in the running epoch before the training was resumed.
    rows : list of dict
        History of the complete epochs.
    best, best_epoch, best_weights
        Lowest validation loss, its epoch and the weights of the model after it.
    loss_step, discriminator_loss, optimizers, scaler, walk
        Modules and optimizers made from the settings.
    term_weights, adversarial_shares, rate_shares, epoch_batches
        What is known for every update, see `_plan_updates`.
    """

    model: TrainedModel
    train: PatternBatches
    validation: PatternBatches | None
    config: TrainConfig
    folder: Path
    team: Processes = ALONE
    must_agree: Mapping[str, Any] = field(default_factory=dict)
    perceptual: nn.Module | None = None
    epoch_samples: int = 0

    epoch: int = 0
    batch: int = 0
    sums: Sums = field(default_factory=dict)
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    best: float = math.inf
    best_epoch: int = -1
    best_weights: Tensors = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.config
        model = self.model
        layout = torch.channels_last if len(model.input_shape) == 3 else torch.contiguous_format
        model.network.to(memory_format=layout)
        self.loss_step = Step(model, config, self.perceptual)
        parameters = [p for p in model.parameters() if p.requires_grad]
        # keys: the prefixes of the optimizers' tensors in a checkpoint
        self.optimizers = {"optimizer": make_optimizer(parameters, config)}
        self.discriminator_loss: DiscriminatorLoss | None = None
        if config.objective.adversarial is not None:
            self.discriminator_loss = self._make_discriminator(config.objective.adversarial)
        is_half = self.loss_step.precision == torch.float16
        self.scaler = torch.amp.GradScaler(
            model.device.type, init_scale=GRADIENT_SCALE, enabled=is_half
        )
        self.walk: Walk | None = None
        if config.objective.target == "neighbour":
            self.walk = Walk(model.preprocess, config.objective.walk)
        self.next_save = time.monotonic() + 60 * config.checkpoint_minutes
        self._plan_updates()

    def _make_discriminator(self, adversarial: AdversarialConfig) -> DiscriminatorLoss:
        """The discriminator with its loss; its optimizer is added to `optimizers`."""
        if adversarial.kind == "wgan-gp" and self.team.size > 1:
            # second derivatives are not averaged over processes
            raise UsageError(
                "wgan-gp runs in one process; set objective.adversarial.kind='hinge', or start one."
            )
        name = adversarial.discriminator
        device = self.model.device
        shape = self.model.preprocess.shape
        with seeded(self.config.seed, device):
            network = build("discriminator", name, shape, adversarial.options, trust=[name])
            network.to(device)
        rate = adversarial.learning_rate or self.config.learning_rate
        config = self.config.replace(learning_rate=rate, weight_decay=0.0)
        self.optimizers[f"{DISCRIMINATOR}_optimizer"] = make_optimizer(network.parameters(), config)
        return DiscriminatorLoss(network, adversarial.kind, self.loss_step.precision)

    def _plan_updates(self) -> None:
        """Set the length of an epoch, and what changes from one update to the next.

        For each update: `term_weights` `(update, term)` on the device; `adversarial_shares`, by
        which the weight of the adversarial term is multiplied; `rate_shares`, by which the highest
        learning rate is.
        """
        self.epoch_batches = len(self.train)
        if self.epoch_samples:
            n_batches = math.ceil(self.epoch_samples / (self.config.batch_size * self.team.size))
            self.epoch_batches = min(n_batches, self.epoch_batches)
        n_updates = self.config.epochs * self.epoch_batches
        terms = self.loss_step.terms
        shares = {term.name: term.shares(n_updates) for term in terms}
        term_weights = np.stack([term.weight * shares[term.name] for term in terms], 1)
        self.term_weights = torch.tensor(
            term_weights, dtype=torch.float32, device=self.model.device
        )
        self.adversarial_shares = shares.get(ADVERSARIAL, np.zeros(n_updates))
        self.rate_shares = rate_shares(self.config, self.epoch_batches)

    @property
    def n_updates_done(self) -> int:
        """Number of updates so far, of all epochs."""
        return self.epoch * self.epoch_batches + self.batch

    @property
    def progress(self) -> str:
        """How far the training is."""
        if not self.batch:
            return f"{self.epoch} epochs"
        return f"epoch {self.epoch + 1}, batch {self.batch}"

    def has_full_adversarial(self, epoch: int) -> bool:
        """Return whether an epoch ends with the adversarial term, if any, at its final weight."""
        last_update = (epoch + 1) * self.epoch_batches - 1
        return epoch >= 0 and bool(
            self.adversarial_shares[last_update] == self.adversarial_shares[-1]
        )

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or no better one came in time."""
        waited = self.epoch - 1 - self.best_epoch
        is_out_of_patience = waited >= self.config.patience and self.has_full_adversarial(
            self.epoch - 1
        )
        return self.epoch >= self.config.epochs or is_out_of_patience
