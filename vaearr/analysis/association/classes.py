"""How well latents tell the classes of a map apart, and how much of a latent the classes explain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.metrics import MIN_POINTS
from vaearr.analysis.association.table import ASSOCIATION, METRIC, gather, latent_dims
from vaearr.analysis.association.targets import TARGET, categories, stack
from vaearr.errors import SchemaError, UsageError

ETA_SQUARED, MUTUAL = "eta_squared", "adjusted_mutual_information"
BINS = 16  # of a latent, equally full


def associate_classes(
    latents: xr.DataArray, classes: xr.DataArray, roi: xr.DataArray | None = None, *, bins: int = BINS
) -> xr.DataArray:
    """How strongly each latent goes with a phase or cluster map as a whole: `(metric, latent)`.

    eta_squared: sum of squares between the classes over the total, the share of the latent's variance that its class
    explains, 0 to 1 (Fisher, Statistical Methods for Research Workers (1925), § 45, the squared correlation ratio).
    adjusted_mutual_information: mutual information of the classes and the latent in `bins` equally full bins, less
    its expectation under random labels, over the smaller entropy less the same (Vinh, Epps & Bailey, J. Mach. Learn.
    Res. 11, 2837 (2010), AMI_min): 0 by chance, 1 where bins determine classes (or classes bins), whatever the shape
    of the relation. Equal values share a bin, so a latent of few levels has fewer bins.

    Parameters
    ----------
    latents
        Over the navigation dims and one further dim; NaN where there is none.
    classes
        Map of whole numbers over the navigation dims, codes below 0 (and NaN) are missing.
    roi
        Boolean map, True = used.

    Returns
    -------
    xr.DataArray
        Coordinates `n (latent)`, points with latent and class, and `n_classes (latent)` among them. NaN where the
        latent is constant, there is one class only, or fewer points are left than three or one more than classes (of
        which classes always explain all).

    Raises SchemaError for fractions, other dims or another grid, RoiError for an empty region, UsageError for fewer
    than two bins.
    """
    if bins < 2:
        raise UsageError(f"bins is {bins}; two or more tell a latent's values apart.")
    latent_dim, dims = latent_dims(latents)
    if set(classes.dims) != set(dims):
        raise SchemaError(f"the classes have dims {classes.dims}; a map of classes lies over {dims}.")
    values, points, _ = gather(latents, stack([("classes", classes)], dims), roi, latent_dim, dims)
    codes = points[:, 0]
    known = np.isfinite(codes) & (codes >= 0)
    if not np.array_equal(codes[known], np.round(codes[known])):
        raise SchemaError("the classes hold fractions; a map of classes holds whole numbers, below 0 for no class.")
    numbers, count, n_classes = _both(values.astype("f8"), codes, known, bins)
    names = categories(classes) if "flag_values" in classes.attrs else {}
    table = xr.DataArray(
        numbers,
        dims=(METRIC, n.LATENT),
        coords={
            METRIC: [ETA_SQUARED, MUTUAL],
            n.LATENT: latents[latent_dim].values if latent_dim in latents.coords else np.arange(values.shape[1]),
            "n": (n.LATENT, count, {"long_name": "finite scan points", "units": "1"}),
            "n_classes": (n.LATENT, n_classes, {"long_name": "classes among them", "units": "1"}),
            "signed": (METRIC, [False, False]),
            TARGET: str(classes.name) if classes.name is not None else "classes",
        },
        name=ASSOCIATION,
        attrs={
            "long_name": "association of latent and classes",
            "units": "1",
            "latents": str(latents.name) if latents.name is not None else n.LATENTS,
            "bins": bins,
            "binning": "equally full bins of the latent; equal values share a bin",
            "classes": [names.get(int(code), str(int(code))) for code in np.unique(codes[known])],
        },
    )
    table[n.LATENT].attrs.update(n.ATTRS[n.LATENT])
    return table


def _both(
    values: np.ndarray, codes: np.ndarray, known: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both numbers (2, L) of latents (n, L), their points (L,) and classes (L,)."""
    numbers = np.full((2, values.shape[1]), np.nan)
    count, n_classes = np.zeros(values.shape[1], int), np.zeros(values.shape[1], int)
    expected = _expectations()
    for i, column in enumerate(values.T):
        keep = known & np.isfinite(column)
        latent = column[keep]
        found, place = np.unique(codes[keep], return_inverse=True)
        count[i], n_classes[i] = latent.size, found.size
        if latent.size >= max(MIN_POINTS, found.size + 1) and found.size > 1 and np.ptp(latent) > 0:
            numbers[0, i] = eta_squared(latent, place)
            numbers[1, i] = _mutual(equal_bins(latent, bins), place, expected)
    return numbers, count, n_classes


def eta_squared(values: np.ndarray, place: np.ndarray) -> float:
    """Share of the variance of `values` (n,) that classes `place` (n,) = 0, 1, … explain."""
    centred = values - values.mean()
    centred /= np.abs(centred).max()
    sizes = np.bincount(place)
    between = np.bincount(place, centred) ** 2 / np.maximum(sizes, 1)
    return float(min(between.sum() / (centred @ centred), 1.0))


def equal_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Bin 0, 1, … (n,) of each value, by rank, so that bins are equally full; equal values share the lowest one."""
    ordered = np.sort(values)
    lowest = np.searchsorted(ordered, values, side="left")
    return np.unique(lowest * bins // values.size, return_inverse=True)[1]


def _mutual(binned: np.ndarray, place: np.ndarray, expected: Callable[[np.ndarray], float]) -> float:
    n_bins, n_classes = int(binned.max()) + 1, int(place.max()) + 1
    table = np.bincount(binned * n_classes + place, minlength=n_bins * n_classes).reshape(n_bins, n_classes)
    sides = table.sum(axis=1), table.sum(axis=0)
    least = min(_entropy(side) for side in sides)
    chance = expected(table)
    shared = _entropy(sides[0]) + _entropy(sides[1]) - _entropy(table.ravel())
    room = least - chance
    return float((shared - chance) / room) if room > 1e-12 else np.nan


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def _expectations() -> Callable[[np.ndarray], float]:
    """Expected mutual information of a contingency table; tables with the same margins share the work."""
    from sklearn.metrics.cluster import expected_mutual_information

    made: dict[tuple[bytes, bytes], float] = {}

    def expected(table: np.ndarray) -> float:
        key = (np.sort(table.sum(axis=1)).tobytes(), np.sort(table.sum(axis=0)).tobytes())
        if key not in made:
            made[key] = float(expected_mutual_information(table.astype(np.int64), int(table.sum())))
        return made[key]

    return expected
