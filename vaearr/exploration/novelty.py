"""How unusual each sample is for a run, by where its latents lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, UsageError
from vaearr.exploration.points import POINT, Encoded, class_coords, classes_if_any, open_encoded
from vaearr.exploration.posteriors import sums_of
from vaearr.quality import ACTIVE_VARIANCE
from vaearr.store import read_block


def out_of_distribution(store: str | Path, run: str = n.DEFAULT_RUN) -> xr.Dataset:
    """How far each sample lies from the aggregate posterior: `distance` and `p_value` over the navigation dims.

    distance: Mahalanobis' d of the posterior mean, d^2 = (z - m)' C^-1 (z - m) with the mean m and covariance C of the
    aggregate posterior, that of the means plus the mean posterior variance (Mahalanobis, Proc. Natl. Inst. Sci. India
    2, 49 (1936)). p_value: probability of a larger one for a draw of a Gaussian aggregate, by chi^2 with `degrees`
    degrees of freedom; of posterior means, which spread less than draws, it is rather too large. Only active dimensions
    count (variance of the mean > 0.01), since others do not tell samples apart and would only add degrees of freedom;
    of an autoencoder, and of latents attached without standard deviations, all that vary. Positions of a spatial latent
    are taken as independent: squares and degrees are sums over those that are known.

    NaN outside the region, 0 degrees there. Attributes: `active`, the dimensions; `n`, samples. Raises NoInputError for
    a run not encoded, DataError where no dimension is active.
    """
    from scipy.stats import chi2

    encoded = open_encoded(store, run)
    sums = sums_of(encoded)
    spread, posterior = np.diag(sums.covariance), sums.variance / sums.count
    is_deterministic = bool((posterior == 0).all())
    active = np.flatnonzero(spread > (0 if is_deterministic else ACTIVE_VARIANCE))
    if not len(active):
        raise DataError(f"no latent dimension of run {run!r} varies over the data (collapse); there is no distance.")
    covariance = (sums.covariance + np.diag(posterior))[np.ix_(active, active)]
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values.max() * len(values) * np.finfo(float).eps
    white = vectors[:, kept] / np.sqrt(values[kept])
    squared = np.full(int(np.prod(encoded.grid)), np.nan)
    degrees = np.zeros(squared.size, int)
    for numbers, rows in encoded.blocks():
        z = np.moveaxis(rows[:, active].reshape(len(rows), len(active), -1).astype("f8"), 1, -1)
        each = (((z - sums.mean[active]) @ white) ** 2).sum(-1)
        known = np.isfinite(each)
        squared[numbers] = np.where(known, each, 0).sum(1)
        degrees[numbers] = known.sum(1) * white.shape[1]
    squared[degrees == 0] = np.nan
    nav = schema.navigation_dims(encoded.ds)
    p_value = chi2.sf(squared, np.maximum(degrees, 1))
    maps = {
        "distance": (np.sqrt(squared), "Mahalanobis distance to the aggregate posterior"),
        "p_value": (p_value, "probability of a larger distance (chi^2)"),
        "degrees": (degrees, "degrees of freedom"),
    }
    return xr.Dataset(
        {
            name: (nav, array.reshape(encoded.grid), {"long_name": text, "units": "1"})
            for name, (array, text) in maps.items()
        },
        coords={dim: encoded.ds[dim] for dim in nav},
        attrs={**encoded.attrs, "active": active.tolist(), "n": int((degrees > 0).sum())},
    )


def unusual(
    store: str | Path,
    run: str = n.DEFAULT_RUN,
    count: int = 16,
    *,
    by: str | None = None,
    maps: xr.Dataset | None = None,
) -> xr.Dataset:
    """The samples that lie farthest from the aggregate posterior, the farthest first, with their patterns.

    `distance`, `p_value (point)` as of `out_of_distribution`; where a mask left some samples fewer degrees of freedom,
    the least `p_value` counts. `input (point, [channel,] dy, dx)`, stored values; coordinates `number`, the navigation
    coordinates and, of `by` (None: label, phase or clusters where one is there), `class`. maps: a result of
    `out_of_distribution` of this run, so that it is not made again. Raises UsageError for a count below 1 or maps of
    another run, and as `out_of_distribution`.
    """
    if count < 1:
        raise UsageError(f"count is {count}; it must be at least 1.")
    encoded = open_encoded(store, run)
    if maps is None:
        maps = out_of_distribution(store, run)
    elif any(maps.attrs.get(key) != encoded.attrs[key] for key in ("run", "weights_sha256")):
        raise UsageError(f"the maps are of run {maps.attrs.get('run')!r}; give those of {run!r} as it is now, or none.")
    distance, p_value = maps["distance"].values.ravel(), maps["p_value"].values.ravel()
    numbers = np.flatnonzero(np.isfinite(distance))
    order = np.lexsort((numbers, -distance[numbers], p_value[numbers]))
    numbers = numbers[order[:count]]
    coords = encoded.coords(numbers)
    classes = classes_if_any(encoded.ds, by)
    if classes is not None:
        coords |= class_coords(classes, numbers)
    signal = schema.signal_dims(encoded.ds)
    patterns = encoded.ds[n.PATTERNS]
    return xr.Dataset(
        {
            "distance": (POINT, distance[numbers], dict(maps["distance"].attrs)),
            "p_value": (POINT, p_value[numbers], dict(maps["p_value"].attrs)),
            "input": (
                (POINT, *signal),
                np.stack([_pattern(encoded, int(number)) for number in numbers]),
                {**patterns.attrs, n.SIGNAL_DIMS: list(signal), "scale": "stored"},
            ),
        },
        coords={
            **coords,
            **{d: encoded.ds[d] for d in signal if d in encoded.ds.coords and d not in coords},
        },
        attrs={**maps.attrs, "by": None if classes is None else classes.by},
    )


def _pattern(encoded: Encoded, number: int) -> np.ndarray:
    """The stored pattern of a sample by its number in the grid."""
    nav = schema.navigation_dims(encoded.ds)
    place = dict(zip(nav, np.unravel_index(number, encoded.grid), strict=True))
    block = read_block(encoded.ds[n.PATTERNS], {dim: slice(int(i), int(i) + 1) for dim, i in place.items()})
    return block.reshape(block.shape[len(nav) :])
