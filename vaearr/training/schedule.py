"""Optimizer and learning rate; the rate is a function of the update, so there is no scheduler state to save."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vaearr.config import TrainConfig

BETAS = (0.9, 0.99)
MOMENTUM = 0.9


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (decoupled weight decay), Adam or SGD with Nesterov momentum, fused into one kernel per update."""
    kwargs: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, nesterov=True, **kwargs)
    cls = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return cls(parameters, betas=BETAS, **kwargs)


def rate_at(update: int, n_updates: int, config: TrainConfig, *, per_epoch: int = 1) -> float:
    """Share of the highest learning rate at an update (from 0): a linear rise, then a cosine down, or no change.

    With `restarts` the cosine starts again that many times, in parts of equal length (Loshchilov & Hutter, "SGDR", ICLR
    2017). per_epoch: updates per epoch; with `schedule_per="epoch"` the rate is that of the epoch's first update.
    """
    if config.schedule_per == "epoch":
        update -= update % per_epoch
    rise = round(config.rise * n_updates)
    if update < rise:
        return (update + 1) / rise
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (update - rise) / max(1, n_updates - rise)) * (config.restarts + 1)
    part = done % 1 if done < config.restarts + 1 else 1.0
    return config.rate_end + (1 - config.rate_end) * 0.5 * (1 + math.cos(math.pi * part))


class Average:
    """Exponential moving average of parameters, a copy beside them: average += (1 - decay) * (parameter - average).

    The decay rises to its value over the first updates, so that the start is forgotten: min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = dict(module.named_parameters())
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, n_updates: int) -> None:
        """Take in the parameters as they are after `n_updates` updates."""
        weight = 1 - min(self.decay, (1 + n_updates) / (10 + n_updates))
        torch._foreach_lerp_(list(self.values.values()), list(self.parameters.values()), weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange parameters and average; a second call undoes it."""
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)
