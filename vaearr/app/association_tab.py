"""The stored association of the latents with the side maps: a ranking, and the two maps side by side."""

from __future__ import annotations

import html
import shlex
from typing import Any

import numpy as np
import panel as pn

from vaearr import names as n
from vaearr import schema
from vaearr.app import fields
from vaearr.app import state as s
from vaearr.app.maps import Map
from vaearr.app.scatter import Scatter
from vaearr.app.tabs import Page
from vaearr.association.table import ranking
from vaearr.plots.common import text

STRENGTHS = ((0.7, "strongly"), (0.4, "moderately"), (0.2, "weakly"))
SIZE = (225, 215)


class AssociationTab:
    """The ranking of a measure and a side map; a dimension chosen in it is shown beside the side map."""

    needs_model = False

    def __init__(self, page: Page) -> None:
        self.page = page
        self.table: Any = s.associations(page.state)
        if self.table is None:
            command = f"vaearr associate {shlex.quote(text(page.state.path))} --run {shlex.quote(text(page.state.run))}"
            self.layout: Any = pn.pane.HTML(
                f"There is no table of these latents and maps yet. Make it with <pre>{html.escape(command)}</pre> "
                "and load this page again."
            )
            return
        self.metric, self.target = (
            fields.Select(label=label, options=options_of(self.table[dim].values), width=190)
            for label, dim in (("Measure", "metric"), ("Side map", "target"))
        )
        self.ranks = fields.Select(label="Latent dimensions, strongest first", size=12, width=200)
        self.words = pn.pane.HTML("", width=500)
        self.pair: list[Any] = []
        state = page.state
        if state.is_scan:
            rows, columns = (state.ds[dim] for dim in schema.navigation_dims(state.ds)[-2:])
            self.pair = [Map(rows, columns, None, SIZE, name=name) for name in ("ranked", "target")]
        self.points = Scatter((400, SIZE[1]), None, name="pair")
        views = self.pair or [self.points]
        for widget in (self.metric, self.target):
            widget.param.watch(page.safe(lambda _: self.list()), "value")
        self.ranks.param.watch(page.safe(lambda event: self.show(event.new)), "value")
        self.layout = pn.Row(
            pn.Column(self.metric, self.target, self.ranks, width=220),
            pn.Column(self.words, pn.Row(*(page.pane(view.figure) for view in views))),
        )
        self.list()

    def fresh(self) -> None:
        """The table does not depend on what is chosen."""

    def list(self) -> None:
        """List the dimensions by the chosen measure and show the first."""
        found = ranking(self.table, self.metric.value, self.target.value, top=self.page.state.dims)
        rows = [
            (int(dim), float(value), bool(tied))
            for dim, value, tied in zip(
                found[n.LATENT].values, found["value"].values, found["is_tied"].values, strict=True
            )
        ]
        self.values = {dim: value for dim, value, _ in rows}
        options = {
            f"latent {dim}: {value:+.3f}{' (tied)' if tied else ''}".replace("-", "−"): dim for dim, value, tied in rows
        }
        first = next(iter(options.values()), None)
        self.ranks.param.update(options=options, value=first)
        if first is not None:
            self.draw(first)

    def show(self, dim: int | None) -> None:
        """Show a dimension here and in the large map."""
        if dim is not None:
            self.draw(dim)
            self.page.show_dimension(dim)

    def draw(self, dim: int) -> None:
        """Draw a dimension beside the side map, with its value in words."""
        state, target = self.page.state, self.target.value
        value = self.values[dim]
        signed = bool(self.table["signed"].sel(metric=self.metric.value)) if "signed" in self.table.coords else True
        points = int(self.table["n"].sel(target=target)) if "n" in self.table.coords else 0
        said = in_words(dim, text(target), self.metric.value, value, signed, points)
        self.words.object = f'<span id="said">{html.escape(said)}</span>'
        beside = s.target(state, target)
        latent = s.layer(state, f"latent:{dim}")
        if self.pair:
            for view, da in zip(self.pair, (latent, beside), strict=True):
                view.show(self.page.slice_of(da))
        else:
            both = np.stack([latent.values.ravel(), np.asarray(beside.values, np.float32).ravel()], 1)
            self.points.show(both, (f"latent {dim}", text(target)), beside)


def options_of(values: np.ndarray) -> dict[str, str]:
    """Names as options, shown without control characters."""
    return {text(v): str(v) for v in values}


def in_words(dim: int, target: str, metric: str, value: float, signed: bool, points: int) -> str:
    """An association in words."""
    size = next((word for least, word in STRENGTHS if abs(value) >= least), "hardly")
    how = "goes" if not signed or size == "hardly" else "rises" if value > 0 else "falls"
    joined = "with" if not signed or size == "hardly" else "as"
    end = f"{target}" if joined == "with" else f"{target} rises"
    number = f"{value:+.2f}".replace("-", "−")
    return f"latent {dim} {size} {how} {joined} {end}: {metric.replace('_', ' ')} {number} over {points:,} points"
