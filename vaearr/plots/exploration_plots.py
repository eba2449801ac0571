"""How latents spread, on the screen: embeddings, pairs, histograms, heat maps, unusual samples, health, as HoloViews.

They render in a notebook and are saved with `save_view` (or `holoviews.save`) as a page that needs no server.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr.plots.common import COLORS, SEQUENTIAL, brief, holoviews, robust_limits, text, title
from vaearr.plots.components import variance_curve
from vaearr.plots.decoded import LIMITS, pictures
from vaearr.plots.exploration import units_of
from vaearr.plots.exploration_health import correlation_words, density_top, health_words, sample_words
from vaearr.plots.exploration_scatter import colors_of, embedding_words, legend_names, point_classes
from vaearr.plots.exploration_spread import DENSITY, levels_of, smoothed
from vaearr.plots.exploration_views import BOKEH, FRAME, heat_view, on_its_own, scatter_view, strip
from vaearr.plots.maps import map_plot

PANEL = 130  # pixels of one panel of a pair plot


def embedding_view(found: xr.Dataset) -> Any:
    """The positions of `embedding` by class and by each of its amounts; zoom and selection are linked."""
    hv = holoviews()
    position, axes = found["position"].values, [str(a) for a in found["axis"].values]
    if position.shape[1] == 1:
        position, axes = np.column_stack([position, np.zeros(len(position))]), [*axes, "no second component"]
    classes, numbers = point_classes(found), found["number"].values
    shown = []
    if classes is not None or "amount" not in found:
        shown.append(scatter_view(position, axes, classes, numbers))
    dims = [text(name) for name in axes]
    for name, values in zip(found["color"].values, found["amount"].values, strict=True) if "amount" in found else ():
        options = {
            "color": text(name), "cmap": SEQUENTIAL, "clim": robust_limits(values), "colorbar": True, "size": 4,
            "alpha": 0.8, "line_color": None, "tools": ["hover"], "frame_width": FRAME, "frame_height": FRAME,
            "data_aspect": 1, "title": title(name), "clabel": "",
        }  # fmt: skip
        points = hv.Points((*position.T, values, numbers), dims, [text(name), "sample"])
        shown.append(points.opts(**options, **BOKEH))
    if len(shown) == 1:
        return shown[0].opts(title=title(embedding_words(found)), **BOKEH)
    return hv.Layout(shown).cols(2).opts(title=title(embedding_words(found)), **BOKEH)


def pair_view(found: xr.Dataset) -> Any:
    """The result of `pairs` as a grid: histograms on the diagonal, densities and their contours elsewhere.

    The lines hold 50 % and 90 % of a Gaussian kernel estimate.
    """
    hv = holoviews()
    dims = [int(d) for d in found["latent"].values]
    edges = dict(zip(dims, found["edges"].values, strict=True))
    grid: dict[tuple[int, int], Any] = {}
    for dim, counts in zip(dims, found["counts"].values, strict=True):
        grid[dim, dim] = hv.Histogram((edges[dim], counts), kdims=f"latent {dim}", vdims="samples").opts(
            fill_color=COLORS[0], line_color=None, ylabel=f"latent {dim}", hooks=[_without_scale], **BOKEH
        )
    for x, y, density in zip(found["x_dim"].values, found["y_dim"].values, found["density"].values, strict=True):
        for one, other, values in ((int(x), int(y), density), (int(y), int(x), density.T)):
            grid[one, other] = _density(hv, edges[one], edges[other], values, found.attrs["n"], (one, other))
    return hv.GridMatrix(grid, kdims=["across", "up"]).opts(plot_size=PANEL, **BOKEH)


def _without_scale(plot: Any, _: Any) -> None:
    """The counts of a histogram are no scale for the densities beside it; white numbers keep its width."""
    for axis in plot.state.yaxis:
        axis.update(major_label_text_color="white", major_tick_line_alpha=0, minor_tick_line_alpha=0)


def _density(hv: Any, x: np.ndarray, y: np.ndarray, density: np.ndarray, count: int, dims: tuple[int, int]) -> Any:
    names = [f"latent {dim}" for dim in dims]
    shown = np.where(density > 0, density, np.nan)
    mesh = hv.QuadMesh((x, y, shown), names, "share").opts(
        cmap=DENSITY, line_color=None, clipping_colors={"NaN": "white"}, **BOKEH
    )
    return mesh * hv.Contours(_lines(x, y, smoothed(density, count)), names).opts(color=COLORS[5], **BOKEH)


def _lines(x: np.ndarray, y: np.ndarray, soft: np.ndarray) -> list[np.ndarray]:
    """Lines `(k, 2)` around the shares of a density."""
    from contourpy import contour_generator

    middles = [(edges[1:] + edges[:-1]) / 2 for edges in (x, y)]
    made = contour_generator(x=middles[0], y=middles[1], z=soft)
    return [np.asarray(line) for level in levels_of(soft) for line in made.lines(level)]


def histogram_view(found: xr.Dataset) -> Any:
    """The result of `histograms` as a HoloMap over the dimensions; by class, the share of each class's samples."""
    hv = holoviews()
    frames = {}
    by_class = "class" in found["counts"].dims
    for i, dim in enumerate(found["latent"].values):
        name, edges = f"latent {int(dim)}", found["edges"].values[i]
        options = {"frame_width": FRAME, "frame_height": 260, "title": name, **BOKEH}
        if not by_class:
            bars = hv.Histogram((edges, found["counts"].values[i]), kdims=name, vdims="samples")
            frames[int(dim)] = bars.opts(fill_color=COLORS[0], line_color="white", tools=["hover"], **options)
            continue
        counts = found["counts"].values[:, i]
        kept = [k for k, every in enumerate(found["counts"].values) if every.any()]
        labels = legend_names([found["class"].values[k] for k in kept])
        middles = (edges[1:] + edges[:-1]) / 2
        curves = {
            label: hv.Curve((middles, counts[k] / max(counts[k].sum(), 1)), name, "share of the class").opts(
                color=color, interpolation="steps-mid", line_width=1.5, **BOKEH
            )
            for k, label, color in zip(kept, labels, colors_of(len(kept)), strict=True)
        }
        overlay = hv.NdOverlay(curves, kdims=text(found.attrs["by"]))
        frames[int(dim)] = overlay.opts(legend_position="right", **options)
    return hv.HoloMap(frames, kdims="latent")


