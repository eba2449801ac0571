"""The first seed's cluster files: assignments, report and figure of a cluster map, and clusters of each latent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import ClusterConfig
from vaearr.errors import NoInputError, UsageError
from vaearr.exporting.content import Content
from vaearr.exporting.files import write_json
from vaearr.provenance import nested, versions

TOP = 3


def _mixture(labels: xr.DataArray) -> dict[str, Any]:
    used, k = nested(labels.attrs, "parameters") or {}, _k(labels)
    value = (nested(labels.attrs, "scores") or {}).get(str(k))
    criterion = used.get("criterion")
    return {"k": k, "scores": None if value is None else {"criterion": criterion, "value": float(value)}}


def _centres(labels: xr.DataArray) -> dict[str, Any]:
    return {"k": _k(labels)}


def _radius(labels: xr.DataArray) -> dict[str, Any]:
    used = nested(labels.attrs, "parameters")
    return {"eps": float(used["eps"]), "min_samples": int(used["min_samples"])}


def _hierarchy(labels: xr.DataArray) -> dict[str, Any]:
    used = nested(labels.attrs, "parameters")
    least = int(used["min_cluster_size"])
    return {
        "min_cluster_size": least,
        "min_samples": int(used.get("min_samples") or least),
        "cluster_selection_epsilon": float(used.get("cluster_selection_epsilon") or 0.0),
    }


# method -> the seed's keys of it, and the tag in its file names
KEYS: dict[str, Callable[[xr.DataArray], dict[str, Any]]] = {
    "gmm": _mixture,
    "kmeans": _centres,
    "dbscan": _radius,
    "hdbscan": _hierarchy,
}


def tag_of(method: str, keys: dict[str, Any]) -> str:
    """The seed's tag of a clustering: gmm_k4, kmeans_k4, dbscan_eps0.31_m8, hdbscan_mcs20."""
    if method == "dbscan":
        return f"dbscan_eps{keys['eps']:.3g}_m{keys['min_samples']}"
    if method == "hdbscan":
        return f"hdbscan_mcs{keys['min_cluster_size']}"
    return f"{method}_k{keys['k']}"


def _k(labels: xr.DataArray) -> int:
    given = labels.attrs.get("k", (nested(labels.attrs, "parameters") or {}).get("k"))
    return int(labels.values.max(initial=-1)) + 1 if given is None else int(given)


def write_clusters(content: Content, folder: Path, scores: xr.DataArray | None) -> None:
    """Files of every cluster map that is meant, named by method and k, several alike also by the variable.

    scores: latents against band contrast, which name the latent shown. Raises NoInputError where there is no cluster
    map or no band contrast.
    """
    target = content.variable(content.config.target).load()
    maps = list(_cluster_maps(content, scores))
    tags = [tag_of(str(labels.attrs["method"]), KEYS[labels.attrs["method"]](labels)) for labels in maps]
    for labels, tag in zip(maps, tags, strict=True):
        own = tag if tags.count(tag) == 1 else f"{tag}_{labels.name}"
        _write_one(content, folder, labels, own, target, _latent_for(content, labels, scores))


def _cluster_maps(content: Content, scores: xr.DataArray | None) -> Iterator[xr.DataArray]:
    ds, config = content.ds, content.config
    names = list(dict.fromkeys(config.clusters))
    if not names and not config.methods:
        names = [str(name) for name, v in ds.data_vars.items() if _is_ours(v, content)]
        if not names:
            raise NoInputError("the store holds no cluster map of this run: 'vaearr cluster' writes one.")
    for name in names:
        labels = content.variable(name).load()
        if labels.attrs.get("method") not in KEYS or labels.dtype.kind not in "iu":
            raise UsageError(f"{name!r} is no cluster map; expected one that 'vaearr cluster' wrote.")
        yield labels
    if config.methods:
        from vaearr.clustering import cluster

        number = _strongest(content, scores)
        target = content.variable(config.target).load()
        features = xr.Dataset({"latent": content.latent(number), config.target: target})
        for method in dict.fromkeys(config.methods):
            labels = cluster(features, method, roi=content.roi, config=ClusterConfig(run=config.run, seed=config.seed))
            labels = labels.transpose(*content.dims).assign_attrs(latent=number)
            yield labels.rename(f"latent_{number}_{config.target}")


def _is_ours(variable: xr.DataArray, content: Content) -> bool:
    """Whether a clustering of this run wrote the variable."""
    attrs = variable.attrs
    config = nested(attrs, "config")
    run = config.get("run", content.run) if isinstance(config, dict) else content.run
    return attrs.get("method") in KEYS and variable.dtype.kind in "iu" and run == content.run


