"""The state of a training, and its checkpoints: one file each, written aside and renamed.

Tensors (weights, optimizer, best weights) are safetensors; numbers and history are JSON in its
header. The random state is not needed: the random numbers of each step follow from (seed, rank,
step), the order of the samples from (seed, epoch).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vaearr import names as n
from vaearr.batching import PatternBatches
from vaearr.config import AdversarialConfig, TrainConfig
from vaearr.errors import DataError, TrainingError, UsageError
from vaearr.models import build
from vaearr.models.artifacts import TrainedModel
from vaearr.models.tensors import check_fit, read_header, read_tensors, write_tensors
from vaearr.recipe import differing, stored_and_requested
from vaearr.training.objective import ADVERSARIAL
from vaearr.training.processes import ALONE, Processes
from vaearr.training.step import (
    Critic,
    Step,
    Sums,
    learning_rates,
    make_optimizer,
    seeded,
    seen_shape,
)

CHECKPOINT, KEPT = n.CHECKPOINT, "checkpoint-*.safetensors"
FORMAT = 3
REMEDY = "Lower learning_rate, use precision='float32'"
GRADIENT_SCALE = 4096.0  # at the start, of a training in float16
NUMBERS = ("epoch", "batch", "seconds", "rows", "best", "best_epoch")

Tensors = dict[str, torch.Tensor]
History = dict[str, Any]  # an epoch's row: a number by name, of latent_kl one per latent dimension


@dataclass
class Training:
    """A training: its parts, what follows from them, and the state that checkpoints hold.

    sums: of the running epoch's terms over samples of this process. weights: of the terms,
    `(update, term)`, on the device. learning_rates, critic_shares: one for each update.
    """

    model: TrainedModel
    train: PatternBatches
    validation: PatternBatches | None
    config: TrainConfig
    folder: Path
    team: Processes = ALONE
    recipe: Mapping[str, Any] = field(default_factory=dict)  # that a checkpoint must agree with
    perceptual: nn.Module | None = None  # that `objective.perceptual` asks for
    epoch_samples: int = 0  # of all processes; 0: all

    epoch: int = 0  # the running one, from 0
    batch: int = 0  # batches of it that are done
    sums: Sums = field(default_factory=dict)
    seconds: float = 0.0  # spent in the running epoch before this process took over
    rows: list[History] = field(default_factory=list)
    best: float = math.inf
    best_epoch: int = -1
    best_weights: Tensors = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.config
        model = self.model
        layout = torch.channels_last if len(model.input_shape) == 3 else torch.contiguous_format
        model.network.to(memory_format=layout)
        self.network_shape = seen_shape(model, config.augment)
        self.loss_step = Step(model, config, perceptual=self.perceptual)
        parameters = [p for p in model.parameters() if p.requires_grad]
        # by the group of their tensors in a file
        self.optimizers = {"optimizer": make_optimizer(parameters, config)}
        is_half = self.loss_step.precision == torch.float16
        self.scaler = torch.amp.GradScaler(
            model.device.type, init_scale=GRADIENT_SCALE, enabled=is_half
        )
        self.due = time.monotonic() + 60 * config.checkpoint_minutes  # the next checkpoint
        # the next epoch continues where the previous one has ended
        self.epoch_batches = len(self.train)
        if self.epoch_samples:
            n_batches = math.ceil(self.epoch_samples / (config.batch_size * self.team.size))
            self.epoch_batches = min(n_batches, len(self.train))
        n_updates = config.epochs * self.epoch_batches
        terms = self.loss_step.terms
        weights = np.stack([term.weight * term.shares(n_updates) for term in terms], 1)
        self.weights = torch.tensor(weights, dtype=torch.float32, device=model.device)
        self.learning_rates = learning_rates(config, self.epoch_batches)
        self.critic_shares = np.zeros(n_updates)
        self.critic: Critic | None = None
        if config.objective.adversarial is not None:
            self._add_critic(config.objective.adversarial)
            shares = {term.name: term.shares(n_updates) for term in terms}
            self.critic_shares = shares[ADVERSARIAL]

    def _add_critic(self, adversarial: AdversarialConfig) -> None:
        """Set the discriminator and its optimizer."""
        config = self.config
        if adversarial.kind == "wgan-gp" and self.team.size > 1:
            # second derivatives are not averaged over processes
            raise UsageError(
                "wgan-gp runs in one process; set objective.adversarial.kind='hinge', or start one."
            )
        name = adversarial.discriminator
        device = self.model.device
        with seeded(config.seed, device):
            network = build(
                "discriminator", name, self.network_shape, adversarial.options, trust=[name]
            )
            network.to(device)
        self.critic = Critic(network, adversarial, self.loss_step.precision)
        self.critic_rate = adversarial.learning_rate or config.learning_rate
        rates = config.replace(learning_rate=self.critic_rate, weight_decay=0.0)
        self.optimizers["critic_optimizer"] = make_optimizer(network.parameters(), rates)

    @property
    def n_batches(self) -> int:
        """Number of updates so far."""
        return self.epoch * self.epoch_batches + self.batch

    @property
    def progress(self) -> str:
        """How far the training is."""
        if not self.batch:
            return f"{self.epoch} epochs"
        return f"epoch {self.epoch + 1}, batch {self.batch}"

    def has_full_critic(self, epoch: int) -> bool:
        """Return whether an epoch ends with the adversarial term, if any, at its final weight."""
        last_update = (epoch + 1) * self.epoch_batches - 1
        return epoch >= 0 and bool(self.critic_shares[last_update] == self.critic_shares[-1])

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or no better one came in time."""
        waited = self.epoch - 1 - self.best_epoch
        is_out_of_patience = waited >= self.config.patience and self.has_full_critic(self.epoch - 1)
        return self.epoch >= self.config.epochs or is_out_of_patience

    def tensors(self) -> Tensors:
        """Return weights of model and discriminator as checkpoints name them, not copied."""
        tensors = {f"weights.{name}": value for name, value in self.model.state_dict().items()}
        if self.critic:
            for name, value in self.critic.network.state_dict().items():
                tensors[f"critic.{name}"] = value
        return tensors

    def summed(self) -> dict[str, list[float]]:
        """Return sums of the running epoch's terms over the samples of all processes, with the
        number of samples.
        """
        if not self.sums:
            return {}
        pairs = self.team.total(torch.stack(list(self.sums.values())))
        return dict(zip(self.sums, pairs.tolist(), strict=True))

    def save(self, path: Path, sums: Mapping[str, list[float]]) -> None:
        """Write a checkpoint; `sums` are those of all processes.

        Raises TrainingError for weights that are not finite: the existing checkpoint stays.
        """
        tensors = self.tensors()
        checked = [value for name, value in tensors.items() if name.startswith("weights.")]
        checked.append(torch.tensor([*sums.values()]))
        if not all(bool(torch.isfinite(value).all()) for value in checked):
            raise TrainingError(
                f"weights or loss are not finite after {self.progress}, so no checkpoint was "
                "written. "
                f"{REMEDY}."
            )
        tensors |= {f"best.{name}": value for name, value in self.best_weights.items()}
        for group, optimizer in self.optimizers.items():
            for i, moments in optimizer.state_dict()["state"].items():
                for key, value in moments.items():
                    if value is not None:
                        tensors[f"{group}.{i}.{key}"] = value
        numbers = {name: getattr(self, name) for name in NUMBERS}
        numbers |= {"sums": dict(sums), "scaler": self.scaler.state_dict()}
        write_tensors(path, tensors, {"format": FORMAT, "about": self.recipe, "state": numbers})

    def load(self, path: Path) -> None:
        """Take the state that a checkpoint holds.

        Raises UsageError if it belongs to a training with other settings, and DataError for a file
        that is damaged or holds other networks.
        """
        check_checkpoint(path, self.recipe)
        tensors, header = read_tensors(path)
        weights = {
            name: value
            for name, value in tensors.items()
            if name.startswith(("weights.", "critic."))
        }
        own_weights = self.tensors()
        check_fit(
            own_weights,
            weights,
            f"{path} holds other networks; discard it with restart=True (--restart)",
        )
        for name, value in own_weights.items():
            value.copy_(weights[name])
        for key, value in tensors.items():
            group, _, name = key.partition(".")
            if group == "best":
                self.best_weights[name] = value
            elif group in self.optimizers:
                self._load_moment(self.optimizers[group], name, value)
        state = header["state"]
        for name in NUMBERS:
            setattr(self, name, state[name])
        for name, pair in state["sums"].items():
            self.sums[name] = torch.tensor(pair, device=self.model.device)
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    @staticmethod
    def _load_moment(optimizer: torch.optim.Optimizer, key: str, value: torch.Tensor) -> None:
        """Set an entry of an optimizer's state, named "number of the parameter.entry"."""
        number, _, name = key.partition(".")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        parameter = parameters[int(number)]
        moment = value.to(parameter.device)
        if value.ndim:  # in the parameter's memory format: fused kernels go through memory in order
            moment = torch.empty_like(parameter).copy_(value)
        optimizer.state[parameter][name] = moment


def check_checkpoint(path: Path, recipe: Mapping[str, Any]) -> None:
    """Raise UsageError or DataError unless the header is that of a checkpoint of this training."""
    header = read_header(path)
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path} is not a checkpoint of this vaearr (format {header.get('format')})."
        )
    differences = stored_and_requested(differing(header["about"], recipe))
    if differences:
        raise UsageError(
            f"{path} belongs to a training with other settings ({differences}); give the same."
        )


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint in a folder that was written last."""
    files = folder.glob("checkpoint*.safetensors")
    return max(files, key=lambda path: path.stat().st_mtime_ns, default=None)


def fingerprint(values: Any) -> str:
    """Return a short hash of an array."""
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]
