"""The files of the earlier programs: same names, columns and keys, so that their scripts read them.

The JSON reports keep their keys and types; `about`, `parameters`, `scaling`, `seeds`, `n` and `versions` are added.
Numbers that are not finite become null, also where the earlier programs wrote 0 for a constant latent or target.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr.analysis.association import associate, ranking, targets_of
from vaearr.errors import DamagedError, DataError, NoInputError, UsageError, did_you_mean
from vaearr.names import LAYER, PAIR
from vaearr.output.exporting.formats import Content, file_name, write_json, write_table
from vaearr.output.exporting.layer_files import layer_table
from vaearr.recipe import nested, versions
from vaearr.store import has_table, open_table

log = logging.getLogger("vaearr")

# Our metrics and the names of the earlier programs, in their order.
METRICS = {
    "pearson": "pearson",
    "spearman": "spearman",
    "kendall": "kendall",
    "mutual_information": "mi",
    "distance_correlation": "dcorr",
    "hsic": "hsic",
    "partial_pearson": "pp_spatial",
}
TOP = 3  # latents in a ranking
# Keys of a report on a clustering by its method, and the tag in the names of its files.
CLUSTER_KEYS = {
    "gmm": (("k",), "gmm_k{k}"),
    "kmeans": (("k",), "kmeans_k{k}"),
    "dbscan": (("eps", "min_samples"), "dbscan_eps{eps:.3g}_m{min_samples}"),
    "hdbscan": (
        ("min_cluster_size", "min_samples", "cluster_selection_epsilon"),
        "hdbscan_mcs{min_cluster_size}",
    ),
}
# Columns of the training history: our name, their name.
HISTORY_COLUMNS = {
    "loss": "train_loss",
    "reconstruction_nll": "train_recon_loss",
    "kl": "train_kl_loss",
    "val_loss": "val_loss",
    "val_reconstruction_nll": "val_recon_loss",
    "val_kl": "val_kl_loss",
    "learning_rate": "learning_rate",
}
# Keys of a layer comparison: our measure, their key.
LAYER_KEYS = {
    "l2": "l2_difference",
    "rms": "rms_difference",
    "relative_l2": "relative_l2_difference",
    "cosine": "cosine_similarity",
    "mean_abs": "mean_absolute_difference",
}


def seed0(content: Content, folder: Path) -> None:
    """Write the files that the store has the data for; which are left out, and why, is logged.

    `bandcontrast_latent_scores.csv`, `report_bandcontrast_multi_metric.json`; `element_latent_scores.csv`,
    `report_elements_multi_metric__<tag>.json`; for each cluster map `cluster_assignments__<tag>.csv`,
    `cluster_report__<tag>.json`, `cluster_latent_bc__<tag>.png`; `training_history.csv` and `.json`. A part that the
    settings ask for and that cannot be made is an error.
    """
    content.need_plane()
    config = content.config
    parts = (
        ("band contrast", config.target != n.BC, write_band_contrast),
        ("elements", bool(config.elements or config.weights), write_elements),
        ("clusters", bool(config.clusters), write_clusters),
        ("training history", False, write_history),
    )
    for name, is_asked, write in parts:
        try:
            write(content, folder)
        except DamagedError:
            raise
        except (NoInputError, DataError) as reason:
            if is_asked:
                raise
            log.info(f"left out: {name}: {reason}")


def write_band_contrast(content: Content, folder: Path) -> None:
    """Scores and ranking against band contrast."""
    name = content.config.target
    target = content.variable(name)
    if target.ndim != len(content.dims):
        raise UsageError(f"target {name!r} has dims {target.dims}; expected a plain map over {content.dims}.")
    report = {"target": "BandContrast", "target_variable": name}
    report |= _scores(content, target, folder / "bandcontrast_latent_scores.csv")
    write_json(folder / "report_bandcontrast_multi_metric.json", report)


def write_elements(content: Content, folder: Path) -> None:
    """Scores and ranking against a weighted sum of elements."""
    if n.ELEMENTS not in content.ds:
        raise NoInputError("the store holds no element maps.")
    known = [str(element) for element in content.ds[n.ELEMENT].values]
    elements = list(content.config.elements) or known
    weights = list(content.config.weights)
    for element in elements:
        if element not in known:
            raise NoInputError(f"the store has no element {element!r}.{did_you_mean(element, known)}")
    if weights and len(weights) != len(elements):
        raise UsageError(f"{len(weights)} weights for {len(elements)} elements ({', '.join(elements)}); give each one.")
    terms = []
    for element, weight in zip(elements, weights or [1.0] * len(elements), strict=True):
        terms.append(f"{weight!r}*{element!r}")
    formula = " + ".join(terms)
    tag = "sum-" + ("_".join(f"{weight:.3f}" for weight in weights) or "auto")
    target = targets_of(content.ds, [formula], roi=content.roi).isel(target=0, drop=True)
    report = {
        "synth_mode": "sum",
        "synth_tag": tag,
        "elements": elements,
        "rgb_elements": None,
        "weights": weights or None,
        "formula": formula,
        **_scores(content, target, folder / "element_latent_scores.csv"),
        "scaling": "each element from 0 to 1 between its minimum and maximum in the ROI; weights divided by the sum of "
        "their absolute values",
    }
    write_json(folder / f"report_elements_multi_metric__{tag}.json", report)


def _scores(content: Content, target: xr.DataArray, path: Path) -> dict[str, Any]:
    """Write the scores of all latents as CSV, the largest |pearson| first; return what a report says of them.

    In the rankings `tied` marks a score that another latent shares.
    """
    table = associate(content.latents, target, list(METRICS), roi=content.roi)
    frame: Any = table.reset_coords(drop=True).T.to_pandas()
    frame = frame.rename(columns=METRICS).rename_axis("dim").reset_index()
    write_table(frame.sort_values("pearson", key=lambda r: -r.abs(), kind="stable"), path)
    rankings = {}
    for name, short in METRICS.items():
        best = ranking(table, name, top=TOP).to_dataframe()[[n.LATENT, "value", "is_tied"]]
        rankings[short] = best.set_axis(["dim", "score", "tied"], axis=1).to_dict("records")
    steps = content.table({}, content.inside)
    roi = {f"{dim}_range": [int(steps[dim].min()), int(steps[dim].max()) + 1] for dim in steps}
    return {
        "roi": roi | {"n": len(steps), "range_is": "step numbers, start <= step < stop"},
        "metrics": list(METRICS.values()),
        "rankings": rankings,
        "n": len(steps),
        "n_finite": int(table["n"]),
        "parameters": {METRICS[name]: parameters for name, parameters in table.attrs["metrics"].items()},
        "scaling": None,
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


def write_clusters(content: Content, folder: Path) -> None:
    """The files of every chosen cluster map, by default all of the run; equal tags also get the variable's name."""
    target = content.variable(content.config.target)
    names = list(content.config.clusters)
    if not names:
        names = [str(name) for name, one in content.ds.data_vars.items() if _is_cluster_map(content, one)]
    if not names:
        raise NoInputError("the store holds no cluster map of this run: 'vaearr cluster' writes one.")
    maps = [content.variable(name) for name in dict.fromkeys(names)]
    for labels in maps:
        if labels.attrs.get("method") not in CLUSTER_KEYS or labels.dtype.kind not in "iu":
            raise UsageError(f"{labels.name!r} is no cluster map; expected one that 'vaearr cluster' wrote.")
    tags = [_tag(labels) for labels in maps]
    for labels, tag in zip(maps, tags, strict=True):
        name = tag if tags.count(tag) == 1 else f"{tag}_{labels.name}"
        _write_clusters(content, folder, labels, name, target)


