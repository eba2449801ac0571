"""All that a training is at a moment, in one file: written aside and renamed in, read without
unpickling.

Tensors (weights, optimizer, best weights) are safetensors; numbers and history are JSON in its
header. The random state needs no place: the numbers of each step follow from (seed, rank, step),
the order of the samples from (seed, epoch).
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
from vaearr.computing.device import pick_precision
from vaearr.config import TrainConfig
from vaearr.errors import DataError, TrainingError, UsageError
from vaearr.models import build
from vaearr.models.artifacts import TrainedModel
from vaearr.models.tensors import check_fit, read_header, read_tensors, write_tensors
from vaearr.recipe import differing, stored_and_requested, versions
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
    """A training: what it is made of, what follows from that, and what changes while it runs and
    checkpoints hold.

    sums: of the running epoch's terms over samples of this process. weights: of the terms, `(update,
    term)`, on the device. learning_rates, critic_shares: one for each update.
    """

    model: TrainedModel
    train: PatternBatches
    validation: PatternBatches | None
    config: TrainConfig
    folder: Path
    team: Processes = ALONE
    about: Mapping[str, Any] = field(default_factory=dict)  # what a checkpoint must agree with
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
        config, model, device = self.config, self.model, self.model.device
        layout = torch.channels_last if len(model.input_shape) == 3 else torch.contiguous_format
        model.network.to(memory_format=layout)
        shape, adversarial = seen_shape(model, config.augment), config.objective.adversarial
        self.loss_step = Step(model, config, perceptual=self.perceptual)
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizers = {
            "optimizer": make_optimizer(parameters, config)
        }  # by the group of their tensors in a file
        is_half = self.loss_step.precision == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, init_scale=GRADIENT_SCALE, enabled=is_half)
        self.due = time.monotonic() + 60 * config.checkpoint_minutes  # the next checkpoint
        most = math.ceil(self.epoch_samples / (config.batch_size * self.team.size)) or len(
            self.train
        )
        self.epoch_batches = min(
            most, len(self.train)
        )  # the next epoch goes on where the one before has ended
        n_updates = config.epochs * self.epoch_batches
        terms = self.loss_step.terms
        weights = np.stack([term.weight * term.shares(n_updates) for term in terms], 1)
        self.weights = torch.tensor(weights, dtype=torch.float32, device=device)
        self.learning_rates = learning_rates(config, self.epoch_batches)
        self.critic_shares = np.zeros(n_updates)
        for term in terms:
            if term.name == ADVERSARIAL:
                self.critic_shares = term.shares(n_updates)
        self.critic: Critic | None = None
        if adversarial is not None:
            if (
                adversarial.kind == "wgan-gp" and self.team.size > 1
            ):  # second derivatives are not averaged
                raise UsageError(
                    "wgan-gp runs in one process; set objective.adversarial.kind='hinge', or start one."
                )
            with seeded(config.seed, device):
                name = adversarial.discriminator
                network = build("discriminator", name, shape, adversarial.options, trust=[name]).to(
                    device
                )
            self.critic = Critic(network, adversarial, pick_precision(config.precision, device))
            rates = config.replace(learning_rate=adversarial.learning_rate, weight_decay=0.0)
            self.critic_rate = rates.learning_rate
            self.optimizers["critic_optimizer"] = make_optimizer(list(network.parameters()), rates)

    @property
    def n_batches(self) -> int:
        """Batches done in all."""
        return self.epoch * self.epoch_batches + self.batch

    @property
    def progress(self) -> str:
        """How far the training is."""
        return (
            f"epoch {self.epoch + 1}, batch {self.batch}" if self.batch else f"{self.epoch} epochs"
        )

    def has_full_critic(self, epoch: int) -> bool:
        """Whether an epoch ends with the adversarial term at its final weight; always so where
        there is none.
        """
        last_update = (epoch + 1) * self.epoch_batches - 1
        return epoch >= 0 and bool(self.critic_shares[last_update] == self.critic_shares[-1])

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or patience is out."""
        waited = self.epoch - 1 - self.best_epoch
        is_out_of_patience = waited >= self.config.patience and self.has_full_critic(self.epoch - 1)
        return self.epoch >= self.config.epochs or is_out_of_patience

    def tensors(self) -> Tensors:
        """The tensors themselves that a checkpoint holds as they are, by group and name."""
        tensors = {f"weights.{name}": value for name, value in self.model.state_dict().items()}
        if self.critic:
            tensors |= {
                f"critic.{name}": value for name, value in self.critic.network.state_dict().items()
            }
        return tensors

    def summed(self) -> dict[str, list[float]]:
        """Sums of the running epoch's terms over the samples of all processes, and how many samples
        these are.
        """
        if not self.sums:
            return {}
        pairs = self.team.total(torch.stack(list(self.sums.values())))
        return dict(zip(self.sums, pairs.tolist(), strict=True))

    def save(self, path: Path, sums: Mapping[str, list[float]]) -> None:
        """Write a checkpoint; `sums` are those of all processes.

        Raises TrainingError for weights that are not finite: the checkpoint that is there stays.
        """
        tensors = self.tensors()
        weights = [value for name, value in tensors.items() if name.startswith("weights.")]
        if not all(
            bool(torch.isfinite(value).all())
            for value in [torch.tensor([*sums.values()]), *weights]
        ):
            found = f"weights or loss are not finite after {self.progress}, so no checkpoint was written"
            raise TrainingError(f"{found}. {REMEDY}.")
        tensors |= {f"best.{name}": value for name, value in self.best_weights.items()}
        for group, optimizer in self.optimizers.items():
            for i, moments in optimizer.state_dict()["state"].items():
                tensors |= {
                    f"{group}.{i}.{key}": value
                    for key, value in moments.items()
                    if value is not None
                }
        numbers = {name: getattr(self, name) for name in NUMBERS}
        numbers |= {"sums": dict(sums), "scaler": self.scaler.state_dict()}
        header = {
            "format": FORMAT,
            "about": dict(self.about),
            "state": numbers,
            "made_with": surroundings(),
        }
        write_tensors(path, tensors, header)

    def load(self, path: Path) -> str:
        """Become what a checkpoint holds; returns which threads and versions are others than then,
        in words.

        Raises UsageError when it belongs to a training with other settings and DataError for a file
        that is not whole or holds other networks.
        """
        check_checkpoint(path, self.about)
        tensors, header = read_tensors(path)
        own = self.tensors()
        held = {
            name: value
            for name, value in tensors.items()
            if name.startswith(("weights.", "critic."))
        }
        check_fit(
            own, held, f"{path} holds other networks; throw it away with restart=True (--restart)"
        )
        for name, value in own.items():
            value.copy_(held[name])
        self.best_weights = {
            key.removeprefix("best."): v for key, v in tensors.items() if key.startswith("best.")
        }
        for key, value in tensors.items():
            group, _, rest = key.partition(".")
            if optimizer := self.optimizers.get(group):
                i, _, name = rest.partition(".")
                mine = [p for each in optimizer.param_groups for p in each["params"]][int(i)]
                # in the parameter's memory format: fused kernels go through memory in order
                like = (
                    value.to(mine.device)
                    if value.ndim == 0
                    else torch.empty_like(mine).copy_(value)
                )
                optimizer.state[mine][name] = like
        for name in NUMBERS:
            setattr(self, name, header["state"][name])
        for name, pair in header["state"]["sums"].items():
            self.sums[name] = torch.tensor(pair, device=self.model.device)
        if header["state"].get("scaler"):
            self.scaler.load_state_dict(header["state"]["scaler"])
        return stored_and_requested(differing(header["made_with"], surroundings()))


def surroundings() -> dict[str, Any]:
    """What beside settings and data decides the last digits: threads of the CPU, versions."""
    return {"threads": torch.get_num_threads(), **versions()}


def check_checkpoint(path: Path, about: Mapping[str, Any]) -> None:
    """Raise UsageError or DataError unless the file is a checkpoint of this training. Looks at the
    header only.
    """
    header = read_header(path)
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path} is not a checkpoint of this vaearr (format {header.get('format')})."
        )
    if found := differing(header["about"], about):
        words = stored_and_requested(found)
        raise UsageError(
            f"{path} belongs to a training with other settings ({words}); give the same."
        )


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in a folder that was written last."""
    return max(
        folder.glob("checkpoint*.safetensors"),
        key=lambda path: path.stat().st_mtime_ns,
        default=None,
    )


def fingerprint(values: Any) -> str:
    """Short hash of an array, for `about`."""
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]
