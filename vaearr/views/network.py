"""A network as a picture: what goes in, the encoder's stages, the latent, the decoder's stages, what comes out."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from vaearr.models.card import N_PARAMETERS, check_card, ratio_words, sizes_of
from vaearr.models.hooks import BLOCK, DECODER, ENCODER, INPUT, LATENT, OUTPUT
from vaearr.views.common import COLORS, text
from vaearr.views.kinds import builder
from vaearr.views.layers import OTHER_COLOR, PART_COLORS
from vaearr.views.paper import SMALL, WIDTH, journal, new_figure

LATENT_COLOR = COLORS[2]
MARGIN, NAMES = 0.08, 0.56  # inches: around the picture, and for the words in front of the numbers
HIGHEST, LEAST = 1.5, 0.06  # inches: of boxes
WIDEST_COLUMN = 0.66
LINE = 0.135  # inches from line to line
LETTER = 0.056  # inches: width of a letter of 7 pt, for the places where lines are broken
TIMES = "×"
GREY = "#444444"
SCALE_WORDS = "Height of a box: rows of the feature maps, to scale. Width: logarithm of the most channels."


@dataclass
class Stage:
    """Layers that follow one another at one resolution: `sizes` are their positions, none for vectors."""

    part: str
    sizes: tuple[int, ...]
    channels: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    n_parameters: int = 0

    @property
    def contents(self) -> str:
        """The kinds of blocks and layers, in order of their first, with their numbers."""
        counted = Counter(self.kinds)
        return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in counted.items())


def stages(card: xr.Dataset) -> list[Stage]:
    """The blocks of a model card, joined where one after the other has the same resolution and part of the network.

    A block whose output is neither a vector nor a grid of the network's dims belongs to the stage before. Raises
    SchemaError for a Dataset that is no model card.
    """
    check_card(card)
    n_dims = len(card.attrs["input_shape"])
    found: list[Stage] = []
    before = ("", "")
    for i, name in enumerate(card[BLOCK].values.astype(str)):
        part = str(card["part"].values[i])
        shape = sizes_of(card["block_shape"].values[i])
        fits = len(shape) in (1, n_dims)
        if not found or found[-1].part != part or (fits and found[-1].sizes != shape[1:]):
            found.append(Stage(part, shape[1:]))
        stage = found[-1]
        stage.n_parameters += int(card[N_PARAMETERS].values[i])
        if fits:
            stage.channels.append(shape[0])
        if part in (ENCODER, DECODER) and (part, name) != before:
            stage.kinds.append(str(card["block_kind"].values[i]))
        before = (part, name)
    return found


@builder("network", BLOCK, "block_kind")
def model_figure(card: xr.Dataset) -> Any:
    """The network of a model card as boxes from the input through the latent to the output, one for each stage.

    A stage is what is run at one resolution. Height: rows of the feature maps (of volumes: the first side, and a shade
    for the depth); width: the logarithm of the most channels of the stage. Below are the sizes in numbers, then the
    layers of each stage with their parameters. Raises SchemaError for a Dataset that is no model card.
    """
    found = stages(card)
    column = min((WIDTH - 2 * MARGIN - NAMES) / len(found), WIDEST_COLUMN)
    lines = [_listing(found, part) for part in (ENCODER, DECODER)]
    n_sizes = max(words.count("\n") for words in _size_words(found, column)) + 1
    below = LINE * (n_sizes + 2.6)
    listed = LINE * (max(len(some) for some in lines) + 1.4)
    height = 0.42 + 0.34 + HIGHEST + 0.12 + below + listed
    with journal():
        figure = new_figure(WIDTH, height)
        figure.set_layout_engine("none")  # all places are in inches
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDTH), ylim=(0, height))
        axes.axis("off")
        axes.text(MARGIN, height - MARGIN, _heading(card), fontsize=9, va="top")
        axes.text(MARGIN, height - MARGIN - 0.19, SCALE_WORDS, fontsize=SMALL, va="top", color=GREY)
        start = MARGIN + NAMES + (WIDTH - 2 * MARGIN - NAMES - column * len(found)) / 2
        centres = start + column * (np.arange(len(found)) + 0.5)
        middle = below + listed + 0.1 + HIGHEST / 2
        _boxes(axes, found, centres, column, middle)
        _braces(axes, found, centres, column, middle + HIGHEST / 2 + 0.13, card)
        _numbers(axes, found, centres, column, below + listed)
        for some, left in zip(lines, (MARGIN, WIDTH / 2 + 0.06), strict=True):
            for i, (number, words) in enumerate(some):
                y = listed - LINE * (i + 0.9)
                axes.text(left + 0.14, y, number, fontsize=SMALL, ha="right", va="center", weight="bold")
                axes.text(left + 0.2, y, words, fontsize=SMALL, va="center")
    return figure


def _heading(card: xr.Dataset) -> str:
    a = card.attrs
    words = f"{text(a['network'])}: {a[N_PARAMETERS]:,} parameters ({a['weights_MB']:.3g} MB), "
    if a[f"{N_PARAMETERS}_heads"]:
        words += f"{a[f'{N_PARAMETERS}_heads']:,} of them in heads, "
    return words + f"{ratio_words(a['compression'])} input values per latent value"


def _boxes(axes: Any, found: list[Stage], centres: np.ndarray, column: float, middle: float) -> None:
    from matplotlib.patches import Polygon, Rectangle

    rows = max(stage.sizes[0] if stage.sizes else 1 for stage in found)
    most = math.log2(max(max(stage.channels, default=1) for stage in found) + 1)
    is_volume = max(len(stage.sizes) for stage in found) > 2
    right = None
    for stage, centre in zip(found, centres, strict=True):
        color = PART_COLORS.get(stage.part, LATENT_COLOR if stage.part == LATENT else OTHER_COLOR)
        side = max(LEAST, HIGHEST * (stage.sizes[0] if stage.sizes else 1) / rows)
        share = math.log2(max(stage.channels, default=1) + 1) / most
        width = max(LEAST, (0.5 if is_volume else 0.66) * column * share)
        shade = min(0.18 * column, 0.25 * side) if is_volume and stage.sizes else 0.0
        side -= shade
        left, low = centre - (width + shade) / 2, middle - (side + shade) / 2
        if right is not None:
            axes.annotate(
                "", (left, middle), (right, middle),
                arrowprops={"arrowstyle": "-|>,head_width=0.12,head_length=0.22", "lw": 0.6, "color": "#555555",
                            "shrinkA": 0, "shrinkB": 0},
            )  # fmt: skip
        style: dict[str, Any] = {"facecolor": _light(color), "edgecolor": color, "linewidth": 0.8}
        axes.add_patch(Rectangle((left, low), width, side, **style))
        if shade:
            x, top = (left, left + width), low + side
            upper = [(x[0], top), (x[0] + shade, top + shade), (x[1] + shade, top + shade), (x[1], top)]
            beside = [(x[1], low), (x[1], top), (x[1] + shade, top + shade), (x[1] + shade, low + shade)]
            axes.add_patch(Polygon(upper, **{**style, "facecolor": _light(color, 0.6)}))
            axes.add_patch(Polygon(beside, **{**style, "facecolor": _light(color, 0.45)}))
        right = left + width + shade


def _light(color: str, white: float = 0.75) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(white + (1 - white) * value for value in to_rgb(color))


def _braces(axes: Any, found: list[Stage], centres: np.ndarray, column: float, y: float, card: xr.Dataset) -> None:
    """A line over the stages of each part, with its name and parameters."""
    for part, color in PART_COLORS.items():
        places = [centre for stage, centre in zip(found, centres, strict=True) if stage.part == part]
        if not places:
            continue
        ends = places[0] - 0.42 * column, places[-1] + 0.42 * column
        axes.plot(ends, (y, y), color=color, lw=1.2, solid_capstyle="butt")
        words = f"{part}, {_many(card.attrs[f'{N_PARAMETERS}_{part}'])} parameters"
        words = words if len(words) * LETTER * 1.1 < max(ends[1] - ends[0], 0.9) else part
        axes.text(sum(ends) / 2, y + 0.05, words, fontsize=8, ha="center", va="bottom", color="#222222")


def _many(count: int) -> str:
    """A count in three digits: 437,847 is 438 k."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {letter}"
    return str(count)


