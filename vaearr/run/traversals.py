"""What classes, single latent dimensions, planes and lines decode to: latents moved away from a
base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.run.points import CLASS, POINT, classes_of, dimensions, latent_points, some
from vaearr.schema.grid import find_point

if TYPE_CHECKING:
    from vaearr.run import Run

TYPICAL, MEAN, PROTOTYPE = "typical", "mean", "prototype"
LATENT_DIM, STEP, AXIS = "latent_dim", "step", "axis"
ROW, COLUMN = "row", "column"

Base = str | int | Path | Mapping[str, Any] | Sequence[float] | np.ndarray
Unit = Literal["std", "absolute"]


def prototypes(
    run: Run, by: str | None = None, *, classes: Sequence[str] | None = None
) -> xr.Dataset:
    """Find a typical sample of each class, and the mean of its latents; decode both.

    The typical sample is the one nearest the mean, of the half that have the closest neighbours.
    The mean of a class of several orientations or shapes lies where no sample does, so that it
    decodes to none of them.

    Parameters
    ----------
    by
        Map or coordinate with a class for each sample; None for the first of label, phase and
        clusters that exists.
    classes
        Names of the classes to show; None for all. Those without an encoded sample are left out.

    Returns
    -------
    xarray.Dataset
        `decoded (class, [channel,] dy, dx)` of the typical sample, with its latents
        `sample_latents`, and its coordinates `number` and `x_of_sample`, …; `decoded_mean` of the
        mean latents `latents (class, latent[, lz, ly, lx])`, in the same units, which the attribute
        `scale` states; `n (class)`.

    Raises
    ------
    NoInputError
        For a run that is not encoded, a map that does not exist, classes without samples.
    UsageError
        For a map that holds no classes, or not those asked for.
    """
    from vaearr.run.draw import decoded_array
    from vaearr.run.nearest import known_rows

    codes = classes_of(run.ds, by, classes)
    if codes is None:
        raise NoInputError(
            "the samples have no classes; name a map (by='…', --by), or cluster them first."
        )
    numbers, rows = known_rows(run)
    code_of_row = codes.values.ravel()[numbers]
    names, counts, chosen, means, typical_latents = [], [], [], [], []
    for code, name in enumerate(codes.attrs["flag_meanings"][1:]):
        members = np.flatnonzero(code_of_row == code)
        if len(members):
            typical, latents, mean = typical_and_mean(run, rows[members])
            names.append(name)
            counts.append(len(members))
            chosen.append(numbers[members[typical]])
            typical_latents.append(latents)
            means.append(mean)
    if not names:
        raise NoInputError(
            f"no encoded sample has a class by {codes.attrs['long_name']!r}; choose another map."
        )
    found = decoded(run, np.stack(means), {CLASS: len(names)}).rename(decoded="decoded_mean")
    found["decoded"] = decoded_array(run, np.stack(typical_latents), CLASS)
    found["sample_latents"] = (
        found["latents"].dims,
        np.stack(typical_latents),
        {"long_name": "of the typical sample"},
    )
    found["n"] = n.named(CLASS, counts, "samples")
    found[CLASS] = CLASS, names, {"long_name": codes.attrs["long_name"]}
    found = found.assign_coords(
        number=(CLASS, chosen, {"long_name": "number of the typical sample, row-major"})
    )
    for dim, indices in place_of(run, np.asarray(chosen)).items():
        found.coords[f"{dim}_of_sample"] = CLASS, run.ds[dim].values[indices], run.ds[dim].attrs
    return found.assign_attrs(by=codes.attrs["long_name"])


def traverse(
    run: Run,
    dims: int | Sequence[int] | None = None,
    *,
    base: Base = TYPICAL,
    span: tuple[float, float] = (-3.0, 3.0),
    steps: int = 9,
    unit: Unit = "std",
    by: str | None = None,
) -> xr.Dataset:
    """Move one latent dimension after another away from a base and decode; the others keep the
    base's values.

    Parameters
    ----------
    dims
        One dimension or several; None for all.
    base
        `typical`: of the half of the samples that have the closest neighbours the one nearest the
        mean of all; `typical:NAME`: the same of a class. `mean` of all samples, `prototype:NAME` of
        a class, which may lie where no sample does. A sample, as a number or `{"x": …, "y": …}`, or
        a Path, of a file. Or latents `(L[, lz, ly, lx])`.
    span
        From and to, either side of the base's own value in units of `std`, else values of the
        dimension.
    steps
        Pictures of each dimension.
    unit
        `std`: standard deviations of the aggregate posterior, or `absolute`. A channel of a spatial
        latent is shifted as a whole, its value is the mean over positions.
    by
        Map with the class that `base` names, as of `prototypes`.

    Returns
    -------
    xarray.Dataset
        `decoded (latent_dim, step, [channel,] dy, dx)`, `latents (latent_dim, step, latent[, …])`,
        the coordinate `value (latent_dim, step)`, and `base (latent[, …])`; where the base is a
        sample of the store, its coordinates as `base_x`, …; the attribute `base` in words.

    Raises
    ------
    UsageError
        For a base, dimension or span that cannot be meant.
    NoInputError
        For a run that is not encoded.
    """
    latents, name, coords = start(run, base, by)
    chosen = dimensions(dims, len(latents))
    values = values_of(run, latents, chosen, span, steps, unit)
    z = [moved(latents, [dim], row[:, None]) for dim, row in zip(chosen, values, strict=True)]
    found = decoded(run, np.concatenate(z), {LATENT_DIM: len(chosen), STEP: steps})
    found["base"] = n.named(n.latent_dims(latents.ndim), latents.astype("f4"), name)
    found[LATENT_DIM] = LATENT_DIM, chosen, n.ATTRS[n.LATENT]
    coords |= {
        STEP: np.arange(steps),
        "value": n.named((LATENT_DIM, STEP), values, "value of the dimension"),
    }
    return found.assign_coords(coords).assign_attrs(base=name, unit=unit, span=list(span))


def manifold(
    run: Run,
    dims: Sequence[int] = (0, 1),
    *,
    base: Base = TYPICAL,
    span: tuple[float, float] = (-3.0, 3.0),
    steps: int = 15,
    unit: Unit = "std",
    by: str | None = None,
) -> xr.Dataset:
    """Decode a grid over two latent dimensions; the others keep the base's values.

    Parameters
    ----------
    dims
        The dimension along the columns (to the right) and the one along the rows (upwards: the
        first row is the lowest and holds the least value).
    base, span, steps, unit, by
        As of `traverse`; `steps` of each side.

    Returns
    -------
    xarray.Dataset
        `decoded (row, column, [channel,] dy, dx)`, `latents (row, column, latent[, …])`; the
        coordinates `column` and `row` are the values of the two dimensions.

    Raises
    ------
    UsageError, NoInputError
        As `traverse`, and unless there are two dimensions that vary.
    """
    latents, name, coords = start(run, base, by)
    chosen = plane_of(dims, len(latents))
    across, up = values_of(run, latents, chosen, span, steps, unit)
    if not (np.ptp(across) > 0 and np.ptp(up) > 0):
        raise UsageError(
            f"one of {chosen} does not vary over the data; choose others, or unit='absolute'."
        )
    rows, columns = np.meshgrid(up, across, indexing="ij")
    z = moved(latents, chosen, np.stack([columns.ravel(), rows.ravel()], 1))
    found = decoded(run, z, {ROW: steps, COLUMN: steps})
    coords[ROW] = n.named(ROW, up, f"latent {chosen[1]}")
    coords[COLUMN] = n.named(COLUMN, across, f"latent {chosen[0]}")
    return found.assign_coords(coords).assign_attrs(
        base=name, unit=unit, span=list(span), dims=chosen
    )


def line(
    run: Run,
    points: Sequence[Sequence[float]] | np.ndarray = (),
    *,
    space: Literal["plane", "pca", "tsne", "umap"] = "plane",
    dims: Sequence[int] = (0, 1),
    steps: int | None = None,
    base: Base = TYPICAL,
    by: str | None = None,
    seed: int = 0,
    max_points: int = 5000,
    perplexity: float = 30.0,
    scatter: xr.Dataset | None = None,
) -> xr.Dataset:
    """Decode points of a plane, or evenly spaced ones on the line through them.

    Parameters
    ----------
    points
        `(k, 2)`, in the coordinates of the plane.
    space
        `plane` of two latent dimensions, where all others keep the values of the base; `pca`, whose
        inverse is exact: what is not in the plane stays at the mean; `tsne` or `umap`, which have
        no inverse: the sample that is encoded nearest to each point is decoded.
    dims, base
        Of `plane`, as of `manifold`.
    steps
        Points on the line; None decodes the points themselves.
    by, seed, max_points, perplexity
        As of `scatter`.
    scatter
        A result of `run.scatter` with this method, which is not made again then.

    Returns
    -------
    xarray.Dataset
        `decoded (step, …)`, `latents (step, latent[, lz, ly, lx])`, `requested (step, axis)` as
        asked for, `position (step, axis)` where the latents lie, and `scatter (point, axis)`, the
        samples with their coordinates.

    Raises
    ------
    UsageError
        For points or a space that cannot be meant, and as `scatter` and `traverse`.
    """
    asked = _on_line(points, steps)
    coords: dict[str, Any] = {}
    if space == "plane":
        latents, name, coords = start(run, base, by)
        chosen = plane_of(dims, len(latents))
        z, position = moved(latents, chosen, asked), asked
        drawn = some(latent_points(run, by, dims=chosen), max_points, seed)
        drawn = drawn.rename({n.LATENT: AXIS, "vectors": "position"})
        drawn[AXIS] = [f"latent {dim}" for dim in chosen]
    else:
        if (tuple(dims), base) != ((0, 1), TYPICAL):
            raise UsageError(
                f"dims and base (--dim, --base) are of --space plane; leave them out, or {space!r}."
            )
        name = space
        if scatter is None:
            scatter = run.scatter(
                space, by=by, seed=seed, max_points=max_points, perplexity=perplexity
            )
        drawn = scatter
        z, position = _inverted(run, drawn, space, asked)
    found = decoded(run, z, {STEP: len(z)})
    found["requested"] = n.named((STEP, AXIS), asked, "point asked for")
    found["position"] = n.named((STEP, AXIS), position, "position of the latents")
    found["scatter"] = drawn["position"].drop_attrs()
    of_points = {str(key): coord for key, coord in drawn.coords.items() if coord.dims == (POINT,)}
    found = found.assign_coords({STEP: np.arange(len(z)), **coords, **of_points})
    return found.assign_attrs(space=space, base=name, seed=seed)


def _on_line(points: Any, steps: int | None) -> np.ndarray:
    """Points `(k, 2)` as they are, or `steps` of them at equal distances along the line through
    them, `(steps, 2)`.
    """
    found = np.asarray(points, np.float64)
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        raise UsageError(
            f"points of shape {found.shape} were given; give one or more finite pairs, such as [[-1, 0], [1, 2]] "
            "(--point=-1:0 --point=1:2)."
        )
    if steps is None:
        return found
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(found, axis=0), axis=1))])
    if steps < 2 or not along[-1] > 0:
        raise UsageError("a line needs two different points and two steps or more.")
    where = np.linspace(0, along[-1], steps)
    return np.stack([np.interp(where, along, column) for column in found.T], axis=1)


def _inverted(
    run: Run, drawn: xr.Dataset, space: str, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Latents `(k, *shape)` of points in an embedding, and where they lie in it."""
    from scipy.spatial import cKDTree

    from vaearr.run.nearest import filled, known_rows

    made_of = drawn.attrs.get("method"), drawn.attrs.get("weights_sha256")
    if made_of != (space, run.attrs["weights_sha256"]) or drawn.sizes[AXIS] != 2:
        raise UsageError(
            f"the scatter is no plane by {space!r} of run {run.name!r} now; leave it out, or use space='plane'."
        )
    if "components" in drawn:
        components, mean = drawn["components"].values.reshape(2, -1), drawn["mean"].values.ravel()
        z = mean + asked @ components
        return z.reshape(-1, *run.latent_shape), asked
    positions = drawn["position"].values
    _, nearest = cKDTree(positions).query(asked)
    numbers, rows = known_rows(run)
    wanted = np.searchsorted(numbers, drawn["number"].values[nearest])
    return filled(run, rows[wanted]), positions[nearest]


