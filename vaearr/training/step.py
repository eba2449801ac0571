"""The differentiable part of a training step: stored patterns in, terms of the loss out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from vaearr.artifacts import TrainedModel, pooled
from vaearr.config import AugmentConfig, ObjectiveConfig, TrainConfig
from vaearr.device import autocast
from vaearr.errors import TrainingError, UsageError
from vaearr.models.augmentation import add_noise, apply_augmentation, crop_window, plan_augmentation
from vaearr.models.losses import (
    LIKELIHOODS,
    amplitude_nll,
    beta_schedule,
    capacity_penalty,
    classification_nll,
    generator_loss,
    kl_penalty,
    posterior_kl,
    ramp,
    shape_nll,
    takes_logits,
)

TERMS = (
    "loss",
    "reconstruction_nll",
    "amplitude_nll",
    "kl",
    "perceptual",
    "adversarial",
    "critic",
    "label_nll",
    "label_right",
    "label_known",
)


class Step(nn.Module):
    """Terms of the loss for a batch, in the order of `TERMS`: `(B, C, …) -> (10,)`, means over the batch.

    In nats per sample, but for `perceptual` (a distance), `adversarial` (the loss of `models.losses`), `critic`
    (0 here; the discriminator's own loss is its own step's), and the last two: the shares of samples that have a label,
    and that the head names right. With them come the patterns that were wanted and those that were decoded.

    perceptual: a module of `models.perceptual`. critic: gives logit maps of preprocessed patterns; its weights get no
    gradient here.
    """

    def __init__(
        self,
        model: TrainedModel,
        objective: ObjectiveConfig,
        augment: AugmentConfig,
        precision: torch.dtype,
        *,
        perceptual: nn.Module | None = None,
        critic: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.perceptual = perceptual
        self._critic = (critic,)  # in a tuple: its weights are not this module's
        self.model, self.objective, self.augment, self.precision = model, objective, augment, precision
        self.is_split = splits_amplitude(model, objective)

    def forward(
        self,
        patterns: torch.Tensor,
        target: torch.Tensor | None,
        labels: torch.Tensor | None,
        weights: torch.Tensor,
        *,
        is_judged: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """target: patterns to predict; None for the patterns themselves. labels: `(B,)`, -1 for none. weights: a row of
        `weights_over`. is_judged: whether the critic has begun."""
        model, objective = self.model, self.objective
        with autocast(patterns.device, self.precision):
            seen = model.preprocess(patterns)
            wanted = seen if target is None else model.preprocess(target)
            own = shown = seen
            network: nn.Module = model.network
            if self.training:
                plan = plan_augmentation(len(seen), self.augment, seen.device)
                own = apply_augmentation(seen, plan)
                wanted = own if wanted is seen else apply_augmentation(wanted, plan)
                network, own, wanted = self._cropped(own, wanted)
                shown = add_noise(add_noise(own, noise_of(objective)), self.augment.noise, self.augment.circle)
            options = {"logits": True} if takes_logits(objective.likelihood) else {}
            recon, mean, logvar = network(shown, **options)
            share = seen[0].numel() / own[0].numel()  # of a whole sample, in windows
            logits = None if labels is None or model.classifier is None else model.classifier(pooled(mean)).float()
        likelihood, recon, zero = (
            LIKELIHOODS[objective.likelihood],
            recon.float(),
            recon.new_zeros((), dtype=torch.float32),
        )
        if target is not None and self.is_split:
            nll, amplitude = shape_nll(wanted, recon, likelihood).mean(), amplitude_nll(own, recon, likelihood).mean()
        else:
            nll, amplitude = share * likelihood(wanted, recon).mean(), zero
        kl = posterior_kl(model.network, mean.float(), logvar.float())
        total_kl = share * kl.flatten(1).sum(1).mean()
        # the value of the amplitude term always counts, its gradient when its time has come
        loss = nll + amplitude.detach() + weights[1] * (amplitude - amplitude.detach())
        if not getattr(model.network, "is_deterministic", False):
            if objective.capacity is None:
                loss = loss + weights[0] * share * kl_penalty(kl, objective.free_bits)
            else:
                loss = loss + objective.beta * capacity_penalty(share * kl, weights[0])
        distance = score = zero
        picture = recon.sigmoid() if options else recon  # no logits for the networks that look at it
        values = seen[0].numel()
        if objective.perceptual is not None and self.perceptual is not None:
            with autocast(patterns.device, self.precision):
                distance = self.perceptual(wanted, picture).mean()
            loss = loss + objective.perceptual.weight * values * distance
        if objective.adversarial is not None and is_judged:
            score = self._adversarial(picture, objective.adversarial.kind)
            loss = loss + weights[2] * objective.adversarial.weight * values * score
        label_nll = right = known = zero
        if logits is not None and labels is not None:
            label_nll = classification_nll(logits, labels)
            loss = loss + objective.label_weight * label_nll
            right = (logits.argmax(1) == labels).float().mean()  # no argmax is -1
            known = (labels >= 0).float().mean()
        terms = [loss, nll, amplitude, total_kl, distance, score, zero, label_nll, right, known]
        return torch.stack(terms), wanted.detach(), picture

    def _cropped(self, own: torch.Tensor, wanted: torch.Tensor) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
        """The network for windows of the samples and these windows, of input and target alike; all as it was without.

        Terms are scaled up to whole samples, so that weights and history mean the same with windows and without.
        """
        network: Any = self.model.network
        if self.augment.crop is None:
            return network, own, wanted
        window = crop_window(own.shape[2:], self.augment.crop)
        cut = own[window]
        return network.resized(cut.shape[2:]), cut, cut if wanted is own else wanted[window]

    def _adversarial(self, recon: torch.Tensor, kind: str) -> torch.Tensor:
        """The adversarial loss of decoded patterns; the critic's weights stand still."""
        (critic,) = self._critic
        if critic is None:
            raise ValueError("a step that is judged needs a critic.")
        still = {name: p.detach() for name, p in critic.named_parameters()}
        with autocast(recon.device, self.precision):
            maps = torch.func.functional_call(critic, still, (recon,))
        return generator_loss(maps, kind)


