"""A layer-wise comparison as files: tables, the JSON files of the earlier program, and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from vaearr.analysis.layers import MEASURES, top_layers
from vaearr.names import LAYER, PAIR
from vaearr.output.exporting import file_name, write_json

if TYPE_CHECKING:
    import pandas as pd

# The keys of the earlier program: our measure, its key.
KEYS = {
    "l2": "l2_difference",
    "rms": "rms_difference",
    "relative_l2": "relative_l2_difference",
    "cosine": "cosine_similarity",
    "mean_abs": "mean_absolute_difference",
}


def write_layer_files(comparison: xr.Dataset, folder: Path) -> None:
    """Write a comparison into a folder.

    `layers.csv`: a row for each layer in order of execution. `top_layers.png`, `layer_curves.png`,
    and `difference_maps.png` if any layer has positions. Of one comparison
    `layer_differences.json`, of many pairs `aggregated_results.json`,
    `pairs/<pair>/layer_differences.json` and `pairs.csv`.
    """
    from vaearr.views import save

    layer_table(comparison).to_csv(folder / "layers.csv", lineterminator="\n")
    write_earlier_files(comparison, folder)
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


def write_earlier_files(comparison: xr.Dataset, folder: Path) -> None:
    """Write the files of the earlier program.

    `layer_differences.json`: for each layer in order of execution the keys of KEYS, shape, type,
    part, order. `aggregated_results.json`: number of pairs, failed pairs, and for each layer mean_,
    std_ and n_ of each key.
    """
    if PAIR not in comparison.dims:
        write_json(folder / "layer_differences.json", _by_layer(comparison, KEYS))
        return
    keys: dict[str, str] = {}
    for measure, key in KEYS.items():
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
        write_earlier_files(comparison.isel({PAIR: i}), pair)


def _by_layer(comparison: xr.Dataset, keys: dict[str, str]) -> dict[Any, dict[Any, Any]]:
    """{layer: {key: number, shape, type, part, order}} in order of execution."""
    table = layer_table(comparison).rename(columns={**keys, "kind": "type"})
    table["shape"] = [[int(side) for side in shape.split(" x ")] for shape in table["shape"]]
    return table[[*keys.values(), "shape", "type", "part", "order"]].to_dict("index")