# ---- bases, and latents moved away from them


def start(run: Run, base: Base, by: str | None = None) -> tuple[np.ndarray, str, dict[str, Any]]:
    """Latents `(L[, lz, ly, lx])` float64 to start from, see `traverse`, what they are in words,
    and their coordinates.

    The coordinates are those of the sample, such as `base_x` and `base_y`; none where the base is
    no sample.
    """
    from vaearr.run.nearest import known_rows

    run.check_model()
    if not isinstance(base, str):
        return _start_of_values(run, base)
    word, _, class_name = base.partition(":")
    words = [TYPICAL, PROTOTYPE] if class_name else [TYPICAL, MEAN]
    if word not in words:
        raise UsageError(
            f"there is no base {base!r}; give 'typical', 'mean', 'typical:NAME' or 'prototype:NAME' of a class, a "
            "sample or a vector of latents."
        )
    numbers, rows = known_rows(run)
    whose = "all samples"
    if class_name:
        codes = classes_of(run.ds, by, [class_name])
        assert codes is not None
        is_member = codes.values.ravel()[numbers] >= 0
        numbers, rows = numbers[is_member], rows[is_member]
        whose = f"{codes.attrs['long_name']} {class_name}"
    if not len(rows):
        raise NoInputError(f"no encoded sample is of {whose}; choose another class.")
    typical, latents, mean = typical_and_mean(run, rows)
    if word != TYPICAL:
        return mean, f"mean of {whose}", {}
    place = place_of(run, numbers[typical])
    return (
        latents.astype("f8"),
        f"{sample_words(run, place)}, typical of {whose}",
        _base_coords(run, place),
    )


