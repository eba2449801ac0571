"""What dcor adds to distance correlation: without its bias, with a test, of all latents together, given other maps."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.columns import Columns, each_pair
from vaearr.analysis.association.metrics import metric
from vaearr.analysis.association.p_values import P_VALUE
from vaearr.analysis.association.table import ASSOCIATION, METRIC, gather, latent_dims
from vaearr.analysis.association.targets import TARGET, columns, stack
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
        lambda i, j: float(dcor.u_distance_correlation_sqr(latents.values[:, i], targets.values[:, j])),
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

    One latent may tell nothing of a map that two of them tell: `distance_correlation_unbiased` of the vector of all
    latents, with the p-value of its t-test (Szekely, Rizzo, J. Multivar. Anal. 117, 193 (2013)), which is made for many
    dimensions. With `given` also `partial_distance_correlation`, what is left of it when these maps, or the position,
    are known (Szekely, Rizzo, Ann. Stat. 42, 2382 (2014)). Both are squared and may be a little below 0.

    latents, target, roi: as of `associate`. given: maps over the same points, or "position". max_points: at most so
    many points, a seeded choice: time and memory grow with their square (2000: about 1 s for each target, 0.7 GB).
    The test takes points as independent, which neighbours on a scan are not; see `significance`.

    Returns `association` and `p_value (metric, latent, target)` with the one latent "all"; NaN where a target is
    constant. Coordinate `n`: points used. Raises as `associate`, RoiError for fewer than 4 points.
    """
    if isinstance(given, str) and given != POSITION:
        raise UsageError(f"given is {given!r}; give maps over the points, or {POSITION!r}.")
    if max_points < LEAST:
        raise UsageError(f"max_points is {max_points}; it must be at least {LEAST}.")
    dims = latent_dims(latents)[1]
    by_position = isinstance(given, str)
    wanted = _labelled(align_samples(latents, target, "the target"), dims)
    known = []
    if given is not None and not isinstance(given, str):
        known = _labelled(align_samples(latents, given, "given"), dims)
    both = stack([*wanted, *((f"given {label}", values) for label, values in known)], dims)
    points = gather(latents, both, roi)
    x, y, z = points.latents, *np.split(points.targets, [len(wanted)], axis=1)
    z = points.positions if by_position else z
    usable, rng = np.isfinite(np.column_stack([x, z])).all(1), np.random.default_rng(seed)
    order, rows = rng.permutation(len(x)), []
    for (label, _), column in zip(wanted, y.T, strict=True):
        some = order[usable[order] & np.isfinite(column[order])][:max_points]
        if len(some) < LEAST:
            raise RoiError(f"target {label!r} has {len(some)} points with all values; at least {LEAST} are needed.")
        rows.append((len(some), *_of_points(x[some], column[some, None], z[some] if z.size else None)))
    used, values, partial, p_value = map(np.array, zip(*rows, strict=True))
    names = [UNBIASED, PARTIAL] if given is not None else [UNBIASED]
    both_values = np.stack([values, partial])[: len(names), None]
    p_values = np.stack([p_value, np.full_like(p_value, np.nan)])[: len(names), None]
    shape = (METRIC, n.LATENT, TARGET)
    return xr.Dataset(
        {
            ASSOCIATION: (shape, both_values, {"long_name": "association of all latents and target", "units": "1"}),
            P_VALUE: (shape, p_values, {"long_name": "p-value of the t-test, points independent", "units": "1"}),
        },
        coords={
            METRIC: names,
            n.LATENT: [ALL],
            TARGET: [label for label, _ in wanted],
            "n": (TARGET, used, {"long_name": "points used", "units": "1"}),
            "signed": (METRIC, [False] * len(names)),
        },
        attrs={"given": [POSITION] if by_position else [label for label, _ in known], "seed": seed},
    )


def _of_points(x: np.ndarray, y: np.ndarray, z: np.ndarray | None) -> tuple[float, float, float]:
    """Of latents `(n, L)` and a target `(n, 1)`: unbiased value, the same given `z (n, d)`, p-value of the first."""
    import dcor

    if not np.ptp(y):
        return np.nan, np.nan, np.nan
    x, y = x.astype("f8"), y.astype("f8")
    partial = np.nan if z is None else float(dcor.partial_distance_correlation(x, y, z.astype("f8")))
    p_value = dcor.independence.distance_correlation_t_test(x, y).pvalue
    return float(dcor.u_distance_correlation_sqr(x, y)), partial, float(p_value)


def _labelled(maps: xr.DataArray | xr.Dataset, dims: tuple[str, ...]) -> list[tuple[str, xr.DataArray]]:
    """Maps by their labels."""
    parts = maps.data_vars.values() if isinstance(maps, xr.Dataset) else [maps]
    return [each for part in parts for each in columns(part, dims)]
