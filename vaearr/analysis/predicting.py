"""From a labelled part to the whole field: a map predicted from features, and where the labels say nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.base import tokenize

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.clustering.features import columns_of, navigation_of, select_features, variables_of
from vaearr.analysis.probing import AT_ONCE, CLASS, PENALTIES, PREDICTED, logistic, scaled_alike
from vaearr.config import ClusterConfig, resolved, settings_as_keywords
from vaearr.config.probes import PredictConfig
from vaearr.errors import NoInputError, RoiError, SchemaError, UsageError, did_you_mean
from vaearr.recipe import Recipe, nested
from vaearr.schema.grid import laid_over
from vaearr.store import check_store, open_store, recover, run_names
from vaearr.store.once import made_once

PROBABILITY, FAMILIARITY, DEVIATION, IS_KNOWN = "probability", "familiarity", "deviation", "is_known"
FEWEST = 10  # labelled points
UNFAMILIAR = 0.05
NEVER = -2  # code of a point whose features are missing


@settings_as_keywords(PredictConfig)
def predict(
    features: xr.Dataset | xr.DataArray,
    labels: xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    config: PredictConfig | None = None,
    **settings: Any,
) -> xr.Dataset:
    """A map for all points, from features and the labels of some.

    Classes by logistic regression, numbers by ridge regression with the penalty of least leave-one-out error. Features
    are centred and divided by the largest standard deviation of a column.

    Parameters
    ----------
    features
        Over the navigation dims and at most one further dim, such as `ds.latents`; several as a Dataset.
    labels
        Numbers, or codes (phase, clusters; below 0: no label): a map of the same grid with NaN where there is no label;
        a part of the grid, such as `ds.phase.isel(x=slice(0, 20))`; or single points, over one dim with a coordinate
        for each navigation dim, which go to the nearest point of the grid.
    roi
        Where to predict; default: wherever the features are known.
    config
        Most labelled points that are learned from, and the seed: see PredictConfig.

    Returns
    -------
    xr.Dataset
        `predicted`; of classes `probability` (class, navigation dims), of numbers `deviation`, of what the
        labelled points' own prediction leaves, each left out in turn. `familiarity`: the share of labelled points that
        lie as far from the next labelled point, in features, as this one: a conformal p-value (Bates et al., Ann. Stat.
        51, 149 (2023), doi:10.1214/22-AOS2244). Where it is below 0.05 the labels hold nothing like this point, and the
        prediction is a guess: `is_known` is False.

    Raises SchemaError where labels do not lie on the grid, RoiError for fewer than ten labelled points, UsageError for
    one class only.
    """
    settled = resolved(PredictConfig, config, settings)
    nav = navigation_of(features)
    table = columns_of(variables_of(features), nav)
    known = on_grid(labels, table, nav)
    inside = np.isfinite(table.values).all(axis=0)
    if roi is not None:
        inside &= laid_over(table, roi, nav).values
    labelled = np.flatnonzero(np.isfinite(known.values) & np.isfinite(table.values).all(axis=0))
    if len(labelled) < FEWEST:
        raise RoiError(f"{len(labelled)} labels lie where the features are known; at least {FEWEST} are needed.")
    if len(labelled) > settled.max_points:
        labelled = np.sort(np.random.default_rng(settled.seed).choice(labelled, settled.max_points, replace=False))
    flat = table.values.reshape(len(table), -1)
    learned, own = flat[:, labelled].T, known.values.ravel()[labelled]
    is_class = _is_class(labels)
    if is_class and len(np.unique(own)) < 2:
        raise UsageError(f"the labels hold one class only ({own[0]:g}); label points of another one too.")
    model = _Model(learned, own, is_class)
    found = {name: np.full((size, flat.shape[1]), np.nan, np.float32) for name, size in model.outputs.items()}
    for part in np.array_split(every := np.flatnonzero(inside), -(-inside.sum() // AT_ONCE) or 1):
        for name, values in model(flat[:, part].T).items():
            found[name][:, part] = values
    return _as_dataset(found, model, table, labels, nav, len(every))


class _Model:
    """What was learned of labelled points `(n, f)`: calling it gives the outputs `(size, points)` at others."""

    def __init__(self, learned: np.ndarray, own: np.ndarray, is_class: bool) -> None:
        from sklearn.linear_model import RidgeCV
        from sklearn.neighbors import NearestNeighbors

        self.learned, self.n = learned, len(own)
        seen = scaled_alike(learned, learned)[0]
        self.near = NearestNeighbors(n_neighbors=1).fit(seen)
        self.gaps = np.sort(self.near.kneighbors(n_neighbors=1)[0][:, 0])  # to the next labelled point but itself
        if is_class:
            self.fit = logistic(seen, own)
            self.codes = self.fit.classes_
            self.outputs = {PREDICTED: 1, PROBABILITY: len(self.codes), FAMILIARITY: 1}
        else:
            self.fit = RidgeCV(PENALTIES, store_cv_results=True).fit(seen, own)
            best = int(np.flatnonzero(self.fit.alphas == self.fit.alpha_)[0])
            self.spread = float(np.sqrt(self.fit.cv_results_[:, best].mean()))
            self.outputs = {PREDICTED: 1, DEVIATION: 1, FAMILIARITY: 1}

    def __call__(self, points: np.ndarray) -> dict[str, np.ndarray]:
        seen = scaled_alike(self.learned, points)[1]
        far = self.near.kneighbors(seen)[0][:, 0]
        as_far = self.n - np.searchsorted(self.gaps, far, side="left")
        found = {PREDICTED: self.fit.predict(seen)[None], FAMILIARITY: ((1 + as_far) / (1 + self.n))[None]}
        if PROBABILITY in self.outputs:
            return found | {PROBABILITY: self.fit.predict_proba(seen).T}
        return found | {DEVIATION: np.full((1, len(points)), self.spread)}


def on_grid(labels: xr.DataArray, table: xr.DataArray, nav: tuple[str, ...]) -> xr.DataArray:
    """Labels as numbers over the whole grid, NaN for none; see `predict`."""
    if not isinstance(labels, xr.DataArray) or labels.dtype.kind not in "biuf":
        kind = getattr(labels, "dtype", type(labels).__name__)
        raise SchemaError(f"the labels are {kind}; give numbers or codes over {nav} or over points with these coords.")
    values = labels.astype("f8").where(labels >= 0) if _is_class(labels) else labels.astype("f8")
    if set(labels.dims) == set(nav):
        values, asked, place = values.transpose(*nav), [labels.get_index(dim) for dim in nav], np.ix_
    elif labels.ndim == 1 and all(dim in labels.coords for dim in nav):
        asked, place = [labels[dim].to_index() for dim in nav], lambda *places: places
    else:
        raise SchemaError(f"the labels lie over {labels.dims}; expected {nav}, or one dim with coordinates {nav}.")
    places, whole = [], xr.DataArray(np.full([table.sizes[dim] for dim in nav], np.nan), dims=nav)
    for dim, own in zip(nav, asked, strict=True):
        axis = table.get_index(dim)
        is_number = len(axis) > 1 and axis.dtype.kind in "iuf"
        near = {"method": "nearest", "tolerance": 0.500001 * np.abs(np.diff(axis)).max()} if is_number else {}
        places.append(axis.get_indexer(own, **near))
        if (places[-1] < 0).any():
            raise SchemaError(
                f"labels lie off the grid: {dim} runs from {axis[0]} to {axis[-1]}, that of the labels from "
                f"{own.min()} to {own.max()}."
            )
    whole.values[place(*places)] = values.values
    return whole


def _is_class(labels: xr.DataArray) -> bool:
    return labels.dtype.kind == "b" or (schema.is_categorical(labels) and labels.dtype.kind in "iu")


def _as_dataset(
    found: dict[str, np.ndarray],
    model: _Model,
    table: xr.DataArray,
    labels: xr.DataArray,
    nav: tuple[str, ...],
    n_points: int,
) -> xr.Dataset:
    shape = [table.sizes[dim] for dim in nav]
    maps = {
        name: (nav, v.reshape(shape)) if len(v) == 1 else ((CLASS, *nav), v.reshape(-1, *shape))
        for name, v in found.items()
    }
    coords = {name: coord for name, coord in table.coords.items() if set(coord.dims) <= set(nav)}
    name = str(labels.name or "label")
    about = {"n_labelled": model.n, "n_predicted": n_points}
    ds = xr.Dataset(maps, coords, about)
    ds[FAMILIARITY].attrs = {"long_name": "share of labelled points that lie as far from the next", "units": "1"}
    units = str(labels.attrs.get("units", "1"))
    ds[PREDICTED].attrs = {"long_name": f"{name}, predicted", "units": units}
    ds[IS_KNOWN] = (ds[FAMILIARITY] >= UNFAMILIAR).assign_attrs(long_name=f"familiarity of at least {UNFAMILIAR}")
    if PROBABILITY not in found:
        ds[DEVIATION].attrs = {"long_name": f"deviation of {name} from what is predicted", "units": units}
        return ds
    named = schema.meanings(labels) or {0: "False", 1: "True"}
    words = named if labels.dtype.kind == "b" else schema.categories(labels)
    codes = [int(code) for code in model.codes]
    ds = ds.assign_coords({CLASS: [words.get(code, str(code)) for code in codes]})
    ds[PROBABILITY].attrs = {"long_name": f"probability of {name}", "units": "1"}
    flags = {"flag_values": [NEVER, *codes], "flag_meanings": " ".join(["not_predicted", *map(str, ds[CLASS].values)])}
    ds[PREDICTED] = ds[PREDICTED].fillna(NEVER).astype("i2").assign_attrs(ds[PREDICTED].attrs | flags)
    return ds


@settings_as_keywords(PredictConfig)
def predict_store(
    store: str | Path,
    labels: str | xr.DataArray,
    config: PredictConfig | None = None,
    *,
    overwrite: bool = False,
    **settings: Any,
) -> xr.Dataset:
    """Fill a map of a store from labels of some points, see `predict`, over the region of the run if it is there.

    labels: a variable with missing values, or what `predict` takes. Written as `<name>`, `<name>_probability` (classes)
    or `<name>_deviation` (numbers), and `<name>_familiarity`, with provenance. The same prediction is not made
    twice; `overwrite` replaces another. Raises NoInputError for a variable that is not there, ExistsError where a name
    holds something else, and what `predict` raises.
    """
    config = resolved(PredictConfig, config, settings)
    path = check_store(store)
    recover(path)
    ds = open_store(path)
    if isinstance(labels, str) and labels not in ds:
        raise NoInputError(f"there are no labels {labels!r} in {path}.{did_you_mean(labels, schema.maps(ds))}")
    given = ds[labels].load() if isinstance(labels, str) else labels
    features = select_features(ds, ClusterConfig(run=config.run, features=config.features))
    parents = {str(name): nested(one.attrs, n.PROVENANCE) for name, one in features.data_vars.items()}
    recipe = Recipe(
        config, {"labels": tokenize(given.values, {k: v.values for k, v in given.coords.items()}), "parents": parents}
    )
    roi = ds.get(n.run_name(n.ROI, config.run)) if config.run in run_names(path) else None
    parts = (PROBABILITY, DEVIATION, FAMILIARITY, IS_KNOWN)
    names = {PREDICTED: config.name} | {part: f"{config.name}_{part}" for part in (*parts, CLASS)}

    def make() -> xr.Dataset:
        found = predict(features, given, roi=roi, config=config).drop_attrs(deep=False)
        return found.rename({old: new for old, new in names.items() if old in found.variables})

    outputs = [names[part] for part in (PREDICTED, *parts)]
    return made_once(path, ds, outputs, recipe, make, "scikit-learn", overwrite=overwrite)
