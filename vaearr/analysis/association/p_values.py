"""How likely an association as strong occurs by chance, in maps with similar neighbours."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.columns import Columns, columns_of
from vaearr.analysis.association.correlations import polynomials, ranks
from vaearr.analysis.association.metrics import (
    ASSOCIATION,
    METRIC,
    MIN_POINTS,
    Metric,
    apply,
    same_missing,
)
from vaearr.analysis.association.points import Points
from vaearr.analysis.association.surrogates import (
    Neighbourhood,
    covariance_weights,
    effective_points,
    neighbourhood,
    semivariograms,
    surrogate_maps,
)
from vaearr.computing.progress import Progress, showing
from vaearr.config import SignificanceConfig

P_VALUE, P_ADJUSTED, N_EFFECTIVE = "p_value", "p_adjusted", "n_effective"
LOW, HIGH = "low", "high"  # ends of the confidence interval
LONG_NAMES = {
    P_VALUE: "p-value from surrogate maps",
    P_ADJUSTED: "p-value corrected over latents and metrics",
    N_EFFECTIVE: "effective number of independent points",
    LOW: "lower end of the 95 % confidence interval",
    HIGH: "upper end of the 95 % confidence interval",
}
SURROGATE_MEMORY = 2**26  # bytes of surrogate maps held at once
MAX_BATCH = 64  # surrogate maps held at once
LEVEL = 0.05  # adjusted p-value of the warning about too few surrogates
MIN_EFFECTIVE = 20  # with fewer, the smoothness of a map is not known well enough for a test
TIE = 1e-12  # relative difference below which a surrogate counts as equally strong


def significance(
    points: Points,
    metrics: Sequence[Metric],
    observed: np.ndarray,
    settings: SignificanceConfig,
    spacing: np.ndarray | None,
    progress: Progress,
) -> dict[str, np.ndarray]:
    """p-values and related numbers `(metric, L, T)` by name, of observed associations.

    `association.surrogates` documents how the surrogates are made and where they fail. `spacing`:
    see `steps_of`.
    """
    result = {name: np.full(observed.shape, np.nan) for name in LONG_NAMES}
    is_finite = np.isfinite(points.targets) & np.isfinite(points.latents).any(axis=1)[:, None]
    with showing(progress, "surrogate maps") as show:
        for inside, members in same_missing(is_finite):
            if not np.isfinite(observed[..., members]).any():
                continue
            region = _region(points, inside, spacing)
            for t in members.tolist():
                label = points.target_labels[t]
                seed = np.random.SeedSequence([settings.seed, zlib.crc32(label.encode())])
                values = points.targets[inside, t].astype("f8")
                tests = _test(region, values, metrics, observed[..., t], settings, seed)
                for name, numbers in tests.items():
                    result[name][..., t] = numbers
                show(t + 1, len(points.target_labels), f"surrogate maps of {label}")
    return result


def with_tests(
    table: xr.DataArray, tests: dict[str, np.ndarray], settings: SignificanceConfig
) -> xr.Dataset:
    """A table of associations with the results of `significance`."""
    ds = table.to_dataset(name=ASSOCIATION)
    for name, values in tests.items():
        ds[name] = table.dims, values, {"long_name": LONG_NAMES[name], "units": "1"}
    ds[P_ADJUSTED].attrs["long_name"] += f" ({settings.correction})"
    warnings = [*_too_few_surrogates(ds, settings), *_too_smooth(ds)]
    return ds.assign_attrs(config=settings.to_attrs(), warnings=warnings)


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


def _test(
    region: _Region,
    target: np.ndarray,
    metrics: Sequence[Metric],
    observed: np.ndarray,
    settings: SignificanceConfig,
    seed: np.random.SeedSequence,
) -> dict[str, np.ndarray]:
    """p-values and related numbers `(metric, latent)` of one target `(n,)`."""
    effective = _effective_points(region, target, metrics)
    effective[np.isnan(observed)] = np.nan
    low, high = _intervals(observed, effective, metrics)
    numbers = {N_EFFECTIVE: effective, LOW: low, HIGH: high}
    is_tested = np.isfinite(observed)
    if region.near is not None:
        is_tested &= effective >= MIN_EFFECTIVE
    if not is_tested.any():
        return numbers
    strength, null = _strengths(region, target, metrics, settings, seed)
    strength[~is_tested] = np.nan
    p = _p_values(strength, null)
    if settings.correction == "max":
        adjusted = np.maximum(p, _max_p_values(strength, null))
    else:
        adjusted = adjust(p, settings.correction)
    return numbers | {P_VALUE: p, P_ADJUSTED: adjusted}


def _strengths(
    region: _Region,
    target: np.ndarray,
    metrics: Sequence[Metric],
    settings: SignificanceConfig,
    seed: np.random.SeedSequence,
) -> tuple[np.ndarray, np.ndarray]:
    """Strength of a target `(metric, latent)` and of its surrogates `(surrogate, metric, latent)`.

    NaN where a surrogate has no value, which counts as stronger.
    """
    points = np.arange(len(target))
    if len(points) > settings.max_points:
        rng = np.random.default_rng(seed.spawn(1)[0])
        points = rng.choice(points, settings.max_points, replace=False)
        points.sort()
    null = []
    surrogates = surrogate_maps(region.near, target, settings.n_surrogates, seed)
    batch_size = max(1, min(MAX_BATCH, SURROGATE_MEMORY // (8 * len(target))))
    while batch := list(itertools.islice(surrogates, batch_size)):
        null.append(_strength(region, np.column_stack(batch), metrics, points))
    return _strength(region, target[:, None], metrics, points)[0], np.concatenate(null)


def _strength(
    region: _Region, maps: np.ndarray, metrics: Sequence[Metric], points: np.ndarray
) -> np.ndarray:
    """|value| of signed metrics, the value of others, `(map, metric, latent)`, of maps `(n, k)`.

    Fast metrics use all points; the others use `points` and the dask scheduler in use.
    """
    values = np.full((len(metrics), region.latents.shape[1], maps.shape[1]), np.nan)
    slow = []
    for i, metric in enumerate(metrics):
        if not metric.is_fast:
            slow.append(i)
    for group in region.groups:
        columns = columns_of(maps[group.keep], group.latents.positions)
        for i, metric in enumerate(metrics):
            if metric.is_fast:
                values[i, group.members] = metric.kernel(group.latents, columns)
    if slow:
        slow_metrics = [metrics[i] for i in slow]
        values[slow] = apply(
            slow_metrics, region.latents[points], maps[points], region.positions[points]
        )[0]
    signed = np.array([metric.signed for metric in metrics])
    values[signed] = np.abs(values[signed])
    return np.moveaxis(values, -1, 0)


def _p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Share of the maps, the observed one among them, that are at least as strong: (metric,
    latent).
    """
    hits = (~(null < observed - TIE * np.abs(observed))).sum(axis=0)
    return np.where(np.isfinite(observed), (1 + hits) / (1 + len(null)), np.nan)


