"""The explorer's page for one visitor: a map and a scatter to choose from, the chosen sample, and
views of it.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import panel as pn
import param
import xarray as xr
from bokeh.models import FixedTicker
from panel.io import hold

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.latents import evenly_spaced, shifted, typical_index
from vaearr.app.samples import (
    GREY,
    NO_MODEL,
    Colouring,
    Encoded,
    as_pictures,
    coarse,
    coloured,
    has_network,
    is_map,
    layers_of,
    names_of,
    png,
    stored,
)
from vaearr.errors import UsageError, VaearrError
from vaearr.schema.grid import edges, grid_indices
from vaearr.views import common as c
from vaearr.views import on_paper, view
from vaearr.views.common import holoviews, robust_limits, text
from vaearr.views.maps import map_plot
from vaearr.views.paper import file_of

if TYPE_CHECKING:
    from vaearr import Run

MARK = "#e5007e"  # colour of the selection
MAX_SLIDERS = 32
MAX_POINTS = 10_000  # of the scatter
MAX_MARKS = 5000  # of a selection
MAX_PICTURES = 12  # samples that are shown one by one
MAX_DIMS = 5  # of one traversal
SPREAD = (0.5, 99.5)  # percentiles between which sliders run
MARGIN = 0.25  # share of that range that is added on both sides
STEPS = 7  # pictures of each dimension of a traversal
DPI = 110
SIDE = 205  # pixels of a picture
VIEW = (620, 385)  # pixels that a view below the pictures may take, width and height
MAP = (312, 240)
SCATTER = (312, 160)
SCATTER_ALONE = (312, 450)
HEADINGS = {
    "stored": "as stored",
    "seen": "as the network sees it",
    "rebuilt": "reconstruction",
    "live": "from the sliders",
}
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

    selected = param.Parameter(doc="rows of the selected samples; marks and views follow")

    def __init__(self, run: Run, samples: Encoded) -> None:
        super().__init__(selected=np.zeros(1, int))
        self.run, self.samples = run, samples
        self.layers = layers_of(run)
        self.has_network = has_network(run)
        self.row = 0  # of the sample that is shown
        self.vector = samples.vectors[0].astype(float)  # values of the sliders
        self.limits: tuple[float, float] | None = None  # grey values shared by the decoded pictures
        self.shown: dict[str, xr.DataArray] = {}
        self.sliders: dict[int, Slider] = {}
        self.words = pn.pane.HTML("", margin=(0, 10))
        self.message = pn.pane.HTML("", margin=(0, 10))
        self.pictures: dict[str, pn.pane.HTML] = {}
        for name in HEADINGS if self.has_network else ["stored"]:
            self.pictures[name] = pn.pane.HTML("", width=SIDE, height=SIDE + 22, margin=(0, 5))
        self._choosers()
        tabs = pn.Tabs(
            ("Sliders", self._sliders()), ("Samples", pn.bind(self._samples, self.param.selected))
        )
        if self.has_network:
            tabs.append(("Traversal", self._traversal()))
        scatter = pn.pane.HoloViews(self._scatter(), margin=0)
        self.left = pn.Column(pn.Row(self.layer, self.level), pn.Row(self.across, self.up), scatter)
        if is_map(run):
            self.left.insert(1, pn.pane.HoloViews(self._map(), margin=0))
        self.right = pn.Column(
            pn.Row(self.words, self.message), pn.Row(*self.pictures.values()), self.depth, tabs
        )
        self.select(np.array([self.typical(np.arange(len(samples.numbers)))]))

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

    def tell(self, words: str) -> None:
        """Show a message above the pictures; "" clears it."""
        self.message.object = f'<span role="status">{html.escape(text(words))}</span>'

    # ---- what is chosen

    def _choosers(self) -> None:
        run, titles = self.run, list(self.layers)
        widest = [f"latent {i}" for i in self.samples.widest]
        known = [name for name in ("label", n.CLUSTERS) if name in titles]
        colours = titles[0] if is_map(run) else [*known, *widest][0]
        self.layer = pn.widgets.Select(label="Show", options=titles, value=colours, width=150)
        self.across = pn.widgets.Select(label="Across", options=titles, value=widest[0], width=150)
        self.up = pn.widgets.Select(label="Up", options=titles, value=widest[:2][-1], width=150)
        planes = (
            schema.navigation_shape(run.ds)[0]
            if is_map(run) and len(schema.navigation_shape(run.ds)) == 3
            else 1
        )
        self.level = _index_slider("Plane", planes)
        cut = [dim for dim in (n.Z, n.DZ) if dim in schema.signal_dims(run.ds)]
        self.depth = _index_slider("Slice", run.ds.sizes[cut[0]] if cut else 1)
        self.depth.param.watch(self.safe(lambda _: self._show_again()), "value")

    def select(self, rows: np.ndarray, region: str = "") -> None:
        """Show a sample, or the most typical of several; the sliders move to its latents."""
        if not len(rows):
            return
        self.row = self.typical(rows)
        number = self.samples.numbers[[self.row]]
        title = names_of(self.run, number)[0]
        if len(rows) > 1:
            title = f"most typical of {len(rows):,} selected: {title}"
        self.words.object = f"<b>{html.escape(text(title))}</b>"
        self.tell(region if self.has_network else NO_MODEL)
        patterns = stored(self.run, number)
        self.show("stored", patterns)
        if self.has_network:
            rebuilt = self.run.decode_samples(self.samples.latents[[self.row]])
            self.limits = robust_limits(rebuilt.values, GREY)
            self.show("rebuilt", rebuilt)
            self.show("seen", self.run.as_decoded(patterns))
        self.go_to(self.samples.vectors[self.row])
        self.selected = rows

    def typical(self, rows: np.ndarray) -> int:
        """The most typical of some samples."""
        latents = self.samples.vectors[rows]
        return int(rows[typical_index(latents, latents.mean(0))])

    # ---- pictures

    def as_pictures(self, da: xr.DataArray) -> np.ndarray:
        """Samples as pictures, of volumes the chosen slice."""
        return as_pictures(da, self.depth.value / max(1, self.depth.end))

    def show(self, name: str, da: xr.DataArray) -> None:
        """Show a picture under its heading. All but the stored one share the reconstruction's
        scale.
        """
        self.shown[name] = da
        picture = self.as_pictures(da)[0]
        limits = self.limits if name != "stored" and self.limits else robust_limits(picture, GREY)
        style = (
            f"width: {SIDE}px; height: {SIDE}px; object-fit: contain; image-rendering: pixelated"
        )
        heading = HEADINGS[name]
        address = png(picture, limits, 2 * SIDE)
        image = f'<img alt="{heading}" decoding="sync" src="{address}" style="{style}">'
        self.pictures[name].object = f'<div style="font-weight: 600">{heading}</div>{image}'

    def _show_again(self) -> None:
        for name, da in self.shown.items():
            self.show(name, da)

    # ---- the map and the scatter

    def _linked(
        self, figure: Any, points: Callable[[], np.ndarray], size: float, region: Any, *follows: Any
    ) -> Any:
        """A figure in which a click selects the nearest sample, a box all samples inside; the
        selection is marked.

        points: positions of the samples in it, `(samples, 2)`, NaN where not in the figure. size:
        of the marks, in pixels. region: what a box is in words. follows: widgets that change the
        positions.
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
            low, high = np.sort(np.reshape(bounds, (2, 2)), axis=0)
            is_inside = ((points() >= low) & (points() <= high)).all(1)
            self.select(np.flatnonzero(is_inside), region(low, high))

        def marks(selected: np.ndarray, *_: Any) -> Any:
            positions = points()[selected[evenly_spaced(len(selected), MAX_MARKS)]]
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
        return overlay.opts(
            backend_opts={"plot.toolbar.logo": None, "plot.min_border_right": 75}, **BOKEH
        )

    def _map(self) -> Any:
        """The chosen layer as a map."""
        ds = self.run.ds
        place = grid_indices(self.run.ds, self.samples.numbers)
        y_dim, x_dim = list(place)[-2:]
        y, x = ds[y_dim].values, ds[x_dim].values
        positions = np.stack([x[place[x_dim]], y[place[y_dim]]], 1).astype(float)
        width, height = (float(np.ptp(edges(axis))) for axis in (x, y))
        scale = min(MAP[0] / width, MAP[1] / height)  # the same for both, so that lengths are true
        frame = {
            "frame_width": max(60, int(width * scale)),
            "frame_height": max(60, int(height * scale)),
        }

        def points() -> np.ndarray:
            if len(place) == 2:
                return positions
            in_plane = next(iter(place.values())) == self.level.value
            return np.where(in_plane[:, None], positions, np.nan)

        def draw(layer: str, _: int) -> Any:
            plane = coarse(self.plane_of(self.layers[layer].load()))
            figure = map_plot(plane, data_aspect=None, **frame)
            return figure.opts(hooks=[_colour_bar_ticks(coloured(plane))], **(SMALL | TOOLS))

        def region(low: np.ndarray, high: np.ndarray) -> str:
            x_option = f"--{x_dim} {low[0]:.6g}:{high[0]:.6g}"
            y_option = f"--{y_dim} {low[1]:.6g}:{high[1]:.6g}"
            return f"to train on them: {x_option} {y_option}"

        figure = holoviews().DynamicMap(pn.bind(draw, self.layer, self.level))
        mark_size = max(3.0, min(MAP[0] / x.size, MAP[1] / y.size))
        return self._linked(figure, points, mark_size, region, self.level)

    def plane_of(self, layer: xr.DataArray) -> xr.DataArray:
        """The plane of a layer that the map shows."""
        return layer if layer.ndim == 2 else layer[self.level.value]

    def _scatter(self) -> Any:
        """The samples over two layers, coloured by the chosen one."""

        def points() -> np.ndarray:
            values = [
                self.layers[axis.value].load().values.ravel() for axis in (self.across, self.up)
            ]
            return np.stack(values, 1)[self.samples.numbers].astype(float)

        def draw(across: str, up: str, layer: str) -> Any:
            look = coloured(self.layers[layer].load())
            values = look.values[self.samples.numbers]
            figure = points_plot(points(), [across, up], look, values)
            width, height = SCATTER if is_map(self.run) else SCATTER_ALONE
            title = c.title(f"coloured by {layer}")
            return figure.opts(
                title=title, frame_width=width, frame_height=height, framewise=True, **TOOLS
            )

        figure = holoviews().DynamicMap(pn.bind(draw, self.across, self.up, self.layer))
        return self._linked(figure, points, 4, lambda low, high: "", self.across, self.up)

    # ---- the views below

    def _sliders(self) -> Any:
        samples = self.samples
        dims = sorted(samples.widest[:MAX_SLIDERS])
        low, high = np.percentile(samples.vectors, SPREAD, axis=0)
        margin = np.maximum(MARGIN * (high - low), 1e-3)
        for i in dims:
            slider = Slider(
                label=f"latent {i}",
                start=float(low[i] - margin[i]),
                end=float(high[i] + margin[i]),
                value=float(samples.vectors[:, i].mean()),
                step=float(high[i] - low[i] + 2 * margin[i]) / 200,
                format="0.00",
                width=190,
                margin=(0, 10),
                disabled=not self.has_network,
            )
            slider.param.watch(self.safe(partial(self._moved, i)), "value")
            self.sliders[i] = slider
        back = pn.widgets.Button(label="Back to the sample", visible=self.has_network)
        back.on_click(self.safe(lambda _: self.go_to(samples.vectors[self.row])))
        count = samples.vectors.shape[1]
        note = f"The {len(dims)} of {count} dimensions that vary most." if len(dims) < count else ""
        return pn.Column(pn.Row(back, note), pn.GridBox(*self.sliders.values(), ncols=4))

    def _moved(self, dim: int, event: Any) -> None:
        if self.vector[dim] != event.new:
            self.vector[dim] = event.new
            self._decode()

    def go_to(self, vector: np.ndarray) -> None:
        """Set the sliders and decode."""
        self.vector = np.array(vector, float)
        for i, slider in self.sliders.items():
            value = float(vector[i])
            slider.param.update(
                start=min(slider.start, value), end=max(slider.end, value), value=value
            )
        self._decode()

    def latents(self) -> np.ndarray:
        """Latents of the shown sample moved to the sliders: `(1, latent[, lz, ly, lx])`."""
        return shifted(self.samples.latents[self.row], range(len(self.vector)), self.vector[None])

    def _decode(self) -> None:
        if self.has_network:
            self.show("live", self.run.decode_samples(self.latents()))

    def _samples(self, selected: np.ndarray) -> Any:
        """Pictures of some of the selected samples."""
        rows = selected[evenly_spaced(len(selected), MAX_PICTURES)]
        numbers = self.samples.numbers[rows]
        patterns = stored(self.run, numbers)
        shown = [self.as_pictures(patterns)]
        title = f"some of the {len(selected):,} selected samples, evenly spread"
        if self.has_network:
            rebuilt = self.run.decode_samples(self.samples.latents[rows])
            shown = [self.as_pictures(self.run.as_decoded(patterns)), self.as_pictures(rebuilt)]
            title += "; input above reconstruction"
        images = np.stack(shown, 1)
        return sheet(title, names_of(self.run, numbers), images, robust_limits(images, GREY))

    def _traversal(self) -> Any:
        """Dimensions moved about the sliders: which ones, how far, and the button that draws the
        sheet.
        """
        widest = self.samples.widest
        dims = pn.widgets.MultiChoice(
            label=f"Dimensions (at most {MAX_DIMS})",
            options=sorted(widest),
            value=widest[:3],
            max_items=MAX_DIMS,
            width=180,
        )
        reach: Any = pn.widgets.FloatInput(
            label="Reach (std)", value=3.0, start=0.1, end=20, step=0.5, width=95
        )
        button = pn.widgets.Button(label="Draw about the sliders", margin=(15, 10))

        def draw(clicks: int) -> Any:
            if not clicks:
                return None
            if not dims.value:
                raise UsageError("choose one dimension or more")
            span = (-reach.value, reach.value)
            found = self.run.traverse(dims.value, base=self.latents()[0], span=span, steps=STEPS)
            figure = on_paper(view(found))
            width, height = figure.get_size_inches()
            return pn.pane.PNG(
                file_of(figure, ".png", DPI), width=int(min(VIEW[0], VIEW[1] * width / height))
            )

        return pn.Row(
            pn.panel(pn.bind(self.safe(draw), button.param.clicks)), pn.Column(dims, reach, button)
        )


