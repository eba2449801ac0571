"""The explorer's page for one visitor: maps and a scatter to choose from, the chosen sample, and
views of it.
"""

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
from bokeh.themes import default
from panel.io import hold

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.latents import shifted, typical_index
from vaearr.app.design import DARK, LIGHT
from vaearr.app.plots import Plots
from vaearr.app.samples import (
    GREY,
    NO_MODEL,
    Runs,
    as_pictures,
    has_network,
    is_map,
    layers_of,
    names_of,
    png,
    stored,
    summary,
)
from vaearr.app.selection import OUTLINED, downloads, selection_view
from vaearr.app.sliders import NOTE, Sliders
from vaearr.errors import UsageError, VaearrError
from vaearr.views.common import robust_limits, text

SIDE = 400  # pixels of a picture at most
STYLE = f"width: 100%; max-width: {SIDE}px; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated"
HEADING = "font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap"
SMALL = {"font-size": "13px"}
PICTURE = {"flex": "1 1 130px", "min-width": "0", "max-width": f"{SIDE}px", **SMALL}
WIDE = {"flex": "1 1 100%"}
LEFT = {"flex": "1 1 380px", "min-width": "min(100%, 340px)"}
RIGHT = {"flex": "2 1 560px", "min-width": "min(100%, 340px)"}
HEADINGS = {
    "stored": "as stored",
    "seen": "as the network sees it",
    "rebuilt": "reconstruction",
    "live": "from the sliders",
    "other": "by the other run",
}
SELECTION = 1  # number of its tab
NOBODY = "none"  # no run to compare with
# parameters that the address of the page remembers, by their names in it
REMEMBERED = {
    "run_name": "run",
    "layer": "layer",
    "across": "across",
    "up": "up",
    "plane": "plane",
    "sample": "sample",
    "other_name": "compare",
    "other_layer": "compared",
    "tab": "tab",
    "dark": "dark",
}

log = logging.getLogger("vaearr")


def indices(parameter: Any) -> Any:
    """A slider over the indices of a dimension, nothing if there is one index only."""
    if parameter.bounds[1] == 0:
        return pn.Spacer(width=0, height=0)
    return pn.widgets.IntSlider.from_param(parameter, width=136)


