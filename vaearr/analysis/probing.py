"""How much of a target features hold together, by probes that are judged on what they have not
learned from.

Alain & Bengio, "Understanding intermediate layers using linear classifier probes",
arXiv:1610.01644. Neighbouring scan points are alike, and so are volumes of one person: folds leave
out whole groups (Roberts et al., Ecography 40, 913 (2017), doi:10.1111/ecog.02881), intervals come
from resampled groups, and p-values from targets that are as smooth.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.points import steps_of
from vaearr.analysis.association.surrogates import (
    Neighbourhood,
    block_side,
    neighbourhood,
    surrogate_maps,
)
from vaearr.analysis.association.targets import TARGET, columns
from vaearr.analysis.clustering.features import columns_of, navigation_of, variables_of
from vaearr.config import ProbeConfig, refuse_unknown, resolved
from vaearr.config.keywords import ProbeArraySettings
from vaearr.errors import RoiError, UsageError, did_you_mean
from vaearr.schema.grid import laid_over
from vaearr.schema.pattern_steps import bin_patterns

FEATURES, METHOD, CLASS, RECALL = "features", "probe", "class", "recall"
WORDS = {
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
RESAMPLED = 1000
MOST_COLUMNS = 256  # of features up to which logistic regression is repeated for a p-value
RAW_SIDE = 32  # pixels along a side that raw intensities are binned to at most
MIN_POINTS = 20
TIE = 1e-12


class Target(NamedTuple):
    """What is probed: a map over the navigation dims, numbers or (with `classes`) codes, NaN where
    it is not known.
    """

    label: str
    values: xr.DataArray
    classes: dict[int, str]


def probe(
    features: xr.Dataset | xr.DataArray,
    target: xr.Dataset | xr.DataArray,
    *,
    by: xr.DataArray | str | None = None,
    roi: xr.DataArray | None = None,
    config: ProbeConfig | None = None,
    **settings: Unpack[ProbeArraySettings],
) -> xr.Dataset:
    """How well a target is told from features, at points whose group no probe has learned from.

    Numbers: ridge regression, its penalty chosen inside the training folds; `score` is 1 - residual
    / total sum of squares, about the training mean: 0 is no knowledge, below 0 is misled. Classes:
    logistic regression and the five nearest neighbours; `score` is the balanced accuracy, chance is
    1 / classes. Features are centred and divided by the largest standard deviation of their columns
    in the training folds, so they keep their proportions.

    Parameters
    ----------
    features
        Over the navigation dims and at most one further dim, such as `ds.latents`; a Dataset
        compares its variables, each a set of features, at the same points. `patterns` are taken as
        raw intensities, binned to at most 32 x 32.
    target
        Maps over the navigation dims, numbers or codes (phase, clusters; below 0: unknown), a stack
        such as `elements`; several as a Dataset.
    by
        What a fold leaves out as a whole: a map of groups (grains, subjects), the name of one in
        `features` or of a coordinate, "blocks" of scan points as wide as twice the target's
        correlation length, or "random" for single points. Default: blocks for a scan; for a
        collection its subjects (or another coordinate of groups), without them single samples.
    config
        Folds, points, permutations, seed: see ProbeConfig.

    Returns
    -------
    xr.Dataset
        `score`, `low` and `high` (95 % of 1000 draws of groups with replacement), `p_value` over
        (target, features, probe), NaN where a probe is not for the target. p = (1 + random targets
        told as well) / (1 + permutations); a random target is the map with whole groups exchanged
        where it is constant in each, else a surrogate map of `significance`, of a collection the
        values exchanged. `recall` (features, probe, class), where there are
        classes: share of a class that is predicted correctly. `n`, `n_groups` and `left_out`
        (target).

    Raises SchemaError for what lies on no navigation dims or another grid, RoiError for fewer than
    20 points, UsageError for fewer than two groups or classes, or a name that is not there.
    """
    refuse_unknown(probe, ProbeArraySettings, settings)
    settled = resolved(ProbeConfig, config, settings)
    return probe_settled(features, target, settled.by if by is None else by, roi, settled)


def probe_settled(
    features: xr.Dataset | xr.DataArray,
    target: xr.Dataset | xr.DataArray,
    by: xr.DataArray | str | None,
    roi: xr.DataArray | None,
    config: ProbeConfig,
) -> xr.Dataset:
    """Probe each target with settled settings."""
    nav = navigation_of(features)
    sets = {
        name: _raw(one) if name == n.PATTERNS else one
        for name, one in variables_of(features).items()
    }
    if not sets:
        raise UsageError("no feature is given; pass maps such as ds[['latents', 'pca']].")
    found = [_probed(sets, one, nav, by, features, roi, config) for one in _targets(target, nav)]
    scores = [one.drop_vars(RECALL, errors="ignore") for one in found]
    ds = xr.concat(scores, TARGET, join="outer", combine_attrs="drop")
    if recalls := [one[RECALL] for one in found if RECALL in one]:
        ds[RECALL] = xr.concat(recalls, CLASS, join="outer", combine_attrs="override")
    ds[TARGET] = ds[TARGET].astype(str)
    warnings = list(dict.fromkeys(text for one in found for text in one.attrs["warnings"]))
    return ds.assign_attrs(config=config.to_attrs(), warnings=warnings)


def _raw(patterns: xr.DataArray) -> xr.DataArray:
    """Patterns as features `(navigation, pixel)`, binned where they are large; lazy."""
    dims = [dim for dim in patterns.attrs[n.SIGNAL_DIMS] if dim != n.CHANNEL]
    side = {dim: -(-patterns.sizes[dim] // RAW_SIDE) for dim in dims}
    whole = patterns.isel({dim: slice(patterns.sizes[dim] // k * k) for dim, k in side.items()})
    seen = bin_patterns(whole, side) if max(side.values()) > 1 else patterns
    return seen.stack({PIXEL: list(patterns.attrs[n.SIGNAL_DIMS])}, create_index=False)


def _targets(target: xr.Dataset | xr.DataArray, nav: tuple[str, ...]) -> Iterator[Target]:
    for one in target.data_vars.values() if isinstance(target, xr.Dataset) else [target]:
        has_codes = one.dtype.kind == "b" or (one.dtype.kind in "iu" and schema.is_categorical(one))
        if has_codes and set(one.dims) == set(nav):
            codes = one.astype("f8").where(one >= 0)
            classes = {0: "False", 1: "True"} if one.dtype.kind == "b" else schema.categories(one)
            yield Target(str(one.name or TARGET), codes, classes)
        else:
            yield from (Target(label, part, {}) for label, part in columns(one, nav))


def _probed(
    sets: dict[str, xr.DataArray],
    target: Target,
    nav: tuple[str, ...],
    by: xr.DataArray | str | None,
    features: xr.Dataset | xr.DataArray,
    roi: xr.DataArray | None,
    config: ProbeConfig,
) -> xr.Dataset:
    """The scores of one target."""
    values = laid_over(
        next(iter(sets.values())), target.values.rename(target.label), nav, boolean=False
    )
    tables = {
        name: columns_of({name: one}, nav) for name, one in sets.items() if PIXEL not in one.dims
    }
    inside = np.isfinite(values.values)
    for table in tables.values():
        inside &= np.isfinite(table.values).all(axis=0)
    if roi is not None:
        inside &= laid_over(values, roi, nav).values
    if inside.sum() < MIN_POINTS:
        raise RoiError(
            f"{target.label!r} and the features are known together at {inside.sum()} points; {MIN_POINTS} needed."
        )
    spacing = steps_of(values, nav)
    near = None if spacing is None else neighbourhood(inside, spacing)
    groups, left_out = _groups(by, values, inside, near, features)
    inside &= groups >= 0
    seed = np.random.SeedSequence([config.seed, zlib.crc32(target.label.encode())])
    every = np.flatnonzero(inside)
    rng = np.random.default_rng(seed)
    points = np.sort(rng.choice(every, min(len(every), config.max_points), replace=False))
    own, group = (
        values.values.ravel()[points],
        np.unique(groups.ravel()[points], return_inverse=True)[1],
    )
    folds = _folds(own, group, target, left_out, config)
    told = [
        f"all of {target.label} {word!r} is left out at once ({left_out}): it cannot be told."
        for code, word in target.classes.items()
        if len(np.unique(group[own == code])) == 1
    ]
    if near is not None and near.n != inside.sum():
        near = neighbourhood(inside, near.spacing)
    nulls = _random_targets(
        values.values[inside], groups[inside], near, config.n_permutations, seed.spawn(1)[0]
    )
    places = np.searchsorted(every, points)
    wanted = np.column_stack([own, *(null[places] for null in nulls)])
    scores, recalls = {}, {}
    for name, one in sets.items():
        drawn = _at(one, tables.get(name), points, nav)
        for method in (LOGISTIC, NEIGHBOURS) if target.classes else (RIDGE,):
            asked = wanted
            if method == LOGISTIC and drawn.shape[1] > MOST_COLUMNS and config.n_permutations:
                asked = wanted[:, :1]
                told.append(
                    f"no p-value of {method} regression from {name}: it has more than {MOST_COLUMNS} columns."
                )
            right = _told(method, drawn, asked, folds)
            scores[name, method] = _scored(right, asked, group, rng, bool(target.classes))
            if target.classes:
                recalls[name, method] = [
                    right[own == code, 0].mean() if (own == code).any() else np.nan
                    for code in target.classes
                ]
    ds = _as_dataset(scores, recalls, target, sets)
    about = {"n": len(points), "n_groups": int(group.max()) + 1, "left_out": left_out}
    ds = ds.assign({key: (TARGET, [value]) for key, value in about.items()})
    return ds.assign_attrs(warnings=told)


def _groups(
    by: xr.DataArray | str | None,
    values: xr.DataArray,
    inside: np.ndarray,
    near: Neighbourhood | None,
    features: xr.Dataset | xr.DataArray,
) -> tuple[np.ndarray, str]:
    """Number of each point's group over the grid, -1 for none, and what is left out, in words."""
    known = {
        str(name): one
        for name, one in [*features.coords.items(), *values.coords.items()]
        if one.dims == values.dims
    }
    if isinstance(features, xr.Dataset):
        known |= {
            str(name): one
            for name, one in features.data_vars.items()
            if set(one.dims) == set(values.dims)
        }
    if by is None:
        by = (
            BLOCKS
            if near is not None
            else next((name for name in known if name.lower() in n.GROUPS), RANDOM)
        )
    if isinstance(by, str) and by == RANDOM:
        return np.arange(inside.size).reshape(
            inside.shape
        ), "single points" if near is not None else "single samples"
    if isinstance(by, str) and by == BLOCKS:
        if near is None:
            raise UsageError(
                "samples of a collection have no blocks; leave out by a coordinate such as subject, or random."
            )
        side = block_side(near, values.values[inside])
        places = [index // side for index in np.indices(inside.shape)]
        blocks = np.ravel_multi_index(tuple(places), [-(-size // side) for size in inside.shape])
        return np.asarray(blocks), f"blocks of {side} points"
    if isinstance(by, str) and by not in known:
        raise UsageError(
            f"there are no groups {by!r} to leave out.{did_you_mean(by, [*known, BLOCKS, RANDOM])}"
        )
    chosen = known[by] if isinstance(by, str) else by
    given = laid_over(values, chosen, values.dims, boolean=False).values
    if given.dtype.kind == "f":
        given = np.where(np.isfinite(given), given, -1)
    codes = np.unique(given, return_inverse=True)[1].reshape(given.shape)
    missing = (given < 0) if given.dtype.kind in "if" else np.zeros(given.shape, bool)
    return np.where(missing, -1, codes), str(chosen.name or "groups")


def _folds(
    own: np.ndarray, group: np.ndarray, target: Target, left_out: str, config: ProbeConfig
) -> np.ndarray:
    """Fold of each point; whole groups share one."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    n_groups = int(group.max()) + 1
    if n_groups < 2:
        raise UsageError(
            f"{target.label!r} is known in one group only ({left_out}); leave out something smaller."
        )
    if target.classes and len(np.unique(own)) < 2:
        raise UsageError(
            f"{target.label!r} has one class only where the features are known; there is nothing to tell."
        )
    kind = StratifiedGroupKFold if target.classes else GroupKFold
    folds = kind(min(config.folds, n_groups), shuffle=True, random_state=config.seed)
    found = np.empty(len(own), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer members than folds
        for i, (_, test) in enumerate(folds.split(own, own, group)):
            found[test] = i
    return found


def _random_targets(
    values: np.ndarray,
    groups: np.ndarray,
    near: Neighbourhood | None,
    count: int,
    seed: np.random.SeedSequence,
) -> Iterator[np.ndarray]:
    """`count` targets `(n,)` that know nothing of the features: see `probe`."""
    rng = np.random.default_rng(seed)
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    if len(first) < len(values) and (values == values[first][member]).all():
        return (values[first][rng.permutation(len(first))][member] for _ in range(count))
    return surrogate_maps(near, values, count, seed)


def _at(
    one: xr.DataArray, table: xr.DataArray | None, points: np.ndarray, nav: tuple[str, ...]
) -> np.ndarray:
    """Features `(n, f)` at points of the grid, by their flat positions."""
    if table is not None:
        return table.values.reshape(len(table), -1)[:, points].T
    places = np.unravel_index(points, [one.sizes[dim] for dim in nav])
    where = {dim: xr.DataArray(place, dims=POINT) for dim, place in zip(nav, places, strict=True)}
    return np.asarray(one.isel(where).transpose(POINT, PIXEL).values, np.float32)


def _told(method: str, drawn: np.ndarray, wanted: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """How each point fares, by probes that have not seen its fold, of every version of the target
    `(n, k)`: of classes whether it is right, of numbers the squares of what is left and of what
    there was `(n, k, 2)`.
    """
    out = np.empty((*wanted.shape, 2) if method == RIDGE else wanted.shape)
    for fold in np.unique(folds):
        test = folds == fold
        fitted = FITS[method](*scaled_alike(drawn[~test], drawn[test]), wanted[~test])
        if method == RIDGE:
            rest = wanted[test] - wanted[~test].mean(0)
            out[test] = np.stack([(wanted[test] - fitted) ** 2, rest**2], -1)
        else:
            out[test] = fitted == wanted[test]
    return out


def scaled_alike(train: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features centred and divided by one number, the largest deviation of a column; both of the
    first; as float64.
    """
    train, other = np.asarray(train, float), np.asarray(other, float)
    centre, spread = train.mean(0), float(train.std(0).max()) or 1.0
    return (train - centre) / spread, (other - centre) / spread


def _ridge(train: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import RidgeCV

    found = RidgeCV(PENALTIES, alpha_per_target=True).fit(train, wanted).predict(test)
    return found.reshape(len(test), -1)


def _neighbours(train: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import KNeighborsClassifier

    found = KNeighborsClassifier(min(N_NEIGHBOURS, len(train))).fit(train, wanted).predict(test)
    return found.reshape(len(test), -1)


def _logistic(train: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.column_stack([logistic(train, one).predict(test) for one in wanted.T])


def logistic(train: np.ndarray, codes: np.ndarray) -> Any:
    """Logistic regression of codes; of one code alone, a classifier that knows no other."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(codes)) < 2:
        return DummyClassifier().fit(train, codes)
    with np.errstate(
        all="ignore"
    ):  # vector units of some processors flag lanes that hold no number
        return LogisticRegression(C=1.0, max_iter=300, tol=1e-3).fit(train, codes)


FITS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    RIDGE: _ridge,
    LOGISTIC: _logistic,
    NEIGHBOURS: _neighbours,
}


def _scored(
    told: np.ndarray,
    wanted: np.ndarray,
    group: np.ndarray,
    rng: np.random.Generator,
    is_class: bool,
) -> tuple[float, float, float, float]:
    """Score, ends of its interval and p-value, of what `_told` gives."""
    if is_class:
        codes = np.unique(wanted[:, 0])
        is_code = wanted[:, :, None] == codes  # (n, k, class)
        parts = np.stack([told[:, :, None] * is_code, is_code], -1)  # (n, k, class, 2)
    else:
        parts = told[:, :, None]  # (n, k, 1, 2)
    score = _ratio(parts.sum(0), is_class)
    of_group = np.zeros((group.max() + 1, *parts.shape[2:]))
    np.add.at(of_group, group, parts[:, 0])
    draws = rng.multinomial(len(of_group), np.full(len(of_group), 1 / len(of_group)), RESAMPLED)
    low, high = np.nanquantile(_ratio(np.tensordot(draws, of_group, 1), is_class), (0.025, 0.975))
    hits = int((score[1:] >= score[0] - TIE).sum())
    return (
        float(score[0]),
        float(low),
        float(high),
        (1 + hits) / len(score) if len(score) > 1 else np.nan,
    )


def _ratio(sums: np.ndarray, is_class: bool) -> np.ndarray:
    """Scores `(k,)` of sums `(k, class, 2)`: the mean recall, or 1 - residual / total sum of
    squares.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = sums[..., 0] / sums[..., 1]
    return np.nanmean(share, -1) if is_class else 1 - share[:, 0]


def _as_dataset(
    scores: Mapping[tuple[str, str], tuple[float, ...]],
    recalls: dict[tuple[str, str], list[float]],
    target: Target,
    sets: dict[str, xr.DataArray],
) -> xr.Dataset:
    import pandas as pd

    def table(rows: Mapping[tuple[str, str], Sequence[float]], columns: list[str]) -> xr.Dataset:
        index = pd.MultiIndex.from_tuples(rows, names=[FEATURES, METHOD])
        found = pd.DataFrame([*rows.values()], index, columns).to_xarray()
        return found.reindex({FEATURES: list(sets), METHOD: list(METHODS)})

    ds = table(scores, list(WORDS)).expand_dims({TARGET: [target.label]})
    if recalls:
        of_class = table(recalls, [f"{target.label}: {word}" for word in target.classes.values()])
        ds[RECALL] = of_class.to_dataarray(CLASS).transpose(FEATURES, METHOD, CLASS)
        ds[RECALL].attrs = {"long_name": "share of the class that is told", "units": "1"}
    for name, words in WORDS.items():
        ds[name].attrs = {"long_name": words, "units": "1"}
    return ds
