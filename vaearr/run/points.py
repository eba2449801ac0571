"""The encoded samples of a run as a table of points: their latents, where they lie, the classes
they belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError, did_you_mean

if TYPE_CHECKING:
    from vaearr.run import Run

POINT, CLASS = "point", "class"
USUAL_CLASSES = ("label", n.PHASE, n.CLUSTERS)
MOST_CLASSES = 1000


def latent_points(
    run: Run,
    by: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    dims: int | Sequence[int] | None = None,
) -> xr.Dataset:
    """All encoded samples of a run: `vectors (point, latent)` float64, of a spatial latent the
    means over positions.

    Coordinates over `point`: the navigation coordinates, `number` in the grid (row-major) and,
    where there are classes (see `classes_of`), `class`. With `classes`, samples of other classes
    are left out.
    """
    nav = schema.navigation_dims(run.ds)
    latents = schema.vectors(run.latents).reset_coords(drop=True)
    latents = latents.rename({latents.dims[-1]: n.LATENT})
    chosen = dimensions(dims, latents.sizes[n.LATENT])
    codes = classes_of(run.ds, by, classes)
    grid = xr.Dataset({"vectors": latents.isel({n.LATENT: chosen}).load()})
    grid["number"] = nav, np.arange(np.prod(run.grid)).reshape(run.grid)
    if codes is not None:
        grid[CLASS] = codes
    points = grid.stack({POINT: nav}, create_index=False).transpose(POINT, ...)
    points = points.set_coords([name for name in ("number", CLASS) if name in points])
    is_chosen = np.isfinite(points["vectors"].values).all(1)
    if classes is not None:
        is_chosen &= points[CLASS].values >= 0
    points = points.isel({POINT: np.flatnonzero(is_chosen)})
    if not points.sizes[POINT]:
        raise NoInputError(
            f"no encoded sample of run {run.name!r} has one of the classes; choose others."
        )
    points["vectors"] = points["vectors"].astype("f8").assign_attrs(n.ATTRS[n.LATENTS])
    points[n.LATENT] = n.LATENT, chosen, n.ATTRS[n.LATENT]
    points.attrs = {**run.attrs, "n": points.sizes[POINT]}
    if codes is not None:
        points.attrs["by"] = codes.attrs["long_name"]
    return points


def some(points: xr.Dataset, most: int, seed: int) -> xr.Dataset:
    """At most `most` of the points, in their order: all, or a choice by the seed."""
    from vaearr.analysis.clustering.methods import subsample

    return points.isel({POINT: subsample(points.sizes[POINT], most, seed)})


def classes_of(
    ds: xr.Dataset, by: str | None = None, wanted: Sequence[str] | None = None
) -> xr.DataArray | None:
    """The class of each sample by one of a Dataset's maps or coordinates, over the navigation dims.

    Codes 0, 1, … with names (`flag_meanings`), -1 for none. by: a map of codes, texts, booleans or
    whole numbers; None for the first there is of label, phase, clusters; without any of them there
    are no classes and None is returned. Codes below 0 and empty texts are no class. wanted: only
    these. Raises NoInputError for a name that does not exist, UsageError for one that holds amounts
    or more than 1000 classes, or lacks a wanted one.
    """
    import pandas as pd

    nav = schema.navigation_dims(ds)
    if by is None:
        usual = [name for name in USUAL_CLASSES if name in ds.variables]
        if not usual and wanted is None:
            return None
        by = usual[0] if usual else "label"
    known = [str(name) for name, variable in ds.variables.items() if set(variable.dims) == set(nav)]
    if by not in ds.variables:
        raise NoInputError(f"there is no map or coordinate {by!r}.{did_you_mean(by, known)}")
    variable = ds[by]
    if set(variable.dims) != set(nav) or variable.dtype.kind not in "biuOUT":
        raise UsageError(
            f"{by!r} ({variable.dtype} over {', '.join(map(str, variable.dims))}) does not hold one class for each "
            "sample; name another map, or cluster the samples first."
        )
    values = variable.transpose(*nav).values
    if variable.dtype.kind in "iu":
        names = dict(sorted(schema.categories(variable).items()))
    else:
        values = np.array([str(value) for value in values.ravel()]).reshape(values.shape)
        names = {name: str(name) for name in np.unique(values) if name}
    if wanted is not None:
        for name in wanted:
            if name not in names.values():
                raise UsageError(
                    f"{by!r} has no class {name!r}.{did_you_mean(name, list(names.values()))}"
                )
        names = {code: name for code, name in names.items() if name in wanted}
    if len(names) > MOST_CLASSES:
        raise UsageError(
            f"{by!r} has {len(names)} classes; at most {MOST_CLASSES} can be told apart."
        )
    codes = pd.Index(list(names)).get_indexer(pd.Index(values.ravel()))  # -1 for all others
    attrs = {
        "long_name": by,
        "flag_values": list(range(-1, len(names))),
        "flag_meanings": ["none", *names.values()],
    }
    return xr.DataArray(codes.reshape(values.shape), dims=nav, name=CLASS, attrs=attrs)


def dimensions(chosen: int | Sequence[int] | None, size: int) -> list[int]:
    """Latent dimensions as a list; None for all. Raises UsageError unless they exist and are
    different.
    """
    if chosen is None:
        return list(range(size))
    dims = [chosen] if isinstance(chosen, int) else list(chosen)
    if not dims or len(set(dims)) != len(dims) or not set(dims) <= set(range(size)):
        raise UsageError(
            f"the dimensions {dims} must be different whole numbers from 0 to {size - 1}."
        )
    return dims
