"""The files of the earlier programs, with their names, columns and keys; comparisons of layers.

Numbers that are not finite become null, also where the earlier programs wrote 0 for a constant
latent or target.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from vaearr import names as n
from vaearr.analysis.association import associate, ranking, targets_of
from vaearr.analysis.layers import MEASURES, top_layers
from vaearr.names import LAYER, PAIR
from vaearr.output.exporting import (
    clusterings_of,
    file_name,
    is_encoded,
    sample_table,
    write_json,
    write_table,
)
from vaearr.recipe import nested
from vaearr.store import has_table

if TYPE_CHECKING:
    import pandas as pd

    from vaearr import Run

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
    "gmm": (("k", "criterion"), "gmm_k{k}"),
    "kmeans": (("k",), "kmeans_k{k}"),
    "dbscan": (("eps", "min_samples"), "dbscan_eps{eps:.3g}_m{min_samples}"),
    "hdbscan": (("min_cluster_size", "min_samples"), "hdbscan_mcs{min_cluster_size}"),
}
# Columns of the training history: our name, their name.
HISTORY_COLUMNS = {
    "epoch": "epoch",
    "loss": "train_loss",
    "reconstruction_nll": "train_recon_loss",
    "kl": "train_kl_loss",
    "val_loss": "val_loss",
    "val_reconstruction_nll": "val_recon_loss",
    "val_kl": "val_kl_loss",
    "learning_rate": "learning_rate",
}
# Measures of layers: our name, their name.
LAYER_KEYS = {
    "l2": "l2_difference",
    "rms": "rms_difference",
    "relative_l2": "relative_l2_difference",
    "cosine": "cosine_similarity",
    "mean_abs": "mean_absolute_difference",
}


def write_earlier_files(run: Run, latents: xr.DataArray, folder: Path) -> None:
    """Write the files that the store has the data for.

    `bandcontrast_latent_scores.csv`, `report_bandcontrast_multi_metric.json`;
    `element_latent_scores.csv`, `report_elements_multi_metric__sum-auto.json`; for each cluster map
    of the run `cluster_assignments__<tag>.csv`, `cluster_report__<tag>.json`,
    `cluster_latent_bc__<tag>.png`; `training_history.csv` and `.json`.
    """
    ds = run.ds
    if n.BC in ds:
        scores = write_scores(ds, latents, ds[n.BC], folder / "bandcontrast_latent_scores.csv")
        report = {"target": "BandContrast", **scores}
        write_json(folder / "report_bandcontrast_multi_metric.json", report)
        write_clusters(run, latents, scores["rankings"]["pearson"][0]["dim"], folder)
    if n.ELEMENTS in ds:
        elements = [str(element) for element in ds[n.ELEMENT].values]
        total = " + ".join(f"1*{element!r}" for element in elements)
        target = targets_of(ds, [total]).isel(target=0, drop=True)
        scores = write_scores(ds, latents, target, folder / "element_latent_scores.csv")
        report = {"synth_mode": "sum", "synth_tag": "sum-auto", "elements": elements}
        report |= {"rgb_elements": None, "weights": None, **scores}
        write_json(folder / "report_elements_multi_metric__sum-auto.json", report)
    if has_table(run.path, run.name, n.HISTORY):
        history = run.history.drop_dims(n.LATENT, errors="ignore").to_dataframe().reset_index()
        table = history.rename(columns=HISTORY_COLUMNS)[[*HISTORY_COLUMNS.values()]]
        write_table(table, folder / "training_history.csv")
        columns: dict[Any, Any] = table.to_dict("list")
        write_json(folder / "training_history.json", columns)


def write_scores(
    ds: xr.Dataset, latents: xr.DataArray, target: xr.DataArray, path: Path
) -> dict[str, Any]:
    """Write the scores of all latents as CSV, the largest |pearson| first; return a report."""
    associations = associate(latents, target, list(METRICS))
    table: Any = associations.reset_coords(drop=True).T.to_pandas()
    table = table.rename(columns=METRICS).rename_axis("dim").reset_index()
    table = table.sort_values("pearson", key=abs, ascending=False, kind="stable")
    write_table(table, path)
    rankings = {}
    for metric, key in METRICS.items():
        best = ranking(associations, metric, top=TOP).to_dataframe()[[n.LATENT, "value"]]
        rankings[key] = best.set_axis(["dim", "score"], axis=1).to_dict("records")
    steps = sample_table(ds, {})[is_encoded(latents)]
    roi = {f"{dim}_range": [int(steps[dim].min()), int(steps[dim].max()) + 1] for dim in steps}
    return {"roi": roi, "metrics": list(METRICS.values()), "rankings": rankings}


def write_clusters(run: Run, latents: xr.DataArray, label: int, folder: Path) -> None:
    """Assignments, report and figure of every cluster map of the run."""
    from vaearr.views import save
    from vaearr.views.common import colored_classes

    band_contrast = run.ds[n.BC]
    latent = latents.sel({latents.dims[-1]: label}, drop=True).rename(f"latent {label}")
    for tag, labels in tagged_clusters(run).items():
        columns = {"latent": latent, "bandcontrast": band_contrast, "cluster": labels}
        is_clustered = is_encoded(latents) & (labels != n.NOT_CLUSTERED).values.ravel()
        table = sample_table(run.ds, columns)[is_clustered]
        figure = f"cluster_latent_bc__{tag}.png"
        assignments = f"cluster_assignments__{tag}.csv"
        write_table(table, folder / assignments)
        save(labels, folder / figure, kind="clusters", latent=latent, target=band_contrast)
        parameters = cluster_parameters(labels)
        keys, _ = CLUSTER_KEYS[labels.attrs["method"]]
        report = {
            "method": labels.attrs["method"],
            "n_points": len(table),
            "figure": figure,
            "assignments_csv": assignments,
            "latent_dim": label,
            "variable": str(labels.name),
            **{key: parameters.get(key) for key in keys},
            "scores": nested(labels.attrs, "scores"),
            "cluster_colors": colored_classes(labels).colors[: parameters["k"]],
        }
        write_json(folder / f"cluster_report__{tag}.json", report)


def tagged_clusters(run: Run) -> dict[str, xr.DataArray]:
    """Cluster maps of the run by the tags of their files; a repeated tag ends with the name."""
    clusters: dict[str, xr.DataArray] = {}
    for name in clusterings_of(run):
        labels = run.ds[name].load()
        method = labels.attrs["method"]
        if method not in CLUSTER_KEYS:
            continue
        _, template = CLUSTER_KEYS[method]
        tag = template.format(**cluster_parameters(labels))
        if tag in clusters:
            tag = f"{tag}_{name}"
        clusters[tag] = labels
    return clusters


def cluster_parameters(labels: xr.DataArray) -> dict[str, Any]:
    """Settings of a clustering, and its number of clusters `k`."""
    return {**nested(labels.attrs, "parameters"), "k": int(labels.attrs["k"])}


def write_layer_files(comparison: xr.Dataset, folder: Path) -> None:
    """Write a comparison into a folder.

    `layers.csv`: a row for each layer in order of execution. `top_layers.png`, `layer_curves.png`,
    and `difference_maps.png` if any layer has positions. Of one comparison
    `layer_differences.json`, of many pairs `aggregated_results.json`,
    `pairs/<pair>/layer_differences.json` and `pairs.csv`.
    """
    from vaearr.views import save

    layer_table(comparison).to_csv(folder / "layers.csv", lineterminator="\n")
    write_layer_differences(comparison, folder)
    if PAIR in comparison.dims:
        measures = comparison[list(MEASURES)].reset_coords(drop=True)
        pairs = measures.to_dataframe(dim_order=[PAIR, LAYER])
        pairs.to_csv(folder / "pairs.csv", lineterminator="\n")
    if len(top_layers(comparison)):
        save(comparison, folder / "top_layers.png", kind="top_layers")
    save(comparison, folder / "layer_curves.png", kind="layers")
    if comparison.attrs["maps"]:
        save(comparison, folder / "difference_maps.png", kind="layer_maps")


def layer_table(comparison: xr.Dataset) -> pd.DataFrame:
    """A row for each layer in order of execution: coordinates, and numbers over `layer` alone."""
    return comparison.drop_dims(set(comparison.dims) - {LAYER}).to_dataframe()


def write_layer_differences(comparison: xr.Dataset, folder: Path) -> None:
    """Write the files of the earlier program.

    `layer_differences.json`: for each layer in order of execution the keys of LAYER_KEYS, shape, type,
    part, order. `aggregated_results.json`: number of pairs, failed pairs, and for each layer mean_,
    std_ and n_ of each key.
    """
    if PAIR not in comparison.dims:
        write_json(folder / "layer_differences.json", _by_layer(comparison, LAYER_KEYS))
        return
    keys: dict[str, str] = {}
    for measure, key in LAYER_KEYS.items():
        keys[f"{measure}_mean"] = f"mean_{key}"
        keys[f"{measure}_std"] = f"std_{key}"
        keys[f"n_{measure}"] = f"n_{key}"
    report = {
        "n_pairs": comparison.sizes[PAIR],
        "failed_pairs": comparison.attrs["unpaired"],
        "layers": _by_layer(comparison, keys),
    }
    write_json(folder / "aggregated_results.json", report)
    for i, name in enumerate(comparison[PAIR].values):
        pair = folder / "pairs" / f"{i}_{file_name(str(name))}"
        pair.mkdir(parents=True)
        write_layer_differences(comparison.isel({PAIR: i}), pair)


def _by_layer(comparison: xr.Dataset, keys: dict[str, str]) -> dict[Any, dict[Any, Any]]:
    """{layer: {key: number, shape, type, part, order}} in order of execution."""
    table = layer_table(comparison).rename(columns={**keys, "kind": "type"})
    table["shape"] = [[int(side) for side in shape.split(" x ")] for shape in table["shape"]]
    return table[[*keys.values(), "shape", "type", "part", "order"]].to_dict("index")