def _is_cluster_map(content: Content, variable: xr.DataArray) -> bool:
    """Whether a variable is a cluster map of the exported run."""
    if variable.attrs.get("method") not in CLUSTER_KEYS or variable.dtype.kind not in "iu":
        return False
    settings = nested(variable.attrs, "config") or {}
    return bool(settings.get("run", content.config.run) == content.config.run)


def _cluster_keys(labels: xr.DataArray) -> dict[str, Any]:
    """What a report says of a clustering by its method."""
    method = labels.attrs["method"]
    parameters: dict[str, Any] = nested(labels.attrs, "parameters") or {}
    values = {"cluster_selection_epsilon": 0.0, **parameters, "k": int(labels.attrs.get("k", labels.max() + 1))}
    keys, _ = CLUSTER_KEYS[method]
    report = {key: values.get(key) for key in keys}
    if method == "hdbscan":
        report["min_samples"] = report["min_samples"] or report["min_cluster_size"]
    if method == "gmm":
        score = (nested(labels.attrs, "scores") or {}).get(str(values["k"]))
        criterion = values.get("criterion")
        report["scores"] = None if score is None else {"criterion": criterion, "value": float(score)}
    return report


def _tag(labels: xr.DataArray) -> str:
    _, tag = CLUSTER_KEYS[labels.attrs["method"]]
    return tag.format(**_cluster_keys(labels))


