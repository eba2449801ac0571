"""Distance correlation of all latents together with a target, given other maps."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.metrics import ASSOCIATION, METRIC
from vaearr.analysis.association.p_values import P_VALUE
from vaearr.analysis.association.pairs import MIN_UNBIASED, load_dcor
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
    dcor = load_dcor()
    if max_points < MIN_UNBIASED:
        raise UsageError(f"max_points is {max_points}; it must be at least {MIN_UNBIASED}.")
    points = gather(latents, target, roi)
    labels = points.target_labels
    given_values, given_labels = _given(latents, points.positions, given, roi)
    metrics = [UNBIASED, PARTIAL] if given_labels else [UNBIASED]
    is_known = np.isfinite(points.latents).all(axis=1)
    is_known &= np.isfinite(given_values).all(axis=1)
    order = np.random.default_rng(seed).permutation(len(is_known))
    n_used = []
    values = np.full((len(metrics), 1, len(labels)), np.nan)
    p_values = np.full(values.shape, np.nan)
    for t, label in enumerate(labels):
        column = points.targets[:, t].astype("f8")
        used = order[is_known[order] & np.isfinite(column[order])][:max_points]
        n_used.append(len(used))
        if len(used) < MIN_UNBIASED:
            raise RoiError(
                f"target {label!r} has {len(used)} points with all values; at least {MIN_UNBIASED} "
                "are needed."
            )
        x = points.latents[used].astype("f8")
        y = column[used]
        if np.ptp(y) == 0:
            continue
        values[0, 0, t] = dcor.u_distance_correlation_sqr(x, y)
        p_values[0, 0, t] = dcor.independence.distance_correlation_t_test(x, y).pvalue
        if given_labels:
            values[1, 0, t] = dcor.partial_distance_correlation(x, y, given_values[used])
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


def _given(
    latents: xr.DataArray,
    positions: np.ndarray,
    given: xr.DataArray | xr.Dataset | str | None,
    roi: xr.DataArray | None,
) -> tuple[np.ndarray, list[str]]:
    """Values `(n, d)` whose influence is removed, and their names."""
    if given is None:
        return np.empty((len(positions), 0)), []
    if not isinstance(given, str):
        points = gather(latents, given, roi, "given")
        return points.targets.astype("f8"), points.target_labels
    if given != POSITION:
        raise UsageError(f"given is {given!r}; give maps over the points, or {POSITION!r}.")
    return positions, [POSITION]
