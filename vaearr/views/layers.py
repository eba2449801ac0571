"""A network and its layers: its stages as bars, the layers that differ most between samples, and where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from vaearr.errors import NoInputError
from vaearr.names import DECODER, DIFFERENCE_MAP, ENCODER, LAYER, PAIR
from vaearr.views.common import COLORS, SEQUENTIAL, brief, holoviews, robust_limits, text, title
from vaearr.views.curves import curve, panel
from vaearr.views.kinds import builder
from vaearr.views.maps import BOKEH
from vaearr.views.mosaic import in_rows, sheet
from vaearr.views.pictures import LIMITS, pictures

PART_COLORS = {ENCODER: COLORS[0], DECODER: COLORS[1]}
OTHER_COLOR = "#6e6e6e"  # input, latent and output, which are no layers
RELATIVE = "relative L2 difference"
LETTERS, MAP_LETTERS = 34, 26  # of a layer's name beside a bar, and above a map


def _numbers(found: xr.Dataset, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A measure of each layer; of many pairs its mean and standard deviation."""
    if PAIR not in found.dims:
        return found[name].values, None
    return found[f"{name}_mean"].values, found[f"{name}_std"].values


def _how_many(found: xr.Dataset) -> str:
    return f", mean ± std of {found.sizes[PAIR]} pairs" if PAIR in found.dims else ""


@builder("top_layers")
def top_bars(found: xr.Dataset, top: int | None = None) -> Any:
    """The layers with the largest relative L2 difference as bars, largest first, coloured by part of the network.

    top: how many; default: as many as the comparison says. Of many pairs, means with their standard deviation. Raises
    NoInputError where no layer has a finite value.
    """
    from vaearr.analysis.layers import TOP, top_layers

    values, spread = _numbers(found, "relative_l2")
    chosen = top_layers(found, top or int(found.attrs.get("top", 0)) or TOP)
    if not len(chosen):
        raise NoInputError("no layer of the comparison has a finite relative difference; there is nothing to rank.")
    hv, axes = holoviews(), [RELATIVE, "layer"]
    parts, names, kinds = (found[name].values[chosen].astype(str) for name in ("part", LAYER, "kind"))
    place = np.arange(len(chosen))
    shown = []
    for part, color in PART_COLORS.items():
        rows = place[parts == part]
        edges = (0 * rows, rows - 0.36, values[chosen][rows], rows + 0.36)
        bars = hv.Rectangles(edges, [*axes, "x1", "y1"], label=part)
        shown.append(bars.opts(fill_color=color, line_color=None, **BOKEH))
    if spread is not None:
        errors = hv.ErrorBars((values[chosen], place, spread[chosen]), axes[0], [axes[1], "std"], horizontal=True)
        shown.append(errors.opts(line_color="black", **BOKEH))
    labels = [f"{brief(name, LETTERS)} ({kind})" for name, kind in zip(names, kinds, strict=True)]
    colors = ", ".join(f"{part} {name}" for part, name in zip(PART_COLORS, ("blue", "orange"), strict=True))
    return hv.Overlay(shown).opts(
        title=colors, xlabel=f"{RELATIVE}{_how_many(found)}", ylabel="", yticks=list(enumerate(labels)),
        invert_yaxis=True, xlim=(0, None), show_legend=False, show_grid=True,
        frame_width=420, frame_height=26 * len(chosen), **BOKEH,
    )  # fmt: skip


