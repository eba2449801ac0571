"""The explorer's page for one visitor: a map and a scatter to choose from, the chosen sample, and views of it."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np
import panel as pn
import param
import xarray as xr
from bokeh.models import FixedTicker
from panel.io import hold

from vaearr import names as n
from vaearr.app.state import (
    GREY,
    MAX_PICTURES,
    NO_MODEL,
    State,
    as_pictures,
    coarse,
    coloured,
    png,
    thinned,
)
from vaearr.errors import UsageError, VaearrError
from vaearr.schema.grid import edges
from vaearr.views import common as c
from vaearr.views import on_paper, view
from vaearr.views import page as paper
from vaearr.views.common import holoviews, robust_limits, text
from vaearr.views.maps import map_plot

MARK = "#e5007e"  # colour of the selection
MAX_SLIDERS = 32
MAX_POINTS = 10_000  # of the scatter
MAX_MARKS = 5000  # of a selection
MAX_DIMS = 5  # of one traversal
STEPS, DPI = 7, 110  # pictures of each dimension of a traversal, and its resolution
SIDE = 205  # pixels of a picture
VIEW = (620, 385)  # pixels that a view below the pictures may take, width and height
MAP, SCATTER, SCATTER_ALONE = (312, 240), (312, 160), (312, 450)
HEADINGS = {
    "stored": "as stored",
    "seen": "as the network sees it",
    "rebuilt": "reconstruction",
    "live": "from the sliders",
}
CHANGED = "the store has changed since this page was loaded: load it again"
BOKEH: dict[str, Any] = {"backend": "bokeh"}
TOOLS: dict[str, Any] = {
    "tools": ["hover", "box_select"],
    "default_tools": ["pan", "wheel_zoom", "reset", "save"],
    "active_tools": ["box_select"],
    "toolbar": "above",
    **BOKEH,
}
SMALL: dict[str, Any] = {
    "fontsize": {"title": "13px", "labels": "12px", "ticks": "11px"},
    "clabel": "",
    "colorbar_opts": {"width": 10, "padding": 4},
    **BOKEH,
}

log = logging.getLogger("vaearr")


class Slider(pn.widgets.FloatSlider):
    """A slider that reports its moves at once, so that the decoded picture follows."""

    _debounce = 2  # milliseconds


class Explorer(param.Parameterized):
    """The page of one visitor: `left` to choose samples from, `right` shows the chosen ones."""

    selected = param.Parameter(doc="numbers of the selected samples; marks and views follow")

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state
        self.problem = "the network is being loaded …" if state.has_model else NO_MODEL
        self.number = 0  # of the sample that is shown
        self.base: np.ndarray | None = None  # latents of the sample that the sliders move
        self.vector = state.mean.astype(float)  # values of the sliders
        self.limits: tuple[float, float] | None = None  # grey values shared by the decoded pictures
        self.shown: dict[str, xr.DataArray] = {}
        self.sliders: dict[int, Slider] = {}
        self.words = pn.pane.HTML("", margin=(0, 10))
        self.message = pn.pane.HTML("", margin=(0, 10))
        self.pictures: dict[str, pn.pane.HTML] = {}
        for name in HEADINGS if state.has_model else ["stored"]:
            self.pictures[name] = pn.pane.HTML("", width=SIDE, height=SIDE + 22, margin=(0, 5))
            self.show(name, None)
        self._choosers()
        self.tabs = pn.Tabs(dynamic=True)
        self.tabs.append(("Sliders", self._sliders()))
        self.tabs.append(("Samples", self._samples()))
        if state.has_model:
            self.tabs.append(("Traversal", self._traversal()))
        scatter = pn.pane.HoloViews(self._scatter(), margin=0)
        self.left = pn.Column(pn.Row(self.layer, self.level), pn.Row(self.across, self.up), scatter)
        if state.is_scan:
            self.left.insert(1, pn.pane.HoloViews(self._map(), margin=0))
        self.right = pn.Column(pn.Row(self.words, self.message), pn.Row(*self.pictures.values()), self.depth, self.tabs)
        self.select(np.array([state.typical(state.known)]))
        if state.has_model:
            pn.state.onload(self.safe(self._load))  # once the page is displayed

    def _load(self) -> None:
        """Load the network and decode once, which is slow."""
        state = self.state
        try:
            state.decoded(state.bases(state.nearest(state.mean)[:1]))
            self.problem = ""
        except (VaearrError, OSError) as error:
            self.problem = str(error)
        self.select(self.selected)

    # ---- events

    def safe(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Show errors of a callback on the page, and send its changes to the browser together."""

        @wraps(call)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                with hold():
                    return call(*args, **kwargs)
            except VaearrError as error:
                self.tell(str(error))
            except Exception as error:
                self.tell(f"that failed: {type(error).__name__}: {error}")
                log.exception("a callback of the page failed")

        return guarded

    def following(self, call: Callable[..., Any], *others: Any) -> Any:
        """A view for the next tab, which follows the selection while the tab is open."""
        number = len(self.tabs)

        def update(selected: Any, active: int, *values: Any) -> Any:
            if active != number:
                raise param.Skip
            return self.safe(call)(*values)

        return pn.panel(pn.bind(update, self.param.selected, self.tabs.param.active, *others), lazy=True)

    def tell(self, words: str) -> None:
        """Show a message above the pictures; "" clears it."""
        self.message.object = f'<span role="status">{html.escape(text(words))}</span>'

    # ---- what is chosen

    def _choosers(self) -> None:
        state = self.state
        options = list(state.layers)
        colours = options[0] if state.is_scan else state.first("label", n.CLUSTERS)
        self.layer = pn.widgets.Select(label="Show", options=options, value=colours, width=150)
        self.across = pn.widgets.Select(label="Across", options=options, value=state.axes["across"], width=150)
        self.up = pn.widgets.Select(label="Up", options=options, value=state.axes["up"], width=150)
        planes = state.grid[0] if state.is_scan and len(state.grid) == 3 else 1
        self.level = _index_slider(f"Plane {state.nav[0]}", planes)
        cut = [dim for dim in (n.Z, n.DZ) if dim in state.signal]
        self.depth = _index_slider("Slice", state.ds.sizes[cut[0]] if cut else 1)
        self.depth.param.watch(self.safe(lambda _: self._show_again()), "value")

    def select(self, indices: np.ndarray) -> None:
        """Show a sample, or the most typical of several; the sliders move to its latents."""
        state = self.state
        if not len(indices):
            return
        self.number = state.typical(indices)
        sample = np.array([self.number])
        has_latents = bool(state.has_latents[self.number])
        has_pattern = bool(state.has_pattern[self.number])
        title = state.where(sample)[0]
        if len(indices) > 1:
            title = f"most typical of {len(indices):,} selected: {title}"
        self.words.object = f"<b>{html.escape(text(title))}</b>"
        notes = []
        if not state.is_current:
            notes.append(CHANGED)
        if self.problem:
            notes.append(self.problem)
        if not has_latents:
            notes.append("it lies outside the ROI of the run and has no latents")
        if not has_pattern:
            notes.append("no pattern was measured there")
        self.tell("; ".join(notes))
        self.show("stored", state.stored(sample) if has_pattern else None)
        if has_latents:
            self.base = state.bases(sample)[0]
        if not self.problem:
            rebuilt = state.decoded(self.base[None]) if has_latents and self.base is not None else None
            self.limits = None if rebuilt is None else robust_limits(rebuilt.values, GREY)
            self.show("rebuilt", rebuilt)
            self.show("seen", state.seen(sample) if has_pattern else None)
        if has_latents:
            self.go_to(state.latents[self.number])
        self.selected = indices

    # ---- pictures

    def as_pictures(self, da: xr.DataArray) -> np.ndarray:
        """Samples as pictures, of volumes the chosen slice."""
        return as_pictures(da, self.depth.value / max(1, self.depth.end))

    def show(self, name: str, da: xr.DataArray | None) -> None:
        """Show a picture under its heading, None for none. All but the stored one share the reconstruction's scale."""
        content = f'<div style="font-weight: 600">{HEADINGS[name]}</div>'
        self.shown.pop(name, None)
        if da is not None:
            self.shown[name] = da
            picture = self.as_pictures(da)[0]
            limits = self.limits if name != "stored" and self.limits else robust_limits(picture, GREY)
            style = f"width: {SIDE}px; height: {SIDE}px; object-fit: contain; image-rendering: pixelated"
            source = png(picture, limits, 2 * SIDE)
            content += f'<img alt="{HEADINGS[name]}" decoding="sync" src="{source}" style="{style}">'
        self.pictures[name].object = content

    def _show_again(self) -> None:
        for name, da in list(self.shown.items()):
            self.show(name, da)

    # ---- the map and the scatter

    def _linked(self, figure: Any, points: Callable[[], np.ndarray], size: float, *follows: Any) -> Any:
        """A figure in which a click selects the nearest sample, a box all samples inside; the selection is marked.

        points: positions of the samples in it, `(samples, 2)`, NaN where not in the figure. size: of the marks, in
        pixels. follows: widgets that change the positions.
        """
        hv = holoviews()

        def clicked(x: float | None, y: float | None) -> None:
            if x is None or y is None:
                return
            positions = points()
            distance = (((positions - (x, y)) / np.nanstd(positions, 0)) ** 2).sum(1)
            self.select(np.array([np.nanargmin(distance)]))

        def boxed(bounds: tuple[float, float, float, float] | None) -> None:
            if bounds is None:
                return
            positions = points()
            low, high = np.sort(np.reshape(bounds, (2, 2)), axis=0)
            is_inside = ((positions >= low) & (positions <= high)).all(1)
            self.select(np.flatnonzero(is_inside))

        def marks(selected: np.ndarray, *_: Any) -> Any:
            positions = points()[thinned(selected, MAX_MARKS)]
            positions = positions[np.isfinite(positions).all(1)]
            if len(selected) == 1:
                look = {"size": 15, "marker": "circle_cross", "fill_alpha": 0, "line_width": 2}
            else:
                look = {"size": size, "marker": "square", "fill_alpha": 0.6, "line_width": 0}
            marked = hv.Points(positions, figure[()].kdims)
            return marked.opts(color=MARK, **look, framewise=bool(follows), **BOKEH)

        hv.streams.Tap(source=figure).add_subscriber(self.safe(clicked))
        hv.streams.BoundsXY(source=figure).add_subscriber(self.safe(boxed))
        overlay = figure * hv.DynamicMap(pn.bind(marks, self.param.selected, *follows))
        return overlay.opts(backend_opts={"plot.toolbar.logo": None, "plot.min_border_right": 75}, **BOKEH)

    def _map(self) -> Any:
        """The chosen layer as a map."""
        state = self.state
        index = np.unravel_index(np.arange(len(state.latents)), state.grid)
        y, x = (state.ds[dim].values for dim in state.nav[-2:])
        positions = np.stack([x[index[-1]], y[index[-2]]], 1).astype(float)
        width, height = (float(np.ptp(edges(axis))) for axis in (x, y))
        scale = min(MAP[0] / width, MAP[1] / height)  # the same for both, so that lengths are true
        frame = {"frame_width": max(60, int(width * scale)), "frame_height": max(60, int(height * scale))}

        def points() -> np.ndarray:
            if len(state.grid) == 2:
                return positions
            return np.where((index[0] == self.level.value)[:, None], positions, np.nan)

        def draw(layer: str, _: int) -> Any:
            plane = coarse(self.plane_of(state.layers[layer].load()))
            figure = map_plot(plane, data_aspect=None, **frame)
            return figure.opts(hooks=[_colour_bar_ticks(coloured(plane))], **(SMALL | TOOLS))

        figure = holoviews().DynamicMap(pn.bind(draw, self.layer, self.level))
        mark_size = max(3.0, min(MAP[0] / x.size, MAP[1] / y.size))
        return self._linked(figure, points, mark_size, self.level)

    def plane_of(self, layer: xr.DataArray) -> xr.DataArray:
        """The plane of a layer that the map shows."""
        return layer if layer.ndim == 2 else layer[self.level.value]

    def _scatter(self) -> Any:
        """The samples over two layers, coloured by the chosen one."""

        def points() -> np.ndarray:
            return np.stack([self.state.values(axis.value) for axis in (self.across, self.up)], 1)

        def draw(across: str, up: str, layer: str) -> Any:
            figure = points_plot(points(), [across, up], self.state.layers[layer].load())
            width, height = SCATTER if self.state.is_scan else SCATTER_ALONE
            title = c.title(f"coloured by {layer}")
            return figure.opts(title=title, frame_width=width, frame_height=height, framewise=True, **TOOLS)

        figure = holoviews().DynamicMap(pn.bind(draw, self.across, self.up, self.layer))
        return self._linked(figure, points, 4, self.across, self.up)

    # ---- the views below

    def _sliders(self) -> Any:
        state = self.state
        dims = sorted(state.widest[:MAX_SLIDERS])
        for i in dims:
            slider = Slider(
                label=f"latent {i}",
                start=float(state.low[i]),
                end=float(state.high[i]),
                value=float(state.mean[i]),
                step=float(state.high[i] - state.low[i]) / 200,
                format="0.00",
                width=190,
                margin=(0, 10),
                disabled=not state.has_model,
            )
            slider.param.watch(self.safe(partial(self._moved, i)), "value")
            self.sliders[i] = slider
        back = pn.widgets.Button(label="Back to the sample", visible=state.has_model)
        back.on_click(self.safe(lambda _: self.go_to(state.latents[self.number])))
        typical = pn.widgets.Button(label="Most typical sample", visible=state.has_model)
        typical.on_click(self.safe(lambda _: self.select(np.array([state.typical(state.known)]))))
        count = len(state.mean)
        note = f"The {len(dims)} of {count} dimensions that vary most." if len(dims) < count else ""
        return pn.Column(pn.Row(back, typical, note), pn.GridBox(*self.sliders.values(), ncols=4))

    def _moved(self, dim: int, event: Any) -> None:
        if self.vector[dim] != event.new:
            self.vector[dim] = event.new
            self._decode()

    def go_to(self, vector: np.ndarray) -> None:
        """Set the sliders and decode."""
        self.vector = np.array(vector, float)
        for i, slider in self.sliders.items():
            value = float(vector[i])
            slider.param.update(start=min(slider.start, value), end=max(slider.end, value), value=value)
        self._decode()

    def _decode(self) -> None:
        if not self.problem and self.base is not None:
            latents = self.state.moved(self.vector, self.base)
            self.show("live", self.state.decoded(latents[None]))

    def _samples(self) -> Any:
        """Pictures of the selected samples, of a single one those of its nearest neighbours in latent space."""

        def draw(_: int) -> Any:
            state = self.state
            if len(self.selected) > 1:
                title = f"some of the {len(self.selected):,} selected samples, evenly spread"
                numbers = thinned(state.with_pictures(self.selected), MAX_PICTURES)
            elif state.has_latents[self.number]:
                title = "the samples nearest in latent space, the selected one first"
                numbers = state.with_pictures(state.nearest(state.latents[self.number]))[:MAX_PICTURES]
            else:
                return "the selected sample has no latents"
            if not len(numbers):
                return "no selected sample has latents and a pattern"
            if self.problem:
                rows = [self.as_pictures(state.stored(numbers))]
                title += "; stored"
            else:
                rows = [self.as_pictures(state.seen(numbers)), self.as_pictures(state.decoded(state.bases(numbers)))]
                title += "; input above reconstruction"
            images = np.stack(rows, 1)
            return sheet(title, state.where(numbers), images, robust_limits(images, GREY))

        return self.following(draw, self.depth)

    def _traversal(self) -> Any:
        """Dimensions moved about the sliders: which ones, how far, and the button that draws the sheet."""
        from vaearr.run.traversals import traverse

        widest = self.state.widest
        dims = pn.widgets.MultiChoice(
            label=f"Dimensions (at most {MAX_DIMS})",
            options=sorted(widest),
            value=widest[:3],
            max_items=MAX_DIMS,
            width=180,
        )
        reach: Any = pn.widgets.FloatInput(label="Reach (std)", value=3.0, start=0.1, end=20, step=0.5, width=95)
        button = pn.widgets.Button(label="Draw about the sliders", margin=(15, 10))

        def draw(_: int) -> Any:
            if self.problem or self.base is None or not dims.value:
                raise UsageError(self.problem or "choose one dimension or more")
            base = self.state.moved(self.vector, self.base)
            span = (-reach.value, reach.value)
            figure = on_paper(view(traverse(self.state.run, dims=dims.value, base=base, span=span, steps=STEPS)))
            width, height = figure.get_size_inches()
            return pn.pane.PNG(paper.png(figure, DPI), width=int(min(VIEW[0], VIEW[1] * width / height)))

        return pn.Row(self.following(draw, button.param.clicks), pn.Column(dims, reach, button))


