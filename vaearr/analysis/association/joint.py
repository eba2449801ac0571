"""Distance correlation of all latents together with a target, given other maps."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.metrics import ASSOCIATION, METRIC
from vaearr.analysis.association.p_values import P_VALUE
from vaearr.analysis.association.pairs import MIN_UNBIASED
from vaearr.analysis.association.points import gather
from vaearr.analysis.association.targets import TARGET
from vaearr.errors import RoiError, UsageError

ALL_LATENTS = "all"  # the one entry of `latent`
UNBIASED, PARTIAL = "distance_correlation_unbiased", "partial_distance_correlation"
POSITION = "position"


def associate_jointly(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    *,
    given: xr.DataArray | xr.Dataset | Literal["position"] | None = None,
    roi: xr.DataArray | None = None,
    max_points: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Measure how strongly all latents together depend on each target.

    A target may depend on two latents together and on neither alone. The bias-corrected distance
    correlation [1]_ is computed for the vector of all latents, by dcor.

    Parameters
    ----------
    latents
        Latents over the navigation dims and one further dim; NaN where missing.
    target
        Maps over the navigation dims, as for `va.associate`.
    given
        Maps over the same points, or "position": their influence is removed in a second metric.
    roi
        Boolean map, True = used. Default: all points.
    max_points
        Largest number of points; of more, a random subset is used. Time and memory grow with its
        square (2000 points: about 1 s for each target, 0.7 GB).
    seed
        Seed of the random subset.

    Returns
    -------
    xarray.Dataset
        `association` and `p_value` over (metric, latent, target), with the one latent "all"; NaN
        where a target is constant. Metric `distance_correlation_unbiased`, with the p-value of its
        t-test, which is made for many dimensions and takes points as independent (neighbours on a
        scan are not, see `va.associate`); with `given` also `partial_distance_correlation` [2]_.
        Both are squared and may be slightly below 0. Coordinate `n`: points used.

    Raises
    ------
    RoiError
        For fewer than 4 points.
    SchemaError
        If latents, targets and given maps do not fit together, as for `va.associate`.
    UsageError
        For other values of `given`, and for a `max_points` below 4.

    References
    ----------
    .. [1] Szekely & Rizzo, J. Multivar. Anal. 117, 193 (2013), doi:10.1016/j.jmva.2013.02.012.
    .. [2] Szekely & Rizzo, Ann. Stat. 42, 2382 (2014), doi:10.1214/14-AOS1255.

    Examples
    --------
    >>> import vaearr as va
    >>> from vaearr.testing import synthetic_scan
    >>> ds = synthetic_scan(nx=16, ny=12)
    >>> latents = ds.elements.rename(element="latent")
    >>> va.associate_jointly(latents, ds.BC, given="position").metric.values.tolist()
    ['distance_correlation_unbiased', 'partial_distance_correlation']
    """
    if isinstance(given, str) and given != POSITION:
        raise UsageError(f"given is {given!r}; give maps over the points, or {POSITION!r}.")
    if max_points < MIN_UNBIASED:
        raise UsageError(f"max_points is {max_points}; it must be at least {MIN_UNBIASED}.")
    points = gather(latents, target, roi)
    labels = points.target_labels
    if given is None:
        metrics = [UNBIASED]
        given_values = np.empty((len(points.latents), 0))
        given_labels = []
    else:
        metrics = [UNBIASED, PARTIAL]
        if isinstance(given, str):
            given_values = points.positions
            given_labels = [POSITION]
        else:
            given_points = gather(latents, given, roi, "given")
            given_values = given_points.targets
            given_labels = given_points.target_labels
    known = np.isfinite(points.latents).all(axis=1) & np.isfinite(given_values).all(axis=1)
    order = np.random.default_rng(seed).permutation(len(known))
    n_used = np.zeros(len(labels), int)
    values = np.full((len(metrics), 1, len(labels)), np.nan)
    p_values = np.full(values.shape, np.nan)
    for t, label in enumerate(labels):
        column = points.targets[:, t : t + 1]
        used = order[known[order] & np.isfinite(column[order, 0])][:max_points]
        n_used[t] = len(used)
        if n_used[t] < MIN_UNBIASED:
            raise RoiError(
                f"target {label!r} has {n_used[t]} points with all values; at least {MIN_UNBIASED} "
                "are needed."
            )
        if np.ptp(column[used]):
            x = points.latents[used].astype("f8")
            y = column[used].astype("f8")
            values[:, 0, t] = _correlations(x, y, given_values[used].astype("f8"))
            p_values[0, 0, t] = _p_value(x, y)
    dims = (METRIC, n.LATENT, TARGET)
    long_name = "association of all latents and target"
    return xr.Dataset(
        {
            ASSOCIATION: n.named(dims, values, long_name),
            P_VALUE: n.named(dims, p_values, "p-value of the t-test, points independent"),
        },
        coords={
            METRIC: metrics,
            n.LATENT: [ALL_LATENTS],
            TARGET: labels,
            "n": n.named(TARGET, n_used, "points used"),
            "signed": (METRIC, [False] * len(metrics)),
        },
        attrs={"given": given_labels, "seed": seed},
    )


def _correlations(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> list[float]:
    """Unbiased value of latents `(n, L)` and a target `(n, 1)`, and the same given `(n, d)`."""
    import dcor

    values = [float(dcor.u_distance_correlation_sqr(x, y))]
    if given.size:
        values.append(float(dcor.partial_distance_correlation(x, y, given)))
    return values


def _p_value(x: np.ndarray, y: np.ndarray) -> float:
    import dcor

    return float(dcor.independence.distance_correlation_t_test(x, y).pvalue)
