"""Decode the typical samples of classes, and latents along single dimensions, planes and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import xarray as xr
from scipy.spatial import cKDTree

from vaearr import names as n
from vaearr.analysis.latents import (
    channel_means,
    references_of,
    samples_along,
    shifted,
    typical_index,
)
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.run import Run
from vaearr.run.decode import decoded_array, decoded_latents
from vaearr.run.draw import stored_sample
from vaearr.run.points import LATENT_DIM, POINT, dimensions, encoded_latents, latent_points, subset
from vaearr.run.statistics import latent_statistics, strongest_dimensions
from vaearr.schema.classes import CLASS, classes_of
from vaearr.schema.grid import find_point, grid_indices, sample_words

TYPICAL, MEAN, PROTOTYPE = "typical", "mean", "prototype"
STEP, AXIS = "step", "axis"
ROW, COLUMN = "row", "column"
DECODED = "latents that were decoded"

Base = str | int | Mapping[str, Any] | Sequence[float] | np.ndarray
Space = Literal["plane", "pca", "tsne", "umap"]
Unit = Literal["std", "absolute"]
Others = Literal["data", "base"]
UNITS, OTHERS = get_args(Unit), get_args(Others)


class Start(NamedTuple):
    """Latents `(L[, lz, ly, lx])` that a traversal starts from, and what they are.

    `coords` locate the sample of the store, such as `base_x` and `base_y`, if it is one.
    """

    latents: np.ndarray
    description: str
    coords: dict[str, Any]


def prototypes(run: Run, by: str | None, classes: Sequence[str] | None) -> xr.Dataset:
    """Decode the typical sample and the mean latents of each class, see `Run.prototypes`."""
    codes = classes_of(run.ds, by, classes)
    if codes is None:
        raise NoInputError(
            "the samples have no classes; name a map (by='…', --by), or cluster them first."
        )
    by = codes.attrs["long_name"]
    numbers, latents = encoded_latents(run)
    code_of_sample = codes.values.ravel()[numbers]
    encoded_codes = np.unique(code_of_sample[code_of_sample >= 0])
    if not len(encoded_codes):
        raise NoInputError(f"no encoded sample has a class by {by!r}; choose another map.")
    counts, means, typical = [], [], []
    for code in encoded_codes:
        members = np.flatnonzero(code_of_sample == code)
        mean = latents[members].mean(0, dtype="f8")
        counts.append(len(members))
        means.append(mean)
        typical.append(members[typical_index(latents[members], mean)])
    sizes = {CLASS: len(counts)}
    result = decoded_latents(run, np.stack(means), sizes, DECODED)
    result = result.rename(decoded="decoded_mean")
    result["decoded"] = decoded_array(run, latents[typical], sizes)
    result["sample_latents"] = result["latents"].copy(data=latents[typical])
    result["sample_latents"].attrs["long_name"] = "of the typical sample"
    result["n"] = n.named(CLASS, counts, "samples")
    names = [codes.attrs["flag_meanings"][code + 1] for code in encoded_codes]
    result[CLASS] = CLASS, names, {"long_name": by}
    result.coords["number"] = n.named(
        CLASS, numbers[typical], "number of the typical sample, row-major"
    )
    for dim, indices in grid_indices(run.ds, numbers[typical]).items():
        coordinate = run.ds[dim]
        result.coords[f"{dim}_of_sample"] = CLASS, coordinate.values[indices], coordinate.attrs
    return result.assign_attrs(by=by)


def traverse(
    run: Run,
    dims: int | Sequence[int] | None,
    base: Base,
    span: tuple[float, float],
    steps: int,
    unit: Unit,
    by: str | None,
    others: Others,
) -> xr.Dataset:
    """Decode latents along single dimensions, see `Run.traverse`."""
    if others not in OTHERS:
        raise UsageError(f"others (--others) cannot be {others!r}.{did_you_mean(others, OTHERS)}")
    start = start_of(run, base, by)
    if dims is None:
        dims = strongest_dimensions(run)
    selected = dimensions(dims, len(start.latents))
    requested = _values(run, start, selected, span, steps, unit)
    latents = _rows(run, start, selected, requested, others)
    values = []
    for dim, row in zip(selected, latents, strict=True):
        values.append(row[:, dim].reshape(steps, -1).mean(1))
    sizes = {LATENT_DIM: len(selected), STEP: steps}
    result = decoded_latents(run, np.concatenate(latents), sizes, DECODED)
    base_dims = n.latent_dims(start.latents.ndim)
    result["base"] = n.named(base_dims, start.latents.astype("f4"), start.description)
    result[LATENT_DIM] = LATENT_DIM, selected, n.ATTRS[n.LATENT]
    result[STEP] = np.arange(steps)
    result.coords["value"] = n.named((LATENT_DIM, STEP), values, "value of the dimension")
    result = result.assign_coords(start.coords)
    return result.assign_attrs(base=start.description, unit=unit, span=list(span), others=others)


def _rows(
    run: Run, start: Start, dims: Sequence[int], values: np.ndarray, others: Others
) -> list[np.ndarray]:
    """Latents `(steps, L[, …])` for each dimension and its values, see `Run.traverse`."""
    rows = list(zip(dims, values, strict=True))
    if others == "base":
        return [shifted(start.latents, [dim], row[:, None]) for dim, row in rows]
    _, encoded = encoded_latents(run)
    samples = np.concatenate([start.latents[None], references_of(encoded)])
    scale = latent_statistics(run)["aggregate_std"].values
    return [samples_along(start.latents, samples, scale, dim, row) for dim, row in rows]


def manifold(
    run: Run,
    dims: Sequence[int] | None,
    base: Base,
    span: tuple[float, float],
    steps: int,
    unit: Unit,
    by: str | None,
) -> xr.Dataset:
    """Decode a grid over two latent dimensions, see `Run.manifold`."""
    start = start_of(run, base, by)
    plane = _plane(run, dims, start)
    across, up = _values(run, start, plane, span, steps, unit)
    if not (np.ptp(across) > 0 and np.ptp(up) > 0):
        raise UsageError(
            f"one of {plane} does not vary over the data; choose others, or unit='absolute'."
        )
    rows, columns = np.meshgrid(up, across, indexing="ij")
    latents = shifted(start.latents, plane, np.stack([columns.ravel(), rows.ravel()], 1))
    result = decoded_latents(run, latents, {ROW: steps, COLUMN: steps}, DECODED)
    result.coords[ROW] = n.named(ROW, up, f"latent {plane[1]}")
    result.coords[COLUMN] = n.named(COLUMN, across, f"latent {plane[0]}")
    result = result.assign_coords(start.coords)
    return result.assign_attrs(base=start.description, unit=unit, span=list(span), dims=plane)


def line(
    run: Run,
    points: Sequence[Sequence[float]] | np.ndarray,
    space: Space,
    dims: Sequence[int] | None,
    steps: int | None,
    base: Base,
    by: str | None,
    seed: int,
    max_points: int,
    perplexity: float,
) -> xr.Dataset:
    """Decode points of a plane, or of a line in it, see `Run.line`."""
    requested = _on_line(points, steps)
    positions = requested
    if space == "plane":
        start = start_of(run, base, by)
        plane = _plane(run, dims, start)
        latents = shifted(start.latents, plane, requested)
        scatter = subset(latent_points(run, by, dims=plane), max_points, seed)
        scatter = scatter.rename({n.LATENT: AXIS, "vectors": "position"})
        scatter[AXIS] = [f"latent {dim}" for dim in plane]
    else:
        if dims is not None or base != TYPICAL:
            raise UsageError(
                f"dims and base (--dim, --base) are of --space plane; leave them out, or {space!r}."
            )
        scatter = run.scatter(space, by=by, seed=seed, max_points=max_points, perplexity=perplexity)
        start = Start(np.empty(0), space, {})
        latents, positions = _inverse(run, scatter, requested)
    result = decoded_latents(run, latents, {STEP: len(latents)}, DECODED)
    result["requested"] = n.named((STEP, AXIS), requested, "requested point")
    result["position"] = n.named((STEP, AXIS), positions, "position of the latents")
    result["scatter"] = scatter["position"].drop_attrs()
    result[STEP] = np.arange(len(latents))
    result = result.assign_coords(start.coords)
    for name, coordinate in scatter.coords.items():
        if coordinate.dims == (POINT,):
            result.coords[name] = coordinate
    return result.assign_attrs(space=space, base=start.description, seed=seed)


def _on_line(points: Any, steps: int | None) -> np.ndarray:
    """Points `(k, 2)`, or `steps` points at equal distances along the line through them."""
    corners = np.asarray(points, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise UsageError(
            f"points of shape {corners.shape} were given; give one or more finite pairs, such as "
            "[[-1, 0], [1, 2]] (--point=-1:0 --point=1:2)."
        )
    if steps is None:
        return corners
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    distances = np.concatenate([[0.0], np.cumsum(lengths)])
    if steps < 2 or not distances[-1] > 0:
        raise UsageError("a line needs two different points and two steps or more.")
    even = np.linspace(0, distances[-1], steps)
    return np.stack([np.interp(even, distances, column) for column in corners.T], axis=1)


def _inverse(run: Run, scatter: xr.Dataset, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latents `(k, …)` of points of an embedding, and their positions in it.

    PCA is inverted exactly; of other embeddings the nearest sample is taken.
    """
    if scatter.sizes[AXIS] != 2:
        raise UsageError(f"run {run.name!r} has one latent dimension, so there is no plane.")
    if "components" in scatter:
        components = scatter["components"].values.reshape(2, -1)
        latents = scatter["mean"].values.ravel() + points @ components
        return latents.reshape(-1, *run.latent_shape), points
    positions = scatter["position"].values
    _, nearest = cKDTree(positions).query(points)
    numbers, latents = encoded_latents(run)
    samples = np.searchsorted(numbers, scatter["number"].values[nearest])
    return latents[samples], positions[nearest]


