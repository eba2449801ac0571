"""Points and lines drawn in a plane of latents or in an embedding, decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.exploration.bases import Base, decoded_grid, start
from vaearr.analysis.exploration.embeddings import AXIS, MAX_POINTS, METHODS, embedding
from vaearr.analysis.exploration.points import (
    POINT,
    all_vectors,
    class_coords,
    classes_if_any,
    dimensions,
    open_encoded,
    point_coords,
    some,
)
from vaearr.errors import DataError, UsageError, did_you_mean
from vaearr.run import Run, open_run

PLANE, STEP = "plane", "step"


def path(
    store: str | Path,
    run: str = n.DEFAULT_RUN,
    points: Sequence[Sequence[float]] | np.ndarray = (),
    *,
    space: str = PLANE,
    dims: tuple[int, int] = (0, 1),
    steps: int | None = None,
    base: Base = "mean",
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
    if space != PLANE and space not in METHODS:
        raise UsageError(f"there is no space {space!r}.{did_you_mean(space, [PLANE, *METHODS])}")
    if space != PLANE and (tuple(dims), base) != ((0, 1), "mean"):
        raise UsageError(f"dims and base (--dim, --base) are of --space plane; leave them out, or {space!r}.")
    asked = spread(_checked(points), steps)
    encoded, opened = open_encoded(store, run), open_run(store, run)
    extra: dict[str, Any] = {}
    name = PLANE
    if space == PLANE:
        chosen = dimensions(list(dims), encoded.latent_shape[0])
        if len(chosen) != 2:
            raise UsageError(f"a plane is of two dimensions, {len(chosen)} were given: {chosen}.")
        begin = start(encoded, opened, base, by)
        z, position, name = begin.moved(chosen, asked), asked, begin.name
        axes, drawn = [f"latent {d}" for d in chosen], _plane_scatter(encoded, chosen, by, seed, max_points)
    else:
        if scatter is None:
            scatter = embedding(store, run, space, seed=seed, max_points=max_points, perplexity=perplexity, by=by)
        drawn = scatter
        _check_scatter(drawn, space, encoded)
        axes = [str(a) for a in drawn[AXIS].values]
        z, position, extra = _from_embedding(encoded, drawn, asked)
    words = {"units": "1"}
    return xr.Dataset(
        {
            "latents": ((STEP, *n.latent_dims(z.ndim - 1)), z, {"long_name": "latents of the points", **words}),
            "decoded": decoded_grid(opened, z, (STEP,), (len(z),)),
            "requested": ((STEP, AXIS), asked, {"long_name": "point asked for", **words}),
            "position": ((STEP, AXIS), position, {"long_name": "position of the latents", **words}),
            "scatter": ((POINT, AXIS), drawn["position"].values, {"long_name": "encoded samples", **words}),
            **extra,
        },
        coords={
            STEP: np.arange(len(z)),
            AXIS: axes,
            n.LATENT: np.arange(z.shape[1]),
            **{str(k): v for k, v in drawn.coords.items() if v.dims == (POINT,)},
        },
        attrs={**opened.attrs, "space": space, "base": name if space == PLANE else space, "seed": seed},
    )


def spread(points: np.ndarray, steps: int | None) -> np.ndarray:
    """Points `(k, 2)` as they are, or `steps` of them at equal distances along the line through them, `(steps, 2)`."""
    if steps is None:
        return points
    if steps < 2 or len(points) < 2:
        raise UsageError(f"a line needs two points and two steps or more; {len(points)} and {steps} were given.")
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    if not along[-1] > 0:
        raise UsageError("the points of the line are all the same one.")
    kept = np.concatenate([[True], lengths > 0])
    where = np.linspace(0, along[-1], steps)
    return np.stack([np.interp(where, along[kept], column[kept]) for column in points.T], axis=1)


def _checked(points: Any) -> np.ndarray:
    if not len(points):
        raise UsageError("a path needs points; give one or more, such as [[-1, 0], [1, 2]] (--point=-1:0 --point=1:2).")
    try:
        found = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.ndim != 2 or found.shape[1] != 2 or not len(found) or not np.isfinite(found).all():
        raise UsageError(f"points of shape {found.shape} were given; give one or more finite pairs, such as [[0, 1]].")
    return found


def _plane_scatter(encoded: Run, dims: list[int], by: str | None, seed: int, max_points: int) -> xr.Dataset:
    """The samples in a plane of latents (of spatial ones the means over positions), a seeded choice of them."""
    numbers, vectors = all_vectors(encoded)
    picked = some(len(numbers), max_points, seed)
    numbers, vectors = numbers[picked], vectors[picked]
    coords = point_coords(encoded, numbers)
    classes = classes_if_any(encoded.ds, by)
    if classes is not None:
        coords |= class_coords(classes, numbers)
    return xr.Dataset({"position": ((POINT, AXIS), vectors[:, dims])}, coords=coords)


def _check_scatter(drawn: xr.Dataset, space: str, encoded: Run) -> None:
    if drawn.attrs.get("method") != space or drawn.attrs.get("weights_sha256") != encoded.attrs["weights_sha256"]:
        raise UsageError(
            f"the scatter is of {drawn.attrs.get('method')!r} of run {drawn.attrs.get('run')!r}; give one of {space!r} "
            f"of run {encoded.name!r} as it is now, or none."
        )
    if drawn.sizes[AXIS] != 2:
        raise UsageError(f"the latents have one dimension, so that {space} gives a line; use space='plane'.")


def _from_embedding(
    encoded: Run, drawn: xr.Dataset, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Latents of points in an embedding `(k, *shape)`, where they lie in it, and what else is known."""
    if "components" in drawn:
        components = drawn["components"].values.reshape(len(drawn[AXIS]), -1)
        mean = drawn["mean"].values.ravel()
        if mean.size != int(np.prod(encoded.latent_shape)):
            raise UsageError("the scatter is of pooled latents, which do not decode; make it with pooled=False.")
        z = mean + asked @ components
        return z.reshape(-1, *encoded.latent_shape).astype("f4"), (z - mean) @ components.T, {}
    from scipy.spatial import cKDTree

    positions = drawn["position"].values
    nearest = np.asarray(cKDTree(positions).query(asked)[1])
    z = _stored(encoded, drawn["number"].values[nearest])
    words = {"long_name": "nearest encoded sample, index along point"}
    return z, positions[nearest], {"nearest": (STEP, nearest, words)}


def _stored(encoded: Run, wanted: np.ndarray) -> np.ndarray:
    """Latents of samples by their number, `(k, *shape)`."""
    z = np.full((len(wanted), *encoded.latent_shape), np.nan, np.float32)
    for numbers, rows in encoded.latent_blocks():
        place = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
        here = numbers[place] == wanted
        z[here] = rows[place[here]]
    if not np.isfinite(z).all():
        raise DataError("latents are missing at some positions of the samples, where a mask left them out.")
    return z
