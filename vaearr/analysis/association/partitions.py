"""Latents one by one against a partition of the same points: which dimension finds the same groups?"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.metrics import MIN_POINTS
from vaearr.analysis.association.table import gather, latent_dims, name_of
from vaearr.analysis.association.targets import stack, stacked
from vaearr.errors import SchemaError, UsageError
from vaearr.schema import is_categorical
from vaearr.schema.grid import align_samples

ARI, NMI, TIED = "ari", "nmi", "is_tied"
ETA_SQUARED, MUTUAL = "eta_squared", "adjusted_mutual_information"
BINS = 16  # of a latent, equally full
LEAST_POINTS = 10  # for each cluster of the range
WORDS = {
    ARI: {"long_name": "adjusted Rand index", "units": "1"},
    NMI: {"long_name": "normalised mutual information", "units": "1"},
    "k": {"long_name": "clusters of the latent", "units": "1"},
    "k_at_bound": {"long_name": "k is at the end of the range that was tried"},
    TIED: {"long_name": "another latent has the same adjusted Rand index"},
    "n": {"long_name": "finite scan points", "units": "1"},
    ETA_SQUARED: {"long_name": "share of the latent's variance that its class explains", "units": "1"},
    MUTUAL: {"long_name": "adjusted mutual information of classes and latent", "units": "1", "bins": BINS},
}


def latent_partitions(
    latents: xr.DataArray,
    reference: xr.DataArray | xr.Dataset,
    roi: xr.DataArray | None = None,
    *,
    k_range: tuple[int, int] = (2, 12),
    criterion: Literal["bic", "aic", "silhouette", "hybrid"] = "bic",
    seed: int = 0,
    max_points: int | None = 20_000,
) -> xr.Dataset:
    """Adjusted Rand index and normalised mutual information of each latent's clusters with those of a reference.

    Every latent alone, and all features of the reference together, are standardised and clustered by a Gaussian
    mixture whose number of components is chosen from `k_range`, see `vaearr.cluster`; of fewer different
    values, from as many as there are. A latent with fewer than the range begins with has no groups: NaN.

    Parameters
    ----------
    latents
        Over the navigation dims and one further dim; NaN where there is none.
    reference
        Scores, elements or maps over the same points, clustered together; or a map of classes (`phase`, clusters:
        integers with `flag_values`), which is taken as it is, codes below 0 missing.
    roi
        Boolean map, True = used. Points are used where the reference and that latent are finite.
    max_points
        k is chosen on a seeded sub-sample of so many points, the mixture is then fitted to all; None: all.

    Returns
    -------
    xr.Dataset
        Over `latent`: `ari` (1 the same groups, 0 as by chance; Hubert & Arabie, J. Classif. 2, 193 (1985)), `nmi`
        (mutual information over the mean entropy, 0 to 1, not corrected for chance), `k`, `k_at_bound`, `n`, and
        `is_tied`, whether another latent has the same ari. attrs: `k_reference`, `k_reference_at_bound`,
        `n_reference`, `warnings`, and the settings. Of classes as given also `eta_squared` and
        `adjusted_mutual_information`, see `_of_classes`.

    Raises UsageError for an unusable range, SchemaError for other grids or too few points, RoiError for an empty
    region.
    """
    if not 1 <= k_range[0] <= k_range[1]:
        raise UsageError(f"k_range {k_range} must be two numbers, 1 <= first <= last.")
    given = isinstance(reference, xr.DataArray) and is_categorical(reference)
    reference = align_samples(latents, reference, "the reference")
    points = gather(latents, _features(reference, latent_dims(latents)[1]), roi)
    settings = {"k_range": k_range, "criterion": criterion, "seed": seed, "max_points": max_points}
    labels, k_reference, at_bound = _reference(points.targets, given, settings)
    numbers = _each(points.latents, labels, settings) | (_of_classes(points.latents, labels) if given else {})
    ds = xr.Dataset({name: (n.LATENT, values, WORDS[name]) for name, values in numbers.items()})
    ds = ds.assign_coords({n.LATENT: points.entries})
    warnings = _warnings(ds, k_range, k_reference if at_bound else None)
    return ds.assign_attrs(
        latents=name_of(latents),
        reference="classes as given" if given else "Gaussian mixture of the standardised features",
        k_reference=k_reference,
        k_reference_at_bound=at_bound,
        n_reference=int((labels >= 0).sum()),
        warnings=warnings,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
    )


def _each(values: np.ndarray, labels: np.ndarray, settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """What `latent_partitions` tells of each latent (n, L), against reference labels (n,): arrays (L,)."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    size, least = values.shape[1], LEAST_POINTS * settings["k_range"][1]
    ari, nmi = np.full(size, np.nan), np.full(size, np.nan)
    k, bound, count = np.ones(size, int), np.zeros(size, bool), np.zeros(size, int)
    for i, column in enumerate(values.T.astype("f8")):
        keep = np.isfinite(column) & (labels >= 0)
        count[i] = keep.sum()
        if count[i] < least or len(np.unique(column[keep])) < max(2, settings["k_range"][0]):
            continue
        own, k[i], bound[i] = _clusters(column[keep, None], settings)
        ari[i] = adjusted_rand_score(labels[keep], own)
        nmi[i] = normalized_mutual_info_score(labels[keep], own)
    same = np.isclose(ari[:, None], ari[None], rtol=1e-9, atol=1e-12)
    return {ARI: ari, NMI: nmi, "k": k, "k_at_bound": bound, TIED: same.sum(axis=1) > 1, "n": count}


