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
from panel.io import hold

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.latents import evenly_spaced, shifted, typical_index
from vaearr.app.figures import BOKEH, SMALL, class_ticks, index_slider, points_plot, sheet
from vaearr.app.samples import (
    GREY,
    NO_MODEL,
    Encoded,
    as_pictures,
    coloured,
    has_network,
    is_map,
    layers_of,
    names_of,
    png,
    stored,
    thinned,
)
from vaearr.errors import UsageError, VaearrError
from vaearr.schema.grid import grid_indices
from vaearr.views import common as c
from vaearr.views import on_paper, view
from vaearr.views.common import holoviews, robust_limits, text
from vaearr.views.maps import map_plot
from vaearr.views.paper import file_of

if TYPE_CHECKING:
    from vaearr import Run

MARK = "#e5007e"  # colour of the selection
MAX_SLIDERS = 32
MAX_MARKS = 5000  # of a selection
MAX_PICTURES = 12  # samples that are shown one by one
MAX_DIMS = 5  # of one traversal
REACH = 3.0  # standard deviations to each side of a traversal
STEPS = 7  # pictures of each dimension of a traversal
DPI = 110
SIDE = 205  # pixels of a picture
STYLE = f"width: {SIDE}px; height: {SIDE}px; object-fit: contain; image-rendering: pixelated"
WIDTH = 620  # pixels of a view below the pictures
FRAME = 312  # pixels of the longer side of the map, and of the width of the scatter
HEADINGS = {
    "stored": "as stored",
    "seen": "as the network sees it",
    "rebuilt": "reconstruction",
    "live": "from the sliders",
}
TOOLS: dict[str, Any] = {
    "tools": ["hover", "box_select"],
    "default_tools": ["pan", "wheel_zoom", "reset", "save"],
    "active_tools": ["box_select"],
    "toolbar": "above",
}

log = logging.getLogger("vaearr")


