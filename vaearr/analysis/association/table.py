"""Association tables and rankings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, overload

import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association import p_values
from vaearr.analysis.association.metrics import ASSOCIATION, METRIC, METRICS, apply, choose
from vaearr.analysis.association.points import gather, latent_dims, spacing_of
from vaearr.analysis.association.targets import TARGET
from vaearr.computing.progress import Progress, showing_tasks
from vaearr.config import SignificanceConfig
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.schema import is_categorical

RANK = "rank"

Metrics = str | Callable[..., float] | Sequence[str | Callable[..., float]]


@overload
def associate(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    metrics: Metrics = "all",
    roi: xr.DataArray | None = None,
    *,
    significance: Literal[False] | None = False,
    progress: Progress = False,
) -> xr.DataArray: ...
@overload
def associate(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    metrics: Metrics = "all",
    roi: xr.DataArray | None = None,
    *,
    significance: Literal[True] | SignificanceConfig,
    progress: Progress = False,
) -> xr.Dataset: ...
def associate(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    metrics: Metrics = "all",
    roi: xr.DataArray | None = None,
    *,
    significance: bool | SignificanceConfig | None = False,
    progress: Progress = False,
) -> xr.DataArray | xr.Dataset:
    """Measure how strongly each latent depends on each target.

    Metrics run under the dask scheduler in use; neither it nor the chunks change the numbers.

    Parameters
    ----------
    latents
        Latents, or scores such as `pca` and `nmf`, over the navigation dims and one further dim;
        NaN where missing. Lazy latents and targets are read together, once. Flattened samples
        (`va.to_samples`) are matched by their coordinates, in any order.
    target
        A map over the navigation dims; `elements` or a stack with one further dim (one target per
        entry); a map of codes such as `phase` (a 0/1 indicator per code, codes below 0 are
        missing); or a Dataset of these.
    metrics
        Names from `vaearr.analysis.association.METRICS`, "all" for the seven usual ones, or
        functions of two columns to a number; one or several.
    roi
        Boolean map, True = used. Points where latent or target is not finite are left out in any
        case, pair by pair. Default: all points.
    significance
        Whether p-values are computed, which account for the smoothness of the maps; or the
        settings (number of surrogates, largest number of points, seed).
    progress
        Whether to show progress, or a function that is called with (done, total, text).

    Returns
    -------
    xarray.DataArray
        Dims `metric`, `latent` and `target`; no `target` if the argument `target` is one map of
        numbers, not of codes, over the navigation dims alone. `latent` carries the coordinate of
        the latents' further dim, whatever its name; the attribute `latents` names the variable.
        Coordinate `n` counts the finite points of each target, `signed` marks the metrics that have
        a direction. NaN where latent or target is constant or has too few points: fewer than 3;
        fewer than 8 for mutual information, 4 for unbiased estimates; for partial Pearson fewer
        than the number of terms of the trend plus 2, since any two maps of fewer points correlate
        by 1 or -1. Spatial trends are polynomials of the coordinates, or of the index where there
        are none.
    xarray.Dataset
        With `significance`: `association` as above, and of the same shape, NaN where the
        association is:

        - `p_value` = (1 + number of surrogate maps with a value >= the observed) / (1 + number of
          surrogates) [1]_; absolute values of signed metrics are compared. Null hypothesis: the
          target is a random map of this smoothness and distribution, independent of the latents.
          Surrogates are random fields with the map's autocovariance, at the points where the target
          and all latents are finite; they serve all latents and metrics.
          The values of a collection, whose samples have no neighbours, are permuted. Metrics other
          than Pearson, Spearman and the partial forms are slow: they are tested at no more than
          `max_points` points, which is as valid, and weaker.
        - `p_adjusted`: corrected over latents and metrics, for each target.
        - `n_effective`: the number of independent points for which r would vary as much under the
          null hypothesis [2]_. For Pearson it follows from the fitted autocovariances of the
          values; for its partial forms the number of terms of the trend is subtracted from that;
          for all other metrics it follows from the autocovariances of the ranks. Where it is below
          20, the maps are too smooth to be tested: `p_value` and `p_adjusted` are NaN, and the
          attribute `warnings` says so.
        - `low`, `high`, for Pearson and Spearman: ends of the 95 % confidence interval with that
          number of points.

    Raises
    ------
    SchemaError
        If the latents lack a navigation dim or do not have exactly one further dim, or if targets
        are not over the same points.
    RoiError
        If the region is empty.
    UsageError
        For an unknown metric.

    References
    ----------
    .. [1] Davison & Hinkley, Bootstrap Methods and their Application (1997), ch. 4.
    .. [2] Dutilleul, Biometrics 49, 305 (1993), doi:10.2307/2532625.

    Examples
    --------
    >>> import vaearr as va
    >>> from vaearr.testing import synthetic_scan
    >>> ds = synthetic_scan(nx=16, ny=12)
    >>> latents = ds.elements.rename(element="latent")
    >>> table = va.associate(latents, ds.BC, ["pearson", "spearman"])
    >>> table.dims
    ('metric', 'latent')
    """
    settings = SignificanceConfig() if significance is True else significance
    chosen = choose(metrics)
    points = gather(latents, target, roi)
    with showing_tasks(progress, "comparing"):
        values, count = apply(chosen, points.latents, points.targets, points.positions)
    table = xr.DataArray(
        values,
        dims=(METRIC, n.LATENT, TARGET),
        coords={
            METRIC: [metric.name for metric in chosen],
            n.LATENT: points.latent_labels,
            TARGET: points.target_labels,
            "n": (TARGET, count, {"long_name": "finite scan points", "units": "1"}),
            "signed": (METRIC, [metric.signed for metric in chosen]),
        },
        name=ASSOCIATION,
        attrs={
            "long_name": "association of latent and target",
            "units": "1",
            "latents": str(latents.name or n.LATENTS),
            "metrics": {metric.name: metric.describe() for metric in chosen},
        },
    )
    _, dims = latent_dims(latents)
    result: xr.DataArray | xr.Dataset = table
    if settings:
        spacing = spacing_of(latents, dims)
        tests = p_values.significance(points, chosen, values, settings, spacing, progress)
        result = p_values.with_tests(table, tests, settings)
    if isinstance(target, xr.Dataset) or is_categorical(target):
        return result
    is_single_map = set(target.dims) == set(dims)
    return result.isel({TARGET: 0}) if is_single_map else result


def ranking(
    table: xr.DataArray, metric: str, target: str | None = None, top: int = 10
) -> xr.Dataset:
    """List the latents that depend most strongly on a target.

    Parameters
    ----------
    table
        A table of `va.associate`.
    metric
        One of its metrics.
    target
        One of its targets; needed where there are several.
    top
        Number of latents.

    Returns
    -------
    xarray.Dataset
        Over dim `rank`, sorted by |value| for signed metrics, else by value; latents without a
        value (NaN) are left out. `latent`, `value` and `is_tied`, True for a value that another
        latent shares to 9 digits, also one beyond the cut.

    Raises
    ------
    NoInputError
        For a metric or target that the table does not hold.
    UsageError
        For a `top` below 0.
    """
    if top < 0:
        raise UsageError(f"top is {top}; it must be 0 or more.")
    _check_label(metric, table[METRIC])
    column = table.sel({METRIC: metric})
    if TARGET in table.dims:
        if target is None and table.sizes[TARGET] == 1:
            target = str(table[TARGET].item())
        _check_label(str(target), table[TARGET])
        column = column.sel({TARGET: str(target)})
    is_signed = bool(column["signed"]) if "signed" in column.coords else METRICS[metric].signed
    values = column.values.astype("f8")
    frame = pd.DataFrame({n.LATENT: column[n.LATENT].values, "value": values}).dropna()
    strength = frame["value"].abs() if is_signed else frame["value"]
    frame["is_tied"] = strength.map("{:.9g}".format).duplicated(keep=False)
    frame = frame.loc[strength.sort_values(ascending=False, kind="stable").index]
    frame.index = pd.RangeIndex(1, len(frame) + 1, name=RANK)
    ranked = frame.head(top).to_xarray()
    ranked["value"].attrs = {"long_name": metric, "units": "1"}
    return ranked.assign_attrs(
        metric=metric, target=target or "", sorted_by="absolute value" if is_signed else "value"
    )


def strongest_latents(associations: xr.Dataset, top: int = 3) -> pd.DataFrame:
    """List the strongest latents for each target and metric.

    Parameters
    ----------
    associations
        The stored table of a run: `association` over metric, latent and target, perhaps with
        `p_adjusted`.
    top
        Number of latents of each target and metric.

    Returns
    -------
    pandas.DataFrame
        A row for each: `target`, `metric`, the columns of `ranking`, and `p_adjusted` if tested.

    Raises
    ------
    NoInputError
        For a table without targets.
    """
    association = associations["association"]
    frames = []
    for target in map(str, associations[TARGET].values):
        for metric in map(str, associations[METRIC].values):
            frame = ranking(association, metric, target, top).to_dataframe().reset_index()
            frame.insert(0, TARGET, target)
            frame.insert(1, METRIC, metric)
            frames.append(frame)
    if not frames:
        raise NoInputError("the table has no targets.")
    table = pd.concat(frames, ignore_index=True)
    if p_values.P_ADJUSTED in associations:
        p_adjusted = associations[p_values.P_ADJUSTED]
        rows = {dim: xr.DataArray(table[dim], dims="row") for dim in p_adjusted.dims}
        table[p_values.P_ADJUSTED] = p_adjusted.sel(rows).values
    return table


def _check_label(name: str, labels: xr.DataArray) -> None:
    names = [str(label) for label in labels.values]
    if name not in names:
        raise NoInputError(f"the table has no {labels.name} {name!r}.{did_you_mean(name, names)}")