def _size_words(found: list[Stage], column: float) -> list[str]:
    """The positions of each stage in as few lines as fit into the column, all broken alike."""
    sizes = [[str(size) for size in stage.sizes] or ["1"] for stage in found]
    for between in (f" {TIMES} ", f" {TIMES}\n", "\n"):
        words = [between.join(some) for some in sizes]
        if max(len(line) for some in words for line in some.split("\n")) * LETTER < column - 0.04:
            break
    return words


def _numbers(axes: Any, found: list[Stage], centres: np.ndarray, column: float, top: float) -> None:
    """Number, channels and positions of each stage, in lines below its box."""
    heights = (top - 0.6 * LINE, top - 1.6 * LINE, top - 2.15 * LINE)
    for words, y, side in zip(("stage", "channels", "positions"), heights, ("center", "center", "top"), strict=True):
        axes.text(MARGIN, y, words, fontsize=SMALL, va=side, color=GREY)
    n_parts = 0
    for stage, centre, positions in zip(found, centres, _size_words(found, column), strict=True):
        is_part = stage.part in PART_COLORS
        n_parts += is_part
        words = str(n_parts) if is_part else {INPUT: "in", LATENT: "latent", OUTPUT: "out"}[stage.part]
        words = "z" if words == "latent" and column < 0.42 else words
        axes.text(centre, heights[0], words, fontsize=SMALL, ha="center", va="center", weight="bold")
        axes.text(centre, heights[1], str(max(stage.channels, default="")), fontsize=SMALL, ha="center", va="center")
        axes.text(centre, heights[2], positions, fontsize=SMALL, ha="center", va="top", linespacing=1.1)


def _listing(found: list[Stage], part: str) -> list[tuple[str, str]]:
    """Number and words of each line that lists the stages of a part."""
    lines: list[tuple[str, str]] = []
    own = [stage for stage in found if stage.part in PART_COLORS]
    for number, stage in enumerate(own, 1):
        if stage.part != part:
            continue
        count = f"; {stage.n_parameters:,} parameters" if stage.n_parameters else ""
        wrapped = textwrap.wrap(text(stage.contents + count), int((WIDTH / 2 - 0.3) / LETTER)) or [""]
        lines += [(str(number) if i == 0 else "", words) for i, words in enumerate(wrapped)]
    return lines