def start_of(run: Run, base: Base, by: str | None) -> Start:
    """Latents to start from, by the `base` of `Run.traverse`."""
    run.check_patterns()
    if isinstance(base, str):
        return _start_of_samples(run, base, by)
    if isinstance(base, int | Mapping):
        pattern = stored_sample(run, base).reshape(1, *run.model.input_shape)
        encoded = run.model.encode_batch(torch.from_numpy(pattern))[0][0]
        return _start_at(run, find_point(run.ds, base), encoded.cpu().numpy())
    latents = np.asarray(base, np.float64)
    if latents.shape != run.latent_shape or not np.isfinite(latents).all():
        raise UsageError(
            f"latents of shape {latents.shape} were given; they must be {run.latent_shape} finite "
            "numbers."
        )
    return Start(latents, "given latents", {})


def _start_at(run: Run, indices: Mapping[str, int], latents: np.ndarray, of: str = "") -> Start:
    """A sample of the store, with its coordinates."""
    coords = {}
    for dim, index in indices.items():
        coords[f"base_{dim}"] = run.ds[dim][index].reset_coords(drop=True).variable
    return Start(latents.astype("f8"), sample_words(run.ds, indices) + of, coords)


def _start_of_samples(run: Run, base: str, by: str | None) -> Start:
    """The typical sample or the mean of all samples or of a class."""
    kind, _, class_name = base.partition(":")
    kinds = [TYPICAL, PROTOTYPE] if class_name else [TYPICAL, MEAN]
    if kind not in kinds:
        raise UsageError(
            f"there is no base {base!r}; give 'typical', 'mean', 'typical:NAME' or "
            "'prototype:NAME' of a class, a sample or a vector of latents."
        )
    numbers, latents = encoded_latents(run)
    group = "all samples"
    if class_name:
        codes = classes_of(run.ds, by, [class_name])
        assert codes is not None
        is_member = codes.values.ravel()[numbers] >= 0
        numbers = numbers[is_member]
        latents = latents[is_member]
        group = f"{codes.attrs['long_name']} {class_name}"
    if not len(latents):
        raise NoInputError(f"no encoded sample is of {group}; choose another class.")
    mean = latents.mean(0, dtype="f8")
    if kind != TYPICAL:
        return Start(mean, f"mean of {group}", {})
    typical = typical_index(latents, mean)
    indices = grid_indices(run.ds, numbers[typical])
    return _start_at(run, indices, latents[typical], f", typical of {group}")


