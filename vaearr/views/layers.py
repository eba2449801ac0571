"""A network and its layers: its stages, the layers that differ most between samples, and where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image

from vaearr.errors import NoInputError
from vaearr.names import DECODER, DIFFERENCE_MAP, ENCODER, LAYER, PAIR
from vaearr.views.common import (
    COLORS,
    SEQUENTIAL,
    Options,
    brief,
    in_columns,
    plot,
    robust_limits,
    text,
)
from vaearr.views.kinds import builder
from vaearr.views.mosaic import in_own_limits, in_rows, sheet
from vaearr.views.pictures import pictures

PART_COLORS = {ENCODER: COLORS[0], DECODER: COLORS[1]}
OTHER_COLOR = "#6e6e6e"  # input, latent and output, which are not layers
RELATIVE = "relative L2 difference"
LETTERS = 34  # of a layer's name


def _measure(comparison: xr.Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A measure of each layer and its standard deviation: of pairs, else NaN."""
    if PAIR in comparison.dims:
        return comparison[f"{name}_mean"].values, comparison[f"{name}_std"].values
    values = comparison[name].values
    return values, np.full_like(values, np.nan)


def _pairs_in_words(comparison: xr.Dataset) -> str:
    if PAIR not in comparison.dims:
        return ""
    return f", mean ± std of {comparison.sizes[PAIR]} pairs"


def _bars(table: pd.DataFrame, **options: Any) -> Any:
    """The column `length` as named bars, the first on top, in the colours of the column `part`."""
    table = table[::-1]
    lengths = {
        part: table["length"].astype(float).where(table["part"] == part)
        for part in table["part"].unique()
    }
    style: Options = {
        "xlabel": "",
        "ylabel": "",
        "color": [PART_COLORS.get(part, OTHER_COLOR) for part in lengths],
        "stacked": True,
        "legend": False,
        "frame_width": 420,
        "frame_height": 26 * len(table),
    }
    return plot(pd.DataFrame(lengths).fillna(0.0), "barh", **style | options)


@builder("top_layers")
def top_bars(comparison: xr.Dataset, top: int | None = None) -> Any:
    """Plot the layers with the largest relative L2 difference as bars.

    For many pairs, means with their standard deviation.

    Parameters
    ----------
    comparison
        Result of `Run.layers`.
    top
        Number of layers. Default: that of the comparison.

    Raises
    ------
    NoInputError
        If no layer has a finite value.
    """
    from vaearr.analysis.layers import TOP, top_layers

    chosen = top_layers(comparison, top or comparison.attrs["top"] or TOP)
    if not len(chosen):
        raise NoInputError(
            "no layer of the comparison has a finite relative difference; there is nothing to rank."
        )
    layers = comparison.isel({LAYER: chosen})
    values, deviations = _measure(layers, "relative_l2")
    names = [
        f"{brief(name, LETTERS)} ({kind})"
        for name, kind in zip(layers[LAYER].values, layers["kind"].values, strict=True)
    ]
    columns = {"length": values, "part": layers["part"].values, "std": deviations}
    table = pd.DataFrame(columns, names)
    heading = f"{RELATIVE}{_pairs_in_words(comparison)}\n(encoder blue, decoder orange)"
    bars = _bars(table, title=heading)
    if np.isnan(deviations).all():
        return bars
    style = {"color": "black", "xlabel": "", "ylabel": ""}
    errors = plot(table[::-1], "errorbars", y="length", yerr1="std", **style)
    return bars * errors.opts(invert_axes=True)


@builder("layers", LAYER, "relative_l2")
def layer_curves(comparison: xr.Dataset) -> Any:
    """Plot relative L2 difference and cosine similarity of all layers in order of execution.

    Encoder and decoder in their colours, input, latent and output grey; for many pairs the mean
    with its standard deviation.
    """
    panels = []
    for name, heading in (("relative_l2", RELATIVE), ("cosine", "cosine similarity")):
        values, deviations = _measure(comparison, name)
        columns = {heading: values, "part": comparison["part"].values}
        table = pd.DataFrame(columns, comparison["order"].values)
        style: Options = {
            "y": heading,
            "frame_width": 700,
            "frame_height": 190,
            "xlabel": "layer, in order of execution",
            "color": OTHER_COLOR,
        }
        panel = plot(table, "scatter", **style)
        if np.isfinite(deviations).any():
            panel *= plot(table.assign(std=deviations), "errorbars", yerr1="std", **style)
        for part, color in PART_COLORS.items():
            rows = table[table["part"] == part]
            style["color"] = color
            if len(rows):
                panel *= plot(rows, "scatter", **style)
                panel *= plot(rows, "line", label=part, **style)
        panels.append(panel)
    heading = f"{comparison.sizes[LAYER]} layers{_pairs_in_words(comparison)}"
    return in_columns(panels, 1, title=heading)


