"""Adversarial losses as pure functions of logit maps; float32 throughout, down is better.

A discriminator gives a list of logit maps, one per scale (`vaearr.models.discriminators`), larger for samples that
look real. Every loss is the mean over the positions and samples of a map, then over the maps, so that it depends
neither on the number of patches nor on the number of scales. None of them reads a value back from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from vaearr.errors import UsageError, did_you_mean

PENALTY_WEIGHT = 10.0  # of the gradient penalty beside the wgan-gp loss, Gulrajani et al. 2017
Maps = Sequence[torch.Tensor]


def _hinge(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _bce(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _lsgan(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def _wgan(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    return fake.mean() - real.mean()


def _raise_score(fake: torch.Tensor) -> torch.Tensor:
    return -fake.mean()


def _non_saturating(fake: torch.Tensor) -> torch.Tensor:
    return F.softplus(-fake).mean()


def _to_one(fake: torch.Tensor) -> torch.Tensor:
    return 0.5 * (fake - 1).square().mean()


# kind -> loss of the discriminator of one map (real, fake), loss of the generator of one map (fake)
KINDS: dict[
    str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]
] = {
    "hinge": (_hinge, _raise_score),
    "bce": (_bce, _non_saturating),
    "lsgan": (_lsgan, _to_one),
    "wgan-gp": (_wgan, _raise_score),
}


def generator_loss(logits_fake: Maps, kind: str = "hinge") -> torch.Tensor:
    """What the decoder minimises, of the maps of its samples: `-> ()`.

    With D the logits of decoded samples: hinge and wgan-gp -mean D; bce mean log(1 + exp(-D)), the form that does not
    saturate (Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, section 3); lsgan mean (D - 1)^2 / 2 (Mao
    et al., "Least Squares Generative Adversarial Networks", ICCV 2017, eq. 9). Raises UsageError for an unknown kind
    or no maps.
    """
    _, loss = _kind(kind)
    return _over_scales([loss(fake.float()) for fake in logits_fake])


def discriminator_loss(logits_real: Maps, logits_fake: Maps, kind: str = "hinge") -> torch.Tensor:
    """What the discriminator minimises, of its maps of data (r) and of decoded samples (f): `-> ()`.

    hinge: mean max(0, 1 - r) + mean max(0, 1 + f) (Lim & Ye, "Geometric GAN", arXiv:1705.02894). bce: mean log(1 +
    exp(-r)) + mean log(1 + exp(f)) (Goodfellow et al. 2014, eq. 1). lsgan: mean (r - 1)^2 / 2 + mean f^2 / 2 (Mao et
    al. 2017, eq. 9). wgan-gp: mean f - mean r, to which the caller adds `PENALTY_WEIGHT` x `gradient_penalty`. Decoded
    samples must be detached, or the decoder would learn from this too. Raises UsageError for an unknown kind or where
    the numbers of maps differ.
    """
    loss, _ = _kind(kind)
    if len(logits_real) != len(logits_fake):
        raise UsageError(f"{len(logits_real)} maps of real and {len(logits_fake)} of decoded samples; use one network.")
    return _over_scales([loss(r.float(), f.float()) for r, f in zip(logits_real, logits_fake, strict=True)])


def gradient_penalty(
    discriminator: Callable[[torch.Tensor], Maps], real: torch.Tensor, fake: torch.Tensor
) -> torch.Tensor:
    """How far the discriminator is from slope 1 between data and decoded samples: `2 x (B, C, …) -> ()`.

    mean (|grad D(x)| - 1)^2 at x = u real + (1 - u) fake with one u ~ U(0, 1) per sample, drawn by torch's own
    generator; D is the mean over positions and maps, |.| the Euclidean norm over a sample's values. Gulrajani et al.,
    "Improved Training of Wasserstein GANs", NeurIPS 2017, eq. 3. In float32 also inside autocast; differentiable in
    the discriminator's weights alone. Raises UsageError for batches of different shape.
    """
    if real.shape != fake.shape:
        raise UsageError(f"real {tuple(real.shape)} and decoded {tuple(fake.shape)} samples differ in shape.")
    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
        real, fake = real.detach().float(), fake.detach().float()
        share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
        between = (share * real + (1 - share) * fake).requires_grad_()
        maps = [each.float().flatten(1).mean(1) for each in discriminator(between)]
        score = torch.stack(maps).mean(0).sum()  # a sample's score depends on that sample alone
        (slope,) = torch.autograd.grad(score, between, create_graph=True)
        norm = slope.flatten(1).square().sum(1).add(1e-12).sqrt()
        return (norm - 1).square().mean()


def ramp(update: int, start: int, rise: int) -> float:
    """Weight of the adversarial term at an update (from 0): 0 before `start`, then linear to 1 over `rise` updates.

    The decoder learns to reconstruct first; a discriminator of noise teaches it nothing. Raises UsageError for
    negative numbers.
    """
    if min(update, start, rise) < 0:
        raise UsageError(f"update {update}, start {start} and rise {rise} must not be negative.")
    if update < start:
        return 0.0
    return min(1.0, (update - start + 1) / rise) if rise else 1.0


def _kind(
    kind: str,
) -> tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]:
    if kind not in KINDS:
        raise UsageError(f"there is no adversarial loss {kind!r}.{did_you_mean(kind, sorted(KINDS))}")
    return KINDS[kind]


def _over_scales(losses: list[torch.Tensor]) -> torch.Tensor:
    if not losses:
        raise UsageError("there are no logit maps; a discriminator returns one per scale.")
    return torch.stack(losses).mean()
