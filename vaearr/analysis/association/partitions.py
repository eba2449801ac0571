"""Latents one by one against a partition of the same points: which dimension finds the same groups?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.table import gather, latent_dims, name_of
from vaearr.analysis.association.targets import stack, stacked
from vaearr.errors import SchemaError, UsageError
from vaearr.schema import is_categorical
from vaearr.schema.grid import align_samples

ARI, NMI = "ari", "nmi"
K_MIN = 2
LEAST_POINTS = 10  # for each cluster of the range
WORDS = {
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
    """Adjusted Rand index and normalised mutual information of each latent's clusters with those of
    a reference.

    Every latent alone, and all features of the reference together, are standardised and clustered
    by a Gaussian mixture whose number of components has the least BIC from 2 to `k_max`, see
    `vaearr.cluster`; of fewer different values, to as many as there are. A latent with one value
    has no groups: NaN.

    Parameters
    ----------
    latents
        Over the navigation dims and one further dim; NaN where there is none.
    reference
        Scores, elements or maps over the same points, clustered together; or a map of classes
        (`phase`, clusters: integers with `flag_values`), which is taken as it is, codes below 0
        missing.
    roi
        Boolean map, True = used. Points are used where the reference and that latent are finite.
    k_max
        Largest number of clusters that is tried.

    Returns
    -------
    xr.Dataset
        Over `latent`: `ari` (1 the same groups, 0 as by chance; Hubert & Arabie, J. Classif. 2, 193
        (1985)), `nmi` (mutual information over the mean entropy, 0 to 1, not corrected for chance),
        `k`, `k_at_bound`, `n`. attrs: `k_reference`, `k_reference_at_bound`, `n_reference`,
        `k_range`, `warnings`.

    Raises UsageError for a k_max below 2, SchemaError for other grids or too few points, RoiError
    for an empty region.
    """
    if k_max < K_MIN:
        raise UsageError(f"k_max is {k_max}; it must be at least {K_MIN}.")
    has_classes = isinstance(reference, xr.DataArray) and is_categorical(reference)
    reference = align_samples(latents, reference, "the reference")
    points = gather(latents, _features(reference, latent_dims(latents)[1]), roi)
    labels, k_reference, at_bound = _reference(points.targets, has_classes, k_max)
    rows = [_compared(column, labels, k_max) for column in points.latents.T.astype("f8")]
    columns = {name: [row[name] for row in rows] for name in WORDS}
    ds = xr.Dataset(
        {name: (n.LATENT, values, WORDS[name]) for name, values in columns.items()},
        {n.LATENT: points.entries},
    )
    return ds.assign_attrs(
        latents=name_of(latents),
        reference="classes as given"
        if has_classes
        else "Gaussian mixture of the standardised features",
        k_reference=k_reference,
        k_reference_at_bound=at_bound,
        n_reference=int((labels >= 0).sum()),
        k_range=[K_MIN, k_max],
        warnings=_warnings(ds, k_max, k_reference if at_bound else None),
    )


def _compared(latent: np.ndarray, labels: np.ndarray, k_max: int) -> dict[str, float | int | bool]:
    """What `latent_partitions` tells of one latent `(n,)`, against reference labels `(n,)`."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    keep = np.isfinite(latent) & (labels >= 0)
    count = int(keep.sum())
    if count < LEAST_POINTS * k_max or np.ptp(latent[keep]) == 0:
        return {ARI: np.nan, NMI: np.nan, "k": 1, "k_at_bound": False, "n": count}
    clusters, k, at_bound = _clusters(latent[keep, None], k_max)
    return {
        ARI: adjusted_rand_score(labels[keep], clusters),
        NMI: normalized_mutual_info_score(labels[keep], clusters),
        "k": k,
        "k_at_bound": at_bound,
        "n": count,
    }


def _features(reference: xr.DataArray | xr.Dataset, dims: tuple[str, ...]) -> xr.DataArray:
    """The reference as columns; a map of classes as one column of codes, NaN where there is none."""
    if isinstance(reference, xr.DataArray) and is_categorical(reference):
        if set(reference.dims) != set(dims):
            raise SchemaError(
                f"the classes have dims {reference.dims}; a map of classes lies over {dims}."
            )
        return stack([("classes", reference.astype("f8").where(reference >= 0))], dims)
    return stacked(reference, dims)


def _reference(points: np.ndarray, has_classes: bool, k_max: int) -> tuple[np.ndarray, int, bool]:
    """Labels (n,) of the reference, -1 where missing, their number, and whether that is at its
    bound.
    """
    labels = np.full(len(points), -1)
    keep = np.isfinite(points).all(axis=1)
    least = 2 if has_classes else LEAST_POINTS * k_max
    if keep.sum() < least:
        raise SchemaError(
            f"the reference has {int(keep.sum())} points with all of its {points.shape[1]} features; at least {least} "
            f"are needed: widen the region of interest or lower k_max (--k-max)."
        )
    if has_classes:
        codes, labels[keep] = np.unique(points[keep, 0], return_inverse=True)
        return labels, len(codes), False
    if not np.ptp(points[keep], axis=0).any():
        raise SchemaError(
            "the reference is the same at every point of the region; it has no groups to compare with."
        )
    labels[keep], k, at_bound = _clusters(points[keep], k_max)
    return labels, k, at_bound


def _clusters(values: np.ndarray, k_max: int) -> tuple[np.ndarray, int, bool]:
    """Labels (n,), k and whether k is at its bound, of values (n, f) after standardising; constant
    features count 0.
    """
    from vaearr.analysis.clustering.methods import fit
    from vaearr.config import ClusterConfig

    centred = values.astype("f8") - values.mean(axis=0, dtype="f8")
    centred /= np.maximum(
        np.abs(centred).max(axis=0), np.finfo(float).tiny
    )  # tiny spreads do not underflow
    deviation = centred.std(axis=0)
    scaled = centred / np.where(deviation > 0, deviation, 1.0)
    most = min(k_max, len(np.unique(scaled, axis=0)))  # of few values there are few groups
    labels, info = fit(scaled, ClusterConfig(method="gmm", k_min=K_MIN, k_max=most))
    return labels, int(info["k"]), bool(info["k_at_bound"])


def _warnings(ds: xr.Dataset, k_max: int, k_reference: int | None) -> list[str]:
    advice = f"at the end of the range {K_MIN} to {k_max} that was tried: raise k_max (--k-max)."
    found = []
    if k_reference is not None:
        found.append(f"the reference's k = {k_reference} is {advice}")
    if at_bound := [str(item) for item in ds[n.LATENT].values[ds["k_at_bound"].values]]:
        found.append(f"k of latent {', '.join(at_bound)} is {advice}")
    return found
