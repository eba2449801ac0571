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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from vaearr import names as n
from vaearr.artifacts import check_tensors
from vaearr.config import TrainConfig
from vaearr.errors import DataError, TrainingError, UsageError
from vaearr.models.files import read_header, read_tensors, write_tensors
from vaearr.provenance import versions
from vaearr.training.critic import Critic
from vaearr.training.history import History
from vaearr.training.schedule import Average

CHECKPOINT, KEPT = n.CHECKPOINT, "checkpoint-*.safetensors"
FORMAT = 1
N_FIRST_TERMS = 4  # after these stand the terms that checkpoints of earlier versions lack
WRITING_SHARE = 0.02  # of the time at most goes into checkpoints

Tensors = dict[str, torch.Tensor]


@dataclass
class State:
    """What changes while a training runs."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None
    totals: torch.Tensor  # sums of the running epoch's terms over samples of this process
    critic: Critic | None = None
    epoch: int = 0  # the running one, from 0
    batch: int = 0  # batches of it that are done
    step: int = 0  # batches done in all
    update: int = 0  # optimizer updates done in all
    seconds: float = 0.0  # spent in the running epoch before this process took over
    rows: list[History] = field(default_factory=list)
    best: float = math.inf
    best_epoch: int = -1
    best_weights: Tensors = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)  # in what it went on with something else than before

    @property
    def place(self) -> str:
        """Where the training is, in words."""
        return f"epoch {self.epoch + 1}, batch {self.batch}" if self.batch else f"{self.epoch} epochs"


GROUPS = ("weights", "best", "average", "optimizer", "critic", "critic_optimizer")
NUMBERS = ("epoch", "batch", "step", "update", "seconds", "rows", "best", "best_epoch", "changed")


def surroundings() -> dict[str, Any]:
    """What beside settings and data decides the last digits: threads of the CPU, versions."""
    return {"threads": torch.get_num_threads(), **versions()}


def weights_of(module: nn.Module) -> Tensors:
    """A copy of the weights, on the CPU."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in module.state_dict().items()}


def save_state(state: State, path: Path, about: Mapping[str, Any], totals: torch.Tensor) -> None:
    """Write a checkpoint; `about` says which training it belongs to, `totals` are the sums over all processes.

    Raises TrainingError for weights that are not finite: the checkpoint that is there stays.
    """
    weights = weights_of(state.network)
    if not all(bool(torch.isfinite(value).all()) for value in [totals, *weights.values()] if value.is_floating_point()):
        raise TrainingError(
            f"weights or loss are not finite after {state.place}, so no checkpoint was written. Lower "
            "learning_rate or use precision='float32'."
        )
    tensors = {f"weights.{name}": value for name, value in weights.items()}
    tensors |= {f"best.{name}": value for name, value in state.best_weights.items()}
    if state.average:
        tensors |= {f"average.{name}": value.cpu() for name, value in state.average.values.items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value.cpu() for name, value in values.items() if value is not None}
    if state.critic:
        tensors |= state.critic.tensors()
    numbers = {name: getattr(state, name) for name in NUMBERS} | {"totals": totals.tolist()}
    made = {"made_with": surroundings()}
    write_tensors(path, tensors, {"format": FORMAT, "about": dict(about), "state": numbers} | made)


def load_state(state: State, path: Path, about: Mapping[str, Any]) -> str:
    """Make `state` what the checkpoint holds; returns, and notes in `changed`, threads and versions that are others.

    Raises UsageError when it belongs to a training with other settings and DataError for a file that is not whole.
    """
    tensors, header = read_tensors(path)
    _check(path, header, about)
    groups: dict[str, Tensors] = {name: {} for name in GROUPS}
    for name, value in tensors.items():
        group, _, rest = name.partition(".")
        groups[group][rest] = value
    check_tensors(groups["weights"], path)
    state.network.load_state_dict(groups["weights"], strict=True)
    state.best_weights = groups["best"]
    if state.average:
        for name, value in state.average.values.items():
            value.copy_(groups["average"][name])
    _load_optimizer(state.optimizer, groups["optimizer"])
    if state.critic:
        check_tensors(groups["critic"], path)
        state.critic.load(groups["critic"])
        _load_optimizer(state.critic.optimizer, groups["critic_optimizer"])
    for name in NUMBERS:
        setattr(state, name, header["state"].get(name, getattr(state, name)))  # earlier versions had fewer
    totals = header["state"]["totals"]
    unknown = [0.0] * (len(state.totals) - len(totals))
    totals = totals[:N_FIRST_TERMS] + unknown + totals[N_FIRST_TERMS:]
    state.totals = torch.tensor(totals, dtype=state.totals.dtype, device=state.totals.device)
    made, here = header.get("made_with"), surroundings()
    found = differences({key: made.get(key) for key in here}, here) if isinstance(made, Mapping) else ""
    state.changed += [found] if found else []
    return found


def check_checkpoint(path: Path, about: Mapping[str, Any]) -> None:
    """Raise UsageError or DataError unless the file is a checkpoint of this training. Looks at the header only."""
    _check(path, read_header(path), about)


def _check(path: Path, header: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    if header.get("format") != FORMAT:
        raise DataError(f"{path} is not a checkpoint of this vaearr (format {header.get('format')}).")
    if differing := differences(_filled(header["about"], about, {"settings": TrainConfig().to_attrs()}), about):
        raise UsageError(f"{path} belongs to a training with other settings: {differing}; give the same settings.")


def _filled(saved: Mapping[str, Any], wanted: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a checkpoint says, with the defaults of settings that are wanted and that its version did not have."""
    found = dict(saved)
    for key, default in defaults.items():
        if key in wanted and key not in saved:
            found[key] = default
        elif all(isinstance(values, Mapping) for values in (default, saved.get(key), wanted.get(key))):
            found[key] = _filled(saved[key], wanted[key], default)
    return found


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in a folder that was written last."""
    found = [path for name in (CHECKPOINT, KEPT) for path in folder.glob(name)]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
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
