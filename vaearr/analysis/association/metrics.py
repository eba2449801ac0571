"""The table of dependence metrics, and how they are computed for latents and targets.

A metric is one row of METRICS: what its numbers mean, and either a transform of columns whose
products are its values, or a function of two columns. Metrics of other packages are plain functions
of two columns, see `choose`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vaearr.analysis.association import correlations, hsic, pairs
from vaearr.config.parts import part
from vaearr.errors import UsageError

METRIC, ASSOCIATION = "metric", "association"  # dim and variable of a table
MIN_POINTS = 3  # with fewer finite points the value is NaN


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric: how it is computed, by `transform` or `pair`, and what its numbers mean."""

    name: str
    transform: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None  # see `correlations`
    pair: Callable[[Any, Any], float] | None = None  # of two columns, each in the form of `column`
    column: Callable[[np.ndarray], Any] = np.copy  # what `pair` needs of a column (n,)
    signed: bool  # negative values are as strong as positive ones; rankings use |value|
    formula: str
    reference: str
    higher: str  # what a larger (absolute) value means
    is_usual: bool = False  # one of "all"
    trend_degree: int = 0  # of the removed trend
    n_effective_of: str = "ranks"  # or "values"
    # half-width of the interval of arctanh(value), times sqrt(n_effective - 3)
    interval: float = np.nan

    def describe(self) -> dict[str, str | bool]:
        """The metadata, ready for attributes."""
        return {key: getattr(self, key) for key in ("signed", "formula", "reference", "higher")}

    def prepare(self, values: np.ndarray, positions: np.ndarray) -> Any:
        """Columns `(n, k)` of finite float64 values at positions `(n, d)`, for `compare`."""
        if self.transform is not None:
            return self.transform(values, positions)
        is_constant = np.ptp(values, axis=0) == 0
        return [
            None if constant else self.column(column)
            for column, constant in zip(values.T, is_constant, strict=True)
        ]

    def compare(self, latents: Any, targets: Any) -> np.ndarray:
        """Values `(L, T)` of prepared columns; NaN where one is constant."""
        if self.pair is None:
            return np.clip(latents.T @ targets, -1.0, 1.0)
        values = np.full((len(latents), len(targets)), np.nan)
        for i, latent in enumerate(latents):
            for j, target in enumerate(targets):
                if latent is not None and target is not None:
                    values[i, j] = self.pair(latent, target)
        return values


def _partial_pearson(degree: int) -> Metric:
    return Metric(
        name="partial_pearson" if degree == 1 else f"partial_pearson_{degree}",
        transform=partial(correlations.unit_residuals, degree=degree),
        signed=True,
        formula=f"pearson of the residuals after a least-squares polynomial of degree {degree} in"
        " the coordinates; NaN for fewer points than the number of its terms plus two",
        reference="trend surfaces: Legendre, Ecology 74, 1659 (1993), doi:10.2307/1939924",
        higher="closer to a straight line once large-scale trends are removed; the sign is its"
        " direction",
        is_usual=degree == 1,
        trend_degree=degree,
        n_effective_of="values",
    )


