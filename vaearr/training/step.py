"""The differentiable part of a training step, and what changes from one update to the next.

`Step` takes stored patterns to the terms of the loss, `Critic` is the discriminator's own loss. `schedule` gives the
weights and the learning rate of every update, so there is no scheduler whose state would have to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from vaearr.computing.device import autocast, pick_precision
from vaearr.config import AdversarialConfig, AugmentConfig, ObjectiveConfig, TrainConfig
from vaearr.errors import UsageError
from vaearr.models import losses
from vaearr.models.artifacts import TrainedModel, pooled
from vaearr.models.augmentation import add_noise, apply_augmentation, crop_window, plan_augmentation

TERMS: tuple[str, ...] = ("loss", "reconstruction_nll", "amplitude_nll", "kl", "perceptual", "adversarial", "critic")
TERMS += ("label_nll", "label_right", "label_known")
BETAS, MOMENTUM = (0.9, 0.99), 0.9


class Step(nn.Module):
    """Terms of the loss for a batch, in the order of `TERMS`: `(B, C, …) -> (10,)`, means over the batch.

    In nats per sample, but for `perceptual` (a distance), `adversarial` (the loss of `models.losses`), `critic`
    (0 here; the discriminator's own loss is its own step's), and the last two: the shares of samples that have a label,
    and that the head names right. With them come the patterns that were wanted and those that were decoded.

    perceptual: a module of `models.perceptual`.
    """

    def __init__(self, model: TrainedModel, config: TrainConfig, *, perceptual: nn.Module | None = None) -> None:
        super().__init__()
        if config.objective.target == "auto" or config.objective.input_noise is None:
            raise UsageError("objective.target or input_noise is not decided; `vaearr.run.train.settled` does it.")
        self.model, self.objective, self.augment, self.perceptual = model, config.objective, config.augment, perceptual
        self.noise = config.objective.input_noise
        self.precision = pick_precision(config.precision, model.device)
        self.is_split = splits_amplitude(model, config.objective)

    def forward(
        self,
        patterns: torch.Tensor,
        target: torch.Tensor | None,
        labels: torch.Tensor | None,
        weights: torch.Tensor,
        critic: nn.Module | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """target: patterns to predict; None for the patterns themselves. labels: `(B,)`, -1 for none. weights: the
        first three numbers of a row of `schedule`. critic: gives logit maps of preprocessed patterns, once it has
        begun; its weights get no gradient here."""
        model, objective = self.model, self.objective
        with autocast(patterns.device, self.precision):
            seen = model.preprocess(patterns)
            wanted = seen if target is None else model.preprocess(target)
            own = shown = seen
            network: Any = model.network
            if self.training:
                plan = plan_augmentation(len(seen), self.augment, seen.device)
                own = apply_augmentation(seen, plan)
                wanted = own if wanted is seen else apply_augmentation(wanted, plan)
                if self.augment.crop is not None:  # windows, at the same place of input and target
                    window = crop_window(own.shape[2:], self.augment.crop)
                    own, wanted = own[window], own[window] if wanted is own else wanted[window]
                    network = network.resized(own.shape[2:])
                shown = add_noise(add_noise(own, self.noise), self.augment.noise, self.augment.circle)
            options = {"logits": True} if losses.takes_logits(objective.likelihood) else {}
            recon, mean, logvar = network(shown, **options)
            logits = None if labels is None or model.classifier is None else model.classifier(pooled(mean)).float()
        # terms of windows are scaled up to whole samples, so that weights and history mean the same
        share, values = seen[0].numel() / own[0].numel(), seen[0].numel()
        likelihood, recon = losses.LIKELIHOODS[objective.likelihood], recon.float()
        zero = recon.new_zeros((), dtype=torch.float32)
        terms = dict.fromkeys(TERMS, zero)
        if target is not None and self.is_split:
            nll = losses.shape_nll(wanted, recon, likelihood).mean()
            amplitude = losses.amplitude_nll(own, recon, likelihood).mean()
        else:
            nll, amplitude = share * likelihood(wanted, recon).mean(), zero
        kl = losses.posterior_kl(model.network, mean.float(), logvar.float())
        terms |= {"reconstruction_nll": nll, "amplitude_nll": amplitude, "kl": share * kl.flatten(1).sum(1).mean()}
        # the value of the amplitude term always counts, its gradient when its time has come
        loss = nll + amplitude.detach() + weights[1] * (amplitude - amplitude.detach())
        if not getattr(model.network, "is_deterministic", False):
            if objective.capacity is None:
                loss = loss + weights[0] * share * losses.kl_penalty(kl, objective.free_bits)
            else:
                loss = loss + objective.beta * losses.capacity_penalty(share * kl, weights[0])
        picture = recon.sigmoid() if options else recon  # no logits for the networks that look at it
        if objective.perceptual is not None and self.perceptual is not None:
            with autocast(patterns.device, self.precision):
                terms["perceptual"] = self.perceptual(wanted, picture).mean()
            loss = loss + objective.perceptual.weight * values * terms["perceptual"]
        if objective.adversarial is not None and critic is not None:
            still = {name: p.detach() for name, p in critic.named_parameters()}
            with autocast(patterns.device, self.precision):
                maps = torch.func.functional_call(critic, still, (picture,))
            terms["adversarial"] = losses.generator_loss(maps, objective.adversarial.kind)
            loss = loss + weights[2] * objective.adversarial.weight * values * terms["adversarial"]
        if logits is not None and labels is not None:
            terms["label_nll"] = losses.classification_nll(logits, labels)
            loss = loss + objective.label_weight * terms["label_nll"]
            terms["label_right"] = (logits.argmax(1) == labels).float().mean()  # no argmax is -1
            terms["label_known"] = (labels >= 0).float().mean()
        return torch.stack(list((terms | {"loss": loss}).values())), wanted.detach(), picture


class Critic(nn.Module):
    """Loss of the discriminator for preprocessed patterns and what was decoded for them: `2 x (B, C, …) -> ()`."""

    def __init__(self, network: nn.Module, config: AdversarialConfig, precision: torch.dtype) -> None:
        super().__init__()
        self.network, self.config, self.precision = network, config, precision

    def forward(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """real and fake without history."""
        with autocast(real.device, self.precision):
            maps_real, maps_fake = self.network(real), self.network(fake)
        loss = losses.discriminator_loss(maps_real, maps_fake, self.config.kind)
        if self.config.kind == "wgan-gp":
            loss = loss + losses.PENALTY_WEIGHT * losses.gradient_penalty(self.network, real, fake)
        return loss


def seen_shape(model: TrainedModel, augment: AugmentConfig) -> tuple[int, ...]:
    """Shape of what a training shows the network: `(C, …)` of a sample, or of a window of it.

    Raises UsageError for windows of a network that takes whole samples alone, and for windows that do not fit it.
    """
    if (crop := augment.crop) is None:
        return model.input_shape
    stride = getattr(model.network, "stride", ()) if hasattr(model.network, "resized") else ()
    if len(crop) != len(stride) or any(size < step or size % step for size, step in zip(crop, stride, strict=True)):
        raise UsageError(
            f"augment.crop is {crop}, for {model.model_config.name!r} of stride {stride}; give a multiple of it "
            "along each dim, or leave it out where there is none: such a network takes whole samples."
        )
    return (model.input_shape[0], *(min(a, b) for a, b in zip(crop, model.input_shape[1:], strict=True)))


def splits_amplitude(model: TrainedModel, objective: ObjectiveConfig) -> bool:
    """Whether the partner's pattern decides on shapes alone, and the own pattern on the amplitude."""
    return objective.target == "neighbour" and bool(getattr(model.network, "contrast", False))


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (decoupled weight decay), Adam or SGD with Nesterov momentum, fused into one kernel per update."""
    kwargs: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, nesterov=True, **kwargs)
    cls = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return cls(parameters, betas=BETAS, **kwargs)


def schedule(config: TrainConfig, per_epoch: int) -> np.ndarray:
    """What changes over a training, `(n_updates, 4)`: beta, or the capacity, as it rises; weight of the amplitude;
    share of the adversarial weight; learning rate.

    The amplitude waits until beta has risen: before, shapes are random and would drive it to 0.
    """
    objective, critic, n_updates = config.objective, config.objective.adversarial, per_epoch * config.epochs
    rise, start, ramped = round(objective.warmup * n_updates), n_updates, 0
    if critic is not None:
        start, ramped = round(critic.start * n_updates), round(critic.rise * n_updates)
    return np.array(
        [
            (
                losses.beta_schedule(i, rise, final_weight(objective)),
                float(i >= rise),
                losses.ramp(i, start, ramped),
                config.learning_rate * rate_at(i, n_updates, config, per_epoch=per_epoch),
            )
            for i in range(n_updates)
        ]
    )


def final_weight(objective: ObjectiveConfig) -> float:
    """Beta, or the capacity, after its rise."""
    return objective.beta if objective.capacity is None else objective.capacity


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


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside the block and give the caller's random state back after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=True):
        torch.manual_seed(seed)
        yield


def seed_step(seed: int, rank: int, step: int) -> None:
    """Make the random numbers of a step a function of (seed, rank, step): a resumed training draws the same."""
    state = np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