@builder("layer_maps")
def difference_sheet(comparison: xr.Dataset) -> Any:
    """Plot both samples, their reconstructions and difference maps of the top layers.

    A map is the RMS difference over channels at each position, divided by the RMS of a in that
    layer, so that all maps share one scale; each keeps its grid, stretched over the same frame. Of
    volumes the middle slice is shown. Raises NoInputError if no map was kept.
    """
    top = [str(name) for name in comparison.attrs.get("maps", [])]
    if not top:
        raise NoInputError(
            "no difference map was kept; "
            "compare with top of 1 or more, and a network with positions."
        )
    prefix = f"{DIFFERENCE_MAP}_"
    names = [str(name) for name in comparison.data_vars if str(name).startswith(prefix)]
    names = [name for name in names if name not in top] + top
    rms = _measure(comparison, "rms_a")[0]
    maps = []
    captions = []
    for name in names:
        scale = rms[int(name.removeprefix(prefix))] or 1
        values = np.atleast_2d(comparison[name].values / scale)
        if values.ndim == 3:
            values = values[len(values) // 2]
        maps.append(values)
        layer = brief(comparison[name].attrs[LAYER], 26)
        captions.append(f"{layer}\n{' x '.join(map(str, values.shape))}")
    all_values = np.concatenate([values.ravel() for values in maps])
    high = robust_limits(all_values, (0.0, 99.5))[1]
    height, width = np.max([values.shape for values in maps], axis=0).tolist()
    stretched = [
        Image.fromarray(values.astype("f4")).resize((width, height), Image.Resampling.NEAREST)
        for values in maps
    ]
    rows = in_rows(list(map(np.asarray, stretched)), 4)
    heading = f"RMS difference / RMS of a{_pairs_in_words(comparison)}"
    sheets = [sheet(rows, heading, limits=(0.0, high), words=captions, cmap=SEQUENTIAL)]
    if "input_a" in comparison:
        sheets.insert(0, _pair_of_samples(comparison))
    return in_columns(sheets, 1)


def _pair_of_samples(comparison: xr.Dataset) -> Any:
    """Samples a and b, preprocessed and decoded, each row in its limits."""
    rows = []
    for name in ("input", "decoded"):
        pair = xr.concat([comparison[f"{name}_a"], comparison[f"{name}_b"]], "sample_of_pair")
        rows.append(in_own_limits(pictures(pair)))
    names = ["preprocessed", "decoded"]
    return sheet(rows, "samples a and b", limits=(0.0, 1.0), names=names, colorbar=False)


@builder("network", "n_parameters", "kind")
def model_figure(card: xr.Dataset) -> Any:
    """Plot the network of a model card from input to output, a bar for each stage.

    A stage has one resolution and is labelled with its last shape, its layers and parameters; the
    length of the bar is the number of rows of its feature maps. Raises SchemaError for a Dataset
    that is not a model card.
    """
    from vaearr.models.card import N_PARAMETERS, check_card, ratio_words

    check_card(card)
    table = card.reset_coords().to_dataframe()
    sizes: Any = table["shape"].str.split(" x ")
    table["length"] = sizes.str.get(1).fillna(1).astype(int)
    level = table[["part", "length"]]
    stages = {}
    is_first = (level != level.shift()).any(axis=1)
    for _, stage in table.groupby(is_first.cumsum()):
        stages[_stage_words(stage)] = stage.iloc[-1]
    attrs = card.attrs
    size = f"{attrs[N_PARAMETERS]:,} parameters ({attrs['weights_MB']:.3g} MB)"
    ratio = f"{ratio_words(attrs['compression'])} input values per latent value"
    heading = f"{attrs['network']}: {size}\n{ratio}"
    return _bars(pd.DataFrame(stages).T, title=heading, ylabel="rows of the feature maps")


def _stage_words(stage: pd.DataFrame) -> str:
    """Last shape of a stage of a network, its layers and its parameters."""
    last = stage.iloc[-1]
    label = f"{last['part']} {last['shape']}"
    n_parameters = stage["n_parameters"].sum()
    if not n_parameters:
        return label
    layers = []
    for kind, count in stage["kind"].value_counts(sort=False).items():
        layers.append(str(kind) if count == 1 else f"{count} {kind}")
    return f"{label}: {brief(text(', '.join(layers)), 40)}, {n_parameters:,} parameters"
