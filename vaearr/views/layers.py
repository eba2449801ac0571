"""Layer-wise comparisons on paper: the layers that differ most, all layers in order, where the differences lie."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr.analysis.layers import MAP, PAIR, TOP, top_layers
from vaearr.errors import NoInputError, SchemaError
from vaearr.models.hooks import DECODER, ENCODER, LAYER
from vaearr.views.common import COLORS, SEQUENTIAL, brief, robust_limits, text
from vaearr.views.kinds import builder
from vaearr.views.paper import SMALL, WIDTH, journal, new_figure, panels
from vaearr.views.pictures import pictures, show_picture

PART_COLORS = {ENCODER: COLORS[0], DECODER: COLORS[1]}
OTHER_COLOR = "#6e6e6e"  # input, latent and output, which are no layers
RELATIVE = "relative L2 difference"
COLUMNS = 4
LETTERS = 34  # of a layer's name beside a bar
MAP_LETTERS = 26  # and above a map


def _numbers(found: xr.Dataset, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A measure of each layer; of many pairs its mean and standard deviation."""
    if "relative_l2" not in found or LAYER not in found.dims:
        raise SchemaError(
            "the Dataset is no layer-wise comparison; pass what compare_layers or compare_pairs returned."
        )
    if PAIR not in found.dims:
        return found[name].values, None
    return found[f"{name}_mean"].values, found[f"{name}_std"].values


def _how_many(found: xr.Dataset) -> str:
    return f", mean ± std of {found.sizes[PAIR]} pairs" if PAIR in found.dims else ""


@builder("top_layers")
def top_bars(found: xr.Dataset, top: int | None = None) -> Any:
    """The layers with the largest relative L2 difference as bars, largest first, coloured by part of the network.

    Of many pairs, means with their standard deviation. top: how many; default: as many as the comparison says. Raises
    NoInputError where no layer has a finite value.
    """
    values, spread = _numbers(found, "relative_l2")
    chosen = top_layers(found, top or int(found.attrs.get("top", 0)) or TOP)
    if not len(chosen):
        raise NoInputError("no layer of the comparison has a finite relative difference; there is nothing to rank.")
    parts, names, kinds = (found[name].values[chosen].astype(str) for name in ("part", LAYER, "kind"))
    with journal():
        figure = new_figure(WIDTH * 0.72, 0.21 * len(chosen) + 0.85)
        axes = figure.subplots()
        for part, color in PART_COLORS.items():
            own = np.flatnonzero(parts == part)
            if not own.size:
                continue
            error = None if spread is None else spread[chosen][own]
            axes.barh(own, values[chosen][own], xerr=error, height=0.72, color=color, label=part,
                      error_kw={"lw": 0.8, "capsize": 2})  # fmt: skip
        labels = [f"{brief(name, LETTERS)}  ({kind})" for name, kind in zip(names, kinds, strict=True)]
        axes.set_yticks(np.arange(len(chosen)), labels=labels, fontsize=SMALL)
        axes.invert_yaxis()
        axes.set(xlabel=f"{RELATIVE}{_how_many(found)}", xlim=(0, None))
        axes.grid(alpha=0.25, lw=0.4)
        figure.legend(loc="outside upper right", ncols=2, borderpad=0)
    return figure