def _index_slider(label: str, size: int) -> Any:
    """A slider over the indices of a dimension, at its middle; hidden where there is one index only."""
    last = max(1, size - 1)
    return pn.widgets.IntSlider(label=label, end=last, value=last // 2, visible=size > 1, width=150)


def points_plot(points: np.ndarray, names: list[str], colors: xr.DataArray) -> Any:
    """Points `(samples, 2)`, of many a part, in the colours of a layer."""
    look = coloured(colors)
    numbers = thinned(np.flatnonzero(np.isfinite(points).all(1)), MAX_POINTS)
    figure = holoviews().Points((*points[numbers].T, look["values"][numbers]), ["across", "up"], "value")
    return figure.opts(
        color="value",
        cmap=look["palette"],
        clim=look["limits"],
        colorbar=True,
        size=5,
        line_color=None,
        alpha=0.85,
        nonselection_alpha=0.85,
        xlabel=text(names[0]),
        ylabel=text(names[1]),
        hooks=[_colour_bar_ticks(look)],
        **SMALL,
    )


def _colour_bar_ticks(look: dict[str, Any]) -> Callable[..., None]:
    """Names of classes or even numbers at a colour bar. The ticker of a visible bar must not be replaced."""

    def hook(plot: Any, element: Any) -> None:
        for name, bar in plot.handles.items():
            if name.endswith("colorbar"):
                if not isinstance(bar.ticker, FixedTicker):
                    bar.ticker = FixedTicker()
                bar.ticker.ticks = look["ticks"]
                bar.major_label_overrides = dict(enumerate(look["names"]))

    return hook


def sheet(title: str, names: list[str], images: np.ndarray, limits: tuple[float, float]) -> Any:
    """Pictures `(samples, k, H, W[, 3])` on one scale, the k of a sample above each other over its name."""
    rows, height, width = images.shape[1:4]
    side = min(150 / height / rows, 94 / width)  # six in a row
    style = f"width: {width * side:.0f}px; margin: auto; display: block; image-rendering: pixelated"
    cells = ""
    for name, pictures in zip(names, images, strict=True):
        cells += '<span style="width: 98px">'
        for picture in pictures:
            cells += f'<img alt="" style="{style}" src="{png(picture, limits, 128)}">'
        cells += f"{html.escape(c.brief(name, 40))}</span>"
    box = f"display: flex; flex-wrap: wrap; gap: 4px; width: {VIEW[0]}px; text-align: center; font-size: 11px"
    return pn.pane.HTML(f'<p>{html.escape(title)}</p><div style="{box}">{cells}</div>')
