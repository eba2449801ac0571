"""A network as a picture: what goes in, the encoder's stages, the latent, the decoder's stages, what comes out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from vaearr.models.card import N_PARAMETERS, check_card, ratio_words, sizes_of
from vaearr.models.hooks import BLOCK, DECODER, ENCODER
from vaearr.views.common import brief, text
from vaearr.views.kinds import builder
from vaearr.views.layers import OTHER_COLOR, PART_COLORS
from vaearr.views.paper import SMALL, WIDTH, journal, new_figure

LINE = 0.3  # inches of a stage
TIMES = "×"


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
    """The network of a model card from the input at the top to the output, a bar for each stage.

    A stage is what is run at one resolution; the bar is as wide as its feature maps have rows. To the left the layers
    of the stage, to the right channels, positions and parameters. Raises SchemaError for a Dataset that is no model
    card.
    """
    found = stages(card)
    rows = np.array([stage.sizes[0] if stage.sizes else 1 for stage in found], dtype=float)
    width = np.maximum(rows / rows.max(), 0.02)
    place = np.arange(len(found))
    with journal():
        figure = new_figure(WIDTH, LINE * len(found) + 0.7)
        axes = figure.subplots()
        colors = [PART_COLORS.get(stage.part, OTHER_COLOR) for stage in found]
        axes.barh(place, width, left=-width / 2, height=0.62, color=colors, zorder=2)
        axes.plot([0, 0], [0, len(found) - 1], color="#555555", lw=0.8, zorder=1)
        axes.set_yticks(place, [brief(_layers(stage), 52) for stage in found], fontsize=SMALL)
        axes.set(xlim=(-0.55, 0.55), ylim=(len(found) - 0.5, -0.5), xticks=[])
        right = axes.secondary_yaxis("right")
        right.set_yticks(place, [_sizes(stage) for stage in found], fontsize=SMALL)
        for one in (axes, right):
            one.tick_params(length=0)
            one.spines[:].set_visible(False)
        figure.suptitle(_heading(card), fontsize=9)
    return figure


def _layers(stage: Stage) -> str:
    return f"{stage.part}: {text(stage.contents)}" if stage.contents else stage.part


def _sizes(stage: Stage) -> str:
    """Channels, positions and parameters of a stage."""
    sizes = f" {TIMES} ".join(str(size) for size in (max(stage.channels, default=1), *stage.sizes))
    return f"{sizes}, {stage.n_parameters:,} parameters" if stage.n_parameters else sizes


def _heading(card: xr.Dataset) -> str:
    a = card.attrs
    parts = [f"{a[f'{N_PARAMETERS}_{part}']:,} in the {part}" for part in PART_COLORS]
    parts += [f"{a[f'{N_PARAMETERS}_heads']:,} in heads"] if a[f"{N_PARAMETERS}_heads"] else []
    return (
        f"{text(a['network'])}: {a[N_PARAMETERS]:,} parameters ({a['weights_MB']:.3g} MB; {', '.join(parts)}),\n"
        f"{ratio_words(a['compression'])} input values per latent value; bars: rows of the feature maps"
    )
