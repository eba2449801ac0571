"""What lies below the pictures, one view at a time: sliders, samples, channels, traversal, manifold, association.

A view is built when it is first opened. `fresh` is called when it is opened and when something else is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import panel as pn
import xarray as xr

from vaearr import schema
from vaearr.app import decoding, fields, samples
from vaearr.app.figures import GREY_LIMITS, Picture
from vaearr.app.sliders import Sliders
from vaearr.app.state import QUICK, State, as_pictures, is_turned
from vaearr.plots.common import NAN_COLOR, number, robust_limits

WIDE, HIGH = 830, 345  # pixels that a view may take
COLUMNS = 6
STEPS, FEW_STEPS = 9, 5  # of a sheet; few where decoding is slow, since the page waits meanwhile
MOST_ROWS = 5  # dimensions in a traversal sheet
MOST_CHANNELS = 32


class Page(Protocol):
    """What a view knows of the page."""

    state: State
    sample: Any
    chosen: np.ndarray
    depth: float
    sliders: Sliders

    def pane(self, figure: Any) -> Any: ...
    def safe(self, call: Callable[..., None]) -> Callable[..., None]: ...
    def tell(self, words: str) -> None: ...
    def choose(self, indices: np.ndarray) -> None: ...
    def go_to(self, vector: np.ndarray, base: np.ndarray | None) -> None: ...
    def show_dimension(self, dim: int) -> None: ...
    def slice_of(self, da: xr.DataArray) -> xr.DataArray: ...


class SlidersTab:
    """A slider for each dimension."""

    needs_model = False

    def __init__(self, page: Page) -> None:
        self.page = page
        back = fields.Button(label="Back to the sample", width=150)
        back.on_click(page.safe(lambda _: page.choose(page.chosen)))
        mean = fields.Button(label="Mean of all samples", width=150)
        mean.on_click(page.safe(lambda _: page.go_to(page.state.mean, None)))
        words = pn.pane.HTML(
            "knob: what is decoded; line: the chosen sample; band: mean ± 1 std over the store; a number shows its map",
            width=480,
        )
        row = [words] if not page.state.has_model else [back, mean, words]
        self.layout: Any = pn.Column(pn.Row(*row), page.sliders, sizing_mode="stretch_width")

    def fresh(self) -> None:
        """The sliders follow by themselves."""


class SamplesTab:
    """Some samples of the region, or those most alike the one chosen: as the network sees them and rebuilt."""

    needs_model = False

    def __init__(self, page: Page) -> None:
        self.page = page
        self.words = pn.pane.HTML("", height=18, margin=(2, 10))
        height, width = picture_shape(page.state)
        rows = 2 if page.state.has_model else 1
        side = min(WIDE / COLUMNS / width, (HIGH - 10) / (2 * rows) / height)
        size = int(side * width * COLUMNS), int(side * height * rows)
        self.sheets = [Picture("", *size, name=f"samples {i}", axes=True) for i in range(2)]
        for sheet in self.sheets:
            sheet.figure.title.visible = False
        self.layout = pn.Column(self.words, *(page.pane(sheet.figure) for sheet in self.sheets))

    def fresh(self) -> None:
        """Draw the sheet of what is chosen."""
        state, chosen = self.page.state, self.page.chosen
        if len(chosen) > 1:
            some = samples.some_of(state, chosen)
            self.words.object = f"{len(some)} of the {len(chosen):,} chosen, evenly spread"
        else:
            latents = state.latents[chosen[0]]
            known = np.isfinite(latents).all()
            some = samples.some_of(state, samples.alike(state, latents)) if known else chosen[:0]
            self.words.object = f"the {len(some)} samples nearest in the latent space, the chosen one first"
        indices = [int(i) for i in some]
        if not indices:
            self.words.object = "no chosen sample has latents and a pattern"
            for sheet in self.sheets:
                sheet.clear()
            return
        if state.is_ready:
            rows = ["input", "rebuilt"]
            found = [self._pictures(call(state, indices)) for call in (decoding.seen, decoding.rebuilt)]
        else:
            rows = ["stored"]
            found = [
                np.concatenate([self._pictures(one) for i in indices if (one := samples.stored(state, i)) is not None])
            ]
        limits = robust_limits(np.stack(found), GREY_LIMITS)
        for at, sheet in enumerate(self.sheets):
            part = slice(at * COLUMNS, (at + 1) * COLUMNS)
            words = [samples.brief_place(state, i) for i in indices[part]]
            sheet.figure.visible = bool(words)
            if words:
                padded = [_filled(images[part]) for images in found]
                sheet.show_sheet(np.stack(padded), words + [""] * (COLUMNS - len(words)), rows, limits)

    def _pictures(self, da: Any) -> np.ndarray:
        return as_pictures(da, self.page.depth)


def _filled(images: np.ndarray) -> np.ndarray:
    """As many pictures as there are columns, empty ones at the end."""
    empty = np.full((COLUMNS - len(images), *images.shape[1:]), np.nan, np.float32)
    return np.concatenate([images, empty])


class ChannelsTab:
    """The channels of a spatial latent, as pictures."""

    needs_model = False

    def __init__(self, page: Page) -> None:
        from bokeh.palettes import RdBu11  # from blue to red

        self.page = page
        self.words = pn.pane.HTML("", height=18, margin=(2, 10))
        count = min(page.state.dims, MOST_CHANNELS)
        height, width = _of_channels(page).shape[1:]
        across = max(range(1, count + 1), key=lambda k: min(WIDE / k / width, HIGH / -(-count // k) / height))
        self.shape = -(-count // across), across
        side = min(WIDE / across / width, HIGH / self.shape[0] / height, 180 / height)
        size = int(side * width * across), int(side * height * self.shape[0])
        self.sheet = Picture("", *size, name="channels", axes=True, colors=list(RdBu11), missing=NAN_COLOR)
        self.sheet.figure.title.visible = False
        self.sheet.figure.yaxis.visible = self.shape[0] > 1
        self.layout = pn.Column(self.words, page.pane(self.sheet.figure))

    def fresh(self) -> None:
        """Draw the channels of what is chosen."""
        channels = _of_channels(self.page)
        rows, across = self.shape
        shown = min(len(channels), rows * across)
        empty = np.full((rows * across - shown, *channels.shape[1:]), np.inf, np.float32)
        grid = np.concatenate([channels[:shown], empty]).reshape(rows, across, *channels.shape[1:])
        half = float(np.nanmax(np.abs(channels))) if np.isfinite(channels).any() else 1.0
        half = half or 1.0
        first = [str(row * across) for row in range(rows)]
        columns = [f"latent {i}" if rows == 1 else f"+{i}" for i in range(across)]
        self.sheet.show_sheet(grid, columns, first, (-half, half * 1.001))
        more = f" (the first {shown} of {len(channels)})" if shown < len(channels) else ""
        grey = "" if np.isfinite(channels).all() else "; grey: left out by a mask"
        self.words.object = f"latents at each position{more}: blue −{half:.3g}, white 0, red +{half:.3g}{grey}"


def _of_channels(page: Page) -> np.ndarray:
    """Channels `(L, H, W)` of the chosen sample's latents; of a volume the slice that is shown."""
    base = page.sample.base
    if base.ndim == 4:
        base = base[:, round(page.depth * (base.shape[1] - 1))]
        base = base[:, ::-1] if is_turned(page.state) else base  # turned as the pictures are
    return np.asarray(base.reshape(len(base), -1, base.shape[-1]), np.float32)