@builder("layers", LAYER, "relative_l2")
def layer_curves(found: xr.Dataset) -> Any:
    """Relative L2 difference and cosine similarity of all layers in the order in which they are run.

    Encoder and decoder in their colours, input, latent and output grey; of many pairs the mean with its standard
    deviation.
    """
    hv, order, parts = holoviews(), found["order"].values, found["part"].values.astype(str)
    groups = [(parts == part, color, part) for part, color in PART_COLORS.items()]
    groups.append((~np.isin(parts, list(PART_COLORS)), OTHER_COLOR, "input, latent, output"))
    panels = []
    for name, words in (("relative_l2", RELATIVE), ("cosine", "cosine similarity")):
        (values, spread), dims, drawn = _numbers(found, name), ("layer", words), []
        for here, color, label in groups:
            style, error = "o" if color == OTHER_COLOR else "-o", None if spread is None else spread[here]
            drawn += curve(order[here], values[here], dims, label, color, style=style, spread=error)
        frame = {"frame_width": 700, "frame_height": 190, "xlabel": "layer, in order of execution", "ylabel": words}
        panels.append(panel(drawn, xticks=10, **frame))
    heading = f"{found.sizes[LAYER]} layers{_how_many(found)}"
    return hv.Layout(panels).cols(1).opts(title=heading, shared_axes=False, **BOKEH)


