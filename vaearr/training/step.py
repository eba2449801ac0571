"""The differentiable part of a training step, and what changes from one update to the next.

`Step` takes stored patterns to the terms of the loss, `Critic` is the discriminator's own loss.
`schedule` gives the weights and the learning rate of every update, so there is no scheduler whose
state would have to be kept.
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

BETAS, MOMENTUM = (0.9, 0.99), 0.9

Sums = dict[
    str, torch.Tensor
]  # name of a term -> its sum over samples, and how many samples these are


class Terms:
    """The loss of a batch, added up term by term, with the sums that the history is made from."""

    def __init__(self, n_samples: int) -> None:
        self.n_samples = n_samples
        self.loss: Any = 0.0
        self.sums: Sums = {}

    def add(
        self,
        name: str,
        value: torch.Tensor,
        weight: Any = 1.0,
        *,
        penalty: torch.Tensor | None = None,
    ) -> None:
        """Add `weight` times the mean over the batch; penalty: what is weighted in place of the
        recorded value.
        """
        self.loss = self.loss + weight * (value if penalty is None else penalty)
        self.record(name, value)

    def record(self, name: str, value: torch.Tensor, count: torch.Tensor | None = None) -> None:
        """Note the mean of a quantity over so many samples, by default all of the batch."""
        if count is None:
            count = value.new_full((), self.n_samples)
        self.sums[name] = torch.stack([value.detach() * count, count])


class StepOutput(NamedTuple):
    """What a step computes for a batch.

    `loss` is the mean over the batch, `sums` are those of `Terms`. `target` holds the preprocessed
    patterns to predict, `decoded` the prediction. `mean` and `kl` `(B, L, …)` are the posterior
    mean and the KL divergence of each latent dimension, without gradients.
    """

    loss: torch.Tensor
    sums: Sums
    target: torch.Tensor
    decoded: torch.Tensor
    mean: torch.Tensor
    kl: torch.Tensor


class Step(nn.Module):
    """Loss of a batch of stored patterns, in nats per sample.

    perceptual: a module of `models.perceptual`. is_split: the partner's pattern decides on shapes
    only, and the input pattern on the amplitude.
    """

    def __init__(
        self, model: TrainedModel, config: TrainConfig, *, perceptual: nn.Module | None = None
    ) -> None:
        super().__init__()
        objective = config.objective
        if objective.target == "auto" or objective.input_noise is None:
            raise UsageError(
                "objective.target or input_noise is not decided; `vaearr.run.train.settled` does it."
            )
        self.likelihood: Any = part(
            "objective", objective.likelihood, losses.LIKELIHOODS, trust=[objective.likelihood]
        )
        self.model, self.objective, self.augment, self.perceptual = (
            model,
            objective,
            config.augment,
            perceptual,
        )
        self.noise, self.precision = (
            objective.input_noise,
            pick_precision(config.precision, model.device),
        )
        self.is_split = objective.target == "neighbour" and model.network.contrast

    def forward(
        self,
        patterns: torch.Tensor,
        target: torch.Tensor | None,
        labels: torch.Tensor | None,
        weights: torch.Tensor,
        critic: nn.Module | None = None,
    ) -> StepOutput:
        """Compute the terms of the loss.

        target: patterns to predict; None for the patterns themselves. labels: `(B,)`, -1 for none.
        weights: the first three numbers of a row of `schedule`. critic: gives logit maps of
        preprocessed patterns, once it is in use; its weights get no gradient here.
        """
        model, objective = self.model, self.objective
        with autocast(patterns.device, self.precision):
            sample = model.preprocess(patterns)
            clean, wanted, network = sample, sample, model.network
            if target is not None:
                wanted = model.preprocess(target)
            shown = clean
            if self.training:
                clean, wanted, network = self._augmented(
                    sample, wanted, is_own_target=target is None
                )
                shown = add_noise(
                    add_noise(clean, self.noise), self.augment.noise, self.augment.circle
                )
            has_logits = losses.takes_logits(objective.likelihood)
            options = {"logits": True} if has_logits else {}
            decoded, mean, logvar = network(shown, **options)
            class_logits = None
            if labels is not None and model.classifier is not None:
                class_logits = model.classifier(pooled(mean)).float()
        decoded = decoded.float()
        # terms of windows are scaled up to complete samples, so that weights and history mean the
        # same
        n_values = sample[0].numel()
        window_share = n_values / clean[0].numel()
        terms = Terms(len(patterns))
        if target is not None and self.is_split:
            terms.add(
                "reconstruction_nll", losses.shape_nll(wanted, decoded, self.likelihood).mean()
            )
            # the value of the amplitude term always counts, its gradient when its time has come
            amplitude = losses.amplitude_nll(clean, decoded, self.likelihood).mean()
            held = amplitude.detach()
            terms.add("amplitude_nll", amplitude, penalty=held + weights[1] * (amplitude - held))
        else:
            terms.add("reconstruction_nll", window_share * self.likelihood(wanted, decoded).mean())
        kl = losses.posterior_kl(network, mean.float(), logvar.float())
        kl_sum = window_share * kl.flatten(1).sum(1).mean()
        if network.is_deterministic:
            terms.record("kl", kl_sum)
        else:
            terms.add(
                "kl",
                kl_sum,
                weights[0] * window_share,
                penalty=losses.kl_penalty(kl, objective.free_bits),
            )
        picture = (
            decoded.sigmoid() if has_logits else decoded
        )  # no logits for the networks that look at it
        if objective.perceptual is not None and self.perceptual is not None:
            with autocast(patterns.device, self.precision):
                distance = self.perceptual(wanted, picture).mean()
            terms.add("perceptual", distance, objective.perceptual.weight * n_values)
        if objective.adversarial is not None and critic is not None:
            judged = self._adversarial(picture, critic, objective.adversarial)
            terms.add("adversarial", judged, weights[2] * objective.adversarial.weight * n_values)
        if class_logits is not None and labels is not None:
            self._add_labels(terms, class_logits, labels)
        loss = terms.loss
        terms.record("loss", loss)
        return StepOutput(loss, terms.sums, wanted.detach(), picture, mean.detach(), kl.detach())

    def _augmented(
        self, sample: torch.Tensor, wanted: torch.Tensor, *, is_own_target: bool
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Move, turn and crop input and target in the same way; with them comes the network for
        their size.
        """
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

    def _adversarial(
        self, picture: torch.Tensor, critic: nn.Module, config: AdversarialConfig
    ) -> torch.Tensor:
        """The generator's loss, with the discriminator's weights held."""
        held = {name: parameter.detach() for name, parameter in critic.named_parameters()}
        with autocast(picture.device, self.precision):
            maps = torch.func.functional_call(critic, held, (picture,))
        return losses.generator_loss(maps, config.kind)

    def _add_labels(self, terms: Terms, class_logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Cross entropy: in the loss its share of all samples, in the history the mean over the
        labelled ones.
        """
        nll = losses.classification_nll(class_logits, labels)
        n_labelled = (labels >= 0).sum().to(nll)
        per_label = len(labels) / n_labelled.clamp_min(1)
        terms.loss = terms.loss + self.objective.label_weight * nll
        terms.record("label_nll", nll * per_label, n_labelled)
        n_right = (class_logits.argmax(1) == labels).sum()  # no argmax is -1
        terms.record("label_accuracy", n_right / n_labelled.clamp_min(1), n_labelled)


class Critic(nn.Module):
    """Loss of the discriminator for preprocessed patterns and what was decoded for them: `2 x (B,
    C, …) -> ()`.
    """

    def __init__(
        self, network: nn.Module, config: AdversarialConfig, precision: torch.dtype
    ) -> None:
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

    Raises UsageError for windows of a network that takes whole samples alone, and for windows that
    do not fit it.
    """
    crop, stride = augment.crop, model.network.stride
    if crop is None:
        return model.seen_shape
    if len(crop) != len(stride) or any(
        size < step or size % step for size, step in zip(crop, stride, strict=True)
    ):
        given = f"augment.crop is {crop}, for {model.model_config.name!r} of stride {stride}"
        raise UsageError(
            f"{given}; give a multiple of it; a network without a stride takes whole samples."
        )
    return (model.seen_shape[0], *map(min, crop, model.seen_shape[1:]))


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainConfig
) -> torch.optim.Optimizer:
    """AdamW (decoupled weight decay), Adam or SGD with Nesterov momentum, fused into one kernel per
    update.
    """
    kwargs: dict[str, Any] = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "fused": True,
    }
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, nesterov=True, **kwargs)
    cls = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return cls(parameters, betas=BETAS, **kwargs)


