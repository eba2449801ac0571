"""A network and its layers: its stages as bars, the layers that differ most between samples, and
where.
"""

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
OTHER_COLOR = "#6e6e6e"  # input, latent and output, which are no layers
RELATIVE = "relative L2 difference"
LETTERS = 34  # of a layer's name
SEEN = {
    "input": "as seen",
    "decoded": "decoded",
}  # variables of both samples, and what they are called


def _numbers(found: xr.Dataset, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A measure of each layer; of many pairs its mean and standard deviation."""
    if PAIR not in found.dims:
        return found[name].values, None
    return found[f"{name}_mean"].values, found[f"{name}_std"].values


def _how_many(found: xr.Dataset) -> str:
    return f", mean ± std of {found.sizes[PAIR]} pairs" if PAIR in found.dims else ""


def _bars(labels: Sequence[str], lengths: np.ndarray, parts: Any, **options: Any) -> Any:
    """Bars with a name each, the first on top, in the colours of the parts of a network."""
    hv, place = holoviews(), np.arange(len(labels))
    colors = np.array([PART_COLORS.get(part, OTHER_COLOR) for part in parts])
    shown = []
    for color in np.unique(colors):
        rows = place[colors == color]
        bars = hv.Rectangles(
            (0 * rows, rows - 0.36, lengths[rows], rows + 0.36), ["length", "place", "x1", "y1"]
        )
        shown.append(bars.opts(fill_color=str(color), line_color=None))
    own = {
        "ylabel": "",
        "yticks": list(enumerate(labels)),
        "invert_yaxis": True,
        "xlim": (0, None),
        "show_grid": True,
    }
    return hv.Overlay(shown).opts(**own, frame_width=420, frame_height=26 * len(labels), **options)


@builder("top_layers")
def top_bars(found: xr.Dataset, top: int | None = None) -> Any:
    """The layers with the largest relative L2 difference as bars, largest first, coloured by part
    of the network.

    top: how many; default: as many as the comparison says. Of many pairs, means with their standard
    deviation. Raises NoInputError where no layer has a finite value.
    """
    from vaearr.analysis.layers import TOP, top_layers

    values, spread = _numbers(found, "relative_l2")
    chosen = top_layers(found, top or found.attrs["top"] or TOP)
    if not len(chosen):
        raise NoInputError(
            "no layer of the comparison has a finite relative difference; there is nothing to rank."
        )
    layers = found.isel({LAYER: chosen})
    kinds = layers["kind"].values
    names = [
        f"{brief(name, LETTERS)} ({kind})"
        for name, kind in zip(layers[LAYER].values, kinds, strict=True)
    ]
    words = {"xlabel": f"{RELATIVE}{_how_many(found)}", "title": "encoder blue, decoder orange"}
    shown = _bars(names, values[chosen], layers["part"].values, **words)
    if spread is None:
        return shown
    errors = (values[chosen], np.arange(len(chosen)), spread[chosen])
    bars = holoviews().ErrorBars(errors, "length", ["place", "std"], horizontal=True)
    return shown * bars.opts(line_color="black")


@builder("layers", LAYER, "relative_l2")
def layer_curves(found: xr.Dataset) -> Any:
    """Relative L2 difference and cosine similarity of all layers in the order in which they are
    run.

    Encoder and decoder in their colours, input, latent and output grey; of many pairs the mean with
    its standard deviation.
    """
    panels = []
    for name, words in (("relative_l2", RELATIVE), ("cosine", "cosine similarity")):
        values, spread = _numbers(found, name)
        table = pd.DataFrame({words: values, "part": found["part"].values}, found["order"].values)
        own = {
            "y": words,
            "frame_width": 700,
            "frame_height": 190,
            "xlabel": "layer, in order of execution",
        }
        shown = plot(table, "scatter", **own | {"color": OTHER_COLOR})
        if spread is not None:
            shown = shown * plot(
                table.assign(std=spread), "errorbars", yerr1="std", **own | {"color": OTHER_COLOR}
            )
        for part, color in PART_COLORS.items():
            rows = table[table["part"] == part]
            if len(rows):
                shown = shown * plot(rows, "scatter", **own | {"color": color})
                shown = shown * plot(rows, "line", label=part, **own | {"color": color})
        panels.append(shown)
    heading = f"{found.sizes[LAYER]} layers{_how_many(found)}"
    return holoviews().Layout(panels).cols(1).opts(title=heading, shared_axes=False)


@builder("layer_maps")
def difference_sheet(found: xr.Dataset) -> Any:
    """Where the difference lies: both samples and their reconstructions, then the maps of the top
    layers.

    A map is the RMS difference over channels at each position, divided by the RMS of a in that
    layer, so that all maps share one scale; each is shown on its own grid, stretched over the same
    frame. Of volumes the middle slice is shown. Raises NoInputError where no map was kept.
    """
    top = [str(name) for name in found.attrs.get("maps", [])]
    if not top:
        raise NoInputError(
            "no difference map was kept; compare with top of 1 or more, and a network with positions."
        )
    ends = [
        str(name)
        for name in found.data_vars
        if str(name).startswith(f"{DIFFERENCE_MAP}_") and name not in top
    ]
    size, maps, captions = _numbers(found, "rms_a")[0], [], []
    for name in [*ends, *top]:
        values = np.atleast_2d(
            found[name].values / (size[int(name.removeprefix(f"{DIFFERENCE_MAP}_"))] or 1.0)
        )
        maps.append(values[len(values) // 2] if values.ndim == 3 else values)
        captions.append(
            f"{brief(found[name].attrs[LAYER], 26)}\n{' x '.join(map(str, maps[-1].shape))}"
        )
    shape = tuple(max(values.shape[axis] for values in maps) for axis in (0, 1))
    limits = (
        0.0,
        robust_limits(np.concatenate([values.ravel() for values in maps]), (0.0, 99.5))[1],
    )
    stretched = [_stretched(values, shape) for values in maps]
    heading = f"RMS difference / RMS of a{_how_many(found)}"
    parts = [sheet(in_rows(stretched, 4), limits, heading, words=captions, cmap=SEQUENTIAL)]
    if "input_a" in found:
        pairs = [
            pictures(xr.concat([found[f"{name}_a"], found[f"{name}_b"]], "of")) for name in SEEN
        ]
        rows = [in_own_limits(pair) for pair in pairs]
        parts.insert(
            0, sheet(rows, (0.0, 1.0), "samples a and b", names=list(SEEN.values()), colorbar=False)
        )
    return holoviews().Layout(parts).cols(1).opts(shared_axes=False)


def _stretched(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map on a finer grid, each new point with the value of the old one that it lies in."""
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(shape, values.shape, strict=True)
    )
    return values[np.ix_(rows, columns)]