def _plane(run: Run, dims: Sequence[int] | None, start: Start) -> list[int]:
    if dims is None:
        dims = strongest_dimensions(run)[:2]
    plane = dimensions(dims, len(start.latents))
    if len(plane) != 2:
        raise UsageError(f"a plane has two dimensions, {len(plane)} were given: {plane}.")
    return plane


def _values(
    run: Run,
    start: Start,
    dims: Sequence[int],
    span: tuple[float, float],
    steps: int,
    unit: str,
) -> np.ndarray:
    """Values `(len(dims), steps)` of dimensions over a span in a unit, see `Run.traverse`."""
    if unit not in UNITS:
        raise UsageError(f"there is no unit {unit!r}.{did_you_mean(unit, UNITS)}")
    low, high = span
    if steps < 2 or not (np.isfinite([low, high]).all() and low < high):
        raise UsageError(
            f"span {low:g} to {high:g} in {steps} steps is not possible; give low < high and two "
            "steps or more."
        )
    offsets = np.linspace(low, high, steps)
    if unit == "absolute":
        return np.tile(offsets, (len(dims), 1))
    selected = list(dims)
    std = latent_statistics(run)["aggregate_std"].values[selected]
    centre = channel_means(start.latents)[selected]
    return np.asarray(centre[:, None] + offsets * std[:, None])