class TraversalTab:
    """One dimension of each row moved, about what the sliders show."""

    needs_model = True

    def __init__(self, page: Page) -> None:
        self.page = page
        state = page.state
        dims, widest = list(range(state.dims)), widest_of(state)
        self.rows = fields.MultiChoice(
            label=f"Dimensions (at most {MOST_ROWS})",
            options=dims,
            value=widest[:3],
            max_items=MOST_ROWS,
            width=420,
        )
        self.reach, draw = drawing(page, self.draw, align="end")
        height, width = picture_shape(state)
        side = min(720 / STEPS / width, 60 / height)
        self.tile = int(side * width), int(side * height)
        self.sheet = Picture("", self.tile[0] * STEPS, self.tile[1] * 3, name="traversal", axes=True)
        self.sheet.figure.xaxis.axis_label = "offset in standard deviations of the aggregate posterior"
        self.sheet.figure.yaxis.axis_label = "latent dimension"
        self.layout = pn.Column(pn.Row(self.rows, self.reach, draw), page.pane(self.sheet.figure))

    def fresh(self) -> None:
        """Draw when opened and when something else is chosen."""
        self.draw()

    def draw(self) -> None:
        """Draw the sheet: a row for each chosen dimension."""
        page, dims = self.page, sorted(self.rows.value)
        if not dims:
            page.tell("choose one dimension or more")
            return
        steps = steps_of(page.state)
        found = decoding.traversal(
            page.state, page.sliders.vector, dims, steps=steps, reach=self.reach.value, base=base_of(page)
        )
        images = as_pictures(found.decoded, page.depth)
        self.sheet.width, self.sheet.height = self.tile[0] * steps, self.tile[1] * len(dims)
        self.sheet.figure.update(frame_width=self.sheet.width, frame_height=self.sheet.height)
        columns = [f"{v:+.3g}".replace("-", "−") if v else "0" for v in found.offsets]
        self.sheet.show_sheet(images.reshape(len(dims), steps, *images.shape[1:]), columns, [str(d) for d in dims])


