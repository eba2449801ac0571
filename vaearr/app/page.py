"""The page of one visitor: a map and a plane to choose from, what was chosen, and the views below it."""

from __future__ import annotations

import html
import logging
import shlex
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
from vaearr import schema
from vaearr.analysis.association.table import ranking
from vaearr.app.state import (
    GREY,
    NO_MODEL,
    PICTURE,
    Sample,
    State,
    as_pictures,
    coarse,
    coloured,
    in_polygon,
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

MARK = "#e5007e"  # of what is chosen
MOST_SLIDERS, MOST_POINTS, MOST_MARKED, MOST_ROWS, MOST_CHANNELS = 32, 10_000, 5000, 5, 32
STEPS, DPI = 7, 110  # of what is decoded about the sliders
SIDE, WIDE, HIGH = 205, 620, 385  # pixels of a picture, and that the views below may take
MAP, PLANE, PLANE_ALONE = (312, 240), (312, 160), (312, 450)
HEADINGS = {
    "stored": "as stored", "seen": "as the network sees it", "rebuilt": "reconstruction", "live": "from the sliders",
}  # fmt: skip
CHANGED = "the store has been written since this page was loaded: load it again"
BOKEH: dict[str, Any] = {"backend": "bokeh"}
TOOLS: dict[str, Any] = {
    "tools": ["hover", "box_select", "lasso_select"], "default_tools": ["pan", "wheel_zoom", "reset", "save"],
    "active_tools": ["box_select"], "toolbar": "above", **BOKEH,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "fontsize": {"title": "13px", "labels": "12px", "ticks": "11px"},
    "clabel": "", "colorbar_opts": {"width": 10, "padding": 4}, **BOKEH,
}  # fmt: skip

log = logging.getLogger("vaearr")


class Slider(pn.widgets.FloatSlider):
    """A slider whose moves are gathered for a moment only, so that the picture follows at once."""

    _debounce = 2  # milliseconds


class Explorer(param.Parameterized):
    """What one visitor sees and has chosen: `left` to choose from, `right` what was chosen."""

    chosen = param.Parameter(doc="numbers of the chosen samples, which the marks and the view below follow")

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state
        self.problem = "the network is being loaded …" if state.has_model else NO_MODEL  # why nothing is decoded
        self.sample: Sample
        self.vector = state.mean.astype(float)  # what the sliders show
        self.base: np.ndarray | None = None  # whose pattern they move
        self.limits: tuple[float, float] | None = None
        self.shown: dict[str, xr.DataArray] = {}
        self.words, self.message = pn.pane.HTML("", margin=(0, 10)), pn.pane.HTML("", margin=(0, 10))
        names = list(HEADINGS) if state.has_model else ["stored"]
        self.pictures = {name: pn.pane.HTML("", width=SIDE, height=SIDE + 22, margin=(0, 5)) for name in names}
        for name in names:
            self.show(name, None)
        self.tabs = pn.Tabs(dynamic=True)
        self._choosers()
        views: dict[str, Callable[[], Any]] = {"Sliders": self._sliders, "Samples": self._samples}
        if schema.position_dims(state.run.latents):
            views["Channels"] = self._channels
        if state.has_model:
            from vaearr.analysis.exploration.traversals import manifold, traverse

            views["Traversal"] = partial(self._drawing, traverse, MOST_ROWS)
            views["Manifold"] = partial(self._drawing, manifold, 2)
        for name, made in (views | {"Association": self._association}).items():
            self.tabs.append((name, made()))
        maps = [pn.pane.HoloViews(self._map(), margin=0)] if state.is_scan else []
        plane = pn.pane.HoloViews(self._plane(), margin=0)
        self.left = pn.Column(pn.Row(self.layer, *self.places), *maps, pn.Row(self.across, self.up), plane)
        self.right = pn.Column(pn.Row(self.words, self.message), pn.Row(*self.pictures.values()), self.depth, self.tabs)
        self.choose(state.known[[len(state.known) // 2 if state.is_scan else 0]])
        if state.has_model:
            pn.state.onload(self.safe(self._load))  # once the page is seen

    def _load(self) -> None:
        """Load the network and decode once, which is slow."""
        try:
            self.state.at(self.state.mean, None)
            self.problem = ""
        except (VaearrError, OSError) as error:
            self.problem = str(error)
        self.choose(self.chosen)

    def safe(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call with its errors shown on the page; its changes reach the browser together."""

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

    def watch(self, call: Callable[..., Any], *widgets: Any) -> None:
        """Call with the new value of a widget whenever it has one."""
        for widget in widgets:
            widget.param.watch(self.safe(lambda event: call(event.new)), "value")

    def following(self, call: Callable[..., Any], *others: Any) -> Any:
        """What a view of the next tab returns, made again whenever the choice changes while the tab is seen."""
        number = len(self.tabs)

        def drawn(chosen: Any, active: int, *values: Any) -> Any:
            if active != number:
                raise param.Skip
            return self.safe(call)(*values)

        return pn.panel(pn.bind(drawn, self.param.chosen, self.tabs.param.active, *others), lazy=True)

    def tell(self, words: str) -> None:
        """Say something above the pictures; "" for nothing."""
        self.message.object = f'<span role="status">{html.escape(text(words))}</span>'

    # ---- choosing

    def _choosers(self) -> None:
        state, options = self.state, list(self.state.layers)
        first = options[0] if state.is_scan else state.first("label", n.CLUSTERS)
        self.layer, self.across, self.up = (
            pn.widgets.Select(label=name, options=options, value=words, width=150)
            for name, words in (("Show", first), ("Across", state.axes["across"]), ("Up", state.axes["up"]))
        )
        self.places: list[Any] = [
            pn.widgets.IntInput(label=f"{dim} (position)", start=0, end=size - 1, width=88)
            for dim, size in zip(state.nav, state.grid, strict=True)
        ]
        self.is_told = False  # that the places are set to what was chosen, not typed
        self.watch(self._typed, *self.places)
        across = next((dim for dim in (n.Z, n.DZ) if dim in state.signal), "")
        last = max(1, state.ds.sizes.get(across, 2) - 1)
        label = f"Slice {across}"
        self.depth: Any = pn.widgets.IntSlider(label=label, end=last, value=last // 2, visible=bool(across))
        self.watch(self._cut, self.depth)

    def _cut(self, _: int) -> None:
        for name, da in list(self.shown.items()):
            self.show(name, da)

    def _typed(self, _: int) -> None:
        if not self.is_told:
            self.choose(np.ravel_multi_index([[place.value] for place in self.places], self.state.grid))

    def choose(self, indices: np.ndarray) -> None:
        """Show one sample, or the mean of several; the sliders go to its latents."""
        state = self.state
        if not len(indices):
            return
        self.sample = sample = state.sample(indices)
        is_known = bool(np.isfinite(sample.latents).all())
        self.words.object = f"<b>{html.escape(text(sample.words))}</b>"
        notes = {
            CHANGED: not state.is_current,
            self.problem: bool(self.problem),
            "it lies outside the run's region of interest and has no latents": not is_known,
            "no pattern was measured there": sample.stored is None,
        }
        self.tell("; ".join(words for words, is_so in notes.items() if is_so))
        self.is_told = True
        if len(indices) == 1:
            for place, i in zip(self.places, state.places(indices).values(), strict=True):
                place.value = int(i[0])
        self.is_told = False
        self.show("stored", sample.stored)
        if not self.problem:
            rebuilt = state.at(sample.latents, sample.base) if is_known else None
            self.limits = None if rebuilt is None else robust_limits(rebuilt.values, GREY)
            self.show("rebuilt", rebuilt)
            members = sample.members
            self.show("seen", state.seen(members).mean(PICTURE, keepdims=True) if len(members) else None)
        if is_known:
            self.go_to(sample.latents, sample.base)
        self.chosen = indices

    def seen(self, da: xr.DataArray) -> np.ndarray:
        """Samples as pictures, of volumes the chosen slice."""
        return as_pictures(da, self.depth.value / self.depth.end)

    def show(self, name: str, da: xr.DataArray | None) -> None:
        """Show a picture under its heading, None for none; all but the stored one on the reconstruction's scale."""
        image = f'<div style="font-weight: 600">{HEADINGS[name]}</div>'
        self.shown.pop(name, None)
        if da is not None:
            self.shown[name], picture = da, self.seen(da)[0]
            limits = self.limits if name != "stored" and self.limits else robust_limits(picture, GREY)
            style = f"width: {SIDE}px; height: {SIDE}px; object-fit: contain; image-rendering: pixelated"
            source = png(picture, limits, 2 * SIDE)
            image += f'<img alt="{HEADINGS[name]}" decoding="sync" src="{source}" style="{style}">'
        self.pictures[name].object = image

    # ---- the map and the plane

    def _linked(self, shown: Any, points: Callable[[], np.ndarray], size: float, *follows: Any) -> Any:
        """A figure of the samples at `points()`, `(samples, 2)`, NaN for none: what is chosen is marked in it.

        A click in it chooses the nearest sample, a box or an outline all inside. size: of the marks, in pixels.
        """
        hv = holoviews()

        def inside(x: float = 0, y: float = 0, bounds: Any = None, geometry: Any = None) -> np.ndarray:
            known = points()
            if geometry is not None:
                return np.flatnonzero(in_polygon(known, np.asarray(geometry, float)))
            if bounds is not None:
                low, high = np.sort(np.reshape(bounds, (2, 2)), axis=0)
                return np.flatnonzero(((known >= low) & (known <= high)).all(1))
            return np.array([np.nanargmin((((known - (x, y)) / np.nanstd(known, 0)) ** 2).sum(1))])

        def pointed(**at: Any) -> None:
            if all(value is not None for value in at.values()):
                self.choose(inside(**at))

        def marks(chosen: np.ndarray, *_: Any) -> Any:
            places = points()[thinned(chosen, MOST_MARKED)]
            one = {"size": 15, "marker": "circle_cross", "fill_alpha": 0, "line_width": 2}
            look = one if len(chosen) == 1 else {"size": size, "marker": "square", "fill_alpha": 0.6, "line_width": 0}
            found = hv.Points(places[np.isfinite(places).all(1)], shown[()].kdims)
            return found.opts(color=MARK, **look, framewise=bool(follows), **BOKEH)

        for stream in (hv.streams.Tap, hv.streams.BoundsXY, hv.streams.Lasso):
            stream(source=shown).add_subscriber(self.safe(pointed))
        both = shown * hv.DynamicMap(pn.bind(marks, self.param.chosen, *follows))
        return both.opts(backend_opts={"plot.toolbar.logo": None, "plot.min_border_right": 75}, **BOKEH)

    def _map(self) -> Any:
        """The chosen layer as a map, and what is chosen."""
        state, above = self.state, self.places[:-2]
        index = np.unravel_index(np.arange(len(state.latents)), state.grid)
        y, x = (state.ds[dim].values for dim in state.nav[-2:])
        places = np.stack([x[index[-1]], y[index[-2]]], 1).astype(float)

        def points() -> np.ndarray:
            return np.where((index[0] == above[0].value)[:, None], places, np.nan) if above else places

        sides = [float(np.ptp(edges(axis))) for axis in (x, y)]
        scale = min(most / side for most, side in zip(MAP, sides, strict=True))  # equal for both
        frame = {f"frame_{k}": max(60, int(side * scale)) for k, side in zip(("width", "height"), sides, strict=True)}

        def draw(layer: str, *_: int) -> Any:
            shown = coarse(self.slice_of(state.layers[layer].load()))
            return map_plot(shown, data_aspect=None, **frame).opts(hooks=[_ticked(coloured(shown))], **(SMALL | TOOLS))

        shown = holoviews().DynamicMap(pn.bind(draw, self.layer, *above))
        return self._linked(shown, points, max(3.0, min(MAP[0] / x.size, MAP[1] / y.size)), *above)

    def slice_of(self, da: xr.DataArray) -> xr.DataArray:
        """The part of a layer that the map shows."""
        return da if da.ndim == 2 else da[self.places[0].value]

    def _plane(self) -> Any:
        """The samples over two layers, coloured by the third."""

        def points() -> np.ndarray:
            return np.stack([self.state.values(axis.value) for axis in (self.across, self.up)], 1)

        def draw(across: str, up: str, layer: str) -> Any:
            shown = points_plot(points(), [across, up], self.state.layers[layer].load())
            width, height = PLANE if self.state.is_scan else PLANE_ALONE
            title = c.title(f"coloured by {layer}")
            return shown.opts(title=title, frame_width=width, frame_height=height, framewise=True, **TOOLS)

        shown = holoviews().DynamicMap(pn.bind(draw, self.across, self.up, self.layer))
        return self._linked(shown, points, 4, self.across, self.up)

    # ---- the views below

    def _sliders(self) -> Any:
        state, dims = self.state, sorted(self.state.widest[:MOST_SLIDERS])
        self.sliders = {}
        for i in dims:
            self.sliders[i] = Slider(
                label=f"latent {i}", start=float(state.low[i]), end=float(state.high[i]), value=float(state.mean[i]),
                step=float(state.high[i] - state.low[i]) / 200, format="0.00", width=190, margin=(0, 10),
                disabled=not state.has_model,
            )  # fmt: skip
            self.watch(partial(self._moved, i), self.sliders[i])
        back, mean = (
            pn.widgets.Button(label=name, visible=state.has_model)
            for name in ("Back to the sample", "Mean of all samples")
        )
        back.on_click(self.safe(lambda _: self.choose(self.chosen)))
        mean.on_click(self.safe(lambda _: self.go_to(state.mean, None)))
        count = len(state.mean)
        left_out = f"The {len(dims)} of {count} dimensions that vary most." if len(dims) < count else ""
        return pn.Column(pn.Row(back, mean, left_out), pn.GridBox(*self.sliders.values(), ncols=4))

    def _moved(self, dim: int, value: float) -> None:
        if self.vector[dim] != value:
            self.vector[dim] = value
            self._decode()

    def go_to(self, vector: np.ndarray, base: np.ndarray | None) -> None:
        """Set the sliders, and decode what they show."""
        self.base, self.vector = base, np.array(vector, float)
        for i, slider in self.sliders.items():
            value = float(vector[i])
            slider.param.update(start=min(slider.start, value), end=max(slider.end, value), value=value)
        self._decode()

    def _decode(self) -> None:
        if not self.problem:
            self.show("live", self.state.at(self.vector, self.base))

    def _samples(self) -> Any:
        def draw(_: int) -> Any:
            state, chosen = self.state, self.chosen
            if len(chosen) > 1:
                some = state.shown_of(chosen)
                words = f"{len(some)} of the {len(chosen):,} chosen, evenly spread"
            else:
                some = state.shown_of(state.alike(self.sample.latents))
                words = f"the {len(some)} samples nearest in the latent space, the chosen one first"
            if not len(some):
                return "no chosen sample has latents and a pattern"
            calls = {"stored": state.stored} if self.problem else {"input": state.seen, "rebuilt": state.rebuilt}
            found = np.stack([self.seen(call(some)) for call in calls.values()], 1)
            return sheet(f"{words}; {', '.join(calls)}", state.where(some), found, robust_limits(found, GREY))

        return self.following(draw, self.depth)

    def _channels(self) -> Any:
        def draw(_: int) -> Any:
            base = self.sample.base
            dims = [dim for dim in self.state.signal if dim != n.CHANNEL][-base.ndim + 1 :]
            shown = self.seen(xr.DataArray(base[:MOST_CHANNELS], dims=(PICTURE, *dims)))
            half = float(np.nanmax(np.abs(shown), initial=0)) or 1.0
            words = f"latents at each position, {len(shown)} of {len(base)}: black −{half:.3g}, white {half:.3g}"
            return sheet(words, [f"latent {i}" for i in range(len(shown))], shown[:, None], (-half, half))

        return self.following(draw, self.depth)

    def _drawing(self, function: Callable[..., xr.Dataset], most: int) -> Any:
        """What is decoded about the sliders: dimensions, how far they reach, and the button that draws it."""
        widest = self.state.widest
        dims = pn.widgets.MultiChoice(
            label=f"Dimensions (at most {most})", options=sorted(widest), value=widest[: min(3, most)], max_items=most,
            width=180,
        )  # fmt: skip
        reach: Any = pn.widgets.FloatInput(label="Reach (std)", value=3.0, start=0.1, end=20, step=0.5, width=95)
        button = pn.widgets.Button(label="Draw about the sliders", margin=(15, 10))

        def draw(_: int) -> Any:
            if self.problem or not dims.value:
                raise UsageError(self.problem or "choose one dimension or more")
            base, span = self.state.moved(self.vector[None], self.base)[0], (-reach.value, reach.value)
            found = function(self.state.run, dims=dims.value, base=base, span=span, steps=STEPS)
            figure = on_paper(view(found))
            across, up = figure.get_size_inches()
            return pn.pane.PNG(paper.png(figure, DPI), width=int(min(WIDE, HIGH * across / up)))

        return pn.Row(self.following(draw, button.param.clicks), pn.Column(dims, reach, button))

    def _association(self) -> Any:
        state, table = self.state, self.state.associations
        if table is None:
            command = f"vaearr associate {shlex.quote(text(state.path))} --run {shlex.quote(text(state.name))}"
            words = "There is no table of these latents and maps yet. Make it with"
            return pn.pane.HTML(f"{words} <pre>{html.escape(command)}</pre> and load this page again.")
        metric, target = (
            pn.widgets.Select(label=name, options={text(v): str(v) for v in table[dim].values}, width=190)
            for name, dim in (("Measure", "metric"), ("Side map", "target"))
        )

        def ranked(metric: str, target: str) -> dict[str, tuple[int, str]]:
            found = ranking(table, metric, target, top=len(state.mean))
            rows = zip(found[n.LATENT].values.tolist(), found["value"].values.tolist(), strict=True)
            return {f"latent {dim}: {value:+.3f}".replace("-", "−"): (dim, target) for dim, value in rows}

        def draw(chosen: tuple[int, str] | None) -> Any:
            if chosen is None:
                return "no latent has a value"
            across, up = f"latent {chosen[0]}", state.target(chosen[1])
            points = np.stack([state.values(across), np.asarray(up.values, float).ravel()], 1)
            count = int(np.isfinite(points).all(1).sum())
            said = pn.pane.HTML(html.escape(f"{across} and {text(chosen[1])} over {count:,} points"))
            shown = points_plot(points, [across, chosen[1]], up)
            return pn.Column(said, shown.opts(frame_width=400, frame_height=240, **BOKEH))

        options = pn.bind(ranked, metric, target)
        ranks = pn.widgets.Select(label="Latents, strongest first", options=options, size=10, width=190)
        self.watch(lambda chosen: self.layer.param.update(value=f"latent {chosen[0]}"), ranks)
        drawn = pn.panel(pn.bind(self.safe(draw), ranks), lazy=True)
        return pn.Row(pn.Column(metric, target, ranks), drawn)


def points_plot(points: np.ndarray, names: list[str], colors: xr.DataArray) -> Any:
    """The samples' points `(samples, 2)`, of many some, in the colours of a layer, its classes named at the bar."""
    look, some = coloured(colors), thinned(np.flatnonzero(np.isfinite(points).all(1)), MOST_POINTS)
    shown = holoviews().Points((*points[some].T, look["values"][some]), ["across", "up"], "value")
    return shown.opts(
        color="value", cmap=look["palette"], clim=look["limits"], colorbar=True, size=5, line_color=None, alpha=0.85,
        nonselection_alpha=0.85, xlabel=text(names[0]), ylabel=text(names[1]), hooks=[_ticked(look)], **SMALL,
    )  # fmt: skip


def _ticked(look: dict[str, Any]) -> Callable[..., None]:
    """Names or even numbers at a colour bar; one that is seen takes no other kind of ticker than it has."""

    def hook(plot: Any, element: Any) -> None:
        for name, bar in plot.handles.items():
            if name.endswith("colorbar"):
                if not isinstance(bar.ticker, FixedTicker):
                    bar.ticker = FixedTicker()
                bar.ticker.ticks = look["ticks"]
                bar.major_label_overrides = dict(enumerate(look["names"]))

    return hook


def sheet(words: str, names: list[str], images: np.ndarray, limits: tuple[float, float]) -> Any:
    """Pictures `(samples, k, H, W[, 3])` on one scale, the k of a sample above each other over its name."""
    rows, height, width = images.shape[1:4]
    side = min(150 / height / rows, 94 / width)  # six beside each other
    style = f"width: {width * side:.0f}px; margin: auto; display: block; image-rendering: pixelated"
    cells = []
    for name, pictures in zip(names, images, strict=True):
        shown = [f'<img alt="" style="{style}" src="{png(one, limits, 128)}">' for one in pictures]
        cells.append(f'<span style="width: 98px">{"".join(shown)}{html.escape(c.brief(name, 40))}</span>')
    box = f"display: flex; flex-wrap: wrap; gap: 4px; width: {WIDE}px; text-align: center; font-size: 11px"
    return pn.pane.HTML(f'<p>{html.escape(words)}</p><div style="{box}">{"".join(cells)}</div>')
