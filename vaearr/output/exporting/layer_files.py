"""A layer-wise comparison as files: tables, JSON, figures, and the JSON files of an older program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from vaearr.analysis.layers import LAYER, MEASURES, PAIR, top_layers
from vaearr.output.exporting.formats import file_name, write_json

SEED_KEYS = {
    "l2": "l2_difference",
    "rms": "rms_difference",
    "relative_l2": "relative_l2_difference",
    "cosine": "cosine_similarity",
    "mean_abs": "mean_absolute_difference",
}
FIRST = ("name", "call", "kind", "part", "order", "shape", "n_values")  # columns of layers.csv after `layer`


def layer_table(found: xr.Dataset) -> pd.DataFrame:
    """One row for each layer in order of execution: its coordinates, then all numbers over `layer` alone."""
    numbers = [str(name) for name in found.data_vars if found[name].dims == (LAYER,)]
    table = found[numbers].to_dataframe().reset_index()
    return table[[LAYER, *(name for name in FIRST if name in table), *numbers]]


def layer_summary(found: xr.Dataset) -> dict[str, Any]:
    """A comparison as one dict: its attributes, the labels of its top layers, its pairs, and its layers."""
    attrs = {str(key): value for key, value in found.attrs.items() if key != "maps"}
    top = [str(found[LAYER].values[i]) for i in top_layers(found, int(found.attrs["top"]))]
    pairs = {"pairs": [str(name) for name in found[PAIR].values]} if PAIR in found.dims else {}
    return {**attrs, **pairs, "top_layers": top, "layers": layer_table(found).to_dict("records")}


def write_layer_files(found: xr.Dataset, folder: Path, *, seed_files: bool = False) -> None:
    """Write `layers.csv`, `layers.json`, of many pairs also `pairs.csv`, and the figures, into a folder.

    Figures: `top_layers.png`, `layer_curves.png`, and `difference_maps.png` where any layer has positions. seed_files:
    also the files of `write_seed_files`.
    """
    from vaearr.views import save

    layer_table(found).to_csv(folder / "layers.csv", index=False, lineterminator="\n")
    write_json(folder / "layers.json", layer_summary(found))
    if PAIR in found.dims:
        pairs = found[[*MEASURES]].to_dataframe(dim_order=[PAIR, LAYER])[[*MEASURES]]
        pairs.to_csv(folder / "pairs.csv", lineterminator="\n")
    if len(top_layers(found)):
        save(found, folder / "top_layers.png", kind="top_layers")
    save(found, folder / "layer_curves.png", kind="layers")
    if found.attrs["maps"]:
        save(found, folder / "difference_maps.png", kind="layer_maps")
    if seed_files:
        write_seed_files(found, folder)


def write_seed_files(found: xr.Dataset, folder: Path) -> None:
    """Write `layer_differences.json` of one comparison, or `aggregated_results.json` of many pairs.

    `layer_differences.json`: {layer: {l2_difference, rms_difference, relative_l2_difference, cosine_similarity,
    mean_absolute_difference, shape, type, part, order}} in order of execution. `aggregated_results.json`: {"n_pairs",
    "failed_pairs", "layers": {layer: {mean_<key>, std_<key>, n_<key> of each of the five, type, part, order}}}; beside
    it `pairs/<pair>/layer_differences.json` of each pair. Layers are named as in the Dataset; what is not finite is
    null.
    """
    if PAIR not in found.dims:
        write_json(folder / "layer_differences.json", _by_layer(found, SEED_KEYS))
        return
    forms = {"{}_mean": "mean_{}", "{}_std": "std_{}", "n_{}": "n_{}"}
    keys = {a.format(ours): b.format(theirs) for ours, theirs in SEED_KEYS.items() for a, b in forms.items()}
    record = {"n_pairs": found.sizes[PAIR], "failed_pairs": list(found.attrs["failed"])}
    write_json(folder / "aggregated_results.json", record | {"layers": _by_layer(found, keys)})
    names = [file_name(str(name)) for name in found[PAIR].values]
    for i, name in enumerate(names):
        own = folder / "pairs" / (f"{name}_{i}" if name in names[:i] else name)
        own.mkdir(parents=True)
        write_seed_files(found.isel({PAIR: i}), own)


def _by_layer(found: xr.Dataset, keys: Mapping[str, str]) -> dict[Any, dict[Any, Any]]:
    """{layer: {key of a variable: number}, shape, type, part, order} in order of execution."""
    table = layer_table(found).set_index(LAYER).rename(columns={**keys, "kind": "type"})
    table["shape"] = [[int(side) for side in shape.split(" x ")] for shape in table["shape"]]
    return table[[*keys.values(), "shape", "type", "part", "order"]].to_dict("index")
