"""How likely an association as strong comes about by chance, in maps whose neighbours are alike."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.columns import Columns, columns_of
from vaearr.analysis.association.correlations import average_ranks, polynomials
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
from vaearr.errors import UsageError, did_you_mean
from vaearr.schema.grid import align_samples

P_VALUE, P_ADJUSTED, P_NAIVE, N_EFFECTIVE = "p_value", "p_adjusted", "p_naive", "n_effective"
LOW, HIGH = "low", "high"  # ends of the confidence interval
WORDS = {
    P_VALUE: "p-value from surrogate maps",
    P_ADJUSTED: "p-value corrected over latents and metrics",
    N_EFFECTIVE: "effective number of independent points",
    LOW: "lower end of the 95 % confidence interval",
    HIGH: "upper end of the 95 % confidence interval",
    P_NAIVE: "p-value as if points were independent, for comparison only",
}
PEARSON, SPEARMAN = "pearson", "spearman"
HALF_WIDTH = {PEARSON: 1.96, SPEARMAN: 1.96 * 1.06**0.5}  # of arctanh(r), for one effective point above three
TREND_DEGREE = {"partial_pearson": 1, "partial_pearson_2": 2, "partial_pearson_3": 3}
CORRECTIONS = ("fdr", "holm", "none")  # of p-values alone; "max" needs the surrogates
MATRIX_PRODUCTS = (PEARSON, SPEARMAN, *TREND_DEGREE)
SURROGATE_MEMORY = 2**26  # bytes of surrogate maps held at once
LEVEL = 0.05  # adjusted p-values that the warning about too few surrogates speaks of
MIN_EFFECTIVE = (
    20  # below it the smoothness of a map is not known well enough for a test (tests/benchmarks/test_calibration.py)
)
TIE = 1e-12  # relative difference below which a surrogate counts as equally strong


def significance(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    metrics: Metrics = "all",
    roi: xr.DataArray | None = None,
    config: SignificanceConfig | None = None,
    *,
    progress: Progress = False,
) -> xr.Dataset:
    """Associations with p-values that hold for maps: `association`, `p_value`, `p_adjusted` and more.

    Null hypothesis: the target is a random map, as smooth and as distributed as it is, drawn without regard to the
    latents. `p_value` = (1 + number of surrogate maps with a value >= the observed) / (1 + n_surrogates) (Davison &
    Hinkley, Bootstrap Methods and their Application (1997), ch. 4); of signed metrics, absolute values are compared.
    The surrogates of a target serve all latents and metrics; `association.surrogates` says how they are made and where
    they fail.

    Parameters
    ----------
    latents, target, metrics, roi
        As for `associate`. Surrogates are made of the points where the target and at least one latent are finite.
    config
        Number of surrogates, correction and seed; default SignificanceConfig(). Surrogates are random fields with the
        map's own autocovariance. The samples of a collection have no neighbours: their values are permuted.
        `association` is of all points. Metrics other than Pearson, Spearman and the partial forms are slow, so they are
        tested at no more than `max_points` points: the test is as valid, and the weaker the fewer they are.

    Returns
    -------
    xr.Dataset
        Over (metric, latent[, target]), NaN where the association is. `p_adjusted` is corrected over latents and
        metrics, target by target, see SignificanceConfig. `n_effective`: the number of independent points that would
        let r vary as much under the null, from the fitted autocovariances, see `surrogates.effective_points`: of values
        for pearson, less the terms of the trend for its partial forms, of ranks for all other metrics. Where it is
        below 20, the maps are too smooth to be tested: `p_value` and `p_adjusted` are NaN, and `warnings` says so.
        `low` and `high`, for pearson and spearman: ends of a 95 % confidence interval with that number of points.
        `p_naive`, for the same: Student's t test as if points were independent, for comparison only. attrs: `config`,
        and `warnings`, a list of sentences.

    Raises what `associate` raises.
    """
    import dask

    settings = config or SignificanceConfig()
    latents, target, roi = dask.compute(latents, target, roi)  # read once, together
    target = align_samples(latents, target, "the target")
    with showing_tasks(progress, "comparing"):
        table = associate(latents, target, metrics, roi)
    chosen, dims = choose(metrics), latent_dims(latents)[1]
    points = gather(latents, stacked(target, dims), roi)
    maps = _Maps(points, np.array([step_of(latents, dim) for dim in dims]), n.SAMPLE not in dims)
    observed = table.values.reshape(len(chosen), len(points.entries), len(points.labels))
    found = {name: np.full(observed.shape, np.nan) for name in WORDS}
    known = np.flatnonzero(np.isfinite(observed).any(axis=(0, 1))).tolist()
    total, by_max = len(known) * settings.n_surrogates, settings.correction == "max"
    with showing(progress, "surrogate maps") as show:
        for i, t in enumerate(known):
            before, text = i * settings.n_surrogates, f"surrogate maps of {points.labels[t]}"

            def tell(done: int, before: int = before, text: str = text) -> None:
                show(before + done, total, text)

            effective = _effective_points(maps, t, chosen)
            found[N_EFFECTIVE][..., t] = np.where(np.isfinite(observed[..., t]), effective, np.nan)
            _add_intervals(maps, t, chosen, observed[..., t], found)
            is_tested = np.isfinite(observed[..., t])
            if maps.has_neighbours:
                is_tested &= effective >= MIN_EFFECTIVE
            if not is_tested.any():
                continue
            strength, null = _tested(maps, t, chosen, observed[..., t], settings, tell)
            strength[~is_tested] = np.nan
            p = _p_values(strength, null)
            found[P_VALUE][..., t] = p
            if by_max:
                found[P_ADJUSTED][..., t] = np.maximum(p, _of_the_largest(strength, null))
            else:
                found[P_ADJUSTED][..., t] = adjust(p, settings.correction)
    ds = table.to_dataset(name=ASSOCIATION)
    for name, values in found.items():
        ds[name] = (table.dims, values.reshape(table.shape), {"long_name": WORDS[name], "units": "1"})
    ds[P_ADJUSTED].attrs["long_name"] += f" ({settings.correction})"
    return ds.assign_attrs(config=settings.to_attrs(), warnings=_warnings(ds, settings))


def adjust(p: np.ndarray, correction: str) -> np.ndarray:
    """p-values of any shape corrected for their number, NaN left out of it.

    `fdr`: Benjamini & Yekutieli, Ann. Stat. 29, 1165 (2001), doi:10.1214/aos/1013699998, the false discovery rate
    whatever the dependence of the tests. `holm`: Holm, Scand. J. Stat. 6, 65 (1979), the chance of any false
    discovery. `none`: as they are. Raises UsageError for another word.
    """
    from scipy.stats import false_discovery_control

    if correction not in CORRECTIONS:
        raise UsageError(f"no correction is named {correction!r}.{did_you_mean(correction, list(CORRECTIONS))}")
    known = np.isfinite(p)
    given = p[known]
    adjusted = np.full(p.shape, np.nan)
    if correction == "fdr" and given.size:
        given = false_discovery_control(given, method="by")
    elif correction == "holm":
        order = np.argsort(given, kind="stable")
        steps = np.maximum.accumulate(given[order] * np.arange(given.size, 0, -1))
        given = np.empty_like(given)
        given[order] = np.minimum(steps, 1.0)
    adjusted[known] = given
    return adjusted


@dataclass(frozen=True, eq=False)
class _Maps:
    """The points, the distance of neighbours along each axis of the grid, and what serves several targets."""

    points: Points
    spacing: np.ndarray
    has_neighbours: bool
    _near: dict[bytes, Neighbourhood] = field(default_factory=dict, repr=False)
    _weights: dict[tuple[bytes, str], np.ndarray] = field(default_factory=dict, repr=False)

    def near(self, inside: np.ndarray) -> Neighbourhood:
        """Neighbourhood of the points `inside` (n,), made once for each such set."""
        key = np.packbits(inside).tobytes()
        if key not in self._near:
            mask = self.points.inside.copy()
            mask[mask] = inside
            self._near[key] = neighbourhood(mask, self.spacing)
        return self._near[key]

    def effective(self, inside: np.ndarray, latents: np.ndarray, target: np.ndarray, kind: str) -> np.ndarray:
        """Effective sample size (L,) of the correlation of latents (n, L) with a target (n, 1), both of one `kind`."""
        if not self.has_neighbours:
            return np.full(latents.shape[1], float(len(target)))
        near, key = self.near(inside), (np.packbits(inside).tobytes(), kind)
        if key not in self._weights:  # the latents are the same for each target with these points
            self._weights[key] = _weights(near, latents)
        return effective_points(near, self._weights[key], _weights(near, target))[:, 0]


def step_of(latents: xr.DataArray, dim: str) -> float:
    """Distance of neighbours along a dim; 1 where it has no numeric coordinate."""
    if dim not in latents.coords or latents[dim].dtype.kind not in "iuf" or latents.sizes[dim] < 2:
        return 1.0
    return float(np.median(np.abs(np.diff(latents[dim].values.astype("f8"))))) or 1.0


def _tested(
    maps: _Maps,
    t: int,
    chosen: Sequence[Metric],
    observed: np.ndarray,
    settings: SignificanceConfig,
    tell: Callable[[int], object],
) -> tuple[np.ndarray, np.ndarray]:
    """Strength of a target, (metric, latent), and of each of its surrogates, (surrogate, metric, latent); `tell` is
    told how many are done.

    Infinite where a surrogate has none. What is a product of matrices is made here, the other metrics at some of the
    points, by the scheduler in use, also that of a cluster.
    """
    points, shape = maps.points, (len(chosen), len(maps.points.entries))
    inside = np.isfinite(points.targets[:, t]) & np.isfinite(points.latents).any(axis=1)
    seed = np.random.SeedSequence([settings.seed, zlib.crc32(points.labels[t].encode())])  # whatever others there are
    quick = [i for i, item in enumerate(chosen) if item.name in MATRIX_PRODUCTS]
    slow = [i for i, item in enumerate(chosen) if item.name not in MATRIX_PRODUCTS]
    latents, positions = points.latents[inside], points.positions[inside]
    groups = _same_points(latents, positions) if quick else []
    some = np.arange(len(latents))
    if slow and len(some) > settings.max_points:
        some = np.sort(np.random.default_rng(seed.spawn(1)[0]).choice(some, settings.max_points, replace=False))
        mine = points.targets[inside, t][some, None]
        observed = observed.copy()
        observed[slow] = apply([chosen[i] for i in slow], latents[some], mine, positions[some])[0][..., 0]
    null, done = np.empty((settings.n_surrogates, *shape)), 0
    for batch in _batches(_surrogates(maps, t, inside, settings, seed), int(inside.sum())):
        values = np.full((*shape, batch.shape[1]), np.nan)
        for keep, members, own, where in groups:
            drawn = columns_of(batch[keep], where)
            for i in quick:
                values[i, members] = chosen[i].kernel(own, drawn)
        if slow:
            values[slow] = apply([chosen[i] for i in slow], latents[some], batch[some], positions[some])[0]
        null[done : done + batch.shape[1]] = np.moveaxis(_strength(values, chosen), -1, 0)
        done += batch.shape[1]
        tell(done)
    return _strength(observed, chosen), np.where(np.isfinite(null), null, np.inf)


def _strength(values: np.ndarray, chosen: Sequence[Metric]) -> np.ndarray:
    """What is compared: |value| of signed metrics, the value of others, (metric, ...)."""
    signed = np.array([item.signed for item in chosen]).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(signed, np.abs(values), values)


def _p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Share of the maps, the observed one among them, that are at least as strong: (metric, latent)."""
    hits = (null >= observed - TIE * np.abs(observed)).sum(axis=0)
    return np.where(np.isfinite(observed), (1 + hits) / (1 + len(null)), np.nan)


