"""The differentiable part of a training step: stored patterns in, terms of the loss out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from vaearr.artifacts import TrainedModel
from vaearr.augmentation import add_noise, apply_augmentation, plan_augmentation
from vaearr.config import AugmentConfig, ObjectiveConfig
from vaearr.device import autocast
from vaearr.objectives import (
    LIKELIHOODS,
    beta_schedule,
    capacity_penalty,
    classification_nll,
    corrupt,
    kl_penalty,
    posterior_kl,
    takes_logits,
)

TERMS = ("loss", "reconstruction_nll", "kl", "label_nll", "label_right", "label_known")


class Step(nn.Module):
    """Terms of the loss for a batch, in the order of `TERMS`: `(B, C, …) -> (6,)`, means over the batch.

    In nats per sample, but the last two: the shares of samples that have a label, and that the head names right.
    """

    def __init__(
        self, model: TrainedModel, objective: ObjectiveConfig, augment: AugmentConfig, precision: torch.dtype
    ) -> None:
        super().__init__()
        self.model, self.objective, self.augment, self.precision = model, objective, augment, precision

    def forward(
        self,
        patterns: torch.Tensor,
        target: torch.Tensor | None,
        labels: torch.Tensor | None,
        pressure: torch.Tensor,
    ) -> torch.Tensor:
        """target: patterns to predict; None for the patterns themselves. labels: `(B,)`, -1 for none. pressure: the
        present beta, or with `capacity` the present capacity."""
        model, objective = self.model, self.objective
        with autocast(patterns.device, self.precision):
            seen = model.preprocess(patterns)
            wanted = seen if target is None else model.preprocess(target)
            shown = seen
            if self.training:
                plan = plan_augmentation(len(seen), self.augment, seen.device)
                shown = apply_augmentation(seen, plan)
                wanted = shown if wanted is seen else apply_augmentation(wanted, plan)
                shown = add_noise(corrupt(shown, objective.input_noise), self.augment.noise, self.augment.circle)
            options = {"logits": True} if takes_logits(objective.likelihood) else {}
            recon, mean, logvar = model.network(shown, **options)
            logits = None if labels is None or model.classifier is None else model.classifier(mean).float()
        nll = LIKELIHOODS[objective.likelihood](wanted, recon.float()).mean()
        kl = posterior_kl(model.network, mean.float(), logvar.float())
        total_kl = kl.sum(1).mean()
        if getattr(model.network, "is_deterministic", False):
            loss = nll
        elif objective.capacity is None:
            loss = nll + pressure * kl_penalty(kl, objective.free_bits)
        else:
            loss = nll + objective.beta * capacity_penalty(kl, pressure)
        label_nll = right = known = nll.new_zeros(())
        if logits is not None and labels is not None:
            label_nll = classification_nll(logits, labels)
            loss = loss + objective.label_weight * label_nll
            right = (logits.argmax(1) == labels).float().mean()  # no argmax is -1
            known = (labels >= 0).float().mean()
        return torch.stack([loss, nll, total_kl, label_nll, right, known])


def pressures(objective: ObjectiveConfig, n_updates: int, device: torch.device) -> torch.Tensor:
    """What `Step` takes as pressure at each update: beta, or the capacity, after its rise; `(n_updates,)`."""
    rise = round(objective.warmup * n_updates)
    final = objective.beta if objective.capacity is None else objective.capacity
    return torch.tensor([beta_schedule(update, rise, final) for update in range(n_updates)], device=device)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside the block and give the caller's random state back after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=True):
        torch.manual_seed(seed)
        yield


def seed_step(seed: int, rank: int, step: int) -> None:
    """Make the random numbers of a step a function of (seed, rank, step), so that a resumed training draws the same."""
    state = np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