@builder("network", "n_parameters", "kind")
def model_figure(card: xr.Dataset) -> Any:
    """The network of a model card from the input at the top to the output, a bar for each stage.

    A stage is what is run at one resolution, named with its last shape, its blocks and parameters;
    the bar is as wide as its feature maps have rows. Raises SchemaError for a Dataset that is no
    model card.
    """
    from vaearr.models.card import N_PARAMETERS, check_card, ratio_words

    check_card(card)
    table = card.reset_coords().to_dataframe()
    table["rows"] = (
        table["shape"].str.split(" x ").str[1:2].str.join("").replace("", "1").astype(int)
    )
    place = table[["part", "rows"]]
    labels, rows, parts = [], [], []
    for _, stage in table.groupby((place != place.shift()).any(axis=1).cumsum()):
        kinds = stage["kind"].value_counts(sort=False)
        blocks = ", ".join(
            kind if count == 1 else f"{count} {kind}"
            for kind, count in zip(kinds.index, kinds, strict=True)
        )
        last, count = stage.iloc[-1], stage[N_PARAMETERS].sum()
        words = f"{last['part']} {last['shape']}"
        labels.append(
            f"{words}: {brief(text(blocks), 40)}, {count:,} parameters" if count else words
        )
        rows.append(last["rows"])
        parts.append(last["part"])
    attrs = card.attrs
    heading = (
        f"{attrs['network']}: {attrs[N_PARAMETERS]:,} parameters ({attrs['weights_MB']:.3g} MB)\n"
    )
    heading += f"{ratio_words(attrs['compression'])} input values per latent value"
    return _bars(labels, np.array(rows), parts, title=heading, xlabel="rows of the feature maps")
