"""How likely an association as strong occurs by chance, in maps with similar neighbours."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from vaearr.analysis.association.correlations import polynomials
from vaearr.analysis.association.metrics import (
    ASSOCIATION,
    MIN_POINTS,
    Metric,
    apply,
    same_missing,
)
from vaearr.analysis.association.points import Points
from vaearr.analysis.association.surrogates import (
    LagTable,
    covariance_weights,
    effective_points,
    lag_table,
    semivariograms,
    surrogate_maps,
)
from vaearr.computing.progress import Progress, showing
from vaearr.config import SignificanceConfig

P_VALUE, P_ADJUSTED, N_EFFECTIVE = "p_value", "p_adjusted", "n_effective"
LOW, HIGH = "low", "high"  # ends of the confidence interval
LONG_NAMES = {
    P_VALUE: "p-value from surrogate maps",
    P_ADJUSTED: "p-value corrected over latents and metrics (max)",
    N_EFFECTIVE: "effective number of independent points",
    LOW: "lower end of the 95 % confidence interval",
    HIGH: "upper end of the 95 % confidence interval",
}
SURROGATE_MEMORY = 2**26  # bytes of surrogate maps held at once
MAX_BATCH = 64  # surrogate maps held at once
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
    see `spacing_of`.
    """
    result = {name: np.full(observed.shape, np.nan) for name in LONG_NAMES}
    is_observed = np.isfinite(observed)
    result[N_EFFECTIVE][is_observed] = 0.0  # stays where too few points are left for a test
    # points where all latents are finite; a latent that is NaN everywhere excludes no point
    is_known = np.isfinite(points.latents)
    is_empty = ~is_known.any(axis=0)
    is_complete = (is_known | is_empty).all(axis=1)
    is_used = np.isfinite(points.targets) & is_complete[:, None]
    with showing(progress, "surrogate maps") as show:
        for inside, members in same_missing(is_used):
            has_values = is_observed[..., members].any()
            if inside.sum() < MIN_POINTS or not has_values:
                continue
            latents = _latents_at(points, inside, spacing, metrics)
            for t in members.tolist():
                label = points.target_labels[t]
                seed = np.random.SeedSequence([settings.seed, zlib.crc32(label.encode())])
                target = points.targets[inside, t].astype("f8")
                tests = _test_target(latents, target, observed[..., t], settings, seed)
                for name, numbers in tests.items():
                    result[name][..., t] = numbers
                show(t + 1, len(points.target_labels), label)
    return result


def with_tests(
    table: xr.DataArray, tests: dict[str, np.ndarray], settings: SignificanceConfig
) -> xr.Dataset:
    """A table of associations with the results of `significance`."""
    ds = table.to_dataset(name=ASSOCIATION)
    for name, values in tests.items():
        ds[name] = table.dims, values, {"long_name": LONG_NAMES[name], "units": "1"}
    return ds.assign_attrs(config=settings.to_attrs(), warnings=_too_smooth(ds))


class _Latents(NamedTuple):
    """Latents at the points where they and a group of targets are finite."""

    metrics: Sequence[Metric]
    values: np.ndarray  # (n, L)
    positions: np.ndarray  # (n, d)
    columns: dict[str, np.ndarray]  # prepared, by the name of each metric with a transform
    lags: LagTable | None  # None of samples, which have no neighbours
    weights: list[np.ndarray]  # covariance weights of the latents, and of their ranks


def _latents_at(
    points: Points, inside: np.ndarray, spacing: np.ndarray | None, metrics: Sequence[Metric]
) -> _Latents:
    values = points.latents[inside].astype("f8")
    positions = points.positions[inside]
    columns = {}
    for metric in metrics:
        if metric.transform is not None:
            columns[metric.name] = metric.prepare(values, positions)
    if spacing is None:
        return _Latents(metrics, values, positions, columns, None, [])
    mask = points.inside.copy()
    mask[points.inside] = inside  # over the complete grid
    lags = lag_table(mask, spacing)
    weights = _weights(values, lags)
    return _Latents(metrics, values, positions, columns, lags, weights)


def _weights(values: np.ndarray, lags: LagTable) -> list[np.ndarray]:
    """Covariance weights of columns `(n, k)`, and of their ranks, each scaled to deviation 1."""
    from scipy.stats import rankdata

    weights = []
    for columns in (values, rankdata(values, axis=0)):
        deviation = np.maximum(columns.std(axis=0), np.finfo(float).tiny)
        standardised = (columns - columns.mean(axis=0)) / deviation
        weights.append(covariance_weights(lags, semivariograms(lags, standardised)))
    return weights


def _test_target(
    latents: _Latents,
    target: np.ndarray,
    observed: np.ndarray,
    settings: SignificanceConfig,
    seed: np.random.SeedSequence,
) -> dict[str, np.ndarray]:
    """p-values and related numbers `(metric, latent)` of one target `(n,)`."""
    effective = _effective_points(latents, target)
    effective[np.isnan(observed)] = np.nan
    low, high = _interval(observed, effective, latents.metrics)
    numbers = {N_EFFECTIVE: effective, LOW: low, HIGH: high}
    is_tested = np.isfinite(observed)
    if latents.lags is not None:
        is_tested &= effective >= MIN_EFFECTIVE
    if not is_tested.any():
        return numbers
    strength, null = _observed_and_null(latents, target, settings, seed)
    strength[~is_tested] = np.nan
    numbers[P_VALUE] = _p_values(strength, null)
    numbers[P_ADJUSTED] = np.maximum(numbers[P_VALUE], _max_p_values(strength, null))
    return numbers


