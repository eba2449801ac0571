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


def write_layer_files(compared: xr.Dataset, folder: Path) -> None:
    """Write a comparison into a folder.

    `layers.csv`: a row for each layer in order of execution. `top_layers.png`, `layer_curves.png`,
    and `difference_maps.png` where any layer has positions. Of one comparison
    `layer_differences.json`, of many pairs `aggregated_results.json`,
    `pairs/<pair>/layer_differences.json` and `pairs.csv`.
    """
    from vaearr.views import save

    layer_table(compared).to_csv(folder / "layers.csv", lineterminator="\n")
    write_earlier_files(compared, folder)
    if PAIR in compared.dims:
        pairs = (
            compared[list(MEASURES)].reset_coords(drop=True).to_dataframe(dim_order=[PAIR, LAYER])
        )
        pairs.to_csv(folder / "pairs.csv", lineterminator="\n")
    if len(top_layers(compared)):
        save(compared, folder / "top_layers.png", kind="top_layers")
    save(compared, folder / "layer_curves.png", kind="layers")
    if compared.attrs["maps"]:
        save(compared, folder / "difference_maps.png", kind="layer_maps")


def layer_table(compared: xr.Dataset) -> pd.DataFrame:
    """One row for each layer in order of execution: its coordinates and all numbers over `layer`
    alone.
    """
    return compared.drop_dims(set(compared.dims) - {LAYER}).to_dataframe()


def write_earlier_files(compared: xr.Dataset, folder: Path) -> None:
    """Write the files of the earlier program.

    `layer_differences.json`: for each layer in order of execution the keys of KEYS, shape, type,
    part, order.
    `aggregated_results.json`: number of pairs, failed pairs, and for each layer mean_, std_ and n_
    of each key.
    """
    if PAIR not in compared.dims:
        write_json(folder / "layer_differences.json", _by_layer(compared, KEYS))
        return
    keys: dict[str, str] = {}
    for ours, theirs in KEYS.items():
        keys |= {
            f"{ours}_mean": f"mean_{theirs}",
            f"{ours}_std": f"std_{theirs}",
            f"n_{ours}": f"n_{theirs}",
        }
    report = {"n_pairs": compared.sizes[PAIR], "failed_pairs": compared.attrs["failed"]}
    write_json(folder / "aggregated_results.json", report | {"layers": _by_layer(compared, keys)})
    for i, name in enumerate(compared[PAIR].values):
        pair = folder / "pairs" / f"{i}_{file_name(str(name))}"
        pair.mkdir(parents=True)
        write_earlier_files(compared.isel({PAIR: i}), pair)


def _by_layer(compared: xr.Dataset, keys: dict[str, str]) -> dict[Any, dict[Any, Any]]:
    """{layer: {key: number, shape, type, part, order}} in order of execution."""
    table = layer_table(compared).rename(columns={**keys, "kind": "type"})
    table["shape"] = [[int(side) for side in shape.split(" x ")] for shape in table["shape"]]
    return table[[*keys.values(), "shape", "type", "part", "order"]].to_dict("index")
