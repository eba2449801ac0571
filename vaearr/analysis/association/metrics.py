"""Dependence metrics: one decorated function each, columns of numbers in, one number per latent and target out.

A kernel gets `Columns` of finite float64 values, latents (n, L) and targets (n, T), n >= MIN_POINTS, and returns
(L, T), NaN where a column is constant. Missing values never reach it: `apply` drops them per latent-target pair. What
a kernel needs of one column it makes with `Columns.made`, so that all partners share it. A further metric is one
function under `@metric(...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vaearr.analysis.association.columns import Columns, columns_of
from vaearr.errors import UsageError, did_you_mean

Kernel = Callable[[Columns, Columns], np.ndarray]
Prepare = Callable[[Columns], object]

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
    in_all: bool = True  # whether "all" includes it; any metric can be named
    needs_positions: bool = False  # the kernel reads `Columns.positions`
    prepare: Prepare | None = None  # makes what the kernel needs of targets, before latents are compared with them

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
    *,
    signed: bool,
    formula: str,
    reference: str,
    higher: str,
    in_all: bool = True,
    needs_positions: bool = False,
    prepare: Prepare | None = None,
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
            in_all=in_all,
            needs_positions=needs_positions,
            prepare=prepare,
        )
        return kernel

    return register


def choose(metrics: str | Sequence[str]) -> list[Metric]:
    """The registered metrics of these names, `"all"` for the seven usual ones. Raises UsageError for an unknown name.

    Variants (`partial_pearson_2`, `partial_pearson_3`, `hsic_normalised`, `hsic_unbiased`) are used where named.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    usual = [name for name, item in METRICS.items() if item.in_all]
    names = [each for name in names for each in (usual if name == "all" else [name])]
    if not names:
        raise UsageError(f"no metric given; name one or more of {', '.join(METRICS)}, or 'all'.")
    for name in names:
        if name not in METRICS:
            raise UsageError(f"no metric is named {name!r}.{did_you_mean(name, list(METRICS))}")
    return [METRICS[name] for name in dict.fromkeys(names)]


@metric(
    signed=True,
    formula="cov(latent, target) / (std(latent) std(target))",
    reference="Pearson, Proc. R. Soc. Lond. 58, 240 (1895), doi:10.1098/rspl.1895.0041",
    higher="closer to a straight line; the sign is its direction",
)
def pearson(latents: Columns, targets: Columns) -> np.ndarray:
    """Linear correlation."""
    return _correlation(latents.made(_unit), targets.made(_unit))


def _average_ranks(columns: Columns) -> np.ndarray:
    from vaearr.analysis.association.ranks import average_ranks

    return _unit_columns(columns.made(average_ranks))


@metric(
    signed=True,
    formula="pearson(rank(latent), rank(target)), ties get the average rank",
    reference="Spearman, Am. J. Psychol. 15, 72 (1904), doi:10.2307/1412159",
    higher="closer to monotonic; the sign is its direction",
    prepare=lambda columns: columns.made(_average_ranks),
)
def spearman(latents: Columns, targets: Columns) -> np.ndarray:
    """Rank correlation."""
    return _correlation(latents.made(_average_ranks), targets.made(_average_ranks))


def _codes(columns: Columns) -> object:
    from vaearr.analysis.association.ranks import codes

    return columns.made(codes)


@metric(
    signed=True,
    formula="tau-b = (C - D) / sqrt((N - ties(latent)) (N - ties(target))), C and D the concordant and discordant of"
    " N = n(n-1)/2 pairs",
    reference="Kendall, Biometrika 33, 239 (1945), doi:10.1093/biomet/33.3.239",
    higher="closer to monotonic; the sign is its direction",
    prepare=_codes,
)
def kendall(latents: Columns, targets: Columns) -> np.ndarray:
    """Rank correlation by pairs, corrected for ties."""
    from vaearr.analysis.association.ranks import tau_b

    return tau_b(latents, targets)


def _noisy(columns: Columns) -> object:
    from vaearr.analysis.association.information import noisy

    return columns.made(noisy, 1)


@metric(
    signed=False,
    formula="psi(n) + psi(k) - <psi(n_latent)> - <psi(n_target)>, k = 7 neighbours in the larger coordinate"
    " difference, n_* the points nearer than the k-th in one coordinate, itself included; both scaled to deviation 1,"
    " with noise of 1e-10 (seed 0); 0 if below; nats",
    reference="Kraskov, Stögbauer, Grassberger, Phys. Rev. E 69, 066138 (2004), doi:10.1103/PhysRevE.69.066138; the"
    " numbers of scikit-learn's mutual_info_regression(latent, target, n_neighbors=7, random_state=0)",
    higher="the target says more about the latent, along any curve",
    prepare=_noisy,
)
def mutual_information(latents: Columns, targets: Columns) -> np.ndarray:
    """Mutual information by nearest neighbours; NaN for fewer than eight points."""
    from vaearr.analysis.association import information

    return information.mutual_information(latents, targets)