def seen_shape(model: TrainedModel, augment: AugmentConfig) -> tuple[int, ...]:
    """Shape of what a training shows the network: `(C, …)` of a sample, or of a window of it.

    Raises UsageError for windows of a network that takes whole samples alone, and for windows that do not fit it.
    """
    crop = augment.crop
    if crop is None:
        return model.input_shape
    stride = getattr(model.network, "stride", None)
    if stride is None or not hasattr(model.network, "resized"):
        raise UsageError(
            f"augment.crop is for networks with spatial latents; {model.model_config.name!r} takes whole samples: "
            "leave it out, or choose a model such as 'autoencoder-kl'."
        )
    if len(crop) != len(stride) or any(size < step or size % step for size, step in zip(crop, stride, strict=False)):
        raise UsageError(f"augment.crop is {crop}; give {len(stride)} multiples of {stride[0]}, the network's stride.")
    return (model.input_shape[0], *(min(a, b) for a, b in zip(crop, model.input_shape[1:], strict=True)))


def noise_of(objective: ObjectiveConfig) -> float:
    """The input noise of a training. Raises UsageError where it was never decided."""
    if objective.input_noise is None:
        raise UsageError("objective.input_noise is not set; `vaearr.run.train.settled` decides it for a Dataset.")
    return objective.input_noise


def splits_amplitude(model: TrainedModel, objective: ObjectiveConfig) -> bool:
    """Whether the partner's pattern decides on shapes alone, and the own pattern on the amplitude."""
    return objective.target == "neighbour" and bool(getattr(model.network, "contrast", False))


def weights_over(objective: ObjectiveConfig, n_updates: int, device: torch.device) -> torch.Tensor:
    """What `Step` takes at each update, `(n_updates, 3)`: beta, or the capacity, as it rises; weight of the amplitude;
    share of the adversarial weight.

    The amplitude waits until the rise is over: before, shapes are random and would drive it to 0.
    """
    rise = round(objective.warmup * n_updates)
    final = objective.beta if objective.capacity is None else objective.capacity
    shares = adversarial_shares(objective, n_updates)
    rows = [(beta_schedule(i, rise, final), float(i >= rise), share) for i, share in enumerate(shares)]
    return torch.tensor(rows, device=device)


def final_weights(objective: ObjectiveConfig, device: torch.device) -> torch.Tensor:
    """The row of `weights_over` after all rises, by which validation is judged: without the adversarial term, which
    compares nothing from one epoch to the next."""
    final = objective.beta if objective.capacity is None else objective.capacity
    return torch.tensor([final, 1.0, 0.0], device=device)


def adversarial_shares(objective: ObjectiveConfig, n_updates: int) -> list[float]:
    """Share of its weight that the adversarial term has at each update; 0 while there is none."""
    config = objective.adversarial
    if config is None:
        return [0.0] * n_updates
    start, rise = round(config.start * n_updates), round(config.rise * n_updates)
    return [ramp(update, start, rise) for update in range(n_updates)]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside the block and give the caller's random state back after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=True):
        torch.manual_seed(seed)
        yield


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Refuse, if wanted, operations whose result differs from run to run."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def memory_advice(config: TrainConfig) -> Iterator[None]:
    """Turn a full GPU into a TrainingError that says which settings need less."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        half = max(2, config.batch_size // 2)
        raise TrainingError(
            f"the GPU's memory does not suffice for batch_size {config.batch_size}: {str(error).split('. ')[0]}. Try "
            f"batch_size={half} with accumulate={2 * config.accumulate}, which learns from as many patterns per update."
        ) from None


def seed_step(seed: int, rank: int, step: int) -> None:
    """Make the random numbers of a step a function of (seed, rank, step): a resumed training draws the same."""
    state = np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