ROWS = (
    Metric(
        name="pearson",
        transform=correlations.unit_values,
        signed=True,
        formula="cov(latent, target) / (std(latent) std(target))",
        reference="Pearson, Proc. R. Soc. Lond. 58, 240 (1895), doi:10.1098/rspl.1895.0041",
        higher="closer to a straight line; the sign is its direction",
        is_usual=True,
        n_effective_of="values",
        interval=1.96,
    ),
    Metric(
        name="spearman",
        transform=correlations.unit_ranks,
        signed=True,
        formula="pearson(rank(latent), rank(target)), ties get the average rank",
        reference="Spearman, Am. J. Psychol. 15, 72 (1904), doi:10.2307/1412159",
        higher="closer to monotonic; the sign is its direction",
        is_usual=True,
        interval=1.96 * 1.06**0.5,
    ),
    Metric(
        name="kendall",
        pair=pairs.kendall,
        signed=True,
        formula="tau-b = (C - D) / sqrt((N - ties(latent)) (N - ties(target))), C and D the"
        " concordant and discordant of N = n(n-1)/2 pairs",
        reference="Kendall, Biometrika 33, 239 (1945), doi:10.1093/biomet/33.3.239; in O(n log n)"
        " after Knight, J. Am. Stat. Assoc. 61, 436 (1966)",
        higher="closer to monotonic; the sign is its direction",
        is_usual=True,
    ),
    Metric(
        name="mutual_information",
        pair=pairs.mutual_information,
        column=pairs.noisy,
        signed=False,
        formula="psi(n) + psi(k) - <psi(n_latent)> - <psi(n_target)>, k = 7 neighbours in the"
        " larger coordinate difference, n_* the points nearer than the k-th in one coordinate,"
        " itself included; both scaled to deviation 1, with noise of 1e-10 (seed 0); negative"
        " values become 0; nats",
        reference="Kraskov, Stögbauer, Grassberger, Phys. Rev. E 69, 066138 (2004),"
        " doi:10.1103/PhysRevE.69.066138; the numbers of scikit-learn's"
        " mutual_info_regression(latent, target, n_neighbors=7, random_state=0)",
        higher="the target says more about the latent, along any curve",
        is_usual=True,
    ),
    Metric(
        name="distance_correlation",
        pair=pairs.distance_correlation,
        column=pairs.distances,
        signed=False,
        formula="sqrt(dCov^2 / sqrt(dVar^2(latent) dVar^2(target))), dCov^2 the mean over all n^2"
        " pairs of the product of the doubly centred distances (V-statistic)",
        reference="Szekely, Rizzo, Bakirov, Ann. Stat. 35, 2769 (2007),"
        " doi:10.1214/009053607000000505; in O(n log n) after Chaudhuri, Hu, Comput. Stat. Data"
        " Anal. 135, 15 (2019), doi:10.1016/j.csda.2019.01.016",
        higher="more dependent, along any curve; 0 only if independent, 1 if a straight line",
        is_usual=True,
    ),
    Metric(
        name="hsic",
        pair=hsic.hsic,
        column=hsic.kernel,
        signed=False,
        formula="tr(KHLH) / (n-1)^2, K and L of exp(-d^2 / (2 sigma^2 + 1e-12)), sigma the median"
        " of the positive distances between points, H = 1 - 1/n",
        reference="Gretton, Bousquet, Smola, Schölkopf, Algorithmic Learning Theory, 63 (2005),"
        " doi:10.1007/11564089_7",
        higher="more dependent, along any curve; independent columns give about 1/n, not 0",
        is_usual=True,
    ),
    *map(_partial_pearson, (1, 2, 3)),
    Metric(
        name="hsic_normalised",
        pair=hsic.hsic_normalised,
        column=hsic.kernel,
        signed=False,
        formula="hsic(latent, target) / sqrt(hsic(latent, latent) hsic(target, target))",
        reference="Cortes, Mohri, Rostamizadeh, J. Mach. Learn. Res. 13, 795 (2012)",
        higher="more dependent, along any curve; at most 1",
    ),
    Metric(
        name="hsic_unbiased",
        pair=hsic.hsic_unbiased,
        column=hsic.kernel,
        signed=False,
        formula="(tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) - 2/(n-2) 1'KL1) / (n(n-3)), K and L of hsic"
        " with diagonals of 0",
        reference="Song, Smola, Gretton, Bedo, Borgwardt, J. Mach. Learn. Res. 13, 1393 (2012)",
        higher="more dependent, along any curve; 0 on average if independent",
    ),
    Metric(
        name="distance_correlation_unbiased",
        pair=pairs.distance_correlation_unbiased,
        signed=False,
        formula="dCov^2 / sqrt(dVar^2(latent) dVar^2(target)) of U-centred distances: squared, of"
        " mean 0 for independent columns",
        reference="Szekely, Rizzo, J. Multivar. Anal. 117, 193 (2013),"
        " doi:10.1016/j.jmva.2013.02.012, by dcor",
        higher="more dependent, along any curve; about 0, also below, if independent",
    ),
)
METRICS = {metric.name: metric for metric in ROWS}