def _distances(columns: Columns) -> object:
    from vaearr.analysis.association.distance import distances

    return columns.made(distances)


@metric(
    signed=False,
    formula="sqrt(dCov^2 / sqrt(dVar^2(latent) dVar^2(target))), dCov^2 the mean over all n^2 pairs of the product of"
    " the doubly centred distances (V-statistic)",
    reference="Szekely, Rizzo, Bakirov, Ann. Stat. 35, 2769 (2007), doi:10.1214/009053607000000505; in O(n log n) after"
    " Chaudhuri, Hu, Comput. Stat. Data Anal. 135, 15 (2019), doi:10.1016/j.csda.2019.01.016",
    higher="more dependent, along any curve; 0 only if independent, 1 if a straight line",
    prepare=_distances,
)
def distance_correlation(latents: Columns, targets: Columns) -> np.ndarray:
    """Distance correlation."""
    from vaearr.analysis.association import distance

    return distance.distance_correlation(latents, targets)


def _kernels(columns: Columns) -> object:
    from vaearr.analysis.association.gaussian import kernels

    return columns.made(kernels)


@metric(
    signed=False,
    formula="tr(KHLH) / (n-1)^2, K and L of exp(-d^2 / (2 sigma^2 + 1e-12)), sigma the median of the positive distances"
    " between points, H = 1 - 1/n",
    reference="Gretton, Bousquet, Smola, Schölkopf, Algorithmic Learning Theory, 63 (2005), doi:10.1007/11564089_7",
    higher="more dependent, along any curve; independent columns give about 1/n, not 0",
    prepare=_kernels,
)
def hsic(latents: Columns, targets: Columns) -> np.ndarray:
    """Hilbert-Schmidt independence criterion, biased."""
    from vaearr.analysis.association import hsic as module

    return module.hsic(latents, targets)


def _self_traces(columns: Columns) -> object:
    from vaearr.analysis.association.hsic import self_traces

    return columns.made(self_traces)


@metric(
    signed=False,
    formula="hsic(latent, target) / sqrt(hsic(latent, latent) hsic(target, target))",
    reference="Cortes, Mohri, Rostamizadeh, J. Mach. Learn. Res. 13, 795 (2012)",
    higher="more dependent, along any curve; at most 1",
    in_all=False,
    prepare=_self_traces,
)
def hsic_normalised(latents: Columns, targets: Columns) -> np.ndarray:
    """HSIC as a cosine between centred kernels (centred kernel alignment)."""
    from vaearr.analysis.association import hsic as module

    return module.hsic_normalised(latents, targets)


@metric(
    signed=False,
    formula="(tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) - 2/(n-2) 1'KL1) / (n(n-3)), K and L of hsic with diagonals of 0",
    reference="Song, Smola, Gretton, Bedo, Borgwardt, J. Mach. Learn. Res. 13, 1393 (2012)",
    higher="more dependent, along any curve; 0 on average if independent",
    in_all=False,
    prepare=_kernels,
)
def hsic_unbiased(latents: Columns, targets: Columns) -> np.ndarray:
    """HSIC without its bias of order 1/n; NaN for fewer than four points."""
    from vaearr.analysis.association import hsic as module

    return module.hsic_unbiased(latents, targets)


def _partial(latents: Columns, targets: Columns, degree: int) -> np.ndarray:
    return _correlation(latents.made(_detrended, degree), targets.made(_detrended, degree))


def _detrended(columns: Columns, degree: int) -> np.ndarray:
    from vaearr.analysis.association.spatial import residuals

    return _unit_columns(columns.made(residuals, degree))


def _partial_metric(degree: int) -> Kernel:
    """Register `partial_pearson` of a degree."""

    def kernel(latents: Columns, targets: Columns) -> np.ndarray:
        """Linear correlation of what a polynomial of the position does not explain."""
        return _partial(latents, targets, degree)

    kernel.__name__ = "partial_pearson" if degree == 1 else f"partial_pearson_{degree}"
    return metric(
        signed=True,
        formula=f"pearson of the residuals after a least-squares polynomial of degree {degree} in the coordinates;"
        " NaN for fewer points than its terms and two",
        reference="trend surfaces: Legendre, Ecology 74, 1659 (1993), doi:10.2307/1939924",
        higher="closer to a straight line once large-scale trends are gone; the sign is its direction",
        in_all=degree == 1,
        needs_positions=True,
        prepare=lambda columns: columns.made(_detrended, degree),
    )(kernel)


for _degree in (1, 2, 3):
    _partial_metric(_degree)