def activation_view(found: xr.Dataset) -> Any:
    """The result of `activations`: samples sorted by class, and the means of the classes, as heat maps."""
    hv = holoviews()
    values = found["activation"].values
    limits = robust_limits(values, symmetric=True)
    size = {"frame_width": FRAME, "frame_height": FRAME, "clim": limits}
    ticks: list[tuple[float, str]] = []
    if "class_of_point" in found.coords:
        codes, attrs = found["class_of_point"].values, found["class_of_point"].attrs
        words = dict(zip(attrs["flag_values"], attrs["flag_meanings"], strict=True))
        for code in np.unique(codes):
            place = np.flatnonzero(codes == code)
            if len(place) > len(codes) / 40:
                ticks.append((float(place.mean()), brief(words[int(code)], 14)))
    samples = heat_view(values, [], f"{len(values):,} of {found.attrs['n']:,} samples", yticks=ticks or 5, **size)
    if "class_mean" not in found:
        return samples
    names = [brief(name, 14) for name in found["class"].values]
    means = heat_view(found["class_mean"].values, names, f"means by {brief(found.attrs['by'])}", frame_width=FRAME)
    return hv.Layout([samples, means]).opts(shared_axes=False, **BOKEH)


def latent_pca_view(found: xr.Dataset) -> Any:
    """The result of `latent_pca`: loadings (of spatial latents their size over positions) and explained variance."""
    hv = holoviews()
    loadings = found["loadings"].values
    if loadings.ndim > 2:
        loadings = np.sqrt((loadings.reshape(*loadings.shape[:2], -1) ** 2).sum(-1))
    names = [str(i + 1) if i % max(1, len(loadings) // 16) == 0 else "" for i in range(len(loadings))]
    heat = heat_view(loadings, names, "loadings", ylabel="principal component", frame_width=380, frame_height=300)
    return hv.Layout([heat, variance_curve(found["explained_variance_ratio"])]).opts(shared_axes=False, **BOKEH)


def table_view(found: xr.Dataset) -> Any:
    """The result of `latent_table` as a table."""
    hv = holoviews()
    columns = {"latent": found["latent"].values}
    columns |= {str(s): found["summary"].sel(statistic=s).values for s in found["statistic"].values}
    return hv.Table(columns, ["latent"], list(columns)[1:]).opts(width=820, height=420, **BOKEH)


def unusual_view(found: xr.Dataset, maps: xr.Dataset) -> Any:
    """The most unusual samples of `unusual`, and the distances of all: the map of a scan, and the histogram."""
    hv = holoviews()
    images = pictures(found["input"])
    names = [f"{i + 1}: {float(d):.3g}" for i, d in enumerate(found["distance"].values)]
    heading = f"farthest from the others: distance ({units_of(found['input'])})"
    parts = [strip(images, names, robust_limits(images, LIMITS), heading)]
    values = maps["distance"].values[np.isfinite(maps["distance"].values)]
    counts, edges = np.histogram(values, bins=int(np.clip(np.sqrt(values.size), 10, 80)))
    bars = hv.Histogram((edges, counts), kdims="Mahalanobis distance", vdims="samples").opts(
        fill_color=COLORS[0], line_color=None, tools=["hover"], frame_width=FRAME, frame_height=220,
        title=f"{values.size:,} samples", **BOKEH,
    )  # fmt: skip
    if maps["distance"].ndim == 2:
        rows, across = (str(d) for d in maps["distance"].dims)
        marks = hv.Points(
            (found[across].values, found[rows].values, [sample_words(found.isel(point=i)) for i in range(len(names))]),
            [across, rows], "sample",
        ).opts(color="white", line_color="black", size=7, tools=["hover"], **BOKEH)  # fmt: skip
        parts.append(map_plot(maps["distance"].assign_attrs(long_name="Mahalanobis distance")) * marks)
    return hv.Layout([*parts, bars]).cols(1).opts(shared_axes=False, **BOKEH)


def latent_health_view(found: xr.Dataset) -> Any:
    """The result of `health`: KL, correlation, the aggregate posterior beside the prior, distances from it."""
    hv = holoviews()
    dims, active = found["latent"].values, found["is_active"].values.astype(bool)
    edges = np.append(dims, len(dims)) - 0.5
    size = {"frame_width": 350, "frame_height": 260, **BOKEH}
    heights = found["kl"].values if np.isfinite(found["kl"].values).any() else found["aggregate_std"].values ** 2
    what = "KL (nats per sample)" if np.isfinite(found["kl"].values).any() else "variance"
    kl = hv.Histogram((edges, heights), kdims="latent", vdims=text(what)).opts(
        fill_color=COLORS[0], line_color="white", tools=["hover"],
        title=f"{int(active.sum())} of {active.size} latents active", **size,
    )  # fmt: skip
    names = [str(d) if i % max(1, len(dims) // 12) == 0 else "" for i, d in enumerate(dims)]
    correlation = heat_view(
        found["correlation"].values, names, correlation_words(found), clim=(-1, 1), frame_width=260, frame_height=260,
        hooks=[on_its_own],
    )  # fmt: skip
    steps = found["edges"].values
    prior = found["prior"].values
    columns = np.column_stack([prior, np.full_like(prior, np.nan), *found["density"].values])
    across = np.concatenate([[-2.5, -1.5], edges])
    correlated = found.attrs["total_correlation"]
    about = "" if correlated is None else f", total correlation {correlated:.2g} nats"
    ticks = [(-2, "prior"), *((d, name) for d, name in zip(dims.tolist(), names, strict=True) if name)]
    mesh = hv.QuadMesh((across, steps, columns), ["latent", "value"], "share per unit").opts(
        cmap=SEQUENTIAL, colorbar=True, line_color=None, xticks=ticks, clipping_colors={"NaN": "white"},
        clim=(0, density_top(found)), title=f"aggregate posterior (share per unit){about}", tools=["hover"], **size,
    )  # fmt: skip
    distances = [
        hv.Curve((dims, found[name].values), "latent", "distance from the prior", label=words).opts(
            color=color, interpolation="steps-mid", **BOKEH
        )
        for name, words, color in (
            ("wasserstein", "Wasserstein", COLORS[0]),
            ("kolmogorov", "Kolmogorov-Smirnov", COLORS[1]),
        )
    ]
    far = max(float(found["wasserstein"].max()), float(found["kolmogorov"].max()), 0.05)
    last = hv.Overlay(distances).opts(
        title="distance from the prior", legend_position="top_right", ylim=(0, 1.4 * far), **size
    )
    heading = title(health_words(found)[0])
    return hv.Layout([kl, correlation, mesh, last]).cols(2).opts(shared_axes=False, title=heading, **BOKEH)
