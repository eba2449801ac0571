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
    amplitude_nll,
    beta_schedule,
    capacity_penalty,
    classification_nll,
    corrupt,
    kl_penalty,
    posterior_kl,
    shape_nll,
    takes_logits,
)

TERMS = ("loss", "reconstruction_nll", "amplitude_nll", "kl", "label_nll", "label_right", "label_known")


class Step(nn.Module):
    """Terms of the loss for a batch, in the order of `TERMS`: `(B, C, …) -> (7,)`, means over the batch.

    In nats per sample, but the last two: the shares of samples that have a label, and that the head names right.
    """

    def __init__(
        self, model: TrainedModel, objective: ObjectiveConfig, augment: AugmentConfig, precision: torch.dtype
    ) -> None:
        super().__init__()
        self.model, self.objective, self.augment, self.precision = model, objective, augment, precision
        self.is_split = splits_amplitude(model, objective)

    def forward(
        self,
        patterns: torch.Tensor,
        target: torch.Tensor | None,
        labels: torch.Tensor | None,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """target: patterns to predict; None for the patterns themselves. labels: `(B,)`, -1 for none. weights: a row of
        `weights_over`."""
        model, objective = self.model, self.objective
        with autocast(patterns.device, self.precision):
            seen = model.preprocess(patterns)
            wanted = seen if target is None else model.preprocess(target)
            own = shown = seen
            if self.training:
                plan = plan_augmentation(len(seen), self.augment, seen.device)
                own = apply_augmentation(seen, plan)
                wanted = own if wanted is seen else apply_augmentation(wanted, plan)
                shown = add_noise(corrupt(own, objective.input_noise), self.augment.noise, self.augment.circle)
            options = {"logits": True} if takes_logits(objective.likelihood) else {}
            recon, mean, logvar = model.network(shown, **options)
            logits = None if labels is None or model.classifier is None else model.classifier(mean).float()
        likelihood, recon, zero = (
            LIKELIHOODS[objective.likelihood],
            recon.float(),
            recon.new_zeros((), dtype=torch.float32),
        )
        if target is not None and self.is_split:
            nll, amplitude = shape_nll(wanted, recon, likelihood).mean(), amplitude_nll(own, recon, likelihood).mean()
        else:
            nll, amplitude = likelihood(wanted, recon).mean(), zero
        kl = posterior_kl(model.network, mean.float(), logvar.float())
        total_kl = kl.flatten(1).sum(1).mean()
        # the value of the amplitude term always counts, its gradient when its time has come
        loss = nll + amplitude.detach() + weights[1] * (amplitude - amplitude.detach())
        if not getattr(model.network, "is_deterministic", False):
            if objective.capacity is None:
                loss = loss + weights[0] * kl_penalty(kl, objective.free_bits)
            else:
                loss = loss + objective.beta * capacity_penalty(kl, weights[0])
        label_nll = right = known = zero
        if logits is not None and labels is not None:
            label_nll = classification_nll(logits, labels)
            loss = loss + objective.label_weight * label_nll
            right = (logits.argmax(1) == labels).float().mean()  # no argmax is -1
            known = (labels >= 0).float().mean()
        return torch.stack([loss, nll, amplitude, total_kl, label_nll, right, known])


def splits_amplitude(model: TrainedModel, objective: ObjectiveConfig) -> bool:
    """Whether the partner's pattern decides on shapes alone, and the own pattern on the amplitude."""
    return objective.target == "neighbour" and bool(getattr(model.network, "contrast", False))


def weights_over(objective: ObjectiveConfig, n_updates: int, device: torch.device) -> torch.Tensor:
    """What `Step` takes at each update, `(n_updates, 2)`: beta, or the capacity, as it rises; weight of the amplitude.

    The amplitude waits until the rise is over: before, shapes are random and would drive it to 0.
    """
    rise = round(objective.warmup * n_updates)
    final = objective.beta if objective.capacity is None else objective.capacity
    rows = [(beta_schedule(update, rise, final), float(update >= rise)) for update in range(n_updates)]
    return torch.tensor(rows, device=device)


def final_weights(objective: ObjectiveConfig, device: torch.device) -> torch.Tensor:
    """The row of `weights_over` after all rises, by which validation is judged."""
    return torch.tensor([objective.beta if objective.capacity is None else objective.capacity, 1.0], device=device)


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