def choose(metrics: str | Any | Sequence[str | Any]) -> list[Metric]:
    """Look up metrics.

    Parameters
    ----------
    metrics
        Names from METRICS, names of metrics of other packages (see `vaearr.config.parts.part`),
        "all" for the usual ones, or functions of two columns `(n,)` to a number; one or several.

    Raises
    ------
    UsageError
        For an unknown metric, and if none is given.
    """
    is_single = isinstance(metrics, str) or not isinstance(metrics, Iterable)
    requested = [metrics] if is_single else metrics
    chosen: dict[str, Metric] = {}
    for item in requested:
        if item == "all":
            chosen |= {metric.name: metric for metric in ROWS if metric.is_usual}
        else:
            metric = _metric(item)
            chosen[metric.name] = metric
    if not chosen:
        raise UsageError(f"no metric given; name one or more of {', '.join(METRICS)}, or 'all'.")
    return list(chosen.values())


def _metric(item: str | Any) -> Metric:
    """A metric by its name, or one made from a function of two columns without missing values."""
    function = part("metric", item, METRICS, trust=[item]) if isinstance(item, str) else item
    if isinstance(function, Metric):
        return function
    if not callable(function):
        raise UsageError(
            f"{function!r} is no metric: give a name, or a function of two columns to a number."
        )

    text = function.__doc__ or f"{function.__module__}.{function.__qualname__}"
    text = " ".join(text.split())
    return Metric(
        name=function.__name__,
        pair=lambda latent, target: float(function(latent, target)),
        signed=True,
        formula=text,
        reference=text,
        higher="stronger",
    )


def apply(
    metrics: Sequence[Metric],
    latents: np.ndarray,
    targets: np.ndarray,
    positions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute each metric of each latent with each target, under the dask scheduler in use.

    Each pair uses the points where both are finite. A task takes one latent; memory beyond the
    arguments is that of the prepared targets and of the running tasks.

    Parameters
    ----------
    metrics
        The metrics.
    latents, targets
        Values `(n, L)` and `(n, T)`.
    positions
        Coordinates of the points `(n, d)`.

    Returns
    -------
    numpy.ndarray
        Values `(metric, L, T)`; NaN for fewer than MIN_POINTS points.
    numpy.ndarray
        Number of points where the target and at least one latent are finite, `(T,)`.
    """
    import dask

    finite_latents = np.isfinite(latents)
    finite_targets = np.isfinite(targets)
    all_latents = dask.delayed(latents, pure=False, traverse=False)
    all_targets = dask.delayed(targets, pure=False, traverse=False)
    tasks = []
    cells = []
    for has_latents, latent_group in same_missing(finite_latents):  # nearly always one group
        for used, target_group in same_missing(finite_targets & has_latents[:, None]):
            if used.sum() < MIN_POINTS:
                continue
            mask = dask.delayed(used, pure=False, traverse=False)
            coords = dask.delayed(positions[used], pure=False, traverse=False)
            prepared = dask.delayed(_columns)(metrics, all_targets, mask, target_group, coords)
            for latent in latent_group:
                tasks.append(
                    dask.delayed(_row)(metrics, all_latents, mask, latent, coords, prepared)
                )
                cells.append((latent, target_group))
    values = np.full((len(metrics), latents.shape[1], targets.shape[1]), np.nan)
    for (latent, target_group), row in zip(cells, dask.compute(*tasks), strict=True):
        values[:, latent, target_group] = row
    n_points = (finite_targets & finite_latents.any(axis=1)[:, None]).sum(axis=0)
    return values, n_points


def _columns(
    metrics: Sequence[Metric],
    values: np.ndarray,
    used: np.ndarray,
    group: Sequence[int],
    positions: np.ndarray,
) -> list[Any]:
    """Columns of a group at the used points, prepared for each metric."""
    columns = values[:, group][used].astype("f8")
    return [metric.prepare(columns, positions) for metric in metrics]


def _row(
    metrics: Sequence[Metric],
    latents: np.ndarray,
    used: np.ndarray,
    latent: int,
    positions: np.ndarray,
    targets: Sequence[Any],
) -> np.ndarray:
    """Values `(metric, target)` of one latent and prepared targets."""
    columns = _columns(metrics, latents, used, [latent], positions)
    rows = []
    for metric, column, prepared in zip(metrics, columns, targets, strict=True):
        rows.append(metric.compare(column, prepared)[0])
    return np.stack(rows)


def same_missing(finite: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Columns grouped by their finite points: (which rows are finite, which columns)."""
    groups: dict[bytes, list[int]] = {}
    for column in range(finite.shape[1]):
        groups.setdefault(np.packbits(finite[:, column]).tobytes(), []).append(column)
    return [(finite[:, columns[0]], np.array(columns)) for columns in groups.values()]
