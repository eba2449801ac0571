"""All samples in a plane, by their latents: PCA, t-SNE, UMAP."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.exploration.amounts import amounts, check_amounts
from vaearr.analysis.exploration.components import rows_pca
from vaearr.analysis.exploration.points import (
    POINT,
    class_coords,
    classes_if_any,
    open_encoded,
    point_coords,
    some_rows,
)
from vaearr.errors import NoInputError, UsageError, did_you_mean, need

AXIS = "axis"
MAX_POINTS = 5000
MOST_VALUES = 50  # of a sample, before neighbours are looked for
LEAST_POINTS = 4

Found = tuple[np.ndarray, dict[str, Any]]


def embedding(
    store: str | Path,
    run: str = n.DEFAULT_RUN,
    method: str = "tsne",
    *,
    seed: int = 0,
    max_points: int = MAX_POINTS,
    perplexity: float = 30.0,
    neighbours: int = 15,
    by: str | None = None,
    pooled: bool = False,
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
    by its name or label (`BC`, `Fe`, `phase: bcc`), as in `associate`.

    Other coordinates: the navigation coordinates of each point and its number in the grid, row-major. The same call
    gives the same positions. Raises UsageError for a method that is not there or settings that cannot be meant,
    MissingExtraError without umap-learn, NoInputError for a run not encoded or with fewer than four samples, DataError
    for latents that a mask left out at some positions unless `pooled`.
    """
    if method not in METHODS:
        raise UsageError(f"there is no embedding {method!r}.{did_you_mean(method, sorted(METHODS))}")
    if method == "umap":
        need("umap", "vaearr[umap]", "the method umap (others: pca, tsne)")
    if not perplexity > 0 or neighbours < 2:
        raise UsageError(f"perplexity {perplexity} must be positive, and neighbours {neighbours} 2 or more.")
    encoded = open_encoded(store, run)
    check_amounts(encoded, color)
    numbers, values, total = some_rows(encoded, max_points, seed, pool=pooled)
    if len(values) < LEAST_POINTS:
        raise NoInputError(f"an embedding needs {LEAST_POINTS} samples or more; run {run!r} has {len(values)}.")
    position, about = METHODS[method](values, seed, perplexity, neighbours)
    shape = encoded.latent_shape[:1] if pooled else encoded.latent_shape
    extra: dict[str, Any] = {}
    if method == n.PCA:
        components = about.pop("components").reshape(-1, *shape)
        extra = {
            "components": (
                (AXIS, *n.latent_dims(components.ndim - 1)),
                components,
                {"long_name": "principal component"},
            ),
            "mean": (
                n.latent_dims(components.ndim - 1),
                about.pop("mean").reshape(shape),
                {"long_name": "mean latent"},
            ),
        }
    if color:
        extra["amount"] = amounts(encoded, color, numbers)
    coords = point_coords(encoded, numbers)
    classes = classes_if_any(encoded.ds, by)
    if classes is not None:
        coords |= class_coords(classes, numbers)
    words = {"long_name": f"position by {NAMES[method]}", "units": "1"}
    return xr.Dataset(
        {"position": ((POINT, AXIS), position.astype(np.float64), words), **extra},
        coords={**coords, AXIS: (AXIS, [f"{NAMES[method]} {i + 1}" for i in range(position.shape[1])])},
        attrs={**encoded.attrs, "method": method, "seed": seed, "n_points": len(numbers), "n_known": total, **about},
    )


def _pca(values: np.ndarray, seed: int, perplexity: float, neighbours: int) -> Found:
    found = rows_pca(values, min(2, values.shape[1]), seed)
    about = {"components": found.components, "mean": found.mean, "explained_variance_ratio": found.ratio.tolist()}
    return (values - found.mean) @ found.components.T, about


def _tsne(values: np.ndarray, seed: int, perplexity: float, neighbours: int) -> Found:
    from sklearn.manifold import TSNE

    from vaearr.analysis.clustering.methods import reproducible

    used = min(perplexity, (len(values) - 1) / 3)
    with reproducible():
        few = _few(values, seed)
        init = "pca" if few.shape[1] > 1 else "random"
        made = TSNE(2, perplexity=used, init=init, learning_rate="auto", random_state=seed, n_jobs=1)
        position = made.fit_transform(few)
    return position, {"perplexity": used, "divergence": float(made.kl_divergence_)}


def _umap(values: np.ndarray, seed: int, perplexity: float, neighbours: int) -> Found:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # tells of TensorFlow, which only its other class needs
        umap = importlib.import_module("umap")
    used = min(neighbours, len(values) - 1)
    init = "spectral" if len(values) > 2 * LEAST_POINTS else "random"
    made = umap.UMAP(n_components=2, n_neighbors=used, random_state=seed, n_jobs=1, init=init)
    return np.asarray(made.fit_transform(_few(values, seed))), {"neighbours": used}


def _few(values: np.ndarray, seed: int) -> np.ndarray:
    """Rows of at most 50 values, float32."""
    if values.shape[1] > MOST_VALUES:
        found = rows_pca(values, min(MOST_VALUES, len(values) - 1), seed)
        values = (values - found.mean) @ found.components.T
    return np.ascontiguousarray(values, np.float32)


METHODS: dict[str, Callable[[np.ndarray, int, float, int], Found]] = {n.PCA: _pca, "tsne": _tsne, "umap": _umap}
NAMES = {n.PCA: "PCA", "tsne": "t-SNE", "umap": "UMAP"}
