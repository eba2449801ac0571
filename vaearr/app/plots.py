"""The maps and the scatter of the explorer's page, in which samples are selected."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import panel as pn
import xarray as xr
from bokeh.models import CrosshairTool
from bokeh.models.annotations import Span

from vaearr.analysis.latents import evenly_spaced
from vaearr.app.figures import BOKEH, SMALL, class_ticks, points_plot
from vaearr.app.samples import coloured, is_map, thinned
from vaearr.schema.grid import grid_indices
from vaearr.views import common as c
from vaearr.views.common import holoviews, text
from vaearr.views.maps import map_plot

if TYPE_CHECKING:
    from vaearr.app.page import Explorer

MARK = "#e5007e"  # colour of the selection
MAX_MARKS = 5000  # of a selection
FRAME = 400  # pixels of the longer side of a map
MARGINS = (120, 80)  # pixels of axes, title and colour bar across and down
TOOLS: dict[str, Any] = {
    "tools": ["hover", "box_select"],
    "default_tools": ["pan", "wheel_zoom", "reset", "save"],
    "active_tools": ["box_select"],
    "toolbar": "above",
}


class Plots:
    """Figures in which a click selects the nearest sample, and a box all samples inside it."""

    def __init__(self, page: Explorer) -> None:
        self.page = page
        self.numbers = page.samples.numbers
        style: dict[str, Any] = {"line_dash": "dotted", "line_color": MARK}
        self.pointer = (Span(dimension="width", **style), Span(dimension="height", **style))

    def map(self, layers: dict[str, xr.DataArray], layer: Any) -> Any:
        """The chosen one of some layers over the grid of the scan, with a shared pointer.

        layer: the reference to its title, which can change.
        """
        ds = self.page.run.ds
        *levels, rows, columns = grid_indices(ds, self.numbers).items()
        axes = (columns, rows)
        positions = np.stack([ds[dim].values[indices] for dim, indices in axes], 1).astype(float)
        lengths = [ds.sizes[dim] for dim, _ in axes]
        width, height = np.array(lengths) / max(lengths) * FRAME + MARGINS

        def positions_of() -> np.ndarray:
            if not levels:
                return positions
            is_in_plane = levels[0][1] == self.page.plane
            return np.where(is_in_plane[:, None], positions, np.nan)

        def draw(title: str, _: int) -> Any:
            plane = thinned(self.page.plane_of(layers[title].load()))
            size = {"frame_width": None, "frame_height": None, "data_aspect": None}
            return map_plot(plane, frame=None).opts(
                hooks=[class_ticks(coloured(plane)), self._add_pointer],
                aspect=width / height,
                responsive="width",
                **size,
                **SMALL,
                **TOOLS,
            )

        figure = holoviews().DynamicMap(pn.bind(draw, layer, self.page.param.plane))
        size = max(3.0, FRAME / max(lengths))
        return self._selectable(figure, positions_of, size, [self.page.param.plane])

    def _add_pointer(self, plot: Any, _: Any) -> None:
        figure = plot.handles["plot"]
        if not figure.select({"type": CrosshairTool}):
            figure.add_tools(CrosshairTool(overlay=self.pointer))

    def scatter(self) -> Any:
        """The samples over two layers, coloured by the chosen one."""
        page = self.page

        def positions_of() -> np.ndarray:
            axes = [page.layers[axis].load() for axis in (page.across, page.up)]
            values = [axis.values.ravel()[self.numbers] for axis in axes]
            return np.stack(values, 1).astype(float)

        def draw(across: str, up: str, layer: str) -> Any:
            colouring = coloured(page.layers[layer].load())
            figure = points_plot(positions_of(), colouring.values[self.numbers], colouring)
            return figure.opts(
                title=c.title(f"coloured by {layer}"),
                xlabel=text(across),
                ylabel=text(up),
                responsive=True,
                height=270 if is_map(page.run) else 500,
                framewise=True,
                **TOOLS,
                **BOKEH,
            )

        axes = [page.param.across, page.param.up]
        figure = holoviews().DynamicMap(pn.bind(draw, *axes, page.param.layer))
        return self._selectable(figure, positions_of, 4, axes)

    def _selectable(
        self,
        figure: Any,
        positions_of: Callable[[], np.ndarray],
        size: float,
        changing: list[Any],
    ) -> Any:
        """A figure in which samples are selected, and the selected ones are marked.

        positions_of: gives the positions of the samples in it, `(samples, 2)`, NaN where they are
        not in the figure; they change with the parameters `changing`. size: of the marks, in
        pixels.
        """
        hv = holoviews()
        page = self.page

        def clicked(x: float | None, y: float | None) -> None:
            if x is None or y is None:
                return
            positions = positions_of()
            distance = (((positions - (x, y)) / np.nanstd(positions, 0)) ** 2).sum(1)
            page.select(np.array([np.nanargmin(distance)]))

        def boxed(bounds: tuple[float, float, float, float] | None) -> None:
            if bounds is None:
                return
            low, high = np.sort(np.reshape(bounds, (2, 2)), axis=0)
            positions = positions_of()
            rows = np.flatnonzero(((positions >= low) & (positions <= high)).all(1))
            if not len(rows):
                return
            page.select(rows)

        def marks(selected: np.ndarray, *_: Any) -> Any:
            positions = positions_of()[selected[evenly_spaced(len(selected), MAX_MARKS)]]
            positions = positions[np.isfinite(positions).all(1)]
            style = {"size": size, "marker": "square", "fill_alpha": 0.6, "line_width": 0}
            if len(selected) == 1:
                style = {"size": 15, "marker": "circle_cross", "fill_alpha": 0, "line_width": 2}
            points = hv.Points(positions, figure[()].kdims)
            return points.opts(color=MARK, framewise=True, **style, **BOKEH)

        hv.streams.Tap(source=figure).add_subscriber(page.safe(clicked))
        hv.streams.BoundsXY(source=figure).add_subscriber(page.safe(boxed))
        overlay = figure * hv.DynamicMap(pn.bind(marks, page.param.selected, *changing))
        overlay = overlay.opts(
            backend_opts={
                "plot.toolbar.logo": None,
                "plot.min_border_right": 75,
                "plot.min_border_left": 60,
            },
            **BOKEH,
        )
        return pn.pane.HoloViews(overlay, margin=0, sizing_mode="stretch_width")
