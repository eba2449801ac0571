"""How likely an association as strong comes about by chance, in maps whose neighbours are alike."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.columns import Columns, columns_of
from vaearr.analysis.association.correlations import polynomials, ranks
from vaearr.analysis.association.metrics import MIN_POINTS, Metric, apply, choose, same_missing
from vaearr.analysis.association.surrogates import (
    Neighbourhood,
    covariance_weights,
    effective_points,
    field_surrogates,
    neighbourhood,
    semivariograms,
)
from vaearr.analysis.association.table import (
    ASSOCIATION,
    METRIC,
    Metrics,
    Points,
    associate,
    gather,
    latent_dims,
)
from vaearr.analysis.association.targets import stacked
from vaearr.computing.progress import Progress, showing, showing_tasks
from vaearr.config import SignificanceConfig
from vaearr.schema.grid import align_samples

P_VALUE, P_ADJUSTED, N_EFFECTIVE = "p_value", "p_adjusted", "n_effective"
LOW, HIGH = "low", "high"  # ends of the confidence interval
WORDS = {
    P_VALUE: "p-value from surrogate maps",
    P_ADJUSTED: "p-value corrected over latents and metrics",
    N_EFFECTIVE: "effective number of independent points",
    LOW: "lower end of the 95 % confidence interval",
    HIGH: "upper end of the 95 % confidence interval",
}
PEARSON, SPEARMAN = "pearson", "spearman"
HALF_WIDTH = {
    PEARSON: 1.96,
    SPEARMAN: 1.96 * 1.06**0.5,
}  # of arctanh(r), for one effective point above three
TREND_DEGREE = {"partial_pearson": 1, "partial_pearson_2": 2, "partial_pearson_3": 3}
MATRIX_PRODUCTS = (PEARSON, SPEARMAN, *TREND_DEGREE)
SURROGATE_MEMORY = 2**26  # bytes of surrogate maps held at once
LEVEL = 0.05  # adjusted p-values that the warning about too few surrogates speaks of
MIN_EFFECTIVE = 20  # below it the smoothness of a map is not known well enough for a test (tests/benchmarks/test_calibration.py)
TIE = 1e-12  # relative difference below which a surrogate counts as equally strong


def significance(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    metrics: Metrics,
    roi: xr.DataArray | None,
    settings: SignificanceConfig,
    *,
    progress: Progress = False,
) -> xr.Dataset:
    """`associate` with p-values; `association.surrogates` says how the surrogates are made and
    where they fail.
    """
    import dask

    latents, target, roi = dask.compute(latents, target, roi)  # read once, together
    target = align_samples(latents, target, "the target")
    with showing_tasks(progress, "comparing"):
        table = associate(latents, target, metrics, roi)
    chosen, dims = choose(metrics), latent_dims(latents)[1]
    points = gather(latents, stacked(target, dims), roi)
    spacing = None if n.SAMPLE in dims else np.array([step_of(latents, dim) for dim in dims])
    observed = table.values.reshape(len(chosen), len(points.entries), len(points.labels))
    found = {name: np.full(observed.shape, np.nan) for name in WORDS}
    is_finite = np.isfinite(points.targets) & np.isfinite(points.latents).any(axis=1)[:, None]
    with showing(progress, "surrogate maps") as show:
        for inside, members in same_missing(is_finite):
            if not np.isfinite(observed[..., members]).any():
                continue
            region = _region(points, inside, spacing)
            for t in members.tolist():
                seed = np.random.SeedSequence(
                    [settings.seed, zlib.crc32(points.labels[t].encode())]
                )
                target_values = points.targets[inside, t].astype("f8")
                numbers = _significance_of(
                    region, target_values, chosen, observed[..., t], settings, seed
                )
                for name, values in numbers.items():
                    found[name][..., t] = values
                show(t + 1, len(points.labels), f"surrogate maps of {points.labels[t]}")
    ds = table.to_dataset(name=ASSOCIATION)
    for name, values in found.items():
        ds[name] = (
            table.dims,
            values.reshape(table.shape),
            {"long_name": WORDS[name], "units": "1"},
        )
    ds[P_ADJUSTED].attrs["long_name"] += f" ({settings.correction})"
    return ds.assign_attrs(config=settings.to_attrs(), warnings=_warnings(ds, settings))


def adjust(p: np.ndarray, correction: str) -> np.ndarray:
    """p-values of any shape corrected for their number, NaN left out of it.

    `fdr`: Benjamini & Yekutieli, Ann. Stat. 29, 1165 (2001), doi:10.1214/aos/1013699998, the false
    discovery rate whatever the dependence of the tests. `holm`: Holm, Scand. J. Stat. 6, 65 (1979),
    the chance of any false discovery. `none`: as they are.
    """
    from scipy.stats import false_discovery_control

    known = np.isfinite(p)
    values = p[known]
    if correction == "fdr" and values.size:
        values = false_discovery_control(values, method="by")
    elif correction == "holm":
        order = np.argsort(values, kind="stable")
        steps = values[order] * np.arange(values.size, 0, -1)
        values[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    adjusted = np.full(p.shape, np.nan)
    adjusted[known] = values
    return adjusted


def step_of(latents: xr.DataArray, dim: str) -> float:
    """Distance of neighbours along a dim; 1 where it has no numeric coordinate."""
    if dim not in latents.coords or latents[dim].dtype.kind not in "iuf" or latents.sizes[dim] < 2:
        return 1.0
    return float(np.median(np.abs(np.diff(latents[dim].values.astype("f8"))))) or 1.0


@dataclass(frozen=True, eq=False)
class _Group:
    """Latents of a region that are finite at the same points of it."""

    keep: np.ndarray  # (n,) which points of the region
    members: np.ndarray  # which latents
    latents: Columns
    near: Neighbourhood | None  # of these points; None of samples, which have no neighbours


@dataclass(frozen=True, eq=False)
class _Region:
    """Points where a target and some latent are finite; serves all targets that are finite there."""

    latents: np.ndarray  # (n, L)
    positions: np.ndarray  # (n, d)
    near: Neighbourhood | None
    groups: list[_Group]


def _region(points: Points, inside: np.ndarray, spacing: np.ndarray | None) -> _Region:
    latents, positions = points.latents[inside], points.positions[inside]
    near = _near(points, inside, spacing)
    groups = []
    for keep, members in same_missing(np.isfinite(latents)):
        if keep.sum() < MIN_POINTS:
            continue
        columns = columns_of(latents[keep][:, members], columns_of(positions[keep]))
        near_group = near
        if not keep.all():
            kept = inside.copy()
            kept[inside] = keep
            near_group = _near(points, kept, spacing)
        groups.append(_Group(keep, members, columns, near_group))
    return _Region(latents, positions, near, groups)


def _near(points: Points, inside: np.ndarray, spacing: np.ndarray | None) -> Neighbourhood | None:
    if spacing is None or not inside.any():
        return None
    mask = points.inside.copy()
    mask[mask] = inside
    return neighbourhood(mask, spacing)


def _significance_of(
    region: _Region,
    target: np.ndarray,
    chosen: Sequence[Metric],
    observed: np.ndarray,
    settings: SignificanceConfig,
    seed: np.random.SeedSequence,
) -> dict[str, np.ndarray]:
    """p-values and what belongs to them of one target `(n,)`: arrays (metric, latent) by name."""
    effective = _effective_points(region, target, chosen)
    effective[np.isnan(observed)] = np.nan
    low, high = _intervals(observed, effective, chosen)
    numbers = {N_EFFECTIVE: effective, LOW: low, HIGH: high}
    is_tested = np.isfinite(observed)
    if region.near is not None:
        is_tested &= effective >= MIN_EFFECTIVE
    if not is_tested.any():
        return numbers
    strength, null = _strengths(region, target, chosen, settings, seed)
    strength[~is_tested] = np.nan
    p = _p_values(strength, null)
    if settings.correction == "max":
        adjusted = np.maximum(p, _of_the_largest(strength, null))
    else:
        adjusted = adjust(p, settings.correction)
    return numbers | {P_VALUE: p, P_ADJUSTED: adjusted}


def _strengths(
    region: _Region,
    target: np.ndarray,
    chosen: Sequence[Metric],
    settings: SignificanceConfig,
    seed: np.random.SeedSequence,
) -> tuple[np.ndarray, np.ndarray]:
    """Strength of a target, (metric, latent), and of each of its surrogates, (surrogate, metric,
    latent).

    NaN where a surrogate has none, which counts as stronger. What is a product of matrices is
    computed here, the other metrics at some of the points, by the scheduler in use.
    """
    some = np.arange(len(target))
    if len(some) > settings.max_points:
        some = np.random.default_rng(seed.spawn(1)[0]).choice(
            some, settings.max_points, replace=False
        )
        some.sort()
    is_quick = np.array([item.name in MATRIX_PRODUCTS for item in chosen])
    slow = [item for item in chosen if item.name not in MATRIX_PRODUCTS]
    signed = np.array([item.signed for item in chosen])

    def strength_of(maps: np.ndarray) -> np.ndarray:
        """|value| of signed metrics, the value of others, (map, metric, latent), of maps (n, k)."""
        values = np.full((len(chosen), region.latents.shape[1], maps.shape[1]), np.nan)
        if is_quick.any():
            for group in region.groups:
                columns = columns_of(maps[group.keep], group.latents.positions)
                for i in np.flatnonzero(is_quick).tolist():
                    values[i, group.members] = chosen[i].kernel(group.latents, columns)
        if slow:
            values[~is_quick] = apply(
                slow, region.latents[some], maps[some], region.positions[some]
            )[0]
        values[signed] = np.abs(values[signed])
        return np.moveaxis(values, -1, 0)

    surrogates = _surrogates(region, target, settings.n_surrogates, seed)
    null = np.concatenate([strength_of(batch) for batch in _batches(surrogates, len(target))])
    return strength_of(target[:, None])[0], null


def _p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Share of the maps, the observed one among them, that are at least as strong: (metric,
    latent).
    """
    hits = (~(null < observed - TIE * np.abs(observed))).sum(axis=0)
    return np.where(np.isfinite(observed), (1 + hits) / (1 + len(null)), np.nan)


