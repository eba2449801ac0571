"""Checkpoints of a training: one file each, written under another name and renamed.

Tensors (weights, optimizers, best weights) are safetensors; numbers and history are JSON in its
header. The random state is not needed: the random numbers of each step follow from (seed, rank,
step), the order of the samples from (seed, pass over the samples).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vaearr import names as n
from vaearr.errors import DataError, TrainingError, UsageError
from vaearr.models.tensors import check_fit, read_header, read_tensors, write_tensors
from vaearr.recipe import differing, stored_and_requested
from vaearr.training.objective import DISCRIMINATOR
from vaearr.training.state import Tensors, Training

CHECKPOINT = n.CHECKPOINT
FORMAT = 3
REMEDY = "Lower learning_rate, use precision='float32'"
STATE_FIELDS = ("epoch", "batch", "seconds", "rows", "best", "best_epoch")


def save_checkpoint(
    state: Training, path: Path, sums: Mapping[str, list[float]], seconds: float = 0.0
) -> None:
    """Write the state of a training. sums: of all processes. seconds: spent in the running epoch.

    Raises TrainingError for weights or sums that are not finite: the existing checkpoint stays.
    """
    tensors = _weights(state)
    checked = [*tensors.values(), torch.tensor(list(sums.values()))]
    if not all(bool(torch.isfinite(value).all()) for value in checked):
        raise TrainingError(
            f"weights or loss are not finite after {state.progress}, so no checkpoint was written. "
            f"{REMEDY}."
        )
    tensors |= {f"best.{name}": value for name, value in state.best_weights.items()}
    for prefix, optimizer in state.optimizers.items():
        for number, moments in optimizer.state_dict()["state"].items():
            for name, value in moments.items():
                if value is not None:
                    tensors[f"{prefix}.{number}.{name}"] = value
    numbers = {name: getattr(state, name) for name in STATE_FIELDS}
    numbers |= {"seconds": seconds, "sums": dict(sums), "scaler": state.scaler.state_dict()}
    write_tensors(path, tensors, {"format": FORMAT, "about": state.must_agree, "state": numbers})


def load_checkpoint(state: Training, path: Path) -> None:
    """Take the state that a checkpoint holds.

    Raises UsageError if it belongs to a training with other settings, and DataError for a file that
    is damaged or holds other networks.
    """
    check_checkpoint(path, state.must_agree)
    tensors, header = read_tensors(path)
    expected = _weights(state)
    weights = {}
    for key, value in tensors.items():
        prefix, _, name = key.partition(".")
        if prefix in ("weights", DISCRIMINATOR):
            weights[key] = value
        elif prefix == "best":
            state.best_weights[name] = value
        elif prefix in state.optimizers:
            _set_moment(state.optimizers[prefix], name, value)
    check_fit(
        expected, weights, f"{path} holds other networks; discard it with restart=True (--restart)"
    )
    for name, value in expected.items():
        value.copy_(weights[name])  # into the networks: `expected` holds their own tensors
    numbers = header["state"]
    for name in STATE_FIELDS:
        setattr(state, name, numbers[name])
    for name, pair in numbers["sums"].items():
        total = torch.tensor(pair, device=state.model.device)
        # the first process continues the sums of all processes
        state.sums[name] = total if state.team.is_first else torch.zeros_like(total)
    state.scaler.load_state_dict(numbers["scaler"])


def _weights(state: Training) -> Tensors:
    """Weights of model and discriminator as checkpoints name them, not copied."""
    tensors = {f"weights.{name}": value for name, value in state.model.state_dict().items()}
    if state.discriminator_loss is not None:
        for name, value in state.discriminator_loss.network.state_dict().items():
            tensors[f"{DISCRIMINATOR}.{name}"] = value
    return tensors


def _set_moment(optimizer: torch.optim.Optimizer, key: str, value: torch.Tensor) -> None:
    """Set an entry of an optimizer's state. key: number of the parameter and name, "3.exp_avg"."""
    number, _, name = key.partition(".")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    parameter = parameters[int(number)]
    moment = value.to(parameter.device)
    if value.ndim:  # in the parameter's memory format: fused kernels go through memory in order
        moment = torch.empty_like(parameter).copy_(value)
    optimizer.state[parameter][name] = moment


def check_checkpoint(path: Path, must_agree: Mapping[str, Any]) -> None:
    """Raise UsageError or DataError unless the header is that of a checkpoint of this training."""
    header = read_header(path)
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path} is not a checkpoint of this vaearr (format {header.get('format')})."
        )
    differences = stored_and_requested(differing(header["about"], must_agree))
    if differences:
        raise UsageError(
            f"{path} belongs to a training with other settings ({differences}); give the same."
        )


def kept_checkpoint(epoch: int) -> str:
    """Return the name of the checkpoint that is kept after an epoch, counted from 1."""
    return f"checkpoint-{epoch:04d}.safetensors"


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint in a folder that was written last."""
    files = folder.glob("checkpoint*.safetensors")
    return max(files, key=lambda file: file.stat().st_mtime_ns, default=None)


def array_sha256(values: Any) -> str:
    """Return a short hash of an array."""
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]
