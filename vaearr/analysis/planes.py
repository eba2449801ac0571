"""Layouts of samples in a plane: PCA, t-SNE, UMAP."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError, did_you_mean, need

POINT, AXIS = "point", "axis"
MAX_POINTS = 5000
MOST_VALUES = 50  # of a sample, before neighbours are looked for
LEAST_POINTS = 4
NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}


def embed(
    latents: xr.DataArray,
    method: Literal["tsne", "pca", "umap"] = "tsne",
    *,
    seed: int = 0,
    max_points: int = MAX_POINTS,
    perplexity: float = 30.0,
    neighbours: int = 15,
) -> xr.Dataset:
    """Lay out samples in a plane by their latents.

    Parameters
    ----------
    latents
        Over navigation dims (`z`, `y`, `x` or `sample`) and the dims of a sample's latents. Samples
        with missing latents are left out; missing positions of a spatial latent count as the
        channel's mean.
    method
        "pca": the two principal components, linear with an exact inverse. "tsne": keeps neighbours
        together [1]_. "umap": likewise, faster [2]_; needs umap-learn. For the latter two, samples
        of more than 50 values are first reduced to 50 principal components.
    seed
        The same seed gives the same positions.
    max_points
        Largest number of samples; of more, a random subset is used.
    perplexity
        t-SNE: approximate number of neighbours that count; at most a third of the other points.
    neighbours
        UMAP: number of neighbours of a point; at most the other points.

    Returns
    -------
    xarray.Dataset
        `position (point, axis)`, with the navigation coordinates of each point and its `number` in
        the grid, row-major; of `pca` also `components (axis, latent[, lz, ly, lx])` and `mean
        (latent[, …])`. The attributes hold the settings that were used.

    Raises
    ------
    UsageError
        For an unknown method, a perplexity that is not positive or fewer than 2 neighbours.
    MissingExtraError
        For `umap` without umap-learn.
    NoInputError
        For fewer than four samples.

    References
    ----------
    .. [1] van der Maaten & Hinton, J. Mach. Learn. Res. 9, 2579 (2008).
    .. [2] McInnes, Healy & Melville, arXiv:1802.03426.

    Examples
    --------
    >>> import vaearr as va
    >>> from vaearr.testing import synthetic_scan
    >>> ds = synthetic_scan(nx=16, ny=12)
    >>> layout = va.embed(ds.elements.rename(element="latent"), "pca")
    >>> layout.position.dims
    ('point', 'axis')
    """
    from vaearr.analysis.clustering.methods import reproducible, subsample

    if method not in NAMES:
        raise UsageError(f"there is no embedding {method!r}.{did_you_mean(method, sorted(NAMES))}")
    if method == "umap":
        need("umap", "vaearr[umap]", "the method umap (others: pca, tsne)")
    if not perplexity > 0 or neighbours < 2:
        raise UsageError(
            f"perplexity {perplexity} must be positive, and neighbours {neighbours} 2 or more."
        )
    nav = [dim for dim in latents.dims if dim in (*n.SCAN_DIMS, n.SAMPLE)]
    samples = (
        latents.reset_coords(drop=True)
        .stack({POINT: nav}, create_index=False)
        .transpose(POINT, ...)
    )
    samples = samples.fillna(samples.mean(schema.position_dims(samples)))
    rows = samples.values.reshape(len(samples), -1).astype("f8")
    known = np.flatnonzero(np.isfinite(rows).all(1))
    numbers = known[subsample(len(known), max_points, seed)]
    rows = rows[numbers]
    if len(rows) < LEAST_POINTS:
        raise NoInputError(
            f"an embedding needs {LEAST_POINTS} samples or more; {len(rows)} are known."
        )
    attrs: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "n_points": len(numbers),
        "n_known": len(known),
    }
    data: dict[str, Any] = {}
    with reproducible():
        position = rows
        if method == "pca" or rows.shape[1] > MOST_VALUES:
            from sklearn.decomposition import PCA

            n_axes = min(2 if method == "pca" else MOST_VALUES, rows.shape[1])
            pca = PCA(n_axes, random_state=seed)
            position = pca.fit_transform(rows)
        if method == "pca":
            shape, dims = samples.shape[1:], tuple(map(str, samples.dims[1:]))
            components = pca.components_.reshape(-1, *shape)
            data["components"] = n.named((AXIS, *dims), components, "principal component")
            data["mean"] = n.named(dims, pca.mean_.reshape(shape), "mean latent")
            attrs["explained_variance_ratio"] = pca.explained_variance_ratio_.tolist()
        elif method == "tsne":
            attrs["perplexity"] = min(perplexity, (len(rows) - 1) / 3)
            position = _tsne(position.astype("f4"), attrs["perplexity"], seed)
        else:
            attrs["neighbours"] = min(neighbours, len(rows) - 1)
            position = _umap(position.astype("f4"), attrs["neighbours"], seed)
    coords = {
        "number": (POINT, numbers, {"long_name": "number of the sample, row-major"}),
        AXIS: [f"{NAMES[method]} {i + 1}" for i in range(position.shape[1])],
    }
    data["position"] = n.named((POINT, AXIS), position.astype("f8"), f"position by {NAMES[method]}")
    places = samples.isel({POINT: numbers}).coords
    return xr.Dataset(
        data, {**{name: places[name] for name in nav if name in places}, **coords}, attrs
    )


def _tsne(values: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    init = "pca" if values.shape[1] > 1 else "random"
    found = TSNE(
        2, perplexity=perplexity, init=init, learning_rate="auto", random_state=seed, n_jobs=1
    )
    return np.asarray(found.fit_transform(values))


def _umap(values: np.ndarray, neighbours: int, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ImportWarning
        )  # tells of TensorFlow, which only its other class needs
        umap = importlib.import_module("umap")
    init = "spectral" if len(values) > 2 * LEAST_POINTS else "random"
    found = umap.UMAP(
        n_components=2, n_neighbors=neighbours, random_state=seed, n_jobs=1, init=init
    )
    return np.asarray(found.fit_transform(values))