def _start_of_values(run: Run, base: Any) -> tuple[np.ndarray, str, dict[str, Any]]:
    """A sample of the store, encoded or not, a file, or latents as they are given."""
    import torch

    from vaearr.run.draw import stored_sample

    if isinstance(base, int | Mapping | Path):
        stored = stored_sample(run, base).reshape(1, *run.model.input_shape)
        latents = run.model.encode_batch(torch.from_numpy(stored))[0][0].cpu().numpy().astype("f8")
        if isinstance(base, Path):
            return latents, base.name, {}
        place = find_point(run.ds, base)
        return latents, sample_words(run, place), _base_coords(run, place)
    latents, shape = np.asarray(base, np.float64), run.latent_shape
    if latents.shape != shape or not np.isfinite(latents).all():
        raise UsageError(
            f"latents of shape {latents.shape} were given; they must be {shape} finite numbers."
        )
    return latents, "given latents", {}


def typical_and_mean(run: Run, rows: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Of latents `(k, *shape)`: the index of the typical ones, these latents, and the mean; without
    missing values.
    """
    from vaearr.run.nearest import filled, typical_index

    mean = filled(run, np.nanmean(rows, axis=0, dtype="f8")[None])[0]
    rows = filled(run, rows)
    typical = typical_index(rows, mean)
    return typical, rows[typical], mean


def place_of(run: Run, number: Any) -> dict[str, Any]:
    """Where samples lie along each navigation dim, by their numbers in the grid."""
    return dict(
        zip(schema.navigation_dims(run.ds), np.unravel_index(number, run.grid), strict=True)
    )


def _base_coords(run: Run, place: Mapping[str, int]) -> dict[str, Any]:
    return {
        f"base_{dim}": run.ds[dim][index].reset_coords(drop=True).variable
        for dim, index in place.items()
    }


def sample_words(run: Run, place: Mapping[str, int]) -> str:
    """A sample in words, such as `sample at x 1.5, y 0.25` or `sample 12`."""
    values = {dim: run.ds[dim].values[index] for dim, index in place.items()}
    if n.SAMPLE in values:
        return f"sample {values[n.SAMPLE]}"
    return "sample at " + ", ".join(f"{dim} {value:g}" for dim, value in reversed(values.items()))


def plane_of(dims: Sequence[int], size: int) -> list[int]:
    """Two latent dimensions. Raises UsageError."""
    chosen = dimensions(dims, size)
    if len(chosen) != 2:
        raise UsageError(f"a plane is of two dimensions, {len(chosen)} were given: {chosen}.")
    return chosen


def moved(latents: np.ndarray, dims: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Copies of latents `(L[, …])` where `dims` have other values: `(k, len(dims)) -> (k, L[, …])`,
    float32.

    A channel of a spatial latent keeps its pattern and is shifted as a whole until its mean is the
    value.
    """
    chosen = list(dims)
    z = np.repeat(latents[None], len(values), axis=0)
    pattern = (latents.T - channel_means(latents)).T[chosen]  # exactly zero for vectors
    z[:, chosen] = pattern + values.reshape(*values.shape, *(1,) * (latents.ndim - 1))
    return z.astype(np.float32)


def channel_means(latents: np.ndarray) -> np.ndarray:
    """Value of each dimension of latents `(L[, …])`: of a spatial latent the mean over its
    positions.
    """
    return np.asarray(latents.reshape(len(latents), -1).mean(1))


def values_of(
    run: Run,
    latents: np.ndarray,
    dims: Sequence[int],
    span: tuple[float, float],
    steps: int,
    unit: str,
) -> np.ndarray:
    """Values `(len(dims), steps)` over a span: of standard deviations from the latents, or as they
    are.
    """
    from vaearr.run.statistics import latent_sums

    if unit not in ("std", "absolute"):
        raise UsageError(f"there is no unit {unit!r}.{did_you_mean(unit, ['std', 'absolute'])}")
    low, high = span
    if steps < 2 or not (np.isfinite([low, high]).all() and low < high):
        raise UsageError(
            f"span {low:g} to {high:g} in {steps} steps cannot be; give low < high and two steps or more."
        )
    offsets, chosen = np.linspace(low, high, steps), list(dims)
    if unit == "absolute":
        return np.tile(offsets, (len(chosen), 1))
    sums = latent_sums(run)
    std = np.sqrt(np.maximum(np.diag(sums.covariance), 0) + sums.variance / sums.count)
    return np.asarray(channel_means(latents)[chosen, None] + offsets * std[chosen, None])


def decoded(run: Run, z: np.ndarray, sizes: Mapping[str, int]) -> xr.Dataset:
    """Decode latents `(k, *latent_shape)` over dims of these sizes, whose product is k.

    Returns `latents (*dims, latent[, lz, ly, lx])` and `decoded (*dims, [channel,] dy, dx)`.
    """
    from vaearr.run.draw import decoded_array

    flat = decoded_array(run, z, "flat")
    shape = tuple(sizes.values())
    found = xr.Dataset(coords=flat.coords, attrs=run.attrs).assign_coords(
        {n.LATENT: np.arange(z.shape[1])}
    )
    found["decoded"] = (
        (*sizes, *flat.dims[1:]),
        flat.values.reshape(*shape, *flat.shape[1:]),
        flat.attrs,
    )
    latents = z.reshape(*shape, *z.shape[1:]).astype("f4")
    found["latents"] = n.named(
        (*sizes, *n.latent_dims(z.ndim - 1)), latents, "latents that were decoded"
    )
    return found
