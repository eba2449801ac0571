"""The objective: a list of terms, whose weighted sum is the loss, in nats per sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from vaearr.computing.device import autocast
from vaearr.config import ObjectiveConfig
from vaearr.config.parts import part
from vaearr.models import losses
from vaearr.models.artifacts import TrainedModel

KL, ADVERSARIAL = "kl", "adversarial"
DISCRIMINATOR = "critic"  # its name in histories and checkpoints


@dataclass(frozen=True)
class Prediction:
    """A batch and the network's prediction for it, preprocessed; `(B, C, …)` unless stated.

    `sample` is the input without noise, `target` what the network is to predict (`is_partner`: the
    pattern of a similar point), `decoded` the output of the decoder, `decoded_values` the same with
    the head applied. `mean` and `kl` `(B, L, …)` are the posterior mean and the KL divergence of
    each latent dimension. `labels` `(B,)` are -1 where unknown. `discriminator` is None until it is
    in use.
    """

    sample: torch.Tensor
    target: torch.Tensor
    is_partner: bool
    decoded: torch.Tensor
    decoded_values: torch.Tensor
    mean: torch.Tensor
    kl: torch.Tensor
    class_logits: torch.Tensor | None
    labels: torch.Tensor | None
    discriminator: nn.Module | None


@dataclass(frozen=True)
class Measured:
    """Mean of a term over a batch.

    `penalty` replaces the value in the loss. `n_samples` is the number of samples averaged over, by
    default all of the batch.
    """

    value: torch.Tensor
    penalty: torch.Tensor | None = None
    n_samples: torch.Tensor | None = None


@dataclass(frozen=True)
class Term:
    """One term of the loss.

    `measure` returns None for a batch without the term. The weight rises linearly from 0 to
    `weight`: it begins after the share `start` of all updates, and takes the share `rise` of them.
    With `counts_before_start` the loss contains the complete value at every weight; the weight
    scales only the gradient.
    """

    name: str
    measure: Callable[[Prediction], Measured | None]
    weight: float = 1.0
    start: float = 0.0
    rise: float = 0.0
    counts_before_start: bool = False

    def shares(self, n_updates: int) -> np.ndarray:
        """Return the share of the weight that holds at each update, `(n_updates,)`."""
        start = round(self.start * n_updates)
        rise = max(1, round(self.rise * n_updates))
        return np.clip((np.arange(n_updates) - start + 1) / rise, 0.0, 1.0)

    def contribution(self, measured: Measured, weight: torch.Tensor) -> torch.Tensor:
        """Return what a measured term adds to the loss at a weight."""
        if self.counts_before_start:
            held = measured.value.detach()
            # the difference is 0, with the gradient of the value
            return held + weight * (measured.value - held)
        if measured.penalty is not None:
            return weight * measured.penalty
        return weight * measured.value


def loss_terms(
    model: TrainedModel,
    objective: ObjectiveConfig,
    precision: torch.dtype,
    perceptual: nn.Module | None,
) -> tuple[Term, ...]:
    """Return the terms that the settings ask for.

    The KL weight rises over the warm-up, against collapse: Bowman et al., "Generating Sentences
    from a Continuous Space", 2016; Sønderby et al., "Ladder Variational Autoencoders", 2016. The
    amplitude is trained after the warm-up: before, shapes are random and would drive it to 0. The
    adversarial term starts once the decoder has begun to reconstruct: a discriminator of noise
    teaches nothing. Perceptual and adversarial weights are per value of a sample.
    """
    likelihood: Any = part(
        "objective", objective.likelihood, losses.LIKELIHOODS, trust=[objective.likelihood]
    )
    n_values = math.prod(model.preprocess.shape)
    has_amplitude = objective.target == "neighbour" and model.network.contrast
    free_bits = objective.free_bits
    if model.network.is_deterministic:
        free_bits = 0.0
    reconstruction = partial(_reconstruction, likelihood=likelihood, has_amplitude=has_amplitude)
    terms = [Term("reconstruction_nll", reconstruction)]
    if has_amplitude:
        amplitude = partial(_amplitude, likelihood=likelihood)
        start = objective.warmup
        terms.append(Term("amplitude_nll", amplitude, start=start, counts_before_start=True))
    kl = partial(_kl, free_bits=free_bits)
    terms.append(Term(KL, kl, weight=objective.beta, rise=objective.warmup))
    if objective.perceptual is not None and perceptual is not None:
        distance = partial(_perceptual, network=perceptual, precision=precision)
        terms.append(Term("perceptual", distance, weight=objective.perceptual.weight * n_values))
    if objective.adversarial is not None:
        config = objective.adversarial
        adversarial = partial(_adversarial, kind=config.kind, precision=precision)
        weight = config.weight * n_values
        terms.append(Term(ADVERSARIAL, adversarial, weight, config.start, config.rise))
    if model.classifier is not None:
        terms.append(Term("label_nll", _label, weight=objective.label_weight))
        terms.append(Term("label_accuracy", _label_accuracy, weight=0.0))
    return tuple(terms)


def _reconstruction(batch: Prediction, likelihood: losses.Nll, has_amplitude: bool) -> Measured:
    """With a partner's pattern only the shape is compared, if the amplitude has its own term."""
    if batch.is_partner and has_amplitude:
        return Measured(losses.shape_nll(batch.target, batch.decoded, likelihood).mean())
    return Measured(likelihood(batch.target, batch.decoded).mean())


def _amplitude(batch: Prediction, likelihood: losses.Nll) -> Measured | None:
    if not batch.is_partner:
        return None
    return Measured(losses.amplitude_nll(batch.sample, batch.decoded, likelihood).mean())


def _kl(batch: Prediction, free_bits: float) -> Measured:
    value = batch.kl.flatten(1).sum(1).mean()
    return Measured(value, losses.kl_penalty(batch.kl, free_bits))


def _perceptual(batch: Prediction, network: nn.Module, precision: torch.dtype) -> Measured:
    with autocast(batch.decoded_values.device, precision):
        return Measured(network(batch.target, batch.decoded_values).mean())


def _adversarial(batch: Prediction, kind: str, precision: torch.dtype) -> Measured | None:
    """The generator's loss, with the discriminator's parameters held fixed."""
    if batch.discriminator is None:
        return None
    held = {name: parameter.detach() for name, parameter in batch.discriminator.named_parameters()}
    with autocast(batch.decoded_values.device, precision):
        maps = torch.func.functional_call(batch.discriminator, held, (batch.decoded_values,))
    return Measured(losses.generator_loss(maps, kind))


def _label(batch: Prediction) -> Measured | None:
    """The loss averages over all samples, the history over the labelled ones."""
    if batch.class_logits is None or batch.labels is None:
        return None
    nll = losses.classification_nll(batch.class_logits, batch.labels)
    n_labelled = (batch.labels >= 0).sum().to(nll)
    per_label = len(batch.labels) / n_labelled.clamp_min(1)
    return Measured(nll * per_label, penalty=nll, n_samples=n_labelled)


def _label_accuracy(batch: Prediction) -> Measured | None:
    if batch.class_logits is None or batch.labels is None:
        return None
    n_labelled = (batch.labels >= 0).sum().to(batch.class_logits)
    # argmax is never -1, the label of unlabelled samples
    n_right = (batch.class_logits.argmax(1) == batch.labels).sum()
    return Measured(n_right / n_labelled.clamp_min(1), n_samples=n_labelled)
