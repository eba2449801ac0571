"""All that a training is at a moment, in one file: written aside and renamed in, read without unpickling.

Tensors (weights, optimizer, average, best weights) are safetensors; numbers and history are JSON in its header. The
random state needs no place: the numbers of each step follow from (seed, rank, step), the order of the samples from
(seed, epoch).
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr.artifacts import TrainedModel
from vaearr.batching import PatternBatches
from vaearr.config import TrainConfig
from vaearr.device import pick_precision
from vaearr.errors import DataError, TrainingError, UsageError
from vaearr.models.files import check_finite, read_header, read_tensors, write_tensors
from vaearr.provenance import versions
from vaearr.training.critic import Critic
from vaearr.training.processes import Processes
from vaearr.training.records import History, history_dataset
from vaearr.training.schedule import Average, make_optimizer
from vaearr.training.step import TERMS, adversarial_shares, seeded, seen_shape, weights_over

CHECKPOINT, KEPT = n.CHECKPOINT, "checkpoint-*.safetensors"
FORMAT = 2
WRITING_SHARE = 0.02  # of the time at most goes into checkpoints

Tensors = dict[str, torch.Tensor]


@dataclass
class Training:
    """A training: first what it is made of, then what changes while it runs, which checkpoints hold."""

    model: TrainedModel
    train: PatternBatches
    validation: PatternBatches | None
    config: TrainConfig
    folder: Path
    team: Processes = field(default_factory=Processes)
    about: Mapping[str, Any] = field(default_factory=dict)  # what a checkpoint must agree with
    perceptual: nn.Module | None = None  # that `objective.perceptual` asks for
    say: Callable[[str], None] = lambda text: None

    optimizer: torch.optim.Optimizer = field(init=False)
    average: Average | None = field(init=False)
    critic: Critic | None = field(init=False)
    totals: torch.Tensor = field(init=False)  # sums of the running epoch's terms over samples of this process
    epoch: int = 0  # the running one, from 0
    batch: int = 0  # batches of it that are done
    step: int = 0  # batches done in all
    update: int = 0  # optimizer updates done in all
    seconds: float = 0.0  # spent in the running epoch before this process took over
    rows: list[History] = field(default_factory=list)
    best: float = math.inf
    best_epoch: int = -1
    best_weights: Tensors = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)  # threads and versions with which it went on, where others

    def __post_init__(self) -> None:
        config, model, device = self.config, self.model, self.model.device
        layout = torch.channels_last if len(model.input_shape) == 3 else torch.contiguous_format
        model.network.to(memory_format=layout)
        shape = seen_shape(model, config.augment)
        self.optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad], config)
        self.average = Average(model, config.ema) if config.ema else None
        self.totals = torch.zeros(len(TERMS), device=device)
        self.critic = None
        if config.objective.adversarial is not None:
            with seeded(config.seed, device):
                precision = pick_precision(config.precision, device)
                self.critic = Critic(config.objective.adversarial, config, shape, device, precision, self.team)

    @property
    def n_weights(self) -> int:
        """Of the network."""
        return sum(p.numel() for p in self.model.network.parameters())

    @property
    def per_epoch(self) -> int:
        """Updates per epoch."""
        return math.ceil(len(self.train) / self.config.accumulate)

    @cached_property
    def weights(self) -> torch.Tensor:
        """Of the loss's terms at each update, see `weights_over`."""
        return weights_over(self.config.objective, self.per_epoch * self.config.epochs, self.model.device)

    @cached_property
    def shares(self) -> list[float]:
        """Of the adversarial weight at each update."""
        return adversarial_shares(self.config.objective, self.per_epoch * self.config.epochs)

    @property
    def place(self) -> str:
        """Where the training is, in words."""
        return f"epoch {self.epoch + 1}, batch {self.batch}" if self.batch else f"{self.epoch} epochs"

    @property
    def history(self) -> xr.Dataset:
        """Rows of all epochs, over `epoch`, counted from 1."""
        return history_dataset(self.rows)


GROUPS = ("weights", "best", "average", "optimizer", "critic", "critic_optimizer")
NUMBERS = ("epoch", "batch", "step", "update", "seconds", "rows", "best", "best_epoch", "changed")


def surroundings() -> dict[str, Any]:
    """What beside settings and data decides the last digits: threads of the CPU, versions."""
    return {"threads": torch.get_num_threads(), **versions()}


