"""A layer-wise comparison as files: tables, JSON and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from vaearr.analysis.layers import MEASURES, top_layers
from vaearr.names import LAYER, PAIR
from vaearr.output.exporting.formats import write_json

FIRST = ("name", "call", "kind", "part", "order", "shape", "n_values")  # columns of layers.csv after `layer`


def layer_table(compared: xr.Dataset) -> pd.DataFrame:
    """One row for each layer in order of execution: its coordinates, then all numbers over `layer` alone."""
    numbers = [str(name) for name in compared.data_vars if compared[name].dims == (LAYER,)]
    table = compared[numbers].to_dataframe().reset_index()
    return table[[LAYER, *(name for name in FIRST if name in table), *numbers]]


def layer_summary(compared: xr.Dataset) -> dict[str, Any]:
    """A comparison as one dict: its attributes, the labels of its top layers, its pairs, and its layers."""
    summary = {str(key): value for key, value in compared.attrs.items() if key != "maps"}
    if PAIR in compared.dims:
        summary["pairs"] = [str(name) for name in compared[PAIR].values]
    top = top_layers(compared, int(compared.attrs["top"]))
    summary["top_layers"] = [str(compared[LAYER].values[i]) for i in top]
    summary["layers"] = layer_table(compared).to_dict("records")
    return summary


def write_layer_files(compared: xr.Dataset, folder: Path) -> None:
    """Write `layers.csv`, `layers.json`, of many pairs also `pairs.csv`, and the figures, into a folder.

    Figures: `top_layers.png`, `layer_curves.png`, and `difference_maps.png` where any layer has positions.
    """
    from vaearr.views import save

    layer_table(compared).to_csv(folder / "layers.csv", index=False, lineterminator="\n")
    write_json(folder / "layers.json", layer_summary(compared))
    if PAIR in compared.dims:
        measures = list(MEASURES)
        pairs = compared[measures].to_dataframe(dim_order=[PAIR, LAYER])[measures]
        pairs.to_csv(folder / "pairs.csv", lineterminator="\n")
    if len(top_layers(compared)):
        save(compared, folder / "top_layers.png", kind="top_layers")
    save(compared, folder / "layer_curves.png", kind="layers")
    if compared.attrs["maps"]:
        save(compared, folder / "difference_maps.png", kind="layer_maps")
