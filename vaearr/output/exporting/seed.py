"""The files of an older program (the first seed): same names, columns and keys, so that its scripts read them.

Its JSON reports keep their keys and types; `about`, `parameters`, `scaling`, `seeds`, `n` and `versions` are added.
Where its numbers differ from ours: a constant latent or target gives null, not 0.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association import associate, latent_partitions, ranking, targets_of
from vaearr.errors import DamagedError, DataError, NoInputError, UsageError, did_you_mean
from vaearr.output.exporting.formats import Content, npy, write_json, write_table
from vaearr.recipe import nested, versions

log = logging.getLogger("vaearr")

# our metrics -> the seed's names, in the seed's order
METRICS = {
    "pearson": "pearson",
    "spearman": "spearman",
    "kendall": "kendall",
    "mutual_information": "mi",
    "distance_correlation": "dcorr",
    "hsic": "hsic",
    "partial_pearson": "pp_spatial",
}
TOP = 3
# method of a clustering -> its tag in the names of files, from the keys of `_cluster_keys`
TAGS = {
    "gmm": "gmm_k{k}",
    "kmeans": "kmeans_k{k}",
    "dbscan": "dbscan_eps{eps:.3g}_m{min_samples}",
    "hdbscan": "hdbscan_mcs{min_cluster_size}",
}


def seed0(content: Content, folder: Path) -> None:
    """All of the first seed's files that the store has the data for; which are left out, and why, is logged.

    `latents_full.npy`, `latents_roi.npy`, `coords.csv`; `latent_maps_selected_dim_<L>/latent_full_d<d>.png`, `.csv`;
    `bandcontrast_latent_scores.csv`, `report_bandcontrast_multi_metric.json`; `element_latent_scores.csv`,
    `report_elements_multi_metric__<synth_tag>.json`; `cluster_assignments__<tag>.csv`, `cluster_report__<tag>.json`,
    `cluster_latent_bc__<tag>.png`; `report_cluster.json`. Asked-for parts that cannot be made are errors.
    """
    content.need_plane()
    npy(content, folder)
    _latent_maps(content, folder)
    config = content.config
    for part, is_asked, write in (
        ("band contrast", config.target != n.BC, _band_contrast),
        ("elements", bool(config.elements or config.weights), _elements),
        ("clusters", bool(config.clusters), _clusters),
        ("clusters of each latent", config.reference is not None, _partitions),
    ):
        try:
            write(content, folder)
        except (NoInputError, DataError) as reason:
            if is_asked or isinstance(reason, DamagedError):
                raise
            log.info(f"left out: {part}: {reason}")


def _latent_maps(content: Content, folder: Path) -> None:
    from vaearr.views import save

    maps, outline = folder / f"latent_maps_selected_dim_{content.latents.shape[-1]}", content.roi
    maps.mkdir()
    for label in content.labels():
        one = content.latent(label).where(content.roi).astype(np.float32)
        write_table(content.table({f"latent_d{label}": one}), maps / f"latent_full_d{label}.csv")
        roi = None if bool(outline.all()) else outline
        save(one, maps / f"latent_full_d{label}.png", dpi=content.config.dpi, kind="map", roi=roi)


def _band_contrast(content: Content, folder: Path) -> None:
    """Scores and ranking against band contrast."""
    name = content.config.target
    target = content.variable(name)
    if target.ndim != len(content.dims):
        raise UsageError(f"target {name!r} has dims {target.dims}; expected a plain map over {content.dims}.")
    report = _scores(content, target, folder / "bandcontrast_latent_scores.csv")
    record = {"target": "BandContrast", "target_variable": name} | report
    write_json(folder / "report_bandcontrast_multi_metric.json", record)


def _elements(content: Content, folder: Path) -> None:
    """Scores and ranking against a weighted sum of elements."""
    if n.ELEMENTS not in content.ds:
        raise NoInputError("the store holds no element maps.")
    config, known = content.config, [str(element) for element in content.ds[n.ELEMENT].values]
    if unknown := [element for element in config.elements if element not in known]:
        raise NoInputError(f"the store has no element {unknown[0]!r}.{did_you_mean(unknown[0], known)}")
    elements, weights = list(config.elements) or known, list(config.weights)
    if weights and len(weights) != len(elements):
        raise UsageError(f"{len(weights)} weights for {len(elements)} elements ({', '.join(elements)}); give each one.")
    factors = zip(weights or [1.0] * len(elements), elements, strict=True)
    formula = " + ".join(f"{weight!r}*{element!r}" for weight, element in factors)
    tag = "sum-" + ("_".join(f"{weight:.3f}" for weight in weights) or "auto")
    target = targets_of(content.ds, [formula], roi=content.roi).isel(target=0, drop=True)
    scores = _scores(content, target, folder / "element_latent_scores.csv")
    record = {
        "synth_mode": "sum",
        "synth_tag": tag,
        "elements": elements,
        "rgb_elements": None,
        "weights": weights or None,
        "formula": formula,
        **scores,
        "scaling": "each element to 0 … 1 between its least and greatest value in the region; weights divided by the "
        "sum of their absolute values",
    }
    write_json(folder / f"report_elements_multi_metric__{tag}.json", record)


def _scores(content: Content, target: xr.DataArray, path: Path) -> dict[str, Any]:
    """What a report says of the seven metrics of all latents with a map over the region.

    Writes them as CSV with `dim` and the seed's names, the largest |pearson| first, latents without one last. In the
    rankings `tied` marks a score that another latent shares.
    """
    table = associate(content.latents, target, list(METRICS), roi=content.roi)
    frame: Any = table.reset_coords(drop=True).T.to_pandas()
    frame = frame.rename(columns=METRICS).rename_axis("dim").reset_index()
    write_table(frame.sort_values("pearson", key=lambda r: -r.abs(), kind="stable"), path)
    rankings = {}
    for name, short in METRICS.items():
        best = ranking(table, name, top=TOP).to_dataframe()[[n.LATENT, "value", "is_tied"]]
        rankings[short] = best.set_axis(["dim", "score", "tied"], axis=1).to_dict("records")
    steps, count = content.table({}, content.inside), int(content.inside.sum())
    box = {f"{dim}_range": [int(steps[dim].min()), int(steps[dim].max()) + 1] for dim in steps}
    return {
        "roi": box | {"n": count, "range_is": "step numbers, start <= step < stop"},
        "metrics": list(METRICS.values()),
        "rankings": rankings,
        "n": count,
        "n_finite": int(table["n"]),
        "parameters": {METRICS[name]: about for name, about in table.attrs["metrics"].items()},
        "scaling": None,  # the metrics are taken of the values as they are
        "seeds": {"mi": 0},
        "about": _about(content),
        "versions": versions("scipy", "scikit-learn"),
    }


def _about(content: Content) -> dict[str, Any]:
    """Where the numbers come from."""
    return {
        "run": content.config.run,
        "latents": str(content.latents.name),
        "store_id": content.ds.attrs.get(n.STORE_ID),
        "provenance": nested(content.latents.attrs, n.PROVENANCE),
    }


def _clusters(content: Content, folder: Path) -> None:
    """Files of every cluster map that is meant, named by method and size, several alike also by the variable.

    Raises NoInputError where there is no cluster map or no band contrast.
    """
    config, target = content.config, content.variable(content.config.target)
    own = [
        str(name)
        for name, one in content.ds.data_vars.items()
        if _is_map(one) and (nested(one.attrs, "config") or {}).get("run", config.run) == config.run
    ]
    maps = [content.variable(name) for name in dict.fromkeys(config.clusters or own)]
    if not maps:
        raise NoInputError("the store holds no cluster map of this run: 'vaearr cluster' writes one.")
    if others := [one.name for one in maps if not _is_map(one)]:
        raise UsageError(f"{others[0]!r} is no cluster map; expected one that 'vaearr cluster' wrote.")
    tags = [TAGS[labels.attrs["method"]].format(**_cluster_keys(labels)) for labels in maps]
    for labels, tag in zip(maps, tags, strict=True):
        full = tag if tags.count(tag) == 1 else f"{tag}_{labels.name}"
        _write_clusters(content, folder, labels, full, target, _latent_for(content, labels, target))


def _is_map(one: xr.DataArray) -> bool:
    return one.attrs.get("method") in TAGS and one.dtype.kind in "iu"


def _latent_for(content: Content, labels: xr.DataArray, target: xr.DataArray) -> int:
    """The latent shown beside band contrast: the one asked for, the only one clustered, or the strongest."""
    used: Any = (nested(labels.attrs, "config") or {}).get("latents") or ()
    if content.config.latent is not None or len(used) == 1:
        return int(used[0] if content.config.latent is None else content.config.latent)
    best = ranking(associate(content.latents, target, "pearson", roi=content.roi), "pearson", top=1)
    return int(best[n.LATENT][0]) if best.sizes["rank"] else content.labels()[0]


def _cluster_keys(labels: xr.DataArray) -> dict[str, Any]:
    """What the seed's report says of a clustering by its method."""
    method, used = labels.attrs["method"], nested(labels.attrs, "parameters") or {}
    if method == "dbscan":
        return {"eps": float(used["eps"]), "min_samples": int(used["min_samples"])}
    if method == "hdbscan":
        least, epsilon = int(used["min_cluster_size"]), float(used.get("cluster_selection_epsilon") or 0.0)
        samples = int(used.get("min_samples") or least)
        return {"min_cluster_size": least, "min_samples": samples, "cluster_selection_epsilon": epsilon}
    k = int(labels.attrs.get("k") or used.get("k") or labels.max() + 1)
    if method == "kmeans":
        return {"k": k}
    value = (nested(labels.attrs, "scores") or {}).get(str(k))
    return {"k": k, "scores": None if value is None else {"criterion": used.get("criterion"), "value": float(value)}}