def weights_of(module: nn.Module) -> Tensors:
    """A copy of the weights, on the CPU."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in module.state_dict().items()}


def save_state(state: Training, path: Path, totals: torch.Tensor) -> None:
    """Write a checkpoint; `totals` are the sums over all processes.

    Raises TrainingError for weights that are not finite: the checkpoint that is there stays.
    """
    weights = weights_of(state.model)
    if not all(bool(torch.isfinite(value).all()) for value in [totals, *weights.values()] if value.is_floating_point()):
        raise TrainingError(
            f"weights or loss are not finite after {state.place}, so no checkpoint was written. Lower "
            "learning_rate or use precision='float32'."
        )
    groups: dict[str, Tensors] = {"weights": weights, "best": state.best_weights}
    groups["optimizer"] = _moments(state.optimizer)
    if state.average:
        groups["average"] = state.average.values
    if state.critic:
        groups |= {"critic": weights_of(state.critic.network), "critic_optimizer": _moments(state.critic.optimizer)}
    tensors = {f"{group}.{name}": value.cpu() for group, values in groups.items() for name, value in values.items()}
    numbers = {name: getattr(state, name) for name in NUMBERS} | {"totals": totals.tolist()}
    header = {"format": FORMAT, "about": dict(state.about), "state": numbers, "made_with": surroundings()}
    write_tensors(path, tensors, header)


def load_state(state: Training, path: Path) -> str:
    """Make `state` what the checkpoint holds; returns, and notes in `changed`, threads and versions that are others.

    Raises UsageError when it belongs to a training with other settings and DataError for a file that is not whole.
    """
    tensors, header = read_tensors(path)
    _check(path, header, state.about)
    groups: dict[str, Tensors] = {name: {} for name in GROUPS}
    for name, value in tensors.items():
        group, _, rest = name.partition(".")
        groups[group][rest] = value
    check_finite(groups["weights"], path)
    state.model.load_state_dict(groups["weights"], strict=True)
    state.best_weights = groups["best"]
    if state.average:
        for name, value in state.average.values.items():
            value.copy_(groups["average"][name])
    _load_moments(state.optimizer, groups["optimizer"])
    if state.critic:
        check_finite(groups["critic"], path)
        state.critic.network.load_state_dict(groups["critic"], strict=True)
        _load_moments(state.critic.optimizer, groups["critic_optimizer"])
    for name in NUMBERS:
        setattr(state, name, header["state"][name])
    state.totals.copy_(torch.tensor(header["state"]["totals"], dtype=state.totals.dtype))
    found = differences(header["made_with"], surroundings())
    state.changed += [found] if found else []
    return found


def check_checkpoint(path: Path, about: Mapping[str, Any]) -> None:
    """Raise UsageError or DataError unless the file is a checkpoint of this training. Looks at the header only."""
    _check(path, read_header(path), about)


def _check(path: Path, header: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    if header.get("format") != FORMAT:
        raise DataError(f"{path} is not a checkpoint of this vaearr (format {header.get('format')}).")
    if differing := differences(header["about"], about):
        raise UsageError(f"{path} belongs to a training with other settings: {differing}; give the same settings.")


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in a folder that was written last."""
    found = [path for name in (CHECKPOINT, KEPT) for path in folder.glob(name)]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _moments(optimizer: torch.optim.Optimizer) -> Tensors:
    states = optimizer.state_dict()["state"].items()
    return {f"{i}.{name}": value for i, values in states for name, value in values.items() if value is not None}


def _load_moments(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Moments beside their parameters, in the parameters' memory format: fused kernels go through memory in order."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        parameter = parameters[int(index)]
        like = value.to(parameter.device) if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
        optimizer.state[parameter][key] = like


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> str:
    """Which settings differ, as "epochs 40 and 20, objective.beta 1.0 and 4.0"; empty when none does."""
    found = []
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found.append(differences(a, b, f"{prefix}{key}."))
        elif json.loads(json.dumps(a)) != json.loads(json.dumps(b)):
            found.append(f"{prefix}{key} {a} and {b}")
    return ", ".join(filter(None, found))


def fingerprint(values: Any) -> str:
    """Short hash of an array, for `about`."""
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


class Due:
    """Whether it is time for a checkpoint: `minutes` after the last, later where writes are slow (2 % of the time)."""

    def __init__(self, minutes: float) -> None:
        self.shortest = self.pause = 60 * minutes
        self.last = time.monotonic()

    def __bool__(self) -> bool:
        return time.monotonic() - self.last > self.pause

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Round a write: the next is due after the pause, or later if this one was slow."""
        began = time.monotonic()
        yield
        self.last = time.monotonic()
        self.pause = max(self.shortest, (self.last - began) / WRITING_SHARE)


class Stop:
    """SIGINT and SIGTERM wait until the step is done; then `deliver` hands them to whoever handled them before."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:  # asked twice: at once
            self.deliver()
        self.number = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def deliver(self) -> None:
        """Act on the signal as would have been done without us; never returns."""
        number = self.number or int(signal.SIGTERM)
        self.__exit__()
        signal.raise_signal(number)
        raise SystemExit(128 + number)
