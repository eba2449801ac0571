"""All samples in a plane, by their latents: PCA, t-SNE, UMAP; and points and lines drawn in a plane, decoded."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.targets import targets_of
from vaearr.analysis.embedding.pca import Pca, fit_pca
from vaearr.errors import NoInputError, UsageError, did_you_mean, need
from vaearr.run import Run, StoreOrRun
from vaearr.run.exploration.points import (
    POINT,
    classes_if_any,
    dimensions,
    latent_points,
    named,
    open_encoded,
    point_coords,
    some,
    some_rows,
)
from vaearr.run.exploration.traversals import STEP, TYPICAL, Base, base_coords, decoded, start
from vaearr.run.nearest import filled

AXIS, COLOR, COMPONENT = "axis", "color", "component"
OF_LATENT = f"{n.LATENT}:"
MAX_POINTS, MOST_OF_PCA = 5000, 100_000
MOST_VALUES = 50  # of a sample, before neighbours are looked for
MOST_BY_DEFAULT = 64
LEAST_POINTS = 4
BATCH = 4096
PLANE = "plane"
NAMES = {n.PCA: "PCA", "tsne": "t-SNE", "umap": "UMAP"}


def _pca(encoded: Run, values: np.ndarray, k: int, dim: str, seed: int) -> tuple[Pca, dict[str, Any]]:
    """The first principal components of rows `(n, values)`, also as variables over `dim` and those of the latents."""
    rows = torch.from_numpy(np.ascontiguousarray(values, np.float64))
    found = fit_pca(
        lambda: iter(rows.split(BATCH)), n_samples=len(values), n_values=values.shape[1], n_components=k, seed=seed
    )
    inner, shape = n.latent_dims(len(encoded.latent_shape)), encoded.latent_shape
    return found, {
        "components": named((dim, *inner), found.components.reshape(-1, *shape), "principal component"),
        "mean": named(inner, found.mean.reshape(shape), "mean latent"),
    }


def latent_pca(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    n_components: int | None = None,
    *,
    max_points: int = MOST_OF_PCA,
    seed: int = 0,
) -> xr.Dataset:
    """Principal components of a run's posterior means, as they are (not scaled), over at most `max_points` samples.

    `components (component, latent[, lz, ly, lx])` of unit length; `loadings` of the same shape, components times the
    root of their variance; `explained_variance`, `explained_variance_ratio` (of the total variance of the latents),
    `explained_variance_cumulative` `(component)`; `mean (latent[, …])`. n_components: None for all, at most 64. Spatial
    latents count with all their values; those that a mask left out of a sample count as its channel's mean. Raises
    NoInputError for a run not encoded, UsageError for none or more components than there are, DataError for latents
    that are all alike.
    """
    if n_components is not None and n_components < 1:
        raise UsageError(f"n_components is {n_components}; it must be at least 1.")
    encoded = open_encoded(store, run)
    numbers, values, total = some_rows(encoded, max_points, seed)
    wanted = n_components or min(len(values) - 1, values.shape[1], MOST_BY_DEFAULT)
    found, data = _pca(encoded, values, wanted, COMPONENT, seed)
    dims, components, _ = data["components"]
    scale = np.sqrt(np.maximum(found.variance, 0)).reshape(-1, *(1,) * (components.ndim - 1))
    share = {"comment": "of the total variance of the latents"}
    return xr.Dataset(
        {
            **data,
            "loadings": named(dims, components * scale, "loading"),
            "explained_variance": named(COMPONENT, found.variance, "explained variance"),
            "explained_variance_ratio": named(COMPONENT, found.ratio, "explained share", **share),
            "explained_variance_cumulative": named(COMPONENT, np.cumsum(found.ratio), "up to here", **share),
        },
        coords={COMPONENT: np.arange(len(components)), n.LATENT: np.arange(encoded.latent_shape[0])},
        attrs={
            **encoded.attrs,
            "n_points": len(numbers),
            "n_known": total,
            "seed": seed,
            "total_variance": found.total,
        },
    )


def embedding(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    method: str = "tsne",
    *,
    seed: int = 0,
    max_points: int = MAX_POINTS,
    perplexity: float = 30.0,
    neighbours: int = 15,
    by: str | None = None,
    color: Sequence[str] = (),
) -> xr.Dataset:
    """Positions of samples in a plane, `position (point, axis)`, by their posterior means.

    method: `pca` (linear, exact inverse: `components (axis, latent[, …])` and `mean` come with it); `tsne` (van der
    Maaten & Hinton, J. Mach. Learn. Res. 9, 2579 (2008)); `umap` (McInnes, Healy & Melville, arXiv:1802.03426), which
    needs umap-learn. Samples of more than 50 values are first reduced to 50 principal components for the latter two.
    max_points: a seeded choice of so many samples where there are more. perplexity: of t-SNE, lowered to a third of the
    other points where they are few; neighbours: of UMAP, likewise; the attributes say what was used. by: a map whose
    class becomes the coordinate `class` of each point; None for label, phase or clusters where one is there. color:
    amounts that come with each point as `amount (color, point)`: `latent:0`, or any map of one number for each sample
    by its name or label (`BC`, `Fe`, `phase: bcc`), as in `associate`. Spatial latents count as in `latent_pca`.

    Other coordinates: the navigation coordinates of each point and its number in the grid, row-major. The same call
    gives the same positions. Raises UsageError for a method that is not there or settings that cannot be meant,
    MissingExtraError without umap-learn, NoInputError for a run not encoded or with fewer than four samples.
    """
    if method not in NAMES:
        raise UsageError(f"there is no embedding {method!r}.{did_you_mean(method, sorted(NAMES))}")
    if method == "umap":
        need("umap", "vaearr[umap]", "the method umap (others: pca, tsne)")
    if not perplexity > 0 or neighbours < 2:
        raise UsageError(f"perplexity {perplexity} must be positive, and neighbours {neighbours} 2 or more.")
    encoded = open_encoded(store, run)
    numbers, values, total = some_rows(encoded, max_points, seed)
    if len(values) < LEAST_POINTS:
        raise NoInputError(f"an embedding needs {LEAST_POINTS} samples or more; run {run!r} has {len(values)}.")
    data: dict[str, Any] = {"amount": _amounts(encoded, color, numbers)} if color else {}
    about: dict[str, Any] = {"method": method, "seed": seed, "n_points": len(numbers), "n_known": total}
    most, position = 2 if method == n.PCA else MOST_VALUES, values
    if method == n.PCA or values.shape[1] > most:
        found, parts = _pca(encoded, values, min(most, values.shape[1], len(values) - 1), AXIS, seed)
        position = (values - found.mean) @ found.components.T
    if method == n.PCA:
        data |= parts
        about["explained_variance_ratio"] = found.ratio.tolist()
    elif method == "tsne":
        position, used = _tsne(position.astype(np.float32), seed, min(perplexity, (len(values) - 1) / 3))
        about |= used
    else:
        position, used = _umap(position.astype(np.float32), seed, min(neighbours, len(values) - 1))
        about |= used
    return xr.Dataset(
        {"position": named((POINT, AXIS), position.astype(np.float64), f"position by {NAMES[method]}"), **data},
        coords={
            **point_coords(encoded, numbers, classes_if_any(encoded.ds, by)),
            AXIS: [f"{NAMES[method]} {i + 1}" for i in range(position.shape[1])],
        },
        attrs={**encoded.attrs, **about},
    )


def _tsne(values: np.ndarray, seed: int, perplexity: float) -> tuple[np.ndarray, dict[str, Any]]:
    from sklearn.manifold import TSNE

    from vaearr.analysis.clustering.methods import reproducible

    init = "pca" if values.shape[1] > 1 else "random"
    with reproducible():
        made = TSNE(2, perplexity=perplexity, init=init, learning_rate="auto", random_state=seed, n_jobs=1)
        return made.fit_transform(values), {"perplexity": perplexity, "divergence": float(made.kl_divergence_)}


def _umap(values: np.ndarray, seed: int, neighbours: int) -> tuple[np.ndarray, dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # tells of TensorFlow, which only its other class needs
        umap = importlib.import_module("umap")
    init = "spectral" if len(values) > 2 * LEAST_POINTS else "random"
    made = umap.UMAP(n_components=2, n_neighbors=neighbours, random_state=seed, n_jobs=1, init=init)
    return np.asarray(made.fit_transform(values)), {"neighbours": neighbours}


def _amounts(encoded: Run, names: Sequence[str], numbers: np.ndarray) -> xr.DataArray:
    """Amounts `(color, point)` of samples by their numbers; a map of classes becomes one row for each class."""
    labels: list[str] = []
    rows: list[np.ndarray] = []
    for name in names:
        if name.startswith(OF_LATENT):
            text, size = name.removeprefix(OF_LATENT).strip(), encoded.latent_shape[0]
            if not text.isdigit() or int(text) >= size:
                raise UsageError(f"{name!r} is no latent dimension; give latent:0 to latent:{size - 1}.")
            points = latent_points(encoded, dims=int(text))
            labels.append(f"{n.LATENT} {int(text)}")
            rows.append(points["vectors"].values[np.searchsorted(points["number"], numbers), 0])
        else:
            column = targets_of(encoded.ds, [name]).transpose("target", *schema.navigation_dims(encoded.ds))
            labels += [str(label) for label in column["target"].values]
            rows += list(column.values.reshape(column.sizes["target"], -1)[:, numbers])
    values = np.stack(rows).astype(np.float32)
    return xr.DataArray(values, {COLOR: labels}, (COLOR, POINT), attrs={"long_name": "amount"})


def path(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    points: Sequence[Sequence[float]] | np.ndarray = (),
    *,
    space: str = PLANE,
    dims: tuple[int, int] = (0, 1),
    steps: int | None = None,
    base: Base = TYPICAL,
    by: str | None = None,
    seed: int = 0,
    max_points: int = MAX_POINTS,
    perplexity: float = 30.0,
    scatter: xr.Dataset | None = None,
) -> xr.Dataset:
    """Points `(k, 2)` in a plane, or `steps` evenly spaced ones on the line through them, decoded.

    space: `plane` of two latent dimensions `dims`, where all others keep the values of `base` (as in `traverse`);
    `pca`, whose inverse is exact: what is not in the plane stays at the mean; `tsne` or `umap`, which have no inverse:
    the sample that is encoded nearest to each point is decoded. scatter: a result of `embedding` with this method, so
    that it is not made again; else it is made with seed, max_points, perplexity.

    Returns `latents (step, latent[, lz, ly, lx])`, `decoded (step, …)`, `requested (step, axis)` as it was asked,
    `position (step, axis)` where the latents lie in the same coordinates, and `scatter (point, axis)`, the samples
    (at most `max_points`), with their navigation coordinates and, where there is one, `class`; for t-SNE and UMAP also
    `nearest (step)`, index along `point`. Raises UsageError for points or a space that cannot be meant, and as
    `embedding` and `traverse`.
    """
    if space != PLANE and space not in NAMES:
        raise UsageError(f"there is no space {space!r}.{did_you_mean(space, [PLANE, *NAMES])}")
    if space != PLANE and (tuple(dims), base) != ((0, 1), TYPICAL):
        raise UsageError(f"dims and base (--dim, --base) are of --space plane; leave them out, or {space!r}.")
    asked = _asked(points, steps)
    opened = open_encoded(store, run, decodes=True)
    base_name = space
    coords: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    if space == PLANE:
        chosen = dimensions(dims, opened.latent_shape[0], 2)
        begin = start(opened, base, by)
        z = begin.moved(chosen, asked)
        position = asked
        base_name = begin.name
        coords |= base_coords(opened, begin)
        drawn = latent_points(opened, by, dims=chosen, usual=True).rename({n.LATENT: AXIS, "vectors": "position"})
        drawn = drawn.isel({POINT: some(drawn.sizes[POINT], max_points, seed)})
        drawn = drawn.assign_coords({AXIS: [f"latent {dim}" for dim in chosen]})
    else:
        if scatter is None:
            scatter = embedding(store, run, space, seed=seed, max_points=max_points, perplexity=perplexity, by=by)
        drawn = scatter
        z, position, extra = _from_embedding(opened, drawn, space, asked)
    coords |= {str(name): coord for name, coord in drawn.coords.items() if coord.dims == (POINT,)}
    data = {
        "requested": named((STEP, AXIS), asked, "point asked for"),
        "position": named((STEP, AXIS), position, "position of the latents"),
        "scatter": named((POINT, AXIS), drawn["position"].values, "encoded samples"),
        **extra,
    }
    found = decoded(opened, z, (STEP,), (len(z),)).assign(data)
    found = found.assign_coords({STEP: np.arange(len(z)), AXIS: drawn[AXIS].values.tolist(), **coords})
    return found.assign_attrs(space=space, base=base_name, seed=seed)


def _asked(points: Any, steps: int | None) -> np.ndarray:
    """Points `(k, 2)` as they are, or `steps` of them at equal distances along the line through them, `(steps, 2)`."""
    try:
        found = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        raise UsageError(
            f"points of shape {found.shape} were given; give one or more finite pairs, such as [[-1, 0], [1, 2]] "
            "(--point=-1:0 --point=1:2)."
        )
    if steps is None:
        return found
    if steps < 2 or len(found) < 2:
        raise UsageError(f"a line needs two points and two steps or more; {len(found)} and {steps} were given.")
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(found, axis=0), axis=1))])
    if not along[-1] > 0:
        raise UsageError("the points of the line are all the same one.")
    where = np.linspace(0, along[-1], steps)
    return np.stack([np.interp(where, along, column) for column in found.T], axis=1)


def _from_embedding(
    encoded: Run, drawn: xr.Dataset, space: str, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Latents of points in an embedding `(k, *shape)`, where they lie in it, and what else is known."""
    known = [drawn.attrs.get(key) for key in ("method", "weights_sha256")]
    if known != [space, encoded.attrs["weights_sha256"]]:
        raise UsageError(
            f"the scatter is of {known[0]!r} of run {drawn.attrs.get('run')!r}; give one of {space!r} of run "
            f"{encoded.name!r} as it is now, or none."
        )
    if drawn.sizes[AXIS] != 2:
        raise UsageError(f"the latents have one dimension, so that {space} gives a line; use space='plane'.")
    if "components" in drawn:
        components, mean = drawn["components"].values.reshape(2, -1), drawn["mean"].values.ravel()
        z = mean + asked @ components
        return z.reshape(-1, *encoded.latent_shape).astype("f4"), (z - mean) @ components.T, {}
    from scipy.spatial import cKDTree

    positions = drawn["position"].values
    nearest = np.asarray(cKDTree(positions).query(asked)[1])
    places = np.stack(np.unravel_index(drawn["number"].values[nearest], encoded.grid), axis=1)
    z = filled(encoded, np.stack([encoded.latents[tuple(place)].values for place in places]))
    return z, positions[nearest], {"nearest": (STEP, nearest, {"long_name": "nearest encoded sample, along point"})}
