"""How much of a target features hold, measured by probes at points they were not trained on.

Alain & Bengio, "Understanding intermediate layers using linear classifier probes",
arXiv:1610.01644. Neighbouring scan points are similar, and so are volumes of one person: folds
leave out complete groups (Roberts et al., Ecography 40, 913 (2017), doi:10.1111/ecog.02881),
intervals come from resampled groups, and p-values from random targets of the same smoothness.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Hashable, Iterator
from typing import NamedTuple, Unpack

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.points import navigation_of, spacing_of
from vaearr.analysis.association.surrogates import (
    LagTable,
    block_side,
    lag_table,
    surrogate_maps,
)
from vaearr.analysis.association.targets import TARGET, columns
from vaearr.analysis.clustering.features import FEATURE, columns_of, variables_of
from vaearr.computing.progress import Progress, tracked
from vaearr.config import ProbeConfig, refuse_unknown, resolved
from vaearr.config.keywords import ProbeArraySettings
from vaearr.errors import RoiError, UsageError, did_you_mean
from vaearr.schema.grid import checked_map
from vaearr.schema.pattern_steps import bin_patterns

FEATURES, METHOD, CLASS, RECALL = "features", "probe", "class", "recall"
SCORES = {
    "score": "R2 of numbers, balanced accuracy of classes",
    "low": "lower end of the 95 % interval of the score",
    "high": "upper end of the 95 % interval of the score",
    "p_value": "p-value from random targets",
}
POINT, PIXEL = "point", "pixel"
RIDGE, LOGISTIC, NEIGHBOURS = "ridge", "logistic", "neighbours"
METHODS = (RIDGE, LOGISTIC, NEIGHBOURS)
BLOCKS, RANDOM = "blocks", "random"
PENALTIES = np.logspace(-3, 5, 17)
N_NEIGHBOURS = 5
N_RESAMPLED = 1000
MAX_COLUMNS = 256  # of features up to which logistic regression is repeated for a p-value
MAX_SIDE = 32  # pixels along a side to which raw intensities are binned
MIN_POINTS = 20
TIE = 1e-12


class Target(NamedTuple):
    """A map over the navigation dims: numbers, or codes if it has classes; NaN if unknown."""

    label: str
    values: xr.DataArray
    classes: dict[int, str]


class Samples(NamedTuple):
    """The points at which probes of one target are trained and tested."""

    points: np.ndarray  # (n,) flat positions on the grid
    targets: np.ndarray  # (n, 1 + permutations) the target, then random targets
    groups: np.ndarray  # (n,) numbers 0, 1, … of the groups
    folds: np.ndarray  # (n,)
    left_out: str  # what a fold leaves out


def probe(
    features: xr.Dataset | xr.DataArray,
    target: xr.Dataset | xr.DataArray,
    *,
    by: xr.DataArray | str | None = None,
    roi: xr.DataArray | None = None,
    config: ProbeConfig | None = None,
    progress: Progress = False,
    **settings: Unpack[ProbeArraySettings],
) -> xr.Dataset:
    """Measure how well features predict a target at points of groups that were left out.

    Numbers are predicted by ridge regression, whose penalty is chosen inside the training folds;
    classes by logistic regression and by the five nearest neighbours [1]_. Features are centred
    and divided by the largest standard deviation of their columns in the training folds, so they
    keep their proportions.

    Parameters
    ----------
    features
        Over the navigation dims and at most one further dim, such as `ds.latents`. The variables
        of a Dataset are compared, each a set of features, at the same points. `patterns` are used
        as raw intensities, binned to at most 32 x 32.
    target
        Maps over the navigation dims, numbers or codes (phase, clusters; below 0: unknown), a stack
        such as `elements`; several as a Dataset.
    by
        The groups that a fold leaves out: a map (grains, subjects), the name of one in `features`
        or of a coordinate, "blocks" of scan points as wide as twice the target's correlation
        length [2]_, or "random" for single points. Default: blocks for a scan; for a collection its
        subjects (or another coordinate of groups), otherwise single samples.
    roi
        Boolean map, True = used. Default: all points where features and target are known.
    config
        Folds, points, permutations, seed.
    progress
        Whether to show progress, or a function that is called with (done, total, text).
    **settings
        Single settings, which replace those of `config`.

    Returns
    -------
    xarray.Dataset
        `score`, `low` and `high` (95 % interval from 1000 resamplings of the groups), `p_value`
        over (target, features, probe), NaN where a probe does not apply to the target. The score of
        numbers is 1 - residual / total sum of squares about the training mean: 0 is no knowledge,
        below 0 is worse than none. The score of classes is the balanced accuracy; chance is
        1 / classes. p = (1 + random targets predicted as well) / (1 + permutations); a random
        target is the map with complete groups exchanged if it is constant in each, else a surrogate
        map as of `va.associate`; the values of a collection are permuted. `recall` (features,
        probe, class), if there are classes: share of a class that is predicted correctly. `n`,
        `n_groups` and `left_out` (target).

    Raises
    ------
    SchemaError
        For maps that lack the navigation dims or lie on another grid.
    RoiError
        For fewer than 20 points.
    UsageError
        For fewer than two groups or classes, and for an unknown name or setting.

    References
    ----------
    .. [1] Alain & Bengio, arXiv:1610.01644.
    .. [2] Roberts et al., Ecography 40, 913 (2017), doi:10.1111/ecog.02881.

    Examples
    --------
    >>> import vaearr as va
    >>> from vaearr.testing import synthetic_scan
    >>> ds = synthetic_scan(nx=16, ny=12)
    >>> table = va.probe(ds.elements, ds.BC, by="random", n_permutations=0)
    >>> table.score.dims
    ('target', 'features', 'probe')
    """
    refuse_unknown(probe, ProbeArraySettings, settings)
    config = resolved(ProbeConfig, config, settings)
    by = config.by if by is None else by
    nav = navigation_of(features)
    sets = {}
    for name, variable in variables_of(features).items():
        sets[name] = _raw(variable) if name == n.PATTERNS else columns_of({name: variable}, nav)
    if not sets:
        raise UsageError("no feature is given; pass maps such as ds[['latents', 'pca']].")
    grid = next(iter(sets.values()))
    is_known = np.ones([grid.sizes[dim] for dim in nav], bool)
    if roi is not None:
        is_known &= checked_map(grid, roi, nav).values
    for columns_of_set in sets.values():
        if FEATURE in columns_of_set.dims:
            is_known &= np.isfinite(columns_of_set.values).all(axis=0)
    results = []
    for label, target_map, classes in tracked(
        [*_targets(target, nav)], progress, "training probes"
    ):
        values = checked_map(grid, target_map.rename(label), nav, boolean=False)
        item = Target(label, values, classes)
        inside = is_known & np.isfinite(values.values)
        if inside.sum() < MIN_POINTS:
            raise RoiError(
                f"{label!r} and the features are known together at {inside.sum()} points; "
                f"{MIN_POINTS} needed."
            )
        groups = _choose_groups(by, values, features)
        results.append(_probe_target(sets, item, inside, groups, config))
    return _joined(results).assign_attrs(config=config.to_attrs())


def _raw(patterns: xr.DataArray) -> xr.DataArray:
    """Patterns as features `(navigation, pixel)`, binned if they are large; lazy."""
    signal = list(patterns.attrs[n.SIGNAL_DIMS])
    blocks = {}
    for dim in signal:
        if dim != n.CHANNEL:
            blocks[dim] = math.ceil(patterns.sizes[dim] / MAX_SIDE)
    if max(blocks.values()) > 1:
        for dim, side in blocks.items():
            n_blocks = patterns.sizes[dim] // side
            patterns = patterns.isel({dim: slice(n_blocks * side)})
        patterns = bin_patterns(patterns, blocks)
    return patterns.stack({PIXEL: signal}, create_index=False)


def _targets(
    target: xr.Dataset | xr.DataArray, nav: tuple[str, ...]
) -> Iterator[tuple[str, xr.DataArray, dict[int, str]]]:
    """Label, map and classes of each target; the map holds numbers if there are no classes."""
    variables = target.data_vars.values() if isinstance(target, xr.Dataset) else [target]
    for variable in variables:
        is_boolean = variable.dtype.kind == "b"
        is_map = set(variable.dims) == set(nav)
        if is_map and (is_boolean or schema.is_categorical(variable)):
            codes = variable.astype("f8").where(variable >= 0)
            classes = {0: "False", 1: "True"} if is_boolean else schema.categories(variable)
            yield str(variable.name or TARGET), codes, classes
        else:
            for label, values in columns(variable, nav):
                yield label, values, {}


# ---- what a fold leaves out


def _choose_groups(
    by: xr.DataArray | str | None, values: xr.DataArray, features: xr.Dataset | xr.DataArray
) -> xr.DataArray | str:
    """The map of groups, BLOCKS or RANDOM."""
    is_collection = n.SAMPLE in values.dims
    if by is None and not is_collection:
        return BLOCKS
    if isinstance(by, xr.DataArray) or by == RANDOM:
        return by
    if by == BLOCKS:
        if is_collection:
            raise UsageError(
                "samples of a collection have no blocks; leave out by a coordinate such as "
                "subject, or random."
            )
        return by
    maps = _maps_of_groups(values, features)
    if by is None:
        subjects = [groups for name, groups in maps.items() if name.lower() in n.GROUPS]
        return subjects[0] if subjects else RANDOM
    if by not in maps:
        hint = did_you_mean(by, [*maps, BLOCKS, RANDOM])
        raise UsageError(f"there are no groups {by!r} to leave out.{hint}")
    return maps[by]


def _maps_of_groups(
    values: xr.DataArray, features: xr.Dataset | xr.DataArray
) -> dict[str, xr.DataArray]:
    """Maps and coordinates of each point by name, which may hold its group."""
    candidates = {**features.coords, **values.coords}
    if isinstance(features, xr.Dataset):
        candidates |= features.data_vars
    maps: dict[str, xr.DataArray] = {}
    for name, variable in candidates.items():
        if set(variable.dims) == set(values.dims):
            maps[str(name)] = variable
    return maps


def _codes(groups: xr.DataArray, values: xr.DataArray) -> np.ndarray:
    """Numbers of the groups in a map, -1 where it is negative or not finite."""
    labels = checked_map(values, groups, values.dims, boolean=False).values
    if labels.dtype.kind == "f":
        labels = np.where(np.isfinite(labels), labels, -1)
    codes = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    if labels.dtype.kind in "if":
        codes = np.where(labels < 0, -1, codes)
    return codes


def _blocks(lags: LagTable, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers of square blocks over the grid, and their side in points."""
    shape = lags.mask.shape
    side = block_side(lags, values[lags.mask])
    places = [index // side for index in np.indices(shape)]
    n_blocks = [math.ceil(size / side) for size in shape]
    return np.asarray(np.ravel_multi_index(places, n_blocks)), side


def _sample(
    target: Target,
    inside: np.ndarray,
    by: xr.DataArray | str,
    config: ProbeConfig,
    seed: np.random.SeedSequence,
    rng: np.random.Generator,
) -> Samples:
    """Choose points inside the region, their groups and folds, and random targets."""
    values = target.values.values
    groups = np.arange(values.size).reshape(values.shape)
    left_out = "single samples" if n.SAMPLE in target.values.dims else "single points"
    if isinstance(by, xr.DataArray):
        groups = _codes(by, target.values)
        left_out = str(by.name or "groups")
        inside = inside & (groups >= 0)
    spacing = spacing_of(target.values, target.values.dims)
    lags = None if spacing is None else lag_table(inside, spacing)
    if lags is not None and isinstance(by, str) and by == BLOCKS:
        groups, side = _blocks(lags, values)
        left_out = f"blocks of {side} points"
    candidates = np.flatnonzero(inside)
    n_points = min(len(candidates), config.max_points)
    points = np.sort(rng.choice(candidates, n_points, replace=False))
    group = np.unique(groups.ravel()[points], return_inverse=True)[1]
    folds = _folds(values.ravel()[points], group, target, left_out, config)
    places = np.searchsorted(candidates, points)
    (random_seed,) = seed.spawn(1)
    random_targets = _random_targets(
        values[inside], groups[inside], lags, config.n_permutations, random_seed
    )
    targets = [values.ravel()[points]]
    targets += [random_target[places] for random_target in random_targets]
    return Samples(points, np.column_stack(targets), group, folds, left_out)


def _folds(
    values: np.ndarray, group: np.ndarray, target: Target, left_out: str, config: ProbeConfig
) -> np.ndarray:
    """Fold of each point; the points of a group share one."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    n_groups = int(group.max()) + 1
    if n_groups < 2:
        raise UsageError(
            f"{target.label!r} is known in one group only ({left_out}); leave out something "
            "smaller."
        )
    if target.classes and len(np.unique(values)) < 2:
        raise UsageError(
            f"{target.label!r} has one class only where the features are known; there is nothing "
            "to predict."
        )
    kind = StratifiedGroupKFold if target.classes else GroupKFold
    splits = kind(min(config.folds, n_groups), shuffle=True, random_state=config.seed)
    folds = np.empty(len(values), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer members than folds
        for i, (_, test) in enumerate(splits.split(values, values, group)):
            folds[test] = i
    return folds


def _random_targets(
    values: np.ndarray,
    groups: np.ndarray,
    lags: LagTable | None,
    count: int,
    seed: np.random.SeedSequence,
) -> Iterator[np.ndarray]:
    """`count` targets `(n,)` that are independent of the features: see `probe`."""
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    is_constant_in_groups = (values == values[first][member]).all()
    if len(first) == len(values) or not is_constant_in_groups:
        yield from surrogate_maps(lags, values, count, seed)
        return
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield values[first][rng.permutation(len(first))][member]


# ---- the probes of one target


def _probe_target(
    sets: dict[str, xr.DataArray],
    target: Target,
    inside: np.ndarray,
    by: xr.DataArray | str,
    config: ProbeConfig,
) -> xr.Dataset:
    """The scores of one target, over the target, features and probes."""
    seed = np.random.SeedSequence([config.seed, zlib.crc32(target.label.encode())])
    rng = np.random.default_rng(seed)
    samples = _sample(target, inside, by, config, seed, rng)
    values = samples.targets[:, 0]
    is_class = bool(target.classes)
    methods = (LOGISTIC, NEIGHBOURS) if is_class else (RIDGE,)
    scores = np.full((len(SCORES), 1, len(sets), len(METHODS)), np.nan)
    recalls = np.full((len(sets), len(METHODS), len(target.classes)), np.nan)
    notes = _left_out_classes(target, samples)
    for i, (name, features) in enumerate(sets.items()):
        rows = _features_at(features, target.values.dims, samples.points)
        for method in methods:
            targets = samples.targets
            if method == LOGISTIC and rows.shape[1] > MAX_COLUMNS and config.n_permutations:
                targets = targets[:, :1]
                notes.append(
                    f"no p-value of logistic regression from {name}: it has more than "
                    f"{MAX_COLUMNS} columns."
                )
            outcomes = _outcomes(method, rows, targets, samples.folds)
            j = METHODS.index(method)
            scores[:, 0, i, j] = _score(outcomes, targets, samples.groups, rng, is_class)
            for k, code in enumerate(target.classes):
                if (values == code).any():
                    recalls[i, j, k] = outcomes[values == code, 0].mean()
    coords = {TARGET: [target.label], FEATURES: list(sets), METHOD: list(METHODS)}
    ds = xr.Dataset(coords=coords, attrs={"warnings": notes})
    for (name, text), numbers in zip(SCORES.items(), scores, strict=True):
        ds[name] = n.named((TARGET, FEATURES, METHOD), numbers, text)
    if is_class:
        ds[CLASS] = [f"{target.label}: {label}" for label in target.classes.values()]
        long_name = "share of the class that is predicted correctly"
        ds[RECALL] = n.named((FEATURES, METHOD, CLASS), recalls, long_name)
    ds["n"] = TARGET, [len(values)]
    ds["n_groups"] = TARGET, [int(samples.groups.max()) + 1]
    ds["left_out"] = TARGET, [samples.left_out]
    return ds


def _left_out_classes(target: Target, samples: Samples) -> list[str]:
    """A warning for each class that lies in one group."""
    notes = []
    codes = samples.targets[:, 0]
    for code, label in target.classes.items():
        if len(np.unique(samples.groups[codes == code])) == 1:
            notes.append(
                f"all points of {target.label} {label!r} are left out at once "
                f"({samples.left_out}): the class cannot be predicted."
            )
    return notes


def _joined(results: list[xr.Dataset]) -> xr.Dataset:
    """The results of all targets as one Dataset."""
    scores = [result.drop_vars([RECALL, CLASS], errors="ignore") for result in results]
    ds = xr.concat(scores, TARGET, join="outer", combine_attrs="drop")
    recalls = [result[RECALL] for result in results if RECALL in result]
    if recalls:
        ds[RECALL] = xr.concat(recalls, CLASS, join="outer", combine_attrs="override")
    notes = [note for result in results for note in result.attrs["warnings"]]
    return ds.assign_attrs(warnings=list(dict.fromkeys(notes)))


def _features_at(
    features: xr.DataArray, nav: tuple[Hashable, ...], points: np.ndarray
) -> np.ndarray:
    """Features `(n, f)` at points of the grid, by their flat positions."""
    indices = np.unravel_index(points, [features.sizes[dim] for dim in nav])
    where = {dim: (POINT, index) for dim, index in zip(nav, indices, strict=True)}
    rows = features.drop_vars(list(features.coords)).isel(where)
    return np.asarray(rows.transpose(POINT, ...).values, np.float64)


def _outcomes(
    method: str, features: np.ndarray, targets: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """How each point is predicted by probes that were not trained on its fold.

    For each version of the target `(n, k)`: of classes, whether the prediction is correct; of
    numbers, the squares of the residual and of the deviation from the training mean `(n, k, 2)`.
    """
    outcomes = np.empty((*targets.shape, 2) if method == RIDGE else targets.shape)
    for fold in np.unique(folds):
        test = folds == fold
        trained = targets[~test]
        centre = features[~test].mean(0)
        spread = float(features[~test].std(0).max()) or 1.0
        scaled = (features - centre) / spread
        predicted = _predict(method, scaled[~test], scaled[test], trained)
        if method == RIDGE:
            outcomes[test, :, 0] = (targets[test] - predicted) ** 2
            outcomes[test, :, 1] = (targets[test] - trained.mean(0)) ** 2
        else:
            outcomes[test] = predicted == targets[test]
    return outcomes


def _predict(method: str, train: np.ndarray, test: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Predictions `(n, k)` for test features, from features and targets `(n, k)` of training."""
    from sklearn.linear_model import RidgeCV
    from sklearn.neighbors import KNeighborsClassifier

    if method == LOGISTIC:
        return np.column_stack([_logistic(train, codes, test) for codes in targets.T])
    if method == RIDGE:
        model = RidgeCV(PENALTIES, alpha_per_target=True)
    else:
        model = KNeighborsClassifier(min(N_NEIGHBOURS, len(train)))
    if targets.shape[1] == 1:
        targets = targets[:, 0]
    return model.fit(train, targets).predict(test).reshape(len(test), -1)


def _logistic(train: np.ndarray, codes: np.ndarray, test: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(codes)) < 2:
        return np.full(len(test), codes[0])
    with np.errstate(all="ignore"):  # vector units of some processors flag unused lanes
        model = LogisticRegression(C=1.0, max_iter=300, tol=1e-3).fit(train, codes)
        return np.asarray(model.predict(test))


def _score(
    outcomes: np.ndarray,
    targets: np.ndarray,
    group: np.ndarray,
    rng: np.random.Generator,
    is_class: bool,
) -> tuple[float, float, float, float]:
    """Score, ends of its interval and p-value."""
    terms = outcomes[:, :, None]  # (n, k, 1, 2) of numbers
    if is_class:
        codes = np.unique(targets[:, 0])
        is_code = targets[:, :, None] == codes  # (n, k, class)
        terms = np.stack([terms * is_code, is_code], -1)  # (n, k, class, 2)
    score = _ratio(terms.sum(0), is_class)
    n_groups = group.max() + 1
    sums = np.zeros((n_groups, *terms.shape[2:]))
    np.add.at(sums, group, terms[:, 0])
    counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), N_RESAMPLED)
    resampled = _ratio(np.tensordot(counts, sums, 1), is_class)
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    p_value = np.nan
    if len(score) > 1:
        n_as_good = int((score[1:] >= score[0] - TIE).sum())
        p_value = (1 + n_as_good) / len(score)
    return float(score[0]), float(low), float(high), p_value


def _ratio(sums: np.ndarray, is_class: bool) -> np.ndarray:
    """Scores `(k,)` of sums `(k, class, 2)`: mean recall, or 1 - residual / total squares."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = sums[..., 0] / sums[..., 1]
    return np.nanmean(share, -1) if is_class else 1 - share[:, 0]
