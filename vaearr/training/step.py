"""The differentiable part of a training step, and what changes from one update to the next.

`Step` takes stored patterns to the terms of the loss, `Critic` is the discriminator's own loss. `schedule` gives the
weights and the learning rate of every update, so there is no scheduler whose state would have to be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from vaearr.computing.device import autocast, pick_precision
from vaearr.config import AdversarialConfig, AugmentConfig, TrainConfig
from vaearr.config.parts import part
from vaearr.errors import UsageError
from vaearr.models import losses
from vaearr.models.artifacts import TrainedModel, pooled
from vaearr.models.augmentation import add_noise, crop_window, draw_geometry

TERMS: tuple[str, ...] = ("loss", "reconstruction_nll", "amplitude_nll", "kl", "perceptual", "adversarial", "critic")
TERMS += ("label_nll", "label_right", "label_known")
BETAS, MOMENTUM = (0.9, 0.99), 0.9


class StepOutput(NamedTuple):
    """What a step computes for a batch.

    `terms` are means over the batch in the order of `TERMS`. `target` holds the preprocessed patterns to predict,
    `decoded` the prediction. `mean` and `kl` `(B, L, …)` are the posterior mean and the KL divergence of each latent
    dimension, without gradients.
    """

    terms: torch.Tensor
    target: torch.Tensor
    decoded: torch.Tensor
    mean: torch.Tensor
    kl: torch.Tensor


class Step(nn.Module):
    """Terms of the loss for a batch of stored patterns.

    Terms are in nats per sample, except `perceptual` (a distance), `adversarial` (the loss of `models.losses`),
    `critic` (0 here; the discriminator has a step of its own), and the last two: the shares of samples that have a
    label, and that the head classifies correctly.

    perceptual: a module of `models.perceptual`. is_split: the partner's pattern decides on shapes only, and the input
    pattern on the amplitude. term_names: of the terms in use.
    """

    def __init__(self, model: TrainedModel, config: TrainConfig, *, perceptual: nn.Module | None = None) -> None:
        super().__init__()
        objective = config.objective
        if objective.target == "auto" or objective.input_noise is None:
            raise UsageError("objective.target or input_noise is not decided; `vaearr.run.train.settled` does it.")
        self.likelihood: Any = part("objective", objective.likelihood, losses.LIKELIHOODS, trust=[objective.likelihood])
        self.model, self.objective, self.augment, self.perceptual = model, objective, config.augment, perceptual
        self.noise, self.precision = objective.input_noise, pick_precision(config.precision, model.device)
        self.is_split = objective.target == "neighbour" and bool(getattr(model.network, "contrast", False))
        in_use = {"amplitude_nll": self.is_split, "perceptual": objective.perceptual is not None}
        in_use |= dict.fromkeys(("adversarial", "critic"), objective.adversarial is not None)
        in_use |= dict.fromkeys(("label_nll", "label_right", "label_known"), objective.label is not None)
        self.term_names = [name for name in TERMS if in_use.get(name, True)]

    def forward(
        self,
        patterns: torch.Tensor,
        target: torch.Tensor | None,
        labels: torch.Tensor | None,
        weights: torch.Tensor,
        critic: nn.Module | None = None,
    ) -> StepOutput:
        """Compute the terms of the loss.

        target: patterns to predict; None for the patterns themselves. labels: `(B,)`, -1 for none. weights: the first
        three numbers of a row of `schedule`. critic: gives logit maps of preprocessed patterns, once it is in use; its
        weights get no gradient here.
        """
        model = self.model
        with autocast(patterns.device, self.precision):
            sample = model.preprocess(patterns)
            clean, wanted, network = sample, sample, model.network
            if target is not None:
                wanted = model.preprocess(target)
            shown = clean
            if self.training:
                clean, wanted, network = self._augmented(sample, wanted, is_own_target=target is None)
                shown = add_noise(add_noise(clean, self.noise), self.augment.noise, self.augment.circle)
            has_logits = losses.takes_logits(self.objective.likelihood)
            options = {"logits": True} if has_logits else {}
            decoded, mean, logvar = network(shown, **options)
            class_logits = None
            if labels is not None and model.classifier is not None:
                class_logits = model.classifier(pooled(mean)).float()
        decoded = decoded.float()
        # terms of windows are scaled up to complete samples, so that weights and history mean the same
        n_values = sample[0].numel()
        window_share = n_values / clean[0].numel()
        terms = dict.fromkeys(TERMS, decoded.new_zeros((), dtype=torch.float32))
        if target is not None and self.is_split:
            terms["reconstruction_nll"] = losses.shape_nll(wanted, decoded, self.likelihood).mean()
            terms["amplitude_nll"] = losses.amplitude_nll(clean, decoded, self.likelihood).mean()
        else:
            terms["reconstruction_nll"] = window_share * self.likelihood(wanted, decoded).mean()
        kl = losses.posterior_kl(network, mean.float(), logvar.float())
        terms["kl"] = window_share * kl.flatten(1).sum(1).mean()
        # the value of the amplitude term always counts, its gradient when its time has come
        amplitude = terms["amplitude_nll"]
        loss = terms["reconstruction_nll"] + amplitude.detach() + weights[1] * (amplitude - amplitude.detach())
        if not getattr(network, "is_deterministic", False):
            loss = loss + self._kl_loss(kl, weights[0], window_share)
        picture = decoded.sigmoid() if has_logits else decoded  # no logits for the networks that look at it
        if self.objective.perceptual is not None and self.perceptual is not None:
            with autocast(patterns.device, self.precision):
                terms["perceptual"] = self.perceptual(wanted, picture).mean()
            loss = loss + self.objective.perceptual.weight * n_values * terms["perceptual"]
        if self.objective.adversarial is not None and critic is not None:
            terms["adversarial"] = self._adversarial(picture, critic, self.objective.adversarial)
            loss = loss + weights[2] * self.objective.adversarial.weight * n_values * terms["adversarial"]
        if class_logits is not None and labels is not None:
            terms["label_nll"] = losses.classification_nll(class_logits, labels)
            loss = loss + self.objective.label_weight * terms["label_nll"]
            terms["label_right"] = (class_logits.argmax(1) == labels).float().mean()  # no argmax is -1
            terms["label_known"] = (labels >= 0).float().mean()
        terms["loss"] = loss
        return StepOutput(torch.stack(list(terms.values())), wanted.detach(), picture, mean.detach(), kl.detach())

    def _augmented(
        self, sample: torch.Tensor, wanted: torch.Tensor, *, is_own_target: bool
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Move, turn and crop input and target in the same way; with them comes the network for their size."""
        network: Any = self.model.network
        move = draw_geometry(len(sample), self.augment, sample.device)
        moved = move(sample)
        if self.objective.target != "unmoved":
            wanted = moved if is_own_target else move(wanted)
        if self.augment.crop is not None:
            window = crop_window(moved.shape[2:], self.augment.crop)
            moved, wanted = moved[window], wanted[window]
            network = network.resized(moved.shape[2:])
        return moved, wanted, network

    def _kl_loss(self, kl: torch.Tensor, weight: torch.Tensor, window_share: float) -> torch.Tensor:
        """The KL term of the loss: weighted by beta, or held at a capacity. weight: beta, or the capacity."""
        if self.objective.capacity is None:
            return weight * window_share * losses.kl_penalty(kl, self.objective.free_bits)
        return self.objective.beta * losses.capacity_penalty(window_share * kl, weight)

    def _adversarial(self, picture: torch.Tensor, critic: nn.Module, config: AdversarialConfig) -> torch.Tensor:
        """The generator's loss, with the discriminator's weights held."""
        held = {name: parameter.detach() for name, parameter in critic.named_parameters()}
        with autocast(picture.device, self.precision):
            maps = torch.func.functional_call(critic, held, (picture,))
        return losses.generator_loss(maps, config.kind)


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
        return model.seen_shape
    stride = getattr(model.network, "stride", ()) if hasattr(model.network, "resized") else ()
    if len(crop) != len(stride) or any(size < step or size % step for size, step in zip(crop, stride, strict=True)):
        given = f"augment.crop is {crop}, for {model.model_config.name!r} of stride {stride}"
        raise UsageError(f"{given}; give a multiple of it; a network without a stride takes whole samples.")
    return (model.seen_shape[0], *(min(a, b) for a, b in zip(crop, model.seen_shape[1:], strict=True)))


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (decoupled weight decay), Adam or SGD with Nesterov momentum, fused into one kernel per update."""
    kwargs: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, nesterov=True, **kwargs)
    cls = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return cls(parameters, betas=BETAS, **kwargs)


def schedule(config: TrainConfig, per_epoch: int) -> np.ndarray:
    """What changes over a training, a row per update: beta, or the capacity; whether the amplitude counts; share of the
    adversarial weight; learning rate.

    Beta (or the capacity) rises linearly over the warm-up, against collapse: Bowman et al., "Generating Sentences from
    a Continuous Space", 2016; Sønderby et al., "Ladder Variational Autoencoders", 2016. The amplitude waits until it
    has risen: before, shapes are random and would drive it to 0. The adversarial weight is 0 until the decoder has
    begun to reconstruct, then rises linearly to 1: a discriminator of noise teaches nothing.
    """
    objective, critic, n_updates = config.objective, config.objective.adversarial, per_epoch * config.epochs
    update = np.arange(n_updates)
    rise, final = round(objective.warmup * n_updates), objective.beta
    final = final if objective.capacity is None else objective.capacity
    weight, share = final * np.minimum(1.0, (update + 1) / max(rise, 1)), np.zeros(n_updates)
    if critic is not None:
        start, ramp = round(critic.start * n_updates), max(1, round(critic.rise * n_updates))
        share = np.clip((update - start + 1) / ramp, 0.0, 1.0)
    return np.stack([weight, update >= rise, share, config.learning_rate * learning_rates(config, per_epoch)], 1)


def learning_rates(config: TrainConfig, per_epoch: int) -> np.ndarray:
    """Shares of the highest learning rate, for each update: a linear rise, then a cosine down, or no change.

    With `restarts` the cosine starts again that many times, in parts of equal length (Loshchilov & Hutter, "SGDR", ICLR
    2017). With `schedule_per="epoch"` the rate is that of the epoch's first update.
    """
    n_updates, n_parts = per_epoch * config.epochs, config.restarts + 1
    update = np.arange(n_updates)
    if config.schedule_per == "epoch":
        update -= update % per_epoch
    rise = round(config.rise * n_updates)
    done = (update - rise) / max(1, n_updates - rise) * n_parts
    cosine = config.rate_end + (1 - config.rate_end) * 0.5 * (1 + np.cos(np.pi * (done % 1)))
    after = cosine if config.schedule == "cosine" else 1.0
    return np.where(update < rise, (update + 1) / max(rise, 1), after)


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
