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
from bokeh.palettes import RdBu11
from panel.io import hold

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.table import ranking
from vaearr.app import state as s
from vaearr.app.state import State
from vaearr.errors import VaearrError
from vaearr.schema.grid import edges
from vaearr.views import common as c
from vaearr.views import on_paper, view
from vaearr.views.common import holoviews, robust_limits, text
from vaearr.views.maps import map_plot
from vaearr.views.page import png

MARK = "#e5007e"  # of what is chosen
MOST_SLIDERS, MOST_POINTS, MOST_MARKED, MOST_ROWS, MOST_CHANNELS = 32, 10_000, 5000, 5, 32
STEPS, DPI = 7, 110  # of what is decoded about the sliders
SIDE, WIDE, HIGH = 205, 620, 385  # pixels of a picture, and that a sheet may take
MAP, PLANE, PLANE_ALONE, PAIR = (312, 240), (312, 160), (312, 450), (215, 220)
ONE = {"size": 15, "marker": "circle_cross", "fill_alpha": 0, "line_width": 2}
MANY = {"marker": "square", "fill_alpha": 0.6, "line_width": 0}
FRAME: dict[str, Any] = {"plot.toolbar.logo": None, "plot.min_border_right": 75}
COLUMNS = 6  # of the sheet of samples
HEADINGS = {
    "stored": "as stored", "seen": "as the network sees it", "rebuilt": "reconstruction", "live": "from the sliders",
}  # fmt: skip
CHANGED = "the store has been written since this page was loaded: load it again"
TOOLS: dict[str, Any] = {
    "tools": ["hover", "box_select", "lasso_select"], "default_tools": ["pan", "wheel_zoom", "reset", "save"],
    "active_tools": ["box_select"], "toolbar": "above",
}  # fmt: skip
SMALL: dict[str, Any] = {
    "fontsize": {"title": "13px", "labels": "12px", "ticks": "11px"},
    "clabel": "", "colorbar_opts": {"width": 10, "padding": 4}, "backend": "bokeh",
}  # fmt: skip

logger = logging.getLogger(__name__)


class Slider(pn.widgets.FloatSlider):
    """A slider whose moves are gathered for a moment only, so that the picture follows at once."""

    _debounce = 2  # milliseconds


