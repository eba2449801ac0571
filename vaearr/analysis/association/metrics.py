"""Dependence metrics: one decorated function each, columns of numbers in, one number per latent and
target out.

A kernel gets `Columns` of finite float64 values, latents (n, L) and targets (n, T), n >=
MIN_POINTS, and returns (L, T), NaN where a column is constant. Missing values never reach it:
`apply` drops them per latent-target pair. What a kernel needs of one column it makes with
`Columns.made`, so that all partners share it. A further metric is one function under
`@metric(...)`, also in a package of your own, where it is an entry point of `vaearr.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vaearr.analysis.association.columns import Columns, columns_of, each_pair
from vaearr.config.parts import part
from vaearr.errors import UsageError

Kernel = Callable[[Columns, Columns], np.ndarray]

MIN_POINTS = 3  # fewer finite points say nothing: the value is NaN
LATENTS_AT_ONCE, TARGETS_AT_ONCE = 4, 16  # columns of one task


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A registered metric: the kernel and what its numbers mean."""

    name: str
    kernel: Kernel
    signed: bool  # negative values are as strong as positive ones; rankings use |value|
    formula: str
    reference: str
    higher: str  # what a larger (absolute) value means

    def describe(self) -> dict[str, str | bool]:
        """The metadata, ready for attributes."""
        return {key: getattr(self, key) for key in ("signed", "formula", "reference", "higher")}


METRICS: dict[str, Metric] = {}
USUAL = [
    "pearson",
    "spearman",
    "kendall",
    "mutual_information",
    "distance_correlation",
    "hsic",
    "partial_pearson",
]  # "all"


def metric(**about: Any) -> Callable[[Kernel], Kernel]:
    """Register the decorated kernel under its own name; about: the other fields of `Metric`."""

    def register(kernel: Kernel) -> Kernel:
        METRICS[kernel.__name__] = Metric(name=kernel.__name__, kernel=kernel, **about)
        return kernel

    return register


def choose(metrics: str | Any | Sequence[str | Any]) -> list[Metric]:
    """The metrics of these names, `"all"` for the seven usual ones; or functions of two columns
    `(n,)` to a number.

    Variants (`partial_pearson_2`, `partial_pearson_3`, `hsic_normalised`, `hsic_unbiased`) are used
    where named. A name may be that of another package's metric, see `vaearr.config.parts.part`.
    Raises UsageError for an unknown one.
    """
    given = [metrics] if isinstance(metrics, str) or callable(metrics) else list(metrics)
    given = [each for one in given for each in (USUAL if one == "all" else [one])]
    if not given:
        raise UsageError(f"no metric given; name one or more of {', '.join(METRICS)}, or 'all'.")
    found = [
        part("metric", one, METRICS, trust=[one]) if isinstance(one, str) else one for one in given
    ]
    chosen = [one if isinstance(one, Metric) else _of_others(one) for one in found]
    return list({one.name: one for one in chosen}.values())


def _of_others(function: Any) -> Metric:
    """A decorated kernel, or a plain function of two columns without missing values."""
    for known in METRICS.values():
        if function is known.kernel:
            return known
    if not callable(function):
        raise UsageError(
            f"{function!r} is no metric: give a name, or a function of two columns to a number."
        )

    def kernel(latents: Columns, targets: Columns) -> np.ndarray:
        return each_pair(
            latents,
            targets,
            lambda i, j: float(function(latents.values[:, i].copy(), targets.values[:, j].copy())),
        )

    words = " ".join((function.__doc__ or f"{function.__module__}.{function.__qualname__}").split())
    return Metric(
        name=function.__name__,
        kernel=kernel,
        signed=True,
        formula=words,
        reference=words,
        higher="stronger",
    )


def apply(
    metrics: Sequence[Metric],
    latents: np.ndarray,
    targets: np.ndarray,
    positions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Every metric of every latent `(n, L)` with every target `(n, T)`: values `(metric, L, T)` and
    n `(T,)`.

    Each latent-target pair uses the points where both are finite; fewer than MIN_POINTS give NaN.
    `n` counts, per target, the points where the target and at least one latent are finite.
    `positions` `(n, d)` are the coordinates of the points. Runs under the dask scheduler in use,
    threads by default, a few latents and targets to a task; memory beyond the arguments is that of
    the tasks under way.
    """
    import dask

    finite_latents, finite_targets = np.isfinite(latents), np.isfinite(targets)
    every_metric = np.arange(len(metrics))
    all_latents = dask.delayed(latents, pure=False, traverse=False)
    all_targets = dask.delayed(targets, pure=False, traverse=False)
    tasks, places = [], []
    for latent_points, members in same_missing(finite_latents):  # nearly always one group
        for keep, columns in same_missing(finite_targets & latent_points[:, None]):
            if keep.sum() < MIN_POINTS:
                continue
            points = dask.delayed(keep, pure=False, traverse=False)
            where = dask.delayed(columns_of(positions[keep]), pure=False, traverse=False)
            for target_block in _blocks(columns, TARGETS_AT_ONCE):
                theirs = dask.delayed(_columns)(all_targets, points, target_block, where)
                for latent_block in _blocks(members, LATENTS_AT_ONCE):
                    tasks.append(
                        dask.delayed(_task)(metrics, all_latents, points, latent_block, theirs)
                    )
                    places.append(np.ix_(every_metric, latent_block, target_block))
    values = np.full((len(metrics), latents.shape[1], targets.shape[1]), np.nan)
    for place, found in zip(places, dask.compute(*tasks), strict=True):
        values[place] = found
    n = (finite_targets & finite_latents.any(axis=1)[:, None]).sum(axis=0)
    return values, n


def _columns(
    values: np.ndarray, keep: np.ndarray, block: np.ndarray, where: Columns | None
) -> Columns:
    return columns_of(values[:, block][keep], where)


def _task(
    metrics: Sequence[Metric],
    latents: np.ndarray,
    keep: np.ndarray,
    block: np.ndarray,
    targets: Columns,
) -> np.ndarray:
    """Values `(metric, latents of the block, targets)`."""
    columns = _columns(latents, keep, block, targets.positions)
    return np.stack([item.kernel(columns, targets) for item in metrics])


def _blocks(members: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(members, range(size, len(members), size))


def same_missing(finite: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Columns grouped by their finite points: (which rows are finite, which columns)."""
    groups: dict[bytes, list[int]] = {}
    for column in range(finite.shape[1]):
        groups.setdefault(np.packbits(finite[:, column]).tobytes(), []).append(column)
    return [(finite[:, columns[0]], np.array(columns)) for columns in groups.values()]
