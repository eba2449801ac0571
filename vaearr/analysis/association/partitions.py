"""Clusters of each latent compared with a partition of the same points."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.correlations import unit
from vaearr.analysis.association.points import gather, latent_dims
from vaearr.errors import SchemaError, UsageError
from vaearr.schema import is_categorical

ARI, NMI = "ari", "nmi"
K_MIN = 2
MIN_POINTS = 10  # for each cluster of the range
ATTRS = {
    ARI: {"long_name": "adjusted Rand index", "units": "1"},
    NMI: {"long_name": "normalised mutual information", "units": "1"},
    "k": {"long_name": "clusters of the latent", "units": "1"},
    "k_at_bound": {"long_name": "k is at the end of the range that was tried"},
    "n": {"long_name": "finite scan points", "units": "1"},
}


def latent_partitions(
    latents: xr.DataArray,
    reference: xr.DataArray | xr.Dataset,
    roi: xr.DataArray | None = None,
    *,
    k_max: int = 12,
) -> xr.Dataset:
    """Compare the clusters of each latent with those of a reference.

    Each latent alone, and all features of the reference together, are standardised and clustered
    by a Gaussian mixture whose number of components, from 2 to `k_max`, has the least BIC (see
    `va.cluster`); of fewer different values, up to as many as there are.

    Parameters
    ----------
    latents
        Over the navigation dims and one further dim; NaN where missing.
    reference
        Scores, elements or maps over the same points, clustered together; or a map of classes
        (`phase`, clusters: integers with `flag_values`), used as it is, codes below 0 missing.
    roi
        Boolean map, True = used. Points are used where the reference and that latent are finite.
    k_max
        Largest number of clusters that is tried.

    Returns
    -------
    xarray.Dataset
        Over `latent`: `ari` (1 the same groups, 0 as by chance [1]_), `nmi` (mutual information
        over the mean entropy, 0 to 1, not corrected for chance), both NaN for a constant latent;
        `k`, `k_at_bound`, `n`. attrs: `k_reference`, `k_reference_at_bound`, `n_reference`,
        `k_range`, `warnings`.

    Raises
    ------
    UsageError
        For a `k_max` below 2.
    SchemaError
        For different grids, too few points or a constant reference.
    RoiError
        For an empty region.

    References
    ----------
    .. [1] Hubert & Arabie, J. Classif. 2, 193 (1985), doi:10.1007/BF01908075.
    """
    if k_max < K_MIN:
        raise UsageError(f"k_max is {k_max}; it must be at least {K_MIN}.")
    description = "Gaussian mixture of the standardised features"
    has_classes = False
    if isinstance(reference, xr.DataArray) and is_categorical(reference):
        has_classes = True
        description = "classes as given"
        reference = _codes(reference, latent_dims(latents)[1])
    points = gather(latents, reference, roi, "the reference")
    labels, k_reference, at_bound = _reference(points.targets, has_classes, k_max)
    rows = [_compare(column, labels, k_max) for column in points.latents.T]
    ds = xr.Dataset(coords={n.LATENT: points.latent_labels})
    for name, attrs in ATTRS.items():
        ds[name] = n.LATENT, [row[name] for row in rows], attrs
    advice = f"the end of the range {K_MIN} to {k_max} that was tried: raise k_max (--k-max)."
    warnings = []
    if at_bound:
        warnings.append(f"the reference's k = {k_reference} is at {advice}")
    at_end = ds[n.LATENT].values[ds["k_at_bound"].values]
    if at_end.size:
        warnings.append(f"k of latent {', '.join(map(str, at_end))} is at {advice}")
    return ds.assign_attrs(
        latents=str(latents.name or n.LATENTS),
        reference=description,
        k_reference=k_reference,
        k_reference_at_bound=at_bound,
        n_reference=int((labels >= 0).sum()),
        k_range=[K_MIN, k_max],
        warnings=warnings,
    )


def _codes(classes: xr.DataArray, dims: tuple[str, ...]) -> xr.DataArray:
    """A map of classes as one map of numbers, NaN where the class is missing."""
    if set(classes.dims) != set(dims):
        raise SchemaError(
            f"the classes have dims {classes.dims}; a map of classes lies over {dims}."
        )
    return classes.astype("f8").where(classes >= 0).drop_attrs(deep=False)


def _reference(points: np.ndarray, has_classes: bool, k_max: int) -> tuple[np.ndarray, int, bool]:
    """Labels (n,) of the reference, -1 where missing, their number, whether it is at its bound."""
    labels = np.full(len(points), -1)
    keep = np.isfinite(points).all(axis=1)
    least = 2 if has_classes else MIN_POINTS * k_max
    if keep.sum() < least:
        raise SchemaError(
            f"the reference has {int(keep.sum())} points with all of its {points.shape[1]} "
            f"features; at least {least} are needed: widen the region of interest or lower k_max "
            "(--k-max)."
        )
    if has_classes:
        codes, labels[keep] = np.unique(points[keep, 0], return_inverse=True)
        return labels, len(codes), False
    if not np.ptp(points[keep], axis=0).any():
        raise SchemaError(
            "the reference is the same at every point of the region; it has no groups to compare "
            "with."
        )
    labels[keep], k, at_bound = _clusters(points[keep], k_max)
    return labels, k, at_bound


def _compare(latent: np.ndarray, labels: np.ndarray, k_max: int) -> dict[str, float | int | bool]:
    """The variables of `latent_partitions` for one latent `(n,)`."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    keep = np.isfinite(latent) & (labels >= 0)
    count = int(keep.sum())
    row = {ARI: np.nan, NMI: np.nan, "k": 1, "k_at_bound": False, "n": count}
    if count >= MIN_POINTS * k_max and np.ptp(latent[keep]) > 0:
        clusters, row["k"], row["k_at_bound"] = _clusters(latent[keep, None], k_max)
        row[ARI] = adjusted_rand_score(labels[keep], clusters)
        row[NMI] = normalized_mutual_info_score(labels[keep], clusters)
    return row


def _clusters(values: np.ndarray, k_max: int) -> tuple[np.ndarray, int, bool]:
    """Labels (n,), k and whether k is at its bound, of values (n, f) after standardising."""
    from vaearr.analysis.clustering.methods import METHODS, fit
    from vaearr.config import ClusterConfig

    scaled = unit(values.astype("f8")) * np.sqrt(len(values))
    scaled = np.nan_to_num(scaled)  # of constant features
    n_distinct = len(np.unique(scaled, axis=0))
    config = ClusterConfig(k_min=K_MIN, k_max=min(k_max, n_distinct))
    labels, info = fit(scaled, config, METHODS["gmm"])
    return labels, int(info["k"]), bool(info["k_at_bound"])