class Explorer(param.Parameterized):
    """What one visitor sees and has chosen: `left` to choose from, `right` what was chosen."""

    chosen = param.Parameter(doc="numbers of the chosen samples")
    axes = param.Parameter(doc="plane, and what lies across and up in it")

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state, self.depth, self.quiet = state, 0.5, False
        self.sample: Any = None
        self.base: np.ndarray | None = None  # spatial latents that the sliders move
        self.vector = state.mean.astype(float)  # that is decoded
        self.limits: tuple[float, float] | None = None
        self.shown: dict[str, xr.DataArray] = {}
        known = np.flatnonzero(np.isfinite(state.latents).all(1))
        middle = np.array(state.nav_shape) / 2 if state.is_scan else 0.0
        away = ((np.stack(np.unravel_index(known, state.nav_shape), 1) - middle) ** 2).sum(1)
        self.chosen = known[[np.argmin(away)]]
        self.message = pn.pane.HTML("", margin=(0, 10))
        self.words = pn.pane.HTML("", margin=(0, 10))
        names = list(HEADINGS) if state.has_model else ["stored"]
        self.pictures = {name: pn.pane.HTML("", width=SIDE, height=SIDE + 22, margin=(0, 5)) for name in names}
        self._choosers()
        tabs: dict[str, Callable[[], Any]] = {"Sliders": self._sliders, "Samples": self._samples}
        if schema.position_dims(state.ds[n.run_name(n.LATENTS, state.run)]):
            tabs["Channels"] = self._channels
        if state.has_model:
            tabs |= {"Traversal": self._traversal, "Manifold": self._manifold}
        tabs["Association"] = self._association
        self.draw: dict[int, Callable[[], None]] = {}  # the views that follow what is chosen
        self.tabs = pn.Tabs(dynamic=True)
        for i, (name, made) in enumerate(tabs.items()):
            layout, draw = made()
            self.tabs.append((name, layout))
            self.draw[i] = draw
        self.tabs.param.watch(self.safe(lambda _: self.draw[self.tabs.active]()), "active")
        left: list[Any] = [pn.Row(self.layer, *self.places)]
        if state.is_scan:
            left.append(pn.pane.HoloViews(self._map(), margin=0))
        left += [pn.Row(self.plane, self.across, self.up), pn.pane.HoloViews(self._plane(), margin=0)]
        self.left = pn.Column(*left)
        self.right = pn.Column(pn.Row(self.words, self.message), pn.Row(*self.pictures.values()), self.slice, self.tabs)
        self.choose(self.chosen)
        if not (state.is_ready or state.problem):
            self.tell("the network is being loaded …")
            pn.state.onload(self.safe(self._load))  # once the page is seen

    def _load(self) -> None:
        self.state.load()
        self.choose(self.chosen)

    def safe(self, call: Callable[..., None]) -> Callable[..., None]:
        """The call with its errors shown on the page; its changes reach the browser together."""

        @wraps(call)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                with hold():
                    call(*args, **kwargs)
            except VaearrError as error:
                self.tell(str(error))
            except Exception as error:
                self.tell(f"that failed: {type(error).__name__}: {error}")
                logger.exception("a callback of the page failed")

        return guarded

    def tell(self, words: str) -> None:
        """Say something above the pictures; "" for nothing."""
        self.message.object = f'<span role="status">{html.escape(text(words))}</span>'

    # ---- choosing

    def _choosers(self) -> None:
        state = self.state
        names, self.planes = s.layers(state), s.planes(state)
        first = next((name for name in s.CLASSES if name in names.values() and not state.is_scan), "latent:0")
        self.layer = pn.widgets.Select(label="Show", options=names, value=first, width=150)
        first = next((name for name in self.planes if name != s.LATENTS and not state.is_scan), s.LATENTS)
        self.plane = pn.widgets.Select(label="Plane of", options=list(self.planes), value=first, width=130)
        self.across, self.up = (pn.widgets.Select(label=name, options=[0], width=90) for name in ("Across", "Up"))
        self.plane.param.watch(self.safe(lambda _: self._new_plane()), "value")
        for widget in (self.across, self.up):
            widget.param.watch(self.safe(lambda _: self._new_axes()), "value")
        self._new_plane()
        self.places: list[Any] = [
            pn.widgets.IntInput(label=f"{dim} (position)", start=0, end=size - 1, width=88)
            for dim, size in zip(schema.navigation_dims(state.ds), state.nav_shape, strict=True)
        ]
        for place in self.places:
            place.param.watch(self.safe(lambda _: self._typed()), "value")
        is_volume = s.is_volume(state)
        across = schema.signal_dims(state.ds)[-3] if is_volume else ""
        last = max(1, state.ds.sizes[across] - 1) if is_volume else 1
        self.slice: Any = pn.widgets.IntSlider(label=f"Slice {across}", end=last, value=last // 2, visible=is_volume)
        self.depth = (last // 2) / last
        self.slice.param.watch(self.safe(lambda event: self._deeper(event.new / last)), "value")

    def _new_plane(self) -> None:
        points = self.planes[self.plane.value]
        order = s.widest(self.state) if self.plane.value == s.LATENTS else list(range(points.shape[1]))
        self.quiet = True
        for widget, axis in ((self.across, order[0]), (self.up, order[min(1, len(order) - 1)])):
            widget.param.update(options=list(range(points.shape[1])), value=axis)
        self.quiet = False
        self._new_axes()

    def _new_axes(self) -> None:
        if not self.quiet:
            self.axes = (self.plane.value, self.across.value, self.up.value)

    def _typed(self) -> None:
        if not self.quiet:
            self.choose(np.ravel_multi_index([[place.value] for place in self.places], self.state.nav_shape))

    def _deeper(self, depth: float) -> None:
        self.depth = depth
        for name, da in self.shown.items():
            self._show(name, da)
        self.draw[self.tabs.active]()

    def choose(self, indices: np.ndarray) -> None:
        """Show one sample, or the mean of several; the sliders go to its latents."""
        state = self.state
        if not len(indices):
            return
        sample = s.sample(state, indices)
        self.sample, known = sample, bool(np.isfinite(sample.latents).all())
        self.words.object = f"<b>{html.escape(text(sample.words))}</b>"
        self.tell("; ".join(words for words, is_so in (
            (CHANGED, not s.is_current(state)), (state.problem, bool(state.problem)),
            ("it lies outside the run's region of interest and has no latents", not known),
            ("no pattern was measured there", sample.stored is None),
        ) if is_so))  # fmt: skip
        if len(indices) == 1:
            self.quiet = True
            for place, i in zip(self.places, s.place_of(state, int(indices[0])).values(), strict=True):
                place.value = i
            self.quiet = False
        self.chosen = indices  # which the marks follow
        self._rebuild()
        if known:
            self.go_to(sample.latents, sample.base)
        self.draw[self.tabs.active]()

    def _rebuild(self) -> None:
        """Show what was chosen as stored, as the network sees it, and its reconstruction on one scale."""
        state, sample, rebuilt = self.state, self.sample, None
        self._show("stored", sample.stored)
        if not state.is_ready:
            return
        if np.isfinite(sample.latents).all():
            rebuilt = s.decode(state, sample.latents[None], sample.base)
        self.limits = None if rebuilt is None else robust_limits(rebuilt.values, s.GREY)
        self._show("rebuilt", rebuilt)
        seen = s.seen(state, sample.members).mean(s.PICTURE, keepdims=True) if sample.members else None
        self._show("seen", seen)

    def _show(self, name: str, da: xr.DataArray | None) -> None:
        source = ""
        if da is not None:
            self.shown[name] = da
            image = s.reduced(s.as_pictures(da, self.depth)[0], 2 * SIDE)
            limits = self.limits if name != "stored" and self.limits else robust_limits(image, s.GREY)
            source = s.png(image, limits)
        self.pictures[name].object = (
            f'<div style="font-weight: 600">{HEADINGS[name]}</div>'
            + (f'<img alt="{HEADINGS[name]}" decoding="sync" src="{source}" style="width: {SIDE}px; height: {SIDE}px; '
               'object-fit: contain; image-rendering: pixelated">' if source else "")
        )  # fmt: skip

    # ---- the map and the plane

    def _linked(self, shown: Any, points: Callable[[], np.ndarray], size: float, **follows: Any) -> Any:
        """A figure of the samples at `points()`, `(samples, 2)`, NaN for none: what is chosen is marked in it.

        A click in it chooses the nearest sample, a box or an outline all inside. size: of the marks, in pixels.
        """
        hv = holoviews()

        def tapped(x: float, y: float) -> None:
            known = points()
            self.choose(np.array([np.nanargmin((((known - (x, y)) / np.nanstd(known, 0)) ** 2).sum(1))]))

        def boxed(bounds: tuple[float, float, float, float]) -> None:
            low, high = np.sort(np.reshape(bounds, (2, 2)), axis=0)
            self.choose(np.flatnonzero(((points() >= low) & (points() <= high)).all(1)))

        def outlined(geometry: np.ndarray) -> None:
            self.choose(np.flatnonzero(s.in_polygon(points(), np.asarray(geometry, float))))

        def marks(chosen: np.ndarray, **_: Any) -> Any:
            places = points()[s.thinned(chosen, MOST_MARKED)]
            look = ONE if len(chosen) == 1 else {**MANY, "size": size}
            found = hv.Points(places[np.isfinite(places).all(1)], shown[()].kdims)
            return found.opts(color=MARK, **look, framewise="axes" in follows, backend="bokeh")

        for stream, call in ((hv.streams.Tap, tapped), (hv.streams.BoundsXY, boxed), (hv.streams.Lasso, outlined)):
            safe = self.safe(call)
            stream(source=shown).add_subscriber(lambda safe=safe, **at: None if None in at.values() else safe(**at))
        both = shown * hv.DynamicMap(pn.bind(marks, self.param.chosen, **follows))
        return both.opts(backend_opts=FRAME, backend="bokeh")

    def _map(self) -> Any:
        """The chosen layer as a map, and what is chosen."""
        ds, hv = self.state.ds, holoviews()
        dims = schema.navigation_dims(ds)
        index = np.unravel_index(np.arange(len(self.state.latents)), self.state.nav_shape)
        axes = [ds[dim].values for dim in dims[-2:]]
        places = np.stack([axes[1][index[-1]], axes[0][index[-2]]], 1).astype(float)

        def points() -> np.ndarray:
            return places if len(dims) == 2 else np.where((index[0] == self.places[0].value)[:, None], places, np.nan)

        def draw(layer: str, *above: int) -> Any:
            return self._small_map(self.slice_of(s.layer(self.state, layer)), MAP).opts(**TOOLS, backend="bokeh")

        above = self.places[:-2]
        shown = hv.DynamicMap(pn.bind(draw, self.layer, *above))
        size = max(3.0, min(MAP[0] / axes[1].size, MAP[1] / axes[0].size))
        return self._linked(shown, points, size, **{f"above_{i}": place for i, place in enumerate(above)})

    def slice_of(self, da: xr.DataArray) -> xr.DataArray:
        """The part of a layer that the map shows."""
        return da if da.ndim == 2 else da[self.places[0].value]

    def _small_map(self, da: xr.DataArray, size: tuple[int, int]) -> Any:
        """A map no larger than `size` in pixels, at equal scales of the whole scan, in blocks where it is large."""
        factor = int(np.ceil(np.sqrt(max(1.0, da.size / s.MOST_CELLS))))
        up, across = (float(np.ptp(edges(self.state.ds[dim].values))) for dim in da.dims)
        scale = min(size[0] / across, size[1] / up)
        frame: dict[str, Any] = {"frame_width": max(60, int(across * scale)), "frame_height": max(60, int(up * scale))}
        shown = map_plot(s.coarse(da, factor) if factor > 1 else da, data_aspect=None, **frame)
        names = c.as_codes(da)[1] if c.is_category(da) else []
        return shown.opts(hooks=[partial(_named, names=names)], **SMALL)

    def _plane(self) -> Any:
        """The samples over two axes of the plane, coloured by the layer."""

        def points() -> np.ndarray:
            plane, across, up = self.axes
            return self.planes[plane][:, [across, up]]

        def draw(axes: tuple[str, int, int], layer: str) -> Any:
            word, colors = "latent" if axes[0] == s.LATENTS else axes[0], s.layer(self.state, layer)
            known = np.flatnonzero(np.isfinite(points()).all(1))
            some = s.thinned(known, MOST_POINTS)
            part = f", {len(some):,} of {len(known):,}" if len(some) < len(known) else ""
            width, height = PLANE if self.state.is_scan else PLANE_ALONE
            return points_plot(points(), [f"{word} {axis}" for axis in axes[1:]], colors, some).opts(
                title=c.title(f"coloured by {c.label(colors)}{part}"), frame_width=width, frame_height=height,
                framewise=True, **TOOLS, backend="bokeh",
            )  # fmt: skip

        shown = holoviews().DynamicMap(pn.bind(draw, self.param.axes, self.layer))
        return self._linked(shown, points, 4, axes=self.param.axes)

    # ---- the views below; each is its layout and what draws it

    def _sliders(self) -> tuple[Any, Callable[[], None]]:
        state = self.state
        dims = sorted(s.widest(state)[:MOST_SLIDERS])
        self.sliders = {
            i: Slider(
                label=f"latent {i}", start=float(state.low[i]), end=float(state.high[i]), value=float(state.mean[i]),
                step=float(state.high[i] - state.low[i]) / 200, format="0.00", width=190, margin=(0, 10),
                disabled=not state.has_model,
            )
            for i in dims
        }  # fmt: skip
        for i, slider in self.sliders.items():
            slider.param.watch(self.safe(partial(self._moved, i)), "value")
        back, mean = (pn.widgets.Button(label=name) for name in ("Back to the sample", "Mean of all samples"))
        back.on_click(self.safe(lambda _: self.choose(self.chosen)))
        mean.on_click(self.safe(lambda _: self.go_to(state.mean, None)))
        left_out = f"The {len(dims)} of {state.dims} dimensions that vary most." if len(dims) < state.dims else ""
        row = [*([back, mean] if state.has_model else []), pn.pane.HTML(left_out)]
        return pn.Column(pn.Row(*row), pn.GridBox(*self.sliders.values(), ncols=4)), lambda: None

    def _moved(self, dim: int, event: Any) -> None:
        if not self.quiet:
            self.vector[dim] = event.new
            self.decode()

    def go_to(self, vector: np.ndarray, base: np.ndarray | None) -> None:
        """Set the sliders, and decode what they show."""
        self.base, self.vector, self.quiet = base, np.array(vector, float), True
        for i, slider in self.sliders.items():
            value = float(vector[i])
            slider.param.update(start=min(slider.start, value), end=max(slider.end, value), value=value)
        self.quiet = False
        self.decode()

    def decode(self) -> None:
        """Decode what the sliders show."""
        if self.state.is_ready:
            self._show("live", s.decode(self.state, self.vector[None], self.base))

    def _samples(self) -> tuple[Any, Callable[[], None]]:
        pane, state = pn.pane.HTML(""), self.state

        def draw() -> None:
            if len(self.chosen) > 1:
                some = s.some_of(state, self.chosen)
                words = f"{len(some)} of the {len(self.chosen):,} chosen, evenly spread"
            else:
                some = s.some_of(state, s.alike(state, self.sample.latents))
                words = f"the {len(some)} samples nearest in the latent space, the chosen one first"
            if not len(some):
                pane.object = "no chosen sample has latents and a pattern"
                return
            calls = {"input": s.seen, "rebuilt": s.rebuilt} if state.is_ready else {"stored": s.stored}
            found = np.stack([s.as_pictures(call(state, some.tolist()), self.depth) for call in calls.values()])
            limits = robust_limits(found, s.GREY)
            names = [s.brief_place(state, int(i)) for i in some]
            pane.object = f"<p>{words}</p>{sheets(found, names, list(calls), limits, COLUMNS)}"

        return pane, draw

    def _channels(self) -> tuple[Any, Callable[[], None]]:
        pane = pn.pane.HTML("")

        def draw() -> None:
            base = self.sample.base
            if base.ndim == 4:
                base = base[:, round(self.depth * (base.shape[1] - 1))]
                if schema.signal_dims(self.state.ds)[-2:] == (n.Y, n.X):
                    base = base[:, ::-1]  # turned as the pictures are
            shown = base.reshape(len(base), -1, base.shape[-1])[:MOST_CHANNELS]
            half = float(np.nanmax(np.abs(shown), initial=0)) or 1.0
            rgb = np.array([tuple(bytes.fromhex(color[1:])) for color in [*RdBu11, c.NAN_COLOR]], np.float32)
            known = np.isfinite(shown)
            colors = rgb[np.where(known, np.rint((np.nan_to_num(shown) / half + 1) * 5), -1).astype(int)]
            names = [f"latent {i}" for i in range(len(shown))]
            more = f" (the first {len(shown)} of {len(base)})" if len(shown) < len(base) else ""
            grey = "" if known.all() else "; grey: left out by a mask"
            words = f"latents at each position{more}: blue −{half:.3g}, white 0, red +{half:.3g}{grey}"
            pane.object = f"<p>{words}</p>{sheets(colors[None], names, [''], (0, 255), 8)}"

        return pane, draw

    def _drawing(
        self, function: Callable[..., xr.Dataset], dims: Callable[[], list[int]], *choosers: Any
    ) -> tuple[Any, Callable[[], None]]:
        """What is decoded about the sliders: choosers, how far it reaches, and the button that draws it."""
        pane, state = pn.pane.PNG(None, width=WIDE), self.state
        reach: Any = pn.widgets.FloatInput(label="Reach (std)", value=3.0, start=0.1, end=20, step=0.5, width=95)
        button = pn.widgets.Button(label="Draw about the sliders", margin=(15, 10))

        def draw() -> None:
            if not (state.is_ready and dims()):
                self.tell("choose one dimension or more" if state.is_ready else state.problem)
                return
            base = s.moved(state, self.vector[None], self.base)[0]
            span = (-reach.value, reach.value)
            found = function(state.network[0], state.run, dims(), base=base, span=span, steps=STEPS)
            pane.object = png(on_paper(view(found)), DPI)

        button.on_click(self.safe(lambda _: draw()))
        return pn.Row(pane, pn.Column(*choosers, reach, button)), draw

    def _traversal(self) -> tuple[Any, Callable[[], None]]:
        from vaearr.analysis.exploration.traversals import traverse

        widest, label = s.widest(self.state), f"Dimensions (at most {MOST_ROWS})"
        rows = pn.widgets.MultiChoice(
            label=label, options=sorted(widest), value=widest[:3], max_items=MOST_ROWS, width=180
        )
        return self._drawing(traverse, lambda: sorted(rows.value), rows)

    def _manifold(self) -> tuple[Any, Callable[[], None]]:
        from vaearr.analysis.exploration.traversals import manifold

        widest = s.widest(self.state)
        across, up = (
            pn.widgets.Select(label=name, options=sorted(widest), value=value, width=90)
            for name, value in (("Across", widest[0]), ("Up", widest[min(1, len(widest) - 1)]))
        )
        return self._drawing(manifold, lambda: [across.value, up.value], across, up)

    def _association(self) -> tuple[Any, Callable[[], None]]:
        state = self.state
        table = s.associations(state)
        if table is None:
            command = f"vaearr associate {shlex.quote(text(state.path))} --run {shlex.quote(text(state.run))}"
            words = "There is no table of these latents and maps yet. Make it with"
            return pn.pane.HTML(f"{words} <pre>{html.escape(command)}</pre> and load this page again."), lambda: None
        metric, target = (
            pn.widgets.Select(label=name, options={text(v): str(v) for v in table[dim].values}, width=190)
            for name, dim in (("Measure", "metric"), ("Side map", "target"))
        )
        ranks = pn.widgets.Select(label="Latents, strongest first", size=10, width=190)
        said, pane = pn.pane.HTML(""), pn.pane.HoloViews(margin=0)

        def rank() -> None:
            found = ranking(table, metric.value, target.value, top=state.dims)
            rows = zip(found[n.LATENT].values, found["value"].values, found["is_tied"].values, strict=True)
            options = {
                f"latent {dim}: {value:+.3f}{' (tied)' if tied else ''}".replace("-", "−"): int(dim)
                for dim, value, tied in rows
            }
            self.quiet = True
            ranks.param.update(options=options, value=next(iter(options.values()), None))
            self.quiet = False
            draw()

        def draw() -> None:
            dim = ranks.value
            if dim is None:
                return
            value = float(table.sel(metric=metric.value, target=target.value).sel({n.LATENT: dim}))
            count = int(table["n"].sel(target=target.value)) if "n" in table.coords else 0
            strength = f"{metric.value.replace('_', ' ')} {value:+.2f}".replace("-", "−")
            said.object = html.escape(f"latent {dim} and {text(target.value)}: {strength} over {count:,} points")
            both = s.layer(state, f"latent:{dim}"), s.target(state, target.value)
            if state.is_scan:
                maps = [self._small_map(self.slice_of(da), PAIR) for da in both]
                pane.object = holoviews().Layout(maps).opts(toolbar=None, backend="bokeh")
            else:
                points = np.stack([np.asarray(da.values, float).ravel() for da in both], 1)
                shown = points_plot(points, [f"latent {dim}", target.value], both[1], np.arange(len(points)))
                pane.object = shown.opts(frame_width=400, frame_height=PAIR[1], backend="bokeh")

        def picked(dim: int | None) -> None:
            if not self.quiet and dim is not None:
                draw()
                self.layer.value = f"latent:{dim}"

        for widget in (metric, target):
            widget.param.watch(self.safe(lambda _: rank()), "value")
        ranks.param.watch(self.safe(lambda event: picked(event.new)), "value")
        layout = pn.Row(pn.Column(metric, target, ranks), pn.Column(said, pane))
        return layout, lambda: rank() if ranks.value is None else None


def points_plot(points: np.ndarray, names: list[str], colors: xr.DataArray, some: np.ndarray) -> Any:
    """Some of the points `(k, 2)` in the colours of a layer, its classes named at the colour bar."""
    codes, classes = c.as_codes(colors) if c.is_category(colors) else (colors, [])
    values = np.asarray(codes.values, np.float32).ravel()
    limits = (-0.5, len(classes) - 0.5) if classes else robust_limits(values)
    shown = holoviews().Points((*points[some].T, values[some]), ["across", "up"], "value")
    return shown.opts(
        color="value", cmap=c.palette(len(classes)) if classes else c.SEQUENTIAL, clim=limits, colorbar=True, size=5,
        line_color=None, alpha=0.85, nonselection_alpha=0.85, xlabel=text(names[0]), ylabel=text(names[1]),
        hooks=[partial(_named, names=classes)], **SMALL,
    )  # fmt: skip


def _named(plot: Any, element: Any, names: list[str]) -> None:
    """Ticks of a colour bar: its classes by name, or even numbers; a bar that is seen takes no other kind of ticker."""
    for name, bar in plot.handles.items():
        if name.endswith("colorbar"):
            low, high = bar.color_mapper.low, bar.color_mapper.high
            step = 10.0 ** np.floor(np.log10((high - low) / 2))
            step *= next(part for part in (0.2, 0.5, 1) if (high - low) / (part * step) <= 10)
            at = step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)
            if not isinstance(bar.ticker, FixedTicker):
                bar.ticker = FixedTicker()
            bar.ticker.ticks = list(range(len(names))) if names else at.tolist()
            bar.major_label_overrides = dict(enumerate(names))


def sheets(images: np.ndarray, columns: list[str], rows: list[str], limits: tuple[float, float], most: int) -> str:
    """Pictures `(rows, columns, H, W[, 3])` on one scale, named along both axes; at most so many in a row, as HTML."""
    parts = [slice(i, i + most) for i in range(0, len(columns), most)]
    height, width = images.shape[2:4]
    count = min(most, len(columns))
    side = min((WIDE - 70) / count / width, ((HIGH - 60) / len(parts) - 30) / len(rows) / height, 120 / height)
    style = f"width: {width * side:.0f}px; height: {height * side:.0f}px; display: block; image-rendering: pixelated"
    lines = []
    for part in parts:
        for name, line in zip(rows, images[:, part], strict=True):
            sources = [s.png(s.reduced(one, 128), limits) for one in line]
            cells = [f'<td><img alt="" style="{style}" src="{source}"></td>' for source in sources]
            lines.append(f'<tr><th style="text-align: right">{html.escape(name)}</th>{"".join(cells)}</tr>')
        named = "".join(f"<th>{html.escape(name)}</th>" for name in columns[part])
        lines.append(f"<tr><th></th>{named}</tr>")
    return f'<table style="border-spacing: 2px; text-align: center; font-size: 11px">{"".join(lines)}</table>'