def _write_clusters(
    content: Content, folder: Path, labels: xr.DataArray, tag: str, target: xr.DataArray, dim: int
) -> None:
    """Assignments, report and figure of one cluster map; `eps` is a distance between points as `scaling` says."""
    from vaearr.views import save
    from vaearr.views.clusters import classes_of

    latent, attrs = content.latent(dim), labels.attrs
    inside = content.inside & (labels != n.NOT_CLUSTERED).values.reshape(-1)
    columns = {"latent": latent, "bandcontrast": target, "cluster": labels}
    assignments, figure = f"cluster_assignments__{tag}.csv", f"cluster_latent_bc__{tag}.png"
    write_table(content.table(columns, inside), folder / assignments)
    told = ("features", "parameters", "sizes", "stability", "stability_is", "approximation", "warnings", "reference")
    record = {
        "method": attrs["method"],
        **_cluster_keys(labels),
        "n_points": int(inside.sum()),
        "figure": figure,
        "assignments_csv": assignments,
        "cluster_colors": list(classes_of(labels).colors),
        "latent_dim": dim,
        "variable": str(labels.name),
        "n_noise": int((labels == n.NOISE).sum()),
        **{key: attrs.get(key) for key in ("scale", "n", "seed")},
        **{key: nested(attrs, key) for key in ("scaling", *told)},
        "about": _about(content) | {"labels": nested(attrs, n.PROVENANCE)},
        "versions": versions("scikit-learn"),
    }
    write_json(folder / f"cluster_report__{tag}.json", record)
    inside_only = labels.where(content.roi, n.NOT_CLUSTERED)
    save(inside_only, folder / figure, dpi=content.config.dpi, kind="clusters", latent=latent, target=target)


