"""What dcor adds to distance correlation: without its bias, with a test, of all latents together,
given other maps.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.columns import Columns, each_pair
from vaearr.analysis.association.metrics import metric
from vaearr.analysis.association.p_values import P_VALUE
from vaearr.analysis.association.table import ASSOCIATION, METRIC, gather, latent_dims
from vaearr.analysis.association.targets import TARGET, stacked
from vaearr.errors import RoiError, UsageError
from vaearr.schema.grid import align_samples

LEAST = 4  # points that the unbiased estimate needs
ALL = "all"  # the one entry of `latent`: all of them together
UNBIASED, PARTIAL = "distance_correlation_unbiased", "partial_distance_correlation"
POSITION = "position"


@metric(
    signed=False,
    formula="dCov^2 / sqrt(dVar^2(latent) dVar^2(target)) of U-centred distances: squared, of mean 0 for independent"
    " columns",
    reference="Szekely, Rizzo, J. Multivar. Anal. 117, 193 (2013), doi:10.1016/j.jmva.2013.02.012, by dcor",
    higher="more dependent, along any curve; about 0, also below, if independent",
)
def distance_correlation_unbiased(latents: Columns, targets: Columns) -> np.ndarray:
    """Bias-corrected squared distance correlation."""
    if latents.n < LEAST:
        return np.full((latents.k, targets.k), np.nan)
    import dcor

    return each_pair(
        latents,
        targets,
        lambda i, j: float(
            dcor.u_distance_correlation_sqr(latents.values[:, i], targets.values[:, j])
        ),
    )


def associate_jointly(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    *,
    given: xr.DataArray | xr.Dataset | Literal["position"] | None = None,
    roi: xr.DataArray | None = None,
    max_points: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """How strongly all latents together go with each target, as a table like that of `associate`.

    One latent may tell nothing of a map that two of them tell: `distance_correlation_unbiased` of
    the vector of all latents, with the p-value of its t-test (Szekely, Rizzo, J. Multivar. Anal.
    117, 193 (2013)), which is made for many dimensions. With `given` also
    `partial_distance_correlation`, what is left of it when these maps, or the position, are known
    (Szekely, Rizzo, Ann. Stat. 42, 2382 (2014)). Both are squared and may be a little below 0.

    latents, target, roi: as of `associate`. given: maps over the same points, or "position".
    max_points: at most so many points, a seeded choice: time and memory grow with their square
    (2000: about 1 s for each target, 0.7 GB). The test takes points as independent, which
    neighbours on a scan are not; see `associate`.

    Returns `association` and `p_value (metric, latent, target)` with the one latent "all"; NaN
    where a target is constant. Coordinate `n`: points used. Raises as `associate`, RoiError for
    fewer than 4 points.
    """
    if isinstance(given, str) and given != POSITION:
        raise UsageError(f"given is {given!r}; give maps over the points, or {POSITION!r}.")
    if max_points < LEAST:
        raise UsageError(f"max_points is {max_points}; it must be at least {LEAST}.")
    dims = latent_dims(latents)[1]
    points = gather(latents, stacked(align_samples(latents, target, "the target"), dims), roi)
    x, y, labels = points.latents, points.targets, points.labels
    if given is None:
        z, known = np.empty((len(x), 0)), []
    elif isinstance(given, str):
        z, known = points.positions, [POSITION]
    else:
        others = gather(latents, stacked(align_samples(latents, given, "given"), dims), roi)
        z, known = others.targets, others.labels
    usable = np.isfinite(x).all(axis=1) & np.isfinite(z).all(axis=1)
    order = np.random.default_rng(seed).permutation(len(x))
    used = np.zeros(len(labels), int)
    values, p_values = np.full((2, 2, 1, len(labels)), np.nan)
    for t, label in enumerate(labels):
        some = order[usable[order] & np.isfinite(y[order, t])][:max_points]
        used[t] = len(some)
        if used[t] < LEAST:
            raise RoiError(
                f"target {label!r} has {used[t]} points with all values; at least {LEAST} are needed."
            )
        values[:, 0, t], p_values[0, 0, t] = _of_points(x[some], y[some, t : t + 1], z[some])
    names = [UNBIASED] if given is None else [UNBIASED, PARTIAL]
    dims_of_table = (METRIC, n.LATENT, TARGET)
    words = {
        ASSOCIATION: {"long_name": "association of all latents and target", "units": "1"},
        P_VALUE: {"long_name": "p-value of the t-test, points independent", "units": "1"},
    }
    return xr.Dataset(
        {
            ASSOCIATION: (dims_of_table, values[: len(names)], words[ASSOCIATION]),
            P_VALUE: (dims_of_table, p_values[: len(names)], words[P_VALUE]),
        },
        coords={
            METRIC: names,
            n.LATENT: [ALL],
            TARGET: labels,
            "n": (TARGET, used, {"long_name": "points used", "units": "1"}),
            "signed": (METRIC, [False] * len(names)),
        },
        attrs={"given": known, "seed": seed},
    )


def _of_points(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[tuple[float, float], float]:
    """Unbiased value of latents `(n, L)` and a target `(n, 1)`, the same given `z (n, d)`; p-value
    of the first.
    """
    import dcor

    if not np.ptp(y):
        return (np.nan, np.nan), np.nan
    x, y = x.astype("f8"), y.astype("f8")
    value = float(dcor.u_distance_correlation_sqr(x, y))
    partial = float(dcor.partial_distance_correlation(x, y, z.astype("f8"))) if z.size else np.nan
    return (value, partial), float(dcor.independence.distance_correlation_t_test(x, y).pvalue)
