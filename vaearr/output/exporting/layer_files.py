"""A layer-wise comparison as files: tables, JSON, figures, and the JSON files of an older program."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr.analysis.layers import top_layers
from vaearr.analysis.layers.compare import LAYER, PAIR
from vaearr.analysis.layers.measures import MEASURES
from vaearr.output.exporting.formats import file_name, write_json

SEED_KEYS = {
    "l2": "l2_difference",
    "rms": "rms_difference",
    "relative_l2": "relative_l2_difference",
    "cosine": "cosine_similarity",
    "mean_abs": "mean_absolute_difference",
}
FIRST = ("name", "call", "kind", "part", "order", "shape", "n_values")  # columns of layers.csv after `layer`


def layer_records(found: xr.Dataset) -> list[dict[str, Any]]:
    """One dict for each layer in order of execution: its coordinates, then all numbers over `layer` alone."""
    names = [name for name in FIRST if name in found.coords]
    names += [str(name) for name in found.data_vars if found[name].dims == (LAYER,)]
    columns = {LAYER: found[LAYER].values} | {name: found[name].values for name in names}
    lists = {name: values.astype(str).tolist() if values.dtype.kind not in "iuf" else values.tolist()
             for name, values in columns.items()}  # fmt: skip
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def layer_summary(found: xr.Dataset) -> dict[str, Any]:
    """A comparison as one dict: its attributes, the labels of its top layers, its pairs, and `layer_records`."""
    attrs = {str(key): value for key, value in found.attrs.items() if key != "maps"}
    top = [str(found[LAYER].values[i]) for i in top_layers(found, int(found.attrs["top"]))]
    pairs = {"pairs": [str(name) for name in found[PAIR].values]} if PAIR in found.dims else {}
    return {**attrs, **pairs, "top_layers": top, "layers": layer_records(found)}


def write_layer_files(found: xr.Dataset, folder: Path, *, seed_files: bool = False) -> None:
    """Write `layers.csv`, `layers.json`, of many pairs also `pairs.csv`, and the figures, into a folder.

    Figures: `top_layers.png`, `layer_curves.png`, and `difference_maps.png` where any layer has positions. seed_files:
    also the files of `write_seed_files`.
    """
    from vaearr.views import save

    records = layer_records(found)
    _write_csv(folder / "layers.csv", list(records[0]), [list(record.values()) for record in records])
    write_json(folder / "layers.json", layer_summary(found))
    if PAIR in found.dims:
        values = [found[name].transpose(PAIR, LAYER).values for name in MEASURES]
        rows = [
            [pair, layer, *(value[i, j].item() for value in values)]
            for i, pair in enumerate(found[PAIR].values)
            for j, layer in enumerate(found[LAYER].values)
        ]
        _write_csv(folder / "pairs.csv", [PAIR, LAYER, *MEASURES], rows)
    if len(top_layers(found)):
        save(found, folder / "top_layers.png", kind="top_layers")
    save(found, folder / "layer_curves.png", kind="layers")
    if found.attrs["maps"]:
        save(found, folder / "difference_maps.png", kind="layer_maps")
    if seed_files:
        write_seed_files(found, folder)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Plain CSV; NaN becomes an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow(["" if isinstance(cell, float) and np.isnan(cell) else cell for cell in row])


def write_seed_files(found: xr.Dataset, folder: Path) -> None:
    """Write `layer_differences.json` of one comparison, or `aggregated_results.json` of many pairs.

    `layer_differences.json`: {layer: {l2_difference, rms_difference, relative_l2_difference, cosine_similarity,
    mean_absolute_difference, shape, type, part, order}} in order of execution. `aggregated_results.json`: {"n_pairs",
    "failed_pairs", "layers": {layer: {mean_<key>, std_<key>, n_<key> of each of the five, type, part, order}}}; beside
    it `pairs/<pair>/layer_differences.json` of each pair. Layers are named as in the Dataset; what is not finite is
    null.
    """
    if PAIR not in found.dims:
        write_json(folder / "layer_differences.json", _differences(found))
        return
    layers = {}
    for i, about in _about_layers(found):
        numbers = {}
        for ours, theirs in SEED_KEYS.items():
            numbers[f"mean_{theirs}"] = found[f"{ours}_mean"].values[i]
            numbers[f"std_{theirs}"] = found[f"{ours}_std"].values[i]
            numbers[f"n_{theirs}"] = found[f"n_{ours}"].values[i]
        layers[str(found[LAYER].values[i])] = numbers | about
    head = {"n_pairs": found.sizes[PAIR], "failed_pairs": list(found.attrs["failed"])}
    write_json(folder / "aggregated_results.json", {**head, "layers": layers})
    taken: set[str] = set()
    for i, name in enumerate(found[PAIR].values):
        own = file_name(str(name))
        own = f"{own}_{i}" if own in taken else own
        taken.add(own)
        (folder / "pairs" / own).mkdir(parents=True)
        write_json(folder / "pairs" / own / "layer_differences.json", _differences(found.isel({PAIR: i})))


def _differences(one: xr.Dataset) -> dict[str, Any]:
    return {
        str(one[LAYER].values[i]): {theirs: one[ours].values[i] for ours, theirs in SEED_KEYS.items()} | about
        for i, about in _about_layers(one)
    }


def _about_layers(found: xr.Dataset) -> list[tuple[int, dict[str, Any]]]:
    about = []
    for i in range(found.sizes[LAYER]):
        shape = [int(side) for side in str(found["shape"].values[i]).split(" x ")]
        kind, part = str(found["kind"].values[i]), str(found["part"].values[i])
        about.append((i, {"shape": shape, "type": kind, "part": part, "order": int(found["order"].values[i])}))
    return about