def _of_the_largest(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """p-values against the largest of all latents and metrics in each surrogate: (metric, latent).

    The chance of any false discovery, with dependent tests and few surrogates (Westfall & Young, Resampling-Based
    Multiple Testing (1993), single-step maxT). Values are first brought to one scale, by their mean and deviation over
    all maps, the observed one among them. One that is the same in all maps counts for nothing.
    """
    known = np.isfinite(observed)
    if not known.any():
        return np.full(observed.shape, np.nan)
    every = np.concatenate([null[:, known], observed[known][None]])
    finite = np.where(np.isfinite(every), every, np.nan)
    deviation = np.nanstd(finite, axis=0)
    still = deviation <= TIE * np.nanmax(np.abs(finite), axis=0)
    scaled = (every - np.nanmean(finite, axis=0)) / np.where(still, 1.0, deviation)
    scaled[:, still] = np.where(np.isfinite(every[:, still]), 0.0, np.inf)
    largest = scaled[:-1].max(axis=1)
    hits = (largest[:, None] >= scaled[-1] - TIE * np.abs(scaled[-1])).sum(axis=0)
    p = np.full(observed.shape, np.nan)
    p[known] = (1 + hits) / (1 + len(null))
    return p


def _same_points(latents: np.ndarray, positions: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, Columns, Columns]]:
    """Latents by the points they are finite at: these points, which latents, their columns, the positions."""
    groups = []
    for keep, members in same_missing(np.isfinite(latents)):
        if keep.sum() >= MIN_POINTS:
            where = columns_of(positions[keep])
            groups.append((keep, members, columns_of(latents[keep][:, members], where), where))
    return groups