@builder("layers", LAYER, "relative_l2")
def layer_curves(found: xr.Dataset) -> Any:
    """Relative L2 difference and cosine similarity of all layers in the order in which they are run.

    Encoder and decoder in their colours, input, latent and output as diamonds; of many pairs the mean with its
    standard deviation.
    """
    order, parts = found["order"].values, found["part"].values.astype(str)
    others = ~np.isin(parts, list(PART_COLORS))
    groups = [(parts == part, color, part, "o-") for part, color in PART_COLORS.items()]
    groups += [(others, OTHER_COLOR, "input, latent, output", "D")] if others.any() else []
    with journal():
        figure = new_figure(WIDTH, 3.85)
        both = figure.subplots(2, 1, sharex=True)
        for axes, name, words in zip(both, ("relative_l2", "cosine"), (RELATIVE, "cosine similarity"), strict=True):
            values, spread = _numbers(found, name)
            for here, color, label, mark in groups:
                error = None if spread is None else spread[here]
                axes.errorbar(order[here], values[here], error, fmt=mark, ms=3, lw=0.9, color=color, label=label)
            axes.set_ylabel(words)
            axes.grid(alpha=0.25, lw=0.4)
        both[0].set_ylim(0, None)
        both[1].set_xlabel("layer, in order of execution")
        both[1].xaxis.get_major_locator().set_params(integer=True)
        figure.legend(*both[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, borderpad=0)
        figure.suptitle(f"{found.sizes[LAYER]} layers{_how_many(found)}", x=0.01, ha="left")
    return figure


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
    shown = [*_ends(found), *maps]
    size, _ = _numbers(found, "rms_a")
    relative = []
    for name in shown:
        at = int(name.removeprefix(f"{MAP}_"))
        relative.append(_middle(found[name].values) / (size[at] or 1.0))
    limits = (0.0, robust_limits(np.concatenate([one.ravel() for one in relative]), (0.0, 99.5))[1])
    samples = _samples(found)
    height, width = max((one.shape for one in [image for _, image, _ in samples] or relative), key=np.prod)[:2]
    count = len(samples) + len(shown)
    columns = min(COLUMNS, count)
    with journal():
        side = (WIDTH - 0.55) / columns
        rows = math.ceil(count / columns)
        figure = new_figure(WIDTH, rows * (side * min(height / width, 2.0) + 0.33) + 0.3)
        axes = panels(figure, count, columns)
        for ax, (name, image, limits_of_pair) in zip(axes, samples, strict=False):
            show_picture(ax, image, limits_of_pair)
            ax.set_title(name, fontsize=SMALL, pad=2)
        for ax, name, image in zip(axes[len(samples) :], shown, relative, strict=True):
            mesh = ax.imshow(image, cmap=SEQUENTIAL, vmin=limits[0], vmax=limits[1], extent=(0, width, height, 0))
            where = f"{image.shape[0]} x {image.shape[1]}"
            kind = found[name].attrs["kind"]
            label = _ending(found[name].attrs[LAYER])
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{label}\n{where}" if kind == label else f"{label}\n{kind}, {where}", fontsize=SMALL, pad=2)
        bar = figure.colorbar(mesh, ax=axes, fraction=0.015, pad=0.01, extend="max")
        bar.set_label("RMS difference / RMS of a")
        heading = "differences by position"
        if PAIR in found.dims:
            heading += f", root mean square over {found.sizes[PAIR]} pairs"
        figure.suptitle(heading + (", middle slice" if found[maps[0]].ndim == 3 else ""))
    return figure


def _ending(name: str) -> str:
    """A layer's name with its start and end, which tells layers of one block apart."""
    whole = text(name)
    return whole if len(whole) <= MAP_LETTERS else f"{whole[:3]}…{whole[4 - MAP_LETTERS :]}"


def _ends(found: xr.Dataset) -> list[str]:
    """The maps of input and output, where they were kept."""
    kept = set(found.attrs["maps"])
    return [str(name) for name in found.data_vars if str(name).startswith(f"{MAP}_") and name not in kept]


def _middle(values: np.ndarray) -> np.ndarray:
    """A map as a picture: of a volume its middle slice, of a line one row."""
    values = values[len(values) // 2] if values.ndim == 3 else values
    return values[None] if values.ndim == 1 else values


def _samples(found: xr.Dataset) -> list[tuple[str, np.ndarray, tuple[float, float]]]:
    """The two samples and their reconstructions as pictures, a pair on one scale."""
    out = []
    for name, words in (("input", "as seen"), ("decoded", "decoded")):
        if f"{name}_a" not in found:
            continue
        pair = [pictures(found[f"{name}_{which}"].expand_dims("pair_member"))[0] for which in "ab"]
        limits = robust_limits(np.stack(pair), (0.5, 99.5))
        out += [(f"{which}, {words}", image, limits) for which, image in zip("ab", pair, strict=True)]
    return out