def _latent_for(content: Content, labels: xr.DataArray, target: xr.DataArray) -> int:
    """The latent beside band contrast: the chosen one, the only one that was clustered, or the strongest."""
    if content.config.latent is not None:
        return content.config.latent
    settings: Any = nested(labels.attrs, "config") or {}
    clustered = settings.get("latents") or []
    if len(clustered) == 1:
        return int(clustered[0])
    best = ranking(associate(content.latents, target, "pearson", roi=content.roi), "pearson", top=1)
    return int(best[n.LATENT][0]) if best.sizes["rank"] else content.labels[0]


def _write_clusters(content: Content, folder: Path, labels: xr.DataArray, tag: str, target: xr.DataArray) -> None:
    """Assignments, report and figure of one cluster map; `eps` is a distance between points as `scaling` says."""
    from vaearr.views import save
    from vaearr.views.clusters import classes_of

    number = _latent_for(content, labels, target)
    latent = content.latent(number)
    attrs = labels.attrs
    inside = content.inside & (labels != n.NOT_CLUSTERED).values.reshape(-1)
    assignments = f"cluster_assignments__{tag}.csv"
    figure = f"cluster_latent_bc__{tag}.png"
    columns = {"latent": latent, "bandcontrast": target, "cluster": labels}
    write_table(content.table(columns, inside), folder / assignments)
    report = {
        "method": attrs["method"],
        **_cluster_keys(labels),
        "n_points": int(inside.sum()),
        "figure": figure,
        "assignments_csv": assignments,
        "cluster_colors": list(classes_of(labels).colors),
        "latent_dim": number,
        "variable": str(labels.name),
        "n_noise": int((labels == n.NOISE).sum()),
    }
    for key in ("scale", "n", "seed"):
        report[key] = attrs.get(key)
    for key in ("scaling", "features", "parameters", "sizes", "approximation", "warnings", "reference"):
        report[key] = nested(attrs, key)
    report["about"] = _about(content) | {"labels": nested(attrs, n.PROVENANCE)}
    report["versions"] = versions("scikit-learn")
    write_json(folder / f"cluster_report__{tag}.json", report)
    shown = labels.where(content.roi, n.NOT_CLUSTERED)
    save(shown, folder / figure, dpi=content.config.dpi, kind="clusters", latent=latent, target=target)


def write_history(content: Content, folder: Path) -> None:
    """`training_history.csv`, one row per epoch, and `training_history.json`, one list per column."""
    run = content.config.run
    if not has_table(content.path, run, n.HISTORY):
        raise NoInputError(f"run {run!r} was not trained here, so it has no history.")
    history = open_table(content.path, run, n.HISTORY).drop_dims(n.LATENT, errors="ignore").to_dataframe()
    columns = {ours: theirs for ours, theirs in HISTORY_COLUMNS.items() if ours in history}
    frame = history[list(columns)].rename(columns=columns).rename_axis("epoch").reset_index()
    write_table(frame, folder / "training_history.csv")
    write_json(folder / "training_history.json", {str(name): frame[name].tolist() for name in frame})


def write_layer_differences(compared: xr.Dataset, folder: Path) -> None:
    """Write `layer_differences.json` of one comparison, or `aggregated_results.json` of many pairs.

    `layer_differences.json`: for each layer in order of execution the keys of LAYER_KEYS, shape, type, part, order.
    `aggregated_results.json`: number of pairs, failed pairs, and for each layer mean_, std_ and n_ of each key; next to
    it `pairs/<pair>/layer_differences.json` of each pair.
    """
    if PAIR not in compared.dims:
        write_json(folder / "layer_differences.json", _by_layer(compared, LAYER_KEYS))
        return
    keys: dict[str, str] = {}
    for ours, theirs in LAYER_KEYS.items():
        keys |= {f"{ours}_mean": f"mean_{theirs}", f"{ours}_std": f"std_{theirs}", f"n_{ours}": f"n_{theirs}"}
    report = {
        "n_pairs": compared.sizes[PAIR],
        "failed_pairs": list(compared.attrs["failed"]),
        "layers": _by_layer(compared, keys),
    }
    write_json(folder / "aggregated_results.json", report)
    names = [file_name(str(name)) for name in compared[PAIR].values]
    for i, name in enumerate(names):
        pair = folder / "pairs" / (f"{name}_{i}" if name in names[:i] else name)
        pair.mkdir(parents=True)
        write_layer_differences(compared.isel({PAIR: i}), pair)


def _by_layer(compared: xr.Dataset, keys: dict[str, str]) -> dict[Any, dict[Any, Any]]:
    """{layer: {key: number, shape, type, part, order}} in order of execution."""
    table = layer_table(compared).set_index(LAYER).rename(columns={**keys, "kind": "type"})
    table["shape"] = [[int(side) for side in shape.split(" x ")] for shape in table["shape"]]
    return table[[*keys.values(), "shape", "type", "part", "order"]].to_dict("index")