def _surrogates(
    maps: _Maps, t: int, inside: np.ndarray, settings: SignificanceConfig, seed: np.random.SeedSequence
) -> Iterator[np.ndarray]:
    values = maps.points.targets[inside, t].astype("f8")
    if not maps.has_neighbours:
        rng = np.random.default_rng(seed)
        return (rng.permutation(values) for _ in range(settings.n_surrogates))
    return field_surrogates(maps.near(inside), values, settings.n_surrogates, seed)


def _batches(surrogates: Iterator[np.ndarray], n_points: int) -> Iterator[np.ndarray]:
    """Surrogates as columns (n, some), so many that they fit in SURROGATE_MEMORY."""
    size = max(1, min(64, SURROGATE_MEMORY // (8 * n_points)))
    while batch := list(itertools.islice(surrogates, size)):
        yield np.column_stack(batch)


def _effective_points(maps: _Maps, t: int, chosen: Sequence[Metric]) -> np.ndarray:
    """Effective number of independent points (metric, latent) of each latent with a target.

    That of Pearson's correlation by the values, less one for each term of a trend that is taken off; that of all
    other metrics by the ranks.
    """
    points = maps.points
    known = np.isfinite(points.targets[:, t])
    by_values, by_ranks = np.full((2, points.latents.shape[1]), np.nan)
    for keep, members, latents, _ in _same_points(points.latents[known], points.positions[known]):
        inside = known.copy()
        inside[known] = keep
        target = columns_of(points.targets[inside, t : t + 1])
        by_values[members] = maps.effective(inside, latents.values, target.values, PEARSON)
        by_ranks[members] = maps.effective(inside, average_ranks(latents), average_ranks(target), SPEARMAN)
    effective = np.empty((len(chosen), len(by_values)))
    for i, item in enumerate(chosen):
        if item.name in TREND_DEGREE:
            trend = polynomials(columns_of(points.positions[known]), TREND_DEGREE[item.name])
            effective[i] = np.maximum(by_values - (trend.shape[1] - 1), 0)
        else:
            effective[i] = by_values if item.name == PEARSON else by_ranks
    return effective


def _add_intervals(
    maps: _Maps, t: int, chosen: Sequence[Metric], observed: np.ndarray, found: dict[str, np.ndarray]
) -> None:
    """Fill in `low`, `high` and `p_naive` of one target, for the metrics that have them."""
    from scipy.stats import t as student

    points = maps.points
    known = np.isfinite(points.targets[:, t])
    count = np.isfinite(points.latents[known]).sum(axis=0)
    for i, item in enumerate(chosen):
        if item.name not in HALF_WIDTH:
            continue
        r = observed[i]
        with np.errstate(divide="ignore"):
            score = np.abs(r) * np.sqrt((count - 2) / np.maximum(1 - r**2, 0))
        found[P_NAIVE][i, :, t] = 2 * student.sf(score, count - 2)
        low, high = _interval(r, found[N_EFFECTIVE][i, :, t], HALF_WIDTH[item.name])
        found[LOW][i, :, t] = low
        found[HIGH][i, :, t] = high


def _interval(r: np.ndarray, effective: np.ndarray, half_width: float) -> tuple[np.ndarray, np.ndarray]:
    """95 % confidence interval of correlations; NaN where three effective points or fewer are left.

    On the scale of arctanh(r), with the effective number in the place of n (Fisher, Metron 1, 3 (1921); for ranks
    Fieller, Hartley & Pearson, Biometrika 44, 470 (1957)).
    """
    width = half_width / np.sqrt(np.where(effective > 3, effective - 3, np.nan))
    with np.errstate(divide="ignore"):
        centre = np.arctanh(r)
    return np.tanh(centre - width), np.tanh(centre + width)


def _weights(near: Neighbourhood, values: np.ndarray) -> np.ndarray:
    """Covariance weights of columns (n, k), each to deviation 1."""
    unit = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), np.finfo(float).tiny)
    return covariance_weights(near, semivariograms(near, unit))


def _warnings(ds: xr.Dataset, settings: SignificanceConfig) -> list[str]:
    found = []
    m = int(ds[P_VALUE].notnull().sum(dim=[METRIC, n.LATENT]).max())
    factor = {"fdr": m * float(np.sum(1 / np.arange(1, m + 1))), "holm": float(m)}.get(settings.correction, 1.0)
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