def _max_p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """p-values against the largest of all latents and metrics in each surrogate: (metric, latent).

    They bound the chance of any false discovery, with dependent tests and few surrogates (Westfall
    & Young, Resampling-Based Multiple Testing (1993), single-step maxT). Values are first
    standardised over all maps, the observed one among them; a value that is the same in all maps
    counts as 0.
    """
    known = np.isfinite(observed)
    values = np.concatenate([null[:, known], observed[known][None]])
    deviation = np.nanstd(values, axis=0)
    is_same = deviation <= TIE * np.nanmax(np.abs(values), axis=0)
    scaled = (values - np.nanmean(values, axis=0)) / np.where(is_same, 1.0, deviation)
    scaled[:, is_same] *= 0
    largest = scaled[:-1].max(axis=1)  # NaN where a surrogate has no value: counts as stronger
    p = np.full(observed.shape, np.nan)
    p[known] = _p_values(scaled[-1], largest[:, None])
    return p


def _effective_points(region: _Region, target: np.ndarray, metrics: Sequence[Metric]) -> np.ndarray:
    """Effective number of independent points (metric, latent) of each latent with a target.

    By the values, less one for each term of the trend, or by the ranks.
    """
    by_values, by_ranks = np.full((2, region.latents.shape[1]), np.nan)
    for group in region.groups:
        column = columns_of(target[group.keep, None])
        by_values[group.members] = _effective(group, column, by_ranks=False)
        by_ranks[group.members] = _effective(group, column, by_ranks=True)
    effective = np.empty((len(metrics), len(by_values)))
    positions = columns_of(region.positions)
    for i, metric in enumerate(metrics):
        if metric.trend_degree is None:
            effective[i] = by_ranks
        else:
            n_terms = polynomials(positions, metric.trend_degree).shape[1] - 1
            effective[i] = np.maximum(by_values - n_terms, 0)
    return effective