class ManifoldTab:
    """The plane of two dimensions, about what the sliders show."""

    needs_model = True

    def __init__(self, page: Page) -> None:
        self.page = page
        state = page.state
        dims, widest = list(range(state.dims)), widest_of(state)
        self.across = fields.Select(label="Across", options=dims, value=widest[0], width=90)
        self.up = fields.Select(label="Up", options=dims, value=widest[min(1, len(widest) - 1)], width=90)
        self.reach, draw = drawing(page, self.draw)
        height, width = picture_shape(state)
        side = min(560 / STEPS / width, HIGH / STEPS / height)
        self.sheet = Picture("", int(side * width * STEPS), int(side * height * STEPS), name="manifold", axes=True)
        self.sheet.figure.title.visible = False
        self.layout = pn.Row(page.pane(self.sheet.figure), pn.Column(pn.Row(self.across, self.up), self.reach, draw))

    def fresh(self) -> None:
        """Draw when opened and when something else is chosen."""
        self.draw()

    def draw(self) -> None:
        """Draw the plane."""
        page, across, up = self.page, self.across.value, self.up.value
        steps = steps_of(page.state)
        found = decoding.plane(
            page.state, page.sliders.vector, across, up, steps=steps, reach=self.reach.value, base=base_of(page)
        )
        images = as_pictures(found.decoded, page.depth)
        images = images.reshape(steps, steps, *images.shape[1:])[::-1]
        self.sheet.show_sheet(images, numbers(found.across), numbers(found.up[::-1]))
        self.sheet.figure.xaxis.axis_label, self.sheet.figure.yaxis.axis_label = f"latent {across}", f"latent {up}"


def drawing(page: Page, draw: Callable[[], None], **place: Any) -> tuple[Any, Any]:
    """How far a sheet reaches, and the button that draws it."""
    button = fields.Button(label="Draw about the sliders", width=170, **place)
    button.on_click(page.safe(lambda _: draw()))
    return fields.FloatInput(label="Reach (std)", value=3.0, start=0.1, end=20, step=0.5, width=95), button


def numbers(values: np.ndarray) -> list[str]:
    """Values as ticks."""
    return [number(float(v)) for v in values]


def base_of(page: Page) -> np.ndarray | None:
    """The spatial latents that vectors are laid over: of the chosen sample where it has any."""
    sample = page.sample
    return None if sample is None or not np.isfinite(sample.latents).all() else sample.base


def steps_of(state: State) -> int:
    """Pictures along a side of a sheet."""
    return STEPS if state.seconds < QUICK else FEW_STEPS


def widest_of(state: State) -> list[int]:
    """Dimensions that vary most, first."""
    return [int(i) for i in np.argsort(-state.spread, kind="stable")]


def picture_shape(state: State) -> tuple[int, int]:
    """Height and width of a picture."""
    dims = schema.signal_dims(state.ds)[-2:]
    return state.ds.sizes[dims[0]], state.ds.sizes[dims[1]]
