"""Layouts of samples in a plane: PCA, t-SNE, UMAP."""

from __future__ import annotations

import importlib
import warnings
from typing import Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.points import navigation_of
from vaearr.errors import NoInputError, UsageError, did_you_mean, need

POINT, AXIS = "point", "axis"
MAX_POINTS = 5000
MAX_VALUES = 50  # of a sample for t-SNE and UMAP
MIN_POINTS = 4
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
    nav = navigation_of(latents)
    samples = latents.reset_coords(drop=True).stack({POINT: nav}, create_index=False)
    samples = samples.transpose(POINT, ...)
    samples = samples.fillna(samples.mean(schema.position_dims(samples)))
    candidates = np.flatnonzero(samples.notnull().all(samples.dims[1:]))
    numbers = candidates[subsample(len(candidates), max_points, seed)]
    if len(numbers) < MIN_POINTS:
        raise NoInputError(
            f"an embedding needs {MIN_POINTS} samples or more; {len(numbers)} are known."
        )
    samples = samples[numbers]
    with reproducible():
        if method == "pca":
            result = _pca(samples, seed)
        elif method == "tsne":
            result = _tsne(samples, min(perplexity, (len(numbers) - 1) / 3), seed)
        else:
            result = _umap(samples, min(neighbours, len(numbers) - 1), seed)
    result["position"].attrs = {"long_name": f"position by {NAMES[method]}", "units": "1"}
    result[AXIS] = [f"{NAMES[method]} {i + 1}" for i in range(result.sizes[AXIS])]
    result = result.assign_coords({name: samples[name] for name in nav if name in samples.coords})
    number = (POINT, numbers, {"long_name": "number of the sample, row-major"})
    return result.assign_coords(number=number).assign_attrs(
        method=method, seed=seed, n_points=len(numbers), n_known=len(candidates)
    )


def _pca(samples: xr.DataArray, seed: int) -> xr.Dataset:
    from sklearn.decomposition import PCA

    values = _values(samples)
    pca = PCA(min(2, values.shape[1]), random_state=seed)
    result = _positions(pca.fit_transform(values))
    shape = samples.shape[1:]
    dims = tuple(map(str, samples.dims[1:]))
    components = pca.components_.reshape(-1, *shape)
    result["components"] = n.named((AXIS, *dims), components, "principal component")
    result["mean"] = n.named(dims, pca.mean_.reshape(shape), "mean latent")
    return result.assign_attrs(explained_variance_ratio=pca.explained_variance_ratio_.tolist())


def _values(samples: xr.DataArray) -> np.ndarray:
    return samples.values.reshape(len(samples), -1).astype("f8")


def _positions(values: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"position": ((POINT, AXIS), values.astype("f8"))})


def _tsne(samples: xr.DataArray, perplexity: float, seed: int) -> xr.Dataset:
    from sklearn.manifold import TSNE

    values = _reduced(samples, seed)
    init = "pca" if values.shape[1] > 1 else "random"
    tsne = TSNE(2, perplexity=perplexity, init=init, random_state=seed, n_jobs=1)
    return _positions(tsne.fit_transform(values)).assign_attrs(perplexity=perplexity)


def _umap(samples: xr.DataArray, neighbours: int, seed: int) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # of TensorFlow, which UMAP does not need
        umap = importlib.import_module("umap")
    init = "spectral" if len(samples) > 2 * MIN_POINTS else "random"
    model = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1, init=init)
    position = model.fit_transform(_reduced(samples, seed))
    return _positions(position).assign_attrs(neighbours=neighbours)


def _reduced(samples: xr.DataArray, seed: int) -> np.ndarray:
    """Values `(n, MAX_VALUES)`, by principal components of samples that have more."""
    from sklearn.decomposition import PCA

    values = _values(samples)
    if values.shape[1] > MAX_VALUES:
        values = PCA(MAX_VALUES, random_state=seed).fit_transform(values)
    return values.astype("f4")