def _partitions(content: Content, folder: Path) -> None:
    """`report_cluster.json`: how well clusters of each latent alone agree with those of PCA or NMF scores.

    Raises NoInputError where there are no such scores.
    """
    config = content.config
    names = [config.reference] if config.reference else [n.PCA, n.NMF]
    name = next((name for name in names if name in content.ds), None)
    if name is None:
        raise NoInputError(f"the store holds no scores {' or '.join(names)}: 'vaearr embed' writes them.")
    found = latent_partitions(content.latents, content.variable(name), roi=content.roi, seed=config.seed)
    columns = {"ari": "score", "k": "k_lat", "is_tied": "tied", "k_at_bound": "k_lat_at_bound"}
    best = found[list(columns)].to_dataframe()[list(columns)].rename(columns=columns).rename_axis("dim")
    best = best.dropna(subset="score").sort_values("score", ascending=False, kind="stable").head(TOP).reset_index()
    record = {
        "top_latent_by_cluster": best.assign(k_ref=int(found.attrs["k_reference"])).to_dict("records"),
        "score_is": "adjusted Rand index",
        "reference": name,
        "scaling": "standard",
        "parameters": {key: value for key, value in found.attrs.items() if key != n.PROVENANCE},
        "seed": config.seed,
        "n": int(content.inside.sum()),
        "about": _about(content),
        "versions": versions("scikit-learn"),
    }
    write_json(folder / "report_cluster.json", record)