def _of_the_largest(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """p-values against the largest of all latents and metrics in each surrogate: (metric, latent).

    The chance of any false discovery, with dependent tests and few surrogates (Westfall & Young,
    Resampling-Based Multiple Testing (1993), single-step maxT). Values are first brought to one
    scale, by their mean and deviation over all maps, the observed one among them. One that is the
    same in all maps counts for nothing.
    """
    known = np.isfinite(observed)
    every = np.concatenate([null[:, known], observed[known][None]])
    deviation = np.nanstd(every, axis=0)
    is_same = deviation <= TIE * np.nanmax(np.abs(every), axis=0)
    scaled = (every - np.nanmean(every, axis=0)) / np.where(is_same, 1.0, deviation)
    scaled[:, is_same] *= 0
    largest = scaled[:-1].max(
        axis=1
    )  # NaN where a surrogate has no value, which counts as stronger
    p = np.full(observed.shape, np.nan)
    p[known] = _p_values(scaled[-1], largest[:, None])
    return p


def _surrogates(
    region: _Region, target: np.ndarray, count: int, seed: np.random.SeedSequence
) -> Iterator[np.ndarray]:
    if region.near is not None:
        return field_surrogates(region.near, target, count, seed)
    rng = np.random.default_rng(seed)
    return (rng.permutation(target) for _ in range(count))


def _batches(surrogates: Iterator[np.ndarray], n_points: int) -> Iterator[np.ndarray]:
    """Surrogates as columns (n, some), so many that they fit in SURROGATE_MEMORY."""
    size = max(1, min(64, SURROGATE_MEMORY // (8 * n_points)))
    while batch := list(itertools.islice(surrogates, size)):
        yield np.column_stack(batch)


def _effective_points(region: _Region, target: np.ndarray, chosen: Sequence[Metric]) -> np.ndarray:
    """Effective number of independent points (metric, latent) of each latent with a target.

    That of Pearson's correlation by the values, less one for each term of a trend that is taken
    off; that of all other metrics by the ranks.
    """
    by_values, by_ranks = np.full((2, region.latents.shape[1]), np.nan)
    for group in region.groups:
        column = columns_of(target[group.keep, None])
        by_values[group.members] = _effective(group, column, by_ranks=False)
        by_ranks[group.members] = _effective(group, column, by_ranks=True)
    effective = np.empty((len(chosen), len(by_values)))
    for i, item in enumerate(chosen):
        if item.name in TREND_DEGREE:
            trend = polynomials(columns_of(region.positions), TREND_DEGREE[item.name])
            effective[i] = np.maximum(by_values - (trend.shape[1] - 1), 0)
        else:
            effective[i] = by_values if item.name == PEARSON else by_ranks
    return effective


def _effective(group: _Group, target: Columns, *, by_ranks: bool) -> np.ndarray:
    """Effective sample size of the correlation of each latent of a group with a target, by values
    or by ranks.
    """
    if group.near is None:
        return np.full(group.latents.k, float(target.n))
    first = group.latents.made(_weights, group.near, by_ranks)
    return effective_points(group.near, first, _weights(target, group.near, by_ranks))[:, 0]


def _weights(columns: Columns, near: Neighbourhood, by_ranks: bool) -> np.ndarray:
    """Covariance weights of columns, each to deviation 1."""
    values = ranks(columns) if by_ranks else columns.values
    deviation = np.maximum(values.std(axis=0), np.finfo(float).tiny)
    return covariance_weights(
        near, semivariograms(near, (values - values.mean(axis=0)) / deviation)
    )


def _intervals(observed: np.ndarray, effective: np.ndarray, chosen: Sequence[Metric]) -> np.ndarray:
    """95 % confidence intervals (2, metric, latent) of correlations; NaN of other metrics, and for
    so few points.

    On the scale of arctanh(r), with the effective number in the place of n (Fisher, Metron 1, 3
    (1921); for ranks Fieller, Hartley & Pearson, Biometrika 44, 470 (1957)). NaN where three
    effective points or fewer are left.
    """
    ends = np.full((2, *observed.shape), np.nan)
    for i, item in enumerate(chosen):
        if item.name in HALF_WIDTH:
            width = HALF_WIDTH[item.name] / np.sqrt(
                np.where(effective[i] > 3, effective[i] - 3, np.nan)
            )
            with np.errstate(divide="ignore"):
                centre = np.arctanh(observed[i])
            ends[:, i] = np.tanh(centre - width), np.tanh(centre + width)
    return ends


def _warnings(ds: xr.Dataset, settings: SignificanceConfig) -> list[str]:
    found = []
    m = int(ds[P_VALUE].notnull().sum(dim=[METRIC, n.LATENT]).max())
    factor = {"fdr": m * float(np.sum(1 / np.arange(1, m + 1))), "holm": float(m)}.get(
        settings.correction, 1.0
    )
    least = factor / (1 + settings.n_surrogates)
    if least > LEVEL:
        found.append(
            f"with {settings.n_surrogates} surrogates a single association among {m} cannot get an adjusted p-value "
            f"below {min(least, 1.0):.2g}: use {int(np.ceil(factor / LEVEL))} surrogates, fewer metrics or latents, or "
            f"another correction."
        )
    too_smooth = ds[ASSOCIATION].notnull() & ds[P_VALUE].isnull()
    if too_smooth.any():
        fewest = float(ds[N_EFFECTIVE].where(too_smooth).min())
        found.append(
            f"{int(too_smooth.sum())} of {too_smooth.size} associations get no p-value: the maps are too smooth for "
            f"this test. They hold as few as {fewest:.0f} independent points, and {MIN_EFFECTIVE} are "
            "needed (n_effective). Take a larger region."
        )
    return found
