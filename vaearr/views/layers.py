"""A network and its layers: its stages, the layers that differ most between samples, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr.errors import NoInputError
from vaearr.names import DECODER, DIFFERENCE_MAP, ENCODER, LAYER, PAIR
from vaearr.views.common import COLORS, SEQUENTIAL, brief, holoviews, plot, robust_limits, text
from vaearr.views.kinds import builder
from vaearr.views.mosaic import in_rows, sheet
from vaearr.views.pictures import in_own_limits, pictures

PART_COLORS = {ENCODER: COLORS[0], DECODER: COLORS[1]}
OTHER_COLOR = "#6e6e6e"  # input, latent and output, which are not layers
RELATIVE = "relative L2 difference"
LETTERS = 34  # of a layer's name
SAMPLE_ROWS = {"input": "preprocessed", "decoded": "decoded"}  # variable -> name of the row


def _measure(comparison: xr.Dataset, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A measure of each layer; for many pairs its mean and standard deviation."""
    if PAIR not in comparison.dims:
        return comparison[name].values, None
    return comparison[f"{name}_mean"].values, comparison[f"{name}_std"].values


def _pairs_in_words(comparison: xr.Dataset) -> str:
    if PAIR not in comparison.dims:
        return ""
    return f", mean ± std of {comparison.sizes[PAIR]} pairs"


def _bars(labels: Sequence[str], lengths: np.ndarray, parts: Any, **options: Any) -> Any:
    """Named bars, the first on top, in the colours of the parts of a network."""
    hv = holoviews()
    colors = np.array([PART_COLORS.get(part, OTHER_COLOR) for part in parts])
    bars = []
    for color in np.unique(colors):
        rows = np.flatnonzero(colors == color)
        corners = (0 * rows, rows - 0.36, lengths[rows], rows + 0.36)
        rectangles = hv.Rectangles(corners, ["length", "place", "x1", "y1"])
        bars.append(rectangles.opts(fill_color=str(color), line_color=None))
    style: dict[str, Any] = {
        "ylabel": "",
        "yticks": list(enumerate(labels)),
        "invert_yaxis": True,
        "xlim": (0, None),
        "show_grid": True,
        "frame_width": 420,
        "frame_height": 26 * len(labels),
    }
    return hv.Overlay(bars).opts(**style, **options)


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

    values, deviations = _measure(comparison, "relative_l2")
    chosen = top_layers(comparison, top or comparison.attrs["top"] or TOP)
    if not len(chosen):
        raise NoInputError(
            "no layer of the comparison has a finite relative difference; there is nothing to rank."
        )
    layers = comparison.isel({LAYER: chosen})
    kinds = zip(layers[LAYER].values, layers["kind"].values, strict=True)
    names = [f"{brief(name, LETTERS)} ({kind})" for name, kind in kinds]
    xlabel = f"{RELATIVE}{_pairs_in_words(comparison)}"
    title = "encoder blue, decoder orange"
    bars = _bars(names, values[chosen], layers["part"].values, xlabel=xlabel, title=title)
    if deviations is None:
        return bars
    points = (values[chosen], np.arange(len(chosen)), deviations[chosen])
    errors = holoviews().ErrorBars(points, "length", ["place", "std"], horizontal=True)
    return bars * errors.opts(line_color="black")


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
        style: dict[str, Any] = {
            "y": heading,
            "frame_width": 700,
            "frame_height": 190,
            "xlabel": "layer, in order of execution",
            "color": OTHER_COLOR,
        }
        panel = plot(table, "scatter", **style)
        if deviations is not None:
            panel *= plot(table.assign(std=deviations), "errorbars", yerr1="std", **style)
        for part, color in PART_COLORS.items():
            rows = table[table["part"] == part]
            style["color"] = color
            if len(rows):
                panel *= plot(rows, "scatter", **style)
                panel *= plot(rows, "line", label=part, **style)
        panels.append(panel)
    heading = f"{comparison.sizes[LAYER]} layers{_pairs_in_words(comparison)}"
    return holoviews().Layout(panels).cols(1).opts(title=heading, shared_axes=False)


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
    maps, captions = [], []
    for name in names:
        values = np.atleast_2d(comparison[name].values / (rms[int(name.removeprefix(prefix))] or 1))
        if values.ndim == 3:
            values = values[len(values) // 2]
        maps.append(values)
        layer = brief(comparison[name].attrs[LAYER], 26)
        captions.append(f"{layer}\n{' x '.join(map(str, values.shape))}")
    high = robust_limits(np.concatenate([values.ravel() for values in maps]), (0.0, 99.5))[1]
    shape = tuple(np.max([values.shape for values in maps], axis=0))
    rows = in_rows([_stretched(values, shape) for values in maps], 4)
    heading = f"RMS difference / RMS of a{_pairs_in_words(comparison)}"
    sheets = [sheet(rows, (0.0, high), heading, words=captions, cmap=SEQUENTIAL)]
    if "input_a" in comparison:
        rows = []
        for name in SAMPLE_ROWS:
            pair = xr.concat([comparison[f"{name}_a"], comparison[f"{name}_b"]], "sample_of_pair")
            rows.append(in_own_limits(pictures(pair)))
        style: dict[str, Any] = {"names": list(SAMPLE_ROWS.values()), "colorbar": False}
        sheets.insert(0, sheet(rows, (0.0, 1.0), "samples a and b", **style))
    return holoviews().Layout(sheets).cols(1).opts(shared_axes=False)


def _stretched(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map resampled to a finer grid by nearest neighbours."""
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(shape, values.shape, strict=True)
    )
    return values[np.ix_(rows, columns)]


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
    table["rows"] = sizes.str.get(1).fillna(1).astype(int)
    level = table[["part", "rows"]]
    labels, rows, parts = [], [], []
    for _, stage in table.groupby((level != level.shift()).any(axis=1).cumsum()):
        last = stage.iloc[-1]
        label = f"{last['part']} {last['shape']}"
        n_parameters = stage[N_PARAMETERS].sum()
        if n_parameters:
            counts = stage["kind"].value_counts(sort=False)
            layers: list[Any] = [
                kind if count == 1 else f"{count} {kind}" for kind, count in counts.items()
            ]
            label += f": {brief(text(', '.join(layers)), 40)}, {n_parameters:,} parameters"
        labels.append(label)
        rows.append(last["rows"])
        parts.append(last["part"])
    attrs = card.attrs
    size = f"{attrs[N_PARAMETERS]:,} parameters ({attrs['weights_MB']:.3g} MB)"
    ratio = f"{ratio_words(attrs['compression'])} input values per latent value"
    heading = f"{attrs['network']}: {size}\n{ratio}"
    return _bars(labels, np.array(rows), parts, title=heading, xlabel="rows of the feature maps")