def _index_slider(label: str, size: int) -> Any:
    """A slider over the indices of a dimension, at its middle; hidden where there is one index
    only.
    """
    last = max(1, size - 1)
    return pn.widgets.IntSlider(label=label, end=last, value=last // 2, visible=size > 1, width=150)


def points_plot(points: np.ndarray, names: list[str], look: Colouring, values: np.ndarray) -> Any:
    """Points `(samples, 2)`, of many a part, in the colours of a layer."""
    rows = np.flatnonzero(np.isfinite(points).all(1))
    rows = rows[evenly_spaced(len(rows), MAX_POINTS)]
    figure = holoviews().Points((*points[rows].T, values[rows]), ["across", "up"], "value")
    return figure.opts(
        color="value",
        cmap=look.palette,
        clim=look.limits,
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


def _colour_bar_ticks(look: Colouring) -> Callable[..., None]:
    """Names of classes or even numbers at a colour bar. The ticker of a visible bar must not be
    replaced.
    """

    def hook(plot: Any, element: Any) -> None:
        for name, bar in plot.handles.items():
            if name.endswith("colorbar"):
                if not isinstance(bar.ticker, FixedTicker):
                    bar.ticker = FixedTicker()
                bar.ticker.ticks = look.ticks
                bar.major_label_overrides = dict(enumerate(look.names))

    return hook


def sheet(title: str, names: list[str], images: np.ndarray, limits: tuple[float, float]) -> Any:
    """Pictures `(samples, k, H, W[, 3])` on one scale, the k of a sample above each other over its
    name.
    """
    rows, height, width = images.shape[1:4]
    side = min(150 / height / rows, 94 / width)  # six in a row
    style = f"width: {width * side:.0f}px; margin: auto; display: block; image-rendering: pixelated"
    cells = ""
    for name, pictures in zip(names, images, strict=True):
        cells += '<span style="width: 98px">'
        for picture in pictures:
            cells += f'<img alt="" style="{style}" src="{png(picture, limits, 128)}">'
        cells += f"{html.escape(c.brief(name, 40))}</span>"
    box = (
        f"display: flex; flex-wrap: wrap; gap: 4px; width: {VIEW[0]}px; text-align: center; "
        "font-size: 11px"
    )
    return pn.pane.HTML(f'<p>{html.escape(title)}</p><div style="{box}">{cells}</div>')
