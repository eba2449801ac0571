"""The page of one visitor: a map and a plane to choose from, what was chosen, and the views below it."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np
import panel as pn
import xarray as xr
from panel.io import hold

from vaearr import schema
from vaearr.app import decoding, fields, samples
from vaearr.app import state as s
from vaearr.app.association_tab import AssociationTab
from vaearr.app.figures import GREY_LIMITS, dressed
from vaearr.app.maps import Map
from vaearr.app.pictures import HEADINGS, Pictures
from vaearr.app.preview import Pointer
from vaearr.app.scatter import Scatter
from vaearr.app.sliders import Sliders
from vaearr.app.state import State
from vaearr.app.tabs import ChannelsTab, ManifoldTab, SamplesTab, SlidersTab, TraversalTab, widest_of
from vaearr.errors import VaearrError
from vaearr.plots.common import robust_limits, text

TYPED = 20  # milliseconds: positions set within them are shown as one
POLL = 150  # milliseconds between looks at whether the network is loaded
CHANGED = "the store has been written since this page was loaded: load it again"
LOADING = "The network is being loaded; what it decodes will be here in a moment."
MAP, PLANE, PLANE_ALONE = (325, 272), (310, 190), (310, 470)
TABS: dict[str, Any] = {
    "Sliders": SlidersTab, "Samples": SamplesTab, "Channels": ChannelsTab, "Traversal": TraversalTab,
    "Manifold": ManifoldTab, "Association": AssociationTab,
}  # fmt: skip

logger = logging.getLogger(__name__)


class Explorer:
    """What one visitor sees and has chosen; `parts()` is what the page is made of."""

    def __init__(self, state: State, *, is_dark: bool = False) -> None:
        self.state, self.is_dark = state, is_dark
        self.depth = 0.5
        self.sample: Any = None
        self.base: np.ndarray | None = None  # spatial latents that the sliders move
        self.limits: tuple[float, float] | None = None
        self.quiet = self.typed = False
        self.slice_drawn = 0  # of a scan with slices, the one in the map
        self.tabs: dict[str, Any] = {}
        self.message = pn.pane.HTML("", height=20, margin=(0, 10))
        self.words = pn.pane.HTML("", height=20, margin=(0, 10))
        self.chosen = np.array([self._first()])
        self._pictures()
        self._sliders()
        self._choosers()
        self._tabs()
        self.show_layer()
        self.show_plane()
        self.choose(self.chosen)
        self._wait()

    def _first(self) -> int:
        known = np.flatnonzero(np.isfinite(self.state.latents).all(1))
        if self.state.is_scan:  # the one nearest to the middle of the map
            places = np.stack(np.unravel_index(known, self.state.nav_shape), 1) - np.array(self.state.nav_shape) / 2
            return int(known[np.argmin((places**2).sum(1))])
        return int(known[0])

    def safe(self, call: Callable[..., None]) -> Callable[..., None]:
        """The call with its errors shown on the page; its changes reach the browser together."""

        @wraps(call)
        def guarded(*args: Any) -> None:
            try:
                with hold():
                    call(*args)
            except VaearrError as error:
                self.tell(str(error))
            except Exception as error:
                self.tell(f"that failed: {type(error).__name__}: {error}")
                logger.exception("a callback of the page failed")

        return guarded

    def pane(self, figure: Any) -> Any:
        """A figure in the colours of the page, as panel takes it."""
        return pn.pane.Bokeh(dressed(figure, is_dark=self.is_dark), margin=0)

    def tell(self, words: str) -> None:
        """Say something above the pictures; "" for nothing."""
        self.message.object = f'<span role="status" id="said">{html.escape(text(words))}</span>'

    # ---- choosing

    def _choosers(self) -> None:
        state = self.state
        names = s.layers(state)
        first = next((name for name in s.CLASSES if name in names.values() and not state.is_scan), "latent:0")
        self.layer = fields.Select(label="Show", options=names, value=first, width=165)
        self.layer.param.watch(self.safe(lambda _: self.show_layer()), "value")
        self.layer.param.watch(self.safe(lambda _: self.show_plane(keep=True)), "value")
        self.planes = s.planes(state)
        first = next((name for name in self.planes if name != s.LATENTS and not state.is_scan), s.LATENTS)
        self.plane = fields.Select(label="Plane of", options=list(self.planes), value=first, width=110)
        self.across, self.up = (
            fields.Select(label=label, options=list(range(self.planes[first].shape[1])), value=axis, width=75)
            for axis, label in zip(self._axes(first), ("Across", "Up"), strict=True)
        )
        self.plane.param.watch(self.safe(lambda _: self._new_plane()), "value")
        for widget in (self.across, self.up):
            widget.param.watch(self.safe(lambda _: self.show_plane()), "value")
        dims = schema.navigation_dims(state.ds)
        self.places: list[Any] = [
            fields.IntInput(label=f"{dim} (position)", start=0, end=size - 1, width=82 if len(dims) > 1 else 120)
            for dim, size in zip(dims, state.nav_shape, strict=True)
        ]
        for place in self.places:
            place.param.watch(lambda _: self._typed(), "value")
        self.map = None
        if state.is_scan:
            rows, columns = (state.ds[dim] for dim in dims[-2:])
            self.map = Map(rows, columns, self.safe(self._from_map), MAP, name="map")
        self.scatter = Scatter(PLANE if self.map else PLANE_ALONE, self.safe(self.choose), name="plane")
        self.pointer = Pointer(self._preview, self._later, self.safe)
        self.pointer.over(self.scatter.figure, self.scatter.at)
        if self.map is not None:
            self.pointer.over(self.map.figure, self._at_map)

    def _typed(self) -> None:
        if self.quiet or self.typed:
            return
        self.typed = True
        self._later(self.safe(self._to_place), TYPED)

    def _to_place(self) -> None:
        self.typed = False
        self.choose(np.array([samples.flat_index(self.state, tuple(p.value for p in self.places))]))

    def _later(self, call: Callable[[], None], milliseconds: int) -> None:
        document = pn.state.curdoc
        if document is None or document.session_context is None:
            call()
        else:
            document.add_timeout_callback(call, milliseconds)

    def _from_map(self, indices: np.ndarray) -> None:
        self.choose(indices + self._first_in_map())

    def _first_in_map(self) -> int:
        return self._slice() * int(np.prod(self.state.nav_shape[-2:]))

    def _at_map(self, x: float, y: float) -> int | None:
        found = None if self.map is None else self.map.at(x, y)
        return None if found is None else found + self._first_in_map()

    def _preview(self, index: int) -> tuple[str, list[np.ndarray]]:
        """A sample for the frame at the pointer: as stored, and decoded where that is quick."""
        state = self.state
        sample = samples.sample_at(state, index)
        shown = [] if sample.stored is None else [sample.stored]
        if np.isfinite(sample.latents).all() and state.is_ready and state.seconds < s.QUICK:
            shown.append(decoding.rebuilt(state, [index]))
        return sample.words, [s.as_pictures(da, self.depth)[0] for da in shown]

    def _slice(self) -> int:
        return int(self.places[0].value) if len(self.places) == 3 else 0

    def slice_of(self, da: xr.DataArray) -> xr.DataArray:
        """The part of a layer that the map shows."""
        return da if da.ndim == 2 else da[self._slice()]

    def show_layer(self) -> None:
        """Draw the map of the chosen layer."""
        name = str(self.layer.value)
        self.sliders.shown = int(name.partition(":")[2]) if name.startswith("latent:") else -1
        if self.map is not None:
            self.slice_drawn = self._slice()
            self.map.show(self.slice_of(s.layer(self.state, name)))

    def show_dimension(self, dim: int) -> None:
        """Show a latent in the map."""
        self.layer.value = f"latent:{dim}"

    def _new_plane(self) -> None:
        dims = list(range(self.planes[self.plane.value].shape[1]))
        self.quiet = True
        for widget, axis in zip((self.across, self.up), self._axes(self.plane.value), strict=True):
            widget.param.update(options=dims, value=axis)
        self.quiet = False
        self.show_plane()

    def _axes(self, plane: str) -> tuple[int, int]:
        """The axes that a plane begins with: the two widest latents, the first two components."""
        order = widest_of(self.state) if plane == s.LATENTS else list(range(self.planes[plane].shape[1]))
        return order[0], order[min(1, len(order) - 1)]

    def show_plane(self, *, keep: bool = False) -> None:
        """Draw the points of the chosen plane; keep: in the window that is seen."""
        if self.quiet:
            return
        colors = s.layer(self.state, str(self.layer.value))
        if keep:
            self.scatter.recolor(colors)
            return
        points = self.planes[self.plane.value][:, [self.across.value, self.up.value]]
        word = "latent" if self.plane.value == s.LATENTS else self.plane.value
        self.scatter.show(points, (f"{word} {self.across.value}", f"{word} {self.up.value}"), colors)
        self.scatter.point(self.chosen)

    def choose(self, indices: np.ndarray) -> None:
        """Show one sample, or the mean of several; the sliders go to its latents."""
        state = self.state
        one = len(indices) == 1
        sample = samples.sample_at(state, int(indices[0])) if one else samples.region(state, indices)
        self.sample, self.chosen = sample, indices
        self.words.object = f"<b>{html.escape(text(sample.words))}</b>"
        known = np.isfinite(sample.latents).all()
        missing = [] if s.is_current(state) else [CHANGED]
        missing += [] if known else ["it lies outside the run's region of interest and has no latents"]
        missing += ["no pattern was measured there"] if sample.stored is None else []
        self.tell("; ".join(missing))
        self._mark(indices)
        self.sliders.sample = [float(v) for v in sample.latents] if known else []
        self.rebuild()
        if known:
            self.go_to(sample.latents, sample.base)
        for tab in self._open_tabs():
            tab.fresh()

    def _mark(self, indices: np.ndarray) -> None:
        state, one = self.state, len(indices) == 1
        if one:
            self.quiet = True
            for widget, i in zip(self.places, samples.place_of(state, int(indices[0])), strict=True):
                widget.value = i
            self.quiet = False
        self.scatter.point(indices)
        if self.map is None:
            return
        if self._slice() != self.slice_drawn:
            self.show_layer()
        inside = None
        if not one:
            flags = np.zeros(state.nav_shape, bool)
            flags.ravel()[indices] = True
            inside = flags if flags.ndim == 2 else flags[self._slice()]
        self.map.select(inside)
        self.map.point(samples.place_of(state, int(indices[0]))[-2:] if one else None)  # type: ignore[arg-type]

    # ---- pictures and sliders

    def _pictures(self) -> None:
        names = list(HEADINGS) if self.state.has_model else ["stored"]
        self.pictures = Pictures(headings={name: HEADINGS[name] for name in names}, sizing_mode="stretch_width")
        self.shown: dict[str, xr.DataArray] = {}
        volume = s.is_volume(self.state)
        across = schema.signal_dims(self.state.ds)[-3] if volume else ""
        last = self.state.ds.sizes[across] - 1 if volume else 1
        self.slice = fields.IntSlider(label=f"Slice {across}", start=0, end=last, value=last // 2, width=260)
        self.slice.visible = volume
        self.depth = self.slice.value / last
        self.slice.param.watch(self.safe(lambda event: self._deeper(event.new / last)), "value")

    def _deeper(self, depth: float) -> None:
        self.depth = depth
        for name, da in self.shown.items():
            self._show(name, da)
        for tab in self._open_tabs():
            tab.fresh()

    def _show(self, name: str, da: xr.DataArray | None) -> None:
        if da is None:
            self.shown.pop(name, None)
            self.pictures.clear(name)
        else:
            self.shown[name] = da
            self.pictures.put(name, s.as_pictures(da, self.depth)[0], None if name == "stored" else self.limits)

    def _sliders(self) -> None:
        state = self.state
        self.sliders = Sliders(
            low=state.low.tolist(), high=state.high.tolist(), values=state.mean.tolist(), fixed=not state.has_model,
            band=[(state.mean - state.spread).tolist(), (state.mean + state.spread).tolist()],
            sizing_mode="stretch_width", max_width=872,
        )  # fmt: skip
        self.sliders.on_msg(self._message)

    def _message(self, event: Any) -> None:
        if "wanted" in event.data:
            self.safe(self.show_dimension)(int(event.data["wanted"]))
            return
        try:
            if self.sliders.take(event.data):
                self.safe(self.decode)()
        finally:
            self.sliders.answered += 1

    def go_to(self, vector: np.ndarray, base: np.ndarray | None) -> None:
        """Set the sliders, and decode what they show."""
        self.base = base
        self.sliders.to(vector)
        self.decode()

    def decode(self) -> None:
        """Decode what the sliders show."""
        if self.state.is_ready:
            self._show("live", decoding.decode(self.state, self.sliders.vector[None], base=self.base))

    def rebuild(self) -> None:
        """Show what was chosen as stored, as the network sees it, and its reconstruction on one scale."""
        sample = self.sample
        self._show("stored", sample.stored)
        if not self.state.is_ready:
            return
        self.limits, rebuilt = None, None
        if np.isfinite(sample.latents).all():
            rebuilt = decoding.decode(self.state, sample.latents[None], base=sample.base)
            self.limits = robust_limits(rebuilt.values, GREY_LIMITS)
        self._show("rebuilt", rebuilt)
        seen = decoding.seen(self.state, sample.members) if sample.members else None
        self._show("seen", None if seen is None else seen.mean(samples.PICTURE, keepdims=True))

    def _wait(self) -> None:
        """Pictures that need the network come once it is loaded."""
        state = self.state
        if state.is_ready:
            self.safe(self._ready)()
        elif not state.has_model or state.problem:
            self.tell(state.problem)
        else:
            self.tell("the network is being loaded …")
            document = pn.state.curdoc
            if document is not None and document.session_context is not None:
                document.add_timeout_callback(self._wait, POLL)

    def _ready(self) -> None:
        self.choose(self.chosen)
        if self.bar.value not in self.tabs:  # it was opened too early
            self.open(self.bar.value)

    # ---- the views below

    def _tabs(self) -> None:
        state = self.state
        names = [
            name
            for name, tab in TABS.items()
            if (state.has_model or not tab.needs_model) and (name != "Channels" or s.is_spatial(state))
        ]
        self.bar = fields.RadioButtonGroup(options=names, value=names[0])
        self.below = pn.Column(min_height=400, sizing_mode="stretch_width")
        self.bar.param.watch(self.safe(lambda event: self.open(event.new)), "value")
        self.open(names[0])

    def open(self, name: str) -> None:
        """Open a view; it is built the first time. One that takes long to draw is announced."""
        state = self.state
        if not TABS[name].needs_model or (state.is_ready and state.seconds < s.QUICK):
            self._draw(name)
        elif state.is_ready:
            self.below[:] = [pn.pane.HTML("drawing …")]
            self._later(self.safe(partial(self._draw, name)), TYPED)
        else:
            self.below[:] = [pn.pane.HTML(html.escape(text(state.problem or LOADING)))]

    def _draw(self, name: str) -> None:
        if name != self.bar.value:  # another has been opened since
            return
        if name not in self.tabs:
            self.tabs[name] = TABS[name](self)
        self.below[:] = [self.tabs[name].layout]
        if self.sample is not None:
            self.tabs[name].fresh()

    def _open_tabs(self) -> list[Any]:
        return [self.tabs[self.bar.value]] if self.bar.value in self.tabs else []

    def parts(self) -> dict[str, Any]:
        """What the page is made of, by the names of its template."""
        found = {
            "choosers": pn.Row(self.layer, *self.places, margin=0),
            "plane": pn.Column(
                pn.Row(self.plane, self.across, self.up, margin=0), self.pane(self.scatter.figure), self.pointer.frame
            ),
            "pictures": pn.Column(
                pn.Row(self.words, self.message, sizing_mode="stretch_width"), self.pictures, self.slice,
                sizing_mode="stretch_width",
            ),
            "tabs": pn.Column(self.bar, self.below, sizing_mode="stretch_width"),
        }  # fmt: skip
        if self.map is not None:
            found["map"] = self.pane(self.map.figure)
        return found
