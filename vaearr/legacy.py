"""Loss settings of the earlier systems in ours, where the KL weight had five meanings (beta from 0.002 to 196 608).

An earlier loss is `R + weight * K`, each term reduced in its own way. Ours is `nll + beta * kl`, both summed over the
values of one sample and averaged over samples, in nats. With D values (pixels x channels), L latent dimensions, B
samples in a batch:

    R = a * r * nll + constant    a: mse 2 (unit-variance Gaussian), l1 1 (Laplace of scale 1), bce 1 (Bernoulli)
    K = k * kl                    r, k by reduction: sum 1 | mean 1/D for r, 1/L for k | batch_sum B

so `R + weight * K = a r (nll + beta kl) + constant` with

    beta = weight * k / (a * r)

    reconstruction, its reduction   KL's reduction   beta at weight 1
    mse, sum                        sum              1/2
    mse, sum                        mean             1/(2 L)          0.002 for L = 256
    mse, mean                       mean             D/(2 L)
    mse, mean                       sum              D/2              98 304 for 256 x 256 x 3
    l1, mean                        sum              D               196 608 for 256 x 256 x 3
    bce, sum                        sum              1

Gradients of the two are parallel; ours are 1/(a r) times as long, which Adam does not notice but plain SGD, weight
decay inside the gradient and gradient clipping do.
"""

from __future__ import annotations

from typing import Any, Literal

from vaearr.config import ObjectiveConfig
from vaearr.errors import UsageError, did_you_mean

Reduction = Literal["sum", "mean", "batch_sum"]

# name of the earlier term -> our likelihood, and how many times its negative log-likelihood the term is
RECONSTRUCTIONS: dict[str, tuple[str, float]] = {
    "mse": ("gaussian", 2.0),
    "l1": ("laplace", 1.0),
    "bce": ("bernoulli", 1.0),
}
REDUCTIONS = ("sum", "mean", "batch_sum")


def objective_from_legacy(
    *,
    reconstruction: Literal["mse", "l1", "bce"],
    reconstruction_reduction: Reduction,
    kl_reduction: Reduction,
    kl_weight: float,
    n_values: int,
    latent_dim: int,
    batch_size: int | None = None,
) -> ObjectiveConfig:
    """The objective whose minimum and gradient direction are those of an earlier loss; derivation above.

    Reductions: `sum` over the values of a sample, averaged over the batch; `mean` over all; `batch_sum` over all,
    batch included. The KL is 1/2 sum(mean^2 + var - log var - 1), as everywhere. n_values: pixels x channels of a
    sample. batch_size: needed when one of the two reductions only is `batch_sum`. The earlier losses had neither
    warm-up nor noise nor another target than the pattern, so these are off. Raises UsageError for other settings.
    """
    _check(reconstruction, RECONSTRUCTIONS, "reconstruction")
    _check(reconstruction_reduction, REDUCTIONS, "reconstruction_reduction")
    _check(kl_reduction, REDUCTIONS, "kl_reduction")
    sizes = {"n_values": n_values, "latent_dim": latent_dim, "batch_size": batch_size}
    for what, size in sizes.items():
        if size is not None and size < 1:
            raise UsageError(f"{what} is {size}; it is a number of things and must be at least 1.")
    if (reconstruction_reduction == "batch_sum") == (kl_reduction == "batch_sum"):
        batch_size = 1  # in both terms or in none: it cancels
    elif batch_size is None:
        raise UsageError("one term only is summed over the batch, so its size decides the balance: give batch_size.")
    likelihood, scale = RECONSTRUCTIONS[reconstruction]
    factor = scale * _factor(reconstruction_reduction, n_values, batch_size)
    settings: dict[str, Any] = {
        "likelihood": likelihood,
        "beta": kl_weight * _factor(kl_reduction, latent_dim, batch_size) / factor,
        "warmup": 0.0,
        "free_bits": 0.0,
        "input_noise": 0.0,
        "target": "self",
    }
    return ObjectiveConfig.from_attrs(settings)


def _factor(reduction: str, size: int, batch_size: int) -> float:
    """What a reduced term is times the one summed over its `size` values and averaged over samples."""
    return {"sum": 1.0, "mean": 1 / size, "batch_sum": float(batch_size)}[reduction]


def _check(value: str, known: Any, what: str) -> None:
    if value not in known:
        raise UsageError(f"{what} is {value!r}.{did_you_mean(value, sorted(known))}")