def _strongest(content: Content, scores: xr.DataArray | None) -> int:
    """The latent that is shown beside band contrast, unless the clustering says which."""
    if content.config.latent is not None:
        return content.config.latent
    known = content.latent_labels()
    if scores is None:
        return known[0]
    strength = np.nan_to_num(np.abs(scores.sel(metric="pearson").values), nan=-1.0)
    return known[int(strength.argmax())]


def _latent_for(content: Content, labels: xr.DataArray, scores: xr.DataArray | None) -> int:
    config = nested(labels.attrs, "config")
    used = config.get("latents") if isinstance(config, dict) else None
    if "latent" in labels.attrs:
        return int(labels.attrs["latent"])
    if content.config.latent is None and used and len(used) == 1:
        return int(used[0])
    return _strongest(content, scores)


def _write_one(content: Content, folder: Path, labels: xr.DataArray, tag: str, target: xr.DataArray, dim: int) -> None:
    import pandas as pd

    from vaearr.views import save

    method = str(labels.attrs["method"])
    keys = KEYS[method](labels)
    latent = content.latent(dim)
    inside = (content.roi & (labels != n.NOT_CLUSTERED)).values.reshape(-1)
    columns = {name: steps[inside] for name, steps in content.steps().items()}
    columns |= {
        "latent": latent.values.reshape(-1)[inside],
        "bandcontrast": target.values.reshape(-1)[inside],
        "cluster": labels.values.reshape(-1)[inside],
    }
    assignments, figure = f"cluster_assignments__{tag}.csv", f"cluster_latent_bc__{tag}.png"
    pd.DataFrame(columns).to_csv(folder / assignments, index=False, lineterminator="\n")
    record = {"method": method} | keys | {
        "n_points": int(inside.sum()),
        "figure": figure,
        "assignments_csv": assignments,
        "cluster_colors": _colors(labels),
    }  # fmt: skip
    write_json(folder / f"cluster_report__{tag}.json", record | _facts(content, labels, dim))
    shown = labels.where(content.roi, n.NOT_CLUSTERED)
    save(shown, folder / figure, dpi=content.config.dpi, kind="clusters", latent=latent, target=target)


def _colors(labels: xr.DataArray) -> list[str]:
    """Colours of the figure, one for each cluster by its number."""
    from vaearr.views.clusters import classes_of

    return list(classes_of(labels).colors)


def _facts(content: Content, labels: xr.DataArray, dim: int) -> dict[str, Any]:
    """What the seed's report lacks. `eps` above is a distance between points scaled as `scaling` says."""
    attrs = labels.attrs
    told = ("features", "parameters", "sizes", "stability", "stability_is", "approximation", "warnings", "reference")
    return {
        "latent_dim": dim,
        "variable": str(labels.name),
        "scaling": nested(attrs, "scaling"),
        "scale": attrs.get("scale"),
        "n": attrs.get("n"),
        "n_noise": int((labels == n.NOISE).sum()),
        "seed": attrs.get("seed"),
        **{key: nested(attrs, key) for key in told},
        "about": content.about() | {"labels": nested(attrs, n.PROVENANCE)},
        "versions": versions("scikit-learn"),
    }


def write_partitions(content: Content, folder: Path) -> None:
    """`report_cluster.json`: how well clusters of each latent alone agree with those of PCA or NMF scores.

    Raises NoInputError where there are no such scores.
    """
    names = [content.config.reference] if content.config.reference else [n.PCA, n.NMF]
    name = next((name for name in names if name in content.ds), None)
    if name is None:
        raise NoInputError(f"the store holds no scores {' or '.join(names)}: 'vaearr embed' writes them.")
    from vaearr.association.partitions import latent_partitions

    reference, config = content.variable(name), content.config
    found = latent_partitions(content.latents, reference, roi=content.roi, seed=config.seed)
    score = found["ari"].values
    labels = found[found["ari"].dims[0]].values
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")
    order = order[np.isfinite(score[order])][:TOP]
    rows = [
        {
            "dim": int(labels[i]),
            "score": float(score[i]),
            "k_lat": int(found["k"].values[i]),
            "k_ref": int(found.attrs["k_reference"]),
            "tied": bool(found["is_tied"].values[i]),
            "k_lat_at_bound": bool(found["k_at_bound"].values[i]),
        }
        for i in order
    ]
    record = {
        "top_latent_by_cluster": rows,
        "score_is": "adjusted Rand index",
        "reference": name,
        "scaling": "standard",
        "parameters": {key: value for key, value in found.attrs.items() if key != n.PROVENANCE},
        "seed": config.seed,
        "n": int(content.roi.sum()),
        "about": content.about(),
        "versions": versions("scikit-learn"),
    }
    write_json(folder / "report_cluster.json", record)
