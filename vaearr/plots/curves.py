"""Views of a training: loss curves, latent health, reconstructions."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, UsageError
from vaearr.plots.common import (
    COLORS,
    DIVERGING,
    holoviews,
    robust_limits,
    title,
    value_text,
)
from vaearr.plots.decoded import pictures

# what a panel of the loss curves shows: heading, and variable -> legend
LOSS_PANELS: dict[str, dict[str, str]] = {
    "loss": {"loss": "training", "val_loss": "validation"},
    "reconstruction NLL": {"reconstruction_nll": "training", "val_reconstruction_nll": "validation"},
    "KL divergence": {"kl": "training", "val_kl": "validation"},
}
NATS = "nats per sample"
PANEL = 150  # pixels: width of a picture on a page


def loss_panels(history: xr.Dataset) -> dict[str, dict[str, xr.DataArray]]:
    """The curves of each panel that a history has, those without any finite value left out."""
    found: dict[str, dict[str, xr.DataArray]] = {}
    for heading, variables in LOSS_PANELS.items():
        curves = {
            legend: history[name].load()
            for name, legend in variables.items()
            if name in history and bool(np.isfinite(history[name]).any())
        }
        if curves:
            found[heading] = curves
    if not found:
        raise NoInputError("the history holds no losses; has the run been trained?")
    return found


def loss_curves(history: xr.Dataset, **kwargs: Any) -> Any:
    """Loss, reconstruction NLL and KL over epochs, training and validation, in nats per sample.

    `**kwargs` are options of `holoviews.Curve`.
    """
    hv = holoviews()
    panels = []
    for heading, curves in loss_panels(history).items():
        lines = []
        for position, (legend, values) in enumerate(curves.items()):
            data = (values[n.EPOCH].values, values.values.astype("f8"))
            style = {"color": COLORS[position], "backend": "bokeh"}
            line = hv.Curve(data, n.EPOCH, "value", label=legend)
            lines.append(line.opts(**{"line_width": 2, "tools": ["hover"]} | style | kwargs))
            if values.size < 3:
                lines.append(hv.Scatter(data, n.EPOCH, "value", label=legend).opts(size=7, **style))
        panel = hv.Overlay(lines).opts(
            title=title(heading), xlabel="epoch", ylabel=NATS, frame_width=280, frame_height=220,
            legend_position=_free_corner(curves), show_grid=True, backend="bokeh",
        )  # fmt: skip
        panels.append(panel)
    return hv.Layout(panels).cols(3).opts(shared_axes=False)


def _free_corner(curves: dict[str, xr.DataArray]) -> str:
    """Where a legend hides no curve: right, above curves that fall and below curves that rise."""
    rises = sum(float(values[-1] - values[0]) for values in curves.values()) > 0
    return "bottom_right" if rises else "top_right"


def health_bars(health: xr.Dataset, **kwargs: Any) -> Any:
    """KL divergence of each latent, active latents in blue and unused ones in grey.

    `**kwargs` are options of `holoviews.Bars`.
    """
    hv = holoviews()
    active = health["is_active"].values.astype(bool)
    rows = [
        (int(latent), float(kl), "active" if on else "unused")
        for latent, kl, on in zip(health[n.LATENT].values, health["kl"].values, active, strict=True)
    ]
    bars = hv.Bars(rows, [n.LATENT], ["kl", "state"])
    options = {
        "color": hv.dim("state").categorize({"active": COLORS[0], "unused": "#9a9a9a"}),
        "title": title(f"KL divergence of each latent: {int(active.sum())} of {active.size} active"),
        "xlabel": "latent", "ylabel": "KL (nats per sample)", "frame_width": 860, "frame_height": 200,
        "tools": ["hover"], "line_color": None, "backend": "bokeh", "xrotation": 90 if active.size > 24 else 0,
    }  # fmt: skip
    return bars.opts(**options | kwargs)


def sample_title(samples: xr.Dataset, position: int) -> str:
    """Where a sample comes from: its coordinates, or its number."""
    one = samples.isel({n.SAMPLE: position})
    found = [
        f"{dim} = {value_text(one[dim].item(), samples[dim].attrs)}" for dim in (n.X, n.Y, n.Z) if dim in one.coords
    ]
    return ", ".join(found) or f"sample {one[n.SAMPLE].item() if n.SAMPLE in one.coords else position}"


def reconstruction_parts(samples: xr.Dataset, position: int) -> tuple[list[tuple[str, np.ndarray]], float, float]:
    """Original, reconstruction and residual of a sample, `(H, W)` or of colour `(H, W, 3)`, and their common limits.

    Of a volume the middle slice; the residual of colour is the mean over channels.
    """
    one = samples.isel({n.SAMPLE: slice(position, position + 1)})
    pair = [pictures(one[name])[0] for name in ("input", "reconstruction")]
    if pair[0].shape != pair[1].shape:
        raise UsageError(f"original {pair[0].shape} and reconstruction {pair[1].shape} differ in size.")
    residual = pair[1] - pair[0]
    residual = residual.mean(-1) if residual.ndim == 3 else residual
    low, high = robust_limits(np.stack(pair))
    return [("original", pair[0]), ("reconstruction", pair[1]), ("residual", residual)], low, high


def reconstructions(samples: xr.Dataset, **kwargs: Any) -> Any:
    """Patterns as the network sees them, their reconstructions and the residuals (reconstruction - original).

    `samples` holds `input` and `reconstruction` over `sample, dy, dx`. The two share one colour scale (1-99 % of both);
    the residual has a scale of the same width centred at 0. `**kwargs` are options of `holoviews.Image`.
    """
    hv = holoviews()
    panels = []
    for position in range(samples.sizes[n.SAMPLE]):
        parts, low, high = reconstruction_parts(samples, position)
        for name, image in parts:
            half = (high - low) / 2
            residual = name == "residual"
            limits = (-half, half) if residual else (low, high)
            heading = sample_title(samples, position) if name == "original" else name
            rows, columns = image.shape[:2]
            options = {
                "frame_width": PANEL, "frame_height": max(1, round(PANEL * rows / columns)), "xaxis": None,
                "yaxis": None, "title": title(heading), "backend": "bokeh", "fontsize": {"title": 9},
            }  # fmt: skip
            bounds = (0, 0, columns, rows)
            if image.ndim == 3:
                view = hv.RGB(np.clip((image - low) / (high - low), 0, 1), [n.DX, n.DY], bounds=bounds)
            else:
                view = hv.Image(image, [n.DX, n.DY], bounds=bounds)
                options |= {"cmap": DIVERGING if residual else "gray", "clim": limits}
            panels.append(view.opts(**options | kwargs))
    return hv.Layout(panels).cols(3).opts(shared_axes=False)
