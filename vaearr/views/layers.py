"""Layer-wise comparisons on paper: the layers that differ most, all layers in order, where the differences lie."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr.analysis.layers import top_layers
from vaearr.analysis.layers.compare import DECODER, ENCODER, LAYER, MAP, PAIR, TOP
from vaearr.errors import NoInputError, SchemaError
from vaearr.views.common import COLORS, SEQUENTIAL, brief, robust_limits, text
from vaearr.views.kinds import builder
from vaearr.views.paper import SMALL, WIDTH, journal, new_figure, panels
from vaearr.views.pictures import pictures

PART_COLORS = {ENCODER: COLORS[0], DECODER: COLORS[1]}
OTHER_COLOR = "#6e6e6e"  # input, latent and output, which are no layers
RELATIVE = "relative L2 difference"
COLUMNS = 4
LETTERS = 34  # of a layer's name beside a bar
MAP_LETTERS = 26  # and above a map
LEVEL = 0.05


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
    parts, names, kinds = (found[name].values[chosen] for name in ("part", LAYER, "kind"))
    with journal():
        from matplotlib.patches import Patch

        figure = new_figure(WIDTH * 0.72, 0.21 * len(chosen) + 0.85)
        axes = figure.subplots()
        error = None if spread is None or not np.isfinite(spread[chosen]).all() else spread[chosen]
        axes.barh(
            np.arange(len(chosen)), values[chosen], xerr=error, height=0.72,
            color=[PART_COLORS[str(part)] for part in parts], error_kw={"lw": 0.8, "capsize": 2},
        )  # fmt: skip
        labels = [f"{brief(name, LETTERS)}  ({kind})" for name, kind in zip(names, kinds, strict=True)]
        axes.set_yticks(np.arange(len(chosen)), labels=labels, fontsize=SMALL)
        axes.invert_yaxis()
        axes.set(xlabel=f"{RELATIVE}{_how_many(found)}", xlim=(0, None))
        _grid(axes)
        shown = [part for part in PART_COLORS if part in parts]
        handles = [Patch(color=PART_COLORS[part], label=part) for part in shown]
        figure.legend(handles=handles, loc="outside upper right", ncols=2, borderpad=0)
    return figure


def _grid(axes: Any) -> None:
    axes.grid(alpha=0.25, lw=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


@builder("layers", LAYER, "relative_l2")
def layer_curves(found: xr.Dataset) -> Any:
    """Relative L2 difference and cosine similarity of all layers in the order in which they are run.

    Encoder and decoder in their colours, input, latent and output as diamonds; of many pairs the mean with a band of
    one standard deviation, and as a third panel the change of each layer's RMS (mean over pairs, relative to a), with
    circles where the p-value of the paired t-test, adjusted over layers, is below 0.05.
    """
    panels_of = [("relative_l2", RELATIVE), ("cosine", "cosine similarity")]
    is_many = PAIR in found.dims
    with journal():
        figure = new_figure(WIDTH, 1.75 * (2 + is_many) + 0.35)
        all_axes = figure.subplots(2 + is_many, 1, sharex=True)
        for axes, (name, words) in zip(all_axes, panels_of, strict=False):
            values, spread = _numbers(found, name)
            low_high = None if spread is None else (values - spread, values + spread)
            _curve(axes, found, values, low_high, zero=name == "relative_l2", most=1.0 if name == "cosine" else None)
            axes.set_ylabel(words)
        if is_many:
            _changes(all_axes[-1], found)
        all_axes[-1].set_xlabel("layer, in order of execution")
        all_axes[-1].xaxis.get_major_locator().set_params(integer=True)
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3, borderpad=0)
        heading = f"{found.sizes[LAYER]} layers{_how_many(found)}"
        figure.suptitle(heading, x=0.01, ha="left")
    return figure


def _curve(
    axes: Any,
    found: xr.Dataset,
    values: np.ndarray,
    low_high: tuple[np.ndarray, np.ndarray] | None,
    *,
    zero: bool,
    most: float | None,
) -> None:
    order, parts = found["order"].values, found["part"].values.astype(str)
    for part, color in PART_COLORS.items():
        here = parts == part
        if here.any():
            axes.plot(order[here], values[here], "o-", ms=2.4, lw=0.9, color=color, label=part)
            if low_high is not None:
                low, high = low_high
                low = np.maximum(low, 0.0) if zero else low
                high = high if most is None else np.minimum(high, most)
                axes.fill_between(order[here], low[here], high[here], color=color, alpha=0.2, lw=0)
    others = ~np.isin(parts, list(PART_COLORS))
    if others.any():
        axes.plot(order[others], values[others], "D", ms=4, color=OTHER_COLOR, label="input, latent, output")
        for place in order[others]:
            axes.axvline(place, color=OTHER_COLOR, lw=0.5, alpha=0.5)
    if zero:
        axes.set_ylim(0, None)
    axes.set_xlim(order[0] - 0.8, order[-1] + 0.8)
    _grid(axes)


def _changes(axes: Any, found: xr.Dataset) -> None:
    size = found["rms_a_mean"].values
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, std = (
            np.where(size > 0, 100 * found[name].values / size, np.nan)
            for name in ("rms_change_mean", "rms_change_std")
        )
    _curve(axes, found, mean, (mean - std, mean + std), zero=False, most=None)
    axes.axhline(0, color="black", lw=0.6)
    with np.errstate(invalid="ignore"):
        clear = found["t_p_adjusted"].values < LEVEL
    axes.plot(found["order"].values[clear], mean[clear], "o", ms=6, mfc="none", mec="black", mew=0.8)
    axes.set_ylabel("change of RMS, b − a (%)")
    words = f"circles: p of the paired t-test, Holm over layers, < {LEVEL:g} ({int(clear.sum())} layers)"
    axes.set_title(words, loc="right", fontsize=SMALL, pad=3)


@builder("layer_maps")
def difference_sheet(found: xr.Dataset, *, columns: int = COLUMNS) -> Any:
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
    height, width = samples[0][1].shape[:2] if samples else _frame(found, shown, relative)
    count = len(samples) + len(shown)
    columns = min(columns, count)
    with journal():
        side = (WIDTH - 0.55) / columns
        rows = math.ceil(count / columns)
        figure = new_figure(WIDTH, rows * (side * min(height / width, 2.0) + 0.33) + 0.3)
        axes = panels(figure, count, columns)
        for ax, (name, image, (low, high)) in zip(axes, samples, strict=False):
            image = np.clip((image - low) / (high - low), 0, 1) if image.ndim == 3 else image
            ax.imshow(image, cmap="gray", vmin=low, vmax=high, extent=(0, width, height, 0))
            _frame_panel(ax, name)
        for ax, name, image in zip(axes[len(samples) :], shown, relative, strict=True):
            mesh = ax.imshow(image, cmap=SEQUENTIAL, vmin=limits[0], vmax=limits[1], extent=(0, width, height, 0))
            where = f"{image.shape[0]} x {image.shape[1]}"
            kind = found[name].attrs["kind"]
            label = _ending(found[name].attrs[LAYER])
            _frame_panel(ax, f"{label}\n{where}" if kind == label else f"{label}\n{kind}, {where}")
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


def _frame(found: xr.Dataset, shown: list[str], relative: list[np.ndarray]) -> tuple[int, int]:
    sides = max((one.shape for one in relative), key=lambda shape: shape[0] * shape[1])
    return int(sides[0]), int(sides[1])


def _frame_panel(axes: Any, heading: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.set_title(heading, fontsize=SMALL, pad=2)


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