def _unit(columns: Columns) -> np.ndarray:
    return _unit_columns(columns.values)


def _unit_columns(values: np.ndarray) -> np.ndarray:
    """Columns centred and of length 1; NaN for constant ones."""
    constant = np.ptp(values, axis=0) == 0
    centred = values - values.mean(axis=0)
    centred -= centred.mean(axis=0)  # what rounding left of a large offset
    centred /= np.maximum(np.abs(centred).max(axis=0), np.finfo(float).tiny)  # no under- or overflow in the squares
    norm = np.sqrt(np.einsum("nl,nl->l", centred, centred))
    norm[constant | (norm == 0)] = np.nan
    return np.asarray(centred / norm)


def _correlation(latents: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Correlations `(L, T)` of columns of length 1."""
    return np.clip(latents.T @ targets, -1.0, 1.0)


def apply(
    metrics: Sequence[Metric],
    latents: np.ndarray,
    targets: np.ndarray,
    positions: np.ndarray | None = None,
    *,
    scheduler: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Every metric of every latent `(n, L)` with every target `(n, T)`: values `(metric, L, T)` and n `(T,)`.

    Each latent-target pair uses the points where both are finite; fewer than MIN_POINTS give NaN. `n` counts, per
    target, the points where the target and at least one latent are finite. `positions` `(n, d)` are the coordinates of
    the points, for metrics that need them. Runs under the dask scheduler in use, threads by default, a few latents and
    targets to a task; memory beyond the arguments is that of the tasks under way. scheduler: another one of dask's.
    Raises UsageError if positions are needed and missing.
    """
    import dask

    if positions is None and (needy := [item.name for item in metrics if item.needs_positions]):
        raise UsageError(f"{', '.join(needy)} need the positions of the points; pass positions, or leave them out.")
    finite_latents, finite_targets = np.isfinite(latents), np.isfinite(targets)
    values = np.full((len(metrics), latents.shape[1], targets.shape[1]), np.nan)
    groups = [
        (keep, list(_blocks(columns, TARGETS_AT_ONCE)), list(_blocks(members, LATENTS_AT_ONCE)))
        for pattern, members in _same_missing(finite_latents)  # nearly always one pattern
        for keep, columns in _same_missing(finite_targets & pattern[:, None])
        if keep.sum() >= MIN_POINTS
    ]

    def share(values: Any) -> Any:
        return dask.delayed(values, pure=False, traverse=False)

    def tasks() -> Iterator[Any]:
        own, others = share(latents), share(targets)
        for keep, targets_at_once, latents_at_once in groups:
            points = share(keep)
            where = None if positions is None else share(columns_of(positions[keep]))
            for wanted in targets_at_once:
                prepared = dask.delayed(_prepared)(metrics, others, points, wanted, where)
                yield from (dask.delayed(_task)(metrics, own, points, block, prepared) for block in latents_at_once)

    every = np.arange(len(metrics))
    places = [np.ix_(every, block, wanted) for _, t, latent in groups for wanted in t for block in latent]
    for place, found in zip(places, dask.compute(*tasks(), scheduler=scheduler), strict=True):
        values[place] = found
    n = (finite_targets & finite_latents.any(axis=1)[:, None]).sum(axis=0)
    return values, n


def _prepared(
    metrics: Sequence[Metric], targets: np.ndarray, keep: np.ndarray, wanted: np.ndarray, where: Columns | None
) -> Columns:
    """Targets at the kept points, with what the metrics need of them."""
    columns = columns_of(targets[:, wanted][keep], where)
    for item in metrics:
        if item.prepare:
            item.prepare(columns)
    return columns


def _task(
    metrics: Sequence[Metric], latents: np.ndarray, keep: np.ndarray, block: np.ndarray, targets: Columns
) -> np.ndarray:
    """Values `(metric, latents of the block, targets)`."""
    columns = columns_of(latents[:, block][keep], targets.positions)
    return np.stack([item.kernel(columns, targets) for item in metrics])


def latent_blocks(latents: np.ndarray) -> list[np.ndarray]:
    """The columns of latents `(n, L)` that `apply` takes together; any of them, in this order, stay together in it."""
    groups = _same_missing(np.isfinite(latents))
    return [block for _, members in groups for block in _blocks(members, LATENTS_AT_ONCE)]


def _blocks(members: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(members), size):
        yield members[start : start + size]


def _same_missing(finite: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Columns grouped by their finite points: (which rows are finite, which columns)."""
    groups: dict[bytes, list[int]] = {}
    for column in range(finite.shape[1]):
        groups.setdefault(np.packbits(finite[:, column]).tobytes(), []).append(column)
    return [(finite[:, columns[0]], np.array(columns)) for columns in groups.values()]