def _of_classes(values: np.ndarray, classes: np.ndarray) -> dict[str, np.ndarray]:
    """How well each latent (n, L) tells classes (n,), below 0 for none, apart: arrays (L,).

    eta_squared: sum of squares between the classes over the total, 0 to 1 (Fisher, Statistical Methods for Research
    Workers (1925), § 45, the squared correlation ratio). adjusted_mutual_information: of the classes and the latent in
    16 equally full bins, less its expectation under random labels, over the smaller entropy less the same (Vinh, Epps
    & Bailey, J. Mach. Learn. Res. 11, 2837 (2010), AMI_min): 0 by chance, 1 where bins determine classes, whatever the
    shape of the relation. Equal values share a bin. NaN where the latent is constant, there is one class only, or fewer
    points are left than three or one more than classes (of which classes always explain all).
    """
    from sklearn.metrics import adjusted_mutual_info_score

    found = np.full((2, values.shape[1]), np.nan)
    for i, column in enumerate(values.T.astype("f8")):
        keep = (classes >= 0) & np.isfinite(column)
        latent, place = column[keep], np.unique(classes[keep], return_inverse=True)[1]
        n_classes = int(place.max(initial=-1)) + 1
        if n_classes < 2 or latent.size < max(MIN_POINTS, n_classes + 1) or np.ptp(latent) == 0:
            continue
        off = latent - latent.mean()
        off /= np.abs(off).max()
        between = np.bincount(place, off) ** 2 / np.bincount(place)
        bins = np.searchsorted(np.sort(latent), latent) * BINS // latent.size
        mutual = adjusted_mutual_info_score(place, bins, average_method="min")
        found[:, i] = min(between.sum() / (off @ off), 1.0), mutual
    return {ETA_SQUARED: found[0], MUTUAL: found[1]}


def _features(reference: xr.DataArray | xr.Dataset, dims: tuple[str, ...]) -> xr.DataArray:
    """The reference as columns; a map of classes as one column of codes, NaN where there is none."""
    if isinstance(reference, xr.DataArray) and is_categorical(reference):
        if set(reference.dims) != set(dims):
            raise SchemaError(f"the classes have dims {reference.dims}; a map of classes lies over {dims}.")
        return stack([("classes", reference.astype("f8").where(reference >= 0))], dims)
    return stacked(reference, dims)


def _reference(points: np.ndarray, given: bool, settings: dict[str, Any]) -> tuple[np.ndarray, int, bool]:
    """Labels (n,) of the reference, -1 where missing, their number, and whether that is at its bound."""
    labels = np.full(len(points), -1)
    keep = np.isfinite(points).all(axis=1)
    least = 2 if given else LEAST_POINTS * settings["k_range"][1]
    if keep.sum() < least:
        raise SchemaError(
            f"the reference has {int(keep.sum())} points with all of its {points.shape[1]} features; at least {least} "
            f"are needed: widen the region of interest or lower the end of k_range (--k-max)."
        )
    if given:
        found, labels[keep] = np.unique(points[keep, 0], return_inverse=True)
        return labels, len(found), False
    if len(np.unique(points[keep], axis=0)) < 2:
        raise SchemaError("the reference is the same at every point of the region; it has no groups to compare with.")
    labels[keep], k, at_bound = _clusters(points[keep], settings)
    return labels, k, at_bound


def _clusters(values: np.ndarray, settings: dict[str, Any]) -> tuple[np.ndarray, int, bool]:
    """Labels (n,), k and whether k is at its bound, of values (n, f) after standardising; constant features count 0."""
    from vaearr.analysis.clustering.methods import fit
    from vaearr.config import ClusterConfig

    centred = values.astype("f8") - values.mean(axis=0, dtype="f8")
    centred /= np.maximum(np.abs(centred).max(axis=0), np.finfo(float).tiny)  # tiny spreads do not underflow
    deviation = centred.std(axis=0)
    scaled = centred / np.where(deviation > 0, deviation, 1.0)
    most = min(settings["k_range"][1], len(np.unique(scaled, axis=0)))  # of few values there are few groups
    config = ClusterConfig(
        method="gmm",
        k_min=min(settings["k_range"][0], most),
        k_max=most,
        criterion=settings["criterion"],
        seed=settings["seed"],
        max_points=settings["max_points"] or max(100, len(scaled)),
    )
    labels, info = fit(scaled, config)
    return labels, int(info["k"]), bool(info["k_at_bound"])


def _warnings(ds: xr.Dataset, k_range: tuple[int, int], k_reference: int | None) -> list[str]:
    found = []
    if k_reference is not None:
        found.append(
            f"the reference's k = {k_reference} is at the end of the range {k_range[0]} to {k_range[1]} that was "
            f"tried: raise its end (k_range, --k-max)."
        )
    if at_bound := [str(item) for item in ds[n.LATENT].values[ds["k_at_bound"].values]]:
        found.append(
            f"k is at the end of the range {k_range[0]} to {k_range[1]} for latent {', '.join(at_bound)}: "
            f"raise its end (k_range, --k-max)."
        )
    if n_tied := int(ds[TIED].sum()):
        found.append(f"{n_tied} latents share their adjusted Rand index with another: their order means nothing.")
    return found
