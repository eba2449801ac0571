"""Dependence metrics: one decorated function each, plain arrays in, one number per latent out.

A kernel gets finite float64 arrays, `latents` (n, L) and `target` (n,), n >= MIN_POINTS, and returns (L,). Missing
values never reach it: `apply` drops them per latent-target pair. A further metric is one function under `@metric(...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vaearr.errors import UsageError, did_you_mean

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
Prepare = Callable[[np.ndarray], np.ndarray]

MIN_POINTS = 3  # fewer finite points say nothing: the value is NaN


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A registered metric: the kernel and what its numbers mean."""

    name: str
    kernel: Kernel
    signed: bool  # negative values are as strong as positive ones; rankings use |value|
    formula: str
    reference: str
    higher: str  # what a larger (absolute) value means
    prepare: Prepare | None = None  # columnwise transform of latents and target before the kernel, shared by targets

    def describe(self) -> dict[str, str | bool]:
        """The metadata, ready for attributes."""
        return {
            "signed": self.signed,
            "formula": self.formula,
            "reference": self.reference,
            "higher": self.higher,
        }


METRICS: dict[str, Metric] = {}


def metric(
    *, signed: bool, formula: str, reference: str, higher: str, prepare: Prepare | None = None
) -> Callable[[Kernel], Kernel]:
    """Register the decorated kernel under its own name."""

    def register(kernel: Kernel) -> Kernel:
        METRICS[kernel.__name__] = Metric(
            name=kernel.__name__,
            kernel=kernel,
            signed=signed,
            formula=formula,
            reference=reference,
            higher=higher,
            prepare=prepare,
        )
        return kernel

    return register


def choose(metrics: str | Sequence[str]) -> list[Metric]:
    """The registered metrics of these names, `"all"` for every one. Raises UsageError for an unknown name."""
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    if names == ["all"]:
        names = list(METRICS)
    if not names:
        raise UsageError(f"no metric given; name one or more of {', '.join(METRICS)}, or 'all'.")
    for name in names:
        if name not in METRICS:
            raise UsageError(f"no metric is named {name!r}.{did_you_mean(name, list(METRICS))}")
    return [METRICS[name] for name in dict.fromkeys(names)]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Average ranks along the first axis."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, method="average", axis=0))


@metric(
    signed=True,
    formula="cov(latent, target) / (std(latent) std(target))",
    reference="Pearson, Proc. R. Soc. Lond. 58, 240 (1895), doi:10.1098/rspl.1895.0041",
    higher="closer to a straight line; the sign is its direction",
)
def pearson(latents: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Linear correlation; NaN where the latent or the target is constant."""
    return _correlation(latents, target)


@metric(
    signed=True,
    formula="pearson(rank(latent), rank(target)), ties get the average rank",
    reference="Spearman, Am. J. Psychol. 15, 72 (1904), doi:10.2307/1412159",
    higher="closer to monotonic; the sign is its direction",
    prepare=_ranks,
)
def spearman(latents: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rank correlation; NaN where the latent or the target is constant. Gets ranks, made once for all targets."""
    return _correlation(latents, target)


def _correlation(latents: np.ndarray, target: np.ndarray) -> np.ndarray:
    constant = (np.ptp(latents, axis=0) == 0) | (np.ptp(target) == 0)
    centred = latents - latents.mean(axis=0)
    centred /= np.maximum(np.abs(centred).max(axis=0), np.finfo(float).tiny)  # no under- or overflow in the squares
    other = target - target.mean()
    other /= max(np.abs(other).max(), np.finfo(float).tiny)
    norm = np.sqrt(np.einsum("nl,nl->l", centred, centred) * (other @ other))
    r = np.divide(other @ centred, norm, out=np.full(latents.shape[1], np.nan), where=norm > 0)
    return np.where(constant, np.nan, np.clip(r, -1.0, 1.0))


def apply(metrics: Sequence[Metric], latents: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every metric of every latent `(n, L)` with every target `(n, T)`: values `(metric, L, T)` and n `(T,)`.

    Each latent-target pair uses the points where both are finite; fewer than MIN_POINTS give NaN. `n` counts, per
    target, the points where the target and at least one latent are finite. Targets with the same missing points share
    the prepared latents.
    """
    finite_latents, finite_targets = np.isfinite(latents), np.isfinite(targets)
    values = np.full((len(metrics), latents.shape[1], targets.shape[1]), np.nan)
    for pattern, members in _same_missing(finite_latents):  # nearly always one pattern
        for keep, columns in _same_missing(finite_targets & pattern[:, None]):
            if keep.sum() < MIN_POINTS:
                continue
            block, wanted = latents[keep][:, members].astype("f8"), targets[keep][:, columns].astype("f8")
            for m, item in enumerate(metrics):
                a, b = (item.prepare(block), item.prepare(wanted)) if item.prepare else (block, wanted)
                for j, column in enumerate(columns):
                    values[m, members, column] = item.kernel(a, b[:, j])
    n = (finite_targets & finite_latents.any(axis=1)[:, None]).sum(axis=0)
    return values, n


def _same_missing(finite: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Columns grouped by their finite points: (which rows are finite, which columns)."""
    groups: dict[bytes, list[int]] = {}
    for column in range(finite.shape[1]):
        groups.setdefault(np.packbits(finite[:, column]).tobytes(), []).append(column)
    return [(finite[:, columns[0]], np.array(columns)) for columns in groups.values()]