class Explorer(param.Parameterized):
    """The page of one visitor: `left` to choose samples from, `right` shows the chosen ones."""

    selected = param.Parameter(doc="rows of the selected samples; marks and views follow")
    sample = param.Integer(doc="number of the sample that is shown, row-major")
    run_name: Any = param.Selector(
        check_on_set=True, label="Run", doc="another one loads the page again"
    )
    layer: Any = param.Selector(check_on_set=True, label="Show")
    across: Any = param.Selector(check_on_set=True, label="Across")
    up: Any = param.Selector(check_on_set=True, label="Up")
    plane = param.Integer(label="Plane")
    other_name: Any = param.Selector(check_on_set=True, label="Compare with")
    other_layer: Any = param.Selector(check_on_set=True, label="Show")
    tab = param.Integer(doc="view below the pictures")
    dark = param.Boolean(label="Dark")
    depth = param.Integer(label="Slice", doc="of volumes")

    def __init__(self, runs: Runs, name: str) -> None:
        self.runs = runs
        self.samples = runs[name]
        self.run = self.samples.run
        self.layers = layers_of(self.run)
        self.other_layers: dict[str, xr.DataArray] = {}
        self.has_network = has_network(self.run)
        self.row = self.samples.typical  # row of the sample that is shown
        super().__init__(selected=np.array([self.row]))
        self._choices()
        self.limits: tuple[float, float] | None = None  # grey values shared by the decoded pictures
        self.arrays: dict[str, xr.DataArray] = {}
        self.heading = pn.pane.HTML("", margin=(0, 10), styles=SMALL)
        self.message = pn.pane.HTML("", margin=(0, 10), styles=SMALL)
        self.pictures: dict[str, pn.pane.HTML] = {}
        for picture in HEADINGS:
            self.pictures[picture] = pn.pane.HTML("", styles=PICTURE, margin=4)
        self.shown_pictures = pn.FlexBox(sizing_mode="stretch_width")
        self.sliders = Sliders(self.samples)
        self.plots = Plots(self)
        self.left = self._left()
        self.right = self._right()
        self._watch()
        self.select(self.selected)

    def _choices(self) -> None:
        """What can be chosen in this run, and what is chosen at first."""
        ds = self.run.ds
        titles = list(self.layers)
        structured = [f"latent {i}" for i in self.samples.most_structured[:2]]
        shape = schema.navigation_shape(ds)
        n_planes = shape[0] if len(shape) == 3 else 1
        dims = [dim for dim in (n.Z, n.DZ) if dim in schema.signal_dims(ds)]
        n_slices = ds.sizes[dims[0]] if dims else 1
        others = [name for name in self.runs.names if name != self.run.name]
        for name in ("layer", "across", "up"):
            self.param[name].objects = titles
        self.param.run_name.objects = self.runs.names
        self.param.other_name.objects = [NOBODY, *others]
        self.param.plane.bounds = (0, n_planes - 1)
        self.param.depth.bounds = (0, n_slices - 1)
        self.param.update(
            run_name=self.run.name,
            other_name=NOBODY,
            layer="label" if "label" in titles else structured[0],
            across=structured[0],
            up=structured[-1],
            plane=n_planes // 2,
            depth=n_slices // 2,
            sample=int(self.samples.numbers[self.row]),
        )

    def _watch(self) -> None:
        watch = self.param.watch
        watch(self.safe(self._sample_named), "sample")
        watch(self.safe(self._compare), "other_name")
        watch(self.safe(self._show_tab), ["selected", "tab"])
        watch(self.safe(self._show_again), "depth")
        watch(self.safe(self._theme), "dark")
        self.sliders.param.watch(self.safe(self._decode), "vector")

    # ---- the layout

    def _left(self) -> Any:
        """The maps and the scatter, and what they show."""
        column = pn.Column(sizing_mode="stretch_width", styles=LEFT)
        select = partial(pn.widgets.Select.from_param, width=136)
        has_others = len(self.runs.names) > 1
        choices = pn.FlexBox(
            select(self.param.run_name, visible=has_others),
            select(self.param.layer),
            indices(self.param.plane),
            select(self.param.other_name, visible=has_others),
        )
        column.append(choices)
        self.other_view = pn.Column(sizing_mode="stretch_width")
        self.other_choice = select(self.param.other_layer)
        if is_map(self.run):
            column += [self.plots.map(self.layers, self.param.layer), self.other_view]
        column.append(pn.FlexBox(select(self.param.across), select(self.param.up)))
        self.figure = self.plots.scatter()
        column.append(self.figure)
        return column

    def _right(self) -> Any:
        """The chosen sample, and views of it in tabs."""
        back = pn.widgets.Button(label="Back to the sample", visible=self.has_network, **OUTLINED)
        note = pn.pane.HTML(NOTE.format(measure=self.samples.measure), styles=SMALL)
        back.on_click(self.safe(lambda _: self.sliders.set(self.samples.vectors[self.row])))
        head = pn.FlexBox(self.sliders.filter_input, back, note, align_items="end")
        self.selection = pn.Column(sizing_mode="stretch_width")
        selection = pn.Column(downloads(self), self.selection, sizing_mode="stretch_width")
        self.tabs = pn.Tabs(
            ("Sliders", pn.Column(head, self.sliders.grid, sizing_mode="stretch_width")),
            ("Selection", selection),
            sizing_mode="stretch_width",
        )
        self.tabs.link(self, active="tab", bidirectional=True)
        return pn.Column(
            pn.FlexBox(self.heading, self.message),
            self.shown_pictures,
            indices(self.param.depth),
            self.tabs,
            sizing_mode="stretch_width",
            styles=RIGHT,
        )

    def view(self) -> Any:
        """Everything, in one column on a narrow screen."""
        words = pn.pane.HTML(
            f"<b>vaearr</b> <span>{html.escape(summary(self.run))}</span>",
            margin=(8, 12),
            styles=SMALL,
        )
        dark = pn.widgets.Toggle.from_param(self.param.dark, width=60, **OUTLINED)
        self.columns = pn.FlexBox(
            pn.FlexBox(words, dark, justify_content="space-between", styles=WIDE),
            self.left,
            self.right,
            align_items="flex-start",
        )
        self._theme()
        return self.columns

    def _theme(self, *_: Any) -> None:
        """Set the colours of the page and of the figures."""
        self.columns.styles = DARK if self.dark else LIGHT
        self.figure.theme = pn.theme.DarkTheme.bokeh_theme if self.dark else default

    def remember(self, location: Any) -> None:
        """Keep what is chosen in the address of the page, and take it from there."""

        def opens_again(_: Any) -> None:
            location.reload = True  # as soon as the address names the other run

        self.param.watch(opens_again, "run_name")
        for parameter, name in REMEMBERED.items():
            location.sync(self, {parameter: name})

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
            self.tab = SELECTION
        self.heading.object = f"<b>{html.escape(text(title))}</b>"
        self.tell("" if self.has_network else NO_MODEL)
        patterns = stored(self.run, number)
        self.show("stored", patterns)
        if self.has_network:
            rebuilt = self.run.decode_samples(self.samples.latents[[self.row]])
            self.limits = robust_limits(rebuilt.values, GREY)
            self.show("rebuilt", rebuilt)
            self.show("seen", self.run.as_decoded(patterns))
        self.sliders.set(self.samples.vectors[self.row])
        self._show_other()
        self.selected = rows
        self.sample = int(number[0])

    def _typical(self, rows: np.ndarray) -> int:
        latents = self.samples.vectors[rows]
        return int(rows[typical_index(latents, latents.mean(0))])

    def _sample_named(self, event: Any) -> None:
        """Select the sample that the address names."""
        if event.new == self.samples.numbers[self.row]:
            return
        rows = np.flatnonzero(self.samples.numbers == event.new)
        if not len(rows):
            raise UsageError(f"run {self.run.name!r} has no encoded sample {event.new}.")
        self.select(rows)

    def _compare(self, _: Any) -> None:
        """Show a map of the other run, and its reconstruction."""
        is_compared = self.other_name != NOBODY
        self.other_view.clear()
        if is_compared:
            other = self.runs[self.other_name]
            self.other_layers = layers_of(other.run)
            self.param.other_layer.objects = list(self.other_layers)
            self.other_layer = f"latent {other.most_structured[0]}"
            second = self.plots.map(self.other_layers, self.param.other_layer)
            self.other_view.objects = [self.other_choice, second]
        self._show_other()

    def _show_other(self) -> None:
        """Show the sample as the other run reconstructs it, next to the other pictures."""
        self.arrays.pop("other", None)
        if self.other_name != NOBODY:
            other = self.runs[self.other_name]
            rows = np.flatnonzero(other.numbers == self.samples.numbers[self.row])
            if len(rows) and has_network(other.run):
                self.show("other", other.run.decode_samples(other.latents[rows]))
        names = [name for name in HEADINGS if name in self.arrays]
        self.shown_pictures.objects = [self.pictures[name] for name in names]

    # ---- pictures

    def as_pictures(self, da: xr.DataArray) -> np.ndarray:
        """Samples as pictures, of volumes the chosen slice."""
        return as_pictures(da, self.depth / max(1, self.param.depth.bounds[1]))

    def show(self, name: str, da: xr.DataArray) -> None:
        """Show a picture under its heading; all but the stored one have the scale of the
        reconstruction.
        """
        self.arrays[name] = da
        picture = self.as_pictures(da)[0]
        limits = self.limits
        if name in ("stored", "other") or limits is None:
            limits = robust_limits(picture, GREY)
        heading = HEADINGS[name]
        address = png(picture, limits, SIDE)
        image = f'<img alt="{heading}" decoding="sync" src="{address}" style="{STYLE}">'
        self.pictures[name].object = f'<div style="{HEADING}">{heading}</div>{image}'

    def _show_again(self, _: Any) -> None:
        for name, da in self.arrays.items():
            self.show(name, da)

    def plane_of(self, layer: xr.DataArray) -> xr.DataArray:
        """The plane of a layer that the map shows."""
        return layer if layer.ndim == 2 else layer[self.plane]

    # ---- the views below

    def latents(self) -> np.ndarray:
        """Latents of the shown sample moved to the sliders: `(1, latent[, lz, ly, lx])`."""
        vector = self.sliders.vector
        return shifted(self.samples.latents[self.row], range(len(vector)), vector[None])

    def _decode(self, _: Any) -> None:
        if self.has_network:
            self.show("live", self.run.decode_samples(self.latents()))

    def _show_tab(self, _: Any) -> None:
        if self.tab == SELECTION:
            self.selection.objects = [selection_view(self)]
