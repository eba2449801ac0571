"""Association tables and rankings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, overload

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.metrics import METRICS, apply, choose
from vaearr.analysis.association.targets import TARGET, is_single, stacked
from vaearr.config import SignificanceConfig
from vaearr.errors import NoInputError, RoiError, SchemaError, UsageError, did_you_mean
from vaearr.schema.grid import align_samples

METRIC, RANK, ASSOCIATION = "metric", "rank", "association"
NAVIGATION = (*n.SCAN_DIMS, n.SAMPLE)


Metrics = str | Callable[..., float] | Sequence[str | Callable[..., float]]


@overload
def associate(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    metrics: Metrics = "all",
    roi: xr.DataArray | None = None,
    *,
    significance: Literal[False] = False,
) -> xr.DataArray: ...
@overload
def associate(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    metrics: Metrics = "all",
    roi: xr.DataArray | None = None,
    *,
    significance: Literal[True] | SignificanceConfig,
) -> xr.Dataset: ...
def associate(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    metrics: Metrics = "all",
    roi: xr.DataArray | None = None,
    *,
    significance: bool | SignificanceConfig = False,
) -> xr.DataArray | xr.Dataset:
    """How strongly each latent goes with each target: `(metric, latent[, target])`.

    Parameters
    ----------
    latents
        Latents, or scores such as `pca` and `nmf`, over the navigation dims and one further dim;
        NaN where there is none. Lazy latents and targets are read together, once.
    target
        A map over the navigation dims; `elements` or a stack with one further dim (one target per
        entry); a map of codes such as `phase` (a 0/1 indicator per code, codes below 0 are
        missing); or a Dataset of these.
    metrics
        Names from METRICS, "all" for the seven usual ones, or functions of two columns to a number.
    roi
        Boolean map, True = used. Points where latent or target is not finite are left out in any
        case, pair by pair.
    significance
        True, or settings (number of surrogates, correction, seed): a Dataset with p-values that
        hold for maps.

    Returns
    -------
    xr.DataArray
        Dim `latent` stands for the latents' own further dim, whatever its name, with its
        coordinate; attribute `latents` names the variable. Coordinate `n` counts the finite points
        of each target, `signed` tells which metrics have a direction. NaN where latent or target is
        constant or too few points are left (3; 8 for mutual information, 4 for unbiased HSIC; for
        partial Pearson 2 more than the trend has terms: of fewer, any two maps correlate by 1 or
        -1). Metrics run under the dask scheduler in use; the numbers depend neither on it nor on
        chunks. Spatial trends are polynomials of the coordinates of the navigation dims, of the
        index where there are none.
    xr.Dataset
        With `significance`: `association` as above, and of the same shape, NaN where the
        association is:

        - `p_value` = (1 + number of surrogate maps with a value >= the observed) / (1 + number of surrogates)
          (Davison & Hinkley, Bootstrap Methods and their Application (1997), ch. 4); of signed
          metrics, absolute values are compared. Null hypothesis: the target is a random map, as
          smooth and as distributed as it is, drawn without regard to the latents. Surrogates are
          random fields with the map's own autocovariance, from the points where the target and at
          least one latent are finite; they serve all latents and metrics. The samples of a
          collection have no neighbours: their values are permuted. Metrics other than Pearson,
          Spearman and the partial forms are slow, so they are tested at no more than `max_points`
          points: as valid, and weaker.
        - `p_adjusted`: corrected over latents and metrics, target by target, see SignificanceConfig.
        - `n_effective`: the number of independent points that would let r vary as much under the null, from the fitted
          autocovariances: of values for pearson, less the terms of the trend for its partial forms,
          of ranks for all other metrics. Where it is below 20, the maps are too smooth to be
          tested: `p_value` and `p_adjusted` are NaN, and the attribute `warnings` says so.
        - `low`, `high`, for pearson and spearman: ends of a 95 % confidence interval with that number of points.

    Flattened samples (`va.to_samples`) are matched by the coordinates that they carry, whatever
    their order.

    Raises SchemaError if the latents lack a navigation dim or have not one further dim, if targets
    are not over the same points; RoiError if the region is empty; UsageError for an unknown metric.
    """
    if significance:
        from vaearr.analysis.association import p_values

        settings = SignificanceConfig() if significance is True else significance
        return p_values.significance(latents, target, metrics, roi, settings)
    chosen, dims = choose(metrics), latent_dims(latents)[1]
    target = align_samples(latents, target, "the target")
    points = gather(latents, stacked(target, dims), roi)
    numbers, count = apply(chosen, points.latents, points.targets, points.positions)
    table = xr.DataArray(
        numbers,
        dims=(METRIC, n.LATENT, TARGET),
        coords={
            METRIC: [item.name for item in chosen],
            n.LATENT: points.entries,
            TARGET: points.labels,
            "n": (TARGET, count, {"long_name": "finite scan points", "units": "1"}),
            "signed": (METRIC, [item.signed for item in chosen]),
        },
        name=ASSOCIATION,
        attrs={
            "long_name": "association of latent and target",
            "units": "1",
            "latents": name_of(latents),
            "metrics": {item.name: item.describe() for item in chosen},
        },
    )
    return table.isel({TARGET: 0}) if is_single(target, dims) else table


class Points(NamedTuple):
    """Latents `(n, L)` and targets `(n, T)` at the points of a region, their names, and where the
    points lie.
    """

    latents: np.ndarray
    targets: np.ndarray
    positions: np.ndarray  # (n, d)
    inside: np.ndarray  # the region, on the whole grid
    entries: xr.DataArray  # the latents' further coordinate, as `latent`
    labels: list[str]  # of the targets


def name_of(latents: xr.DataArray) -> str:
    """Name of the variable that latents are."""
    return n.LATENTS if latents.name is None else str(latents.name)


def latent_dims(latents: xr.DataArray) -> tuple[str, tuple[str, ...]]:
    """The one dim that is no navigation dim, and the navigation dims. Raises SchemaError if that is
    not so.
    """
    dims = [str(dim) for dim in latents.dims]
    further = [dim for dim in dims if dim not in NAVIGATION]
    if len(further) != 1 or len(dims) < 2:
        raise SchemaError(
            f"latents have dims {dims}; expected navigation dims (of {', '.join(NAVIGATION)}) and one further "
            f"dimension such as {n.LATENT!r}."
        )
    if 0 in latents.shape:
        raise SchemaError(f"the latents are empty: their sizes are {dict(latents.sizes)}.")
    return further[0], tuple(dim for dim in dims if dim != further[0])


def gather(latents: xr.DataArray, targets: xr.DataArray, roi: xr.DataArray | None) -> Points:
    """Latents, and targets `(target, …)`, at the points of the ROI, read from disk in one pass.

    Raises SchemaError for different grids, RoiError for an empty region.
    """
    import dask

    latent_dim, dims = latent_dims(latents)
    if isinstance(roi, xr.DataArray):
        roi = align_samples(latents, roi, "the region of interest")
    if roi is None:
        mask = xr.ones_like(targets.isel({TARGET: 0}, drop=True), dtype=bool)
    elif isinstance(roi, xr.DataArray) and roi.dtype == bool and set(roi.dims) == set(dims):
        mask = roi
    else:
        found = (
            f"{roi.dtype} over {roi.dims}" if isinstance(roi, xr.DataArray) else type(roi).__name__
        )
        raise SchemaError(f"the region of interest is {found}; expected a boolean map over {dims}.")
    try:
        latents, targets, mask = xr.align(latents, targets, mask, join="exact", copy=False)
    except ValueError as error:
        raise SchemaError(
            f"latents, targets and region of interest do not lie on the same grid: {error} "
            "Select the same points of each first."
        ) from None
    ordered = (
        latents.transpose(*dims, latent_dim),
        targets.transpose(*dims, TARGET),
        mask.transpose(*dims),
    )
    values, maps, inside = (array.values for array in dask.compute(*ordered))
    if not inside.any():
        raise RoiError("the region of interest holds no scan point; widen it.")
    used = slice(None) if inside.all() else inside.ravel()  # the whole field is not copied
    rows, columns = (array.reshape(-1, array.shape[-1])[used] for array in (values, maps))
    entries = xr.DataArray(latents[latent_dim].values, dims=n.LATENT, attrs=n.ATTRS[n.LATENT])
    return Points(
        rows,
        columns,
        _positions(latents, dims)[used],
        inside,
        entries,
        targets[TARGET].values.tolist(),
    )


def _positions(latents: xr.DataArray, dims: tuple[str, ...]) -> np.ndarray:
    """Coordinates `(points, d)` of all points; of samples those of the scan, if they carry some."""
    of_samples = [
        name for name in n.SCAN_DIMS if name in latents.coords and latents[name].dims == (n.SAMPLE,)
    ]
    axes = []
    for name in of_samples or dims:
        if name in latents.coords and latents[name].dtype.kind in "iuf":
            axis = latents[name].astype("f8")
        else:
            axis = xr.DataArray(np.arange(float(latents.sizes[name])), dims=name)
        if not np.isfinite(axis).all():
            raise SchemaError(
                f"coordinate {name!r} is not finite everywhere; a position is needed for each point."
            )
        axes.append(axis.drop_vars(axis.coords))
    every = xr.broadcast(*axes)
    return np.stack([axis.transpose(*dims).values.ravel() for axis in every], axis=1)


def ranking(
    table: xr.DataArray, metric: str, target: str | None = None, top: int = 10
) -> xr.Dataset:
    """The `top` latents that go most strongly with a target, over dimension `rank`;
    `.to_dataframe()` for a table.

    Sorted by |value| for signed metrics. `position` is the place in the competition (1, 2, 2, 4 …)
    and `is_tied` marks values that another latent shares, also one beyond the cut. Latents without
    a value (NaN) are left out. Raises NoInputError for a metric or target that the table does not
    hold, UsageError for a `top` below 0.
    """
    if top < 0:
        raise UsageError(f"top is {top}; it must be 0 or more.")
    _known(metric, table[METRIC], "metric")
    column = table.sel({METRIC: metric})
    if TARGET in table.dims:
        target = (
            str(table[TARGET].item()) if target is None and table[TARGET].size == 1 else str(target)
        )
        _known(target, table[TARGET], "target")
        column = column.sel({TARGET: target})
    signed = bool(column["signed"]) if "signed" in column.coords else METRICS[metric].signed
    values = np.asarray(column.values, dtype="f8")
    strength = np.abs(values) if signed else values
    order = np.argsort(-strength, kind="stable")
    order = order[np.isfinite(strength[order])]
    strength = strength[order]
    is_next = ~np.isclose(
        strength[1:], strength[:-1], rtol=1e-9, atol=1e-12
    )  # weaker than the one before
    group = np.cumsum(np.r_[0, is_next])[: order.size]
    count = np.bincount(group)
    position = (np.cumsum(count) - count + 1)[group]
    return xr.Dataset(
        {
            n.LATENT: (RANK, column[n.LATENT].values[order]),
            "value": (RANK, values[order], {"long_name": metric, "units": "1"}),
            "position": (RANK, position),
            "is_tied": (RANK, count[group] > 1),
        },
        coords={RANK: np.arange(1, order.size + 1)},
        attrs={
            "metric": metric,
            "target": target or "",
            "sorted_by": "absolute value" if signed else "value",
        },
    ).isel({RANK: slice(top)})


def _known(name: str, entries: xr.DataArray, what: str) -> None:
    known = [str(entry) for entry in entries.values]
    if name not in known:
        raise NoInputError(f"the table has no {what} {name!r}.{did_you_mean(name, known)}")