def _effective(group: _Group, target: Columns, *, by_ranks: bool) -> np.ndarray:
    """Effective sample size of each latent of a group with a target."""
    if group.near is None:
        return np.full(group.latents.k, float(target.n))
    latents = group.latents.cached(_weights, group.near, by_ranks)
    return effective_points(group.near, latents, _weights(target, group.near, by_ranks))[:, 0]


def _weights(columns: Columns, near: Neighbourhood, by_ranks: bool) -> np.ndarray:
    """Covariance weights of columns, each scaled to deviation 1."""
    values = ranks(columns) if by_ranks else columns.values
    deviation = np.maximum(values.std(axis=0), np.finfo(float).tiny)
    standardised = (values - values.mean(axis=0)) / deviation
    return covariance_weights(near, semivariograms(near, standardised))


def _intervals(
    observed: np.ndarray, effective: np.ndarray, metrics: Sequence[Metric]
) -> np.ndarray:
    """95 % confidence intervals (2, metric, latent) of correlations; NaN for other metrics.

    On the scale of arctanh(r), with the effective number in place of n (Fisher, Metron 1, 3 (1921);
    for ranks Fieller, Hartley & Pearson, Biometrika 44, 470 (1957)). NaN for three effective points
    or fewer.
    """
    ends = np.full((2, *observed.shape), np.nan)
    for i, metric in enumerate(metrics):
        if metric.interval is None:
            continue
        width = metric.interval / np.sqrt(np.where(effective[i] > 3, effective[i] - 3, np.nan))
        with np.errstate(divide="ignore"):
            centre = np.arctanh(observed[i])
        ends[0, i] = np.tanh(centre - width)
        ends[1, i] = np.tanh(centre + width)
    return ends


def _too_few_surrogates(ds: xr.Dataset, settings: SignificanceConfig) -> list[str]:
    """A warning if the smallest adjusted p-value of one strong association is above LEVEL."""
    n_tests = int(ds[P_VALUE].notnull().sum(dim=[METRIC, n.LATENT]).max())
    factor = 1.0
    if settings.correction == "fdr":
        factor = n_tests * float(np.sum(1 / np.arange(1, n_tests + 1)))
    elif settings.correction == "holm":
        factor = float(n_tests)
    smallest = factor / (1 + settings.n_surrogates)
    if smallest <= LEVEL:
        return []
    return [
        f"with {settings.n_surrogates} surrogates a single association among {n_tests} cannot get "
        f"an adjusted p-value below {min(smallest, 1.0):.2g}: use {int(np.ceil(factor / LEVEL))} "
        "surrogates, fewer metrics or latents, or another correction."
    ]


def _too_smooth(ds: xr.Dataset) -> list[str]:
    """A warning if associations were not tested because their maps are too smooth."""
    untested = ds[ASSOCIATION].notnull() & ds[P_VALUE].isnull()
    if not untested.any():
        return []
    fewest = float(ds[N_EFFECTIVE].where(untested).min())
    return [
        f"{int(untested.sum())} of {untested.size} associations get no p-value: the maps are too "
        f"smooth for this test. They hold as few as {fewest:.0f} independent points, and "
        f"{MIN_EFFECTIVE} are needed (n_effective). Take a larger region."
    ]
