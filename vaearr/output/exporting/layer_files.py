"""A layer-wise comparison as files: tables, JSON, figures, and the JSON files of an older program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from vaearr.analysis.layers import top_layers
from vaearr.analysis.layers.compare import LAYER, PAIR
from vaearr.analysis.layers.measures import MEASURES
from vaearr.output.exporting.formats import file_name, write_json, write_table

SEED_KEYS = {
    "l2": "l2_difference",
    "rms": "rms_difference",
    "relative_l2": "relative_l2_difference",
    "cosine": "cosine_similarity",
    "mean_abs": "mean_absolute_difference",
}
FIRST = ("name", "call", "kind", "part", "order", "shape", "n_values")  # columns of layers.csv after `layer`


def layer_table(found: xr.Dataset) -> pd.DataFrame:
    """A row for each layer in order of execution: its coordinates, then all numbers over `layer` alone."""
    names = [name for name in FIRST if name in found.coords]
    names += [str(name) for name in found.data_vars if found[name].dims == (LAYER,)]
    return pd.DataFrame({name: found[name].values for name in (LAYER, *names)})


def layer_summary(found: xr.Dataset) -> dict[str, Any]:
    """A comparison as one dict: its attributes, the labels of its top layers, its pairs, and the rows of its table."""
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

    write_table(layer_table(found), folder / "layers.csv")
    write_json(folder / "layers.json", layer_summary(found))
    if PAIR in found.dims:
        frame = found[list(MEASURES)].to_dataframe(dim_order=[PAIR, LAYER])[list(MEASURES)]
        write_table(frame.reset_index(), folder / "pairs.csv")
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
    "failed_pairs", "layers": {layer: {mean_<key>, std_<key>, n_<key> of each of the five, shape, type, part, order}}};
    beside it `pairs/<pair>/layer_differences.json` of each pair. Layers are named as in the Dataset; what is not finite
    is null.
    """
    if PAIR not in found.dims:
        write_json(folder / "layer_differences.json", _layers(found, SEED_KEYS))
        return
    columns: dict[str, str] = {}
    for ours, theirs in SEED_KEYS.items():
        columns |= {f"{ours}_mean": f"mean_{theirs}", f"{ours}_std": f"std_{theirs}", f"n_{ours}": f"n_{theirs}"}
    head = {"n_pairs": found.sizes[PAIR], "failed_pairs": list(found.attrs["failed"])}
    write_json(folder / "aggregated_results.json", {**head, "layers": _layers(found, columns)})
    taken: set[str] = set()
    for i, name in enumerate(found[PAIR].values):
        own = file_name(str(name))
        own = f"{own}_{i}" if own in taken else own
        taken.add(own)
        (folder / "pairs" / own).mkdir(parents=True)
        write_json(folder / "pairs" / own / "layer_differences.json", _layers(found.isel({PAIR: i}), SEED_KEYS))


def _layers(found: xr.Dataset, columns: dict[str, str]) -> dict[str, Any]:
    """Of each layer: numbers of the comparison under the seed's names, and what it is."""
    frame = pd.DataFrame({theirs: found[ours].values for ours, theirs in columns.items()})
    frame["shape"] = [[int(side) for side in str(shape).split(" x ")] for shape in found["shape"].values]
    frame["type"], frame["part"], frame["order"] = (found[name].values for name in ("kind", "part", "order"))
    return dict(zip(found[LAYER].values.tolist(), frame.to_dict("records"), strict=True))