def _effective_points(latents: _Latents, target: np.ndarray) -> np.ndarray:
    """Effective number of independent points (metric, latent) of each latent with a target.

    By the values, less one for each term of the trend, or by the ranks.
    """
    n_points, n_latents = latents.values.shape
    by_values = by_ranks = np.full(n_latents, float(n_points))
    if latents.lags is not None:
        values, ranks = _weights(target[:, None], latents.lags)
        by_values = effective_points(latents.lags, latents.weights[0], values)[:, 0]
        by_ranks = effective_points(latents.lags, latents.weights[1], ranks)[:, 0]
    effective = []
    for metric in latents.metrics:
        if metric.n_effective_of == "ranks":
            effective.append(by_ranks)
        else:
            n_terms = polynomials(latents.positions, metric.trend_degree).shape[1] - 1
            effective.append(np.maximum(by_values - n_terms, 0))
    return np.stack(effective)


def _interval(
    observed: np.ndarray, effective: np.ndarray, metrics: Sequence[Metric]
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % confidence interval (metric, latent) of correlations, NaN for others.

    On the scale of arctanh(r), with the effective number in place of n (Fisher, Metron 1, 3 (1921);
    for ranks Fieller, Hartley & Pearson, Biometrika 44, 470 (1957)). NaN for three effective points
    or fewer.
    """
    half_width = np.array([metric.interval for metric in metrics])[:, None]
    n_free = np.where(effective > 3, effective - 3, np.nan)
    width = half_width / np.sqrt(n_free)
    with np.errstate(all="ignore"):  # of values of other metrics beyond 1
        centre = np.arctanh(observed)
    return np.tanh(centre - width), np.tanh(centre + width)


def _observed_and_null(
    latents: _Latents,
    target: np.ndarray,
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
    surrogates = surrogate_maps(latents.lags, target, settings.n_surrogates, seed)
    maps = itertools.chain([target], surrogates)
    batch_size = max(1, min(MAX_BATCH, SURROGATE_MEMORY // target.nbytes))
    batches = []
    while batch := list(itertools.islice(maps, batch_size)):
        batches.append(_map_strengths(latents, np.column_stack(batch), points))
    strength = np.concatenate(batches)
    return strength[0], strength[1:]


def _map_strengths(latents: _Latents, maps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """|value| of signed metrics, the value of the rest, `(map, metric, latent)`, of maps `(n, k)`.

    Metrics with a transform use all points; the others use `points` and the dask scheduler in use.
    """
    shape = (len(latents.metrics), latents.values.shape[1], maps.shape[1])
    values = np.empty(shape)
    slow = []
    for i, metric in enumerate(latents.metrics):
        if metric.transform is None:
            slow.append(i)
        else:
            targets = metric.prepare(maps, latents.positions)
            values[i] = metric.compare(latents.columns[metric.name], targets)
    if slow:
        slow_metrics = [latents.metrics[i] for i in slow]
        positions = latents.positions[points]
        values[slow], _ = apply(slow_metrics, latents.values[points], maps[points], positions)
    is_signed = np.array([metric.signed for metric in latents.metrics])
    values[is_signed] = np.abs(values[is_signed])
    return np.moveaxis(values, -1, 0)


def _p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Share of the maps that are at least as strong as the observed one, itself included.

    `(metric, latent)`, from strengths `(metric, latent)` and `(surrogate, metric, latent)`.
    """
    is_weaker = null < observed - TIE * np.abs(observed)
    n_as_strong = 1 + (~is_weaker).sum(axis=0)
    share = n_as_strong / (1 + len(null))
    return np.where(np.isfinite(observed), share, np.nan)


def _max_p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """p-values against the largest of all latents and metrics in each surrogate: (metric, latent).

    They bound the chance of any false discovery, with dependent tests and few surrogates (Westfall
    & Young, Resampling-Based Multiple Testing (1993), single-step maxT). Values are first
    standardised over all maps, the observed one among them; a value that is the same in all maps
    counts as 0.
    """
    is_tested = np.isfinite(observed)
    p = np.full(observed.shape, np.nan)
    if not is_tested.any():
        return p
    values = np.concatenate([observed[None], null])[:, is_tested]
    deviation = np.nanstd(values, axis=0)
    is_same = deviation <= TIE * np.nanmax(np.abs(values), axis=0)
    offsets = values - np.nanmean(values, axis=0)
    scaled = offsets / np.where(is_same, 1.0, deviation)
    scaled[:, is_same] *= 0  # numbers become 0, NaN stays NaN
    largest = scaled[1:].max(axis=1)  # NaN where a surrogate has no value: counts as stronger
    p[is_tested] = _p_values(scaled[0], largest[:, None])
    return p


def _too_smooth(ds: xr.Dataset) -> list[str]:
    """A warning if associations were not tested because their maps are too smooth."""
    untested = ds[ASSOCIATION].notnull() & ds[P_VALUE].isnull()
    if not untested.any():
        return []
    fewest = float(ds[N_EFFECTIVE].where(untested).min())
    return [
        f"{int(untested.sum())} of {untested.size} associations get no p-value: the maps are too "
        "smooth for this test, or have values at too few points in common. They hold as few as "
        f"{fewest:.0f} independent points, and {MIN_EFFECTIVE} are needed (n_effective). Take a "
        "larger region."
    ]
