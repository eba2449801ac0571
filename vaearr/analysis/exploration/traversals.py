"""One latent dimension at a time, and planes of two: what changes in the picture when they do."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.exploration.bases import STD, Base, Start, decoded, start, values_along
from vaearr.analysis.exploration.points import dimensions, named, open_encoded
from vaearr.errors import UsageError
from vaearr.run import StoreOrRun, open_run

LATENT_DIM, STEP = "latent_dim", "step"
ROW, COLUMN = "row", "column"
Span = tuple[float, float]


def traverse(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    dims: int | list[int] | tuple[int, ...] | None = None,
    base: Base = "mean",
    span: Span = (-3.0, 3.0),
    steps: int = 9,
    *,
    unit: str = STD,
    by: str | None = None,
) -> xr.Dataset:
    """One dimension after another moved away from a base, decoded; the other dimensions keep the base's values.

    dims: one dimension, several, or None for all. base: `mean` of all samples; `prototype:NAME` of a class by the map
    `by` (None: label, phase or clusters); a sample, as a number or `{"x": …, "y": …}`, or a Path, of a file; or latents
    `(L[, lz, ly, lx])`. span: in unit `std`, standard deviations of the aggregate posterior to either side of the
    base's own value; in unit `absolute`, values of the dimension. A channel of a spatial latent is shifted as a whole,
    its value is the mean over positions.

    Returns `decoded (latent_dim, step, [channel,] dy, dx)`, `latents (latent_dim, step, latent[, …])`, `value
    (latent_dim, step)`, `offset (latent_dim, step)` in standard deviations, `base (latent[, …])` and `base_decoded`.
    Raises UsageError for a base, dimension or span that cannot be meant, NoInputError for a run not encoded.
    """
    encoded, opened = open_encoded(store, run), open_run(store, run)
    chosen = dimensions(dims, encoded.latent_shape[0])
    begin = start(encoded, opened, base, by)
    values = values_along(begin, chosen, span, steps, unit)
    std, off, each = begin.std[chosen, None], values - begin.centre[chosen, None], (LATENT_DIM, STEP)
    offsets = np.divide(off, std, out=np.full_like(off, np.nan), where=std > 0)
    found = decoded(opened, traversal_latents(begin, chosen, values), each, values.shape)
    origin = decoded(opened, begin.latents[None].astype("f4"), ("one",), (1,)).isel(one=0)
    found["base"], found["base_decoded"] = origin["latents"].assign_attrs(long_name=begin.name), origin["decoded"]
    axes = {
        LATENT_DIM: (LATENT_DIM, chosen, dict(n.ATTRS[n.LATENT])),
        STEP: np.arange(steps),
        "value": named(each, values, "value of the dimension"),
        "offset": named(each, offsets, "distance from the base"),
    }
    return found.assign_coords(axes).assign_attrs(base=begin.name, unit=unit, span=list(map(float, span)))


def manifold(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    dims: tuple[int, int] = (0, 1),
    span: Span = (-3.0, 3.0),
    steps: int = 15,
    *,
    base: Base = "mean",
    unit: str = STD,
    by: str | None = None,
) -> xr.Dataset:
    """A plane of two dimensions, decoded on a grid: `decoded (row, column, [channel,] dy, dx)`.

    dims: the dimension along the columns (to the right) and the one along the rows (upwards: the first row is the
    lowest and holds the least value). The coordinates `column` and `row` are the values of the two dimensions. base,
    span, unit, by: as of `traverse`; all other dimensions keep the base's values. Also `latents (row, column,
    latent[, …])`. Raises as `traverse`, and UsageError unless there are two dimensions.
    """
    encoded, opened = open_encoded(store, run), open_run(store, run)
    chosen = dimensions(dims, encoded.latent_shape[0], 2)
    begin = start(encoded, opened, base, by)
    across, up, z = plane_latents(begin, chosen, span, steps, unit)
    found = decoded(opened, z, (ROW, COLUMN), (steps, steps))
    axes = {
        ROW: named(ROW, up, f"latent {chosen[1]}", latent_dim=chosen[1]),
        COLUMN: named(COLUMN, across, f"latent {chosen[0]}", latent_dim=chosen[0]),
    }
    about = {"base": begin.name, "unit": unit, "span": list(map(float, span)), "dims": chosen}
    return found.assign_coords(axes).assign_attrs(about)


def traversal_latents(begin: Start, dims: list[int], values: np.ndarray) -> np.ndarray:
    """Each dimension alone at its values `(len(dims), steps)`: latents `(len(dims) * steps, L[, lz, ly, lx])`."""
    return np.concatenate([begin.moved([dim], values[i][:, None]) for i, dim in enumerate(dims)])


def plane_latents(
    begin: Start, dims: list[int], span: Span, steps: int, unit: str = STD
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of two dimensions `(steps,)`, across and up, and latents of their grid `(steps * steps, L[, …])`.

    Rows are of the second dimension, the first of them holds its least value. Raises UsageError for a dimension that
    does not vary.
    """
    across, up = values_along(begin, dims, span, steps, unit)
    if not (np.ptp(across) > 0 and np.ptp(up) > 0):
        raise UsageError(f"one of {dims} does not vary over the data; choose others, or unit='absolute'.")
    rows, columns = np.meshgrid(up, across, indexing="ij")
    return across, up, begin.moved(dims, np.stack([columns.ravel(), rows.ravel()], 1))
