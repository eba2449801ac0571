"""Sliders over latent dimensions, in units of the spread of each."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import panel as pn
import param

from vaearr.app.samples import Encoded, has_network

MAX_SLIDERS = 24  # shown without a filter
STEPS = 200  # of a slider
GRID = {
    "display": "grid",
    "grid-template-columns": "repeat(auto-fill, minmax(225px, 1fr))",
    "gap": "2px 20px",
    "padding": "0 12px",
}
NOTE = (
    "Most important first: share of {measure}, range and value in standard deviations from the mean "
    "of all samples."
)


class Sliders(param.Parameterized):
    """A slider for each of the most important dimensions, or for those that a filter names."""

    vector = param.Parameter(doc="values `(latent,)` of all dimensions, in units of the latents")
    filter = param.String(label="Dimensions", doc='such as "3, 8-12"; "" is the most important')

    def __init__(self, samples: Encoded) -> None:
        super().__init__(vector=samples.vectors[0].astype(float))
        self.samples = samples
        self.mean = samples.vectors.mean(0, dtype="f8")
        std = samples.vectors.std(0, dtype="f8")
        self.std = np.where(std > 0, std, 1.0)
        self.widgets: dict[int, Any] = {}
        self.grid = pn.Column(sizing_mode="stretch_width", styles=GRID)
        self.filter_input = pn.widgets.TextInput.from_param(
            self.param.filter, placeholder="such as 3, 8-12", width=170
        )
        self.param.watch(lambda _: self.arrange(), "filter")
        self.arrange()

    def arrange(self) -> None:
        """Show the sliders of the dimensions that the filter names."""
        dims = filtered(self.filter, len(self.vector)) or self.samples.most_important[:MAX_SLIDERS]
        for dim in dims:
            if dim not in self.widgets:
                self.widgets[dim] = self._slider(dim)
        self.grid.objects = [self.widgets[dim] for dim in dims]

    def set(self, vector: np.ndarray) -> None:
        """Move the sliders to latents `(latent,)`."""
        self.vector = np.array(vector, float)
        for dim, widget in self.widgets.items():
            widget.value = self._scaled(dim, self.vector[dim])

    def _scaled(self, dim: int, value: float) -> float:
        return float((value - self.mean[dim]) / self.std[dim])

    def _slider(self, dim: int) -> Any:
        values = self.samples.vectors[:, dim]
        start = self._scaled(dim, values.min())
        end = max(self._scaled(dim, values.max()), start + 1e-3)
        slider = pn.widgets.FloatSlider(
            label=f"latent {dim} · {self.samples.share(dim)} · {start:+.1f} to {end:+.1f}",
            start=start,
            end=end,
            value=self._scaled(dim, self.vector[dim]),
            step=(end - start) / STEPS,
            format="+0.00",
            tooltips=False,
            disabled=not has_network(self.samples.run),
            sizing_mode="stretch_width",
            margin=0,
        )
        slider.param.watch(partial(self._moved, dim), "value")
        return slider

    def _moved(self, dim: int, event: Any) -> None:
        value = self.mean[dim] + self.std[dim] * event.new
        if not np.isclose(value, self.vector[dim], rtol=1e-6):
            vector = self.vector.copy()
            vector[dim] = value
            self.vector = vector


def filtered(words: str, count: int) -> list[int]:
    """Dimensions below `count` that words such as "3, 8-12" name, in their order."""
    dims: list[int] = []
    for word in words.replace(",", " ").split():
        first, _, last = word.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            dims += range(int(first), min(int(last or first), count - 1) + 1)
    return list(dict.fromkeys(dims))