def schedule(config: TrainConfig, per_epoch: int) -> np.ndarray:
    """What changes over a training, a row per update: beta; whether the amplitude counts; share of
    the adversarial weight; learning rate.

    Beta rises linearly over the warm-up, against collapse: Bowman et al., "Generating Sentences
    from a Continuous Space", 2016; Sønderby et al., "Ladder Variational Autoencoders", 2016. The
    amplitude waits until it has risen: before, shapes are random and would drive it to 0. The
    adversarial weight is 0 until the decoder has begun to reconstruct, then rises linearly to 1: a
    discriminator of noise teaches nothing.
    """
    critic, n_updates = config.objective.adversarial, per_epoch * config.epochs
    update = np.arange(n_updates)
    rise = round(config.objective.warmup * n_updates)
    beta = config.objective.beta * np.minimum(1.0, (update + 1) / max(rise, 1))
    share = np.zeros(n_updates)
    if critic is not None:
        start, ramp = round(critic.start * n_updates), max(1, round(critic.rise * n_updates))
        share = np.clip((update - start + 1) / ramp, 0.0, 1.0)
    return np.stack(
        [beta, update >= rise, share, config.learning_rate * learning_rates(config, per_epoch)], 1
    )


def learning_rates(config: TrainConfig, per_epoch: int) -> np.ndarray:
    """Shares of the highest learning rate, for each update: a linear rise, then a cosine down.

    With `restarts` the cosine starts again that many times, in parts of equal length (Loshchilov &
    Hutter, "SGDR", ICLR 2017). With `schedule_per="epoch"` the rate is that of the epoch's first
    update.
    """
    n_updates, n_parts = per_epoch * config.epochs, config.restarts + 1
    update = np.arange(n_updates)
    if config.schedule_per == "epoch":
        update -= update % per_epoch
    rise = round(config.rise * n_updates)
    done = (update - rise) / max(1, n_updates - rise) * n_parts
    cosine = config.rate_end + (1 - config.rate_end) * 0.5 * (1 + np.cos(np.pi * (done % 1)))
    return np.where(update < rise, (update + 1) / max(rise, 1), cosine)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside the block and give the caller's random state back after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=True):
        torch.manual_seed(seed)
        yield


def seed_step(seed: int, rank: int, step: int) -> None:
    """Make the random numbers of a step a function of (seed, rank, step): a resumed training draws
    the same.
    """
    state = np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