class Explorer(param.Parameterized):
    """The page of one visitor: `left` to choose samples from, `right` shows the chosen ones."""

    selected = param.Parameter(doc="rows of the selected samples; marks and views follow")

    def __init__(self, run: Run, samples: Encoded) -> None:
        super().__init__(selected=np.zeros(1, int))
        self.run = run
        self.samples = samples
        self.layers = layers_of(run)
        self.has_network = has_network(run)
        self.row = 0  # of the sample that is shown
        self.vector = samples.vectors[0].astype(float)  # values of the sliders
        self.limits: tuple[float, float] | None = None  # grey values shared by the decoded pictures
        self.arrays: dict[str, xr.DataArray] = {}
        self.heading = pn.pane.HTML("", margin=(0, 10))
        self.message = pn.pane.HTML("", margin=(0, 10))
        self.pictures: dict[str, pn.pane.HTML] = {}
        for name in HEADINGS if self.has_network else ["stored"]:
            self.pictures[name] = pn.pane.HTML("", width=SIDE, height=SIDE + 22, margin=(0, 5))
        self.sliders = self._sliders()
        self.left = self._left()
        self.right = self._right()
        self.select(np.array([self._typical(np.arange(len(samples.numbers)))]))

    # ---- the layout

    def _left(self) -> Any:
        """The map and the scatter, and what they show."""
        titles = list(self.layers)
        widest = [f"latent {i}" for i in self.samples.widest[:2]]
        shape = schema.navigation_shape(self.run.ds)
        select = partial(pn.widgets.Select, options=titles, width=150)
        self.layer = select(label="Show", value="label" if "label" in titles else titles[0])
        self.across = select(label="Across", value=widest[0])
        self.up = select(label="Up", value=widest[-1])
        self.level = index_slider("Plane", shape[0] if len(shape) == 3 else 1)
        column = pn.Column(pn.Row(self.layer, self.level))
        if is_map(self.run):
            column.append(pn.pane.HoloViews(self._map(), margin=0))
        column.append(pn.Row(self.across, self.up))
        column.append(pn.pane.HoloViews(self._scatter(), margin=0))
        return column

    def _right(self) -> Any:
        """The chosen sample, and views of it in tabs."""
        sizes = self.run.ds.sizes
        depths = [sizes[dim] for dim in (n.Z, n.DZ) if dim in schema.signal_dims(self.run.ds)]
        self.depth = index_slider("Slice", depths[0] if depths else 1)
        self.depth.param.watch(self.safe(self._show_again), "value")
        back = pn.widgets.Button(label="Back to the sample", visible=self.has_network)
        back.on_click(self.safe(lambda _: self.go_to(self.samples.vectors[self.row])))
        count = self.samples.vectors.shape[1]
        note = f"{len(self.sliders)} of {count} dimensions, those that vary most."
        sliders = pn.Column(pn.Row(back, note), pn.GridBox(*self.sliders.values(), ncols=4))
        tabs = pn.Tabs(
            ("Sliders", sliders), ("Samples", pn.bind(self._samples, self.param.selected))
        )
        if self.has_network:
            tabs.append(("Traversal", self._traversal()))
        return pn.Column(
            pn.Row(self.heading, self.message), pn.Row(*self.pictures.values()), self.depth, tabs
        )

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

    def select(self, rows: np.ndarray) -> None:
        """Show a sample, or the most typical of several; the sliders move to its latents."""
        self.row = self._typical(rows)
        number = self.samples.numbers[[self.row]]
        title = names_of(self.run, number)[0]
        if len(rows) > 1:
            title = f"most typical of {len(rows):,} selected: {title}"
        self.heading.object = f"<b>{html.escape(text(title))}</b>"
        self.tell("" if self.has_network else NO_MODEL)
        patterns = stored(self.run, number)
        self.show("stored", patterns)
        if self.has_network:
            rebuilt = self.run.decode_samples(self.samples.latents[[self.row]])
            self.limits = robust_limits(rebuilt.values, GREY)
            self.show("rebuilt", rebuilt)
            self.show("seen", self.run.as_decoded(patterns))
        self.go_to(self.samples.vectors[self.row])
        self.selected = rows

    def _typical(self, rows: np.ndarray) -> int:
        latents = self.samples.vectors[rows]
        return int(rows[typical_index(latents, latents.mean(0))])

    # ---- pictures

    def as_pictures(self, da: xr.DataArray) -> np.ndarray:
        """Samples as pictures, of volumes the chosen slice."""
        return as_pictures(da, self.depth.value / max(1, self.depth.end))

    def show(self, name: str, da: xr.DataArray) -> None:
        """Show a picture under its heading; all but the stored one have the scale of the
        reconstruction.
        """
        self.arrays[name] = da
        picture = self.as_pictures(da)[0]
        limits = self.limits
        if name == "stored" or limits is None:
            limits = robust_limits(picture, GREY)
        heading = HEADINGS[name]
        address = png(picture, limits, 2 * SIDE)
        image = f'<img alt="{heading}" decoding="sync" src="{address}" style="{STYLE}">'
        self.pictures[name].object = f'<div style="font-weight: 600">{heading}</div>{image}'

    def _show_again(self, _: Any) -> None:
        for name, da in self.arrays.items():
            self.show(name, da)

    # ---- the map and the scatter

    def _linked(
        self,
        figure: Any,
        positions_of: Callable[[], np.ndarray],
        size: float,
        widgets: list[Any],
        dims: tuple[str, ...] = (),
    ) -> Any:
        """A figure in which a click selects the nearest sample, a box all samples inside; the
        selection is marked.

        positions_of: gives the positions of the samples in it, `(samples, 2)`, NaN where they are
        not in the figure; they change with `widgets`. size: of the marks, in pixels. dims: of a
        map, whose box is a region to train on.
        """
        hv = holoviews()

        def clicked(x: float | None, y: float | None) -> None:
            if x is None or y is None:
                return
            positions = positions_of()
            distance = (((positions - (x, y)) / np.nanstd(positions, 0)) ** 2).sum(1)
            self.select(np.array([np.nanargmin(distance)]))

        def boxed(bounds: tuple[float, float, float, float] | None) -> None:
            if bounds is None:
                return
            low, high = np.sort(np.reshape(bounds, (2, 2)), axis=0)
            positions = positions_of()
            rows = np.flatnonzero(((positions >= low) & (positions <= high)).all(1))
            if not len(rows):
                return
            self.select(rows)
            if dims and self.has_network:
                ends = zip(dims, low, high, strict=True)
                options = [f"--{dim} {start:.6g}:{stop:.6g}" for dim, start, stop in ends]
                self.tell(f"to train on them: {' '.join(options)}")

        def marks(selected: np.ndarray, *_: Any) -> Any:
            positions = positions_of()[selected[evenly_spaced(len(selected), MAX_MARKS)]]
            positions = positions[np.isfinite(positions).all(1)]
            style = {"size": size, "marker": "square", "fill_alpha": 0.6, "line_width": 0}
            if len(selected) == 1:
                style = {"size": 15, "marker": "circle_cross", "fill_alpha": 0, "line_width": 2}
            points = hv.Points(positions, figure[()].kdims)
            return points.opts(color=MARK, framewise=True, **style, **BOKEH)

        hv.streams.Tap(source=figure).add_subscriber(self.safe(clicked))
        hv.streams.BoundsXY(source=figure).add_subscriber(self.safe(boxed))
        overlay = figure * hv.DynamicMap(pn.bind(marks, self.param.selected, *widgets))
        return overlay.opts(
            backend_opts={"plot.toolbar.logo": None, "plot.min_border_right": 75}, **BOKEH
        )

    def _map(self) -> Any:
        """The chosen layer as a map."""
        ds = self.run.ds
        *levels, rows, columns = grid_indices(ds, self.samples.numbers).items()
        axes = (columns, rows)
        positions = np.stack([ds[dim].values[indices] for dim, indices in axes], 1).astype(float)

        def positions_of() -> np.ndarray:
            if not levels:
                return positions
            is_in_plane = levels[0][1] == self.level.value
            return np.where(is_in_plane[:, None], positions, np.nan)

        def draw(layer: str, _: int) -> Any:
            plane = thinned(self.plane_of(self.layers[layer].load()))
            figure = map_plot(plane, frame=FRAME)
            return figure.opts(hooks=[class_ticks(coloured(plane))], **SMALL, **TOOLS)

        figure = holoviews().DynamicMap(pn.bind(draw, self.layer, self.level))
        dims = tuple(dim for dim, _ in axes)
        size = max(3.0, FRAME / max(ds.sizes[dim] for dim in dims))
        return self._linked(figure, positions_of, size, [self.level], dims)

    def plane_of(self, layer: xr.DataArray) -> xr.DataArray:
        """The plane of a layer that the map shows."""
        return layer if layer.ndim == 2 else layer[self.level.value]

    def _scatter(self) -> Any:
        """The samples over two layers, coloured by the chosen one."""
        height = 160 if is_map(self.run) else 450

        def positions_of() -> np.ndarray:
            axes = [self.layers[axis.value].load() for axis in (self.across, self.up)]
            values = [axis.values.ravel()[self.samples.numbers] for axis in axes]
            return np.stack(values, 1).astype(float)

        def draw(across: str, up: str, layer: str) -> Any:
            colouring = coloured(self.layers[layer].load())
            values = colouring.values[self.samples.numbers]
            figure = points_plot(positions_of(), values, colouring)
            return figure.opts(
                title=c.title(f"coloured by {layer}"),
                xlabel=text(across),
                ylabel=text(up),
                frame_width=FRAME,
                frame_height=height,
                framewise=True,
                **TOOLS,
                **BOKEH,
            )

        figure = holoviews().DynamicMap(pn.bind(draw, self.across, self.up, self.layer))
        return self._linked(figure, positions_of, 4, [self.across, self.up])

    # ---- the views below

    def _sliders(self) -> dict[int, Any]:
        """A slider for each of the dimensions that vary most, over the values of the samples."""
        sliders = {}
        low, high = self.samples.vectors.min(0), self.samples.vectors.max(0)
        for i in sorted(self.samples.widest[:MAX_SLIDERS]):
            start, end = float(low[i]), max(float(high[i]), float(low[i]) + 1e-3)
            slider = pn.widgets.FloatSlider(
                label=f"latent {i}",
                start=start,
                end=end,
                value=start,
                step=(end - start) / 200,
                format="0.00",
                width=190,
                margin=(0, 10),
                disabled=not self.has_network,
            )
            slider.param.watch(self.safe(partial(self._moved, i)), "value")
            sliders[i] = slider
        return sliders

    def _moved(self, dim: int, event: Any) -> None:
        if self.vector[dim] != event.new:
            self.vector[dim] = event.new
            self._decode()

    def go_to(self, vector: np.ndarray) -> None:
        """Set the sliders and decode."""
        self.vector = np.array(vector, float)
        for i, slider in self.sliders.items():
            slider.value = self.vector[i].item()
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
        stacks = [patterns]
        title = f"some of the {len(selected):,} selected samples, evenly spread"
        if self.has_network:
            rebuilt = self.run.decode_samples(self.samples.latents[rows])
            stacks = [self.run.as_decoded(patterns), rebuilt]
            title += "; input above reconstruction"
        images = np.stack([self.as_pictures(stack) for stack in stacks], 1)
        return sheet(title, names_of(self.run, numbers), images, WIDTH)

    def _traversal(self) -> Any:
        """Dimensions moved about the sliders: which ones, and the button that draws the sheet."""
        widest = self.samples.widest
        dims = pn.widgets.MultiChoice(
            label=f"Dimensions (at most {MAX_DIMS})",
            options=sorted(widest),
            value=widest[:3],
            max_items=MAX_DIMS,
            width=180,
        )
        button = pn.widgets.Button(label="Draw about the sliders", margin=(15, 10))

        def draw(clicks: int) -> Any:
            if not clicks:
                return None
            if not dims.value:
                raise UsageError("choose one dimension or more")
            traversal = self.run.traverse(
                dims.value, base=self.latents()[0], span=(-REACH, REACH), steps=STEPS
            )
            return pn.pane.PNG(file_of(on_paper(view(traversal)), ".png", DPI), width=WIDTH)

        drawn = pn.panel(pn.bind(self.safe(draw), button.param.clicks))
        return pn.Row(drawn, pn.Column(dims, button))
