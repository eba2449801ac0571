"""The page of one visitor: a map or plane to choose from, the chosen sample, sliders, sheets, the ranking."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import numpy as np
import panel as pn

from vaearr import schema
from vaearr.app import state as s
from vaearr.app.figures import Map, Picture, Scatter
from vaearr.app.raster import sheet
from vaearr.app.state import State
from vaearr.errors import VaearrError

DEBOUNCE = 25  # milliseconds: slider moves within them are decoded as one
SIDE = 186  # pixels of a picture
STEPS = 9
TAB = ":host .bk-tab.bk-active { color: inherit; font-weight: bold; }"  # panel's is dark on dark
MOST_ROWS = 8  # dimensions in a traversal sheet


class Explorer:
    """What one visitor sees and has chosen; `page()` is the layout."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.depth, self.chosen = 0.5, np.array([self._first()])
        self.sample: Any = None
        self.pending = self.quiet = False
        self.message = pn.pane.HTML("", sizing_mode="stretch_width", height=24)
        self._choosers()
        self._pictures()
        self._sliders()
        self._sheets()
        self._association()
        self.show_layer()
        self.show_plane()
        self.choose(self.chosen)
        self._wait()

    def _first(self) -> int:
        known = np.flatnonzero(np.isfinite(self.state.latents).all(1))
        return int(known[len(known) // 2])

    # ---- choosing

    def _choosers(self) -> None:
        state = self.state
        names = s.layers(state)
        self.layer = pn.widgets.Select(name="Show", options=names, width=190)
        self.layer.param.watch(lambda _: self.show_layer(), "value")
        self.layer.param.watch(lambda _: self.show_plane(), "value")
        self.planes = s.planes(state)
        self.plane = pn.widgets.Select(name="Plane of", options=list(self.planes), width=110)
        self.across = pn.widgets.Select(name="Across", options=list(range(state.dims)), width=75)
        self.up = pn.widgets.Select(name="Up", options=list(range(state.dims)), value=min(1, state.dims - 1), width=75)
        self.plane.param.watch(lambda _: self._new_plane(), "value")
        for widget in (self.across, self.up):
            widget.param.watch(lambda _: self.show_plane(), "value")
        self.scatter = Scatter(self.choose)
        dims = schema.navigation_dims(state.ds)
        self.places: list[Any] = [
            pn.widgets.IntInput(name=f"{dim} (position)", start=0, end=size - 1, width=105)
            for dim, size in zip(dims, state.nav_shape, strict=True)
        ]
        for place in self.places:
            place.param.watch(lambda _: self._typed(), "value")
        self.map = None
        if state.is_scan:
            rows, columns = (state.ds[dim] for dim in dims[-2:])
            self.map = Map(rows, columns, self._from_map)

    def _typed(self) -> None:
        if not self.quiet:
            if self.map is not None and len(self.places) == 3:
                self.show_layer()
            self.choose(np.array([s.flat_index(self.state, tuple(p.value for p in self.places))]))

    def _from_map(self, indices: np.ndarray) -> None:
        if len(self.places) == 3:
            indices = indices + self.places[0].value * int(np.prod(self.state.nav_shape[1:]))
        self.choose(indices)

    def show_layer(self) -> None:
        """Draw the map of the chosen layer."""
        if self.map is not None:
            da = s.layer(self.state, self.layer.value)
            self.map.show(da if da.ndim == 2 else da.isel({da.dims[0]: self.places[0].value}))

    def _new_plane(self) -> None:
        size = self.planes[self.plane.value].shape[1]
        self.quiet = True
        self.across.param.update(options=list(range(size)), value=0)
        self.up.param.update(options=list(range(size)), value=min(1, size - 1))
        self.quiet = False
        self.show_plane()

    def show_plane(self) -> None:
        """Draw the points of the chosen plane."""
        if self.quiet:
            return
        points = self.planes[self.plane.value][:, [self.across.value, self.up.value]]
        word = "latent" if self.plane.value == "latents" else self.plane.value
        axes = (f"{word} {self.across.value}", f"{word} {self.up.value}")
        self.scatter.show(points, axes, s.layer(self.state, self.layer.value))
        self.scatter.point(self.chosen)

    def choose(self, indices: np.ndarray) -> None:
        """Show one sample, or the mean of several; the sliders go to its latents."""
        state = self.state
        try:
            sample = (
                s.sample_at(state, int(indices[0]), depth=self.depth)
                if len(indices) == 1
                else s.region(state, indices, depth=self.depth)
            )
        except VaearrError as error:
            self.tell(str(error))
            return
        self.sample, self.chosen = sample, indices
        self.words.object = f"<b>{html.escape(sample.words)}</b>"
        if sample.stored is None:
            self.stored.clear()
            self.tell("no pattern was measured there")
        else:
            self.stored.show(sample.stored)
            self.tell("")
        self.quiet = True
        if len(indices) == 1:
            place = tuple(map(int, np.unravel_index(indices[0], state.nav_shape)))
            for widget, i in zip(self.places, place, strict=True):
                widget.value = i
        if self.map is not None:
            places = np.array(np.unravel_index(indices, state.nav_shape)[-2:])
            self.map.point(tuple(places.mean(1).round().astype(int)))
        self.scatter.point(indices)
        if np.isfinite(sample.latents).all():
            self._to(sample.latents)
        else:
            self.tell("this sample has no latents: it lies outside the run's region of interest")
        self.quiet = False
        self.rebuild()

    # ---- pictures and sliders

    def _pictures(self) -> None:
        self.words = pn.pane.HTML("", height=24, sizing_mode="stretch_width")
        self.stored, self.seen, self.rebuilt, self.live = (
            Picture(heading, SIDE, SIDE)
            for heading in ("as stored", "as the network sees it", "reconstruction", "from the sliders")
        )
        for picture in (self.seen, self.rebuilt, self.live):
            picture.clear()
            picture.figure.visible = self.state.has_model
        self.slice = pn.widgets.FloatSlider(name="Slice", start=0, end=1, step=0.02, value=0.5, width=220)
        self.slice.visible = s.is_volume(self.state)
        self.slice.param.watch(lambda event: self._deeper(event.new), "value")

    def _deeper(self, depth: float) -> None:
        self.depth = depth
        vector = self.vector
        self.choose(self.chosen)
        self._to(vector)

    def _sliders(self) -> None:
        state = self.state
        self.sliders = []
        for i in range(state.dims):
            low, high = float(state.low[i]), float(state.high[i])
            slider = pn.widgets.FloatSlider(
                name=f"latent {i}", start=low, end=high, step=(high - low) / 200, value=float(state.mean[i]),
                width=185, format="0.00", margin=(4, 12),
            )  # fmt: skip
            slider.param.watch(lambda _: self._moved(), "value")
            self.sliders.append(slider)
        self.back = pn.widgets.Button(name="Back to the sample", width=150)
        self.back.on_click(lambda _: self.choose(self.chosen))
        self.middle = pn.widgets.Button(name="Mean of all samples", width=150)
        self.middle.on_click(lambda _: self._to(state.mean))

    @property
    def vector(self) -> np.ndarray:
        """Latents that the sliders show."""
        return np.array([slider.value for slider in self.sliders], np.float32)

    def _to(self, vector: np.ndarray) -> None:
        for slider, value in zip(self.sliders, vector.astype(float), strict=True):
            changes = {"value": value}
            if not slider.start <= value <= slider.end:
                changes |= {"start": min(slider.start, value), "end": max(slider.end, value)}
            slider.param.update(**changes)

    def _moved(self) -> None:
        if self.pending or self.quiet:
            return
        document = pn.state.curdoc
        if document is None or document.session_context is None:
            self.decode()
            return
        self.pending = True
        document.add_timeout_callback(self.decode, DEBOUNCE)

    def decode(self) -> None:
        """Decode what the sliders show."""
        self.pending = False
        if self.state.is_ready:
            base = None if self.sample is None else self.sample.base
            self.live.show(s.decode(self.state, self.vector[None], base=base, depth=self.depth)[0], self.limits)

    def rebuild(self) -> None:
        """Show the chosen sample as the network sees it and its reconstruction, on one scale."""
        if not self.state.is_ready or self.sample is None:
            return
        sample = self.sample
        self.limits = None
        if np.isfinite(sample.latents).all():
            rebuilt = s.decode(self.state, sample.latents[None], base=sample.base, depth=self.depth)[0]
            low, high = np.percentile(rebuilt, (0.1, 99.9))
            self.limits = (float(low), float(high) if high > low else float(low) + 1)
            self.rebuilt.show(rebuilt, self.limits)
        else:
            self.rebuilt.clear()
        if sample.index >= 0 and sample.stored is not None:
            self.seen.show(s.seen(self.state, sample.index, depth=self.depth), self.limits)
        else:
            self.seen.clear()
        self.decode()

    limits: tuple[float, float] | None = None

    # ---- sheets

    def _sheets(self) -> None:
        dims = list(range(self.state.dims))
        widest = [int(i) for i in np.argsort(-self.state.spread)[:MOST_ROWS]]
        self.rows = pn.widgets.MultiChoice(
            name=f"Dimensions (at most {MOST_ROWS})", options=dims, value=widest[:3], max_items=MOST_ROWS, width=420
        )
        self.reach: Any = pn.widgets.FloatInput(name="Reach (std)", value=3.0, start=0.1, end=20, step=0.5, width=95)
        self.traverse = pn.widgets.Button(name="Draw from the sliders", button_type="primary", width=160, align="end")
        self.traverse.on_click(lambda _: self._guarded(self.show_traversal))
        self.drawn: set[int] = set()
        self.traversal = Picture("", 600, 215, axes=True)
        self.plane_x = pn.widgets.Select(name="Across", options=dims, value=widest[0], width=90)
        self.plane_y = pn.widgets.Select(name="Up", options=dims, value=widest[min(1, len(widest) - 1)], width=90)
        self.unfold = pn.widgets.Button(name="Draw from the sliders", button_type="primary", width=160, align="end")
        self.unfold.on_click(lambda _: self._guarded(self.show_manifold))
        self.manifold = Picture("", 270, 270, axes=True)

    def _opened(self, tab: int) -> None:
        """A sheet is drawn when its tab is first seen."""
        draw = {1: self.show_traversal, 2: self.show_manifold}.get(tab)
        if draw is not None and tab not in self.drawn and self.state.is_ready:
            self.drawn.add(tab)
            self._guarded(draw)

    def _guarded(self, draw: Callable[[], None]) -> None:
        if not self.state.is_ready:
            self.tell(self.state.problem or "the network is still being loaded")
            return
        try:
            draw()
        except VaearrError as error:
            self.tell(str(error))

    def show_traversal(self) -> None:
        """Draw the traversal sheet: a row for each chosen dimension."""
        dims = list(self.rows.value)
        if not dims:
            self.tell("choose one dimension or more")
            return
        offsets, found = s.traversal(
            self.state, self.vector, dims, steps=STEPS, reach=self.reach.value, base=self.base(), depth=self.depth
        )
        image, shown = sheet(found), self.traversal
        shown.show(image)
        shown.figure.title.text = "one dimension of each row moved, the others as the sliders stand"
        shown.figure.xaxis.axis_label = "offset in standard deviations of the store's latents"
        shown.figure.yaxis.axis_label = "latent dimension"
        _ticks(shown.figure.xaxis, image.shape[1], [f"{v:+.2g}" if v else "0" for v in offsets])
        _ticks(shown.figure.yaxis, image.shape[0], [str(d) for d in dims])

    def show_manifold(self) -> None:
        """Draw the plane of two dimensions."""
        across, up = self.plane_x.value, self.plane_y.value
        xs, ys, found = s.manifold(self.state, self.vector, across, up, steps=STEPS, base=self.base(), depth=self.depth)
        image, shown = sheet(found[::-1]), self.manifold
        shown.show(image)
        shown.figure.title.text = "two dimensions, the others as the sliders stand"
        shown.figure.xaxis.axis_label, shown.figure.yaxis.axis_label = f"latent {across}", f"latent {up}"
        _ticks(shown.figure.xaxis, image.shape[1], [f"{v:.2f}" for v in xs])
        _ticks(shown.figure.yaxis, image.shape[0], [f"{v:.2f}" for v in ys[::-1]])

    def base(self) -> np.ndarray | None:
        """The spatial latents that vectors are laid over."""
        return None if self.sample is None else self.sample.base

    # ---- association

    def _association(self) -> None:
        self.table: Any = s.associations(self.state)
        self.metric = pn.widgets.Select(name="Measure", width=180)
        self.target = pn.widgets.Select(name="Side map", width=180)
        self.ranks = pn.widgets.Select(name="Latent dimensions, strongest first", size=11, width=300)
        if self.table is None:
            return
        for widget, dim in ((self.metric, "metric"), (self.target, "target")):
            names = [str(v) for v in self.table[dim].values]
            widget.param.update(options=names, value=names[0])
        for widget in (self.metric, self.target):
            widget.param.watch(lambda _: self.show_ranks(), "value")
        self.show_ranks()
        self.ranks.param.watch(lambda event: self._ranked(event.new), "value")

    def show_ranks(self) -> None:
        """List the dimensions by the chosen measure."""
        found = s.ranking(self.table, self.metric.value, self.target.value)
        self.ranks.options = {f"latent {i}: {value:+.3f}": i for i, value in found}

    def _ranked(self, dim: int | None) -> None:
        if dim is not None:
            self.layer.value = f"latent:{dim}"

    # ---- layout

    def tell(self, words: str) -> None:
        """Say something under the heading."""
        self.message.object = f'<span role="status">{html.escape(words)}</span>'

    def _wait(self) -> None:
        """Pictures that need the network come once it is loaded."""
        state = self.state
        if state.is_ready:
            self.rebuild()
            return
        self.tell(state.problem or "the network is being loaded …")
        document = pn.state.curdoc
        if not state.problem and document is not None and document.session_context is not None:
            document.add_timeout_callback(self._ready, 200)

    def _ready(self) -> None:
        if self.state.is_ready:
            self.tell("")
        self._wait()

    def page(self) -> Any:
        """The layout, for a screen of 1366 × 768."""
        points = pn.Column(pn.Row(self.plane, self.across, self.up), self.scatter.figure)
        views = [("Plane", points)] if self.map is None else [("Map", pn.Column(self.map.figure)), ("Plane", points)]
        left = pn.Column(pn.Row(self.layer, *self.places), pn.Tabs(*views, stylesheets=[TAB]), width=520)
        pictures = pn.Row(*(picture.figure for picture in (self.stored, self.seen, self.rebuilt, self.live)))
        sliders = pn.Column(
            pn.Row(self.back, self.middle), pn.GridBox(*self.sliders, ncols=4), height=345, scroll=True, width=860
        )
        ranking: Any = pn.Row(self.ranks, pn.Column(self.target, self.metric))
        if self.table is None:
            ranking = pn.pane.Markdown(
                f"There is no table of these latents yet; make it with\n\n    vaearr associate {self.state.path} "
                f"--run {self.state.run}\n\nand load this page again."
            )
        tabs = pn.Tabs(
            ("Sliders", sliders),
            ("Traversal", pn.Column(pn.Row(self.rows, self.reach, self.traverse), self.traversal.figure)),
            (
                "Manifold",
                pn.Row(self.manifold.figure, pn.Column(pn.Row(self.plane_x, self.plane_y), self.unfold)),
            ),
            ("Association", ranking),
            stylesheets=[TAB],
        )
        tabs.param.watch(lambda event: self._opened(event.new), "active")
        return pn.Row(left, pn.Column(pn.Row(self.words, self.message), self.slice, pictures, tabs, width=870))


def _ticks(axis: Any, size: int, words: list[str]) -> None:
    """One tick in the middle of each picture of a sheet."""
    middles = [(i + 0.5) * size / len(words) for i in range(len(words))]
    axis.ticker = middles
    axis.major_label_overrides = dict(zip(middles, words, strict=True))