@builder("layer_maps")
def difference_sheet(found: xr.Dataset) -> Any:
    """Where the difference lies: both samples and their reconstructions, then the maps of the top layers.

    A map is the RMS difference over channels at each position, divided by the RMS of a in that layer, so that all maps
    share one scale; each is shown on its own grid, stretched over the same frame (that of a network that pads is a
    little wider). Of volumes the middle slice is shown. Raises NoInputError where no map was kept.
    """
    maps = [str(name) for name in found.attrs.get("maps", [])]
    if not maps:
        raise NoInputError("no difference map was kept; compare with top of 1 or more, and a network with positions.")
    ends = [str(name) for name in found.data_vars if str(name).startswith(f"{DIFFERENCE_MAP}_") and name not in maps]
    size, images, spans, above = _numbers(found, "rms_a")[0], list[np.ndarray](), [], []
    for name, words in (("input", "as seen"), ("decoded", "decoded")):
        if f"{name}_a" in found:  # a pair on one scale
            pair = [pictures(found[f"{name}_{which}"].expand_dims("pair_member"))[0] for which in "ab"]
            images += pair
            spans += [robust_limits(np.stack(pair), LIMITS)] * 2
            above += [f"a, {words}", f"b, {words}"]
    parts = []
    if images:
        parts.append(sheet(in_rows(images, 4), in_rows(spans, 4), "samples", above=in_rows(above, 4)))
    relative: list[np.ndarray] = []
    captions: list[str] = []
    for name in [*ends, *maps]:
        values = found[name].values / (size[int(name.removeprefix(f"{DIFFERENCE_MAP}_"))] or 1.0)
        values = values[len(values) // 2] if values.ndim == 3 else np.atleast_2d(values)
        label, kind = brief(found[name].attrs[LAYER], MAP_LETTERS), found[name].attrs["kind"]
        where = f"{values.shape[0]} x {values.shape[1]}"
        captions.append(f"{label}\n{where}" if kind == label else f"{label}\n{kind}, {where}")
        relative.append(values)
    limits = (0.0, robust_limits(np.concatenate([values.ravel() for values in relative]), (0.0, 99.5))[1])
    shape = tuple(max(values.shape[axis] for values in relative) for axis in (0, 1))
    stretched = [_stretched(values, shape) for values in relative]
    many = f", root mean square over {found.sizes[PAIR]} pairs" if PAIR in found.dims else ""
    slices = ", middle slice" if found[maps[0]].ndim == 3 else ""
    heading = f"RMS difference / RMS of a{many}{slices}"
    parts.append(sheet(in_rows(stretched, 4), limits, heading, above=in_rows(captions, 4), cmap=SEQUENTIAL))
    return holoviews().Layout(parts).cols(1).opts(shared_axes=False, **BOKEH)


def _stretched(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map on a finer grid, each new point with the value of the old one that it lies in."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape, values.shape, strict=True))
    return values[np.ix_(rows, columns)]


@dataclass
class Stage:
    """Layers that follow one another at one resolution: `sizes` are their positions, none for vectors."""

    part: str
    sizes: tuple[int, ...]
    channels: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    n_parameters: int = 0


def stages(card: xr.Dataset) -> list[Stage]:
    """The blocks of a model card, joined where one after the other has the same resolution and part of the network.

    A block whose output is neither a vector nor a grid of the network's dims belongs to the stage before. Raises
    SchemaError for a Dataset that is no model card.
    """
    from vaearr.models.card import N_PARAMETERS, check_card, sizes_of

    check_card(card)
    found: list[Stage] = []
    rows = zip(*(card[name].values for name in ("part", "kind", "shape", N_PARAMETERS)), strict=True)
    for part, kind, written, count in rows:
        shape = sizes_of(written)
        fits = len(shape) in (1, len(card.attrs["input_shape"]))
        if not found or found[-1].part != part or (fits and found[-1].sizes != shape[1:]):
            found.append(Stage(str(part), shape[1:]))
        stage = found[-1]
        stage.n_parameters += int(count)
        stage.channels += [shape[0]] if fits else []
        stage.kinds += [str(kind)] if part in PART_COLORS else []
    return found


@builder("network", "n_parameters", "kind")
def model_figure(card: xr.Dataset) -> Any:
    """The network of a model card from the input at the top to the output, a bar for each stage.

    A stage is what is run at one resolution; the bar is as wide as its feature maps have rows. To the left the layers
    of the stage, to the right channels, positions and parameters. Raises SchemaError for a Dataset that is no model
    card.
    """
    from vaearr.models.card import N_PARAMETERS, ratio_words

    found, left, right = stages(card), [], []
    for stage in found:
        counted = Counter(stage.kinds).items()
        contents = ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in counted)
        left.append(brief(f"{stage.part}: {text(contents)}" if contents else stage.part, 52))
        sizes = " × ".join(str(size) for size in (max(stage.channels, default=1), *stage.sizes))
        right.append(f"{sizes}, {stage.n_parameters:,} parameters" if stage.n_parameters else sizes)
    rows = np.array([stage.sizes[0] if stage.sizes else 1 for stage in found], dtype=float)
    width, place, a = np.maximum(rows / rows.max(), 0.02), np.arange(len(found)), card.attrs
    parts = [f"{a[f'{N_PARAMETERS}_{part}']:,} in the {part}" for part in PART_COLORS]
    parts += [f"{a[f'{N_PARAMETERS}_heads']:,} in heads"] if a[f"{N_PARAMETERS}_heads"] else []
    hv, axes = holoviews(), ["across", "stage"]
    colors = [PART_COLORS.get(stage.part, OTHER_COLOR) for stage in found]
    shown = []
    for color in dict.fromkeys(colors):
        rows = place[[other == color for other in colors]]
        edges = (-width[rows] / 2, rows - 0.31, width[rows] / 2, rows + 0.31)
        shown.append(hv.Rectangles(edges, [*axes, "x1", "y1"]).opts(fill_color=color, line_color=None, **BOKEH))
    words = hv.Labels((np.full(len(found), 0.56), place, right), axes, "size")
    shown.append(words.opts(text_color="black", text_font_size="8pt", text_align="left", **BOKEH))
    size = f"{a[N_PARAMETERS]:,} parameters ({a['weights_MB']:.3g} MB; {', '.join(parts)})"
    heading = f"{title(a['network'])}: {size}\n{ratio_words(a['compression'])} input values per latent value"
    return hv.Overlay(shown).opts(
        title=heading, xaxis=None, xlabel="", ylabel="", yticks=list(enumerate(left)), invert_yaxis=True,
        xlim=(-0.55, 1.4), ylim=(-0.6, len(found) - 0.4), frame_width=560, frame_height=32 * len(found),
        fontsize={"title": "9pt"}, show_frame=False, **BOKEH,
    )  # fmt: skip
